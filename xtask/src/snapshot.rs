//! A snapshot file on the host: whether it can be used, and the digests the guest checks its pages against.
//!
//! A snapshot is any regular file that is not empty. It is restored page by page; when its size is no multiple of
//! 4096 the last page is filled up with zeros, on both sides. The file itself is never written.
//!
//! Digests are XXH3-128 of each (padded) page, 16 bytes little-endian, one after the other: the ramdisk entry
//! `digests`. The guest's verification decides whether a restore succeeded; [`Snapshot::changed`] only explains.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use xxhash_rust::xxh3::xxh3_128;

use crate::size::{MIB, PAGE, human, needed_for};

/// Why a file is no snapshot.
#[derive(Debug)]
pub enum SnapshotError {
    /// There is no such file.
    NotFound(PathBuf),
    /// It is a directory.
    Directory(PathBuf),
    /// It is a device, pipe or socket.
    NotAFile(PathBuf),
    /// It holds nothing.
    Empty(PathBuf),
    /// It cannot be opened or read.
    Unreadable(PathBuf, io::Error),
    /// It does not fit into the machine.
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// Memory of the machine in bytes.
        memory: u64,
        /// Memory that would do, in bytes.
        needed: u64,
    },
}

impl std::fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotFound(path) => write!(f, "snapshot {}: there is no such file", path.display()),
            Self::Directory(path) => {
                write!(
                    f,
                    "snapshot {} is a directory; a snapshot is one regular file",
                    path.display()
                )
            }
            Self::NotAFile(path) => {
                write!(
                    f,
                    "snapshot {} is not a regular file; copy it into one first",
                    path.display()
                )
            }
            Self::Empty(path) => {
                write!(
                    f,
                    "snapshot {} is empty; there is no page to restore",
                    path.display()
                )
            }
            Self::Unreadable(path, error) => {
                write!(f, "snapshot {} cannot be read: {error}", path.display())
            }
            Self::TooLarge {
                path,
                size,
                memory,
                needed,
            } => write!(
                f,
                "snapshot {} has {} ({size} bytes) and the machine only {} of memory ({memory} bytes); \
                 give it more with --mem {}",
                path.display(),
                human(*size),
                human(*memory),
                needed.div_ceil(MIB),
            ),
        }
    }
}

// No `source`: the words above hold the cause, and whoever prints a chain would say it twice.
impl std::error::Error for SnapshotError {}

/// A file that can be restored.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Where it is; absolute.
    pub path: PathBuf,
    /// Its size in bytes; not zero.
    pub size: u64,
    stamp: Stamp,
}

/// What tells that a file was touched.
#[derive(Clone, PartialEq, Debug)]
struct Stamp {
    size: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Self {
            size: meta.len(),
            modified: meta.modified().ok(),
        }
    }
}

impl Snapshot {
    /// Checks that `path` is a readable, regular file that is not empty.
    ///
    /// # Errors
    /// The kind of the defect; never [`SnapshotError::TooLarge`], see [`Self::check_fits`].
    pub fn open(path: &Path) -> Result<Self, SnapshotError> {
        let unreadable = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => SnapshotError::NotFound(path.to_owned()),
            _ => SnapshotError::Unreadable(path.to_owned(), error),
        };
        let meta = std::fs::metadata(path).map_err(unreadable)?;
        if meta.is_dir() {
            return Err(SnapshotError::Directory(path.to_owned()));
        }
        if !meta.is_file() {
            return Err(SnapshotError::NotAFile(path.to_owned()));
        }
        File::open(path).map_err(unreadable)?;
        if meta.len() == 0 {
            return Err(SnapshotError::Empty(path.to_owned()));
        }
        let absolute = std::path::absolute(path).map_err(unreadable)?;
        Ok(Self {
            path: absolute,
            size: meta.len(),
            stamp: Stamp::of(&meta),
        })
    }

    /// Pages that it fills, the padded one included.
    pub const fn pages(&self) -> u64 {
        self.size.div_ceil(PAGE)
    }

    /// Zero bytes that fill up its last page.
    pub const fn padding(&self) -> u64 {
        self.pages() * PAGE - self.size
    }

    /// Checks that a machine with `memory` bytes can hold the restored pages, and `in_ramdisk` bytes beside them.
    ///
    /// # Errors
    /// [`SnapshotError::TooLarge`], which names both figures and the memory that would do.
    pub fn check_fits(&self, memory: u64, in_ramdisk: u64) -> Result<(), SnapshotError> {
        let needed = needed_for(self.pages() * PAGE + in_ramdisk);
        if needed <= memory {
            return Ok(());
        }
        Err(SnapshotError::TooLarge {
            path: self.path.clone(),
            size: self.size,
            memory,
            needed,
        })
    }

    /// Digests of all pages; see the module header. `progress` hears how many bytes were read, now and then.
    ///
    /// # Errors
    /// [`SnapshotError::Unreadable`] when reading fails, or when the file is shorter or longer than it was.
    pub fn digests(&self, mut progress: impl FnMut(u64)) -> Result<Vec<u8>, SnapshotError> {
        let unreadable = |error| SnapshotError::Unreadable(self.path.clone(), error);
        let mut file = File::open(&self.path).map_err(unreadable)?;
        let mut digests = Vec::with_capacity(self.pages() as usize * 16);
        let mut page = [0_u8; PAGE as usize];
        let mut chunk = vec![0_u8; 256 * PAGE as usize];
        let mut total = 0;
        loop {
            let filled = read_full(&mut file, &mut chunk).map_err(unreadable)?;
            for bytes in chunk[..filled].chunks(PAGE as usize) {
                page[..bytes.len()].copy_from_slice(bytes);
                page[bytes.len()..].fill(0);
                digests.extend_from_slice(&digest(&page).to_le_bytes());
            }
            total += filled as u64;
            progress(total);
            if filled < chunk.len() {
                break;
            }
        }
        if total != self.size {
            return Err(unreadable(io::Error::other(format!(
                "it had {} bytes and now has {total}; something is writing to it",
                self.size
            ))));
        }
        Ok(digests)
    }

    /// Whether the file was changed since it was opened, in a sentence.
    pub fn changed(&self) -> Option<String> {
        let now = match std::fs::metadata(&self.path) {
            Ok(meta) => Stamp::of(&meta),
            Err(error) => return Some(format!("{} is gone: {error}", self.path.display())),
        };
        if now == self.stamp {
            return None;
        }
        Some(if now.size == self.stamp.size {
            format!("{} was written to during the run", self.path.display())
        } else {
            format!(
                "{} had {} bytes before the run and now has {}",
                self.path.display(),
                self.stamp.size,
                now.size
            )
        })
    }
}

/// The digest of one page of 4096 bytes.
pub fn digest(page: &[u8]) -> u128 {
    xxh3_128(page)
}

/// Reads until `buffer` is full or the file ends.
fn read_full(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("snapshot");
        std::fs::write(&path, content).unwrap();
        (dir, path)
    }

    #[test]
    fn what_is_no_snapshot_is_refused_by_kind() {
        let (dir, empty) = file(b"");
        assert!(matches!(Snapshot::open(&empty), Err(SnapshotError::Empty(_))));
        assert!(matches!(
            Snapshot::open(dir.path()),
            Err(SnapshotError::Directory(_))
        ));
        assert!(matches!(
            Snapshot::open(&dir.path().join("none")),
            Err(SnapshotError::NotFound(_))
        ));
        assert!(matches!(
            Snapshot::open(Path::new("/dev/null")),
            Err(SnapshotError::NotAFile(_))
        ));
        assert!(matches!(
            Snapshot::open(&empty.join("below-a-file")),
            Err(SnapshotError::Unreadable(..))
        ));
    }

    #[test]
    fn the_last_page_is_padded_with_zeros() {
        let (_dir, path) = file(&[7; 4097]);
        let snapshot = Snapshot::open(&path).unwrap();
        assert_eq!((snapshot.pages(), snapshot.padding()), (2, 4095));
        let digests = snapshot.digests(|_| ()).unwrap();
        let mut last = [0; 4096];
        last[0] = 7;
        assert_eq!(digests.len(), 32);
        assert_eq!(digests[..16], xxh3_128(&[7; 4096]).to_le_bytes());
        assert_eq!(digests[16..], xxh3_128(&last).to_le_bytes());
    }

    #[test]
    fn digests_do_not_depend_on_how_the_file_is_read() {
        let content: Vec<u8> = (0..300 * 4096_u32 + 5).map(|i| (i / 777) as u8).collect();
        let (_dir, path) = file(&content);
        let mut seen = Vec::new();
        let digests = Snapshot::open(&path)
            .unwrap()
            .digests(|bytes| seen.push(bytes))
            .unwrap();
        let expected: Vec<u8> = content[..300 * 4096]
            .chunks(4096)
            .flat_map(|page| xxh3_128(page).to_le_bytes())
            .collect();
        assert_eq!(digests[..300 * 16], expected);
        assert_eq!(seen, [256 * 4096, content.len() as u64]);
    }

    #[test]
    fn too_large_names_both_figures_and_an_amount_that_does() {
        let (_dir, path) = file(&[1]);
        let mut snapshot = Snapshot::open(&path).unwrap();
        snapshot.size = 512 * MIB;
        let error = snapshot.check_fits(256 * MIB, 0).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("512 MiB") && text.contains("256 MiB"), "{text}");
        let SnapshotError::TooLarge { needed, .. } = error else {
            panic!("{text}")
        };
        assert!(
            text.contains(&format!("--mem {}", needed.div_ceil(MIB))),
            "{text}"
        );
        assert!(snapshot.check_fits(needed, 0).is_ok());
        assert!(
            snapshot.check_fits(needed, 1 << 20).is_err(),
            "what lies in the ramdisk counts too"
        );
    }

    #[test]
    fn a_change_is_noticed() {
        let (_dir, path) = file(&[1; 10]);
        let snapshot = Snapshot::open(&path).unwrap();
        assert_eq!(snapshot.changed(), None);
        std::fs::write(&path, [2; 11]).unwrap();
        assert!(snapshot.changed().unwrap().contains("now has 11"));
        assert!(matches!(
            snapshot.digests(|_| ()),
            Err(SnapshotError::Unreadable(..))
        ));
        std::fs::remove_file(&path).unwrap();
        assert!(snapshot.changed().unwrap().contains("gone"));
    }
}
