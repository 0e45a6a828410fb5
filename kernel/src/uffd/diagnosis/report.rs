//! The table of outstanding faults as text.

use core::fmt::{self, Write};
use core::time::Duration;

use arrayvec::ArrayVec;

use super::{Finding, Progress, Server, Waiting, waiting, waiting_at_once};
use crate::print;
use crate::task::{self, TaskId};

/// Most tasks that are looked at because faults name them.
const MOST_SERVERS: usize = 16;

/// The console as something to write to.
struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        print!("{text}");
        Ok(())
    }
}

/// Prints every outstanding fault with what is wrong with it, then what the tasks do that are to serve them; nothing when
/// there is none. Faults that take less than `patience` are fine.
pub fn report(patience: Duration) {
    print_rows(&waiting(), patience);
}

/// [`report`], if something is wrong with one of them.
pub fn report_if_any(patience: Duration) {
    let rows = waiting();
    if rows.iter().any(|row| row.finding(patience).is_problem()) {
        print_rows(&rows, patience);
    }
}

fn print_rows(rows: &[Waiting], patience: Duration) {
    if rows.is_empty() {
        return;
    }
    let mut servers = Servers::default();
    // The console does not fail.
    let _ = write_head(&mut Console);
    for row in rows {
        servers.note(row);
        let _ = write_row(&mut Console, row, patience);
    }
    task::for_each(|task| {
        if servers.0.contains(&task.id()) {
            let _ = writeln!(Console, "  {}", task.info());
        }
    });
}

/// [`report`] without waiting for a lock and without memory, for interrupt handlers and panics. Says when there is something
/// that could not be looked at.
pub fn report_at_once(patience: Duration) {
    write_at_once(&mut Console, patience);
}

/// The same, to anything.
fn write_at_once(out: &mut impl Write, patience: Duration) {
    let mut servers = Servers::default();
    let mut first = true;
    // A console does not fail, and there is nobody to tell.
    let whole = waiting_at_once(|row| {
        if core::mem::take(&mut first) {
            let _ = write_head(out);
        }
        servers.note(row);
        let _ = write_row(out, row, patience);
    });
    if !whole {
        let _ = writeln!(
            out,
            "outstanding faults: some could not be looked at, a lock is held"
        );
    }
    if !servers.0.is_empty() {
        task::look_at_each(|task| {
            if servers.0.contains(&task.id()) {
                let _ = writeln!(out, "  {}", task.look());
            }
        });
    }
}

/// How many faults are outstanding, and the worst of them: the oldest with something wrong, else the oldest.
pub fn summary_at_once(patience: Duration) -> (usize, Option<Waiting>) {
    let mut count = 0;
    let mut worst: Option<Waiting> = None;
    waiting_at_once(|row| {
        count += 1;
        let rank = |row: &Waiting| (row.finding(patience).is_problem(), row.age);
        if worst.as_ref().is_none_or(|worst| rank(row) > rank(worst)) {
            worst = Some(row.clone());
        }
    });
    (count, worst)
}

/// The tasks that are to serve what somebody waits for.
#[derive(Default)]
struct Servers(ArrayVec<TaskId, MOST_SERVERS>);

impl Servers {
    fn note(&mut self, row: &Waiting) {
        let reader = match row.progress {
            Progress::Read { by, .. } => Some(by),
            Progress::Unread | Progress::InHandler => None,
        };
        let monitor = match row.server {
            Server::Monitor(task) => Some(task),
            Server::Readers | Server::Lost(..) | Server::Handler => None,
        };
        for task in reader.into_iter().chain(monitor) {
            if !self.0.contains(&task) {
                // Those beyond are not looked at.
                let _ = self.0.try_push(task);
            }
        }
    }
}

fn write_head(out: &mut impl Write) -> fmt::Result {
    writeln!(out, "\noutstanding faults:")
}

fn write_row(out: &mut impl Write, row: &Waiting, patience: Duration) -> fmt::Result {
    writeln!(out, "  {row}")?;
    match row.finding(patience) {
        Finding::Queued | Finding::Serving => Ok(()),
        finding => writeln!(out, "    {}", finding.advice()),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use alloc::string::String;
    use alloc::sync::Arc;

    use super::*;
    use crate::arch::host::{Config, SoftMachine};
    use crate::mm::space::{Privilege, Space};
    use crate::uffd::{Features, Uffd};

    #[test]
    fn a_held_lock_is_told_and_not_waited_for() {
        let _machine = SoftMachine::start(Config::default());
        let space: Arc<Space> = Space::new(Privilege::Kernel).expect("RAM is plenty");
        let uffd = Uffd::new(&space, Features::empty());
        let mut text = String::new();
        let held = uffd.ctx().queue.lock();
        write_at_once(&mut text, super::super::PATIENCE);
        drop(held);
        assert!(text.contains("some could not be looked at"), "{text}");
    }
}
