//! A small ELF shared object, written by hand: one segment that is the whole file, a dynamic section, symbols, their hash table
//! (System V ABI, chapters 4 and 5) and their versions (Linux Standard Base, "Symbol Versioning").

use alloc::vec::Vec;

use ::elf::abi;
use ::elf::hash::sysv_hash;

const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const SYMBOL: usize = 24;
/// A dynamic entry, and how many there are.
const DYNAMIC: usize = 16;
const DYNAMICS: usize = 10;
/// The definition of a version, and the entry with its name that goes with it.
const VERSION: usize = 20;
const VERSION_NAME: usize = 8;
/// The version that all functions have.
const LINUX_2_6: u16 = 2;

/// A file in the making; its segment is mapped at its beginning, so offsets are addresses.
struct Draft(Vec<u8>);

impl Draft {
    fn here(&self) -> u64 {
        self.0.len() as u64
    }

    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn half(&mut self, value: u16) {
        self.0.extend(value.to_le_bytes());
    }

    fn word(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    fn long(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    /// The definition of a version, with the one name it has.
    fn version(&mut self, number: u16, flags: u16, (name, name_at): (&str, u32), is_last: bool) {
        for value in [abi::VER_DEF_CURRENT, flags, number, 1] {
            self.half(value);
        }
        self.word(sysv_hash(name.as_bytes()));
        self.word(VERSION as u32);
        self.word(if is_last {
            0
        } else {
            (VERSION + VERSION_NAME) as u32
        });
        self.word(name_at);
        self.word(0);
    }

    fn program_header(&mut self, kind: u32, flags: u32, offset: u64, len: u64, align: u64) {
        self.word(kind);
        self.word(flags);
        for value in [offset, offset, offset, len, len, align] {
            self.long(value);
        }
    }
}

/// The object with this code, whose functions are at these offsets in it and have the version `LINUX_2.6`.
pub fn build(text: &[u8], functions: &[(&str, usize)]) -> Vec<u8> {
    const SONAME: &str = "linux-vdso.so.1";
    const VERSION_OF_ALL: &str = "LINUX_2.6";
    let mut names = alloc::vec![0u8];
    let mut name = |text: &str| {
        let at = names.len() as u32;
        names.extend(text.as_bytes());
        names.push(0);
        at
    };
    let soname = name(SONAME);
    let version_of_all = name(VERSION_OF_ALL);
    let name_offsets: Vec<u32> = functions.iter().map(|(text, _)| name(text)).collect();

    let dynamic_at = HEADER + 2 * PROGRAM_HEADER;
    let symbols_at = dynamic_at + DYNAMICS * DYNAMIC;
    let symbol_count = functions.len() + 1;
    let hash_at = symbols_at + symbol_count * SYMBOL;
    let definitions_at = hash_at + (2 + 1 + symbol_count) * 4;
    let versions_at = definitions_at + 2 * (VERSION + VERSION_NAME);
    let names_at = versions_at + symbol_count * 2;
    let text_at = (names_at + names.len()).next_multiple_of(64);
    let end = text_at + text.len();

    let mut file = Draft(Vec::with_capacity(end));
    file.0.extend([
        0x7f,
        b'E',
        b'L',
        b'F',
        abi::ELFCLASS64,
        abi::ELFDATA2LSB,
        abi::EV_CURRENT,
    ]);
    file.align(16);
    file.half(abi::ET_DYN);
    file.half(abi::EM_X86_64);
    file.word(abi::EV_CURRENT.into());
    for value in [0, HEADER as u64, 0] {
        // Entry, program headers, section headers.
        file.long(value);
    }
    file.word(0);
    for value in [HEADER, PROGRAM_HEADER, 2, 64, 0, 0] {
        file.half(value as u16);
    }
    file.program_header(abi::PT_LOAD, abi::PF_R | abi::PF_X, 0, end as u64, 4096);
    file.program_header(
        abi::PT_DYNAMIC,
        abi::PF_R,
        dynamic_at as u64,
        (DYNAMICS * DYNAMIC) as u64,
        8,
    );
    for (tag, value) in [
        (abi::DT_SONAME, soname as usize),
        (abi::DT_HASH, hash_at),
        (abi::DT_STRTAB, names_at),
        (abi::DT_SYMTAB, symbols_at),
        (abi::DT_STRSZ, names.len()),
        (abi::DT_SYMENT, SYMBOL),
        (abi::DT_VERDEF, definitions_at),
        (abi::DT_VERDEFNUM, 2),
        (abi::DT_VERSYM, versions_at),
        (abi::DT_NULL, 0),
    ] {
        file.long(tag as u64);
        file.long(value as u64);
    }
    file.0.resize(symbols_at + SYMBOL, 0);
    for (number, (_, offset)) in functions.iter().enumerate() {
        file.word(name_offsets[number]);
        file.0
            .extend([abi::STB_GLOBAL << 4 | abi::STT_FUNC, abi::STV_DEFAULT]);
        // Defined: in a section that there is no header of.
        file.half(1);
        file.long((text_at + offset) as u64);
        let next = functions
            .iter()
            .map(|(_, other)| *other)
            .filter(|other| other > offset)
            .min();
        file.long((next.unwrap_or(text.len()) - offset) as u64);
    }
    // One bucket, and a chain through all symbols.
    file.word(1);
    file.word(symbol_count as u32);
    file.word(if functions.is_empty() { 0 } else { 1 });
    file.word(0);
    for number in 1..symbol_count {
        file.word(if number + 1 < symbol_count {
            number as u32 + 1
        } else {
            0
        });
    }
    // The first definition names the object itself.
    file.version(abi::VER_NDX_GLOBAL, abi::VER_FLG_BASE, (SONAME, soname), false);
    file.version(LINUX_2_6, 0, (VERSION_OF_ALL, version_of_all), true);
    file.half(abi::VER_NDX_LOCAL);
    functions.iter().for_each(|_| file.half(LINUX_2_6));
    debug_assert_eq!(file.here(), names_at as u64);
    file.0.extend(&names);
    file.0.resize(text_at, 0);
    file.0.extend(text);
    file.0
}

#[cfg(test)]
mod tests {
    use ::elf::ElfBytes;
    use ::elf::endian::LittleEndian;
    use ::elf::file::Class;
    use ::elf::gnu_symver::{SymbolVersionTable, VerDefIterator, VersionIndexTable};
    use ::elf::hash::SysVHashTable;
    use ::elf::string_table::StringTable;

    use super::*;

    const FUNCTIONS: [(&str, usize); 3] = [("one", 0), ("two", 5), ("three", 8)];

    #[test]
    fn functions_are_found_by_their_names_through_the_dynamic_section() {
        let text = [0xcc; 20];
        let file = build(&text, &FUNCTIONS);
        assert!(file.len() < 4096);
        let elf = ElfBytes::<LittleEndian>::minimal_parse(&file).expect("an ELF");
        let dynamic = elf.dynamic().expect("readable").expect("there");
        let value = |tag| {
            let entry = dynamic.iter().find(|entry| entry.d_tag == tag);
            entry.unwrap_or_else(|| panic!("no tag {tag}")).d_val() as usize
        };
        let (symbols, names) = (value(abi::DT_SYMTAB), value(abi::DT_STRTAB));
        let names = &file[names..names + value(abi::DT_STRSZ)];
        let hash = &file[value(abi::DT_HASH)..];
        assert!(
            SysVHashTable::new(LittleEndian, Class::ELF64, hash).is_ok(),
            "the hash table is broken"
        );
        // Go's runtime looks for the version without asking whether there are any.
        let strings = StringTable::new(names);
        let definitions = &file[value(abi::DT_VERDEF)..];
        let count = value(abi::DT_VERDEFNUM) as u64;
        let versions = SymbolVersionTable::new(
            VersionIndexTable::new(LittleEndian, Class::ELF64, &file[value(abi::DT_VERSYM)..]),
            None,
            Some((
                VerDefIterator::new(LittleEndian, Class::ELF64, count, 0, definitions),
                strings,
            )),
        );
        for (number, (name, offset)) in FUNCTIONS.iter().enumerate() {
            let symbol = &file[symbols + (number + 1) * SYMBOL..][..SYMBOL];
            let name_at = u32::from_le_bytes(symbol[..4].try_into().expect("four")) as usize;
            assert!(names[name_at..].starts_with(name.as_bytes()));
            let at = u64::from_le_bytes(symbol[8..16].try_into().expect("eight")) as usize;
            assert_eq!(&file[at..at + 3], &text[*offset..offset + 3]);
            assert_eq!(at, file.len() - text.len() + offset);
            let version = versions
                .get_definition(number + 1)
                .expect("readable")
                .expect("there");
            assert_eq!(version.hash, sysv_hash(b"LINUX_2.6"));
            assert!(version.names.map(Result::unwrap).eq(["LINUX_2.6"]));
        }
    }

    #[test]
    fn without_functions_it_is_an_elf_all_the_same() {
        let file = build(&[], &[]);
        let elf = ElfBytes::<LittleEndian>::minimal_parse(&file).expect("an ELF");
        assert_eq!(elf.ehdr.e_type, abi::ET_DYN);
        assert_eq!(elf.segments().expect("segments").len(), 2);
    }
}
