//! The applications: what the image does once it runs.
//!
//! The first word of the command line names one. An application registers itself in [`APPS`] and is a function from the
//! command line to a [`Report`]; printing, records and exit codes are the same for all and stand here.
//!
//! | application | what |
//! | --- | --- |
//! | [`restore`] | lazy restore of a snapshot: the main job |
//! | [`mod@clone`] | address spaces started from one snapshot |
//! | [`evict`] | a region larger than its memory |
//! | [`cost`] | what the bare path of a delegated fault costs |
//! | [`snapshot`] | a live, consistent snapshot of a region while a writer goes on |
//! | [`track`] | dirty tracking, against writes that are known |
//! | [`guest_clone`] | guests started from one snapshot, which share what they do not change |
//! | [`guest_snapshot`] | a live, consistent snapshot of a guest, restored and compared |
//! | [`guest_restore`] | a guest that is restored lazily, its faults served outside or by itself |
//! | [`mod@run`] | a Linux program, from the ramdisk |
//! | [`test`] | the tests of the image (`test`, `test-list`) |
//! | [`info`] | what the machine is |
//! | [`selftest`] | ways to end badly, to see them told apart; not listed |

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use kernel::arch::{Clock, Machine};
use kernel::bootinfo::BootInfo;
use kernel::drivers::loader_memory;
use kernel::drivers::pci::{self, Function};
use kernel::drivers::ramdisk::Ramdisk;
use kernel::drivers::virtio::blk::{self, VirtioBlk};
use kernel::mm::frame::{OutOfFrames, allocator};
use kernel::println;
use kernel::sync::Once;
use kernel::task;
use kernel::trace;
use kernel::trace::cmdline::{Cmdline, CmdlineError};
use kernel::trace::record::{ExitStatus, Record, Report};
use linkme::distributed_slice;

use crate::report;

pub mod clone;
mod common;
pub mod cost;
pub mod evict;
mod guest;
pub mod guest_clone;
pub mod guest_restore;
pub mod guest_snapshot;
pub mod info;
pub mod restore;
pub mod run;
pub mod selftest;
pub mod snapshot;
pub mod test;
pub mod track;

/// Longest deadline and interval: some years.
const MAX_MS: u64 = 1 << 37;

/// An application.
pub struct App {
    /// The first word of the command line.
    pub name: &'static str,
    /// One line for the list of applications; empty for those that are not listed.
    pub summary: &'static str,
    /// Does it.
    pub run: fn(&Cmdline<'static>, &'static System) -> AppResult,
}

/// All applications of the image.
#[distributed_slice]
pub static APPS: [App];

/// Registers an application: `app!(NAME = App { .. })`.
macro_rules! app {
    ($slot:ident = $app:expr) => {
        #[linkme::distributed_slice($crate::apps::APPS)]
        #[expect(unsafe_code, reason = "an entry of a registry names its section")]
        static $slot: $crate::apps::App = $app;
    };
}
pub(crate) use app;

/// What an application comes to.
pub type AppResult = Result<Done, AppError>;

/// An application that ran to its end.
pub struct Done {
    /// Its report; failures in it make the run a failure.
    pub report: Report,
    /// One sentence for the closing record, if nothing failed.
    pub message: String,
}

/// Why an application did not get as far as a report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AppError {
    /// The command line asks for something that makes no sense.
    Usage(String),
    /// The job cannot be done on this machine, or not with this input.
    Failed(String),
    /// The machine lacks what the job is about.
    Unsupported(String),
}

impl AppError {
    /// A failure that `error` describes.
    pub fn failed(error: impl fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }

    /// A mistake of whoever asked, that `error` describes.
    pub fn usage(error: impl fmt::Display) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<CmdlineError<'_>> for AppError {
    fn from(error: CmdlineError) -> Self {
        Self::Usage(error.to_string())
    }
}

/// What the machine has, beyond CPU and memory.
pub struct System {
    /// What the loader said.
    pub info: &'static BootInfo,
    /// The initial ramdisk.
    pub ramdisk: Ramdisk<'static>,
    /// PCI functions.
    pub functions: Vec<Function>,
    /// Disks.
    pub disks: Vec<VirtioBlk>,
}

impl System {
    fn find(info: &'static BootInfo) -> Result<Self, AppError> {
        let ramdisk = Ramdisk::new(loader_memory::ramdisk(info)).map_err(AppError::failed)?;
        let functions = pci::scan();
        let disks = blk::probe(&functions);
        Ok(Self {
            info,
            ramdisk,
            functions,
            disks,
        })
    }
}

static SYSTEM: Once<System> = Once::new();

/// The machine that the running application is on.
///
/// # Panics
/// No application runs yet.
pub fn system() -> &'static System {
    SYSTEM
        .get()
        .expect("`main` finds the system before it starts an application")
}

/// Runs the application that the command line names, and ends the run. This is the job of the first task.
pub fn main(info: &'static BootInfo) -> ! {
    trace::emit(&Record::Booted {
        door: format!("{:?}", info.door).to_lowercase(),
        memory: info.usable(),
        frequency: Machine::frequency(),
    });
    let result = System::find(info).and_then(|system| start(SYSTEM.call_once(|| system)));
    match result {
        Ok(done) => {
            let named = done.report.failures.len().min(2);
            let mut failures = done.report.failures[..named].join("; ");
            let unnamed = done.report.failures.len() - named;
            if unnamed > 0 {
                failures.push_str(&format!("; and {unnamed} more in the report"));
            }
            report::publish(done.report);
            if failures.is_empty() {
                trace::end(ExitStatus::Success, &done.message)
            }
            trace::end(ExitStatus::Failed, &failures)
        }
        Err(AppError::Usage(message)) => trace::end(ExitStatus::Usage, &message),
        Err(AppError::Failed(message)) => trace::end(ExitStatus::Failed, &message),
        Err(AppError::Unsupported(message)) => trace::end(ExitStatus::Unsupported, &message),
    }
}

fn start(system: &'static System) -> AppResult {
    let cmdline = Cmdline::parse(&system.info.cmdline)?;
    observe(&cmdline)?;
    let app = cmdline
        .app()
        .map(|name| APPS.iter().find(|app| app.name == name).ok_or(name));
    match app {
        Some(Ok(app)) => {
            set_huge_pages_aside(&cmdline)?;
            (app.run)(&cmdline, system)
        }
        Some(Err(name)) => {
            usage();
            Err(AppError::Usage(format!("there is no application `{name}`")))
        }
        None => {
            usage();
            Err(AppError::Usage("the command line names no application".into()))
        }
    }
}

/// `hugepages=N`: before the application runs, while memory is in one piece.
fn set_huge_pages_aside(cmdline: &Cmdline<'static>) -> Result<(), AppError> {
    let count = cmdline.number("hugepages", 0, u32::MAX.into())?.unwrap_or(0);
    allocator().reserve_huge(count).map_err(|OutOfFrames| {
        AppError::Failed(format!(
            "this machine does not have the memory for {count} huge pages of 2 MiB (hugepages=)"
        ))
    })
}

/// What every application can be watched with: `deadline-ms` and `watch-ms`.
fn observe(cmdline: &Cmdline<'static>) -> Result<(), AppError> {
    if let Some(ms) = cmdline.number("deadline-ms", 1, MAX_MS)? {
        trace::deadline::set(Duration::from_millis(ms));
    }
    if let Some(ms) = cmdline.number("watch-ms", 1, MAX_MS)? {
        task::watch::start(Duration::from_millis(ms)).map_err(AppError::failed)?;
    }
    Ok(())
}

fn usage() {
    println!("usage: APPLICATION key=value ...");
    let mut listed: Vec<&App> = APPS.iter().filter(|app| !app.summary.is_empty()).collect();
    listed.sort_by_key(|app| app.name);
    for app in listed {
        println!("  {:10} {}", app.name, app.summary);
    }
}
