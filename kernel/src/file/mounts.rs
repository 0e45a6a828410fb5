//! What is mounted where. There is one set for all processes: what is there from the first one on, and what they mount.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;

use super::tmpfs::{self, TmpFs};
use super::tree::{Entry, Inode};
use super::{dev, proc, sys};
use crate::abi::errno::Errno;
use crate::abi::stat::DeviceNumber;
use crate::drivers::ramdisk::Ramdisk;
use crate::mm::addr::PAGE_SIZE;
use crate::mm::cache::Quota;
use crate::mm::frame::allocator;
use crate::sync::{Once, SpinLock};

/// Directories that every tree has, with their permissions.
const DIRECTORIES: [(&str, u32); 7] = [
    ("bin", 0o755),
    ("dev", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("etc", 0o755),
];

/// The trees of a machine.
#[derive(Debug)]
pub struct Mounts {
    root: Arc<Entry>,
    /// Held so that walks find them.
    below: Vec<(&'static str, &'static str, Arc<Entry>)>,
    /// The same for those that processes have mounted, in the order in which they did.
    later: SpinLock<Vec<(FsKind, Arc<Entry>)>>,
}

/// A kind of file system that processes can mount.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FsKind {
    /// In memory, with room for so many bytes, and with these permissions at its root.
    Tmp {
        /// `None`: half of the machine's memory.
        bytes: Option<u64>,
        /// Permission bits.
        mode: u32,
    },
    /// `/dev`.
    Dev,
    /// `/proc`.
    Proc,
    /// `/sys`.
    Sys,
}

impl FsKind {
    fn name(self) -> &'static str {
        match self {
            Self::Tmp { .. } => "tmpfs",
            Self::Dev => "devtmpfs",
            Self::Proc => "proc",
            Self::Sys => "sysfs",
        }
    }

    fn root(self) -> Arc<dyn Inode> {
        match self {
            Self::Tmp { bytes, mode } => {
                let bytes = bytes.unwrap_or_else(half_of_memory);
                TmpFs::new(Some(Arc::new(Quota::new(bytes)))).root(mode)
            }
            Self::Dev => dev::tree(),
            Self::Proc => proc::tree(),
            Self::Sys => sys::tree(),
        }
    }
}

fn half_of_memory() -> u64 {
    allocator().stats().managed / 2 * PAGE_SIZE
}

/// References to a mounted root that nobody uses: the list's, and that of whoever unmounts it.
const UNUSED: usize = 2;

static MOUNTS: Once<Arc<Mounts>> = Once::new();

impl Mounts {
    /// The tree with the members of `disk` at its root, and `/dev`, `/proc` and `/sys`.
    ///
    /// # Errors
    /// ENOTDIR: the archive has a file where a directory is needed.
    pub fn new(disk: &Ramdisk<'static>) -> Result<Arc<Self>, Errno> {
        let fs = TmpFs::new(Some(Arc::new(Quota::new(half_of_memory()))));
        let top = fs.root(0o755);
        tmpfs::fill(&fs, &top, disk)?;
        for (name, mode) in DIRECTORIES {
            match top.add(name.as_bytes(), fs.root(mode)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(error) => return Err(error),
            }
        }
        let root = Entry::root(top);
        let kinds: [(&str, &str, Arc<dyn Inode>); 3] = [
            ("dev", "devtmpfs", dev::tree()),
            ("proc", "proc", proc::tree()),
            ("sys", "sysfs", sys::tree()),
        ];
        let mut below = Vec::new();
        for (name, kind, inode) in kinds {
            let covered = root.lookup(name.as_bytes())?;
            covered.directory()?;
            below.push((name, kind, covered.mount(inode)));
        }
        Ok(Arc::new(Self {
            root,
            below,
            later: SpinLock::default(),
        }))
    }

    /// Mounts a new file system over the directory `at`.
    ///
    /// # Errors
    /// ENOTDIR; EBUSY: it is the root; ENOMEM.
    pub fn mount(&self, at: &Arc<Entry>, kind: FsKind) -> Result<(), Errno> {
        at.directory()?;
        if at.parent().is_none() {
            return Err(Errno::EBUSY);
        }
        let root = kind.root();
        let mut later = self.later.lock();
        later.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        later.push((kind, at.mount(root)));
        Ok(())
    }

    /// Unmounts what a process has mounted at `at`. While somebody is inside, only if it may go later: when the last one has
    /// left.
    ///
    /// # Errors
    /// EINVAL: nothing was mounted there, or it was there from the beginning; EBUSY: somebody is inside.
    pub fn unmount(&self, at: &Arc<Entry>, lazily: bool) -> Result<(), Errno> {
        let mut later = self.later.lock();
        let place = later.iter().rposition(|(_, root)| Arc::ptr_eq(root, at));
        let place = place.ok_or(Errno::EINVAL)?;
        if !lazily && Arc::strong_count(at) > UNUSED {
            return Err(Errno::EBUSY);
        }
        let (_, root) = later.remove(place);
        drop(later);
        root.unmount();
        Ok(())
    }

    /// The machine's, made from `disk` when first asked for.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of_machine(disk: &Ramdisk<'static>) -> Result<Arc<Self>, Errno> {
        MOUNTS.try_call_once(|| Self::new(disk)).map(Arc::clone)
    }

    /// The root of it all.
    pub fn root(&self) -> &Arc<Entry> {
        &self.root
    }

    /// As `/proc/mounts` shows them.
    pub fn lines(&self) -> String {
        let mut lines = String::new();
        for Shown { kind, path, .. } in self.shown() {
            // Writing to a string does not fail.
            let _ = writeln!(lines, "{kind} {path} {kind} rw,relatime 0 0");
        }
        lines
    }

    /// As `/proc/self/mountinfo` shows them: with a number each, that of the one around it, and the device.
    pub fn info(&self) -> String {
        let mounts = self.shown();
        let mut lines = String::new();
        for (at, Shown { kind, path, device }) in mounts.iter().enumerate() {
            let around = mounts[..at].iter().rposition(|other| other.is_around(path));
            let (number, around) = (at + 1, around.map_or(1, |around| around + 1));
            let (major, minor) = (device.major, device.minor);
            let _ = writeln!(
                lines,
                "{number} {around} {major}:{minor} / {path} rw,relatime - {kind} {kind} rw"
            );
        }
        lines
    }

    fn shown(&self) -> Vec<Shown> {
        let of = |kind: &'static str, root: &Arc<Entry>| Shown {
            kind,
            path: String::from_utf8_lossy(&root.shown(&self.root)).into_owned(),
            device: root.inode().stat().dev,
        };
        let below = self.below.iter().map(|(_, kind, root)| of(kind, root));
        let later = self.later.lock().clone();
        let later = later.iter().map(|(kind, root)| of(kind.name(), root));
        core::iter::once(of("tmpfs", &self.root))
            .chain(below)
            .chain(later)
            .collect()
    }
}

/// A mounted file system, as texts show it.
struct Shown {
    kind: &'static str,
    path: String,
    device: DeviceNumber,
}

impl Shown {
    fn is_around(&self, path: &str) -> bool {
        let rest = path.strip_prefix(self.path.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.starts_with('/'))
    }
}
