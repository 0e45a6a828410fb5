//! The kernel's own half of the address space.
//!
//! | from | what | rights |
//! | --- | --- | --- |
//! | `0xffff_8000_0000_0000` | direct map: all RAM at its physical address | rw, the kernel's code and constants r |
//! | `0xffff_d000_0000_0000` | kernel stacks, 64 KiB apart, the lower part of each slot left out as a guard | rw |
//! | `0xffff_e000_0000_0000` | heap, growing upwards | rw |
//! | `0xffff_f000_0000_0000` | device memory | rw, uncached |
//! | `0xffff_ffff_8020_0000` | the kernel image: code rx, constants r, data rw, a guard page below the boot stack | |
//!
//! Nothing is writable and executable, in any alias. The root entries of all windows are filled once at the start, so
//! that every task's table, which aliases them, sees what is mapped there later.

use core::sync::atomic::{AtomicU64, Ordering};

use super::addr::{PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use super::frame::OutOfFrames;
use super::kernel;
use super::pt::{
    Attr, AttrFlags, CacheType, Cursor, Entry, Flush, Invalidator, Level, PageTable, Prot, PtFormat,
};
use super::range::VirtRange;
use crate::arch::{Machine, Stage1, Tlb};
use crate::bootinfo::{BootInfo, RegionKind, Segment, SegmentKind};

/// Where the direct map begins.
pub const DIRECT_MAP: VirtAddr = VirtAddr::new(0xffff_8000_0000_0000);
/// Where kernel stacks are.
pub const STACKS: VirtRange = VirtRange {
    start: VirtAddr::new(0xffff_d000_0000_0000),
    end: VirtAddr::new(0xffff_d080_0000_0000),
};
/// Where the heap is.
pub const HEAP: VirtRange = VirtRange {
    start: VirtAddr::new(0xffff_e000_0000_0000),
    end: VirtAddr::new(0xffff_e080_0000_0000),
};
/// Where device memory is.
pub const DEVICES: VirtRange = VirtRange {
    start: VirtAddr::new(0xffff_f000_0000_0000),
    end: VirtAddr::new(0xffff_f080_0000_0000),
};
/// Where the image is: the last 2 GiB.
const IMAGE: VirtRange = VirtRange {
    start: VirtAddr::new(0xffff_ffff_8000_0000),
    end: VirtAddr::new(0xffff_ffff_ffff_f000),
};

const KERNEL_DATA: Prot = Prot::READ.union(Prot::WRITE);

/// Flushes changes of the kernel's half. Its translations are global, so they go page by page.
#[derive(Debug)]
pub struct KernelTlb;

impl Invalidator<VirtAddr> for KernelTlb {
    fn invalidate(&self, range: VirtRange, _pages: u64) {
        let mut page = range.start;
        while page < range.end {
            Machine::flush_page(page);
            page = page + PAGE_SIZE;
        }
    }
}

fn attr(cache: CacheType) -> Attr {
    // Accessed and dirty are set from the start: the kernel never looks at them, and the CPU need not write them.
    Attr {
        flags: AttrFlags::GLOBAL | AttrFlags::ACCESSED | AttrFlags::DIRTY,
        cache,
    }
}

/// Where the direct map has a physical address.
const fn direct(addr: PhysAddr) -> VirtAddr {
    VirtAddr::new(DIRECT_MAP.as_u64() + addr.as_u64())
}

/// Builds the kernel's tables from what the loader left; nothing is switched yet.
///
/// # Errors
/// No frame for a node.
///
/// # Panics
/// The loader did not map a page of the kernel image, which is running.
pub fn build(info: &BootInfo) -> Result<PageTable<Stage1>, OutOfFrames> {
    let mut table = PageTable::new()?;
    let ram = info
        .memory
        .iter()
        .filter(|region| region.kind != RegionKind::Other);
    let top = ram.clone().map(|region| region.end).max().unwrap_or_default();
    table.pin_root_entries(VirtRange::new(DIRECT_MAP, direct(top)))?;
    for window in [STACKS, HEAP, DEVICES, IMAGE] {
        table.pin_root_entries(window)?;
    }
    for region in ram {
        let range = VirtRange::new(direct(region.start), direct(region.end));
        let mut cursor = table.cursor(range);
        map_run(
            &mut cursor,
            Pfn::containing(region.start),
            KERNEL_DATA,
            CacheType::WriteBack,
        )?;
    }
    for segment in &info.image {
        map_segment(&mut table, segment, info.boot_stack)?;
    }
    Ok(table)
}

/// Maps consecutive frames from `first` over the cursor's range, with the largest leaves that fit.
fn map_run(
    cursor: &mut Cursor<'_, Stage1>,
    first: Pfn,
    prot: Prot,
    cache: CacheType,
) -> Result<(), OutOfFrames> {
    let start = cursor.addr();
    while !cursor.is_done() {
        let frame = first.offset((cursor.addr() - start) / PAGE_SIZE);
        let fits = |level: Level| {
            level <= Stage1::max_leaf() && cursor.fits(level) && frame.start().is_aligned(level.size())
        };
        let level = [Level::UPPER, Level::MID]
            .into_iter()
            .find(|&level| fits(level))
            .unwrap_or(Level::PAGE);
        let installed = cursor.install_borrowed(level, frame, prot, attr(cache))?;
        assert!(installed.is_some(), "two mappings at {:?}", cursor.addr());
        cursor.advance(level);
    }
    Ok(())
}

/// Maps a part of the image where it is linked, and takes writing away from its frames in the direct map unless it is data.
fn map_segment(
    table: &mut PageTable<Stage1>,
    segment: &Segment,
    boot_stack: VirtRange,
) -> Result<(), OutOfFrames> {
    let prot = match segment.kind {
        SegmentKind::Text => Prot::READ | Prot::EXEC,
        SegmentKind::Rodata => Prot::READ,
        SegmentKind::Data => KERNEL_DATA,
    };
    let guard = VirtRange::new(boot_stack.start - PAGE_SIZE, boot_stack.start);
    let mut page = segment.range.start;
    while page < segment.range.end {
        if !guard.contains(page) {
            let frame = loaded_frame(page).expect("the loader mapped the image that runs");
            let mut cursor = table.cursor(VirtRange::page(page));
            let installed = cursor.install_borrowed(Level::PAGE, frame, prot, attr(CacheType::WriteBack))?;
            assert!(installed.is_some(), "image parts overlap at {page:?}");
            if segment.kind != SegmentKind::Data {
                let mut flush = Flush::new();
                let alias = VirtRange::page(direct(frame.start()));
                let done = table
                    .cursor(alias)
                    .protect(|leaf| (Prot::READ, leaf.attr), &mut flush);
                flush.spend(&KernelTlb);
                done.map_err(|_| OutOfFrames)?;
            }
        }
        page = page + PAGE_SIZE;
    }
    Ok(())
}

/// The frame that the tables now loaded have at `page`.
fn loaded_frame(page: VirtAddr) -> Option<Pfn> {
    match super::pt::lookup_from::<Stage1>(Machine::root(), page) {
        (Entry::Leaf(leaf), level) => Some(
            leaf.frame
                .offset((page.as_u64() & (level.size() - 1)) / PAGE_SIZE),
        ),
        _ => None,
    }
}

/// Next free address of the device window.
static NEXT_DEVICE: AtomicU64 = AtomicU64::new(DEVICES.start.as_u64());

/// Maps `len` bytes of device memory at `start`, uncached, and returns where; it stays mapped.
///
/// # Errors
/// No frame for a node, or the window is used up.
pub fn map_device(start: PhysAddr, len: u64, cache: CacheType) -> Result<VirtAddr, OutOfFrames> {
    let offset = start.page_offset();
    let first = start.align_down(PAGE_SIZE);
    let size = (offset + len).next_multiple_of(PAGE_SIZE);
    let at = VirtAddr::new(NEXT_DEVICE.fetch_add(size, Ordering::Relaxed));
    let range = VirtRange::from_len(at, size)
        .filter(|range| DEVICES.covers(range))
        .ok_or(OutOfFrames)?;
    kernel::get().with_table(|table| {
        map_run(
            &mut table.cursor(range),
            Pfn::containing(first),
            KERNEL_DATA,
            cache,
        )
    })?;
    Ok(at + offset)
}

/// Maps frames that somebody else owns at `at`, one page each.
///
/// # Errors
/// No frame for a node.
pub(super) fn map_frames(
    at: VirtAddr,
    frames: impl ExactSizeIterator<Item = Pfn>,
) -> Result<(), OutOfFrames> {
    let range = VirtRange::new(at, at + frames.len() as u64 * PAGE_SIZE);
    kernel::get().with_table(|table| {
        let mut cursor = table.cursor(range);
        for frame in frames {
            let installed =
                cursor.install_borrowed(Level::PAGE, frame, KERNEL_DATA, attr(CacheType::WriteBack))?;
            assert!(installed.is_some(), "two mappings at {:?}", cursor.addr());
            cursor.advance(Level::PAGE);
        }
        Ok(())
    })
}

/// Unmaps pages that [`map_frames`] mapped; after this no CPU reaches them.
pub(super) fn unmap_frames(range: VirtRange) {
    let mut flush = Flush::new();
    let done = kernel::get().with_table(|table| table.cursor(range).unmap(false, &mut flush));
    flush.spend(&KernelTlb);
    assert!(done.is_ok(), "pages mapped one by one need no splitting");
}
