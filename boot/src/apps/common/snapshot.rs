//! A snapshot that was taken elsewhere: where its pages come from, and what they should be.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use kernel::drivers::source::{DiskSource, MemorySource, PageSource, SourceError};
use kernel::lab::digest::Digests;
use kernel::mm::addr::PAGE_SIZE;
use kernel::trace::cmdline::Cmdline;

use super::{MAX_PAGES, PAGE, entry};
use crate::apps::{AppError, System};

const SOURCES: &[&str] = &["virtio", "ramdisk"];
/// Largest snapshot.
const MAX_BYTES: u64 = MAX_PAGES * PAGE_SIZE;

/// A snapshot.
#[derive(Clone)]
pub struct Snapshot {
    /// Where its pages come from.
    pub source: Arc<dyn PageSource>,
    /// What they should be, by the host's account.
    pub digests: Digests<'static>,
}

impl Snapshot {
    /// The snapshot that the keys `source` (`virtio`, the first disk, or `ramdisk`, its entry `snapshot`),
    /// `snapshot-bytes` and `digests` say, with the ramdisk's entry `digests`.
    ///
    /// # Errors
    /// A value that makes no sense; a source or digests that are not there or do not fit together.
    pub fn parse(cmdline: &Cmdline<'static>, system: &'static System) -> Result<Self, AppError> {
        let source = source(cmdline, system)?;
        let digests = digests(cmdline, system, source.pages())?;
        Ok(Self { source, digests })
    }

    /// The content of `pages`, through `buffer` unless it lies in memory.
    ///
    /// # Errors
    /// The source failed; it names the page.
    #[inline]
    pub fn read<'a>(&'a self, pages: Range<usize>, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], SourceError> {
        let (first, count) = (pages.start as u64, pages.len());
        if let Some(bytes) = self.source.in_memory(first, count as u64) {
            return Ok(bytes);
        }
        buffer.resize(count * PAGE, 0);
        self.source.read(first, buffer)?;
        Ok(buffer)
    }
}

fn source(cmdline: &Cmdline<'static>, system: &'static System) -> Result<Arc<dyn PageSource>, AppError> {
    let bytes = cmdline.number("snapshot-bytes", 1, MAX_BYTES)?;
    let source: Arc<dyn PageSource> = match cmdline.choice("source", SOURCES)? {
        Some(1) => {
            let content = entry(system, "snapshot")?;
            if let Some(bytes) = bytes.filter(|bytes| *bytes != content.len() as u64) {
                let message = format!(
                    "the ramdisk's `snapshot` has {} bytes, the command line says {bytes}",
                    content.len()
                );
                return Err(AppError::Failed(message));
            }
            Arc::new(MemorySource::new(content))
        }
        _ => {
            let Some(disk) = system.disks.first() else {
                let message = "no virtio disk was found; attach one (QEMU: -device virtio-blk-pci) or use source=ramdisk";
                return Err(AppError::Failed(message.into()));
            };
            Arc::new(DiskSource::new(disk, bytes).map_err(AppError::failed)?)
        }
    };
    match source.bytes() {
        0 => Err(AppError::Failed(
            "the snapshot is empty: there is nothing to restore".into(),
        )),
        bytes if bytes > MAX_BYTES => Err(AppError::Failed(format!(
            "the snapshot has {bytes} bytes; the most are {MAX_BYTES}"
        ))),
        _ => Ok(source),
    }
}

fn digests(
    cmdline: &Cmdline<'static>,
    system: &'static System,
    pages: u64,
) -> Result<Digests<'static>, AppError> {
    let announced = cmdline.number("digests", 0, u32::MAX.into())?.unwrap_or(pages);
    if announced != pages {
        let message = format!("there are {announced} digests for a snapshot of {pages} pages");
        return Err(AppError::Failed(message));
    }
    Digests::new(entry(system, "digests")?, pages).map_err(AppError::failed)
}
