//! x86-64.
//!
//! ```text
//!   boot door ──► init_cpu: features (CR0, CR4, EFER, PAT) ─ per-CPU block (GS) ─ tables (GDT, TSS, IDT)
//!             ──► mm::init ──► init_timer: clock (TSC against the PIT) ─ apic (timer, 100 Hz), or hypercall
//!
//!   exception ─► entry.s ─► trap: page fault ─► mm::fault      interrupt ─► entry.s ─► interrupt: handler, preemption
//!                                └─ fatal ────► trace::panic
//! ```
//!
//! | module | what |
//! | --- | --- |
//! | [`features`] | what the CPU can do, and the control registers set to it |
//! | [`percpu`] | the block behind GS: per-CPU record, preemption count |
//! | [`tables`] | GDT, TSS with its emergency stacks, IDT |
//! | [`frame`] | registers as the entry code leaves them on the stack |
//! | [`exception`] | every exception: names, error codes, the fatal report |
//! | [`page_fault`] | the one exception that is work |
//! | [`interrupt`] | vectors 32-255 and preemption on the way out |
//! | [`timer`] | the tick: of the APIC, or of the hypervisor |
//! | [`apic`], [`pic`], [`pit`], [`clock`] | local APIC and its timer, the legacy controller and timer, the TSC |
//! | [`ioapic`] | a device's interrupt on its way to the local APIC |
//! | `guest_fault` | what a hypervisor tells its guest instead of a page fault |
//! | [`hypercall`] | whether our own hypervisor runs the machine, and how it is called |
//! | [`image`] | the parts of the image, as the linker script laid them out |
//! | [`unwind`] | what a backtrace needs |
//! | [`user`] | user mode: into it, out of it, its registers |
//! | [`machine`], [`switch`], [`task_memory`] | the traits of [`arch`](super) |
//!
//! Section numbers are those of Intel's Software Developer's Manual ("SDM"), revision 084, and AMD's Architecture
//! Programmer's Manual ("APM") volume 2, revision 3.42.

pub mod apic;
pub mod clock;
pub mod exception;
pub mod features;
pub mod frame;
mod guest_fault;
pub mod hypercall;
pub mod image;
pub mod interrupt;
pub mod ioapic;
pub mod machine;
pub mod page_fault;
pub mod percpu;
pub mod pic;
pub mod pit;
pub mod switch;
pub mod tables;
pub mod task_memory;
pub mod timer;
pub mod unwind;
pub mod user;

pub use self::machine::Machine;

use crate::mm::addr::VirtAddr;

/// Where physical address 0 stands: in the loaders' tables as in the kernel's own.
pub const DIRECT_MAP: VirtAddr = VirtAddr::new(0xffff_8000_0000_0000);

/// Makes the boot CPU ours: control registers, per-CPU block, descriptor tables. Afterwards exceptions are reported,
/// locks work, and interrupts are still off. Called once, first of all.
pub fn init_cpu() {
    percpu::init_boot_cpu();
    tables::init_boot_cpu();
    features::enable();
    user::enable();
    pic::disable();
}

/// Finds the clock's frequency and starts the tick. Needs the kernel's own tables for the APIC's registers; a guest of our
/// own hypervisor needs to be told the frequency before ([`clock::told`]). The first tick comes when interrupts are enabled.
///
/// # Errors
/// There is no usable timer; the reason says what is missing.
pub fn init_timer() -> Result<(), timer::NoTimer> {
    timer::start()
}
