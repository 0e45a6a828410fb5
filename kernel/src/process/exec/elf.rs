//! A program's ELF headers, checked.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use elf::abi;
use elf::endian::AnyEndian;
use elf::file::{Class, FileHeader, parse_ident};
use elf::segment::{ProgramHeader, SegmentTable};

use super::Image;
use crate::abi::errno::Errno;
use crate::mm::addr::{PAGE_SIZE, USER_TOP};
use crate::mm::pt::Prot;

/// Bytes of an ELF64's header, and of one of its program headers.
const FILE_HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
/// Most bytes of program headers, as on Linux.
const MAX_PROGRAM_HEADERS: usize = 65536;
/// Longest path of an interpreter.
const MAX_PATH: u64 = 4096;

/// Why a file is no program that runs here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unfit {
    /// It does not begin like an ELF.
    NotElf,
    /// It ends inside its header.
    TooShort,
    /// It is not for this machine: 32 bits, big-endian, or another processor.
    OtherMachine,
    /// It is no program (an object file, a core).
    NotExecutable,
    /// Its program headers are of another size, or there are none or too many.
    OddProgramHeaders,
    /// It ends before its program headers do.
    Truncated,
    /// It ends before the path of its interpreter does.
    TruncatedPath,
    /// The path of its interpreter is empty, too long or has no end.
    BadInterpreter,
    /// A segment is larger in the file than in memory.
    ContentsExceedMemory,
    /// A segment lies outside what programs may map, or its place in the file and in memory disagree.
    BadSegment,
}

impl Unfit {
    /// What `execve` answers.
    pub fn errno(self) -> Errno {
        match self {
            Self::NotElf
            | Self::TooShort
            | Self::Truncated
            | Self::OtherMachine
            | Self::NotExecutable
            | Self::OddProgramHeaders
            | Self::BadInterpreter => Errno::ENOEXEC,
            Self::TruncatedPath => Errno::EIO,
            Self::ContentsExceedMemory | Self::BadSegment => Errno::EINVAL,
        }
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotElf | Self::TooShort => "is no ELF file",
            Self::OtherMachine => {
                "is an ELF for another machine; it has to be x86-64, 64 bits, little-endian"
            }
            Self::NotExecutable => "is an ELF file but no executable one",
            Self::OddProgramHeaders => "has program headers of a wrong size or number",
            Self::Truncated | Self::TruncatedPath => "is cut off: it ends before its headers do",
            Self::BadInterpreter => "names an interpreter in a way that makes no sense",
            Self::ContentsExceedMemory => "has a segment with more contents than memory",
            Self::BadSegment => "has a segment outside the memory of programs, or not aligned as it says",
        })
    }
}

/// A part of the file that is mapped.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Where in memory, before the program is moved.
    pub address: u64,
    /// Where in the file.
    pub offset: u64,
    /// Bytes from the file.
    pub file_len: u64,
    /// Bytes in memory.
    pub memory_len: u64,
    /// Rights.
    pub prot: Prot,
}

/// What there is to know about a program.
#[derive(Clone, Debug)]
pub struct Headers {
    /// Whether it can be put anywhere.
    pub relocatable: bool,
    /// Where it begins.
    pub entry: u64,
    /// What is mapped, by address.
    pub segments: Vec<Segment>,
    /// Where the program headers lie in the file, and how many there are.
    pub table_offset: u64,
    /// Their number.
    pub segments_in_table: u64,
    /// The largest alignment that a segment asks for; a power of two, at least a page.
    pub align: u64,
    /// The path of the interpreter.
    pub interpreter: Option<Vec<u8>>,
    /// Whether it says that its stack need not be executable.
    pub executable_stack: bool,
}

impl Headers {
    /// Reads and checks them.
    ///
    /// # Errors
    /// See [`Unfit`].
    pub fn read(image: &Image) -> Result<Self, Unfit> {
        let mut header = [0; FILE_HEADER];
        if image.read(0, &mut header) < FILE_HEADER {
            return Err(Unfit::TooShort);
        }
        let header = file_header(&header)?;
        let size = usize::from(header.e_phnum) * PROGRAM_HEADER;
        if usize::from(header.e_phentsize) != PROGRAM_HEADER || size == 0 || size > MAX_PROGRAM_HEADERS {
            return Err(Unfit::OddProgramHeaders);
        }
        let mut table = vec![0; size];
        if image.read(header.e_phoff, &mut table) < size {
            return Err(Unfit::Truncated);
        }
        let mut headers = Self {
            relocatable: header.e_type == abi::ET_DYN,
            entry: header.e_entry,
            segments: Vec::new(),
            table_offset: header.e_phoff,
            segments_in_table: header.e_phnum.into(),
            align: PAGE_SIZE,
            interpreter: None,
            executable_stack: false,
        };
        for program_header in SegmentTable::new(header.endianness, header.class, &table) {
            headers.take(image, &program_header)?;
        }
        Ok(headers)
    }

    fn take(&mut self, image: &Image, header: &ProgramHeader) -> Result<(), Unfit> {
        match header.p_type {
            abi::PT_LOAD if header.p_memsz > 0 => {
                self.segments.push(segment(header)?);
                if header.p_align.is_power_of_two() {
                    self.align = self.align.max(header.p_align);
                }
            }
            abi::PT_INTERP if self.interpreter.is_none() => {
                self.interpreter = Some(interpreter(image, header)?);
            }
            abi::PT_GNU_STACK => self.executable_stack = header.p_flags & abi::PF_X != 0,
            _ => {}
        }
        Ok(())
    }

    /// The first address that is mapped.
    pub fn start(&self) -> u64 {
        let starts = self
            .segments
            .iter()
            .map(|segment| segment.address & !(PAGE_SIZE - 1));
        starts.min().unwrap_or(0)
    }

    /// The first address behind what is mapped.
    pub fn end(&self) -> u64 {
        let ends = self
            .segments
            .iter()
            .map(|segment| segment.address + segment.memory_len);
        ends.max().unwrap_or(0)
    }
}

fn file_header(bytes: &[u8]) -> Result<FileHeader<AnyEndian>, Unfit> {
    let mut ident = parse_ident::<AnyEndian>(bytes).map_err(|_| Unfit::NotElf)?;
    // As Linux: the machine says it all, whatever stands here.
    (ident.0, ident.1) = (AnyEndian::Little, Class::ELF64);
    let header = FileHeader::parse_tail(ident, &bytes[abi::EI_NIDENT..]).map_err(|_| Unfit::NotElf)?;
    if header.e_machine != abi::EM_X86_64 {
        return Err(Unfit::OtherMachine);
    }
    if !matches!(header.e_type, abi::ET_EXEC | abi::ET_DYN) {
        return Err(Unfit::NotExecutable);
    }
    Ok(header)
}

fn segment(header: &ProgramHeader) -> Result<Segment, Unfit> {
    if header.p_filesz > header.p_memsz {
        return Err(Unfit::ContentsExceedMemory);
    }
    let end = header.p_vaddr.checked_add(header.p_memsz);
    let fits = end.is_some_and(|end| end <= USER_TOP.as_u64());
    let congruent = header.p_vaddr % PAGE_SIZE == header.p_offset % PAGE_SIZE;
    let in_file = header
        .p_offset
        .checked_add(header.p_filesz)
        .is_some_and(|end| end < 1 << 62);
    if !fits || !congruent || !in_file {
        return Err(Unfit::BadSegment);
    }
    let mut prot = Prot::empty();
    prot.set(Prot::READ, header.p_flags & abi::PF_R != 0);
    prot.set(Prot::WRITE, header.p_flags & abi::PF_W != 0);
    prot.set(Prot::EXEC, header.p_flags & abi::PF_X != 0);
    Ok(Segment {
        address: header.p_vaddr,
        offset: header.p_offset,
        file_len: header.p_filesz,
        memory_len: header.p_memsz,
        prot,
    })
}

fn interpreter(image: &Image, header: &ProgramHeader) -> Result<Vec<u8>, Unfit> {
    if header.p_filesz < 2 || header.p_filesz > MAX_PATH {
        return Err(Unfit::BadInterpreter);
    }
    let mut path = vec![0; header.p_filesz as usize];
    if image.read(header.p_offset, &mut path) < path.len() {
        return Err(Unfit::TruncatedPath);
    }
    match path.pop() {
        Some(0) => Ok(path.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()),
        _ => Err(Unfit::BadInterpreter),
    }
}
