//! The bare-metal image.
//!
//! ```text
//!   qemu -kernel ──► pvh_entry.s ──► pvh ─────────┐
//!                                                 ├─► enter ──► boot stack ──► kernel_main
//!   BIOS, UEFI ──► the bootloader crate ──► bootloader ┘
//! ```
//!
//! Each door copies what its loader left into one [`BootInfo`](kernel::bootinfo::BootInfo); after that nothing knows
//! how the machine was started.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod apps;
#[cfg(target_os = "none")]
mod bootloader;
#[cfg(target_os = "none")]
mod crash;
#[cfg(target_os = "none")]
mod ktest;
#[cfg(target_os = "none")]
mod pvh;
#[cfg(target_os = "none")]
mod report;
#[cfg(target_os = "none")]
mod start;

#[cfg(target_os = "none")]
use start::enter;

/// On any other target there is nothing to run.
#[cfg(not(target_os = "none"))]
fn main() {
    println!("This is the bare-metal image; build and run it with `cargo xtask qemu`.");
}
