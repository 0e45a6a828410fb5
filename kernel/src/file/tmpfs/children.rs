//! The names of a directory, found by name and listed in the order in which they were made.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use super::node::Node;
use crate::abi::errno::Errno;
use crate::abi::stat::S_IFMT;
use crate::file::DirEntry;
use crate::file::tree::Inode;

/// The first position of a name; those before are `.` and `..`.
const FIRST: u64 = 2;

/// Names and files.
#[derive(Default)]
pub struct Children {
    by_name: BTreeMap<Box<[u8]>, (u64, Arc<Node>)>,
    by_place: BTreeMap<u64, Box<[u8]>>,
    next: u64,
}

impl Children {
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<&Arc<Node>> {
        self.by_name.get(name).map(|(_, node)| node)
    }

    /// Adds a name, which takes the place of one that is there; what that was.
    pub(super) fn insert(&mut self, name: &[u8], node: Arc<Node>) -> Option<Arc<Node>> {
        let old = self.remove(name);
        let place = FIRST + self.next;
        self.next += 1;
        self.by_name.insert(name.into(), (place, node));
        self.by_place.insert(place, name.into());
        old
    }

    pub(super) fn remove(&mut self, name: &[u8]) -> Option<Arc<Node>> {
        let (place, node) = self.by_name.remove(name)?;
        self.by_place.remove(&place);
        Some(node)
    }

    /// All files, which have no names any more.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Arc<Node>> + use<> {
        let all = core::mem::take(self);
        all.by_name.into_values().map(|(_, node)| node)
    }

    /// The name at the first place that is not before `at`.
    pub(super) fn from(&self, at: u64) -> Option<DirEntry> {
        let (place, name) = self.by_place.range(at..).next()?;
        let node = self.get(name)?;
        let stat = node.stat();
        Some(DirEntry {
            ino: stat.ino,
            mode: stat.mode & S_IFMT,
            name: name.to_vec(),
            next: place + 1,
        })
    }

    /// The file with a name.
    pub(super) fn find(&self, name: &[u8]) -> Result<Arc<Node>, Errno> {
        self.get(name).cloned().ok_or(Errno::ENOENT)
    }
}
