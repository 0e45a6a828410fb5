//! Where the pages of a snapshot come from.
//!
//! A [`PageSource`] is a row of pages that a monitor reads from: a file of the ramdisk ([`MemorySource`]) or the raw
//! content of a disk ([`DiskSource`]). A snapshot need not end at a page's end; the rest of its last page reads as
//! zeros, whatever the device holds there.

use core::fmt;

use super::block::{BlockDevice, BlockError, SECTOR};
use crate::mm::addr::PAGE_SIZE;

const PAGE: usize = PAGE_SIZE as usize;
const SECTORS_PER_PAGE: u64 = PAGE_SIZE / SECTOR as u64;

/// Why pages could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SourceError {
    /// The device failed on this page.
    Device {
        /// The first page that cannot be read.
        page: u64,
        /// What the device said.
        error: BlockError,
    },
    /// The source has no such page.
    BeyondEnd {
        /// The first page that is not there.
        page: u64,
        /// Pages there are.
        pages: u64,
    },
    /// The disk is smaller than the snapshot that is meant to be on it.
    TooSmall {
        /// Bytes of the disk.
        disk: u64,
        /// Bytes of the snapshot.
        snapshot: u64,
    },
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device { page, error } => write!(f, "page {page} of the snapshot: {error}"),
            Self::BeyondEnd { page, pages } => {
                write!(f, "page {page} of the snapshot: it has only {pages} pages")
            }
            Self::TooSmall { disk, snapshot } => {
                write!(
                    f,
                    "the disk has {disk} bytes, the snapshot on it should have {snapshot}"
                )
            }
        }
    }
}

impl core::error::Error for SourceError {}

/// A row of numbered pages.
pub trait PageSource: Send + Sync {
    /// Bytes of the snapshot.
    fn bytes(&self) -> u64;

    /// Pages of the snapshot; the last one may be partly padding.
    fn pages(&self) -> u64 {
        self.bytes().div_ceil(PAGE_SIZE)
    }

    /// Fills `buffer`, a whole number of pages, from page `first` on. May sleep.
    ///
    /// # Errors
    /// See [`SourceError`]; what the buffer holds then is unspecified.
    fn read(&self, first: u64, buffer: &mut [u8]) -> Result<(), SourceError>;

    /// The pages themselves where they already lie in memory, whole and aligned; a monitor then copies once, not twice.
    fn in_memory(&self, _first: u64, _count: u64) -> Option<&[u8]> {
        None
    }
}

fn check(first: u64, buffer: &[u8], pages: u64) -> Result<(), SourceError> {
    debug_assert!(
        buffer.len().is_multiple_of(PAGE),
        "a source is read in whole pages"
    );
    let count = (buffer.len() / PAGE) as u64;
    match first.checked_add(count) {
        Some(end) if end <= pages => Ok(()),
        _ => Err(SourceError::BeyondEnd {
            page: first.max(pages),
            pages,
        }),
    }
}

/// A snapshot that lies in memory.
#[derive(Clone, Copy, Debug)]
pub struct MemorySource<'a> {
    bytes: &'a [u8],
}

impl<'a> MemorySource<'a> {
    /// The snapshot whose content is `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }
}

impl PageSource for MemorySource<'_> {
    fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read(&self, first: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        check(first, buffer, self.pages())?;
        let rest = &self.bytes[(first as usize * PAGE).min(self.bytes.len())..];
        let (data, padding) = buffer.split_at_mut(rest.len().min(buffer.len()));
        data.copy_from_slice(&rest[..data.len()]);
        padding.fill(0);
        Ok(())
    }

    fn in_memory(&self, first: u64, count: u64) -> Option<&[u8]> {
        let start = usize::try_from(first.checked_mul(PAGE_SIZE)?).ok()?;
        let len = usize::try_from(count.checked_mul(PAGE_SIZE)?).ok()?;
        self.bytes.get(start..start.checked_add(len)?)
    }
}

/// A snapshot that is the content of a disk, from its first sector on.
#[derive(Clone, Copy)]
pub struct DiskSource<'a> {
    disk: &'a dyn BlockDevice,
    bytes: u64,
}

impl fmt::Debug for DiskSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskSource")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl<'a> DiskSource<'a> {
    /// The first `bytes` bytes of `disk`; all of it when that is `None`.
    ///
    /// # Errors
    /// The disk is smaller.
    pub fn new(disk: &'a dyn BlockDevice, bytes: Option<u64>) -> Result<Self, SourceError> {
        let size = disk.capacity_sectors().saturating_mul(SECTOR as u64);
        match bytes.unwrap_or(size) {
            snapshot if snapshot > size => Err(SourceError::TooSmall { disk: size, snapshot }),
            bytes => Ok(Self { disk, bytes }),
        }
    }

    /// Reads the part of `buffer` that the disk has, and says how much that is.
    fn fill(&self, first: u64, buffer: &mut [u8]) -> Result<usize, BlockError> {
        let sector = first * SECTORS_PER_PAGE;
        let there = self.disk.capacity_sectors().saturating_sub(sector);
        let wanted = (buffer.len() / SECTOR) as u64;
        let len = there.min(wanted) as usize * SECTOR;
        self.disk.read(sector, &mut buffer[..len])?;
        Ok(len)
    }
}

impl PageSource for DiskSource<'_> {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read(&self, first: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        check(first, buffer, self.pages())?;
        let filled = self.fill(first, buffer).map_err(|error| {
            let page = match error {
                BlockError::Io { sector } => sector / SECTORS_PER_PAGE,
                _ => first,
            };
            SourceError::Device { page, error }
        })?;
        let of_snapshot = usize::try_from(self.bytes - first * PAGE_SIZE).unwrap_or(usize::MAX);
        let end = filled.min(of_snapshot);
        if end < buffer.len() {
            buffer[end..].fill(0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec;
    use alloc::vec::Vec;

    use super::super::block;
    use super::*;

    /// A disk in memory, one of whose sectors may be bad.
    struct FakeDisk {
        content: Vec<u8>,
        bad: Option<u64>,
    }

    impl FakeDisk {
        fn new(sectors: usize) -> Self {
            let content = (0..sectors * SECTOR).map(|i| (i / 7) as u8 | 1).collect();
            Self { content, bad: None }
        }
    }

    impl BlockDevice for FakeDisk {
        fn capacity_sectors(&self) -> u64 {
            (self.content.len() / SECTOR) as u64
        }

        fn read(&self, sector: u64, buffer: &mut [u8]) -> Result<(), BlockError> {
            block::check(sector, buffer.len(), self.capacity_sectors())?;
            let sectors = sector..sector + (buffer.len() / SECTOR) as u64;
            match self.bad {
                Some(bad) if sectors.contains(&bad) => return Err(BlockError::Io { sector: bad }),
                _ => {}
            }
            let start = sector as usize * SECTOR;
            buffer.copy_from_slice(&self.content[start..start + buffer.len()]);
            Ok(())
        }
    }

    fn page_of(source: &dyn PageSource, page: u64) -> Vec<u8> {
        let mut buffer = vec![0xaa; PAGE];
        source.read(page, &mut buffer).unwrap();
        buffer
    }

    #[test]
    fn memory_and_disk_give_the_same_pages() {
        let disk = FakeDisk::new(17);
        let bytes = 2 * PAGE + 100;
        let on_disk = DiskSource::new(&disk, Some(bytes as u64)).unwrap();
        let in_memory = MemorySource::new(&disk.content[..bytes]);
        assert_eq!((on_disk.pages(), in_memory.pages()), (3, 3));
        for page in 0..3 {
            assert_eq!(page_of(&on_disk, page), page_of(&in_memory, page), "page {page}");
        }
        let mut all = vec![0xaa; 3 * PAGE];
        on_disk.read(0, &mut all).unwrap();
        assert_eq!(all[..bytes], disk.content[..bytes]);
        assert!(all[bytes..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn tail_of_the_last_page_reads_as_zeros_not_as_what_the_disk_holds() {
        let disk = FakeDisk::new(16);
        let source = DiskSource::new(&disk, Some(PAGE as u64 + 1)).unwrap();
        let page = page_of(&source, 1);
        assert_eq!(page[0], disk.content[PAGE]);
        assert!(page[1..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn disk_without_a_given_size_is_read_to_its_end() {
        let disk = FakeDisk::new(9);
        let source = DiskSource::new(&disk, None).unwrap();
        assert_eq!((source.bytes(), source.pages()), (9 * 512, 2));
        assert!(page_of(&source, 1)[SECTOR..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn bad_sector_names_its_page_even_inside_a_range() {
        let mut disk = FakeDisk::new(64);
        disk.bad = Some(8 * 3 + 5);
        let source = DiskSource::new(&disk, None).unwrap();
        let error = source.read(1, &mut vec![0; 4 * PAGE]).unwrap_err();
        assert_eq!(
            error,
            SourceError::Device {
                page: 3,
                error: BlockError::Io { sector: 29 }
            }
        );
        assert_eq!(
            error.to_string(),
            "page 3 of the snapshot: the disk reported an I/O error on sector 29"
        );
        assert_eq!(source.read(4, &mut vec![0; PAGE]), Ok(()));
    }

    #[test]
    fn pages_past_the_end_are_refused_by_number() {
        let bytes = [1; PAGE + 1];
        let source = MemorySource::new(&bytes);
        let refused = |page| Err(SourceError::BeyondEnd { page, pages: 2 });
        assert_eq!(source.read(1, &mut vec![0; 2 * PAGE]), refused(2));
        assert_eq!(source.read(7, &mut vec![0; PAGE]), refused(7));
        assert_eq!(source.read(u64::MAX, &mut vec![0; PAGE]), refused(u64::MAX));
    }

    #[test]
    fn disk_smaller_than_the_snapshot_is_refused_with_both_sizes() {
        let disk = FakeDisk::new(2);
        let error = DiskSource::new(&disk, Some(2000)).unwrap_err();
        assert_eq!(
            error,
            SourceError::TooSmall {
                disk: 1024,
                snapshot: 2000
            }
        );
    }

    #[test]
    fn only_whole_pages_are_lent_from_memory() {
        let bytes = vec![3; PAGE + 1];
        let source = MemorySource::new(&bytes);
        assert_eq!(source.in_memory(0, 1).map(<[u8]>::len), Some(PAGE));
        assert_eq!(source.in_memory(1, 1), None);
        assert_eq!(source.in_memory(0, 2), None);
        assert_eq!(source.in_memory(u64::MAX, 1), None);
    }
}
