//! Mappings with names, at addresses of our own choosing.
//!
//! Every region starts on a 2 MiB boundary of an arena that nobody else maps into, with at least 2 MiB of nothing
//! behind it. So a hole stays a hole, and no area merges with a neighbour unless a program makes it.
#![expect(unsafe_code, reason = "memory of the program's own is filled and compared")]

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::errno::Errno;
use crate::sys::{self, Answer};

/// Size of a page.
pub const PAGE: usize = 4096;

/// Size of a huge page.
pub const HUGE: usize = 2 << 20;

/// End of the addresses of a program.
pub const USER_END: usize = 0x7fff_ffff_f000;

/// Read and write.
pub const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Private memory without a file.
pub const ANON: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

/// Shared memory without a file.
pub const SHARED: i32 = libc::MAP_SHARED | libc::MAP_ANONYMOUS;

/// The arena's next free address.
static NEXT: AtomicUsize = AtomicUsize::new(0x1000_0000_0000);

/// Names of places, the newest last.
static NAMES: Mutex<Vec<(String, usize, usize)>> = Mutex::new(Vec::new());

/// A range of memory with a name.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    /// First address.
    pub start: usize,
    /// Length in bytes.
    pub len: usize,
}

impl Region {
    /// A range of the arena where nothing is mapped.
    pub fn hole(name: &str, len: usize) -> Self {
        let span = len.next_multiple_of(HUGE) + HUGE;
        let start = NEXT.fetch_add(span, Ordering::Relaxed);
        Self::named(name, start, len)
    }

    /// Gives a range that is there a name.
    pub fn named(name: &str, start: usize, len: usize) -> Self {
        NAMES.lock().unwrap().push((name.into(), start, len));
        Self { start, len }
    }

    /// A new mapping in the arena.
    pub fn map(name: &str, len: usize, prot: i32, flags: i32, fd: i32, offset: usize) -> Answer<Self> {
        let region = Self::hole(name, len);
        region.remap(prot, flags, fd, offset)?;
        Ok(region)
    }

    /// Maps something else over the whole region.
    pub fn remap(&self, prot: i32, flags: i32, fd: i32, offset: usize) -> Answer<()> {
        mmap(self.start, self.len, prot, flags | libc::MAP_FIXED, fd, offset).map(drop)
    }

    /// Private anonymous memory.
    pub fn anon(name: &str, pages: usize) -> Self {
        Self::map(name, pages * PAGE, RW, ANON, -1, 0).expect("anonymous memory can be mapped")
    }

    /// Private anonymous memory that holds `value` everywhere.
    pub fn filled(name: &str, pages: usize, value: u8) -> Self {
        let region = Self::anon(name, pages);
        region.fill(0, pages, value);
        region
    }

    /// Private anonymous memory in huge pages, which are there.
    pub fn huge(name: &str, huge_pages: usize) -> Self {
        Self::map(name, huge_pages * HUGE, RW, ANON | libc::MAP_HUGETLB, -1, 0).expect("huge pages are there")
    }

    /// A page that processes share with the children that they fork from now on.
    pub fn common(name: &str) -> Self {
        Self::map(name, PAGE, RW, SHARED, -1, 0).expect("shared memory can be mapped")
    }

    /// Shared memory of an object of memory.
    pub fn shared(name: &str, fd: i32, pages: usize) -> Self {
        Self::map(name, pages * PAGE, RW, libc::MAP_SHARED, fd, 0).expect("a memfd can be mapped")
    }

    /// Private memory over an object of memory.
    pub fn private(name: &str, fd: i32, pages: usize) -> Self {
        Self::map(name, pages * PAGE, RW, libc::MAP_PRIVATE, fd, 0).expect("a memfd can be mapped")
    }

    /// Address of a page.
    pub fn page(&self, index: usize) -> usize {
        self.start + index * PAGE
    }

    /// First address behind the region.
    pub fn end(&self) -> usize {
        self.start + self.len
    }

    /// Fills pages `from..to` with `value`; a fault is the program's own.
    pub fn fill(&self, from: usize, to: usize, value: u8) {
        assert!(from <= to && to * PAGE <= self.len);
        // SAFETY: the bytes belong to the region, which the program has mapped for writing and reads in no other way
        // than through raw addresses.
        unsafe { std::ptr::write_bytes(self.page(from) as *mut u8, value, (to - from) * PAGE) }
    }

    /// Unmaps the whole region.
    pub fn unmap(&self) -> Answer<()> {
        sys::call(libc::SYS_munmap, &[self.start, self.len]).map(drop)
    }

    /// madvise(2) over the whole region.
    pub fn advise(&self, advice: i32) -> Answer<()> {
        madvise(self.start, self.len, advice)
    }
}

/// mmap(2).
pub fn mmap(addr: usize, len: usize, prot: i32, flags: i32, fd: i32, offset: usize) -> Answer {
    sys::call(
        libc::SYS_mmap,
        &[addr, len, prot as usize, flags as usize, fd as usize, offset],
    )
}

/// madvise(2).
pub fn madvise(addr: usize, len: usize, advice: i32) -> Answer<()> {
    sys::call(libc::SYS_madvise, &[addr, len, advice as usize]).map(drop)
}

/// mprotect(2).
pub fn mprotect(addr: usize, len: usize, prot: i32) -> Answer<()> {
    sys::call(libc::SYS_mprotect, &[addr, len, prot as usize]).map(drop)
}

/// mremap(2).
pub fn mremap(addr: usize, old: usize, new: usize, flags: i32, to: usize) -> Answer {
    sys::call(libc::SYS_mremap, &[addr, old, new, flags as usize, to])
}

/// A new object of memory with a size.
pub fn memfd(pages: usize) -> i32 {
    let fd = memfd_flags(0).expect("memfd_create works");
    ftruncate(fd, pages * PAGE).expect("a memfd can be given a size");
    fd
}

/// A new, empty object of memory.
pub fn memfd_flags(flags: u32) -> Answer<i32> {
    sys::call(
        libc::SYS_memfd_create,
        &[c"guest".as_ptr() as usize, flags as usize],
    )
    .map(|fd| fd as i32)
}

/// ftruncate(2).
pub fn ftruncate(fd: i32, len: usize) -> Answer<()> {
    sys::call(libc::SYS_ftruncate, &[fd as usize, len]).map(drop)
}

/// Where `address` is, by the newest name that covers it: `dst+0x1000`.
pub fn place(address: usize) -> Place {
    Place(address)
}

/// An address that prints itself relative to the region it is in.
pub struct Place(usize);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = NAMES.lock().unwrap();
        // An end of a region is told as such, unless something begins there.
        let inside = names
            .iter()
            .rev()
            .find(|(_, start, len)| (*start..start + len).contains(&self.0));
        let found = inside.or_else(|| names.iter().rev().find(|(_, start, len)| start + len == self.0));
        match found {
            Some((name, start, _)) if self.0 == *start => f.write_str(name),
            Some((name, start, _)) => write!(f, "{name}+{:#x}", self.0 - start),
            None if self.0 == 0 => f.write_str("0"),
            None => f.write_str("elsewhere"),
        }
    }
}

/// Turns a length into pages where it is whole pages: `2p`, else bytes.
pub fn pages(len: usize) -> String {
    if len.is_multiple_of(PAGE) {
        format!("{}p", len / PAGE)
    } else {
        format!("{len} bytes")
    }
}

/// Sees to it that at least `wanted` huge pages are free, and says whether that worked.
pub fn want_huge_pages(wanted: usize) -> bool {
    const POOL: &str = "/proc/sys/vm/nr_hugepages";
    let number = |key: &str| crate::proc::meminfo(key).unwrap_or(0) as usize;
    // Pages that are promised to a mapping count as free until they are touched.
    let free = || number("HugePages_Free:").saturating_sub(number("HugePages_Rsvd:"));
    for _ in 0..3 {
        if free() >= wanted {
            return true;
        }
        let there: usize = std::fs::read_to_string(POOL)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0);
        let _ = std::fs::write(POOL, (there + wanted - free()).to_string());
    }
    free() >= wanted
}

/// A new object of huge pages with a size in huge pages.
pub fn huge_memfd(huge_pages: usize) -> Result<i32, Errno> {
    let fd = memfd_flags(libc::MFD_HUGETLB)?;
    ftruncate(fd, huge_pages * HUGE)?;
    Ok(fd)
}

/// A directory whose files live in memory, as /dev/shm's do.
pub fn memory_directory() -> &'static str {
    const TMPFS: i64 = 0x0102_1994;
    let is_tmpfs = |path: &&&str| {
        let mut about = [0i64; 16];
        let answer = sys::with_path(libc::SYS_statfs, path, &[about.as_mut_ptr() as usize]);
        answer.is_ok() && about[0] == TMPFS
    };
    ["/dev/shm", "/tmp"]
        .iter()
        .find(is_tmpfs)
        .copied()
        .unwrap_or("/tmp")
}

/// Does `work` in a new directory of memory, and says whether all that it left there could be removed.
pub fn in_memory_directory(work: impl FnOnce()) -> bool {
    let directory = format!("{}/guest-tests-{}", memory_directory(), std::process::id());
    std::fs::create_dir(&directory).expect("a directory can be made");
    std::env::set_current_dir(&directory).expect("it is there");
    work();
    std::env::set_current_dir("/").expect("it is there");
    std::fs::remove_dir_all(&directory).is_ok()
}

/// A new file of some pages in a directory of memory, without a name.
pub fn tmpfs_file(pages: usize) -> i32 {
    let path = format!("{}/guest-tests-{}", memory_directory(), std::process::id());
    let fd = sys::open(&path, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL).expect("a file can be made");
    std::fs::remove_file(&path).expect("a file can be removed");
    ftruncate(fd, pages * PAGE).expect("a file can be given a size");
    fd
}

/// Another descriptor of the same file, opened for reading alone.
pub fn reopen_readonly(fd: i32) -> Answer<i32> {
    sys::open(&format!("/proc/self/fd/{fd}"), libc::O_RDONLY)
}
