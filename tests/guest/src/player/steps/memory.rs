//! Mappings, their protection, their contents, and the files behind them.
//!
//! ```text
//! map AT LEN KIND PROT [FILEPAGE]   anon shared zero szero huge shuge memN pmemN; r w rw none rx
//! unmap AT LEN · protect AT LEN PROT · lock AT LEN · unlock AT LEN · advise AT LEN WHAT
//! remap AT OLD NEW FLAGS [TO]       flags: may move 1, fixed 2, do not unmap 4
//! memfd N LEN [huge] · truncate N LEN · fallocate N MODE OFFSET LEN · put N OFFSET · get N OFFSET
//! ```
//!
//! `put` and `get` write and read one byte of a file without a mapping.

use std::fmt::Write;

use guest_tests::errno::Errno;
use guest_tests::sys::{self, Answer};

use super::super::arena::Place;
use super::{Bad, Outcome, Words, say, say_ok};

/// The verbs of this file.
pub const VERBS: &[&str] = &[
    "map",
    "unmap",
    "protect",
    "lock",
    "unlock",
    "advise",
    "remap",
    "memfd",
    "truncate",
    "fallocate",
    "put",
    "get",
];

/// The descriptor of memfd 0.
const FIRST_MEMFD: usize = 120;
/// How many memfds a script has.
const MEMFDS: u64 = 4;

const ADVICE: &[(&str, i32)] = &[
    ("normal", libc::MADV_NORMAL),
    ("random", libc::MADV_RANDOM),
    ("willneed", libc::MADV_WILLNEED),
    ("dontneed", libc::MADV_DONTNEED),
    ("free", libc::MADV_FREE),
    ("remove", libc::MADV_REMOVE),
    ("dontfork", libc::MADV_DONTFORK),
    ("dofork", libc::MADV_DOFORK),
    ("hugepage", libc::MADV_HUGEPAGE),
    ("nohugepage", libc::MADV_NOHUGEPAGE),
    ("wipeonfork", libc::MADV_WIPEONFORK),
    ("keeponfork", libc::MADV_KEEPONFORK),
    ("cold", libc::MADV_COLD),
    ("pageout", libc::MADV_PAGEOUT),
    ("popread", libc::MADV_POPULATE_READ),
    ("popwrite", libc::MADV_POPULATE_WRITE),
    ("dontneed_locked", 24),
    ("guard", 102),
    ("unguard", 103),
    ("unknown", 99),
];

pub fn carry_out(verb: &str, words: &mut Words<'_>, out: &mut impl Write) -> Outcome {
    match verb {
        "map" => map(words, out),
        "remap" => remap(words, out),
        "memfd" => memfd(words, out),
        "unmap" => say_ok(
            out,
            sys::call(libc::SYS_munmap, &[words.address()?, words.length()?]),
        ),
        "protect" => {
            let (at, len, prot) = (words.address()?, words.length()?, protection(words.word()?)?);
            say_ok(out, sys::call(libc::SYS_mprotect, &[at, len, prot]))
        }
        "lock" => say_ok(
            out,
            sys::call(libc::SYS_mlock, &[words.address()?, words.length()?]),
        ),
        "unlock" => say_ok(
            out,
            sys::call(libc::SYS_munlock, &[words.address()?, words.length()?]),
        ),
        "advise" => {
            let (at, len, word) = (words.address()?, words.length()?, words.word()?);
            let (_, advice) = ADVICE.iter().find(|(name, _)| *name == word).ok_or(Bad(word))?;
            say_ok(out, sys::call(libc::SYS_madvise, &[at, len, *advice as usize]))
        }
        "truncate" => {
            let (file, len) = (file(words)?, words.length()?);
            say_ok(out, sys::call(libc::SYS_ftruncate, &[file, len]))
        }
        "fallocate" => {
            let (file, mode, offset, len) = (file(words)?, words.number()?, words.length()?, words.length()?);
            say_ok(
                out,
                sys::call(libc::SYS_fallocate, &[file, mode as usize, offset, len]),
            )
        }
        "put" => {
            let (file, at, value) = (file(words)?, words.length()?, words.value());
            let at = at + words.own_byte();
            say(
                out,
                sys::call(libc::SYS_pwrite64, &[file, &raw const value as usize, 1, at]),
            )
        }
        "get" => {
            let (file, at) = (file(words)?, words.length()?);
            let mut value = 0_u8;
            let read = sys::call(
                libc::SYS_pread64,
                &[file, &raw mut value as usize, 1, at + words.own_byte()],
            );
            match read {
                Ok(1) => write!(out, "{value:#04x}")?,
                other => say(out, other)?,
            }
            Ok(())
        }
        _ => Err(Bad("no such verb")),
    }
}

fn map(words: &mut Words<'_>, out: &mut impl Write) -> Outcome {
    let (at, len, kind, prot) = (
        words.address()?,
        words.length()?,
        words.word()?,
        protection(words.word()?)?,
    );
    let offset = words
        .more()
        .map_or(Ok(0), |word| super::super::arena::length(word).ok_or(Bad(word)))?;
    let (private, shared) = (libc::MAP_PRIVATE, libc::MAP_SHARED);
    let anonymous = libc::MAP_ANONYMOUS;
    let (flags, fd) = match kind {
        "anon" => (private | anonymous, Ok(usize::MAX)),
        "shared" => (shared | anonymous, Ok(usize::MAX)),
        "huge" => (private | anonymous | libc::MAP_HUGETLB, Ok(usize::MAX)),
        "shuge" => (shared | anonymous | libc::MAP_HUGETLB, Ok(usize::MAX)),
        "zero" => (private, open(c"/dev/zero", libc::O_RDWR)),
        "szero" => (shared, open(c"/dev/zero", libc::O_RDWR)),
        _ => match (kind.strip_prefix("mem"), kind.strip_prefix("pmem")) {
            (Some(file), _) => (shared, Ok(descriptor(file)?)),
            (_, Some(file)) => (private, Ok(descriptor(file)?)),
            _ => return Err(Bad(kind)),
        },
    };
    let flags = (flags | libc::MAP_FIXED) as usize;
    let mapped = fd.and_then(|fd| {
        let mapped = sys::call(libc::SYS_mmap, &[at, len, prot, flags, fd, offset]);
        if kind.ends_with("zero") {
            let _ = sys::call(libc::SYS_close, &[fd]);
        }
        mapped
    });
    match mapped {
        Ok(place) if place == at => out.write_str("ok")?,
        other => say(out, other.map(Place))?,
    }
    Ok(())
}

fn remap(words: &mut Words<'_>, out: &mut impl Write) -> Outcome {
    let (at, old, new, flags) = (
        words.address()?,
        words.length()?,
        words.length()?,
        words.number()?,
    );
    let to = words
        .more()
        .map_or(Ok(0), |word| super::super::arena::address(word).ok_or(Bad(word)))?;
    say(
        out,
        sys::call(libc::SYS_mremap, &[at, old, new, flags as usize, to]).map(Place),
    )
}

fn memfd(words: &mut Words<'_>, out: &mut impl Write) -> Outcome {
    let (fd, len) = (file(words)?, words.length()?);
    let flags = match words.more() {
        Some("huge") => libc::MFD_HUGETLB,
        Some(word) => return Err(Bad(word)),
        None => 0,
    };
    if sys::call(libc::SYS_fcntl, &[fd, libc::F_GETFD as usize]).is_ok() {
        return Ok(out.write_str("open already")?);
    }
    let made = sys::call(
        libc::SYS_memfd_create,
        &[c"script".as_ptr() as usize, flags as usize],
    );
    say_ok(
        out,
        made.and_then(|made| renumber(made, fd))
            .and_then(|fd| sys::call(libc::SYS_ftruncate, &[fd, len])),
    )
}

/// Moves a fresh descriptor to the number that the script knows.
pub fn renumber(fresh: usize, number: usize) -> Answer {
    let moved = sys::call(libc::SYS_dup3, &[fresh, number, libc::O_CLOEXEC as usize]);
    let _ = sys::call(libc::SYS_close, &[fresh]);
    moved
}

fn open(path: &std::ffi::CStr, flags: i32) -> Result<usize, Errno> {
    sys::call(
        libc::SYS_openat,
        &[libc::AT_FDCWD as usize, path.as_ptr() as usize, flags as usize],
    )
}

fn file(words: &mut Words<'_>) -> Outcome<usize> {
    descriptor(words.word()?)
}

fn descriptor(word: &'static str) -> Outcome<usize> {
    match super::number(word) {
        Some(file) if file < MEMFDS => Ok(FIRST_MEMFD + file as usize),
        _ => Err(Bad(word)),
    }
}

fn protection(word: &'static str) -> Outcome<usize> {
    let all = match word {
        "none" => libc::PROT_NONE,
        "r" => libc::PROT_READ,
        "w" => libc::PROT_WRITE,
        "rw" => libc::PROT_READ | libc::PROT_WRITE,
        "rx" => libc::PROT_READ | libc::PROT_EXEC,
        _ => return Err(Bad(word)),
    };
    Ok(all as usize)
}
