//! The built-in guest: the kernel library, started by Faultline's own hypervisor.
//!
//! ```text
//!   hypervisor ──► door: boot info ──► boot stack ──► start ──► task "command" ──► commands ─┬─ workload
//!                                                                                            │    └─ serve: its monitor
//!                                                                                            ├─ probe
//!                                                                                            └─ hostile
//! ```
//!
//! The command line is `command key=value ...`; [`commands`] has the list. Whatever happens, the guest ends by
//! telling the hypervisor an [`ExitCode`](kernel::abi::guest::ExitCode), except where a command is there to do something else.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod commands;
#[cfg(target_os = "none")]
mod delegated;
#[cfg(target_os = "none")]
mod door;
#[cfg(target_os = "none")]
mod hostile;
#[cfg(target_os = "none")]
mod probe;
#[cfg(target_os = "none")]
mod serve;
#[cfg(target_os = "none")]
mod start;
#[cfg(target_os = "none")]
mod workload;

/// On any other target there is nothing to run.
#[cfg(not(target_os = "none"))]
fn main() {
    println!("This is a guest of Faultline's hypervisor; `cargo xtask qemu guest-restore` runs it.");
}
