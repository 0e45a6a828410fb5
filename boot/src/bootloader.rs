//! The door of disk images: the `bootloader` crate, started by a BIOS or by UEFI firmware.
//!
//! The loader enters in long mode with tables of its own, which already have the direct map where the kernel wants it.
//! Addresses that it hands over (ramdisk, framebuffer) are virtual; they are walked back to physical ones here, since
//! its mappings are dropped soon. The loader knows no command line; the ramdisk has one.
#![expect(unsafe_code, reason = "walks the loader's page tables")]

use bootloader_api::config::Mapping;
use bootloader_api::info::{FrameBufferInfo, MemoryRegionKind, Optional, PixelFormat as LoaderFormat};
use bootloader_api::{BootloaderConfig, entry_point};
use kernel::arch::x86_64::DIRECT_MAP;
use kernel::bootinfo::regions::MapBuilder;
use kernel::bootinfo::{BootInfo, Door, Framebuffer, PixelFormat, RegionKind};
use kernel::mm::addr::{PAGE_SIZE, PhysAddr};
use x86_64::VirtAddr;
use x86_64::registers::control::Cr3;
use x86_64::structures::paging::{OffsetPageTable, PageTable, Translate};

static CONFIG: BootloaderConfig = {
    let mut config = BootloaderConfig::new_default();
    config.kernel_stack_size = 128 * 1024;
    config.mappings.physical_memory = Some(Mapping::FixedAddress(DIRECT_MAP.as_u64()));
    config
};

entry_point!(start, config = &CONFIG);

fn start(loader: &'static mut bootloader_api::BootInfo) -> ! {
    let regions = &loader.memory_regions;
    let uefi = regions
        .iter()
        .any(|r| matches!(r.kind, MemoryRegionKind::UnknownUefi(_)));
    let mut info = BootInfo::new(if uefi { Door::Uefi } else { Door::Bios }, DIRECT_MAP);
    let tables = loader_tables();
    info.direct_map_len = direct_map_len(&tables, regions.iter().map(|r| r.end).max().unwrap_or(0));
    let mut map = MapBuilder::new();
    if let Optional::Some(addr) = loader.ramdisk_addr {
        info.ramdisk = physical_range(&tables, addr, loader.ramdisk_len);
    }
    if let Some((start, len)) = info.ramdisk {
        map.reserve(start, len);
    }
    map.reserve(PhysAddr::new(loader.kernel_addr), loader.kernel_len);
    for region in regions.iter() {
        map.add(
            PhysAddr::new(region.start),
            region.end.saturating_sub(region.start),
            kind(region.kind),
        );
    }
    (info.memory, info.regions_dropped) = map.finish();
    info.framebuffer = loader.framebuffer.as_ref().and_then(|screen| {
        framebuffer(
            &tables,
            screen.buffer().as_ptr().expose_provenance() as u64,
            &screen.info(),
        )
    });
    info.rsdp = loader.rsdp_addr.into_option().map(PhysAddr::new);
    crate::enter(info)
}

fn loader_tables() -> OffsetPageTable<'static> {
    let root = Cr3::read().0.start_address().as_u64();
    let offset = VirtAddr::new(DIRECT_MAP.as_u64());
    let table = (offset + root).as_mut_ptr::<PageTable>();
    // SAFETY: the loader maps all physical memory at `DIRECT_MAP` (`CONFIG`); nobody changes its tables meanwhile.
    unsafe { OffsetPageTable::new(&mut *table, offset) }
}

fn physical(tables: &OffsetPageTable<'_>, addr: u64) -> Option<u64> {
    let addr = VirtAddr::try_new(addr).ok()?;
    tables.translate_addr(addr).map(|physical| physical.as_u64())
}

/// How far the direct map reaches: to the end of memory, and to 4 GiB where the loader has mapped that much.
fn direct_map_len(tables: &OffsetPageTable<'_>, memory_end: u64) -> u64 {
    let reaches = |end: u64| physical(tables, DIRECT_MAP.as_u64() + end - 1) == Some(end - 1);
    let candidates = [memory_end.max(4 << 30), memory_end];
    candidates
        .into_iter()
        .find(|&end| end > 0 && reaches(end))
        .unwrap_or(memory_end)
}

/// Start and length in physical memory of a range that the loader has mapped; `None` when it is not contiguous there.
fn physical_range(tables: &OffsetPageTable<'_>, addr: u64, len: u64) -> Option<(PhysAddr, u64)> {
    let start = physical(tables, addr)?;
    let pages = (0..len).step_by(PAGE_SIZE as usize);
    let contiguous = pages
        .into_iter()
        .all(|at| physical(tables, addr + at) == Some(start + at));
    (len > 0 && contiguous).then_some((PhysAddr::new(start), len))
}

fn framebuffer(tables: &OffsetPageTable<'_>, addr: u64, info: &FrameBufferInfo) -> Option<Framebuffer> {
    let (start, len) = physical_range(tables, addr, info.byte_len as u64)?;
    let format = match info.pixel_format {
        LoaderFormat::Rgb => PixelFormat::Rgb,
        LoaderFormat::Bgr => PixelFormat::Bgr,
        LoaderFormat::U8 => PixelFormat::Grey,
        _ => return None,
    };
    Some(Framebuffer {
        start,
        len,
        width: info.width as u32,
        height: info.height as u32,
        stride: info.stride as u32,
        bytes_per_pixel: info.bytes_per_pixel as u32,
        format,
    })
}

/// E820 types and UEFI types that are RAM with something in it: ACPI tables and firmware that runs along.
fn kind(kind: MemoryRegionKind) -> RegionKind {
    match kind {
        MemoryRegionKind::Usable => RegionKind::Usable,
        MemoryRegionKind::Bootloader => RegionKind::Reserved,
        MemoryRegionKind::UnknownBios(3 | 4) => RegionKind::Reserved,
        MemoryRegionKind::UnknownUefi(5 | 6 | 9 | 10) => RegionKind::Reserved,
        _ => RegionKind::Other,
    }
}
