//! The loader of guests: what it puts where, and every ELF that it does not take.

use hv::loader::{Flaw, GuestBytes, LoadError, Loaded, Part, Refused, Setting, Side, load};
use kernel::abi::guest::{BOOT_MAGIC, BOOT_STACK, BootInfo, DIRECT_MAP, IDENTITY_MAPPED};
use kernel::mm::addr::GuestPhysAddr;
use proptest::prelude::*;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;

const MIB: u64 = 1 << 20;
const KERNEL: u64 = 0xffff_ffff_8000_0000;

/// A guest's memory. A byte written outside of it is a failed test.
struct Ram {
    bytes: Vec<u8>,
    /// Writes that still succeed.
    writes_left: usize,
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct Broken;

impl Ram {
    fn new(len: u64) -> Self {
        Self {
            bytes: vec![0; len as usize],
            writes_left: usize::MAX,
        }
    }

    fn word(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.at(at, 8).try_into().unwrap())
    }

    fn at(&self, at: u64, len: u64) -> &[u8] {
        &self.bytes[at as usize..(at + len) as usize]
    }

    /// Where the tables at `root` lead, and by how large a leaf. Everything on the way has to be present and writable.
    fn translate(&self, root: u64, address: u64) -> Option<(u64, u64)> {
        let mut table = root;
        for shift in [39, 30, 21, 12] {
            let entry = self.word(table + ((address >> shift) & 511) * 8);
            if entry == 0 {
                return None;
            }
            assert_eq!(entry & 3, 3, "present and writable");
            assert_eq!(entry >> 52, 0, "executable");
            let target = entry & 0x000f_ffff_ffff_f000;
            if shift == 12 || entry & 0x80 != 0 {
                return Some((target + (address & ((1 << shift) - 1)), 1 << shift));
            }
            table = target;
        }
        unreachable!()
    }
}

impl GuestBytes for Ram {
    type Error = Broken;

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn write(&mut self, at: GuestPhysAddr, bytes: &[u8]) -> Result<(), Broken> {
        self.writes_left = self.writes_left.checked_sub(1).ok_or(Broken)?;
        let at = at.as_u64() as usize;
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

/// A program header and, for a segment, what the file has of it.
#[derive(Clone)]
struct Header {
    kind: u32,
    address: u64,
    physical: u64,
    len: u64,
    align: u64,
    contents: Vec<u8>,
}

/// A segment of `contents` and zeros up to `len`.
fn segment(address: u64, physical: u64, contents: &[u8], len: u64) -> Header {
    Header {
        kind: PT_LOAD,
        address,
        physical,
        len,
        align: 0x1000,
        contents: contents.to_vec(),
    }
}

/// An ELF in the making; each field can be made wrong.
#[derive(Clone)]
struct Elf {
    class: u8,
    data: u8,
    version: u32,
    kind: u16,
    machine: u16,
    entry: u64,
    headers: Vec<Header>,
}

impl Elf {
    fn new(headers: impl Into<Vec<Header>>) -> Self {
        let headers = headers.into();
        Self {
            class: 2,
            data: 1,
            version: 1,
            kind: 2,
            machine: 62,
            entry: headers.first().map_or(0, |first| first.address),
            headers,
        }
    }

    /// Header, program headers, and each segment's contents at an offset that agrees with its address.
    fn build(&self) -> Vec<u8> {
        let mut file = vec![0x7f, b'E', b'L', b'F', self.class, self.data, 1];
        file.resize(16, 0);
        file.extend(self.kind.to_le_bytes());
        file.extend(self.machine.to_le_bytes());
        file.extend(self.version.to_le_bytes());
        file.extend(self.entry.to_le_bytes());
        file.extend(64_u64.to_le_bytes());
        file.extend([0; 12]);
        for half in [64, 56, self.headers.len() as u16, 0, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        let mut end = (64 + 56 * self.headers.len()) as u64;
        let mut offsets = Vec::new();
        for header in &self.headers {
            end = end.next_multiple_of(0x1000) + header.address % 0x1000;
            offsets.push(end);
            let words = [
                end,
                header.address,
                header.physical,
                header.contents.len() as u64,
                header.len,
                header.align,
            ];
            file.extend(header.kind.to_le_bytes());
            file.extend(7_u32.to_le_bytes());
            words.iter().for_each(|word| file.extend(word.to_le_bytes()));
            end += header.contents.len() as u64;
        }
        for (header, offset) in self.headers.iter().zip(offsets) {
            file.resize(offset as usize, 0xee);
            file.extend(&header.contents);
        }
        file
    }
}

/// One page of code at 1 MiB, mapped where it lies.
fn plain() -> Elf {
    Elf::new([segment(MIB, MIB, &[0x90; 100], 0x1000)])
}

fn try_load(file: &[u8]) -> Result<Loaded, LoadError<Broken>> {
    load(&mut Ram::new(8 * MIB), file, &Setting::default())
}

fn refusal(file: &[u8]) -> Refused {
    let mut ram = Ram::new(8 * MIB);
    let result = load(&mut ram, file, &Setting::default());
    assert_eq!(ram.writes_left, usize::MAX, "nothing is written when refused");
    match result {
        Err(LoadError::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

/// The flaw found in segment `number`.
fn flaw(elf: &Elf, number: usize) -> Flaw {
    match refusal(&elf.build()) {
        Refused::Segment { number: found, flaw } if found == number => flaw,
        other => panic!("{other:?}"),
    }
}

/// With the program header's field at `offset` of header `number` set to `value`.
fn patched(elf: &Elf, number: usize, offset: usize, value: u64) -> Vec<u8> {
    let mut file = elf.build();
    let at = 64 + 56 * number + offset;
    file[at..at + 8].copy_from_slice(&value.to_le_bytes());
    file
}

#[test]
fn segments_lie_at_their_physical_addresses_and_are_mapped_at_their_virtual_ones() {
    let text: Vec<u8> = (0..0x1800_u32).map(|i| i as u8 | 1).collect();
    let elf = Elf::new([
        segment(KERNEL + 0x20_0000, 0x20_0000, &text, 0x1800),
        segment(KERNEL + 0x20_2234, 0x20_2234, b"data", 0x3000),
    ]);
    let mut ram = Ram::new(8 * MIB);
    let loaded = load(&mut ram, &elf.build(), &Setting::default()).unwrap();
    assert_eq!(loaded.entry, KERNEL + 0x20_0000);
    assert_eq!(ram.at(0x20_0000, 0x1800), text);
    assert_eq!(ram.at(0x20_2234, 4), b"data");
    assert!(
        ram.at(0x20_2238, 0x3000 - 4).iter().all(|byte| *byte == 0),
        "the rest is zeros"
    );
    let cr3 = loaded.cr3.as_u64();
    for (address, target) in [
        (KERNEL + 0x20_0000, Some(0x20_0000)),
        (KERNEL + 0x20_17ff, Some(0x20_17ff)),
        (KERNEL + 0x20_2000, Some(0x20_2000)),
        (KERNEL + 0x20_5fff, Some(0x20_5fff)),
        (KERNEL + 0x20_6000, None),
        (KERNEL + 0x1f_f000, None),
        (KERNEL, None),
    ] {
        assert_eq!(
            ram.translate(cr3, address).map(|(at, _)| at),
            target,
            "{address:#x}"
        );
    }
}

#[test]
fn identity_map_and_direct_map_reach_as_far_as_promised_and_no_further() {
    let mut ram = Ram::new(8 * MIB);
    let loaded = load(&mut ram, &plain().build(), &Setting::default()).unwrap();
    let cr3 = loaded.cr3.as_u64();
    for map in [0, DIRECT_MAP] {
        for at in [0, 0x1234, 2 * MIB, (1 << 30) - 1, 1 << 30, IDENTITY_MAPPED - 1] {
            assert_eq!(
                ram.translate(cr3, map + at),
                Some((at, 2 * MIB)),
                "{at:#x} at {map:#x}"
            );
        }
        assert_eq!(ram.translate(cr3, map + IDENTITY_MAPPED), None);
        assert_eq!(ram.translate(cr3, map.wrapping_sub(0x1000)), None);
    }
}

#[test]
fn a_segment_above_the_identity_map_does_not_show_above_the_direct_map() {
    let at = IDENTITY_MAPPED + MIB;
    let mut ram = Ram::new(8 * MIB);
    let elf = Elf::new([segment(at, MIB, &[1], 0x1000)]);
    let loaded = load(&mut ram, &elf.build(), &Setting::default()).unwrap();
    let cr3 = loaded.cr3.as_u64();
    assert_eq!(ram.translate(cr3, at), Some((MIB, 0x1000)));
    assert_eq!(ram.translate(cr3, DIRECT_MAP + at), None);
}

#[test]
fn large_pages_are_used_where_both_addresses_fit_and_cover_no_more_than_the_segment() {
    let elf = Elf::new([segment(
        KERNEL + 0x1f_f000,
        0x1f_f000,
        &[1],
        0x1000 + 2 * MIB + 0x1000,
    )]);
    let mut ram = Ram::new(8 * MIB);
    let loaded = load(&mut ram, &elf.build(), &Setting::default()).unwrap();
    let size = |address| ram.translate(loaded.cr3.as_u64(), address).map(|(_, size)| size);
    assert_eq!(size(KERNEL + 0x1f_f000), Some(0x1000));
    assert_eq!(size(KERNEL + 0x20_0000), Some(2 * MIB));
    assert_eq!(size(KERNEL + 0x40_0000), Some(0x1000));
    assert_eq!(size(KERNEL + 0x40_1000), None);
    // Both are multiples of 4 KiB only.
    let elf = Elf::new([segment(KERNEL + 0x20_0000, 0x20_1000, &[1], 2 * MIB)]);
    let loaded = load(&mut ram, &elf.build(), &Setting::default()).unwrap();
    assert_eq!(
        ram.translate(loaded.cr3.as_u64(), KERNEL + 0x20_0000),
        Some((0x20_1000, 0x1000))
    );
}

#[test]
fn boot_info_says_what_the_guest_is_given() {
    let setting = Setting {
        cmdline: "workload seed=7",
        delegated: (GuestPhysAddr::new(0x1_0000_0000), 4 * MIB),
        store: (GuestPhysAddr::new(0x2_0000_0000), 4 * MIB),
        frequency: 1_000_000_007,
    };
    // Bytes that make no page are nobody's.
    let mut ram = Ram::new(8 * MIB + 5);
    let loaded = load(&mut ram, &plain().build(), &setting).unwrap();
    let info: Vec<u64> = (0..11).map(|i| ram.word(loaded.rdi + 8 * i)).collect();
    assert_eq!(info[0], BOOT_MAGIC);
    assert_eq!(info[1], size_of::<BootInfo>() as u64);
    assert_eq!(ram.at(info[2], info[3]), setting.cmdline.as_bytes());
    assert_eq!(
        info[4..],
        [
            8 * MIB,
            loaded.free_start.as_u64(),
            0x1_0000_0000,
            4 * MIB,
            0x2_0000_0000,
            4 * MIB,
            1_000_000_007
        ]
    );
}

#[test]
fn stack_tables_and_boot_info_follow_the_image_and_touch_neither_it_nor_each_other() {
    let mut ram = Ram::new(8 * MIB);
    ram.bytes.fill(0xcc);
    let loaded = load(&mut ram, &plain().build(), &Setting::default()).unwrap();
    let image_end = MIB + 0x1000;
    assert_eq!(loaded.rdi, image_end);
    let stack = loaded.rdi + 0x1000;
    assert_eq!(loaded.rsp, stack + BOOT_STACK);
    assert_eq!(loaded.rsp % 16, 0);
    assert_eq!(loaded.cr3.as_u64(), loaded.rsp, "tables begin behind the stack");
    // Root, two of the third level, four of the second: the segment lies in the identity map.
    assert_eq!(loaded.free_start.as_u64(), loaded.rsp + 7 * 0x1000);
    let untouched = |from: u64, to: u64| ram.at(from, to - from).iter().all(|byte| *byte == 0xcc);
    assert!(untouched(0, MIB));
    assert!(untouched(stack, loaded.rsp));
    assert!(untouched(loaded.free_start.as_u64(), 8 * MIB));
}

#[test]
fn the_first_vcpu_starts_as_promised() {
    let loaded = try_load(&plain().build()).unwrap();
    let registers = loaded.registers();
    assert_eq!((registers.rip, registers.rdi), (MIB, loaded.rdi));
    assert_eq!((registers.rsp, registers.rflags), (loaded.rsp, 2));
    assert_eq!(loaded.system().cr3, loaded.cr3.as_u64());
}

#[test]
fn other_program_headers_and_empty_segments_are_passed_over() {
    let mut elf = plain();
    let mut note = segment(0, 0, b"note", 4);
    note.kind = PT_NOTE;
    elf.headers.push(note);
    elf.headers.push(segment(0x7777_0000_0000, 1 << 50, &[], 0));
    assert!(try_load(&elf.build()).is_ok());
}

#[test]
fn what_is_no_elf_is_refused() {
    assert_eq!(refusal(b""), Refused::NotElf);
    assert_eq!(refusal(b"#!/bin/sh\n"), Refused::NotElf);
    assert_eq!(refusal(&[0; 4096]), Refused::NotElf);
    let mut elf = plain();
    elf.version = 2;
    assert_eq!(refusal(&elf.build()), Refused::NotElf);
}

#[test]
fn every_truncation_is_refused_and_says_what_is_missing() {
    let file = plain().build();
    let segment = Refused::Segment {
        number: 0,
        flaw: Flaw::Truncated,
    };
    for len in 4..file.len() {
        let expected = match len {
            ..64 => Refused::Truncated(Part::FileHeader),
            64..120 => Refused::Truncated(Part::ProgramHeaders),
            _ => segment,
        };
        assert_eq!(refusal(&file[..len]), expected, "{len} bytes");
    }
    assert_eq!(
        refusal(&patched(&plain(), 0, 8, u64::MAX - 0xfff)),
        segment,
        "offset far away"
    );
}

#[test]
fn elfs_for_other_machines_are_refused() {
    let with = |change: fn(&mut Elf)| {
        let mut elf = plain();
        change(&mut elf);
        refusal(&elf.build())
    };
    assert_eq!(with(|elf| elf.class = 1), Refused::Not64Bit);
    assert_eq!(with(|elf| elf.machine = 183), Refused::OtherMachine(183));
    let mut big = plain().build();
    big[5] = 2;
    assert_eq!(refusal(&big), Refused::BigEndian);
}

#[test]
fn what_would_have_to_be_linked_or_relocated_is_refused() {
    let with = |kind: u16| {
        let mut elf = plain();
        elf.kind = kind;
        refusal(&elf.build())
    };
    assert_eq!(with(3), Refused::PositionIndependent);
    assert_eq!(with(1), Refused::NotExecutable(1));
    assert_eq!(with(4), Refused::NotExecutable(4));
    let and = |kind: u32| {
        let mut elf = plain();
        elf.headers.push(Header {
            kind,
            ..segment(0, 0, b"x", 1)
        });
        refusal(&elf.build())
    };
    assert_eq!(and(PT_INTERP), Refused::Interpreter);
    assert_eq!(and(PT_DYNAMIC), Refused::Dynamic);
}

#[test]
fn an_elf_with_no_or_too_many_segments_is_refused() {
    assert_eq!(refusal(&Elf::new([]).build()), Refused::NoSegment);
    let mut elf = plain();
    elf.headers[0].kind = PT_NOTE;
    assert_eq!(refusal(&elf.build()), Refused::NoSegment);
    let many = |n: u64| {
        let each: Vec<Header> = (0..n)
            .map(|i| segment(MIB + i * 0x1000, MIB + i * 0x1000, &[], 1))
            .collect();
        Elf::new(each).build()
    };
    assert!(try_load(&many(64)).is_ok());
    assert_eq!(refusal(&many(65)), Refused::TooManySegments);
    let mut extended = plain().build();
    extended[56..58].copy_from_slice(&0xffff_u16.to_le_bytes());
    assert_eq!(refusal(&extended), Refused::TooManySegments);
    let mut odd = plain().build();
    odd[54] = 32;
    assert_eq!(refusal(&odd), Refused::OddProgramHeaders(32));
}

#[test]
fn segments_that_overlap_are_refused_with_their_numbers() {
    let overlap = |segments, side| Refused::Overlap { segments, side };
    let elf = Elf::new([
        segment(0x40_0000, 0x40_0000, &[1], 0x1001),
        segment(0x40_1000, 0x50_0000, &[1], 0x1000),
    ]);
    // The second one is not where the identity map has it.
    assert_eq!(flaw(&elf, 1), Flaw::CollidesWithMaps);
    let virtually = Elf::new([
        segment(KERNEL + 0x1000, 0x50_0000, &[1], 0x1000),
        segment(KERNEL, 0x40_0000, &[1], 0x1001),
    ]);
    assert_eq!(refusal(&virtually.build()), overlap((1, 0), Side::Virtual));
    let physically = Elf::new([
        segment(KERNEL, 0x40_0000, &[1], 0x1001),
        segment(KERNEL + 0x10_0000, 0x40_1000, &[1], 0x1000),
    ]);
    assert_eq!(refusal(&physically.build()), overlap((0, 1), Side::Physical));
}

#[test]
fn segments_may_share_a_page_only_if_it_is_the_same_memory() {
    let shared = Elf::new([
        segment(KERNEL, 0x40_0000, &[1], 0x800),
        segment(KERNEL + 0x800, 0x40_0800, &[2], 0x800),
    ]);
    let mut ram = Ram::new(8 * MIB);
    let loaded = load(&mut ram, &shared.build(), &Setting::default()).unwrap();
    assert_eq!((ram.bytes[0x40_0000], ram.bytes[0x40_0800]), (1, 2));
    assert_eq!(
        ram.translate(loaded.cr3.as_u64(), KERNEL + 0x800),
        Some((0x40_0800, 0x1000))
    );
    let torn = Elf::new([
        segment(KERNEL, 0x40_0000, &[1], 0x800),
        segment(KERNEL + 0x800, 0x50_0800, &[2], 0x800),
    ]);
    assert_eq!(refusal(&torn.build()), Refused::MappedTwice { segment: 1 });
}

#[test]
fn segments_with_impossible_addresses_are_refused() {
    let one = |address, physical, len| flaw(&Elf::new([segment(address, physical, &[1], len)]), 0);
    assert_eq!(one(u64::MAX - 0xfff, MIB, 0x1001), Flaw::Wraps);
    assert_eq!(one(KERNEL, u64::MAX - 0xfff, 0x1001), Flaw::Wraps);
    assert_eq!(one(KERNEL, MIB, u64::MAX), Flaw::Wraps);
    assert_eq!(one(0x8000_0000_0000, MIB, 0x1000), Flaw::NotCanonical);
    assert_eq!(one(0xffff_7fff_ffff_f000, MIB, 0x1000), Flaw::NotCanonical);
    assert_eq!(
        one(0x7fff_ffff_f000, MIB, 0x1001),
        Flaw::NotCanonical,
        "into the hole"
    );
    assert_eq!(
        one(0x7fff_ffff_f000, MIB, u64::MAX - 0x7fff_ffff_ffff),
        Flaw::NotCanonical,
        "across it"
    );
    assert_eq!(one(KERNEL + 0x100, MIB + 0x200, 0x1000), Flaw::Incongruent);
}

#[test]
fn segments_in_the_maps_are_taken_only_where_they_lie() {
    let load = |address, physical, len| try_load(&Elf::new([segment(address, physical, &[1], len)]).build());
    let collides = LoadError::Refused(Refused::Segment {
        number: 0,
        flaw: Flaw::CollidesWithMaps,
    });
    assert!(load(MIB, MIB, 0x1000).is_ok());
    assert!(load(DIRECT_MAP + MIB, MIB, 0x1000).is_ok());
    assert_eq!(load(MIB, 2 * MIB, 0x1000), Err(collides));
    assert_eq!(load(DIRECT_MAP + MIB, 2 * MIB, 0x1000), Err(collides));
    assert_eq!(
        load(IDENTITY_MAPPED - 0x1000, MIB, 0x1000),
        Err(collides),
        "its last page"
    );
    assert_eq!(
        load(IDENTITY_MAPPED - 0x1000, IDENTITY_MAPPED - 0x1000, 0x2000),
        Err(collides),
        "across its end"
    );
}

#[test]
fn segments_that_contradict_themselves_are_refused() {
    let elf = Elf::new([segment(MIB, MIB, &[1; 0x20], 0x1f)]);
    assert_eq!(flaw(&elf, 0), Flaw::ContentsExceedMemory);
    let mut elf = plain();
    elf.headers[0].align = 0x3000;
    assert_eq!(flaw(&elf, 0), Flaw::Alignment);
    let mut elf = Elf::new([segment(MIB + 0x800, MIB + 0x800, &[1], 0x100)]);
    let file = patched(&elf, 0, 8, 0x1000);
    let incongruent = Refused::Segment {
        number: 0,
        flaw: Flaw::Alignment,
    };
    assert_eq!(refusal(&file), incongruent);
    elf.headers[0].align = 0;
    assert!(try_load(&elf.build()).is_ok());
}

#[test]
fn an_entry_outside_every_segment_is_refused() {
    for entry in [0, MIB - 1, MIB + 0x1000, u64::MAX] {
        let mut elf = plain();
        elf.entry = entry;
        assert_eq!(refusal(&elf.build()), Refused::EntryOutside(entry));
    }
    let mut elf = plain();
    elf.entry = MIB + 0xfff;
    assert!(try_load(&elf.build()).is_ok());
}

#[test]
fn a_guest_needs_room_for_its_image_stack_and_tables() {
    let file = plain().build();
    let loaded = try_load(&file).unwrap();
    // As much as it takes is enough; a byte less is not, nor is anything below.
    let enough = loaded.free_start.as_u64();
    assert_eq!(
        load(&mut Ram::new(enough), &file, &Setting::default()),
        Ok(loaded)
    );
    for len in (0..enough).rev().step_by(0x800) {
        let too_large = LoadError::Refused(Refused::TooLarge {
            room: len / 0x1000 * 0x1000,
        });
        assert_eq!(
            load(&mut Ram::new(len), &file, &Setting::default()),
            Err(too_large)
        );
    }
    let high = Elf::new([segment(KERNEL, 1 << 40, &[1], 0x1000)]);
    assert_eq!(refusal(&high.build()), Refused::TooLarge { room: 8 * MIB });
    let vast = Elf::new([segment(KERNEL, MIB, &[1], 1 << 30)]);
    assert_eq!(refusal(&vast.build()), Refused::TooLarge { room: 8 * MIB });
}

#[test]
fn memory_that_cannot_be_written_ends_the_loading_with_its_own_error() {
    let file = plain().build();
    let mut all = Ram::new(8 * MIB);
    load(&mut all, &file, &Setting::default()).unwrap();
    let writes = usize::MAX - all.writes_left;
    for writes_left in 0..writes {
        let mut ram = Ram {
            writes_left,
            ..Ram::new(8 * MIB)
        };
        assert_eq!(
            load(&mut ram, &file, &Setting::default()),
            Err(LoadError::Memory(Broken))
        );
    }
}

#[test]
fn refusals_are_sentences_that_name_the_segment_and_the_fault() {
    let sentence = |why: Refused| why.to_string();
    let truncated = Refused::Segment {
        number: 3,
        flaw: Flaw::Truncated,
    };
    assert_eq!(
        sentence(truncated),
        "the guest's segment 3 is cut off: the file ends before its contents do"
    );
    assert_eq!(
        sentence(Refused::Overlap {
            segments: (1, 0),
            side: Side::Physical
        }),
        "the guest's segments 1 and 0 overlap in physical addresses"
    );
    assert_eq!(
        sentence(Refused::TooLarge { room: 1 << 20 }),
        "the guest does not fit into 1024 KiB of memory with its stack and page tables"
    );
}

/// Numbers that are near something.
fn odd_number() -> impl Strategy<Value = u64> {
    let near = prop_oneof![
        Just(0),
        Just(MIB),
        Just(4 * MIB),
        Just(IDENTITY_MAPPED),
        Just(0x8000_0000_0000),
        Just(DIRECT_MAP),
        Just(KERNEL),
        Just(u64::MAX),
        any::<u64>(),
    ];
    (near, -0x2001_i64..0x2001).prop_map(|(near, by)| near.wrapping_add_signed(by))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Whatever an ELF says, loading it ends, inside the memory ([`Ram`] panics otherwise); and what is taken is mapped as it
    /// asks.
    #[test]
    fn mutated_elfs_neither_panic_the_loader_nor_leave_the_memory(
        fields in proptest::collection::vec((0_usize..2, 0_usize..6, odd_number()), 0..4),
        bytes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in proptest::option::weighted(0.2, any::<prop::sample::Index>()),
        len in 0..6 * MIB,
    ) {
        let elf = Elf::new([
            segment(KERNEL + MIB, MIB, &[0x90; 0x900], 0x1800),
            segment(KERNEL + MIB + 0x2000, MIB + 0x2000, &[0x55; 0x100], 3 * MIB),
        ]);
        let mut file = elf.build();
        for (header, field, value) in fields {
            let at = 64 + 56 * header + 8 + 8 * field;
            file[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        for (place, byte) in bytes {
            // The headers are where it hurts.
            let place = place.index(200);
            file[place] = byte;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        let mut ram = Ram::new(len);
        match load(&mut ram, &file, &Setting::default()) {
            Err(LoadError::Memory(Broken)) => prop_assert!(false, "memory does not fail here"),
            Err(LoadError::Refused(_)) => prop_assert_eq!(ram.writes_left, usize::MAX),
            Ok(loaded) => {
                prop_assert!(loaded.free_start.as_u64() <= len);
                prop_assert!(ram.translate(loaded.cr3.as_u64(), loaded.entry).is_some());
                prop_assert_eq!(ram.word(loaded.rdi), BOOT_MAGIC);
            }
        }
    }
}
