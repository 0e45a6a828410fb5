//! What a boot door hands to the kernel, whichever door it was.
//!
//! Both doors (PVH and `bootloader_api`) copy what the loader left into one [`BootInfo`], so that nothing after them
//! knows how the machine was started and the loader's mappings can be dropped. Addresses are physical.

pub mod cmdline;
pub mod regions;

use arrayvec::{ArrayString, ArrayVec};

use crate::mm::addr::{PhysAddr, VirtAddr};
use crate::mm::range::VirtRange;

/// Most memory regions kept from the loader's map; further ones are ignored and counted.
pub const MAX_REGIONS: usize = 128;
/// Longest command line in bytes.
pub const MAX_CMDLINE: usize = 2048;

/// How the kernel was entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Door {
    /// `qemu -kernel` and other PVH loaders: 32-bit entry named by an ELF note.
    Pvh,
    /// The `bootloader` crate's disk image, started by a BIOS.
    Bios,
    /// The `bootloader` crate's disk image, started by UEFI firmware.
    Uefi,
    /// Our own hypervisor, which has loaded this kernel as its guest.
    Guest,
}

/// What may be done with a region of physical memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegionKind {
    /// Free for the frame allocator.
    Usable,
    /// RAM that holds something that must stay: the kernel image, the ramdisk, loader data.
    Reserved,
    /// Not RAM, or unknown.
    Other,
}

/// One region of the physical memory map, page-aligned, not overlapping any other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Region {
    /// First byte.
    pub start: PhysAddr,
    /// First byte past the region.
    pub end: PhysAddr,
    /// What may be done with it.
    pub kind: RegionKind,
}

/// Rights of one part of the kernel image; write and execute never come together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentKind {
    /// Instructions.
    Text,
    /// Read-only data.
    Rodata,
    /// Writable data, including zero-initialised data and the boot stack.
    Data,
}

/// One part of the kernel image as it is linked; page-aligned. Its frames are wherever the loader put them and are
/// found by walking the loader's tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Where it is linked.
    pub range: VirtRange,
    /// Rights.
    pub kind: SegmentKind,
}

/// Layout of a pixel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PixelFormat {
    /// Byte order red, green, blue.
    Rgb,
    /// Byte order blue, green, red.
    Bgr,
    /// One byte of grey.
    Grey,
}

/// A linear framebuffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Framebuffer {
    /// First byte.
    pub start: PhysAddr,
    /// Length in bytes.
    pub len: u64,
    /// Visible pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Pixels from one row to the next.
    pub stride: u32,
    /// Bytes from one pixel to the next.
    pub bytes_per_pixel: u32,
    /// Byte order of a pixel.
    pub format: PixelFormat,
}

/// Everything the loader told us.
#[derive(Clone, Debug)]
pub struct BootInfo {
    /// How we were entered.
    pub door: Door,
    /// The physical memory map, sorted by start.
    pub memory: ArrayVec<Region, MAX_REGIONS>,
    /// Regions that did not fit into `memory`.
    pub regions_dropped: usize,
    /// The initial ramdisk (a cpio archive), if there is one: start and length in bytes.
    pub ramdisk: Option<(PhysAddr, u64)>,
    /// The command line; from the loader, or from the ramdisk's `cmdline` entry for loaders that have none.
    pub cmdline: ArrayString<MAX_CMDLINE>,
    /// What was wrong with the loader's command line; then `cmdline` is only the part before it.
    pub cmdline_problem: Option<cmdline::CmdlineProblem>,
    /// The screen, if there is one.
    pub framebuffer: Option<Framebuffer>,
    /// The ACPI root pointer, if the loader found it.
    pub rsdp: Option<PhysAddr>,
    /// The parts of the kernel image.
    pub image: ArrayVec<Segment, 8>,
    /// Lowest address of the boot stack; the page below it is a guard page once the kernel has its own tables.
    pub boot_stack: VirtRange,
    /// Where physical address 0 of the loader's direct map stands; equal to `arch`'s direct map base.
    pub direct_map: VirtAddr,
    /// Bytes of physical memory, from 0, that the loader's direct map reaches.
    pub direct_map_len: u64,
}

impl BootInfo {
    /// Nothing known but the door and the direct map, which stands at the same place for every loader.
    pub const fn new(door: Door, direct_map: VirtAddr) -> Self {
        Self {
            door,
            memory: ArrayVec::new_const(),
            regions_dropped: 0,
            ramdisk: None,
            cmdline: ArrayString::new_const(),
            cmdline_problem: None,
            framebuffer: None,
            rsdp: None,
            image: ArrayVec::new_const(),
            boot_stack: VirtRange {
                start: VirtAddr::new(0),
                end: VirtAddr::new(0),
            },
            direct_map,
            direct_map_len: 0,
        }
    }

    /// Bytes of usable memory.
    pub fn usable(&self) -> u64 {
        self.memory
            .iter()
            .filter(|r| r.kind == RegionKind::Usable)
            .map(|r| r.end - r.start)
            .sum()
    }
}
