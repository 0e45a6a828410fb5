//! From an exit code to an [`Exit`] (APM vol. 2, appendix C).
//!
//! **Lengths.** The CPU says where the next instruction begins (nRIP, or EXITINFO2 for port I/O). One without nRIP (QEMU's
//! TCG among them) leaves that 0; the instruction is then taken to be in its plain form. A guest that put redundant prefixes
//! before it goes on inside of it: its own misfortune, and no other's.
//!
//! **CR4.** A guest's change of it does not exit. One that set a bit which CPUID does not show it is stopped at its next exit
//! that is neither a hypercall nor a violation, at the latest with the host's next tick.
//!
//! **Violations.** EXITINFO1 is a page fault's error code, and two bits that tell the walk of the guest's own tables from
//! the access itself (15.25.6). Walks always count as writes, as the CPU would set accessed bits on the way. The CPU does not
//! say which guest-virtual address it was.

use kernel::mm::addr::GuestPhysAddr;
use kernel::mm::fault::Access;

use super::events;
use super::fields::Vmcb;
use crate::exit::{Exit, PortAccess, Raw, Stopped, Violation};

const READ_CR8: u64 = 0x08;
const WRITE_CR8: u64 = 0x18;
const READ_DR0: u64 = 0x20;
const WRITE_DR15: u64 = 0x3f;
/// #MC.
const MACHINE_CHECK: u64 = 0x52;
const INTR: u64 = 0x60;
const INIT: u64 = 0x63;
const VINTR: u64 = 0x64;
const RDPMC: u64 = 0x6f;
const CPUID: u64 = 0x72;
const RSM: u64 = 0x73;
const INVD: u64 = 0x76;
const HLT: u64 = 0x78;
const INVLPGA: u64 = 0x7a;
const IOIO: u64 = 0x7b;
const MSR: u64 = 0x7c;
const TASK_SWITCH: u64 = 0x7d;
const SHUTDOWN: u64 = 0x7f;
const VMRUN: u64 = 0x80;
const VMMCALL: u64 = 0x81;
const VMLOAD: u64 = 0x82;
const VMSAVE: u64 = 0x83;
const STGI: u64 = 0x84;
const CLGI: u64 = 0x85;
const SKINIT: u64 = 0x86;
const WBINVD: u64 = 0x89;
const MONITOR: u64 = 0x8a;
const MWAIT: u64 = 0x8b;
const MWAIT_ARMED: u64 = 0x8c;
const XSETBV: u64 = 0x8d;
const NPF: u64 = 0x400;
/// VMEXIT_INVALID is -1; TCG writes the lower half only.
const REFUSED: u32 = u32::MAX;

/// EXITINFO1 of a nested page fault.
const NPF_PRESENT: u64 = 1 << 0;
const NPF_WRITE: u64 = 1 << 1;
const NPF_RESERVED: u64 = 1 << 3;
const NPF_FETCH: u64 = 1 << 4;
const NPF_WALK: u64 = 1 << 33;

/// EXITINFO1 of port I/O (15.10.2).
const IOIO_IN: u64 = 1 << 0;
const IOIO_STRING: u64 = 1 << 2;
const IOIO_SIZE_SHIFT: u32 = 4;
const IOIO_PORT_SHIFT: u32 = 16;

/// Whether the CPU found the block not to its liking.
#[inline]
pub(super) fn is_refused(vmcb: &Vmcb) -> bool {
    vmcb.exit_code as u32 == REFUSED
}

/// Whether the guest can take an interrupt now, and that is why it stopped.
pub(super) fn is_window(vmcb: &Vmcb) -> bool {
    vmcb.exit_code == VINTR
}

/// Whether the machine is broken.
pub(super) fn is_machine_check(vmcb: &Vmcb) -> bool {
    vmcb.exit_code == MACHINE_CHECK
}

/// Whether the guest stopped for one of the two reasons that are counted in instructions.
#[inline]
pub(super) fn is_common(vmcb: &Vmcb) -> bool {
    matches!(vmcb.exit_code, VMMCALL | NPF)
}

/// Why the guest of this block stopped.
#[inline]
pub(super) fn decode(vmcb: &Vmcb) -> Stopped {
    match vmcb.exit_code {
        VMMCALL => {
            let exit = Exit::Hypercall {
                user: vmcb.cpl != 0,
                len: length(vmcb, 3),
            };
            stopped(vmcb, exit)
        }
        NPF => stopped(vmcb, nested_fault(vmcb)),
        _ => decode_other(vmcb),
    }
}

#[inline]
fn stopped(vmcb: &Vmcb, exit: Exit) -> Stopped {
    let raw = Raw {
        code: vmcb.exit_code,
        info: vmcb.exit_info_1,
        more: vmcb.exit_info_2,
    };
    Stopped { exit, raw }
}

#[inline(never)]
fn decode_other(vmcb: &Vmcb) -> Stopped {
    let exit = match vmcb.exit_code {
        _ if is_refused(vmcb) => Exit::EntryRefused,
        _ if vmcb.has_foreign_bits() => Exit::Privileged("MOV to CR4"),
        HLT => Exit::Halt { len: length(vmcb, 1) },
        IOIO => Exit::Io(port_access(vmcb)),
        CPUID => Exit::Cpuid { len: length(vmcb, 2) },
        MSR => Exit::Msr {
            write: vmcb.exit_info_1 & 1 != 0,
            len: length(vmcb, 2),
        },
        INTR..=INIT => Exit::HostInterrupt,
        VINTR => Exit::InterruptWindow,
        SHUTDOWN => Exit::Shutdown,
        code => uncommon(code),
    };
    stopped(vmcb, exit)
}

/// Instructions that the guest may not execute, and what is not known.
#[cold]
fn uncommon(code: u64) -> Exit {
    let name = match code {
        READ_CR8 => "MOV from CR8",
        WRITE_CR8 => "MOV to CR8",
        READ_DR0..=WRITE_DR15 => "MOV DR",
        RDPMC => "RDPMC",
        RSM => "RSM",
        INVD => "INVD",
        INVLPGA => "INVLPGA",
        TASK_SWITCH => "a task switch",
        VMRUN => "VMRUN",
        VMLOAD => "VMLOAD",
        VMSAVE => "VMSAVE",
        STGI => "STGI",
        CLGI => "CLGI",
        SKINIT => "SKINIT",
        WBINVD => "WBINVD",
        MONITOR => "MONITOR",
        MWAIT | MWAIT_ARMED => "MWAIT",
        XSETBV => "XSETBV",
        _ => return Exit::Unknown,
    };
    Exit::Privileged(name)
}

/// Bytes of the intercepted instruction, whose plain form has `plain`.
#[inline]
fn length(vmcb: &Vmcb, plain: u8) -> u8 {
    match vmcb.next_rip {
        0 => plain,
        next => next.wrapping_sub(vmcb.rip) as u8,
    }
}

fn port_access(vmcb: &Vmcb) -> PortAccess {
    let info = vmcb.exit_info_1;
    PortAccess {
        port: (info >> IOIO_PORT_SHIFT) as u16,
        size: (info >> IOIO_SIZE_SHIFT) as u8 & 7,
        write: info & IOIO_IN == 0,
        string: info & IOIO_STRING != 0,
        len: vmcb.exit_info_2.wrapping_sub(vmcb.rip) as u8,
    }
}

#[inline]
fn nested_fault(vmcb: &Vmcb) -> Exit {
    let info = vmcb.exit_info_1;
    let addr = GuestPhysAddr::new(vmcb.exit_info_2);
    if info & NPF_RESERVED != 0 {
        return Exit::Misconfigured(addr);
    }
    let access = if info & NPF_FETCH != 0 {
        Access::Execute
    } else if info & NPF_WRITE != 0 {
        Access::Write
    } else {
        Access::Read
    };
    Exit::Violation(Violation {
        addr,
        access,
        linear: None,
        walk: info & NPF_WALK != 0,
        present: info & NPF_PRESENT != 0,
        root: 0,
        in_delivery: events::is_valid(vmcb.exit_interrupt),
    })
}
