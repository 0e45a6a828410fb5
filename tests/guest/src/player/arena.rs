//! Addresses with names.
//!
//! ```text
//! a5       page 5 of slot a; slots a to h are 16 pages each and lie one after the other
//! a5.17    byte 17 of that page
//! A1       huge page 1 of slot A; slots A to D are 3 huge pages each, far behind the small ones
//! pat3     page 3 of a pattern that is not part of the arena: what COPY takes its bytes from; hpat1 the same, huge
//! top-1    a page below the end of user space; top, top+1; kernel; 0x123 any address
//! ```
//!
//! Lengths are pages (`8`), huge pages (`2h`) or bytes (`b100`).
#![expect(unsafe_code, reason = "the patterns lie at fixed addresses")]

use std::fmt;

use guest_tests::sys;

/// Bytes of a page.
pub const PAGE: usize = 4096;
/// Bytes of a huge page.
pub const HUGE: usize = 2 << 20;
/// Pages of a small slot.
pub const SLOT_PAGES: usize = 16;
/// Small slots.
pub const SLOTS: usize = 8;
/// Huge pages of a huge slot.
pub const HUGE_SLOT_PAGES: usize = 3;
/// Huge slots.
pub const HUGE_SLOTS: usize = 4;

/// Where the small slots begin. Nothing else is mapped near it.
pub const SMALL_BASE: usize = 0x2000_0000_0000;
/// Where the huge slots begin.
pub const HUGE_BASE: usize = 0x2000_4000_0000;
/// Where the pattern begins.
const PATTERN: usize = 0x3000_0000_0000;
/// Where the huge pattern begins.
const HUGE_PATTERN: usize = 0x3000_4000_0000;
/// The end of user space with four levels of page tables.
const TOP: usize = 0x7fff_ffff_f000;

/// Pages of the pattern.
const PATTERN_PAGES: usize = 32;

/// Maps and fills the patterns, before any case is forked.
pub fn fill_patterns() {
    let read_write = (libc::PROT_READ | libc::PROT_WRITE) as usize;
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED) as usize;
    for (base, pages, page) in [
        (PATTERN, PATTERN_PAGES, PAGE),
        (HUGE_PATTERN, HUGE_SLOT_PAGES, HUGE),
    ] {
        let len = pages * page;
        let mapped = sys::call(libc::SYS_mmap, &[base, len, read_write, flags, usize::MAX, 0]);
        assert_eq!(mapped, Ok(base), "the pattern's place is free");
        for index in 0..pages {
            // SAFETY: mapped just now, and not used as anything else.
            let bytes = unsafe { std::slice::from_raw_parts_mut((base + index * page) as *mut u8, page) };
            bytes.fill(0x80 + index as u8);
        }
    }
}

/// Maps a page beside the small slots and one beside the huge ones, and touches them: what Linux says of empty entries
/// depends on whether there is a page table for them.
pub fn anchor() {
    let read_write = (libc::PROT_READ | libc::PROT_WRITE) as usize;
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_POPULATE) as usize;
    for at in [SMALL_BASE + HUGE - PAGE, HUGE_BASE + (1 << 30) - PAGE] {
        let mapped = sys::call(libc::SYS_mmap, &[at, PAGE, read_write, flags, usize::MAX, 0]);
        assert_eq!(mapped, Ok(at), "the place beside the slots is free");
    }
}

/// The address that a word names.
pub fn address(word: &str) -> Option<usize> {
    match word {
        "top" => return Some(TOP),
        "top-1" => return Some(TOP - PAGE),
        "top+1" => return Some(TOP + PAGE),
        "kernel" => return Some(0xffff_8880_0000_0000),
        _ => {}
    }
    if let Some(digits) = word.strip_prefix("0x") {
        return usize::from_str_radix(digits, 16).ok();
    }
    let (name, byte) = word.split_once('.').unwrap_or((word, "0"));
    let byte: usize = byte.parse().ok()?;
    let (base, page, unit) = if let Some(page) = name.strip_prefix("pat") {
        (PATTERN, page, PAGE)
    } else if let Some(page) = name.strip_prefix("hpat") {
        (HUGE_PATTERN, page, HUGE)
    } else {
        let letter = name.bytes().next()?;
        match letter {
            b'a'..=b'z' => (
                SMALL_BASE + usize::from(letter - b'a') * SLOT_PAGES * PAGE,
                &name[1..],
                PAGE,
            ),
            b'A'..=b'Z' => (
                HUGE_BASE + usize::from(letter - b'A') * HUGE_SLOT_PAGES * HUGE,
                &name[1..],
                HUGE,
            ),
            _ => return None,
        }
    };
    Some(base + page.parse::<usize>().ok()? * unit + byte)
}

/// The bytes that a word for a length names.
pub fn length(word: &str) -> Option<usize> {
    if let Some(digits) = word.strip_prefix("0x") {
        return usize::from_str_radix(digits, 16).ok();
    }
    if let Some(bytes) = word.strip_prefix('b') {
        return bytes.parse().ok();
    }
    match word.strip_suffix('h') {
        Some(pages) => Some(pages.parse::<usize>().ok()? * HUGE),
        None => Some(word.parse::<usize>().ok()? * PAGE),
    }
}

/// The pages of all slots: where each begins and how long it is.
pub fn pages() -> impl Iterator<Item = (usize, usize)> {
    let small = (0..SLOTS * SLOT_PAGES).map(|page| (SMALL_BASE + page * PAGE, PAGE));
    let huge = (0..HUGE_SLOTS * HUGE_SLOT_PAGES).map(|page| (HUGE_BASE + page * HUGE, HUGE));
    small.chain(huge)
}

/// Whether the address lies in a huge slot.
pub fn is_huge(address: usize) -> bool {
    (HUGE_BASE..HUGE_BASE + HUGE_SLOTS * HUGE_SLOT_PAGES * HUGE).contains(&address)
}

/// An address as text: its name in the arena, itself when no kernel can have chosen it, else only that it is elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(pub usize);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (base, first, slot_pages, unit) = match self.0 {
            address if !(PAGE * 16..TOP - PAGE).contains(&address) => return write!(f, "{address:#x}"),
            address if (SMALL_BASE..HUGE_BASE).contains(&address) => (SMALL_BASE, b'a', SLOT_PAGES, PAGE),
            address if (HUGE_BASE..HUGE_BASE + (1 << 30)).contains(&address) => {
                (HUGE_BASE, b'A', HUGE_SLOT_PAGES, HUGE)
            }
            _ => return f.write_str("elsewhere"),
        };
        let (page, byte) = ((self.0 - base) / unit, (self.0 - base) % unit);
        // One past the last slot is a place that ends of ranges have.
        let slot = (page / slot_pages).min(25);
        write!(
            f,
            "{}{}",
            char::from(first + slot as u8),
            page - slot * slot_pages
        )?;
        match byte {
            0 => Ok(()),
            byte => write!(f, ".{byte}"),
        }
    }
}
