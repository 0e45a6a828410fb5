//! The PVH door: `qemu -kernel` and other loaders of Xen's direct boot ABI.
//!
//! `pvh_entry.s` is entered in 32-bit mode and calls [`pvh_start`] in long mode with the tables described there.
#![expect(
    unsafe_code,
    reason = "entered from assembly; reads what the loader left at physical addresses"
)]

use core::alloc::Layout;

use kernel::arch::x86_64::{DIRECT_MAP, image};
use kernel::bootinfo::regions::MapBuilder;
use kernel::bootinfo::{BootInfo, Door, RegionKind, cmdline};
use kernel::mm::addr::PhysAddr;
use pvh::start_info::reader::{MemMap, StartInfoReader};
use pvh::start_info::{MemmapTableEntry, MemmapType, ModlistEntry, StartInfo};

core::arch::global_asm!(include_str!("pvh_entry.s"), options(att_syntax));

/// What the boot tables reach: 4 GiB.
const REACH: u64 = 4 << 30;

/// Physical addresses through the boot tables' direct map; nothing beyond its end.
struct DirectMap;

impl MemMap for DirectMap {
    fn ptr(&self, paddr: usize, layout: Layout) -> *const u8 {
        let inside = (paddr as u64)
            .checked_add(layout.size() as u64)
            .is_some_and(|end| end <= REACH);
        if !inside || !paddr.is_multiple_of(layout.align()) {
            return core::ptr::null();
        }
        core::ptr::with_exposed_provenance((DIRECT_MAP.as_u64() + paddr as u64) as usize)
    }
}

/// First Rust code of the PVH door, on the boot stack and the boot page tables.
#[unsafe(no_mangle)]
extern "C" fn pvh_start(start_info: u32) -> ! {
    let mut info = BootInfo::new(Door::Pvh, DIRECT_MAP);
    info.direct_map_len = REACH;
    // SAFETY: EBX held the address at entry, which the ABI promises to be a valid start info; `from_paddr` checks its
    // magic number. The direct map stays as it is while `info` is filled. Without start info there is no memory map,
    // and `kernel_main` says so.
    if let Some(reader) = unsafe { StartInfoReader::from_paddr(start_info, DirectMap) } {
        fill(&mut info, &reader, u64::from(start_info));
    }
    crate::enter(info)
}

fn fill(info: &mut BootInfo, reader: &StartInfoReader<'_, DirectMap>, at: u64) {
    let raw = reader.raw();
    let mut map = MapBuilder::new();
    let mut reserve = |start: u64, len: u64| map.reserve(PhysAddr::new(start), len);
    let (image, image_len) = image::loaded();
    reserve(image.as_u64(), image_len);
    reserve(at, size_of::<StartInfo>() as u64);
    reserve(
        raw.modlist_paddr,
        u64::from(raw.nr_modules) * size_of::<ModlistEntry>() as u64,
    );
    reserve(
        raw.memmap_paddr,
        u64::from(raw.memmap_entries) * size_of::<MemmapTableEntry>() as u64,
    );
    // The first module is the ramdisk (`-initrd`); there is no use for further ones.
    if let Some(module) = reader.modlist().next().map(|module| module.raw()) {
        reserve(module.paddr, module.size);
        info.ramdisk = Some((PhysAddr::new(module.paddr), module.size));
    }
    if let Some(line) = reader.cmdline() {
        reserve(raw.cmdline_paddr, line.count_bytes() as u64 + 1);
        (info.cmdline, info.cmdline_problem) = cmdline::parse(line.to_bytes());
    }
    for entry in reader.memmap() {
        map.add(
            PhysAddr::new(entry.addr),
            entry.size,
            kind(MemmapType::from(entry.ty)),
        );
    }
    (info.memory, info.regions_dropped) = map.finish();
    info.rsdp = (raw.rsdp_paddr != 0).then_some(PhysAddr::new(raw.rsdp_paddr));
}

fn kind(ty: MemmapType) -> RegionKind {
    match ty {
        MemmapType::Ram => RegionKind::Usable,
        MemmapType::Acpi | MemmapType::Nvs => RegionKind::Reserved,
        _ => RegionKind::Other,
    }
}
