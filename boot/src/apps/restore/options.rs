//! What a restore is told: keys of the command line, entries of the ramdisk.
//!
//! | key | what | default |
//! | --- | --- | --- |
//! | `source` | `virtio` (the first disk) or `ramdisk` (entry `snapshot`) | `virtio` |
//! | `snapshot-bytes` | size of the snapshot on the disk | the whole disk |
//! | `digests` | how many page digests the ramdisk's entry `digests` holds | as many as there are pages |
//! | `order` | `sequential`, `random`, `reverse` or `file` (entry `order`) | `sequential` |
//! | `seed` | of the random order | 1 |
//! | `touch` | how many pages the workload touches | all in the order |
//! | `prefetch` | pages that are filled along with each missing one, if absent | 0 |
//! | `kill-monitor-after` | the monitor ends after so many faults | never |
//! | `on-monitor-death` | what becomes of faults when the monitor ends ([`MonitorDeath`]) | `fail` |
//! | `monitor-touches-own-region` | the monitor first touches what it is to serve | 0 |
//! | `fail-frames-after` | allocations of frames fail after so many | never |

use alloc::sync::Arc;

use kernel::drivers::source::{DiskSource, MemorySource, PageSource};
use kernel::lab::digest::Digests;
use kernel::lab::order::Order;
use kernel::mm::addr::PAGE_SIZE;
use kernel::trace::cmdline::Cmdline;
use kernel::uffd::MonitorDeath;

use crate::apps::common::{MAX_PAGES, entry, order};
use crate::apps::{AppError, System};

const KEYS: &[&str] = &[
    "source",
    "snapshot-bytes",
    "digests",
    "order",
    "seed",
    "touch",
    "prefetch",
    "kill-monitor-after",
    "on-monitor-death",
    "monitor-touches-own-region",
    "fail-frames-after",
];
const SOURCES: &[&str] = &["virtio", "ramdisk"];
/// Largest region.
const MAX_BYTES: u64 = MAX_PAGES * PAGE_SIZE;
/// Largest prefetch: 16 MiB are read for one fault then.
const MAX_PREFETCH: u64 = 4096;

/// A restore, as it is asked for.
pub struct Options {
    /// Where pages come from.
    pub source: Arc<dyn PageSource>,
    /// What they should be.
    pub digests: Digests<'static>,
    /// In which order they are touched.
    pub order: Order<'static>,
    /// How many are touched.
    pub touch: usize,
    /// How many are filled along with a missing one.
    pub prefetch: usize,
    /// When the monitor ends for no reason.
    pub kill_monitor_after: Option<u64>,
    /// What becomes of faults when the monitor ends.
    pub on_monitor_death: MonitorDeath,
    /// Whether the monitor touches what it serves.
    pub monitor_touches_own_region: bool,
    /// When frames run out.
    pub fail_frames_after: Option<u64>,
}

impl Options {
    /// Reads and checks them.
    ///
    /// # Errors
    /// A key or value that makes no sense; a source, digests or an order that are not there or do not fit together.
    pub fn parse(cmdline: &Cmdline<'static>, system: &'static System) -> Result<Self, AppError> {
        cmdline.allow(KEYS)?;
        let source = source(cmdline, system)?;
        Ok(Self {
            digests: digests(cmdline, system, source.pages())?,
            order: order(cmdline, system, Order::Sequential)?,
            touch: cmdline
                .number("touch", 1, u32::MAX.into())?
                .map_or(usize::MAX, |pages| pages as usize),
            prefetch: cmdline.number("prefetch", 0, MAX_PREFETCH)?.unwrap_or(0) as usize,
            kill_monitor_after: cmdline.number("kill-monitor-after", 0, u64::MAX)?,
            on_monitor_death: cmdline
                .choice("on-monitor-death", MonitorDeath::NAMES)?
                .map_or(MonitorDeath::default(), |index| MonitorDeath::ALL[index]),
            monitor_touches_own_region: cmdline.flag("monitor-touches-own-region")?,
            fail_frames_after: cmdline.number("fail-frames-after", 0, u64::MAX - 1)?,
            source,
        })
    }
}

fn source(cmdline: &Cmdline<'static>, system: &'static System) -> Result<Arc<dyn PageSource>, AppError> {
    let bytes = cmdline.number("snapshot-bytes", 1, MAX_BYTES)?;
    let source: Arc<dyn PageSource> = match cmdline.choice("source", SOURCES)? {
        Some(1) => {
            let content = entry(system, "snapshot")?;
            if let Some(bytes) = bytes.filter(|bytes| *bytes != content.len() as u64) {
                let message = alloc::format!(
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
        bytes if bytes > MAX_BYTES => Err(AppError::Failed(alloc::format!(
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
        let message = alloc::format!("there are {announced} digests for a snapshot of {pages} pages");
        return Err(AppError::Failed(message));
    }
    Digests::new(entry(system, "digests")?, pages).map_err(AppError::failed)
}
