//! Files that the kernel makes up when they are read: the parts of `/proc` and `/sys`.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use super::directory::DirectoryFile;
use super::tree::{Change, Directory, Entry, Inode, Target};
use super::{DirEntry, File, Io, OpenFlags, PIECE, Seeking, Sink, Source};
use crate::abi::errno::Errno;
use crate::abi::stat::{DeviceNumber, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, Stat, StatFs};
use crate::mm::addr::PAGE_SIZE;
use crate::mm::frame::allocator;
use crate::sync::SpinLock;
use crate::syscall::Error;

/// The file system that a made-up file belongs to.
#[derive(Debug)]
pub struct PseudoFs {
    dev: DeviceNumber,
    magic: u64,
    next_ino: AtomicU64,
}

impl PseudoFs {
    /// One of this kind.
    pub fn new(magic: u64) -> Arc<Self> {
        Arc::new(Self {
            dev: super::tmpfs::next_device(),
            magic,
            next_ino: AtomicU64::new(1),
        })
    }

    /// What is known about a file of it with this mode; the number is given by [`Self::next`].
    pub fn stat(&self, ino: u64, mode: u32) -> Stat {
        let now = super::clock::now();
        Stat {
            dev: self.dev,
            ino,
            mode,
            nlink: if mode & S_IFMT == S_IFDIR { 2 } else { 1 },
            block_size: if mode & S_IFMT == S_IFREG {
                1024
            } else {
                PAGE_SIZE as u32
            },
            accessed: now,
            modified: now,
            changed: now,
            ..Stat::default()
        }
    }

    /// What is known about it.
    pub fn stat_fs(&self) -> StatFs {
        StatFs {
            magic: self.magic,
            block_size: PAGE_SIZE,
            flags: 0x20,
            ..StatFs::default()
        }
    }

    /// A number for a file.
    pub fn next(&self) -> u64 {
        self.next_ino.fetch_add(1, Ordering::Relaxed)
    }
}

/// Makes up the contents.
pub type Reader = Box<dyn Fn() -> Result<Vec<u8>, Errno> + Send + Sync>;
/// Takes what is written, all of one write at once.
pub type Writer = Box<dyn Fn(&[u8]) -> Result<(), Errno> + Send + Sync>;

/// A file with text that is made up.
pub struct Text(Arc<TextParts>);

struct TextParts {
    fs: Arc<PseudoFs>,
    ino: u64,
    mode: u32,
    read: Reader,
    write: Option<Writer>,
}

impl Text {
    /// A file that can be read.
    pub fn readable(
        fs: &Arc<PseudoFs>,
        read: impl Fn() -> Result<Vec<u8>, Errno> + Send + Sync + 'static,
    ) -> Arc<dyn Inode> {
        Self::make(fs, 0o444, Box::new(read), None)
    }

    /// A file that only its owner can read.
    pub fn private(
        fs: &Arc<PseudoFs>,
        read: impl Fn() -> Result<Vec<u8>, Errno> + Send + Sync + 'static,
    ) -> Arc<dyn Inode> {
        Self::make(fs, 0o400, Box::new(read), None)
    }

    /// A file that can be written too.
    pub fn writable(
        fs: &Arc<PseudoFs>,
        read: impl Fn() -> Result<Vec<u8>, Errno> + Send + Sync + 'static,
        write: impl Fn(&[u8]) -> Result<(), Errno> + Send + Sync + 'static,
    ) -> Arc<dyn Inode> {
        Self::make(fs, 0o644, Box::new(read), Some(Box::new(write)))
    }

    fn make(fs: &Arc<PseudoFs>, mode: u32, read: Reader, write: Option<Writer>) -> Arc<dyn Inode> {
        Arc::new(Self(Arc::new(TextParts {
            fs: Arc::clone(fs),
            ino: fs.next(),
            mode,
            read,
            write,
        })))
    }
}

impl Inode for Text {
    fn stat(&self) -> Stat {
        self.0.fs.stat(self.0.ino, S_IFREG | self.0.mode)
    }

    fn stat_fs(&self) -> StatFs {
        self.0.fs.stat_fs()
    }

    fn open(&self, _entry: &Arc<Entry>, _flags: OpenFlags) -> Result<Arc<dyn File>, Error> {
        Ok(Arc::new(TextFile {
            parts: Arc::clone(&self.0),
            made_up: SpinLock::new(None),
        }))
    }

    fn change(&self, _change: &Change) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }

    /// `O_TRUNC` is taken and means nothing.
    fn truncate(&self, _size: u64) -> Result<(), Errno> {
        Ok(())
    }
}

/// An open file with text. It is made up when reading begins at its beginning, and stays the same until then.
struct TextFile {
    parts: Arc<TextParts>,
    made_up: SpinLock<Option<Arc<Vec<u8>>>>,
}

impl TextFile {
    fn contents(&self, at: u64) -> Result<Arc<Vec<u8>>, Errno> {
        let known = self.made_up.lock().clone();
        if let (Some(text), true) = (known, at > 0) {
            return Ok(text);
        }
        // It is kept as long as the file is open.
        if allocator().is_short() {
            return Err(Errno::ENOMEM);
        }
        let text = Arc::new((self.parts.read)()?);
        let old = self.made_up.lock().replace(Arc::clone(&text));
        drop(old);
        Ok(text)
    }
}

impl File for TextFile {
    fn label(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        f.write_str("text")
    }

    fn seeking(&self) -> Seeking {
        Seeking::Positions
    }

    fn read(&self, io: &mut Io, to: &mut Sink<'_>) -> Result<usize, Error> {
        let text = self.contents(io.at)?;
        let rest = text.get(io.at as usize..).unwrap_or(&[]);
        let ended = to.put(rest).map_err(Error::from);
        io.at += to.done() as u64;
        to.outcome(ended)
    }

    fn write(&self, io: &mut Io, from: &mut Source<'_>) -> Result<usize, Error> {
        let write = self.parts.write.as_ref().ok_or(Errno::EINVAL)?;
        let mut piece = [0; PIECE];
        let (len, read) = from.take(&mut piece);
        read?;
        write(&piece[..len])?;
        io.at += len as u64;
        Ok(len)
    }
}

/// A symbolic link whose target is made up.
pub struct Link {
    fs: Arc<PseudoFs>,
    ino: u64,
    mode: u32,
    target: Pointer,
}

/// Makes up where a link leads.
type Pointer = Box<dyn Fn() -> Result<Target, Errno> + Send + Sync>;

impl Link {
    /// A link to whatever `target` says.
    pub fn to(
        fs: &Arc<PseudoFs>,
        target: impl Fn() -> Result<Target, Errno> + Send + Sync + 'static,
    ) -> Arc<dyn Inode> {
        Self::with_mode(fs, 0o777, target)
    }

    /// The same with other permissions, which are only shown.
    pub fn with_mode(
        fs: &Arc<PseudoFs>,
        mode: u32,
        target: impl Fn() -> Result<Target, Errno> + Send + Sync + 'static,
    ) -> Arc<dyn Inode> {
        Arc::new(Self {
            fs: Arc::clone(fs),
            ino: fs.next(),
            mode,
            target: Box::new(target),
        })
    }
}

impl Inode for Link {
    fn stat(&self) -> Stat {
        self.fs.stat(self.ino, S_IFLNK | self.mode)
    }

    fn stat_fs(&self) -> StatFs {
        self.fs.stat_fs()
    }

    fn open(&self, _entry: &Arc<Entry>, _flags: OpenFlags) -> Result<Arc<dyn File>, Error> {
        Err(Errno::ELOOP.into())
    }

    fn target(&self) -> Result<Target, Errno> {
        (self.target)()
    }
}

/// A directory of a pseudo file system: what it says beside its names makes it an inode.
pub trait PseudoDirectory: Directory + Send + Sync + 'static {
    /// Its file system.
    fn fs(&self) -> &Arc<PseudoFs>;

    /// Its number.
    fn ino(&self) -> u64;

    /// Who may do what.
    fn permissions(&self) -> u32 {
        0o555
    }

    /// Directories in it.
    fn directories(&self) -> u64 {
        0
    }
}

impl<T: PseudoDirectory> Inode for T {
    fn stat(&self) -> Stat {
        let stat = self.fs().stat(self.ino(), S_IFDIR | self.permissions());
        Stat {
            nlink: stat.nlink + self.directories(),
            ..stat
        }
    }

    fn stat_fs(&self) -> StatFs {
        self.fs().stat_fs()
    }

    fn open(&self, entry: &Arc<Entry>, _flags: OpenFlags) -> Result<Arc<dyn File>, Error> {
        Ok(DirectoryFile::of(entry))
    }

    fn directory(&self) -> Option<&dyn Directory> {
        Some(self)
    }
}

/// A directory whose names do not change.
pub struct Fixed {
    fs: Arc<PseudoFs>,
    ino: u64,
    names: Vec<(&'static str, Arc<dyn Inode>)>,
}

impl Fixed {
    /// A directory with these names.
    pub fn with(fs: &Arc<PseudoFs>, names: Vec<(&'static str, Arc<dyn Inode>)>) -> Arc<dyn Inode> {
        Arc::new(Self {
            fs: Arc::clone(fs),
            ino: fs.next(),
            names,
        })
    }
}

impl PseudoDirectory for Fixed {
    fn fs(&self) -> &Arc<PseudoFs> {
        &self.fs
    }

    fn ino(&self) -> u64 {
        self.ino
    }
}

impl Directory for Fixed {
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        let found = self.names.iter().find(|(known, _)| known.as_bytes() == name);
        found.map(|(_, inode)| Arc::clone(inode)).ok_or(Errno::ENOENT)
    }

    fn entries(&self, at: u64, take: &mut dyn FnMut(DirEntry) -> bool) -> Result<(), Errno> {
        list_names(
            at,
            self.names
                .iter()
                .map(|(name, inode)| (name.as_bytes().to_vec(), Arc::clone(inode))),
            take,
        );
        Ok(())
    }
}

/// Hands names to `take`, at positions from 2 on.
pub fn list_names(
    at: u64,
    names: impl Iterator<Item = (Vec<u8>, Arc<dyn Inode>)>,
    take: &mut dyn FnMut(DirEntry) -> bool,
) {
    for (place, (name, inode)) in (2..).zip(names) {
        if place < at {
            continue;
        }
        let stat = inode.stat();
        let entry = DirEntry {
            ino: stat.ino,
            mode: stat.mode & S_IFMT,
            name,
            next: place + 1,
        };
        if !take(entry) {
            return;
        }
    }
}
