//! What is mounted where, from the first process on. There is one set; nothing is mounted or unmounted later.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;

use super::tmpfs::{self, TmpFs};
use super::tree::{Entry, Inode};
use super::{dev, proc, sys};
use crate::abi::errno::Errno;
use crate::drivers::ramdisk::Ramdisk;
use crate::mm::addr::PAGE_SIZE;
use crate::mm::cache::Quota;
use crate::mm::frame::allocator;
use crate::sync::Once;

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
}

static MOUNTS: Once<Arc<Mounts>> = Once::new();

impl Mounts {
    /// The tree with the members of `disk` at its root, and `/dev`, `/proc` and `/sys`.
    ///
    /// # Errors
    /// ENOTDIR: the archive has a file where a directory is needed.
    pub fn new(disk: &Ramdisk<'static>) -> Result<Arc<Self>, Errno> {
        let half = allocator().stats().managed / 2 * PAGE_SIZE;
        let fs = TmpFs::new(Some(Arc::new(Quota::new(half))));
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
        Ok(Arc::new(Self { root, below }))
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
        let mut lines = String::from("tmpfs / tmpfs rw,relatime 0 0\n");
        for (name, kind, _) in &self.below {
            // Writing to a string does not fail.
            let _ = writeln!(lines, "{kind} /{name} {kind} rw,relatime 0 0");
        }
        lines
    }
}
