//! Who is stuck on which page, and why.
//!
//! A [`Waiting`] is a row of the table of outstanding faults, over all contexts: what a task waits for, since when, who is
//! to resolve it and how far that is. [`Waiting::finding`] tells what is wrong with it, if anything:
//!
//! | finding | read | page | what to do |
//! | --- | --- | --- | --- |
//! | [`Queued`](Finding::Queued) | no, for a short time | | nothing |
//! | [`Unread`](Finding::Unread) | no, for long | | read |
//! | [`NoMonitor`](Finding::NoMonitor) | no, and the monitor has ended | | attach another |
//! | [`Serving`](Finding::Serving) | a short time ago | | nothing |
//! | [`LostWake`](Finding::LostWake) | long ago | is there | wake the range |
//! | [`Unresolved`](Finding::Unresolved) | long ago | is not | look at the reader |
//! | [`Stranded`](Finding::Stranded) | | registered no more | wake the range |
//! | [`InHandler`](Finding::InHandler) | the task resolves it itself | | look at the task |
//!
//! A lost wake is what COPY and CONTINUE leave behind that were refused because the page exists: they wake nobody, and a
//! waiter whose message is read already sleeps for ever unless somebody wakes the range.
//!
//! | file | what |
//! | --- | --- |
//! | `walk` | finds all rows; with locks and memory, or without waiting for either |
//! | `report` | prints them: on demand, when nothing can run any more, at the end of a run's time, in a panic |

mod report;
mod walk;

pub use report::{report, report_at_once, report_if_any, summary_at_once};
pub use walk::{waiting, waiting_at_once};

use core::fmt;
use core::time::Duration;

use super::classify::{Trap, TrapKind};
use super::ctx::CtxId;
use super::guest::Stage;
use super::policy::MonitorDeath;
use crate::mm::addr::VirtAddr;
use crate::task::{TaskId, TaskName};

/// How long a fault may take before it is worth a word, where nobody says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// A fault that some task waits for.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// The context.
    pub ctx: CtxId,
    /// Who is to serve it.
    pub server: Server,
    /// The task that waits.
    pub task: TaskId,
    /// Its name.
    pub name: TaskName,
    /// What kind of address it waits at.
    pub stage: Stage,
    /// The exact address; of stage 2, a guest-physical one.
    pub addr: VirtAddr,
    /// Why it was trapped.
    pub trap: Trap,
    /// How long ago.
    pub age: Duration,
    /// How far it is.
    pub progress: Progress,
    /// What has become of the page since.
    pub page: Page,
}

/// Who serves a context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Server {
    /// Whoever reads: no monitor is attached.
    Readers,
    /// The attached monitor.
    Monitor(TaskId),
    /// Nobody: the monitor has ended, and this was declared for that.
    Lost(Option<TaskId>, MonitorDeath),
    /// The tasks that touch, by the context's handler.
    Handler,
}

/// How far a fault is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Nobody has read it.
    Unread,
    /// A task has.
    Read {
        /// The task.
        by: TaskId,
        /// How long ago.
        ago: Duration,
    },
    /// The task that waits is in the context's handler.
    InHandler,
}

/// What a page that somebody waits for looks like now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Page {
    /// As it did: the access would be trapped again.
    Unresolved,
    /// The access would go on, or fail for good.
    Resolved,
    /// It is not the context's any more: unmapped, or unregistered.
    Unregistered,
    /// That could not be found out at the moment.
    Unknown,
}

/// What is wrong with a fault that is not resolved yet, if anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finding {
    /// Nothing: it has just come.
    Queued,
    /// Nobody reads.
    Unread,
    /// Nobody will read: the monitor has ended.
    NoMonitor,
    /// Nothing: it was just read.
    Serving,
    /// It was resolved, and nobody woke the task.
    LostWake,
    /// It was read and is not resolved.
    Unresolved,
    /// Nothing will be done about it, since the memory is not the context's any more.
    Stranded,
    /// The task itself is at it.
    InHandler,
}

impl Waiting {
    /// What is wrong, where whatever takes less than `patience` is fine.
    pub fn finding(&self, patience: Duration) -> Finding {
        match (self.progress, self.page) {
            (Progress::InHandler, _) => Finding::InHandler,
            (_, Page::Unregistered) => Finding::Stranded,
            (Progress::Read { ago, .. }, _) if ago < patience => Finding::Serving,
            (Progress::Read { .. }, Page::Resolved) => Finding::LostWake,
            (Progress::Read { .. }, _) => Finding::Unresolved,
            (Progress::Unread, _) if matches!(self.server, Server::Lost(..)) => Finding::NoMonitor,
            (Progress::Unread, _) if self.age < patience => Finding::Queued,
            (Progress::Unread, _) => Finding::Unread,
        }
    }
}

impl Finding {
    /// Whether it takes somebody to do something.
    pub const fn is_problem(self) -> bool {
        !matches!(self, Self::Queued | Self::Serving | Self::InHandler)
    }

    /// What is wrong and what to do; nothing where nothing is.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Queued | Self::Serving => "",
            Self::InHandler => "the task is in the context's handler",
            Self::Unread => "nobody reads: see what the monitor does",
            Self::NoMonitor => "its monitor has ended: attach another",
            Self::LostWake => {
                "its page is there, but nobody woke the task: wake the range (an operation that finds the page there wakes nobody)"
            }
            Self::Unresolved => "read, but neither resolved nor woken: see what the reader does",
            Self::Stranded => "the memory is not the context's any more: wake the range",
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Readers => f.write_str("no monitor attached"),
            Self::Monitor(task) => write!(f, "monitor: task {task}"),
            Self::Lost(Some(task), policy) => write!(f, "monitor: task {task}, ended; policy {policy}"),
            Self::Lost(None, policy) => write!(f, "its monitor has ended; policy {policy}"),
            Self::Handler => f.write_str("upcalls"),
        }
    }
}

/// A time with milliseconds.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} s", self.0.as_secs(), self.0.subsec_millis())
    }
}

impl fmt::Display for Waiting {
    /// One line, without what is wrong.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.trap.kind {
            TrapKind::Missing => "MISSING",
            TrapKind::Minor => "MINOR",
            TrapKind::WriteProtect => "WP",
        };
        let access = if self.trap.write { "store" } else { "load" };
        let stage = match self.stage {
            Stage::One => "",
            Stage::Two => "guest-physical ",
        };
        write!(
            f,
            "task {} ({}) waits at {stage}{} for {}: {kind}, {access}; context {} ({})",
            self.task,
            self.name,
            self.addr,
            Seconds(self.age),
            self.ctx,
            self.server,
        )?;
        match self.progress {
            Progress::Unread => f.write_str("; not read"),
            Progress::Read { by, ago } => write!(f, "; read by task {by} {} ago", Seconds(ago)),
            Progress::InHandler => Ok(()),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(10);
    const LONG: Duration = Duration::from_secs(10);

    fn waiting(server: Server, age: Duration, progress: Progress, page: Page) -> Waiting {
        Waiting {
            ctx: CtxId::from_u64(9),
            server,
            task: TaskId::from_u64(7),
            name: TaskName::from("workload").expect("short"),
            stage: Stage::One,
            addr: VirtAddr::new(0x1000),
            trap: Trap {
                kind: TrapKind::Missing,
                write: true,
            },
            age,
            progress,
            page,
        }
    }

    #[test]
    fn every_row_of_the_table() {
        use Finding::{InHandler, LostWake, NoMonitor, Queued, Serving, Stranded, Unread, Unresolved};
        let monitor = Server::Monitor(TaskId::from_u64(1));
        let lost = Server::Lost(Some(TaskId::from_u64(1)), MonitorDeath::Hang);
        let read = |ago| Progress::Read {
            by: TaskId::from_u64(1),
            ago,
        };
        let rows = [
            (monitor, SHORT, Progress::Unread, Page::Unresolved, Queued),
            (monitor, LONG, Progress::Unread, Page::Unresolved, Unread),
            (Server::Readers, LONG, Progress::Unread, Page::Unresolved, Unread),
            (monitor, LONG, Progress::Unread, Page::Resolved, Unread),
            (lost, SHORT, Progress::Unread, Page::Unresolved, NoMonitor),
            (monitor, LONG, read(SHORT), Page::Unresolved, Serving),
            (monitor, LONG, read(SHORT), Page::Resolved, Serving),
            (monitor, LONG, read(LONG), Page::Resolved, LostWake),
            (monitor, LONG, read(LONG), Page::Unresolved, Unresolved),
            (lost, LONG, read(LONG), Page::Unresolved, Unresolved),
            (monitor, LONG, read(LONG), Page::Unknown, Unresolved),
            (monitor, SHORT, read(SHORT), Page::Unregistered, Stranded),
            (monitor, SHORT, Progress::Unread, Page::Unregistered, Stranded),
            (
                Server::Handler,
                LONG,
                Progress::InHandler,
                Page::Unresolved,
                InHandler,
            ),
        ];
        for (server, age, progress, page, finding) in rows {
            let row = waiting(server, age, progress, page);
            assert_eq!(row.finding(PATIENCE), finding, "{row:?}");
            assert_eq!(
                finding.is_problem(),
                finding.advice().contains(':'),
                "{finding:?}"
            );
        }
    }

    #[test]
    fn a_line_has_all_that_is_known() {
        let server = Server::Lost(Some(TaskId::from_u64(3)), MonitorDeath::Hang);
        let progress = Progress::Read {
            by: TaskId::from_u64(3),
            ago: Duration::from_millis(1203),
        };
        let row = waiting(server, Duration::from_millis(1234), progress, Page::Resolved);
        let expected = std::format!(
            "task 7 (workload) waits at {} for 1.234 s: MISSING, store; context 9 (monitor: task 3, ended; policy hang); \
             read by task 3 1.203 s ago",
            row.addr
        );
        assert_eq!(std::format!("{row}"), expected);
    }
}
