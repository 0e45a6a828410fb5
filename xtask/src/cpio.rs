//! Writes the ramdisk: a cpio archive in the "newc" format.
//!
//! Each entry is a header of 6 + 13 × 8 ASCII characters (`070701`, then hexadecimal numbers), the name with its NUL,
//! and the data; name and data are padded so that the next part starts at a multiple of 4. The entry `TRAILER!!!`
//! closes the archive. Format: `cpio(5)`, "New ASCII Format".

use std::io::{self, Write};

/// Bytes of a header.
const HEADER: usize = 110;
const TRAILER: &str = "TRAILER!!!";

/// A ramdisk in the making.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    entries: Vec<(String, Vec<u8>)>,
}

impl Archive {
    /// An empty archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file. Names are unique: a later entry replaces an earlier one of the same name.
    pub fn add(&mut self, name: &str, data: impl Into<Vec<u8>>) {
        self.entries.retain(|(existing, _)| existing != name);
        self.entries.push((name.to_owned(), data.into()));
    }

    /// Whether it holds no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Size of the written archive in bytes.
    pub fn len(&self) -> u64 {
        let entry =
            |name: usize, data: usize| (HEADER + name + 1).next_multiple_of(4) + data.next_multiple_of(4);
        let entries: usize = self
            .entries
            .iter()
            .map(|(name, data)| entry(name.len(), data.len()))
            .sum();
        (entries + entry(TRAILER.len(), 0)) as u64
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// Those of `out`; `InvalidInput` when an entry is larger than the 32 bits of a header's size field.
    pub fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        for (number, (name, data)) in self.entries.iter().enumerate() {
            write_entry(out, number as u32 + 1, name, data)?;
        }
        write_entry(out, 0, TRAILER, &[])
    }
}

fn write_entry(out: &mut impl Write, inode: u32, name: &str, data: &[u8]) -> io::Result<()> {
    let size = u32::try_from(data.len()).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{name}: 4 GiB or more in a ramdisk"),
        )
    })?;
    let mode: u32 = if name == TRAILER { 0 } else { 0o100_444 };
    let name_size = name.len() as u32 + 1;
    // inode, mode, uid, gid, links, mtime, size, device (2), special device (2), name size, checksum
    let fields = [inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
    write!(out, "070701")?;
    for field in fields {
        write!(out, "{field:08x}")?;
    }
    out.write_all(name.as_bytes())?;
    out.write_all(&[0])?;
    pad(out, HEADER + name.len() + 1)?;
    out.write_all(data)?;
    pad(out, data.len())
}

fn pad(out: &mut impl Write, written: usize) -> io::Result<()> {
    out.write_all(&[0; 3][..written.next_multiple_of(4) - written])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an archive back, strictly.
    fn read(mut bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut entries = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let field = |i: usize| {
                let text = std::str::from_utf8(&bytes[6 + i * 8..14 + i * 8]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            let (size, name_size) = (field(6), field(11));
            let name = String::from_utf8(bytes[HEADER..HEADER + name_size - 1].to_vec()).unwrap();
            assert_eq!(bytes[HEADER + name_size - 1], 0);
            let data = (HEADER + name_size).next_multiple_of(4);
            if name == TRAILER {
                assert_eq!(bytes.len(), data);
                return entries;
            }
            entries.push((name, bytes[data..data + size].to_vec()));
            bytes = &bytes[data + size.next_multiple_of(4)..];
        }
    }

    fn written(archive: &Archive) -> Vec<u8> {
        let mut bytes = Vec::new();
        archive.write_to(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn entries_of_every_alignment_come_back() {
        let mut archive = Archive::new();
        for size in 0..9_u8 {
            archive.add(&"n".repeat(usize::from(size) + 1), vec![size; usize::from(size)]);
        }
        let bytes = written(&archive);
        assert_eq!(bytes.len() as u64, archive.len());
        assert_eq!(read(&bytes), archive.entries);
    }

    #[test]
    fn an_empty_archive_is_only_the_trailer() {
        assert!(read(&written(&Archive::new())).is_empty());
    }

    #[test]
    fn a_later_entry_replaces_an_earlier_one() {
        let mut archive = Archive::new();
        archive.add("cmdline", *b"old");
        archive.add("cmdline", *b"new");
        assert_eq!(
            read(&written(&archive)),
            [("cmdline".to_owned(), b"new".to_vec())]
        );
    }
}
