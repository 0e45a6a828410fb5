//! `/proc/PID/pagemap`: a word for each page, and the `PAGEMAP_SCAN` command.

use alloc::sync::{Arc, Weak};
use alloc::vec;
use core::fmt;

use crate::abi::errno::Errno;
use crate::abi::stat::{S_IFREG, Stat, StatFs};
use crate::file::pseudo::PseudoFs;
use crate::file::tree::{Entry, Inode};
use crate::file::{File, Io, OpenFile, OpenFlags, Seeking, Sink};
use crate::mm::addr::{PAGE_SIZE, USER_TOP, VirtAddr};
use crate::mm::range::VirtRange;
use crate::mm::space::{Category, PageRun, ScanRequest, Space};
use crate::process::Process;
use crate::syscall::{Error, user};
use crate::uffd::linux;

/// Bytes of a page's word.
const WORD: u64 = 8;
/// Words that are made up at once.
const WORDS: usize = 256;
/// `PAGEMAP_SCAN`.
const SCAN: u32 = 0xc060_6610;
/// Bytes of its argument, a `struct pm_scan_arg`.
const ARGUMENT: usize = 96;
/// Where `walk_end` stands in it.
const WALK_END: u64 = 32;
/// Bytes of a `struct page_region`.
const REGION: u64 = 24;
/// Regions that are scanned for at once.
const REGIONS: u64 = 512;

/// `PM_SCAN_WP_MATCHING`.
const PROTECT: u64 = 1;
/// `PM_SCAN_CHECK_WPASYNC`.
const CHECK: u64 = 2;

/// The file.
pub(super) struct PagemapInode {
    fs: Arc<PseudoFs>,
    ino: u64,
    process: Weak<Process>,
}

impl PagemapInode {
    /// That of a process.
    pub fn of(fs: &Arc<PseudoFs>, process: &Arc<Process>) -> Arc<dyn Inode> {
        Arc::new(Self {
            fs: Arc::clone(fs),
            ino: fs.next(),
            process: Arc::downgrade(process),
        })
    }
}

impl Inode for PagemapInode {
    fn stat(&self) -> Stat {
        self.fs.stat(self.ino, S_IFREG | 0o400)
    }

    fn stat_fs(&self) -> StatFs {
        self.fs.stat_fs()
    }

    /// The memory is that of the program that runs now, also after it has executed another.
    fn open(&self, _entry: &Arc<Entry>, _flags: OpenFlags) -> Result<Arc<dyn File>, Error> {
        let process = self.process.upgrade().ok_or(Errno::ESRCH)?;
        Ok(Arc::new(PagemapFile(Arc::downgrade(process.mm().space()))))
    }
}

struct PagemapFile(Weak<Space>);

impl File for PagemapFile {
    fn label(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        f.write_str("the page map of a process")
    }

    fn seeking(&self) -> Seeking {
        Seeking::Positions
    }

    fn read(&self, io: &mut Io, to: &mut Sink<'_>) -> Result<usize, Error> {
        let Some(space) = self.0.upgrade() else {
            return Ok(0);
        };
        if !io.at.is_multiple_of(WORD) || !(to.left() as u64).is_multiple_of(WORD) {
            return Err(Errno::EINVAL.into());
        }
        let end = USER_TOP.as_u64() / PAGE_SIZE * WORD;
        let mut ended = Ok(());
        while to.left() > 0 && io.at < end && ended.is_ok() {
            let count = (to.left() as u64 / WORD)
                .min((end - io.at) / WORD)
                .min(WORDS as u64);
            let mut bytes = [0; WORDS * WORD as usize];
            let mut page = VirtAddr::new(io.at / WORD * PAGE_SIZE);
            for word in bytes.chunks_exact_mut(WORD as usize).take(count as usize) {
                word.copy_from_slice(&space.pagemap(page, true).to_ne_bytes());
                page = page + PAGE_SIZE;
            }
            let len = count * WORD;
            ended = to.put(&bytes[..len as usize]).map_err(Error::from);
            io.at += len;
        }
        to.outcome(ended)
    }

    fn ioctl(&self, _open: &OpenFile, command: u32, argument: u64) -> Result<u64, Error> {
        if command != SCAN {
            return Err(Errno::EINVAL.into());
        }
        let space = self.0.upgrade().ok_or(Errno::ESRCH)?;
        let arguments = Arguments::read(argument)?;
        let mut walk_end = 0;
        let scanned = arguments.scan(&space, &mut walk_end);
        if walk_end == 0 {
            walk_end = arguments.request.range.end.as_u64().next_multiple_of(PAGE_SIZE);
        }
        user::write(argument.wrapping_add(WALK_END), &walk_end.to_ne_bytes())?;
        scanned
    }
}

/// What the caller asks for, checked in Linux's order.
struct Arguments {
    request: ScanRequest,
    /// Where the regions go.
    regions: u64,
    /// How many have room.
    room: u64,
}

impl Arguments {
    fn read(at: u64) -> Result<Self, Error> {
        let mut words = [0; ARGUMENT / 8];
        let bytes = user::read_vec(at, ARGUMENT)?;
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into().map_err(|_| Errno::EFAULT)?);
        }
        let [
            size,
            flags,
            start,
            end,
            _,
            regions,
            room,
            max,
            inverted,
            all,
            any,
            report,
        ] = words;
        let category = |word: u64| {
            u16::try_from(word)
                .ok()
                .and_then(|bits| Category::from_bits(bits.into()))
        };
        let known = [inverted, all, any, report].map(category);
        let [Some(inverted), Some(all_of), Some(any_of), Some(report)] = known else {
            return Err(Errno::EINVAL.into());
        };
        if size != ARGUMENT as u64 || flags & !(PROTECT | CHECK) != 0 || !start.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::EINVAL.into());
        }
        if start > end || end > USER_TOP.as_u64() {
            return Err(Errno::EFAULT.into());
        }
        if regions == 0 && room != 0 {
            return Err(Errno::EINVAL.into());
        }
        let behind = room
            .checked_mul(REGION)
            .and_then(|bytes| regions.checked_add(bytes));
        if behind.is_none_or(|behind| behind > USER_TOP.as_u64()) {
            return Err(Errno::EFAULT.into());
        }
        Ok(Self {
            request: ScanRequest {
                range: VirtRange::new(VirtAddr::new(start), VirtAddr::new(end)),
                inverted,
                all_of,
                any_of,
                report,
                max_pages: (max != 0).then_some(max),
                protect: flags & PROTECT != 0,
                require_tracking: flags & CHECK != 0,
            },
            regions,
            room,
        })
    }

    /// Scans, a buffer of regions at a time; how many there were, and where it stopped.
    fn scan(&self, space: &Space, walk_end: &mut u64) -> Result<u64, Error> {
        let mut request = self.request;
        let end = request.range.end.as_u64().next_multiple_of(PAGE_SIZE);
        let mut given = 0;
        loop {
            let room = (self.room - given).min(REGIONS);
            let mut runs = vec![PageRun::EMPTY; room as usize];
            let scanned = space.scan(&request, &mut runs).map_err(linux::scan)?;
            *walk_end = scanned.end.as_u64();
            for run in &runs[..scanned.runs] {
                let mut region = [0; REGION as usize];
                region[..8].copy_from_slice(&run.range.start.as_u64().to_ne_bytes());
                region[8..16].copy_from_slice(&run.range.end.as_u64().to_ne_bytes());
                region[16..].copy_from_slice(&run.categories.bits().to_ne_bytes());
                user::write(self.regions + given * REGION, &region)?;
                given += 1;
                if let Some(left) = &mut request.max_pages {
                    *left -= run.range.pages();
                }
            }
            let is_done = scanned.end.as_u64() >= end || given == self.room || request.max_pages == Some(0);
            if is_done || scanned.runs == 0 {
                return Ok(given);
            }
            request.range.start = scanned.end;
        }
    }
}
