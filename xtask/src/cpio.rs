//! Writes the ramdisk: a cpio archive in the "newc" format.
//!
//! Each entry is a header of 6 + 13 × 8 ASCII characters (`070701`, then hexadecimal numbers), the name with its NUL,
//! and the data; name and data are padded so that the next part starts at a multiple of 4. The entry `TRAILER!!!`
//! closes the archive. Format: `cpio(5)`, "New ASCII Format".
//!
//! Files of the host are read when the archive is written, in pieces. Owner, group and times are 0, so that the same files make
//! the same archive.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Bytes of a header.
const HEADER: usize = 110;
const TRAILER: &str = "TRAILER!!!";
/// Kinds of entries in the bits above the permissions, as `st_mode` of stat(2) has them.
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const SYMLINK: u32 = 0o120_000;
/// The permission bits of a mode.
const PERMISSIONS: u32 = 0o7777;

/// A ramdisk in the making.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    entries: Vec<Entry>,
    /// Where an entry stands, by name.
    places: HashMap<String, usize>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Entry {
    name: String,
    mode: u32,
    content: Content,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Content {
    Bytes(Vec<u8>),
    /// A file of the host and its size.
    File(PathBuf, u64),
}

impl Content {
    fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(_, size) => *size,
        }
    }
}

impl Archive {
    /// An empty archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file that everybody may read. Names are unique: a later entry replaces an earlier one of the same name.
    pub fn add(&mut self, name: &str, data: impl Into<Vec<u8>>) {
        self.put(name, REGULAR | 0o444, Content::Bytes(data.into()));
    }

    /// Adds `size` bytes of a file of the host with these permissions. It is read when the archive is written.
    pub fn add_file(&mut self, name: &str, permissions: u32, path: &Path, size: u64) {
        let content = Content::File(path.to_owned(), size);
        self.put(name, REGULAR | permissions & PERMISSIONS, content);
    }

    /// Adds a directory with these permissions.
    pub fn add_directory(&mut self, name: &str, permissions: u32) {
        let mode = DIRECTORY | permissions & PERMISSIONS;
        self.put(name, mode, Content::Bytes(Vec::new()));
    }

    /// Adds a symbolic link that leads to `target`.
    pub fn add_symlink(&mut self, name: &str, target: &str) {
        self.put(name, SYMLINK | 0o777, Content::Bytes(target.into()));
    }

    fn put(&mut self, name: &str, mode: u32, content: Content) {
        let entry = Entry {
            name: name.to_owned(),
            mode,
            content,
        };
        match self.places.get(name) {
            Some(&place) => self.entries[place] = entry,
            None => {
                self.places.insert(name.to_owned(), self.entries.len());
                self.entries.push(entry);
            }
        }
    }

    /// Whether there is an entry of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Whether there is an entry of this name and it is a symbolic link.
    pub fn is_symlink(&self, name: &str) -> bool {
        let place = self.places.get(name);
        place.is_some_and(|place| self.entries[*place].mode & !PERMISSIONS == SYMLINK)
    }

    /// The names of the entries, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.name.as_str())
    }

    /// Whether it holds no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Size of the written archive in bytes.
    pub fn len(&self) -> u64 {
        let entry = |name: usize, data: u64| padded((HEADER + name + 1) as u64) + padded(data);
        let entries: u64 = self
            .entries
            .iter()
            .map(|item| entry(item.name.len(), item.content.len()))
            .sum();
        entries + entry(TRAILER.len(), 0)
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// Those of `out` and of the files; `InvalidInput` when an entry is larger than the 32 bits of a header's size field, and
    /// `UnexpectedEof` when a file has become shorter.
    pub fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        for (number, entry) in self.entries.iter().enumerate() {
            write_entry(out, number as u32 + 1, entry)?;
        }
        let trailer = Entry {
            name: TRAILER.to_owned(),
            mode: 0,
            content: Content::Bytes(Vec::new()),
        };
        write_entry(out, 0, &trailer)
    }
}

fn write_entry(out: &mut impl Write, inode: u32, entry: &Entry) -> io::Result<()> {
    let Entry { name, mode, content } = entry;
    let size = u32::try_from(content.len()).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{name}: 4 GiB or more in a ramdisk"),
        )
    })?;
    let name_size = name.len() as u32 + 1;
    // inode, mode, uid, gid, links, mtime, size, device (2), special device (2), name size, checksum
    let fields = [inode, *mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
    write!(out, "070701")?;
    for field in fields {
        write!(out, "{field:08x}")?;
    }
    out.write_all(name.as_bytes())?;
    out.write_all(&[0])?;
    pad(out, (HEADER + name.len() + 1) as u64)?;
    match content {
        Content::Bytes(bytes) => out.write_all(bytes)?,
        Content::File(path, size) => copy(out, path, *size)?,
    }
    pad(out, content.len())
}

/// Writes the first `size` bytes of a file.
fn copy(out: &mut impl Write, path: &Path, size: u64) -> io::Result<()> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let mut file = File::open(path).map_err(named)?.take(size);
    let copied = io::copy(&mut file, out).map_err(named)?;
    if copied < size {
        let shorter = io::Error::from(io::ErrorKind::UnexpectedEof);
        return Err(named(shorter));
    }
    Ok(())
}

const fn padded(size: u64) -> u64 {
    size.next_multiple_of(4)
}

fn pad(out: &mut impl Write, written: u64) -> io::Result<()> {
    out.write_all(&[0; 3][..(padded(written) - written) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an archive back, strictly.
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let field = |i: usize| {
                let text = std::str::from_utf8(&bytes[6 + i * 8..14 + i * 8]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1) as u32, field(6), field(11));
            let name = String::from_utf8(bytes[HEADER..HEADER + name_size - 1].to_vec()).unwrap();
            assert_eq!(bytes[HEADER + name_size - 1], 0);
            let data = (HEADER + name_size).next_multiple_of(4);
            if name == TRAILER {
                assert_eq!(bytes.len(), data);
                return entries;
            }
            entries.push((name, mode, bytes[data..data + size].to_vec()));
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
        let (mut archive, mut wanted) = (Archive::new(), Vec::new());
        for size in 0..9_u8 {
            let (name, data) = ("n".repeat(usize::from(size) + 1), vec![size; usize::from(size)]);
            archive.add(&name, data.clone());
            wanted.push((name, 0o100_444, data));
        }
        let bytes = written(&archive);
        assert_eq!(bytes.len() as u64, archive.len());
        assert_eq!(read(&bytes), wanted);
    }

    #[test]
    fn an_empty_archive_is_only_the_trailer() {
        assert!(read(&written(&Archive::new())).is_empty());
    }

    #[test]
    fn a_later_entry_replaces_an_earlier_one() {
        let mut archive = Archive::new();
        archive.add("cmdline", *b"old");
        archive.add("other", *b"");
        archive.add("cmdline", *b"new");
        assert_eq!(
            read(&written(&archive))[0],
            ("cmdline".to_owned(), 0o100_444, b"new".to_vec())
        );
        assert_eq!(archive.names().collect::<Vec<_>>(), ["cmdline", "other"]);
    }

    #[test]
    fn kinds_and_permissions_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "content").unwrap();
        let mut archive = Archive::new();
        archive.add_directory("bin", 0o755);
        archive.add_file("bin/file", 0o104_755, &path, 7);
        archive.add_symlink("bin/link", "file");
        let entries = read(&written(&archive));
        let shown: Vec<(&str, u32, &[u8])> = entries
            .iter()
            .map(|(name, mode, data)| (name.as_str(), *mode, data.as_slice()))
            .collect();
        assert_eq!(
            shown,
            [
                ("bin", 0o040_755, &b""[..]),
                ("bin/file", 0o104_755, b"content"),
                ("bin/link", 0o120_777, b"file"),
            ]
        );
        assert_eq!(written(&archive).len() as u64, archive.len());
    }

    #[test]
    fn a_file_that_has_become_shorter_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shrunk");
        std::fs::write(&path, "12").unwrap();
        let mut archive = Archive::new();
        archive.add_file("x", 0o644, &path, 3);
        let error = archive.write_to(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(error.to_string().contains("shrunk"), "{error}");
    }
}
