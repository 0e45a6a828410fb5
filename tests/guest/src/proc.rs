//! What /proc tells of a process, a thread, a page.

use std::fs;

use crate::region::PAGE;
use crate::sys;

/// State of a thread of this process: R, S, D, T, Z ...
pub fn state(tid: i32) -> Option<char> {
    state_at(&format!("/proc/self/task/{tid}/stat"))
}

/// State of another process.
pub fn process_state(pid: i32) -> Option<char> {
    state_at(&format!("/proc/{pid}/stat"))
}

fn state_at(path: &str) -> Option<char> {
    let text = fs::read_to_string(path).ok()?;
    // The name before it stands in parentheses and may hold anything.
    text[text.rfind(')')? + 1..].trim_start().chars().next()
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
