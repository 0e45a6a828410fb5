//! What /proc tells of a process, a thread, a page.

use std::fs;

use crate::region::PAGE;
use crate::sys;

/// State of a thread of this process: R, S, D, T, Z ...
///
/// Nothing is allocated: a thread may be forking meanwhile, and its child must not find the allocator locked.
pub fn state(tid: i32) -> Option<char> {
    state_at(&[b"/proc/self/task/", &digits(tid), b"/stat\0"])
}

/// State of another process.
pub fn process_state(pid: i32) -> Option<char> {
    state_at(&[b"/proc/", &digits(pid), b"/stat\0"])
}

/// The number in decimal, with leading slashes, which a path may have as many of as it likes.
fn digits(mut number: i32) -> [u8; 10] {
    let mut text = [b'/'; 10];
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text
}

/// The third word of a stat file.
fn state_at(path: &[&[u8]]) -> Option<char> {
    let mut whole = [0u8; 64];
    let mut at = 0;
    for part in path {
        whole[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    let fd = sys::call(
        libc::SYS_open,
        &[whole.as_ptr() as usize, libc::O_RDONLY as usize],
    )
    .ok()?;
    let mut text = [0u8; 128];
    let read = sys::read(fd as i32, &mut text);
    let _ = sys::close(fd as i32);
    let text = &text[..read.ok()?];
    // The name before it stands in parentheses and may hold anything.
    let end = text.iter().rposition(|byte| *byte == b')')?;
    text[end + 1..]
        .iter()
        .find(|byte| **byte != b' ')
        .map(|byte| char::from(*byte))
}

/// A number of /proc/meminfo, in the unit that stands there.
pub fn meminfo(key: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// The entry of /proc/self/pagemap for the page at `address`.
pub fn pagemap(address: usize) -> Option<u64> {
    let fd = open("/proc/self/pagemap")?;
    let mut entry = 0u64;
    let got = sys::call(
        libc::SYS_pread64,
        &[fd, &raw mut entry as usize, 8, address / PAGE * 8],
    );
    let _ = sys::call(libc::SYS_close, &[fd]);
    (got == Ok(8)).then_some(entry)
}

/// The entry in words: `empty`, `present`, `present file wp`; what is not present is told with its number.
///
/// Bits that depend on how a kernel was built (soft-dirty) or on who else has the page (exclusive) are left out.
pub fn page(address: usize) -> String {
    const PRESENT: u64 = 1 << 63;
    const WP: u64 = 1 << 57;
    const FILE: u64 = 1 << 61;
    const LEFT_OUT: u64 = 1 << 55 | 1 << 56;
    let Some(entry) = pagemap(address) else {
        return "no pagemap".into();
    };
    if entry & PRESENT == 0 {
        return match entry & !LEFT_OUT {
            0 => "empty".into(),
            entry => format!("{entry:#x}"),
        };
    }
    let mut words = String::from("present");
    for (bit, word) in [(FILE, " file"), (WP, " wp")] {
        if entry & bit != 0 {
            words.push_str(word);
        }
    }
    words
}

/// Opens a file for reading.
fn open(path: &str) -> Option<usize> {
    let path = std::ffi::CString::new(path).ok()?;
    sys::call(libc::SYS_open, &[path.as_ptr() as usize, libc::O_RDONLY as usize]).ok()
}

/// The VmFlags of the area at `address` that concern userfaultfd, as smaps tells them.
pub fn uffd_flags(address: usize) -> String {
    let Ok(text) = fs::read_to_string("/proc/self/smaps") else {
        return "no smaps".into();
    };
    let mut inside = false;
    for line in text.lines() {
        if let Some(range) = line
            .split_whitespace()
            .next()
            .and_then(|word| word.split_once('-'))
            && let (Ok(from), Ok(to)) = (
                usize::from_str_radix(range.0, 16),
                usize::from_str_radix(range.1, 16),
            )
        {
            inside = (from..to).contains(&address);
        } else if inside && let Some(flags) = line.strip_prefix("VmFlags:") {
            let ours: Vec<&str> = flags
                .split_whitespace()
                .filter(|flag| matches!(*flag, "um" | "uw" | "ui"))
                .collect();
            return if ours.is_empty() {
                "none".into()
            } else {
                ours.join(" ")
            };
        }
    }
    "no area".into()
}

/// Categories of PAGEMAP_SCAN.
#[expect(missing_docs, reason = "the names are the manual's")]
pub mod category {
    pub const WPALLOWED: u64 = 1;
    pub const WRITTEN: u64 = 2;
    pub const FILE: u64 = 4;
    pub const PRESENT: u64 = 8;
    pub const SWAPPED: u64 = 0x10;
    pub const PFNZERO: u64 = 0x20;
}

/// PAGEMAP_SCAN: re-protects what is reported.
pub const SCAN_WP_MATCHING: u64 = 1;
/// PAGEMAP_SCAN: refuses areas that are not tracked asynchronously.
pub const SCAN_CHECK_WPASYNC: u64 = 2;

/// An argument of PAGEMAP_SCAN that asks for everything of a range.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the names are the manual's")]
pub struct ScanArgument {
    pub size: u64,
    pub flags: u64,
    pub start: u64,
    pub end: u64,
    pub walk_end: u64,
    pub vec: u64,
    pub vec_len: u64,
    pub max_pages: u64,
    pub category_inverted: u64,
    pub category_mask: u64,
    pub category_anyof_mask: u64,
    pub return_mask: u64,
}

impl ScanArgument {
    /// Every page of the range, with these categories told.
    pub fn over(start: usize, len: usize, return_mask: u64) -> Self {
        Self {
            size: 96,
            flags: 0,
            start: start as u64,
            end: (start + len) as u64,
            walk_end: 0,
            vec: 0,
            vec_len: 0,
            max_pages: 0,
            category_inverted: 0,
            category_mask: 0,
            category_anyof_mask: 0,
            return_mask,
        }
    }

    /// Runs it on /proc/self/pagemap with room for `room` runs of pages; answers them as `start`, `end`, categories.
    pub fn run(&mut self, room: usize) -> sys::Answer<Vec<[u64; 3]>> {
        let fd = sys::open("/proc/self/pagemap", libc::O_RDONLY)?;
        let mut runs = vec![[0u64; 3]; room];
        self.vec = if room == 0 { 0 } else { runs.as_mut_ptr() as u64 };
        self.vec_len = room as u64;
        let answer = sys::call(
            libc::SYS_ioctl,
            &[fd as usize, 0xc060_6610, &raw mut *self as usize],
        );
        let _ = sys::close(fd);
        runs.truncate(answer?);
        Ok(runs)
    }
}
