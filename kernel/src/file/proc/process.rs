//! The directories of a process and of a thread.

use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec;
use alloc::vec::Vec;

use super::fd::{Descriptors, list};
use super::pagemap::PagemapInode;
use super::{maps, memfile, status};
use crate::abi::errno::Errno;
use crate::file::DirEntry;
use crate::file::pseudo::{Link, PseudoDirectory, PseudoFs, Text};
use crate::file::tree::{Directory, Inode, Last, Target};
use crate::mm::fault::Origin;
use crate::mm::range::VirtRange;
use crate::process::{Process, Thread};

/// A process's directory, or a thread's.
pub(super) struct TaskDirectory {
    fs: Arc<PseudoFs>,
    ino: u64,
    process: Weak<Process>,
    /// The thread; `None` in a process's.
    thread: Option<Weak<Thread>>,
}

type Maker = fn(&TaskDirectory, &Arc<Process>) -> Arc<dyn Inode>;

/// Text about a process.
fn text(
    directory: &TaskDirectory,
    read: impl Fn(&Arc<Process>, Option<&Arc<Thread>>) -> Result<Vec<u8>, Errno> + Send + Sync + 'static,
) -> Arc<dyn Inode> {
    let (process, thread) = (Weak::clone(&directory.process), directory.thread.clone());
    Text::readable(&directory.fs, move || {
        let process = process.upgrade().ok_or(Errno::ESRCH)?;
        let thread = match &thread {
            Some(thread) => Some(thread.upgrade().ok_or(Errno::ESRCH)?),
            // Once its first thread has ended, the process shows like one that has ended (as on Linux).
            None => process.threads().into_iter().find(|thread| thread.is_leader()),
        };
        read(&process, thread.as_ref())
    })
}

/// A link to a file of a process.
fn link(
    directory: &TaskDirectory,
    target: impl Fn(&Arc<Process>) -> Result<Target, Errno> + Send + Sync + 'static,
) -> Arc<dyn Inode> {
    let process = Weak::clone(&directory.process);
    Link::to(&directory.fs, move || {
        target(&process.upgrade().ok_or(Errno::ENOENT)?)
    })
}

fn number_to_write(directory: &TaskDirectory, mode: &'static str) -> Arc<dyn Inode> {
    Text::writable(&directory.fs, move || Ok(mode.into()), |_| Ok(()))
}

/// The names in both kinds of directories.
static NAMES: &[(&str, Maker)] = &[
    ("auxv", |dir, _| text(dir, |process, _| Ok(auxv(process)))),
    ("cgroup", |dir, _| text(dir, |_, _| Ok(b"0::/\n".to_vec()))),
    ("cmdline", |dir, _| {
        text(dir, |process, _| Ok(strings(process, process.mm().layout().args)))
    }),
    ("comm", |dir, _| comm(dir)),
    ("cwd", |dir, _| {
        link(dir, |process| Ok(Target::Entry(process.place().cwd())))
    }),
    ("environ", |dir, _| {
        text(dir, |process, _| Ok(strings(process, process.mm().layout().env)))
    }),
    ("exe", |dir, _| link(dir, exe)),
    ("fd", |dir, process| Descriptors::links(&dir.fs, process)),
    ("fdinfo", |dir, process| Descriptors::info(&dir.fs, process)),
    ("limits", |dir, _| text(dir, |process, _| status::limits(process))),
    ("maps", |dir, _| {
        text(dir, |process, _| {
            maps::maps(&process.mm(), &process.place().root())
        })
    }),
    ("mem", |dir, process| memfile::MemInode::of(&dir.fs, process)),
    ("mountinfo", |dir, _| {
        text(dir, |process, _| Ok(process.place().mounts().info().into_bytes()))
    }),
    ("mounts", |dir, _| {
        text(dir, |process, _| {
            Ok(process.place().mounts().lines().into_bytes())
        })
    }),
    ("oom_score", |dir, _| text(dir, |_, _| Ok(b"0\n".to_vec()))),
    ("oom_score_adj", |dir, _| number_to_write(dir, "0\n")),
    ("pagemap", |dir, process| PagemapInode::of(&dir.fs, process)),
    ("personality", |dir, _| {
        text(dir, |_, _| Ok(b"00000000\n".to_vec()))
    }),
    ("root", |dir, _| {
        link(dir, |process| Ok(Target::Entry(process.place().root())))
    }),
    ("smaps", |dir, _| {
        text(dir, |process, _| {
            maps::smaps(&process.mm(), &process.place().root())
        })
    }),
    ("smaps_rollup", |dir, _| {
        text(dir, |process, _| Ok(maps::rollup(&process.mm())))
    }),
    ("stat", |dir, _| text(dir, status::stat)),
    ("statm", |dir, _| text(dir, |process, _| status::statm(process))),
    ("status", |dir, _| text(dir, status::status)),
    ("timerslack_ns", |dir, _| number_to_write(dir, "50000\n")),
    ("wchan", |dir, _| text(dir, |_, _| Ok(b"0".to_vec()))),
];

fn auxv(process: &Process) -> Vec<u8> {
    let mm = process.mm();
    mm.layout()
        .auxv
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect()
}

/// The bytes of a part of the process's memory, as far as they can be had without waiting.
fn strings(process: &Process, range: VirtRange) -> Vec<u8> {
    let mut bytes = vec![0; range.len() as usize];
    match process
        .mm()
        .space()
        .read_bytes(range.start, &mut bytes, Origin::NoRetry)
    {
        Ok(()) => bytes,
        Err(_) => Vec::new(),
    }
}

fn exe(process: &Arc<Process>) -> Result<Target, Errno> {
    let (path, place) = (process.exe(), process.place());
    let root = place.root();
    match place.find(Some(&root), path.as_bytes(), Last::Follow) {
        Ok(entry) => Ok(Target::Entry(entry)),
        Err(_) => Ok(Target::Path(path.into_bytes())),
    }
}

/// The name of a thread; a thread of the same process may set it.
fn comm(directory: &TaskDirectory) -> Arc<dyn Inode> {
    let (process, thread) = (Weak::clone(&directory.process), directory.thread.clone());
    let find = move || {
        let of_thread = thread.as_ref().map(|thread| thread.upgrade().ok_or(Errno::ESRCH));
        of_thread.unwrap_or_else(|| {
            let process = process.upgrade().ok_or(Errno::ESRCH)?;
            process.threads().first().cloned().ok_or(Errno::ESRCH)
        })
    };
    let again = find.clone();
    Text::writable(
        &directory.fs,
        move || {
            let mut name = find()?.name_bytes().to_vec();
            name.push(b'\n');
            Ok(name)
        },
        move |bytes| {
            again()?.set_name(bytes.strip_suffix(b"\n").unwrap_or(bytes));
            Ok(())
        },
    )
}

impl TaskDirectory {
    /// That of a process.
    pub fn of_process(fs: &Arc<PseudoFs>, process: &Arc<Process>) -> Arc<dyn Inode> {
        Arc::new(Self {
            fs: Arc::clone(fs),
            ino: fs.next(),
            process: Arc::downgrade(process),
            thread: None,
        })
    }

    /// That of a thread.
    pub fn of_thread(fs: &Arc<PseudoFs>, thread: &Arc<Thread>) -> Arc<dyn Inode> {
        Arc::new(Self {
            fs: Arc::clone(fs),
            ino: fs.next(),
            process: Arc::downgrade(thread.process()),
            thread: Some(Arc::downgrade(thread)),
        })
    }

    /// The process, if it is a process's and not a thread's.
    ///
    /// # Errors
    /// ESRCH: it was waited for.
    pub fn named_process(&self) -> Option<Result<Arc<Process>, Errno>> {
        let is_known = |process: &Arc<Process>| {
            let found = crate::process::find(process.pid());
            found.is_some_and(|found| Arc::ptr_eq(&found, process))
        };
        match self.thread {
            Some(_) => None,
            None => Some(self.process.upgrade().filter(is_known).ok_or(Errno::ESRCH)),
        }
    }

    fn process(&self) -> Result<Arc<Process>, Errno> {
        self.process.upgrade().ok_or(Errno::ENOENT)
    }
}

impl PseudoDirectory for TaskDirectory {
    fn fs(&self) -> &Arc<PseudoFs> {
        &self.fs
    }

    fn ino(&self) -> u64 {
        self.ino
    }
}

impl Directory for TaskDirectory {
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        let process = self.process()?;
        if name == b"task" && self.thread.is_none() {
            return Ok(Threads::of(&self.fs, &process));
        }
        let found = NAMES.iter().find(|(known, _)| known.as_bytes() == name);
        let (_, make) = found.ok_or(Errno::ENOENT)?;
        Ok(make(self, &process))
    }

    fn is_volatile(&self) -> bool {
        true
    }

    fn entries(&self, at: u64, take: &mut dyn FnMut(DirEntry) -> bool) -> Result<(), Errno> {
        let process = self.process()?;
        let mut all: Vec<(Vec<u8>, Arc<dyn Inode>)> = NAMES
            .iter()
            .map(|(name, make)| (name.as_bytes().to_vec(), make(self, &process)))
            .collect();
        if self.thread.is_none() {
            all.push((b"task".to_vec(), Threads::of(&self.fs, &process)));
        }
        list(at, all, take);
        Ok(())
    }
}

/// `task`: a directory for each thread.
struct Threads {
    fs: Arc<PseudoFs>,
    ino: u64,
    process: Weak<Process>,
}

impl Threads {
    fn of(fs: &Arc<PseudoFs>, process: &Arc<Process>) -> Arc<dyn Inode> {
        Arc::new(Self {
            fs: Arc::clone(fs),
            ino: fs.next(),
            process: Arc::downgrade(process),
        })
    }
}

impl PseudoDirectory for Threads {
    fn fs(&self) -> &Arc<PseudoFs> {
        &self.fs
    }

    fn ino(&self) -> u64 {
        self.ino
    }

    fn directories(&self) -> u64 {
        self.process
            .upgrade()
            .map_or(0, |process| process.thread_count() as u64)
    }
}

impl Directory for Threads {
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        let tid = super::number(name).ok_or(Errno::ENOENT)?;
        let process = self.process.upgrade().ok_or(Errno::ENOENT)?;
        let threads = process.threads();
        let thread = threads
            .iter()
            .find(|thread| u64::from(thread.tid().as_u32()) == tid);
        Ok(TaskDirectory::of_thread(&self.fs, thread.ok_or(Errno::ENOENT)?))
    }

    fn is_volatile(&self) -> bool {
        true
    }

    fn entries(&self, at: u64, take: &mut dyn FnMut(DirEntry) -> bool) -> Result<(), Errno> {
        let process = self.process.upgrade().ok_or(Errno::ENOENT)?;
        let all = process.threads().into_iter().map(|thread| {
            let name: String = format!("{}", thread.tid());
            (name.into_bytes(), TaskDirectory::of_thread(&self.fs, &thread))
        });
        list(at, all.collect(), take);
        Ok(())
    }
}
