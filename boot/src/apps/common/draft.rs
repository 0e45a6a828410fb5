//! A report in the making.

use alloc::string::{String, ToString};

use kernel::arch::{Clock, Machine};
use kernel::lab::samples::{Samples, Summary};
use kernel::trace::cmdline::{COMMON_KEYS, Cmdline, CmdlineError};
use kernel::trace::record::{Report, Table};

use crate::apps::Done;

/// A report, and the unit of its times.
pub struct Draft {
    report: Report,
    icount: bool,
}

impl Draft {
    /// An empty report of the application that the command line names, with the options that it was given.
    ///
    /// # Errors
    /// `icount` is neither 0 nor 1.
    pub fn new(cmdline: &Cmdline<'static>) -> Result<Self, CmdlineError<'static>> {
        let pairs = cmdline.pairs().filter(|(key, _)| !COMMON_KEYS.contains(key));
        let report = Report {
            app: cmdline.app().unwrap_or_default().into(),
            options: pairs
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect(),
            ..Report::default()
        };
        Ok(Self {
            report,
            icount: cmdline.flag("icount")?,
        })
    }

    /// Adds a figure.
    pub fn figure(&mut self, name: &str, value: u64, unit: &str) {
        self.report.figure(name, value, unit);
    }

    /// Adds a figure in pages.
    pub fn pages(&mut self, name: &str, pages: usize) {
        self.figure(name, pages as u64, "pages");
    }

    /// Adds a time. Under icount a tick is an instruction; else times are for people. What did not come to pass has no
    /// time.
    pub fn time(&mut self, name: &str, ticks: Option<u64>) {
        let Some(ticks) = ticks else { return };
        if self.icount {
            return self.figure(name, ticks, "instructions");
        }
        let micros = u128::from(ticks) * 1_000_000 / u128::from(Machine::frequency().max(1));
        self.figure(name, micros as u64, "us");
    }

    /// Adds a table of what was measured in ticks; a row without samples is left out, and so is a table without rows.
    pub fn latencies<'a>(&mut self, title: &str, rows: impl IntoIterator<Item = (&'a str, Samples)>) {
        let unit = if self.icount { "instructions" } else { "TSC ticks" };
        let mut table = Table::new(title, unit, &Summary::COLUMNS);
        for (name, samples) in rows {
            if let Some(summary) = samples.summary() {
                table.row(name, &summary.row());
            }
        }
        self.table(table);
    }

    /// Adds a table; one without rows is left out.
    pub fn table(&mut self, table: Table) {
        if !table.rows.is_empty() {
            self.report.tables.push(table);
        }
    }

    /// Adds what went wrong.
    pub fn failures(&mut self, failures: impl IntoIterator<Item = String>) {
        self.report.failures.extend(failures);
    }

    /// The finished report, and the sentence that closes the run if nothing went wrong.
    pub fn done(self, message: String) -> Done {
        Done {
            report: self.report,
            message,
        }
    }
}
