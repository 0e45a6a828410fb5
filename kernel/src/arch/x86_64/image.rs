//! The image in memory, as the linker laid it out: boot's kernel.ld, and that of the guest, which has the same symbols.
#![expect(
    unsafe_code,
    reason = "addresses of linker symbols, and the switch to the boot stack"
)]

use core::arch::asm;

use crate::bootinfo::{Segment, SegmentKind};
use crate::mm::addr::{PhysAddr, VirtAddr};
use crate::mm::range::VirtRange;
use arrayvec::ArrayVec;

/// What is subtracted from a linked address to get the one that a loader uses which goes by `p_paddr`.
const BASE: u64 = 0xffff_ffff_8000_0000;

unsafe extern "C" {
    static __rodata_start: u8;
    static __rodata_end: u8;
    static __text_start: u8;
    static __text_end: u8;
    static __data_start: u8;
    static __data_end: u8;
    static __boot_stack_start: u8;
    static __boot_stack_end: u8;
}

fn range(start: *const u8, end: *const u8) -> VirtRange {
    VirtRange::new(
        VirtAddr::new(start.addr() as u64),
        VirtAddr::new(end.addr() as u64),
    )
}

/// The parts of the image, each page-aligned, in the order of their addresses.
pub fn segments() -> ArrayVec<Segment, 8> {
    let parts = [
        (
            range(&raw const __rodata_start, &raw const __rodata_end),
            SegmentKind::Rodata,
        ),
        (
            range(&raw const __text_start, &raw const __text_end),
            SegmentKind::Text,
        ),
        (
            range(&raw const __data_start, &raw const __data_end),
            SegmentKind::Data,
        ),
    ];
    parts
        .into_iter()
        .map(|(range, kind)| Segment { range, kind })
        .collect()
}

/// Physical range of the image when it was loaded where it says (`p_paddr`), by PVH or as a guest: start and length.
pub fn loaded() -> (PhysAddr, u64) {
    let image = range(&raw const __rodata_start, &raw const __data_end);
    (PhysAddr::new(image.start.as_u64() - BASE), image.len())
}

/// The boot stack, without the guard page below it.
pub fn boot_stack() -> VirtRange {
    range(&raw const __boot_stack_start, &raw const __boot_stack_end)
}

/// Leaves the loader's stack for ever and calls `next` on the boot stack. Backtraces end there.
pub fn on_boot_stack(next: extern "C" fn() -> !) -> ! {
    // SAFETY: the boot stack is reserved by the linker script for this; nothing on the old stack is used again.
    unsafe {
        asm!(
            "mov rsp, {stack}",
            "xor ebp, ebp",
            "call {next}",
            "ud2",
            stack = in(reg) boot_stack().end.as_u64(),
            next = in(reg) next,
            options(noreturn),
        )
    }
}
