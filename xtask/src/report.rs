//! The result of a run: as tables for a person, as JSON for a program.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::record::{Figure, Report, Table};
use anyhow::Context;
use serde::Serialize;

use crate::paths;
use crate::size::human;
use crate::status::Status;

/// Everything about one run, as it is written to the report file and printed by `--json`.
#[derive(Serialize, Debug)]
pub struct RunReport<'a> {
    /// The application.
    pub app: &'a str,
    /// The machine.
    pub machine: &'a str,
    /// The emulator's command line.
    pub command: String,
    /// The kernel's command line.
    pub cmdline: &'a str,
    /// How it ended: `success`, `failed`, `usage`, `panic`, `timed-out`, `died`, `host`, `interrupted`.
    pub verdict: &'static str,
    /// What xtask ends with.
    pub exit_status: u8,
    /// One sentence.
    pub message: &'a str,
    /// Seconds of wall-clock time, of no meaning beyond "did it take long".
    pub seconds: f64,
    /// The application's own report.
    pub report: Option<&'a Report>,
    /// The panic with its backtrace.
    pub panic: Option<PanicReport>,
}

/// A panic, named.
#[derive(Serialize, Clone, Debug)]
pub struct PanicReport {
    /// The message.
    pub message: String,
    /// Source place.
    pub location: String,
    /// The task that ran.
    pub task: String,
    /// One frame a line, innermost first.
    pub backtrace: Vec<String>,
}

/// The verdict's word in JSON.
pub const fn verdict_word(status: Status) -> &'static str {
    match status {
        Status::Success => "success",
        Status::Failed => "failed",
        Status::Usage => "usage",
        Status::Panic => "panic",
        Status::TimedOut => "timed-out",
        Status::Missing => "missing",
        Status::Died => "died",
        Status::Build => "build",
        Status::Host => "host",
        Status::Interrupted => "interrupted",
    }
}

impl RunReport<'_> {
    /// Writes it below `target/faultline/reports` under a name of its own; returns the path.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self) -> anyhow::Result<PathBuf> {
        self.save_in(&paths::folder("reports")?)
    }

    fn save_in(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let stem = format!("{}-{}-{}", self.app, self.machine, timestamp(now));
        for number in 1_u32.. {
            let suffix = if number == 1 {
                String::new()
            } else {
                format!("-{number}")
            };
            let path = folder.join(format!("{stem}{suffix}.json"));
            match std::fs::File::create_new(&path) {
                Ok(file) => {
                    serde_json::to_writer_pretty(file, self)
                        .with_context(|| format!("cannot write {}", path.display()))?;
                    return Ok(path);
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| format!("cannot write {}", path.display())),
            }
        }
        unreachable!("the loop ends only by returning")
    }
}

/// `20261121T064512Z` for a time since 1970, in UTC.
fn timestamp(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days are counted from 1 March of year 0 in eras of 400 years (146 097 days), so that the leap day comes last.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!(
        "{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

/// The application's report as text.
pub fn render(report: &Report) -> String {
    let mut out = format!("{} report\n", report.app);
    if !report.options.is_empty() {
        let options: Vec<String> = report
            .options
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        out += &format!("  with {}\n", options.join(" "));
    }
    out += &figures(&report.figures);
    for table in &report.tables {
        out += "\n";
        out += &render_table(table);
    }
    for failure in &report.failures {
        out += &format!("\n  FAILED: {failure}");
    }
    out.trim_end().to_owned()
}

fn figures(figures: &[Figure]) -> String {
    let name_width = figures
        .iter()
        .map(|figure| width(&figure.name))
        .max()
        .unwrap_or(0);
    let values: Vec<String> = figures.iter().map(|figure| grouped(figure.value)).collect();
    let value_width = values.iter().map(String::len).max().unwrap_or(0);
    let line = |(figure, value): (&Figure, &String)| {
        let pad = " ".repeat(name_width - width(&figure.name));
        let readable = if figure.unit == "bytes" && figure.value >= 1024 {
            format!(" ({})", human(figure.value))
        } else {
            String::new()
        };
        format!(
            "  {}{pad}  {value:>value_width$} {}{readable}\n",
            figure.name, figure.unit
        )
    };
    figures.iter().zip(&values).map(line).collect()
}

/// A table with right-aligned numbers; the unit stands in its title.
fn render_table(table: &Table) -> String {
    let cells: Vec<Vec<String>> = table
        .rows
        .iter()
        .map(|(_, numbers)| numbers.iter().map(|number| grouped(*number)).collect())
        .collect();
    let name_width = table.rows.iter().map(|(name, _)| width(name)).max().unwrap_or(0);
    let columns = table
        .columns
        .len()
        .max(cells.iter().map(Vec::len).max().unwrap_or(0));
    let head = |column: usize| table.columns.get(column).map_or("", String::as_str);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let widest = cells
                .iter()
                .filter_map(|row| row.get(column))
                .map(String::len)
                .max();
            widest.unwrap_or(0).max(width(head(column)))
        })
        .collect();
    let row = |name: &str, cell: &dyn Fn(usize) -> String| {
        let mut line = format!("  {name}{}", " ".repeat(name_width - width(name)));
        for (column, column_width) in widths.iter().enumerate() {
            let text = cell(column);
            line += &format!("  {}{text}", " ".repeat(column_width - width(&text)));
        }
        line.trim_end().to_owned() + "\n"
    };
    let mut out = format!("  {} [{}]\n", table.title, table.unit);
    out += &row("", &|column| head(column).to_owned());
    for ((name, _), cells) in table.rows.iter().zip(&cells) {
        out += &row(name, &|column| cells.get(column).cloned().unwrap_or_default());
    }
    out
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// `1234567` as `1 234 567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let figure = |name: &str, value, unit: &str| Figure {
            name: name.into(),
            value,
            unit: unit.into(),
        };
        Report {
            app: "restore".into(),
            options: vec![("order".into(), "random".into())],
            figures: vec![
                figure("pages", 16_384, "pages"),
                figure("copied", 67_108_864, "bytes"),
            ],
            tables: vec![Table {
                title: "latency".into(),
                unit: "instructions".into(),
                columns: vec!["min".into(), "p50".into()],
                rows: vec![("missing read".into(), vec![900, 1200]), ("wp".into(), vec![1])],
            }],
            failures: vec![],
        }
    }

    #[test]
    fn the_report_reads_as_tables_with_units() {
        let expected = "\
restore report
  with order=random
  pages       16 384 pages
  copied  67 108 864 bytes (64 MiB)

  latency [instructions]
                min    p50
  missing read  900  1 200
  wp              1";
        assert_eq!(render(&report()), expected);
    }

    #[test]
    fn failures_stand_out() {
        let failed = Report {
            failures: vec!["page 7 differs".into()],
            ..Report::default()
        };
        assert!(render(&failed).contains("FAILED: page 7 differs"));
    }

    #[test]
    fn timestamps_are_right_on_hard_days() {
        let at = |seconds| timestamp(Duration::from_secs(seconds));
        assert_eq!(at(0), "19700101T000000Z");
        assert_eq!(at(951_782_399), "20000228T235959Z");
        assert_eq!(at(951_782_400), "20000229T000000Z");
        assert_eq!(at(1_709_251_199), "20240229T235959Z");
        assert_eq!(at(4_107_542_400), "21000301T000000Z");
    }

    #[test]
    fn two_reports_of_one_second_get_two_files() {
        let dir = tempfile::tempdir().unwrap();
        let report = report();
        let run = RunReport {
            app: "restore",
            machine: "qemu-pvh",
            command: String::new(),
            cmdline: "restore",
            verdict: verdict_word(Status::Success),
            exit_status: 0,
            message: "done",
            seconds: 0.5,
            report: Some(&report),
            panic: None,
        };
        let paths = [run.save_in(dir.path()).unwrap(), run.save_in(dir.path()).unwrap()];
        assert_ne!(paths[0], paths[1]);
        let read: serde_json::Value = serde_json::from_slice(&std::fs::read(&paths[0]).unwrap()).unwrap();
        assert_eq!(read["report"]["figures"][0]["value"], 16_384);
    }
}
