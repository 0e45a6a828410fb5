//! What a person sees while waiting: a bar on a terminal, plain lines now and then elsewhere.
//!
//! Everything about the work goes to standard error. The guest's words and the report go to standard output, or to
//! standard error as well when standard output carries JSON.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::record::Record;
use crate::session::Listener;

/// Pause between two plain progress lines.
const PLAIN_PAUSE: Duration = Duration::from_secs(5);

const SPINNER: &str = "{spinner} {elapsed_precise} {msg}";
const BAR: &str = "{spinner} {elapsed_precise} [{bar:30}] {percent:>3} % {msg}";

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .expect("the templates are well-formed")
        .progress_chars("=> ")
}

/// The terminal, or what stands for it.
#[derive(Debug)]
pub struct Ui {
    bar: Option<ProgressBar>,
    terminal: bool,
    output_on_stderr: bool,
    plain_last: Instant,
}

impl Ui {
    /// `json`: standard output is for JSON alone.
    pub fn new(json: bool) -> Self {
        let terminal = io::stderr().is_terminal();
        Self {
            bar: None,
            terminal,
            output_on_stderr: json,
            plain_last: Instant::now(),
        }
    }

    /// Says something about the work.
    pub fn note(&self, text: &str) {
        self.print(text, true);
    }

    /// Shows something that the user asked for: the guest's words, the report.
    pub fn output(&self, text: &str) {
        self.print(text, self.output_on_stderr);
    }

    fn print(&self, text: &str, stderr: bool) {
        let write = || {
            // Nobody is left to tell when the terminal or the pipe is gone.
            let _ = if stderr {
                writeln!(io::stderr(), "{text}")
            } else {
                writeln!(io::stdout(), "{text}")
            };
        };
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Something begins that can take a while.
    pub fn begin(&mut self, what: &str) {
        self.end();
        self.plain_last = Instant::now();
        if !self.terminal {
            return self.note(what);
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(style(SPINNER));
        bar.set_message(what.to_owned());
        self.bar = Some(bar);
    }

    /// `done` of `total` units.
    pub fn progress(&mut self, what: &str, done: u64, total: u64) {
        match &self.bar {
            Some(bar) => {
                if bar.length() != Some(total) {
                    bar.set_style(style(BAR));
                    bar.set_length(total);
                }
                bar.set_message(what.to_owned());
                bar.set_position(done);
            }
            None if self.plain_last.elapsed() >= PLAIN_PAUSE => {
                self.plain_last = Instant::now();
                let percent = u128::from(done) * 100 / u128::from(total.max(1));
                self.note(&format!("{what}: {done} of {total} ({percent} %)"));
            }
            None => {}
        }
    }

    /// It is over.
    pub fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Listener for Ui {
    fn serial(&mut self, line: &str) {
        self.output(&format!("| {line}"));
    }

    fn record(&mut self, record: &Record) {
        if let Record::Progress { what, done, total } = record {
            self.progress(what, *done, *total);
        }
    }

    fn tick(&mut self) {
        if let Some(bar) = &self.bar {
            bar.tick();
        }
    }
}
