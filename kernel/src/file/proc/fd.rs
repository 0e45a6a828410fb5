//! `/proc/PID/fd` and `fdinfo`: the descriptors of a process.

use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use crate::abi::errno::Errno;
use crate::abi::stat::{S_IFLNK, S_IFMT, Stat, StatFs};
use crate::file::locks::{self, Owner};
use crate::file::pseudo::{Link, PseudoDirectory, PseudoFs, Text, list_names};
use crate::file::tree::{Directory, Entry, Inode, Target};
use crate::file::{DirEntry, File, OpenFile, OpenFlags};
use crate::process::Process;
use crate::syscall::Error;

/// What the names of a directory of descriptors are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Links to the files.
    Links,
    /// Text about them.
    Info,
}

/// A directory with a name for each descriptor.
pub(super) struct Descriptors {
    fs: Arc<PseudoFs>,
    ino: u64,
    process: Weak<Process>,
    kind: Kind,
}

impl Descriptors {
    /// `fd`.
    pub fn links(fs: &Arc<PseudoFs>, process: &Arc<Process>) -> Arc<dyn Inode> {
        Self::make(fs, process, Kind::Links)
    }

    /// `fdinfo`.
    pub fn info(fs: &Arc<PseudoFs>, process: &Arc<Process>) -> Arc<dyn Inode> {
        Self::make(fs, process, Kind::Info)
    }

    fn make(fs: &Arc<PseudoFs>, process: &Arc<Process>, kind: Kind) -> Arc<dyn Inode> {
        Arc::new(Self {
            fs: Arc::clone(fs),
            ino: fs.next(),
            process: Arc::downgrade(process),
            kind,
        })
    }

    fn name(&self, fd: u64) -> Arc<dyn Inode> {
        let process = Weak::clone(&self.process);
        let opened = move || {
            let files = process.upgrade().ok_or(Errno::ENOENT)?.files();
            let open = files.get_any(fd).map_err(|_| Errno::ENOENT)?;
            Ok((open, files.owner()))
        };
        match self.kind {
            Kind::Links => {
                let mode = opened().map_or(0, |(open, _)| rights(&open));
                Link::with_mode(&self.fs, mode, move || {
                    opened().map(|(open, _)| Target::Entry(entry_of(&open)))
                })
            }
            Kind::Info => Text::private(&self.fs, move || {
                let (open, table) = opened()?;
                info(&open, table).map(String::into_bytes)
            }),
        }
    }
}

/// The permissions of a link: what the descriptor can do.
fn rights(open: &OpenFile) -> u32 {
    let status = open.status();
    let (reads, writes) = (status.reads(), status.writes());
    0o100 | if reads { 0o400 } else { 0 } | if writes { 0o200 } else { 0 }
}

/// The name of an open file, or one made for it.
pub(super) fn entry_of(open: &Arc<OpenFile>) -> Arc<Entry> {
    match open.entry() {
        Some(entry) => Arc::clone(entry),
        None => {
            let mut label = String::new();
            // Writing to a string does not fail.
            let _ = open.file().label(&mut label);
            Entry::unnamed(Arc::new(Nameless(Arc::clone(open))), label.as_bytes())
        }
    }
}

/// The text about a descriptor of `table`'s.
fn info(open: &OpenFile, table: Owner) -> Result<String, Errno> {
    let status = open.status().bits();
    let mut text = format!(
        "pos:\t{}\nflags:\t0{status:o}\nmnt_id:\t1\nino:\t{}\n",
        open.position(),
        open.stat().ino
    );
    for (number, lock) in (1..).zip(locks::through(open, table)?) {
        text += &format!("lock:\t{number}: {lock}\n");
    }
    // Writing to a string does not fail.
    let _ = open.file().describe(&mut text);
    Ok(text)
}

impl PseudoDirectory for Descriptors {
    fn fs(&self) -> &Arc<PseudoFs> {
        &self.fs
    }

    fn ino(&self) -> u64 {
        self.ino
    }

    fn permissions(&self) -> u32 {
        0o500
    }
}

impl Directory for Descriptors {
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        let fd = super::number(name).ok_or(Errno::ENOENT)?;
        let process = self.process.upgrade().ok_or(Errno::ENOENT)?;
        process.files().get_any(fd).map_err(|_| Errno::ENOENT)?;
        Ok(self.name(fd))
    }

    fn is_volatile(&self) -> bool {
        true
    }

    fn entries(&self, at: u64, take: &mut dyn FnMut(DirEntry) -> bool) -> Result<(), Errno> {
        let process = self.process.upgrade().ok_or(Errno::ENOENT)?;
        let list = process.files().list();
        // Positions are numbers: descriptors come and go.
        let rest = list.into_iter().filter(|fd| fd + 2 >= at);
        for fd in rest {
            let mode = match self.kind {
                Kind::Links => S_IFLNK,
                Kind::Info => crate::abi::stat::S_IFREG,
            };
            let entry = DirEntry {
                ino: self.ino + fd + 1,
                mode: mode & S_IFMT,
                name: format!("{fd}").into_bytes(),
                next: fd + 3,
            };
            if !take(entry) {
                break;
            }
        }
        Ok(())
    }
}

/// The file of a descriptor that has no name: it can be looked at, but not opened again.
struct Nameless(Arc<OpenFile>);

impl Inode for Nameless {
    fn stat(&self) -> Stat {
        self.0.stat()
    }

    fn stat_fs(&self) -> StatFs {
        StatFs::default()
    }

    fn open(&self, _entry: &Arc<Entry>, _flags: OpenFlags) -> Result<Arc<dyn File>, Error> {
        Err(Errno::ENXIO.into())
    }
}

/// Hands the names of `list` to `take`.
pub(super) fn list(at: u64, list: Vec<(Vec<u8>, Arc<dyn Inode>)>, take: &mut dyn FnMut(DirEntry) -> bool) {
    list_names(at, list.into_iter(), take);
}
