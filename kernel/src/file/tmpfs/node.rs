//! A file of a tmpfs, of whatever kind.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::body::Body;
use super::children::Children;
use super::regular::RegularFile;
use crate::abi::errno::Errno;
use crate::abi::stat::{
    DeviceNumber, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK, Stat, StatFs,
    Timestamp,
};
use crate::file::access::User;
use crate::file::directory::DirectoryFile;
use crate::file::pipe::Pipe;
use crate::file::socket::Rendezvous;
use crate::file::tree::{Change, Directory, Entry, Inode, New, Replace, Target};
use crate::file::{DirEntry, File, OpenFlags, clock, dev};
use crate::mm::addr::PAGE_SIZE;
use crate::mm::cache::Quota;
use crate::mm::frame::allocator;
use crate::sync::SpinLock;
use crate::syscall::Error;

/// Linux's number for the kind of file system.
const MAGIC: u64 = 0x0102_1994;
/// What a name adds to the size of a directory, as on Linux.
const NAME_BYTES: u64 = 20;

/// A file system in memory.
#[derive(Debug)]
pub struct TmpFs {
    dev: DeviceNumber,
    next_ino: AtomicU64,
    quota: Option<Arc<Quota>>,
}

impl TmpFs {
    /// An empty one; its files may have as much memory as `quota` says.
    pub fn new(quota: Option<Arc<Quota>>) -> Arc<Self> {
        Arc::new(Self {
            dev: next_device(),
            next_ino: AtomicU64::new(1),
            quota,
        })
    }

    /// A file of it that has no name yet.
    pub fn node(self: &Arc<Self>, mode: u32, kind: Kind) -> Arc<Node> {
        let now = clock::now();
        let directory = matches!(kind, Kind::Directory(_));
        let (uid, gid) = User::current().ids();
        Arc::new(Node {
            fs: Arc::clone(self),
            ino: self.next_ino.fetch_add(1, Ordering::Relaxed),
            attributes: Arc::new(SpinLock::new(Attributes {
                mode: mode & !S_IFMT,
                uid,
                gid,
                nlink: if directory { 2 } else { 1 },
                accessed: now,
                modified: now,
                changed: now,
                born: now,
            })),
            kind,
        })
    }

    /// An empty directory, to be the root.
    pub fn root(self: &Arc<Self>, mode: u32) -> Arc<Node> {
        self.node(mode, Kind::Directory(SpinLock::default()))
    }

    /// An empty regular file.
    pub(super) fn regular(self: &Arc<Self>, mode: u32) -> Arc<Node> {
        let body = Body::empty(self.quota.clone());
        let node = self.node(mode, Kind::Regular(Arc::new(body)));
        node.introduce();
        node
    }

    pub(super) fn quota(&self) -> Option<Arc<Quota>> {
        self.quota.clone()
    }
}

/// The number of the next file system that is on no device.
pub(crate) fn next_device() -> DeviceNumber {
    static NEXT: AtomicU32 = AtomicU32::new(20);
    DeviceNumber::new(0, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// What is known about a file, but for what its contents say.
#[derive(Debug)]
pub struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
    nlink: u64,
    accessed: Timestamp,
    modified: Timestamp,
    changed: Timestamp,
    born: Timestamp,
}

impl Attributes {
    /// The contents have changed.
    pub(super) fn note_modified(&mut self) {
        self.modified = clock::now();
        self.changed = self.modified;
    }
}

/// What a file is.
pub enum Kind {
    /// A directory.
    Directory(SpinLock<Children>),
    /// A regular file.
    Regular(Arc<Body>),
    /// A symbolic link.
    Symlink(Box<[u8]>),
    /// A named pipe.
    Fifo(Arc<Pipe>),
    /// The name of a socket.
    Socket(Rendezvous),
    /// A character device.
    CharDevice(DeviceNumber),
    /// A block device.
    BlockDevice(DeviceNumber),
}

impl Kind {
    fn mode(&self) -> u32 {
        match self {
            Self::Directory(_) => S_IFDIR,
            Self::Regular(_) => S_IFREG,
            Self::Symlink(_) => S_IFLNK,
            Self::Fifo(_) => S_IFIFO,
            Self::Socket(_) => S_IFSOCK,
            Self::CharDevice(_) => S_IFCHR,
            Self::BlockDevice(_) => S_IFBLK,
        }
    }
}

/// A file.
pub struct Node {
    fs: Arc<TmpFs>,
    ino: u64,
    attributes: Arc<SpinLock<Attributes>>,
    kind: Kind,
}

impl Drop for Node {
    /// What is below a directory goes one by one: trees may be deep, and the stack is not.
    fn drop(&mut self) {
        let mut below = Vec::new();
        take_below(self, &mut below);
        while let Some(node) = below.pop() {
            if let Some(mut last) = Arc::into_inner(node) {
                take_below(&mut last, &mut below);
            }
        }
    }
}

/// Moves the files in a directory to `below`; those that there is no memory for go at once.
fn take_below(node: &mut Node, below: &mut Vec<Arc<Node>>) {
    let Kind::Directory(children) = &mut node.kind else {
        return;
    };
    for child in children.get_mut().take_all() {
        if below.try_reserve(1).is_ok() {
            below.push(child);
        }
    }
}

impl Node {
    /// What it is.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Gives a regular file's mappings the file's number.
    pub(super) fn introduce(&self) {
        if let Kind::Regular(body) = &self.kind {
            body.naming().set_file(self.fs.dev, self.ino);
        }
    }

    fn children(&self) -> Result<&SpinLock<Children>, Errno> {
        match &self.kind {
            Kind::Directory(children) => Ok(children),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory(_))
    }

    /// A name was added or taken away.
    fn note_names(&self, subdirectories: i64) {
        let mut attributes = self.attributes.lock();
        attributes.nlink = attributes.nlink.saturating_add_signed(subdirectories);
        attributes.note_modified();
    }

    fn note_links(&self, names: i64) {
        let mut attributes = self.attributes.lock();
        // A directory that loses its name loses `.` too.
        let names = if self.is_directory() { 2 * names } else { names };
        attributes.nlink = attributes.nlink.saturating_add_signed(names);
        attributes.changed = clock::now();
    }

    /// Puts a file into this directory under a name that is free.
    ///
    /// # Errors
    /// EEXIST, ENOTDIR.
    pub fn add(&self, name: &[u8], node: Arc<Self>) -> Result<(), Errno> {
        let subdirectories = i64::from(node.is_directory());
        let mut children = self.children()?.lock();
        if children.get(name).is_some() {
            return Err(Errno::EEXIST);
        }
        children.insert(name, node);
        drop(children);
        self.note_names(subdirectories);
        Ok(())
    }

    /// The file with a name in this directory.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR.
    pub fn child(&self, name: &[u8]) -> Result<Arc<Self>, Errno> {
        self.children()?.lock().find(name)
    }
}

impl Inode for Node {
    fn stat(&self) -> Stat {
        let (size, blocks) = match &self.kind {
            Kind::Directory(children) => (children.lock().len() as u64 * NAME_BYTES, 0),
            Kind::Regular(body) => (body.size(), body.resident() / 512),
            Kind::Symlink(target) => (target.len() as u64, 0),
            _ => (0, 0),
        };
        let rdev = match &self.kind {
            Kind::CharDevice(number) | Kind::BlockDevice(number) => *number,
            _ => DeviceNumber::default(),
        };
        let block_size = match &self.kind {
            Kind::Regular(body) => body.granule() as u32,
            _ => PAGE_SIZE as u32,
        };
        let attributes = self.attributes.lock();
        Stat {
            dev: self.fs.dev,
            ino: self.ino,
            mode: self.kind.mode() | attributes.mode,
            nlink: attributes.nlink,
            uid: attributes.uid,
            gid: attributes.gid,
            rdev,
            size,
            block_size,
            blocks,
            accessed: attributes.accessed,
            modified: attributes.modified,
            changed: attributes.changed,
            born: attributes.born,
        }
    }

    fn stat_fs(&self) -> StatFs {
        let frames = allocator().stats();
        let (blocks, free) = match &self.fs.quota {
            Some(quota) => {
                let blocks = quota.limit() / PAGE_SIZE;
                (blocks, blocks - quota.used() / PAGE_SIZE)
            }
            None => (0, 0),
        };
        StatFs {
            magic: MAGIC,
            block_size: PAGE_SIZE,
            blocks,
            free,
            files: frames.free,
            free_files: frames.free,
            flags: 0x20,
        }
    }

    fn open(&self, entry: &Arc<Entry>, flags: OpenFlags) -> Result<Arc<dyn File>, Error> {
        match &self.kind {
            Kind::Directory(_) => Ok(DirectoryFile::of(entry)),
            Kind::Regular(body) => {
                body.naming().set_entry(entry);
                Ok(RegularFile::of(body, &self.attributes, flags.writes())?)
            }
            Kind::Fifo(pipe) => pipe.open(flags),
            Kind::CharDevice(number) => dev::open(*number, flags),
            Kind::Socket(_) | Kind::BlockDevice(_) => Err(Errno::ENXIO.into()),
            Kind::Symlink(_) => Err(Errno::ELOOP.into()),
        }
    }

    fn directory(&self) -> Option<&dyn Directory> {
        self.is_directory().then_some(self)
    }

    fn rendezvous(&self) -> Option<&Rendezvous> {
        match &self.kind {
            Kind::Socket(rendezvous) => Some(rendezvous),
            _ => None,
        }
    }

    fn target(&self) -> Result<Target, Errno> {
        match &self.kind {
            Kind::Symlink(target) => Ok(Target::Path(target.to_vec())),
            _ => Err(Errno::EINVAL),
        }
    }

    fn change(&self, change: &Change) -> Result<(), Errno> {
        let mut attributes = self.attributes.lock();
        let attributes = &mut *attributes;
        attributes.mode = change.mode.unwrap_or(attributes.mode) & 0o7777;
        attributes.uid = change.uid.unwrap_or(attributes.uid);
        attributes.gid = change.gid.unwrap_or(attributes.gid);
        attributes.accessed = change.accessed.unwrap_or(attributes.accessed);
        attributes.modified = change.modified.unwrap_or(attributes.modified);
        attributes.changed = clock::now();
        Ok(())
    }

    fn truncate(&self, size: u64) -> Result<(), Errno> {
        match &self.kind {
            Kind::Regular(body) => {
                body.writers.enter()?;
                let truncated = body.truncate(size);
                body.writers.leave();
                truncated?;
                self.attributes.lock().note_modified();
                Ok(())
            }
            Kind::Directory(_) => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }
}

impl Directory for Node {
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        Ok(self.child(name)?)
    }

    fn make(&self, name: &[u8], new: New<'_>, mode: u32) -> Result<Arc<dyn Inode>, Errno> {
        let node = match new {
            New::Regular => self.fs.regular(mode),
            New::Directory => self.fs.root(mode),
            New::Symlink(target) => self.fs.node(mode, Kind::Symlink(target.into())),
            New::Fifo => self.fs.node(mode, Kind::Fifo(Pipe::new())),
            New::Socket => self.fs.node(mode, Kind::Socket(Rendezvous::default())),
            New::CharDevice(number) => self.fs.node(mode, Kind::CharDevice(number)),
            New::BlockDevice(number) => self.fs.node(mode, Kind::BlockDevice(number)),
        };
        self.add(name, Arc::clone(&node))?;
        Ok(node)
    }

    fn link(&self, name: &[u8], inode: &Arc<dyn Inode>) -> Result<(), Errno> {
        let any: Arc<dyn core::any::Any + Send + Sync> = Arc::<dyn Inode>::clone(inode);
        let node: Arc<Self> = any.downcast().map_err(|_| Errno::EXDEV)?;
        if node.attributes.lock().nlink == 0 {
            return Err(Errno::ENOENT);
        }
        self.add(name, Arc::clone(&node))?;
        node.note_links(1);
        Ok(())
    }

    fn remove(&self, name: &[u8]) -> Result<(), Errno> {
        let mut children = self.children()?.lock();
        let node = children.find(name)?;
        if let Kind::Directory(below) = &node.kind
            && below.lock().len() > 0
        {
            return Err(Errno::ENOTEMPTY);
        }
        let removed = children.remove(name);
        drop(children);
        node.note_links(-1);
        self.note_names(-i64::from(node.is_directory()));
        // Its contents go without a lock.
        drop((removed, node));
        Ok(())
    }

    fn rename(&self, name: &[u8], to: &dyn Inode, new: &[u8], how: Replace) -> Result<(), Errno> {
        let to: &Self = to.as_kind().ok_or(Errno::EXDEV)?;
        let moved = self.child(name)?;
        let there = to.child(new).ok();
        if how != Replace::Exchange
            && let Some(Kind::Directory(below)) = there.as_deref().map(Node::kind)
            && below.lock().len() > 0
        {
            return Err(Errno::ENOTEMPTY);
        }
        let gone = self.children()?.lock().remove(name);
        let replaced = to.children()?.lock().insert(new, Arc::clone(&moved));
        let directories = |node: &Option<Arc<Self>>| {
            let is = node.as_ref().is_some_and(|node| node.is_directory());
            i64::from(is)
        };
        let moves = i64::from(moved.is_directory());
        match (how, there) {
            (Replace::Exchange, Some(other)) => {
                let back = i64::from(other.is_directory());
                let _ = self.children()?.lock().insert(name, other);
                self.note_names(back - moves);
                to.note_names(moves - back);
            }
            _ => {
                if let Some(replaced) = &replaced {
                    replaced.note_links(-1);
                }
                self.note_names(-moves);
                to.note_names(moves - directories(&replaced));
            }
        }
        drop((gone, replaced));
        Ok(())
    }

    fn entries(&self, at: u64, take: &mut dyn FnMut(DirEntry) -> bool) -> Result<(), Errno> {
        let mut at = at;
        loop {
            let Some(entry) = self.children()?.lock().from(at) else {
                return Ok(());
            };
            at = entry.next;
            if !take(entry) {
                return Ok(());
            }
        }
    }
}

/// A regular file without a name in the tmpfs that `dir` belongs to (`O_TMPFILE`); `None` where that is no tmpfs.
pub fn unnamed(dir: &Arc<Entry>, mode: u32) -> Option<Arc<Entry>> {
    let node: &Node = dir.inode().as_kind()?;
    let file = node.fs.regular(mode);
    file.attributes.lock().nlink = 0;
    let mut label = alloc::vec::Vec::from(&b"/#"[..]);
    label.extend_from_slice(alloc::format!("{} (deleted)", file.ino).as_bytes());
    Some(Entry::unnamed(file, &label))
}
