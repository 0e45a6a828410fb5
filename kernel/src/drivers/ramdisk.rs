//! The initial ramdisk: a cpio archive in the "newc" format, read in place.
//!
//! An archive is a row of entries, each a 110-byte header of ASCII hexadecimal fields, a name that ends in NUL, and the
//! data; name and data are padded so that what follows stands at a multiple of four. An entry named `TRAILER!!!` ends
//! it (cpio(5), "New ASCII Format"; checksums of the 070702 variant are not verified).
//!
//! ```text
//!   "070701" ino mode uid gid nlink mtime SIZE devmajor devminor rdevmajor rdevminor NAMESIZE check
//!      6       8   8   8   8    8     8     8      8        8        8         8        8       8
//! ```
//!
//! The archive comes from outside, so nothing in it is believed: every error names the offset of its entry.

use core::fmt;

/// Bytes of a header.
const HEADER: usize = 110;
/// Where the mode stands in a header.
const MODE_FIELD: usize = 14;
/// Where the data's size stands in a header.
const SIZE_FIELD: usize = 54;
/// Where the name's size stands in a header.
const NAME_SIZE_FIELD: usize = 94;
/// Name of the entry that ends an archive.
const TRAILER: &str = "TRAILER!!!";

/// What is wrong with an archive. `offset` is that of the entry's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RamdiskError {
    /// The archive ends before the entry does, or without a trailer.
    Truncated {
        /// First byte of the entry.
        offset: usize,
    },
    /// The entry does not begin with the format's magic number.
    BadMagic {
        /// First byte of the entry.
        offset: usize,
    },
    /// A header field is not hexadecimal.
    BadField {
        /// First byte of the entry.
        offset: usize,
    },
    /// The entry's name is empty, not UTF-8 or not ended by NUL.
    BadName {
        /// First byte of the entry.
        offset: usize,
    },
}

impl fmt::Display for RamdiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, offset) = match *self {
            Self::Truncated { offset } => ("the archive ends inside its entry", offset),
            Self::BadMagic { offset } => ("no cpio `newc` header", offset),
            Self::BadField { offset } => ("a header field is not hexadecimal in the entry", offset),
            Self::BadName { offset } => ("no usable file name in the entry", offset),
        };
        write!(
            f,
            "ramdisk: {what} at byte {offset}; it has to be a cpio archive made with `-H newc`"
        )
    }
}

impl core::error::Error for RamdiskError {}

/// An entry of the archive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct File<'a> {
    /// Its name, with a leading `./` removed.
    pub name: &'a str,
    /// Its kind and permissions, as `st_mode` of stat(2).
    pub mode: u32,
    /// Its bytes; of a symbolic link, what it leads to.
    pub data: &'a [u8],
}

/// A ramdisk whose entries have all been checked.
#[derive(Clone, Copy, Debug)]
pub struct Ramdisk<'a> {
    archive: &'a [u8],
}

impl<'a> Ramdisk<'a> {
    /// A ramdisk without files.
    pub const EMPTY: Ramdisk<'static> = Ramdisk { archive: &[] };

    /// Checks `archive` from its first entry to its trailer. What follows the trailer is padding.
    ///
    /// # Errors
    /// The archive is malformed. An archive of no bytes is an empty ramdisk.
    pub fn new(archive: &'a [u8]) -> Result<Self, RamdiskError> {
        for entry in (Entries {
            archive,
            offset: 0,
            ended: archive.is_empty(),
        }) {
            entry?;
        }
        Ok(Self { archive })
    }

    /// The files, in archive order.
    pub fn files(&self) -> impl Iterator<Item = File<'a>> + use<'a> {
        let archive = self.archive;
        Entries {
            archive,
            offset: 0,
            ended: archive.is_empty(),
        }
        .filter_map(Result::ok)
    }

    /// The bytes of the file called `name`.
    pub fn file(&self, name: &str) -> Option<&'a [u8]> {
        self.files().find(|file| file.name == name).map(|file| file.data)
    }
}

struct Entries<'a> {
    archive: &'a [u8],
    offset: usize,
    ended: bool,
}

impl<'a> Entries<'a> {
    /// The entry at `offset` and where the next begins; `None` for the trailer.
    fn entry(&self, offset: usize) -> Result<Option<(File<'a>, usize)>, RamdiskError> {
        let truncated = RamdiskError::Truncated { offset };
        let header = self.slice(offset, HEADER).ok_or(truncated)?;
        if !header.starts_with(b"070701") && !header.starts_with(b"070702") {
            return Err(RamdiskError::BadMagic { offset });
        }
        let field = |at| hex(&header[at..at + 8]).ok_or(RamdiskError::BadField { offset });
        let (mode, size, name_size) = (field(MODE_FIELD)?, field(SIZE_FIELD)?, field(NAME_SIZE_FIELD)?);

        let name = self.slice(offset + HEADER, name_size).ok_or(truncated)?;
        let name = name.strip_suffix(&[0]).and_then(|name| str::from_utf8(name).ok());
        let name = name
            .filter(|name| !name.is_empty())
            .ok_or(RamdiskError::BadName { offset })?;
        if name == TRAILER {
            return Ok(None);
        }
        let start = align4(offset + HEADER + name_size).ok_or(truncated)?;
        let data = self.slice(start, size).ok_or(truncated)?;
        let next = align4(start + size).ok_or(truncated)?;
        Ok(Some((
            File {
                name: name.strip_prefix("./").unwrap_or(name),
                mode: mode as u32,
                data,
            },
            next,
        )))
    }

    fn slice(&self, start: usize, len: usize) -> Option<&'a [u8]> {
        self.archive.get(start..start.checked_add(len)?)
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<File<'a>, RamdiskError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        match self.entry(self.offset) {
            Ok(Some((file, next))) => {
                self.offset = next;
                Some(Ok(file))
            }
            Ok(None) => {
                self.ended = true;
                None
            }
            Err(error) => {
                self.ended = true;
                Some(Err(error))
            }
        }
    }
}

fn align4(offset: usize) -> Option<usize> {
    offset.checked_next_multiple_of(4)
}

fn hex(digits: &[u8]) -> Option<usize> {
    digits.iter().try_fold(0, |number, &digit| {
        Some(number << 4 | char::from(digit).to_digit(16)? as usize)
    })
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::ToString;
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn push(archive: &mut Vec<u8>, name: &str, data: &[u8]) {
        let mut header = format!("070701{:08x}{:08X}", 1, 0o100644);
        (0..4).for_each(|_| header += "00000000");
        header += &format!("{:08x}", data.len());
        (0..4).for_each(|_| header += "00000000");
        header += &format!("{:08x}00000000", name.len() + 1);
        assert_eq!(header.len(), HEADER);
        archive.extend(header.bytes().chain(name.bytes()).chain([0]));
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend(data);
        archive.resize(archive.len().next_multiple_of(4), 0);
    }

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = Vec::new();
        files
            .iter()
            .for_each(|(name, data)| push(&mut archive, name, data));
        push(&mut archive, TRAILER, &[]);
        archive
    }

    #[test]
    fn files_are_found_with_their_bytes() {
        let bytes = archive(&[("cmdline", b"restore"), ("./snapshot", b"12345"), ("empty", b"")]);
        let disk = Ramdisk::new(&bytes).unwrap();
        assert_eq!(disk.file("cmdline"), Some(&b"restore"[..]));
        assert_eq!(disk.file("snapshot"), Some(&b"12345"[..]));
        assert_eq!(disk.file("empty"), Some(&b""[..]));
        assert_eq!(disk.file("cmdlin"), None);
        assert!(disk.files().all(|file| file.mode == 0o100644));
        assert_eq!(
            disk.files().map(|file| file.name).collect::<Vec<_>>(),
            ["cmdline", "snapshot", "empty"]
        );
    }

    #[test]
    fn no_bytes_and_a_lone_trailer_are_empty_ramdisks() {
        assert_eq!(Ramdisk::new(&[]).unwrap().files().count(), 0);
        assert_eq!(Ramdisk::new(&archive(&[])).unwrap().files().count(), 0);
        assert_eq!(Ramdisk::EMPTY.files().count(), 0);
    }

    #[test]
    fn padding_after_the_trailer_is_ignored() {
        let mut bytes = archive(&[("a", b"b")]);
        bytes.resize(bytes.len().next_multiple_of(512), 0xff);
        assert_eq!(Ramdisk::new(&bytes).unwrap().file("a"), Some(&b"b"[..]));
    }

    #[test]
    fn every_truncation_is_reported_and_none_panics() {
        let whole = archive(&[("cmdline", b"restore"), ("x", b"abc")]);
        let first = HEADER + 8 + 2 + 8;
        for len in 1..whole.len() - 3 {
            let offset = match Ramdisk::new(&whole[..len]) {
                Err(RamdiskError::Truncated { offset }) => offset,
                other => panic!("{len} bytes: {other:?}"),
            };
            assert!(
                offset < len + 4 && (len + 1 >= first || offset == 0),
                "{len} bytes: {offset}"
            );
        }
    }

    #[test]
    fn bad_magic_names_the_entry() {
        let mut bytes = archive(&[("a", b"b"), ("c", b"d")]);
        let second = (HEADER + 2).next_multiple_of(4) + 4;
        bytes[second + 5] = b'7';
        let error = Ramdisk::new(&bytes).unwrap_err();
        assert_eq!(error, RamdiskError::BadMagic { offset: second });
        assert_eq!(
            error.to_string(),
            "ramdisk: no cpio `newc` header at byte 116; it has to be a cpio archive made with `-H newc`"
        );
        assert_eq!(
            Ramdisk::new(&[0x5a; 4096]).unwrap_err(),
            RamdiskError::BadMagic { offset: 0 }
        );
    }

    #[test]
    fn size_beyond_the_end_is_refused() {
        for size in [b"00000009", b"7fffffff", b"ffffffff", b"FFFFFFFC"] {
            let mut bytes = archive(&[("a", b"b")]);
            bytes[SIZE_FIELD..SIZE_FIELD + 8].copy_from_slice(size);
            let error = Ramdisk::new(&bytes).unwrap_err();
            // The first size is within the archive: it swallows the trailer's first bytes, and no header follows.
            let second = (HEADER + 2).next_multiple_of(4) + 12;
            let expected = match size {
                b"00000009" => RamdiskError::BadMagic { offset: second },
                _ => RamdiskError::Truncated { offset: 0 },
            };
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn unusable_fields_and_names_are_refused() {
        let mut bytes = archive(&[("a", b"b")]);
        bytes[SIZE_FIELD] = b'g';
        assert_eq!(
            Ramdisk::new(&bytes).unwrap_err(),
            RamdiskError::BadField { offset: 0 }
        );

        let mut bytes = archive(&[("a", b"b")]);
        bytes[HEADER + 1] = b'x';
        assert_eq!(
            Ramdisk::new(&bytes).unwrap_err(),
            RamdiskError::BadName { offset: 0 }
        );

        for name_size in [b"00000000", b"00000001"] {
            let mut bytes = archive(&[("", b"b")]);
            bytes[NAME_SIZE_FIELD..NAME_SIZE_FIELD + 8].copy_from_slice(name_size);
            assert_eq!(
                Ramdisk::new(&bytes).unwrap_err(),
                RamdiskError::BadName { offset: 0 }
            );
        }

        let mut bytes = archive(&[("a", b"b")]);
        bytes[HEADER] = 0xff;
        assert_eq!(
            Ramdisk::new(&bytes).unwrap_err(),
            RamdiskError::BadName { offset: 0 }
        );
    }

    #[test]
    fn archive_that_starts_with_padding_is_refused() {
        let mut bytes = alloc::vec![0; 2];
        bytes.extend(archive(&[("a", b"b")]));
        assert_eq!(
            Ramdisk::new(&bytes).unwrap_err(),
            RamdiskError::BadMagic { offset: 0 }
        );
    }

    proptest! {
        #[test]
        fn damaged_archives_never_panic(at in 0usize..400, byte: u8, len in 0usize..400) {
            let mut bytes = archive(&[("cmdline", b"restore"), ("x", b"abc")]);
            let at = at % bytes.len();
            bytes[at] = byte;
            bytes.truncate(len);
            if let Ok(disk) = Ramdisk::new(&bytes) {
                disk.files().for_each(|file| assert!(file.data.len() <= bytes.len()));
            }
        }

        #[test]
        fn any_files_come_back(files in proptest::collection::vec(("[a-z/._]{1,20}", ".{0,40}"), 0..6)) {
            let list: Vec<_> = files.iter().map(|(name, data)| (name.as_str(), data.as_bytes())).collect();
            let bytes = archive(&list);
            let disk = Ramdisk::new(&bytes).unwrap();
            let found: Vec<_> = disk.files().map(|file| file.data).collect();
            prop_assert_eq!(found, list.iter().map(|(_, data)| *data).collect::<Vec<_>>());
        }
    }
}
