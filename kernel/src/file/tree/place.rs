//! Where a process stands in the tree: its root, its working directory, and its umask. Threads share one; a fork copies it.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

use super::change;
use super::entry::Entry;
use super::inode::New;
use super::walk::{Found, Last, Name, walk};
use crate::abi::errno::Errno;
use crate::abi::stat::{S_IFMT, S_IFREG};
use crate::file::access::{MAY_EXECUTE, MAY_READ, MAY_WRITE, User};
use crate::file::mounts::Mounts;
use crate::file::{Mapped, OpenFile, OpenFlags, Running};
use crate::mm::cache::Object;
use crate::sync::SpinLock;
use crate::syscall::Error;

/// Where a process stands.
#[derive(Debug)]
pub struct Place {
    mounts: Arc<Mounts>,
    at: SpinLock<At>,
    umask: AtomicU32,
}

#[derive(Clone, Debug)]
struct At {
    root: Arc<Entry>,
    cwd: Arc<Entry>,
}

impl Place {
    /// At the root of `mounts`.
    pub fn new(mounts: &Arc<Mounts>) -> Arc<Self> {
        let root = Arc::clone(mounts.root());
        Arc::new(Self {
            mounts: Arc::clone(mounts),
            at: SpinLock::new(At {
                cwd: Arc::clone(&root),
                root,
            }),
            umask: AtomicU32::new(0o22),
        })
    }

    /// The same for another process.
    pub fn copy(&self) -> Arc<Self> {
        Arc::new(Self {
            mounts: Arc::clone(&self.mounts),
            at: SpinLock::new(self.at.lock().clone()),
            umask: AtomicU32::new(self.umask()),
        })
    }

    /// What is mounted.
    pub fn mounts(&self) -> &Arc<Mounts> {
        &self.mounts
    }

    /// Its root.
    pub fn root(&self) -> Arc<Entry> {
        Arc::clone(&self.at.lock().root)
    }

    /// Its working directory.
    pub fn cwd(&self) -> Arc<Entry> {
        Arc::clone(&self.at.lock().cwd)
    }

    /// Bits of a mode that new files do not get.
    pub fn umask(&self) -> u32 {
        self.umask.load(Ordering::Relaxed)
    }

    /// Sets the umask; what it was.
    pub fn set_umask(&self, mask: u32) -> u32 {
        self.umask.swap(mask & 0o777, Ordering::Relaxed)
    }

    /// Makes a directory the working directory.
    ///
    /// # Errors
    /// ENOTDIR.
    pub fn set_cwd(&self, entry: Arc<Entry>) -> Result<(), Errno> {
        must_be_directory(&entry)?;
        let old = core::mem::replace(&mut self.at.lock().cwd, entry);
        drop(old);
        Ok(())
    }

    /// Makes a directory the root.
    ///
    /// # Errors
    /// ENOTDIR.
    pub fn set_root(&self, entry: Arc<Entry>) -> Result<(), Errno> {
        must_be_directory(&entry)?;
        let old = core::mem::replace(&mut self.at.lock().root, entry);
        drop(old);
        Ok(())
    }

    /// Walks `path` from `start`; from the working directory if that is `None`. May sleep.
    ///
    /// # Errors
    /// See [`walk`].
    pub fn walk(&self, start: Option<&Arc<Entry>>, path: &[u8], last: Last) -> Result<Found, Errno> {
        let At { root, cwd } = self.at.lock().clone();
        walk(&root, start.unwrap_or(&cwd), path, last)
    }

    /// The file at `path`.
    ///
    /// # Errors
    /// ENOENT and others, see [`walk`].
    pub fn find(&self, start: Option<&Arc<Entry>>, path: &[u8], last: Last) -> Result<Arc<Entry>, Errno> {
        self.walk(start, path, last)?.existing()
    }

    /// `openat`: opens the file at `path`, or makes it. May sleep.
    ///
    /// # Errors
    /// What the walk and the file say.
    pub fn open(
        &self,
        start: Option<&Arc<Entry>>,
        path: &[u8],
        flags: OpenFlags,
        mode: u32,
    ) -> Result<Arc<OpenFile>, Error> {
        if flags.contains(OpenFlags::TMPFILE_BIT) {
            return self.open_unnamed(start, path, flags, mode);
        }
        let creates = flags.contains(OpenFlags::CREAT) && !flags.contains(OpenFlags::PATH);
        let leaves = flags.contains(OpenFlags::NOFOLLOW) || (creates && flags.contains(OpenFlags::EXCL));
        let last = match (leaves, creates) {
            (true, true) => Last::Name,
            (true, false) => Last::Leave,
            (false, _) => Last::Follow,
        };
        let found = self.walk(start, path, last)?;
        if !creates {
            return open_entry(&found.existing()?, flags);
        }
        if found.name != Name::Root && matches!(found.name, Name::Plain(_)) && found.slash {
            return Err(Errno::EISDIR.into());
        }
        match &found.entry {
            None => self.create(&found, flags, mode),
            Some(_) if flags.contains(OpenFlags::EXCL) => Err(Errno::EEXIST.into()),
            Some(entry) if entry.inode().is_directory() => Err(Errno::EISDIR.into()),
            Some(entry) => open_entry(entry, flags),
        }
    }

    /// Opens the file at `found` that is not there. If somebody else makes it first, opens that.
    fn create(&self, found: &Found, flags: OpenFlags, mode: u32) -> Result<Arc<OpenFile>, Error> {
        if flags.contains(OpenFlags::DIRECTORY) {
            return Err(Errno::EINVAL.into());
        }
        let mode = mode & 0o7777 & !self.umask();
        match change::make(found, New::Regular, mode) {
            Ok(entry) => open_permitted(&entry, flags - OpenFlags::TRUNC),
            Err(Errno::EEXIST) if !flags.contains(OpenFlags::EXCL) => match &found.name {
                Name::Plain(name) => open_entry(&found.dir.lookup(name)?, flags),
                _ => Err(Errno::EISDIR.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// `O_TMPFILE`: a file in the file system of a directory, without a name.
    fn open_unnamed(
        &self,
        start: Option<&Arc<Entry>>,
        path: &[u8],
        flags: OpenFlags,
        mode: u32,
    ) -> Result<Arc<OpenFile>, Error> {
        if !flags.contains(OpenFlags::DIRECTORY) || !flags.writes() {
            return Err(Errno::EINVAL.into());
        }
        let dir = self.find(start, path, Last::Follow)?;
        dir.directory()?;
        let mode = mode & 0o7777 & !self.umask();
        let entry = crate::file::tmpfs::unnamed(&dir, mode).ok_or(Errno::EOPNOTSUPP)?;
        open_permitted(&entry, flags - OpenFlags::DIRECTORY - OpenFlags::TMPFILE_BIT)
    }

    /// The contents and the name of a program.
    ///
    /// # Errors
    /// EACCES: it is no regular file, or not to be executed. ENOENT and others, as for [`Self::open`].
    pub fn open_program(
        &self,
        start: Option<&Arc<Entry>>,
        path: &[u8],
    ) -> Result<(Executable, Arc<Entry>), Error> {
        let entry = self.find(start, path, Last::Follow)?;
        Ok((program_of(&entry)?, entry))
    }

    /// `mkdir`, `mknod`, `symlink`: makes something else than a file that is opened.
    ///
    /// # Errors
    /// EEXIST and others.
    pub fn make(
        &self,
        start: Option<&Arc<Entry>>,
        path: &[u8],
        new: New<'_>,
        mode: u32,
    ) -> Result<Arc<Entry>, Errno> {
        let found = self.walk(start, path, Last::Name)?;
        let mode = match new {
            New::Symlink(_) => 0o777,
            New::Directory => mode & 0o1777 & !self.umask(),
            _ => mode & 0o7777 & !self.umask(),
        };
        change::make(&found, new, mode)
    }
}

/// A file that can be executed.
#[derive(Clone, Debug)]
pub struct Executable {
    /// Its contents.
    pub object: Arc<Object>,
    /// Keeps others from writing to it while it runs.
    pub running: Option<Running>,
}

/// What a program is made of.
///
/// # Errors
/// EACCES: it is no regular file, or not to be executed. ETXTBSY: it is open for writing.
pub fn program_of(entry: &Arc<Entry>) -> Result<Executable, Error> {
    let stat = entry.inode().stat();
    if stat.mode & S_IFMT != S_IFREG {
        return Err(Errno::EACCES.into());
    }
    User::current().may(&stat, MAY_EXECUTE)?;
    let file = entry.inode().open(entry, OpenFlags::empty())?;
    let running = file.run()?;
    match file.mapping().map_err(|_| Errno::ENOEXEC)?.memory {
        Mapped::Object(object) => Ok(Executable { object, running }),
        Mapped::Anonymous => Err(Errno::EACCES.into()),
    }
}

fn must_be_directory(entry: &Arc<Entry>) -> Result<(), Errno> {
    if entry.inode().is_directory() {
        Ok(())
    } else {
        Err(Errno::ENOTDIR)
    }
}

/// Opens a file that is there.
///
/// # Errors
/// ELOOP, EISDIR, ENOTDIR, EACCES, and what the file says.
pub(crate) fn open_entry(entry: &Arc<Entry>, flags: OpenFlags) -> Result<Arc<OpenFile>, Error> {
    let inode = entry.inode();
    if flags.contains(OpenFlags::DIRECTORY) && !inode.is_directory() {
        return Err(Errno::ENOTDIR.into());
    }
    if flags.contains(OpenFlags::PATH) {
        return Ok(OpenFile::of_path(entry, flags));
    }
    if inode.is_symlink() {
        return Err(Errno::ELOOP.into());
    }
    if inode.is_directory() && (flags.writes() || flags.contains(OpenFlags::TRUNC)) {
        return Err(Errno::EISDIR.into());
    }
    let wanted = if flags.reads() { MAY_READ } else { 0 } | if flags.writes() { MAY_WRITE } else { 0 };
    User::current().may(&inode.stat(), wanted)?;
    open_permitted(entry, flags)
}

/// Opens a file whose permissions do not matter or have been looked at.
fn open_permitted(entry: &Arc<Entry>, flags: OpenFlags) -> Result<Arc<OpenFile>, Error> {
    let inode = entry.inode();
    let file = inode.open(entry, flags)?;
    if flags.contains(OpenFlags::TRUNC) && inode.stat().mode & S_IFMT == S_IFREG {
        inode.truncate(0)?;
    }
    Ok(OpenFile::named(
        file,
        Arc::clone(entry),
        flags | OpenFlags::LARGEFILE,
    ))
}
