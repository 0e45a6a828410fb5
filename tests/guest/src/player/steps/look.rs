//! Looks at what is mapped and what its entries say.
//!
//! ```text
//! pagemap AT LEN                         the words, equal ones told once; frame numbers are left out
//! vmas AT LEN                            protection, sharing and registration, from smaps
//! scan AT LEN FLAGS INVERTED ALL ANY RETURN   PAGEMAP_SCAN with these masks
//! incore AT LEN                          mincore
//! ```
//!
//! `P` present, `F` file or shared, `X` only mapped here, `W` write-protected, `G` guard.

use std::fmt::{self, Write};

use guest_tests::sys;

use super::super::arena::{HUGE, PAGE, Place, is_huge};
use super::super::pen::{Pen, Runs};
use super::{Bad, Outcome, Words, say};

pub fn carry_out(verb: &str, words: &mut Words<'_>, out: &mut impl Write) -> Outcome {
    let (at, len) = (words.address()?, words.length()?);
    match verb {
        "pagemap" => pagemap(at, len, out),
        "vmas" => vmas(at, len, out),
        "scan" => scan(at, len, words, out),
        "incore" => incore(at, len, out),
        _ => Err(Bad("no such verb")),
    }
}

fn open(path: &std::ffi::CStr) -> Outcome<usize> {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    let opened = sys::call(
        libc::SYS_openat,
        &[libc::AT_FDCWD as usize, path.as_ptr() as usize, flags as usize],
    );
    opened.map_err(|_| Bad("no such file below /proc/self"))
}

fn pagemap(at: usize, len: usize, out: &mut impl Write) -> Outcome {
    let file = open(c"/proc/self/pagemap")?;
    let step = if is_huge(at) { HUGE } else { PAGE };
    let mut runs = Runs::new(out);
    for page in (at..at + len).step_by(step) {
        let mut word = 0_u64;
        let read = sys::call(
            libc::SYS_pread64,
            &[file, &raw mut word as usize, 8, page / PAGE * 8],
        );
        runs.push(read.map_or(Entry(u64::MAX), |_| Entry::of(word)))?;
    }
    runs.end()?;
    let _ = sys::call(libc::SYS_close, &[file]);
    Ok(())
}

/// A pagemap word, without what the kernel decides at will: the frame, and whether it was written since some time.
#[derive(PartialEq)]
struct Entry(u64);

impl Entry {
    fn of(word: u64) -> Self {
        const FRAME: u64 = (1 << 55) - 1;
        const SOFT_DIRTY: u64 = 1 << 55;
        let present = word & 1 << 63 != 0;
        Self(word & !SOFT_DIRTY & if present { !FRAME } else { u64::MAX })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.0;
        if word == 0 {
            return f.write_char('-');
        }
        if word & 1 << 63 == 0 {
            return write!(f, "{word:#x}");
        }
        f.write_char('P')?;
        [(61, 'F'), (56, 'X'), (57, 'W'), (58, 'G'), (62, 'S')]
            .iter()
            .filter(|(bit, _)| word & 1 << bit != 0)
            .try_for_each(|(_, letter)| f.write_char(*letter))
    }
}

/// What smaps says of one page.
#[derive(Clone, Copy, PartialEq, Default)]
struct Rights {
    protection: [u8; 4],
    missing: bool,
    protect: bool,
    minor: bool,
    locked: bool,
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.protection == [0; 4] {
            return f.write_char('-');
        }
        f.write_str(std::str::from_utf8(&self.protection).unwrap_or("?"))?;
        let flags = [
            (self.missing, "um"),
            (self.protect, "uw"),
            (self.minor, "ui"),
            (self.locked, "lo"),
        ];
        flags
            .iter()
            .filter(|(set, _)| *set)
            .try_for_each(|(_, name)| write!(f, "+{name}"))
    }
}

fn vmas(at: usize, len: usize, out: &mut impl Write) -> Outcome {
    let file = open(c"/proc/self/smaps")?;
    let mut lines = Lines::new(file);
    let mut runs = Runs::new(out);
    let unit = if is_huge(at) { HUGE } else { PAGE };
    let mut shown = at;
    let mut range = (0, 0);
    let mut rights = Rights::default();
    while let Some(line) = lines.next() {
        let line = line.text();
        if let Some((begin, rest)) = line.split_once('-')
            && let Ok(begin) = usize::from_str_radix(begin, 16)
        {
            let mut fields = rest.split(' ');
            let end = fields.next().and_then(|end| usize::from_str_radix(end, 16).ok());
            range = (begin, end.ok_or(Bad("a line of smaps without an end"))?);
            rights = Rights::default();
            if let Some(protection) = fields.next()
                && protection.len() == 4
            {
                rights.protection.copy_from_slice(protection.as_bytes());
            }
        } else if let Some(flags) = line.strip_prefix("VmFlags:") {
            for flag in flags.split_whitespace() {
                match flag {
                    "um" => rights.missing = true,
                    "uw" => rights.protect = true,
                    "ui" => rights.minor = true,
                    "lo" => rights.locked = true,
                    _ => {}
                }
            }
            while shown < range.0.min(at + len) {
                runs.push(Rights::default())?;
                shown += unit;
            }
            while shown < range.1.min(at + len) {
                runs.push(rights)?;
                shown += unit;
            }
        }
    }
    while shown < at + len {
        runs.push(Rights::default())?;
        shown += unit;
    }
    runs.end()?;
    let _ = sys::call(libc::SYS_close, &[file]);
    Ok(())
}

/// The lines of a file, read as they are wanted.
struct Lines {
    file: usize,
    buffer: [u8; 2048],
    used: usize,
    next: usize,
}

impl Lines {
    fn new(file: usize) -> Self {
        Self {
            file,
            buffer: [0; 2048],
            used: 0,
            next: 0,
        }
    }

    fn byte(&mut self) -> Option<u8> {
        if self.next == self.used {
            let room = self.buffer.len();
            let read = sys::call(
                libc::SYS_read,
                &[self.file, self.buffer.as_mut_ptr() as usize, room],
            );
            (self.used, self.next) = (read.unwrap_or_default(), 0);
        }
        let byte = self.buffer[..self.used].get(self.next).copied();
        self.next += 1;
        byte
    }

    /// The next line. What is too long is cut off.
    fn next(&mut self) -> Option<Pen<256>> {
        let mut line = Pen::new();
        let mut byte = self.byte()?;
        while byte != b'\n' {
            let _ = line.write_char(char::from(byte));
            match self.byte() {
                Some(next) => byte = next,
                None => break,
            }
        }
        Some(line)
    }
}

fn scan(at: usize, len: usize, words: &mut Words<'_>, out: &mut impl Write) -> Outcome {
    const REGIONS: usize = 32;
    let mut regions = [[0_u64; 3]; REGIONS];
    let mut argument = [0_u64; 12];
    argument[0] = 96;
    argument[1] = words.number()?;
    argument[2] = at as u64;
    argument[3] = (at + len) as u64;
    argument[5] = &raw mut regions as u64;
    argument[6] = REGIONS as u64;
    for mask in &mut argument[8..12] {
        *mask = words.number()?;
    }
    let file = open(c"/proc/self/pagemap")?;
    let answer = sys::call(libc::SYS_ioctl, &[file, 0xc060_6610, &raw mut argument as usize]);
    let _ = sys::call(libc::SYS_close, &[file]);
    say(out, answer)?;
    write!(out, " up to {}", Place(argument[4] as usize))?;
    for [begin, end, categories] in regions.iter().take(answer.unwrap_or_default()) {
        write!(
            out,
            " {}-{}:{categories:#x}",
            Place(*begin as usize),
            Place(*end as usize)
        )?;
    }
    Ok(())
}

fn incore(at: usize, len: usize, out: &mut impl Write) -> Outcome {
    let mut pages = [0_u8; 256];
    if len / PAGE > pages.len() {
        return Err(Bad("too many pages"));
    }
    match sys::call(libc::SYS_mincore, &[at, len, &raw mut pages as usize]) {
        Ok(_) => {
            let mut runs = Runs::new(out);
            for page in &pages[..len.div_ceil(PAGE)] {
                runs.push(page & 1)?;
            }
            runs.end()?;
        }
        Err(errno) => write!(out, "{errno}")?,
    }
    Ok(())
}
