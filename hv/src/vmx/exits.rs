//! From an exit reason to [`Exit`] (SDM vol. 3C, 28.2 "Recording VM-Exit Information", and vol. 3D, appendix C).
//!
//! A pure function of the exit fields. It reads those that belong to the reason and no others: each is an instruction.

use kernel::mm::addr::{GuestPhysAddr, VirtAddr};
use kernel::mm::fault::Access;

use super::events::{Event, VALID};
use super::fields::{self, Field};
use crate::exit::{Exit, PortAccess, Raw, Stopped, Violation};

/// The fields that an exit has left.
pub trait Fields {
    /// What a field holds.
    fn read(&self, field: Field) -> u64;
    /// With which of its roots the guest ran.
    fn root(&self) -> u16;
}

/// What an exit has left besides, to be done before the guest goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Beside {
    /// An event whose delivery was cut short.
    pub cut_short: Option<Event>,
    /// An exception of the guest's that has only come by.
    pub exception: Option<Event>,
    /// An interrupt or exception of the host's that the exit has swallowed: NMI, machine check.
    pub host_vector: Option<u8>,
}

/// Exit reason: the entry failed.
pub const ENTRY_FAILED: u32 = 1 << 31;

// Basic exit reasons.
const EXCEPTION: u32 = 0;
const EXTERNAL_INTERRUPT: u32 = 1;
const TRIPLE_FAULT: u32 = 2;
/// The guest can take an interrupt.
pub const INTERRUPT_WINDOW: u32 = 7;
const TASK_SWITCH: u32 = 9;
const CPUID: u32 = 10;
const HLT: u32 = 12;
const VMCALL: u32 = 18;
/// An access to a control register that exits.
pub const CONTROL_REGISTER: u32 = 28;
const IO: u32 = 30;
const RDMSR: u32 = 31;
const WRMSR: u32 = 32;
const VIOLATION: u32 = 48;
const MISCONFIGURATION: u32 = 49;
const TIMER: u32 = 52;
const LOG_FULL: u32 = 62;

// Vectors.
const DEBUG: u8 = 1;
const NMI: u8 = 2;
const ALIGNMENT: u8 = 17;
const MACHINE_CHECK: u8 = 18;

/// Exceptions that exit. A guest that raises #DB or #AC while one is being delivered would keep the CPU busy for ever
/// without an exit, so these come by here and are then the guest's.
pub const EXCEPTIONS: u32 = 1 << DEBUG | 1 << ALIGNMENT | 1 << MACHINE_CHECK;

// Exit qualification of an EPT violation (SDM vol. 3C, table 28-7).
const WRITE: u64 = 1 << 1;
const FETCH: u64 = 1 << 2;
/// Some access is allowed: there is a translation.
const ALLOWED: u64 = 7 << 3;
const LINEAR_VALID: u64 = 1 << 7;
/// The access was to the address itself, not to a table on the way to it.
const FINAL: u64 = 1 << 8;

/// Whether the exit may have left an event in the VECTORING field: those that can come in the middle of a delivery.
fn may_cut_short(basic: u32) -> bool {
    matches!(
        basic,
        EXCEPTION | TASK_SWITCH | VIOLATION | MISCONFIGURATION | LOG_FULL
    )
}

/// Whether there is something [`beside`] an exit.
#[inline]
pub fn has_event(stopped: &Stopped) -> bool {
    stopped.raw.more & u64::from(VALID) != 0 || stopped.raw.code == u64::from(EXCEPTION)
}

/// What is beside an exit with this reason, one that [has something](has_event).
pub fn beside(reason: u32, fields: &impl Fields) -> Beside {
    let len = || fields.read(fields::EXIT_INSTRUCTION_LENGTH) as u32;
    let mut beside = Beside {
        cut_short: Event::described(
            fields.read(fields::VECTORING) as u32,
            || fields.read(fields::VECTORING_ERROR_CODE) as u32,
            len,
        ),
        ..Beside::default()
    };
    if reason & 0xffff == EXCEPTION {
        let info = fields.read(fields::EXIT_INTERRUPTION) as u32;
        match info as u8 {
            vector @ (NMI | MACHINE_CHECK) => beside.host_vector = Some(vector),
            DEBUG | ALIGNMENT => {
                beside.exception =
                    Event::described(info, || fields.read(fields::EXIT_ERROR_CODE) as u32, len);
            }
            _ => {}
        }
    }
    beside
}

/// Whether the reason is one of those that [`common`] decodes: what guests stop for all the time.
#[inline(always)]
pub fn is_common(reason: u32) -> bool {
    matches!(reason, VMCALL | VIOLATION)
}

/// What a common exit was.
#[inline(always)]
pub fn common(reason: u32, fields: &impl Fields) -> Stopped {
    let mut raw = Raw {
        code: reason.into(),
        info: 0,
        more: 0,
    };
    let exit = if reason == VMCALL {
        Exit::Hypercall {
            user: level(fields) > 0,
            len: fields.read(fields::EXIT_INSTRUCTION_LENGTH) as u8,
        }
    } else {
        raw.info = fields.read(fields::EXIT_QUALIFICATION);
        raw.more = fields.read(fields::VECTORING);
        violation(&raw, fields)
    };
    Stopped { exit, raw }
}

/// What the exit with this reason was.
pub fn decode(reason: u32, fields: &impl Fields) -> Stopped {
    if is_common(reason) {
        return common(reason, fields);
    }
    let len = || fields.read(fields::EXIT_INSTRUCTION_LENGTH) as u8;
    let mut raw = Raw {
        code: reason.into(),
        info: 0,
        more: 0,
    };
    let exit = match reason {
        EXTERNAL_INTERRUPT | TIMER => Exit::HostInterrupt,
        HLT => Exit::Halt { len: len() },
        CPUID => Exit::Cpuid { len: len() },
        RDMSR | WRMSR => Exit::Msr {
            write: reason == WRMSR,
            len: len(),
        },
        IO => {
            raw.info = fields.read(fields::EXIT_QUALIFICATION);
            Exit::Io(port_access(raw.info, len()))
        }
        INTERRUPT_WINDOW => Exit::InterruptWindow,
        _ => return uncommon(raw, fields),
    };
    Stopped { exit, raw }
}

/// The rest: what ends the guest, and what is between the CPU and the host.
fn uncommon(mut raw: Raw, fields: &impl Fields) -> Stopped {
    let reason = raw.code as u32;
    let basic = reason & 0xffff;
    if may_cut_short(basic) {
        raw.more = fields.read(fields::VECTORING);
    }
    raw.info = match basic {
        EXCEPTION => fields.read(fields::EXIT_INTERRUPTION),
        _ => fields.read(fields::EXIT_QUALIFICATION),
    };
    let exit = match basic {
        _ if reason & ENTRY_FAILED != 0 => Exit::EntryRefused,
        MISCONFIGURATION => Exit::Misconfigured(guest_physical(fields)),
        TRIPLE_FAULT => Exit::Shutdown,
        CONTROL_REGISTER => Exit::Privileged(control_register(raw.info)),
        // The host's, or the guest's own and on its way to it.
        EXCEPTION if matches!(raw.info as u8, NMI | MACHINE_CHECK | DEBUG | ALIGNMENT) => Exit::HostInterrupt,
        _ => instruction(basic).map_or(Exit::Unknown, Exit::Privileged),
    };
    Stopped { exit, raw }
}

/// The guest's privilege level: that of its stack segment (SDM vol. 3C, 25.4.1).
fn level(fields: &impl Fields) -> u64 {
    fields.read(fields::segment::SS.rights) >> 5 & 3
}

fn guest_physical(fields: &impl Fields) -> GuestPhysAddr {
    GuestPhysAddr::new(fields.read(fields::EXIT_GUEST_PHYSICAL))
}

/// SDM vol. 3C, table 28-5.
fn port_access(qualification: u64, len: u8) -> PortAccess {
    PortAccess {
        port: (qualification >> 16) as u16,
        size: (qualification & 7) as u8 + 1,
        write: qualification & 1 << 3 == 0,
        string: qualification & 1 << 4 != 0,
        len,
    }
}

/// With accessed and dirty bits on, a walk of the guest's tables is reported as a read and a write at once: the tables
/// have to be writable.
#[inline]
fn violation(raw: &Raw, fields: &impl Fields) -> Exit {
    let has = |bit: u64| raw.info & bit != 0;
    let access = if has(WRITE) {
        Access::Write
    } else if has(FETCH) {
        Access::Execute
    } else {
        Access::Read
    };
    Exit::Violation(Violation {
        addr: guest_physical(fields),
        access,
        linear: has(LINEAR_VALID).then(|| VirtAddr::new(fields.read(fields::EXIT_LINEAR))),
        walk: has(LINEAR_VALID) && !has(FINAL),
        present: has(ALLOWED),
        root: fields.root(),
        in_delivery: raw.more & u64::from(VALID) != 0,
    })
}

/// SDM vol. 3C, table 28-3.
const fn control_register(qualification: u64) -> &'static str {
    match (qualification >> 4 & 3, qualification & 15) {
        (0, 0) => "MOV to CR0",
        (0, 3) => "MOV to CR3",
        (0, 4) => "MOV to CR4",
        (0, 8) => "MOV to CR8",
        (1, 3) => "MOV from CR3",
        (1, 8) => "MOV from CR8",
        (2, _) => "CLTS",
        (3, _) => "LMSW",
        _ => "an access to a control register",
    }
}

/// The instruction that a basic exit reason stands for, where nobody emulates it.
const fn instruction(basic: u32) -> Option<&'static str> {
    Some(match basic {
        TASK_SWITCH => "a task switch",
        11 => "GETSEC",
        13 => "INVD",
        14 => "INVLPG",
        15 => "RDPMC",
        16 => "RDTSC",
        17 => "RSM",
        19 => "VMCLEAR",
        20 => "VMLAUNCH",
        21 => "VMPTRLD",
        22 => "VMPTRST",
        23 => "VMREAD",
        24 => "VMRESUME",
        25 => "VMWRITE",
        26 => "VMXOFF",
        27 => "VMXON",
        29 => "MOV DR",
        36 => "MWAIT",
        39 => "MONITOR",
        40 => "PAUSE",
        50 => "INVEPT",
        51 => "RDTSCP",
        53 => "INVVPID",
        54 => "WBINVD",
        55 => "XSETBV",
        58 => "INVPCID",
        59 => "VMFUNC",
        63 => "XSAVES",
        64 => "XRSTORS",
        _ => return None,
    })
}
