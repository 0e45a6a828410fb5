//! `/proc`.
//!
//! | file | what |
//! | --- | --- |
//! | `system` | what is said about the machine: meminfo, cpuinfo, sys/ ... |
//! | `process` | the directories of processes and threads |
//! | `fd` | their descriptors |
//! | `status` | status, stat, statm, limits |
//! | `maps`, `memory` | areas, and what is in them |
//! | `pagemap`, `memfile` | pages and their contents |
//!
//! A process's files say what is so when they are read. They do not keep the process; once it is gone they say ESRCH.

mod fd;
mod maps;
mod memfile;
mod memory;
mod pagemap;
mod process;
mod status;
mod system;

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

pub use system::RELEASE;

use super::pseudo::{Link, PseudoDirectory, PseudoFs};
use super::tree::{Directory, Inode, Target};
use super::{DirEntry, OpenFile};
use crate::abi::errno::Errno;
use crate::process::{Pid, Process, Thread};
use crate::task;
use process::TaskDirectory;

/// Linux's number for the kind of file system.
const MAGIC: u64 = 0x9fa0;

/// The tree of `/proc`.
pub fn tree() -> Arc<dyn Inode> {
    let fs = PseudoFs::new(MAGIC);
    let path = |target: fn(&Thread) -> alloc::string::String| {
        Link::to(&fs, move || {
            let task = task::current();
            let thread = task.thread().ok_or(Errno::ENOENT)?;
            Ok(Target::Path(target(thread).into_bytes()))
        })
    };
    let mut names = system::files(&fs);
    names.extend([
        ("self", path(|thread| format!("{}", thread.process().pid()))),
        (
            "thread-self",
            path(|thread| format!("{}/task/{}", thread.process().pid(), thread.tid())),
        ),
        ("mounts", path(|_| "self/mounts".into())),
    ]);
    let ino = fs.next();
    Arc::new(Root { fs, ino, names })
}

/// The process whose directory `open` is: `None` if it is something else.
///
/// # Errors
/// ESRCH: it was waited for.
pub fn process_of(open: &OpenFile) -> Option<Result<Arc<Process>, Errno>> {
    let inode: &dyn core::any::Any = &**open.inode().ok()?;
    inode.downcast_ref::<TaskDirectory>()?.named_process()
}

/// A name that is a number, as Linux writes it: without leading zeros.
fn number(name: &[u8]) -> Option<u64> {
    let text = core::str::from_utf8(name).ok()?;
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

/// The top: a directory for each process, beside files about the machine.
struct Root {
    fs: Arc<PseudoFs>,
    ino: u64,
    names: Vec<(&'static str, Arc<dyn Inode>)>,
}

impl PseudoDirectory for Root {
    fn fs(&self) -> &Arc<PseudoFs> {
        &self.fs
    }

    fn ino(&self) -> u64 {
        self.ino
    }
}

impl Directory for Root {
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        if let Some((_, inode)) = self.names.iter().find(|(known, _)| known.as_bytes() == name) {
            return Ok(Arc::clone(inode));
        }
        let number = number(name).and_then(|number| u32::try_from(number).ok());
        let pid = Pid::new(number.ok_or(Errno::ENOENT)?);
        if let Some(process) = crate::process::find(pid) {
            return Ok(TaskDirectory::of_process(&self.fs, &process));
        }
        // A thread can be found too, though it is not listed; its files tell of it alone.
        let thread = crate::process::table::thread(pid).ok_or(Errno::ENOENT)?;
        Ok(TaskDirectory::of_thread(&self.fs, &thread))
    }

    fn is_volatile(&self) -> bool {
        true
    }

    fn entries(&self, at: u64, take: &mut dyn FnMut(DirEntry) -> bool) -> Result<(), Errno> {
        let fixed = self
            .names
            .iter()
            .map(|(name, inode)| (name.as_bytes().to_vec(), Arc::clone(inode)));
        let processes = crate::process::all().into_iter().map(|process| {
            let name = format!("{}", process.pid()).into_bytes();
            (name, TaskDirectory::of_process(&self.fs, &process))
        });
        fd::list(at, fixed.chain(processes).collect(), take);
        Ok(())
    }
}
