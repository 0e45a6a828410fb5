//! Where the hypervisor comes in: from [`abi::guest`](kernel::abi::guest)'s start to the kernel's [`BootInfo`].
#![expect(
    unsafe_code,
    reason = "the entry point; reads what the hypervisor left at physical addresses"
)]

use core::arch::naked_asm;
use core::slice;

use kernel::abi::guest::{self, BOOT_MAGIC, IDENTITY_MAPPED};
use kernel::arch::x86_64::{DIRECT_MAP, image};
use kernel::arch::{Machine, Memory};
use kernel::bootinfo::{BootInfo, Door, Region, RegionKind, cmdline};
use kernel::mm::addr::{PAGE_SIZE, PhysAddr};

use crate::start;

/// On the hypervisor's stack, with nothing on it, and its page tables; RDI holds the boot info's address. Backtraces end
/// here.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn _start() -> ! {
    naked_asm!("xor ebp, ebp", "call {enter}", "ud2", enter = sym enter)
}

extern "C" fn enter(at: u64) -> ! {
    // SAFETY: the hypervisor's tables map all of the first memory, where the boot info lies, also at the direct map.
    let given = unsafe { at_physical::<guest::BootInfo>(at).read() };
    let mut info = BootInfo::new(Door::Guest, DIRECT_MAP);
    // Anything else has not started this as its guest; there is no memory then, and `start` says so.
    if given.magic == BOOT_MAGIC && given.size >= size_of::<guest::BootInfo>() as u64 {
        fill(&mut info, &given);
    }
    start::enter(info, given)
}

fn fill(info: &mut BootInfo, given: &guest::BootInfo) {
    info.direct_map_len = IDENTITY_MAPPED;
    // SAFETY: as for the boot info; nothing changes the text.
    let line = unsafe { slice::from_raw_parts(at_physical::<u8>(given.cmdline), given.cmdline_len as usize) };
    (info.cmdline, info.cmdline_problem) = cmdline::parse(line);
    // From the image on, up to where the hypervisor says, everything is in use: tables, stack, boot info. The first page
    // stays out of the allocator's hands: nobody is to own address 0.
    let (loaded, _) = image::loaded();
    let free = PhysAddr::new(given.free_start);
    let end = PhysAddr::new(given.memory_len).align_down(PAGE_SIZE);
    let parts = [
        (PhysAddr::new(PAGE_SIZE), loaded, RegionKind::Usable),
        (loaded, free, RegionKind::Reserved),
        (free, end, RegionKind::Usable),
    ];
    for (start, end, kind) in parts {
        if start < end {
            info.memory.push(Region { start, end, kind });
        }
    }
}

fn at_physical<T>(addr: u64) -> *const T {
    Machine::direct_map(PhysAddr::new(addr)).cast_const().cast()
}
