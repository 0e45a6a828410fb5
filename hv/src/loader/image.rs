//! A guest's ELF, checked: what is loaded from where to where.
//!
//! Taken are ELF64 files for x86-64 that say where they want to be: of type ET_EXEC, without a dynamic section and without an
//! interpreter. Segments are mapped at `p_vaddr` and lie at `p_paddr`. Sections are not looked at.

use core::fmt;

use arrayvec::ArrayVec;
use elf::abi;
use elf::endian::AnyEndian;
use elf::file::{Class, FileHeader, parse_ident};
use elf::parse::ParseAt;
use elf::segment::{ProgramHeader, SegmentTable};
use kernel::abi::guest::{DIRECT_MAP, IDENTITY_MAPPED, PAGE};

/// Most segments that are loaded.
pub const MAX_SEGMENTS: usize = 64;

/// Bytes of an ELF64's header, and of one of its program headers.
const FILE_HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;

/// A part of an ELF file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The header at its beginning.
    FileHeader,
    /// The table of program headers.
    ProgramHeaders,
}

/// Where segments can be in each other's way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// By `p_vaddr`.
    Virtual,
    /// By `p_paddr`.
    Physical,
}

/// What is wrong with one segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw {
    /// The file ends before its contents do.
    Truncated,
    /// It has more contents than memory.
    ContentsExceedMemory,
    /// It ends behind the last address, virtual or physical.
    Wraps,
    /// `p_align` is no power of two, or offset and virtual address disagree modulo it.
    Alignment,
    /// Virtual and physical address lie differently in their pages: no page table can map that.
    Incongruent,
    /// No such virtual addresses exist, at the beginning or somewhere in between.
    NotCanonical,
    /// It lies in the identity map or the direct map, which have other memory there.
    CollidesWithMaps,
}

/// Why an ELF is not taken. Segments are numbered as in the table of program headers, from 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// It does not begin like an ELF, or is of a version that does not exist.
    NotElf,
    /// It is for 32 bits.
    Not64Bit,
    /// It is for a big-endian machine.
    BigEndian,
    /// It is for another machine: `e_machine`.
    OtherMachine(u16),
    /// It can be put anywhere and would have to be relocated, or wants libraries.
    PositionIndependent,
    /// It is no program: `e_type`.
    NotExecutable(u16),
    /// The file ends before this part does.
    Truncated(Part),
    /// Program headers of another size: `e_phentsize`.
    OddProgramHeaders(u16),
    /// It wants an interpreter, a dynamic linker.
    Interpreter,
    /// It has a dynamic section.
    Dynamic,
    /// There is nothing to load.
    NoSegment,
    /// There are more than [`MAX_SEGMENTS`] to load.
    TooManySegments,
    /// A segment cannot be loaded.
    Segment {
        /// Which.
        number: usize,
        /// Why.
        flaw: Flaw,
    },
    /// Two segments claim the same addresses.
    Overlap {
        /// They, in the order of their addresses.
        segments: (usize, usize),
        /// Which addresses.
        side: Side,
    },
    /// A segment shares a virtual page with another one that has different memory behind it.
    MappedTwice {
        /// Which.
        segment: usize,
    },
    /// The entry point lies in no segment.
    EntryOutside(u64),
    /// With stack and page tables it does not fit.
    TooLarge {
        /// Bytes of memory that it would have to fit into.
        room: u64,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotElf => f.write_str("the guest is no ELF file"),
            Self::Not64Bit => f.write_str("the guest is a 32-bit ELF; it has to be built for 64 bits"),
            Self::BigEndian => f.write_str("the guest is a big-endian ELF; x86-64 is little-endian"),
            Self::OtherMachine(machine) => {
                write!(f, "the guest is an ELF for another machine (e_machine {machine}); it has to be x86-64")
            }
            Self::PositionIndependent => f.write_str(
                "the guest is position-independent (ET_DYN); link it statically for a fixed address (-no-pie)",
            ),
            Self::NotExecutable(kind) => write!(f, "the guest is an ELF but no program (e_type {kind})"),
            Self::Truncated(Part::FileHeader) => f.write_str("the guest's ELF ends inside its header"),
            Self::Truncated(Part::ProgramHeaders) => {
                f.write_str("the guest's ELF ends before its program headers do")
            }
            Self::OddProgramHeaders(size) => {
                write!(f, "the guest's ELF has program headers of {size} bytes; they have {PROGRAM_HEADER}")
            }
            Self::Interpreter => f.write_str("the guest wants an interpreter; link it statically"),
            Self::Dynamic => f.write_str("the guest has a dynamic section; link it statically (-static -no-pie)"),
            Self::NoSegment => f.write_str("the guest's ELF has no segment to load"),
            Self::TooManySegments => {
                write!(f, "the guest's ELF has more than {MAX_SEGMENTS} segments to load")
            }
            Self::Segment { number, flaw } => write!(f, "the guest's segment {number} {flaw}"),
            Self::Overlap { segments: (one, other), side } => {
                let side = match side {
                    Side::Virtual => "virtual",
                    Side::Physical => "physical",
                };
                write!(f, "the guest's segments {one} and {other} overlap in {side} addresses")
            }
            Self::MappedTwice { segment } => write!(
                f,
                "the guest's segment {segment} shares a virtual page with another one, but not the memory behind it"
            ),
            Self::EntryOutside(entry) => {
                write!(f, "the guest's entry point {entry:#x} lies in none of its segments")
            }
            Self::TooLarge { room } => write!(
                f,
                "the guest does not fit into {} KiB of memory with its stack and page tables",
                room / 1024
            ),
        }
    }
}

impl core::error::Error for Refused {}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "is cut off: the file ends before its contents do",
            Self::ContentsExceedMemory => "has more contents in the file than room in memory",
            Self::Wraps => "reaches past the last address",
            Self::Alignment => "is not aligned as it says (p_align)",
            Self::Incongruent => "has virtual and physical addresses that lie differently in their pages",
            Self::NotCanonical => "has virtual addresses that do not exist",
            Self::CollidesWithMaps => "lies where the identity map or the direct map has other memory",
        })
    }
}

/// A segment to load.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Its place in the table of program headers.
    pub number: usize,
    /// Where it is mapped.
    pub address: u64,
    /// Where it lies.
    pub physical: u64,
    /// Its bytes in memory; at least one. What has no contents is zeros.
    pub len: u64,
    /// What the file has of it.
    pub contents: &'a [u8],
}

impl Segment<'_> {
    /// First byte behind it; does not wrap.
    pub fn end(&self) -> u64 {
        self.address + self.len
    }

    /// The same, physical, rounded up to whole pages.
    fn physical_end(&self) -> u64 {
        (self.physical + self.len).next_multiple_of(PAGE)
    }
}

/// A guest's ELF that can be loaded, as far as it tells itself.
#[derive(Clone, Debug)]
pub struct Image<'a> {
    entry: u64,
    segments: ArrayVec<Segment<'a>, MAX_SEGMENTS>,
}

impl<'a> Image<'a> {
    /// Reads and checks an ELF file.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn parse(file: &'a [u8]) -> Result<Self, Refused> {
        let header = file_header(file)?;
        let mut segments = ArrayVec::new();
        for (number, entry) in program_headers(file, &header)?.iter().enumerate() {
            match entry.p_type {
                abi::PT_INTERP => return Err(Refused::Interpreter),
                abi::PT_DYNAMIC => return Err(Refused::Dynamic),
                abi::PT_LOAD => {
                    let segment =
                        segment(file, number, &entry).map_err(|flaw| Refused::Segment { number, flaw })?;
                    if segment.len > 0 {
                        segments.try_push(segment).map_err(|_| Refused::TooManySegments)?;
                    }
                }
                _ => {}
            }
        }
        if segments.is_empty() {
            return Err(Refused::NoSegment);
        }
        check_overlap(&segments, Side::Virtual)?;
        check_overlap(&segments, Side::Physical)?;
        let entry = header.e_entry;
        if !segments
            .iter()
            .any(|segment| (segment.address..segment.end()).contains(&entry))
        {
            return Err(Refused::EntryOutside(entry));
        }
        Ok(Self { entry, segments })
    }

    /// First instruction; virtual.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// What is loaded, in the order of the program headers.
    pub fn segments(&self) -> &[Segment<'a>] {
        &self.segments
    }

    /// First byte behind everything, physical, in whole pages.
    pub fn physical_end(&self) -> u64 {
        self.segments
            .iter()
            .map(Segment::physical_end)
            .max()
            .unwrap_or_default()
    }
}

fn file_header(file: &[u8]) -> Result<FileHeader<AnyEndian>, Refused> {
    if !file.starts_with(&abi::ELFMAGIC) {
        return Err(Refused::NotElf);
    }
    let truncated = Refused::Truncated(Part::FileHeader);
    let (ident, tail) = file.split_at_checked(abi::EI_NIDENT).ok_or(truncated)?;
    let ident: (AnyEndian, Class, u8, u8) = parse_ident(ident).map_err(|_| Refused::NotElf)?;
    match ident {
        (_, Class::ELF32, ..) => return Err(Refused::Not64Bit),
        (AnyEndian::Big, ..) => return Err(Refused::BigEndian),
        _ => {}
    }
    let tail = tail.get(..FILE_HEADER - abi::EI_NIDENT).ok_or(truncated)?;
    let header = FileHeader::parse_tail(ident, tail).map_err(|_| truncated)?;
    if header.version != u32::from(abi::EV_CURRENT) {
        return Err(Refused::NotElf);
    }
    match (header.e_machine, header.e_type) {
        (abi::EM_X86_64, abi::ET_EXEC) => Ok(header),
        (abi::EM_X86_64, abi::ET_DYN) => Err(Refused::PositionIndependent),
        (abi::EM_X86_64, kind) => Err(Refused::NotExecutable(kind)),
        (machine, _) => Err(Refused::OtherMachine(machine)),
    }
}

fn program_headers<'a>(
    file: &'a [u8],
    header: &FileHeader<AnyEndian>,
) -> Result<SegmentTable<'a, AnyEndian>, Refused> {
    if header.e_phnum == 0 {
        return Err(Refused::NoSegment);
    }
    if usize::from(header.e_phentsize) != ProgramHeader::size_for(header.class) {
        return Err(Refused::OddProgramHeaders(header.e_phentsize));
    }
    // A table so long that its length stands elsewhere (PN_XNUM) has far too many, too.
    if header.e_phnum == abi::PN_XNUM {
        return Err(Refused::TooManySegments);
    }
    let len = u64::from(header.e_phnum) * PROGRAM_HEADER as u64;
    let table = bytes(file, header.e_phoff, len).ok_or(Refused::Truncated(Part::ProgramHeaders))?;
    Ok(SegmentTable::new(header.endianness, header.class, table))
}

/// The `len` bytes at `offset`, if the file has them.
fn bytes(file: &[u8], offset: u64, len: u64) -> Option<&[u8]> {
    let end = usize::try_from(offset.checked_add(len)?).ok()?;
    file.get(usize::try_from(offset).ok()?..end)
}

fn segment<'a>(file: &'a [u8], number: usize, entry: &ProgramHeader) -> Result<Segment<'a>, Flaw> {
    let (address, physical, len) = (entry.p_vaddr, entry.p_paddr, entry.p_memsz);
    if entry.p_filesz > len {
        return Err(Flaw::ContentsExceedMemory);
    }
    let contents = bytes(file, entry.p_offset, entry.p_filesz).ok_or(Flaw::Truncated)?;
    // In whole pages, so that nothing that follows can wrap.
    let last_page = |start: u64| start.checked_add(len)?.checked_next_multiple_of(PAGE);
    let (Some(end), Some(_)) = (last_page(address), last_page(physical)) else {
        return Err(Flaw::Wraps);
    };
    if !is_aligned(entry) {
        return Err(Flaw::Alignment);
    }
    if address % PAGE != physical % PAGE {
        return Err(Flaw::Incongruent);
    }
    let half = |address: u64| (address as i64) >> 47;
    if !matches!(half(address), 0 | -1) || half(address) != half(end - 1) {
        return Err(Flaw::NotCanonical);
    }
    if collides(address, end, physical, 0) || collides(address, end, physical, DIRECT_MAP) {
        return Err(Flaw::CollidesWithMaps);
    }
    Ok(Segment {
        number,
        address,
        physical,
        len,
        contents,
    })
}

/// As the ELF specification demands ("Program Header"): `p_vaddr` equals `p_offset`, modulo `p_align`.
fn is_aligned(entry: &ProgramHeader) -> bool {
    match entry.p_align {
        0 | 1 => true,
        align => align.is_power_of_two() && entry.p_vaddr & (align - 1) == entry.p_offset & (align - 1),
    }
}

/// Whether `[address, end)` would change what the first tables map at `map`.
fn collides(address: u64, end: u64, physical: u64, map: u64) -> bool {
    let touches = address < map + IDENTITY_MAPPED && end > map;
    let is_the_same = address >= map && end <= map + IDENTITY_MAPPED && address - map == physical;
    touches && !is_the_same
}

fn check_overlap(segments: &[Segment<'_>], side: Side) -> Result<(), Refused> {
    let start = |segment: &Segment<'_>| match side {
        Side::Virtual => segment.address,
        Side::Physical => segment.physical,
    };
    let mut order: ArrayVec<&Segment<'_>, MAX_SEGMENTS> = segments.iter().collect();
    order.sort_unstable_by_key(|segment| start(segment));
    match order
        .array_windows()
        .find(|[one, other]| start(one) + one.len > start(other))
    {
        None => Ok(()),
        Some([one, other]) => Err(Refused::Overlap {
            segments: (one.number, other.number),
            side,
        }),
    }
}
