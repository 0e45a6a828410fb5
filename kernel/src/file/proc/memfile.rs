//! `/proc/PID/mem`: the memory of a process. What a monitor would have to be waited for is not waited for.

use alloc::sync::{Arc, Weak};
use core::fmt;

use crate::abi::errno::Errno;
use crate::abi::stat::{S_IFREG, Stat, StatFs};
use crate::file::pseudo::PseudoFs;
use crate::file::tree::{Entry, Inode};
use crate::file::{File, Io, OpenFlags, PIECE, Seeking, Sink, Source};
use crate::mm::addr::{PAGE_SIZE, VirtAddr};
use crate::mm::fault::Origin;
use crate::mm::space::Space;
use crate::process::Process;
use crate::syscall::Error;
use crate::uffd::linux::{OnBehalf, on_behalf};

/// The file.
pub(super) struct MemInode {
    fs: Arc<PseudoFs>,
    ino: u64,
    process: Weak<Process>,
}

impl MemInode {
    /// That of a process.
    pub fn of(fs: &Arc<PseudoFs>, process: &Arc<Process>) -> Arc<dyn Inode> {
        Arc::new(Self {
            fs: Arc::clone(fs),
            ino: fs.next(),
            process: Arc::downgrade(process),
        })
    }
}

impl Inode for MemInode {
    fn stat(&self) -> Stat {
        self.fs.stat(self.ino, S_IFREG | 0o600)
    }

    fn stat_fs(&self) -> StatFs {
        self.fs.stat_fs()
    }

    /// The memory is that of the program that runs now, also after it has executed another.
    fn open(&self, _entry: &Arc<Entry>, _flags: OpenFlags) -> Result<Arc<dyn File>, Error> {
        let process = self.process.upgrade().ok_or(Errno::ESRCH)?;
        Ok(Arc::new(MemFile(Arc::downgrade(process.mm().space()))))
    }
}

struct MemFile(Weak<Space>);

/// Bytes from `at` to the end of its page, at most `len`.
fn in_one_page(at: u64, len: usize) -> usize {
    len.min((PAGE_SIZE - at % PAGE_SIZE) as usize).min(PIECE)
}

impl File for MemFile {
    fn label(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        f.write_str("the memory of a process")
    }

    fn seeking(&self) -> Seeking {
        Seeking::Positions
    }

    fn read(&self, io: &mut Io, to: &mut Sink<'_>) -> Result<usize, Error> {
        let Some(space) = self.0.upgrade() else {
            return Ok(0);
        };
        let mut piece = [0; PIECE];
        let mut ended = Ok(());
        while to.left() > 0 && ended.is_ok() {
            let len = in_one_page(io.at, to.left());
            let read = space.read_bytes(VirtAddr::new(io.at), &mut piece[..len], Origin::Debugger);
            ended = match read {
                Ok(()) => to.put(&piece[..len]).map_err(Error::from),
                Err(error) => Err(on_behalf(OnBehalf::ProcMem, error.why).into()),
            };
            if ended.is_ok() {
                io.at += len as u64;
            }
        }
        to.outcome(ended)
    }

    fn write(&self, io: &mut Io, from: &mut Source<'_>) -> Result<usize, Error> {
        let Some(space) = self.0.upgrade() else {
            return Ok(0);
        };
        let mut piece = [0; PIECE];
        let mut ended = Ok(());
        while from.left() > 0 && ended.is_ok() {
            let len = in_one_page(io.at, from.left());
            let (len, taken) = from.take(&mut piece[..len]);
            let written = space.write_bytes(VirtAddr::new(io.at), &piece[..len], Origin::Debugger);
            ended = match written {
                Ok(()) => taken.map_err(Error::from),
                Err(error) => {
                    from.give_back(len);
                    Err(on_behalf(OnBehalf::ProcMem, error.why).into())
                }
            };
            if written.is_ok() {
                io.at += len as u64;
            }
        }
        from.outcome(ended)
    }
}
