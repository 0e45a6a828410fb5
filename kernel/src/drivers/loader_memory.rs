//! What the loader left in memory, as Rust sees it.
#![expect(unsafe_code, reason = "turns addresses that the loader reported into slices")]

use core::slice;

use log::warn;

use crate::arch::{Machine, Memory};
use crate::bootinfo::{BootInfo, Framebuffer, RegionKind};
use crate::drivers::fbcon::Screen;
use crate::mm::kmap;
use crate::mm::pt::CacheType;
use crate::trace::console;

/// The ramdisk's bytes; empty when there is none. Its region is reserved in the memory map, so nothing overwrites it.
///
/// A ramdisk that the memory map does not show as reserved is refused: the frame allocator would hand its frames out.
pub fn ramdisk(info: &BootInfo) -> &'static [u8] {
    let Some((start, len)) = info.ramdisk else {
        return &[];
    };
    let reserved = info
        .memory
        .iter()
        .filter(|region| region.kind == RegionKind::Reserved);
    if !reserved
        .into_iter()
        .any(|region| region.start <= start && start + len <= region.end)
    {
        warn!("the ramdisk at {start} ({len} bytes) is not reserved in the memory map; it is ignored");
        return &[];
    }
    // SAFETY: the bytes are RAM that the direct map reaches, reserved as just checked, and never written to.
    unsafe { slice::from_raw_parts(Machine::direct_map(start), len as usize) }
}

/// Puts the console on the screen too, if the machine has one. Needs the kernel's own tables and the heap; called once.
pub fn attach_screen(info: &BootInfo) {
    let Some(framebuffer) = info.framebuffer else {
        return;
    };
    match screen(framebuffer) {
        Some(screen) => console::attach_screen(screen),
        None => warn!("the framebuffer cannot be used: {framebuffer:?}"),
    }
}

fn screen(framebuffer: Framebuffer) -> Option<Screen<'static>> {
    let at = kmap::map_device(framebuffer.start, framebuffer.len, CacheType::WriteCombining).ok()?;
    // SAFETY: the memory was just mapped for its whole length at an address of its own; a framebuffer takes any bytes and
    // only this slice reaches it.
    let pixels = unsafe { slice::from_raw_parts_mut(at.as_u64() as *mut u8, framebuffer.len as usize) };
    Screen::new(pixels, framebuffer)
}
