//! The result of a run for programs: the report file, and what `--json` prints. People read the same report on the serial
//! console, where the kernel prints it: it looks the same on a real machine.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde::Serialize;

use crate::paths;
use crate::record::Report;
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
    /// How it ended: `success`, `failed`, `usage`, `panic`, `timed-out`, `deadline`, `died`, `host`, `interrupted`.
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
        Status::Deadline => "deadline",
        Status::Unsupported => "unsupported",
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
        save_in(folder, &format!("{}-{}", self.app, self.machine), self)
    }
}

/// Writes a result that is no run of an application below `target/faultline/reports`, likewise.
///
/// # Errors
/// When the file cannot be written.
pub fn save(name: &str, report: &impl Serialize) -> anyhow::Result<PathBuf> {
    save_in(&paths::folder("reports")?, name, report)
}

fn save_in(folder: &Path, name: &str, report: &impl Serialize) -> anyhow::Result<PathBuf> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let stem = format!("{name}-{}", timestamp(now));
    for number in 1_u32.. {
        let suffix = if number == 1 {
            String::new()
        } else {
            format!("-{number}")
        };
        let path = folder.join(format!("{stem}{suffix}.json"));
        match std::fs::File::create_new(&path) {
            Ok(file) => {
                serde_json::to_writer_pretty(file, report)
                    .with_context(|| format!("cannot write {}", path.display()))?;
                return Ok(path);
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("cannot write {}", path.display())),
        }
    }
    unreachable!("the loop ends only by returning")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Figure;

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
        let figures = vec![Figure {
            name: "pages".into(),
            value: 16_384,
            unit: "pages".into(),
        }];
        let report = Report {
            figures,
            ..Report::default()
        };
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
