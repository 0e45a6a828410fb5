//! The PVH door: `qemu -kernel` and other loaders of Xen's direct boot ABI.
#![expect(unsafe_code, reason = "entered from assembly; reads what the loader left at physical addresses")]

core::arch::global_asm!(include_str!("pvh_entry.s"), options(att_syntax));

/// First Rust code of the PVH door, on the boot stack and the boot page tables.
#[unsafe(no_mangle)]
extern "C" fn pvh_start(_start_info: u32) -> ! {
    crate::hello("pvh");
}
