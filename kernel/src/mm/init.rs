//! Taking the machine's memory over from the loader.
#![expect(unsafe_code, reason = "hands raw memory to its first owner")]

use core::fmt;

use super::addr::{PAGE_SIZE, Pfn, PhysAddr};
use super::frame::{FrameMeta, OutOfFrames};
use super::{kernel, kmap};
use crate::arch::{Machine, Memory, Tlb};
use crate::bootinfo::{BootInfo, Region, RegionKind};

/// Why the kernel cannot own this machine's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InitError {
    /// No usable region is large enough for the frame metadata.
    NoRoomForMetadata {
        /// Bytes wanted in one piece.
        wanted: u64,
    },
    /// Memory ran out while the kernel's tables were built.
    OutOfFrames,
}

impl From<OutOfFrames> for InitError {
    fn from(_: OutOfFrames) -> Self {
        Self::OutOfFrames
    }
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoomForMetadata { wanted } => {
                write!(
                    f,
                    "no usable memory region has the {wanted} bytes that the frame metadata needs"
                )
            }
            Self::OutOfFrames => f.write_str("too little memory for the kernel's page tables"),
        }
    }
}

/// Sets up the frame allocator, builds the kernel's own tables and loads them; the loader's mappings are gone afterwards.
/// The heap works from here on.
///
/// # Errors
/// The memory map does not give enough; see [`InitError`].
///
/// # Safety
/// Called once, on the boot CPU, with `info` as the loader left it: its usable regions are RAM that nothing else uses, and the
/// loader's tables map its first `direct_map_len` bytes of physical memory at the kernel's direct map.
pub unsafe fn init(info: &BootInfo) -> Result<(), InitError> {
    let mm = kernel::get();
    let usable = || {
        info.memory
            .iter()
            .filter(|region| region.kind == RegionKind::Usable)
    };
    let top = usable().map(|region| region.end).max().unwrap_or_default();
    let frames = top.as_u64() / PAGE_SIZE;
    let bytes = (frames * size_of::<FrameMeta>() as u64).next_multiple_of(PAGE_SIZE);
    let reach = PhysAddr::new(info.direct_map_len);
    let home = usable()
        .find(|region| region.end <= reach && region.end - region.start > bytes)
        .ok_or(InitError::NoRoomForMetadata { wanted: bytes })?;
    // SAFETY: the bytes are the start of a usable region, which is not donated below, and the loader's tables reach it.
    unsafe {
        mm.frames
            .install(Machine::direct_map(home.start).cast(), frames as usize)
    };
    let after_metadata = |region: &Region| {
        if region == home {
            region.start + bytes
        } else {
            region.start
        }
    };
    for region in usable() {
        let start = after_metadata(region);
        // SAFETY: the caller vouches for the region; of it, only what the loader's tables reach is handed over now.
        unsafe { donate(start, region.end.min(reach)) };
    }
    let table = kmap::build(info)?;
    Machine::load_first_root(table.root());
    mm.start(table)?;
    for region in usable() {
        let start = after_metadata(region).max(reach);
        // SAFETY: the rest of the region, which the kernel's own direct map reaches.
        unsafe { donate(start, region.end) };
    }
    Ok(())
}

/// # Safety
/// As for `FrameAllocator::donate`; an empty range is fine.
unsafe fn donate(start: PhysAddr, end: PhysAddr) {
    if start < end {
        // SAFETY: the caller's contract.
        unsafe {
            kernel::get()
                .frames
                .donate(Pfn::containing(start), Pfn::containing(end))
        };
    }
}
