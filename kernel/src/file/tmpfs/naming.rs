//! What mappings of a memory object are called: `/proc/PID/maps` shows device, number and path of the file.
//!
//! An area knows its memory object and nothing about files, so the objects of files are listed here. A listing does not
//! keep a file alive, and outlives it as long as the object is mapped.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use crate::abi::stat::DeviceNumber;
use crate::file::tree::Entry;
use crate::mm::cache::Object;
use crate::sync::SpinLock;

/// The file that an object is the contents of.
#[derive(Debug, Default)]
pub struct Naming(SpinLock<Known>);

#[derive(Debug, Default)]
struct Known {
    dev: DeviceNumber,
    ino: u64,
    entry: Weak<Entry>,
    /// The path, as long as nobody holds the entry; a label for files without one.
    path: Vec<u8>,
}

impl Naming {
    /// The file has this number.
    pub(super) fn set_file(&self, dev: DeviceNumber, ino: u64) {
        let mut known = self.0.lock();
        (known.dev, known.ino) = (dev, ino);
    }

    /// It was opened under this name.
    pub(super) fn set_entry(&self, entry: &Arc<Entry>) {
        let path = shown(entry);
        let mut known = self.0.lock();
        known.entry = Arc::downgrade(entry);
        known.path = path;
    }

    /// Device, number and path.
    pub fn show(&self) -> (DeviceNumber, u64, Vec<u8>) {
        let known = self.0.lock();
        let (dev, ino, entry, path) = (known.dev, known.ino, known.entry.clone(), known.path.clone());
        drop(known);
        match entry.upgrade() {
            Some(entry) => (dev, ino, shown(&entry)),
            None => (dev, ino, path),
        }
    }
}

fn shown(entry: &Arc<Entry>) -> Vec<u8> {
    let mut root = Arc::clone(entry);
    while let Some(parent) = root.parent() {
        root = parent;
    }
    entry.shown(&root)
}

type Listed = BTreeMap<usize, (Weak<Object>, Arc<Naming>)>;

static NAMINGS: SpinLock<Listed> = SpinLock::new(BTreeMap::new());

/// Lists an object, and forgets those that are gone.
pub(super) fn list(object: &Arc<Object>, naming: &Arc<Naming>) {
    let mut listed = NAMINGS.lock();
    let key = Arc::as_ptr(object).addr();
    listed.insert(key, (Arc::downgrade(object), Arc::clone(naming)));
    let gone = listed.extract_if(.., |_, (object, _)| object.strong_count() == 0);
    let gone: Vec<_> = gone.collect();
    drop(listed);
    drop(gone);
}

/// The file that an object is the contents of, if it is one's.
pub fn name_of(object: &Arc<Object>) -> Option<Arc<Naming>> {
    let listed = NAMINGS.lock();
    let (known, naming) = listed.get(&Arc::as_ptr(object).addr())?;
    core::ptr::eq(known.as_ptr(), Arc::as_ptr(object)).then(|| Arc::clone(naming))
}
