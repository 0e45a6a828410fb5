//! What a file must be to be a program: enough to refuse at once what cannot run anywhere, and no more. Whether an ELF is
//! sound is for the kernel to say.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

const MAGIC: &[u8] = b"\x7fELF";
/// Bytes of an ELF header of 64 bits; those of a program header.
const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const X86_64: u16 = 62;
const ET_DYN: u16 = 3;
const PT_INTERP: u32 = 3;
/// Longest path of Linux.
const PATH_MAX: u64 = 4096;
/// Bytes of a file that are looked at for the line of a script (Linux: `BINPRM_BUF_SIZE`).
const FIRST_LINE: usize = 256;

/// What a file is to execve(2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An x86-64 ELF, and the interpreter that it asks for.
    Elf(Option<PathBuf>),
    /// Shared code that a program loads: for x86-64, and without an interpreter of its own.
    Shared,
    /// Begins with `#!`; the program that this line names.
    Script(Option<PathBuf>),
    /// Nothing that is executed here; why.
    Other(&'static str),
}

/// Looks at a file. A malformed ELF of the right kind is one without interpreter.
///
/// # Errors
/// When it cannot be read.
pub fn kind_of(path: &Path) -> io::Result<Kind> {
    let mut file = File::open(path)?;
    let mut header = Vec::new();
    file.by_ref().take(FIRST_LINE as u64).read_to_end(&mut header)?;
    if let Some(line) = header.strip_prefix(b"#!") {
        return Ok(Kind::Script(named_by(line)));
    }
    if !header.starts_with(MAGIC) {
        return Ok(Kind::Other("it is neither an ELF nor a script"));
    }
    let is_64 = header.get(4) == Some(&CLASS_64) && header.get(5) == Some(&LITTLE_ENDIAN);
    let machine = header
        .get(18..20)
        .map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
    match machine {
        Some(X86_64) if is_64 => Ok(match interpreter(&mut file, &header)? {
            None if header[16..18] == ET_DYN.to_le_bytes() => Kind::Shared,
            interpreter => Kind::Elf(interpreter),
        }),
        // What is cut off before its machine is for the kernel to refuse.
        None => Ok(Kind::Elf(None)),
        Some(_) => Ok(Kind::Other("it is an ELF for another machine; x86-64 is wanted")),
    }
}

/// The first word of a script's line behind `#!`.
fn named_by(line: &[u8]) -> Option<PathBuf> {
    let line = line.split(|byte| matches!(byte, b'\n' | 0)).next()?;
    let word = line
        .split(|byte| matches!(byte, b' ' | b'\t'))
        .find(|word| !word.is_empty())?;
    String::from_utf8(word.to_vec()).ok().map(PathBuf::from)
}

/// The content of PT_INTERP.
fn interpreter(file: &mut File, header: &[u8]) -> io::Result<Option<PathBuf>> {
    if header.len() < HEADER {
        return Ok(None);
    }
    let count = u64::from(u16::from_le_bytes([header[56], header[57]]));
    let table = read_at(file, word(header, 32), count * PROGRAM_HEADER as u64)?;
    let interp = table
        .chunks_exact(PROGRAM_HEADER)
        .find(|entry| u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]) == PT_INTERP);
    let Some(interp) = interp else { return Ok(None) };
    let mut name = read_at(file, word(interp, 8), word(interp, 32).min(PATH_MAX))?;
    name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
    Ok(String::from_utf8(name)
        .ok()
        .filter(|name| !name.is_empty())
        .map(PathBuf::from))
}

/// What there is of `size` bytes at `offset`.
fn read_at(file: &mut File, offset: u64, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if offset < file.metadata()?.len() {
        file.seek(SeekFrom::Start(offset))?;
        file.by_ref().take(size).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(bytes: &[u8]) -> Kind {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, bytes).unwrap();
        kind_of(&path).unwrap()
    }

    /// An ELF64 of `machine` with one program header, which is PT_INTERP if there is an interpreter.
    fn elf(machine: u16, interpreter: Option<&str>) -> Vec<u8> {
        let mut file = Vec::from(*b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0");
        file.extend(machine.to_le_bytes());
        file.resize(HEADER, 0);
        file[32] = HEADER as u8;
        file[56] = 1;
        file.resize(HEADER + PROGRAM_HEADER, 0);
        if let Some(name) = interpreter {
            file[HEADER] = PT_INTERP as u8;
            file[HEADER + 8] = (HEADER + PROGRAM_HEADER) as u8;
            file[HEADER + 32] = name.len() as u8 + 1;
            file.extend(name.bytes().chain([0]));
        }
        file
    }

    #[test]
    fn programs_are_told_by_their_first_bytes() {
        for (line, named) in [
            (&b"#!/bin/sh\n"[..], Some("/bin/sh")),
            (b"#! /usr/bin/env\tbash -x\necho", Some("/usr/bin/env")),
            (b"#!prog", Some("prog")),
            (b"#! \n/bin/sh", None),
        ] {
            assert_eq!(kind(line), Kind::Script(named.map(PathBuf::from)));
        }
        assert_eq!(kind(&elf(X86_64, None)), Kind::Elf(None));
        assert_eq!(
            kind(&elf(X86_64, Some("/lib64/ld.so"))),
            Kind::Elf(Some("/lib64/ld.so".into()))
        );
        for (bytes, word) in [
            (&b""[..], "neither"),
            (b"hello", "neither"),
            (&elf(183, None), "another machine"),
            (
                b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0",
                "another machine",
            ),
        ] {
            assert!(matches!(kind(bytes), Kind::Other(why) if why.contains(word)));
        }
    }

    #[test]
    fn shared_code_is_told_from_programs() {
        let mut shared = elf(X86_64, None);
        shared[16] = ET_DYN as u8;
        assert_eq!(kind(&shared), Kind::Shared);
        let mut program = elf(X86_64, Some("/lib64/ld.so"));
        program[16] = ET_DYN as u8;
        assert_eq!(kind(&program), Kind::Elf(Some("/lib64/ld.so".into())));
    }

    #[test]
    fn a_malformed_elf_is_left_to_the_kernel() {
        let whole = elf(X86_64, Some("/lib64/ld.so"));
        for len in 4..whole.len() {
            assert!(matches!(kind(&whole[..len]), Kind::Elf(_)), "{len}");
        }
        let mut far = whole.clone();
        for offset in [u64::MAX, u64::MAX >> 1] {
            far[32..40].copy_from_slice(&offset.to_le_bytes());
            assert_eq!(kind(&far), Kind::Elf(None));
        }
    }

    #[test]
    fn the_test_program_itself_is_an_elf() {
        let me = std::env::current_exe().unwrap();
        assert!(matches!(kind_of(&me), Ok(Kind::Elf(Some(_)))));
    }
}
