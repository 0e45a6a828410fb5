//! Names in the tree. An entry is a file under one of its names, as somebody has found it: it is there as long as anybody
//! holds it (a working directory, an open file, a walk), and there is one for each name (so that a rename is seen by all).
//!
//! A mount is an entry that is held for ever, in the place of the directory that it covers; its parent is that
//! directory's. So a walk crosses mounts without knowing.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use super::inode::{Directory, Inode};
use crate::abi::errno::Errno;
use crate::sync::SpinLock;
use crate::task::{SleepGuard, SleepLock, WaitReason};

static CHANGING: WaitReason = WaitReason::uninterruptible("a change of the tree of files by another task");

/// What the entries of a tree share.
#[derive(Debug)]
struct Tree {
    /// Held while names are looked up, made, moved or taken away.
    changing: SleepLock,
}

/// A name.
pub struct Entry {
    tree: Arc<Tree>,
    inode: Arc<dyn Inode>,
    at: SpinLock<At>,
    children: SpinLock<BTreeMap<Box<[u8]>, Weak<Entry>>>,
    is_mount: bool,
    /// The name was taken away.
    gone: AtomicBool,
}

/// Where an entry is.
struct At {
    /// `None` at the root, and of files without a name.
    parent: Option<Arc<Entry>>,
    name: Box<[u8]>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name();
        write!(f, "Entry({})", name.escape_ascii())
    }
}

impl Entry {
    fn new(
        tree: &Arc<Tree>,
        parent: Option<Arc<Self>>,
        name: &[u8],
        inode: Arc<dyn Inode>,
        is_mount: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            tree: Arc::clone(tree),
            inode,
            at: SpinLock::new(At {
                parent,
                name: name.into(),
            }),
            children: SpinLock::new(BTreeMap::new()),
            is_mount,
            gone: AtomicBool::new(false),
        })
    }

    /// The root of a tree.
    pub fn root(inode: Arc<dyn Inode>) -> Arc<Self> {
        let tree = Arc::new(Tree {
            changing: SleepLock::new(&CHANGING),
        });
        Self::new(&tree, None, b"", inode, true)
    }

    /// A file that has no name in any tree; `label` is what is shown instead.
    pub fn unnamed(inode: Arc<dyn Inode>, label: &[u8]) -> Arc<Self> {
        let tree = Arc::new(Tree {
            changing: SleepLock::new(&CHANGING),
        });
        Self::new(&tree, None, label, inode, false)
    }

    /// Mounts a file system: its root takes the place of this directory for as long as the result is held. Walks that come
    /// later find it.
    pub fn mount(self: &Arc<Self>, inode: Arc<dyn Inode>) -> Arc<Self> {
        let (parent, name) = (self.parent(), self.name());
        let mounted = Self::new(&self.tree, parent.clone(), &name, inode, true);
        if let Some(parent) = parent {
            let mut children = parent.children.lock();
            children.insert(name.into(), Arc::downgrade(&mounted));
        }
        mounted
    }

    /// Ends what [`Self::mount`] began: walks that come later find what was there before. Whoever is inside stays there.
    pub fn unmount(&self) {
        let (parent, name) = (self.parent(), self.name());
        if let Some(parent) = parent {
            let mut children = parent.children.lock();
            let is_it = children
                .get(&*name)
                .is_some_and(|known| core::ptr::eq(known.as_ptr(), self));
            let forgotten = is_it.then(|| children.remove(&*name));
            drop(children);
            drop(forgotten);
        }
    }

    /// The file.
    pub fn inode(&self) -> &Arc<dyn Inode> {
        &self.inode
    }

    /// The directory that it is in; `None` at the root.
    pub fn parent(&self) -> Option<Arc<Self>> {
        self.at.lock().parent.clone()
    }

    /// The last component of its path.
    pub fn name(&self) -> Vec<u8> {
        self.at.lock().name.to_vec()
    }

    /// Whether it is the root of a mount.
    pub fn is_mount(&self) -> bool {
        self.is_mount
    }

    /// Whether its name was taken away.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Its names, if it is a directory.
    ///
    /// # Errors
    /// ENOTDIR.
    pub fn directory(&self) -> Result<&dyn Directory, Errno> {
        self.inode.directory().ok_or(Errno::ENOTDIR)
    }

    /// Keeps others from looking up and changing names until the result is dropped. May sleep.
    pub(super) fn change(&self) -> SleepGuard<'_> {
        self.tree.changing.lock()
    }

    /// The file with a name in this directory.
    ///
    /// # Errors
    /// ENOTDIR, ENOENT.
    pub fn lookup(self: &Arc<Self>, name: &[u8]) -> Result<Arc<Self>, Errno> {
        if let Some(known) = self.known(name) {
            return Ok(known);
        }
        let _changing = self.change();
        self.lookup_locked(name)
    }

    /// [`Self::lookup`] by somebody who changes names.
    pub(super) fn lookup_locked(self: &Arc<Self>, name: &[u8]) -> Result<Arc<Self>, Errno> {
        if let Some(known) = self.known(name) {
            return Ok(known);
        }
        let directory = self.directory()?;
        if self.is_gone() {
            return Err(Errno::ENOENT);
        }
        let inode = directory.lookup(name)?;
        let entry = Self::new(&self.tree, Some(Arc::clone(self)), name, inode, false);
        if !directory.is_volatile() {
            let mut children = self.children.lock();
            children.insert(name.into(), Arc::downgrade(&entry));
        }
        Ok(entry)
    }

    fn known(&self, name: &[u8]) -> Option<Arc<Self>> {
        self.children.lock().get(name)?.upgrade()
    }

    /// The name was taken away. By somebody who changes names.
    pub(super) fn forget(&self) {
        self.gone.store(true, Ordering::Relaxed);
        let at = self.at.lock();
        let (parent, name) = (at.parent.clone(), at.name.clone());
        drop(at);
        if let Some(parent) = parent {
            let forgotten = parent.children.lock().remove(&name);
            drop(forgotten);
        }
    }

    /// The name is another one now. By somebody who changes names; what had the new name is forgotten or moves itself.
    pub(super) fn moved(self: &Arc<Self>, parent: &Arc<Self>, name: &[u8]) {
        let new = At {
            parent: Some(Arc::clone(parent)),
            name: name.into(),
        };
        let old = core::mem::replace(&mut *self.at.lock(), new);
        if let Some(old_parent) = &old.parent {
            let mut children = old_parent.children.lock();
            let is_this = children
                .get(&old.name)
                .is_some_and(|child| core::ptr::eq(child.as_ptr(), Arc::as_ptr(self)));
            if is_this {
                children.remove(&old.name);
            }
        }
        let mut children = parent.children.lock();
        children.insert(name.into(), Arc::downgrade(self));
    }

    /// Whether this entry is `other` or lies below it.
    pub fn is_within(self: &Arc<Self>, other: &Arc<Self>) -> bool {
        let mut at = Some(Arc::clone(self));
        while let Some(entry) = at {
            if Arc::ptr_eq(&entry, other) {
                return true;
            }
            at = entry.parent();
        }
        false
    }

    /// Its path as somebody sees it whose root is `root`, and whether it lies below that root.
    pub fn path_from(self: &Arc<Self>, root: &Arc<Self>) -> (Vec<u8>, bool) {
        let mut names = Vec::new();
        let mut at = Arc::clone(self);
        let reachable = loop {
            if Arc::ptr_eq(&at, root) {
                break true;
            }
            let Some(parent) = at.parent() else { break false };
            names.push(at.name());
            at = parent;
        };
        let mut path = Vec::new();
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        (path, reachable)
    }

    /// What the links of `/proc` and the lines of `maps` show: its path, or the label of a file without one.
    pub fn shown(self: &Arc<Self>, root: &Arc<Self>) -> Vec<u8> {
        let label = self.name();
        if self.parent().is_none() && !label.is_empty() {
            return label;
        }
        let (mut path, _) = self.path_from(root);
        if self.is_gone() {
            path.extend_from_slice(b" (deleted)");
        }
        path
    }
}

impl Drop for Entry {
    /// Its parent forgets it, and parents that nobody else holds go too, one after the other: paths may be long, and the
    /// stack is not.
    fn drop(&mut self) {
        let at = self.at.get_mut();
        let mut name = core::mem::take(&mut at.name);
        let mut parent = at.parent.take();
        while let Some(above) = parent.take() {
            let mut children = above.children.lock();
            if children.get(&name).is_some_and(|child| child.strong_count() == 0) {
                children.remove(&name);
            }
            drop(children);
            if let Some(mut last) = Arc::into_inner(above) {
                let at = last.at.get_mut();
                name = core::mem::take(&mut at.name);
                parent = at.parent.take();
            }
        }
    }
}
