//! Into the guest and out of it.
//!
//! An entry takes from the VMCS what it holds; general registers, CR2 and the MSRs of SYSCALL and SWAPGS are swapped here.
//! Interrupts are off from before the VMCS is made current until the host's state is whole again. Then they come on, and an
//! interrupt that ended the run is delivered: it is still pending, because exits do not acknowledge it. NMIs and machine
//! checks are swallowed by the exit and raised again by INT.
#![expect(
    unsafe_code,
    reason = "the entry itself, and registers that it does not switch"
)]

use core::arch::{asm, naked_asm};
use core::mem::offset_of;

use kernel::arch::{Machine, Tlb};
use x86_64::instructions::tables::{lgdt, lidt};
use x86_64::registers::control::Cr2;
use x86_64::registers::model_specific::{FsBase, Msr};

use super::control::{Current, Host, Switched, Vcpu};
use super::detect::PRIMARY_INTERRUPT_WINDOW;
use super::exits::{Fields, INTERRUPT_WINDOW, decode};
use super::fields;
use super::state::SHADOW;
use crate::exit::{Exit, Raw, Stopped};
use crate::state::{Injection, Registers};
use crate::vendor::Injected;

/// RFLAGS.
const TRAP: u64 = 1 << 8;
const INTERRUPTS: u64 = 1 << 9;
/// Pending debug exceptions: a single step is due.
const SINGLE_STEP: u64 = 1 << 14;

/// [`Raw::code`] of an entry that did not come as far as an exit: VMfail. The VM-instruction error is in [`Raw::info`].
pub const VM_FAIL: u64 = u64::MAX;

/// See [`Vendor::run`](crate::vendor::Vendor::run).
pub fn run(vcpu: &mut Vcpu, registers: &mut Registers, mut flush: bool) -> Stopped {
    loop {
        let mut current = vcpu.current();
        current.prepare(registers, flush);
        flush = false;
        if let Err(stopped) = current.enter(registers) {
            return stopped;
        }
        let reason = current.read(fields::EXIT_REASON) as u32;
        let decoded = decode(reason, &current);
        if decoded.stopped.exit == Exit::EntryRefused {
            return decoded.stopped;
        }
        current.after_exit(registers);
        let vcpu = &mut *current.vcpu;
        vcpu.events.after_exit(decoded.cut_short);
        if let Some(exception) = decoded.exception {
            vcpu.events.put_first(exception);
        }
        if let Some(vector) = decoded.host_vector {
            raise(vector);
        }
        // A window that opened for an interrupt which waited here is nobody else's business.
        if reason != INTERRUPT_WINDOW || vcpu.events.opened() {
            return decoded.stopped;
        }
    }
}

/// See [`Vendor::inject`](crate::vendor::Vendor::inject).
pub fn inject(vcpu: &mut Vcpu, registers: &Registers, what: Injection) -> Injected {
    let current = vcpu.current();
    let open = current.takes_interrupts(registers);
    current.vcpu.events.inject(what, open)
}

impl Current<'_> {
    /// Whether the guest has interrupts on and is not in their shadow, which ends with the instruction that it is for.
    fn takes_interrupts(&self, registers: &Registers) -> bool {
        registers.rflags & INTERRUPTS != 0
            && (registers.rip != self.vcpu.held.rip || self.read(fields::INTERRUPTIBILITY) & SHADOW == 0)
    }

    /// Brings the VMCS up to date.
    fn prepare(&mut self, registers: &Registers, flush: bool) {
        if flush || self.vcpu.fresh {
            self.forget_tables();
            self.vcpu.fresh = false;
        }
        if self.vcpu.stale {
            self.forget_linear();
            self.vcpu.stale = false;
        }
        self.prepare_host();
        let open = self.takes_interrupts(registers);
        if registers.rip != self.vcpu.held.rip {
            self.moved_on(registers);
        }
        self.prepare_registers(registers);
        self.prepare_events(open);
    }

    /// The host's fields that vary by task.
    fn prepare_host(&mut self) {
        let (cr3, fs_base) = (Machine::root().start().as_u64(), FsBase::read().as_u64());
        if self.vcpu.held.host_cr3 != cr3 {
            self.write(fields::HOST_CR3, cr3);
            self.vcpu.held.host_cr3 = cr3;
        }
        if self.vcpu.held.host_fs_base != fs_base {
            self.write(fields::HOST_FS_BASE, fs_base);
            self.vcpu.held.host_fs_base = fs_base;
        }
    }

    /// An instruction was completed for the guest: the shadow that it may have been in is over, and if the guest steps, a step
    /// is done.
    fn moved_on(&mut self, registers: &Registers) {
        let interruptibility = self.read(fields::INTERRUPTIBILITY);
        if interruptibility & SHADOW != 0 {
            self.write(fields::INTERRUPTIBILITY, interruptibility & !SHADOW);
        }
        if registers.rflags & TRAP != 0 {
            self.write(fields::PENDING_DEBUG, SINGLE_STEP);
        }
    }

    fn prepare_registers(&mut self, registers: &Registers) {
        let Registers { rip, rsp, rflags, .. } = *registers;
        let held = self.vcpu.held;
        for (field, value, held) in [
            (fields::GUEST_RIP, rip, held.rip),
            (fields::GUEST_RSP, rsp, held.rsp),
            (fields::GUEST_RFLAGS, rflags, held.rflags),
        ] {
            if value != held {
                self.write(field, value);
            }
        }
        let held = &mut self.vcpu.held;
        (held.rip, held.rsp, held.rflags) = (rip, rsp, rflags);
    }

    fn prepare_events(&mut self, open: bool) {
        let (event, window) = self.vcpu.events.at_entry(open);
        if let Some(event) = event {
            self.write(fields::ENTRY_EVENT, event.info.into());
            self.write(fields::ENTRY_ERROR_CODE, event.code.into());
            self.write(fields::ENTRY_INSTRUCTION_LENGTH, event.len.into());
        }
        let primary = match window {
            true => self.vcpu.controls.primary | PRIMARY_INTERRUPT_WINDOW,
            false => self.vcpu.controls.primary,
        };
        if self.vcpu.held.primary != primary {
            self.write(fields::PRIMARY_CONTROLS, primary.into());
            self.vcpu.held.primary = primary;
        }
    }

    /// Enters the guest and comes back with its exit; or not at all, and then says why.
    fn enter(&mut self, registers: &mut Registers) -> Result<(), Stopped> {
        if !self.vcpu.switched.is_loadable() {
            return Err(refused(0));
        }
        let host = self.vcpu.host.expect("it is current on this CPU");
        let own = host_switched(&host);
        let guest = self.vcpu.switched;
        // SAFETY: the host does not use these registers until they are its own again, below; the values can be loaded.
        unsafe { swap(&own, &guest) };
        let (host_rsp, launched) = (&raw mut self.vcpu.held.host_rsp, self.vcpu.launched);
        // SAFETY: the VMCS is current; its host state is this CPU's and this task's, and leads back into `enter` with the
        // stack as it is. What the guest can reach is what its stage-2 tables map.
        let entered = unsafe { enter(registers, host_rsp, launched) };
        // SAFETY: the tables are those that this CPU had before.
        unsafe {
            lgdt(&host.gdtr);
            lidt(&host.idtr);
        }
        let guest = Switched {
            kernel_gs_base: read_msr(KERNEL_GS_BASE),
            cr2: Cr2::read_raw(),
            ..guest
        };
        self.vcpu.switched = guest;
        // SAFETY: the host's own values.
        unsafe {
            swap(
                &guest,
                &Switched {
                    cr2: guest.cr2,
                    ..own
                },
            )
        };
        match entered {
            true => Ok(()),
            false => Err(refused(self.read(fields::INSTRUCTION_ERROR))),
        }
    }

    /// Takes over what the exit has saved.
    fn after_exit(&mut self, registers: &mut Registers) {
        registers.rip = self.read(fields::GUEST_RIP);
        registers.rsp = self.read(fields::GUEST_RSP);
        registers.rflags = self.read(fields::GUEST_RFLAGS);
        let held = &mut self.vcpu.held;
        (held.rip, held.rsp, held.rflags) = (registers.rip, registers.rsp, registers.rflags);
        self.vcpu.launched = true;
    }
}

/// An entry that did not take place.
const fn refused(error: u64) -> Stopped {
    Stopped {
        exit: Exit::EntryRefused,
        raw: Raw {
            code: VM_FAIL,
            info: error,
            more: 0,
        },
    }
}

const KERNEL_GS_BASE: u32 = 0xc000_0102;

fn read_msr(number: u32) -> u64 {
    // SAFETY: asked for registers only that every CPU in long mode has.
    unsafe { Msr::new(number).read() }
}

/// The host's values. Those of SYSCALL do not change; the GS base of user mode does, with the task.
fn host_switched(host: &Host) -> Switched {
    let [star, lstar, cstar, sfmask] = host.syscall;
    Switched {
        star,
        lstar,
        cstar,
        sfmask,
        kernel_gs_base: read_msr(KERNEL_GS_BASE),
        cr2: Cr2::read_raw(),
        dr6: 0,
    }
}

/// Loads the registers that differ. DR6 is nobody's: accesses to it exit.
///
/// # Safety
/// Nothing relies on the registers' values until they are what they were, and `to` [can be loaded](Switched::is_loadable).
unsafe fn swap(from: &Switched, to: &Switched) {
    let pairs = [
        (0xc000_0081, from.star, to.star),
        (0xc000_0082, from.lstar, to.lstar),
        (0xc000_0083, from.cstar, to.cstar),
        (0xc000_0084, from.sfmask, to.sfmask),
        (KERNEL_GS_BASE, from.kernel_gs_base, to.kernel_gs_base),
    ];
    for (number, old, new) in pairs {
        if old != new {
            // SAFETY: the caller's contract.
            unsafe { Msr::new(number).write(new) };
        }
    }
    if from.cr2 != to.cr2 {
        // SAFETY: the host reads CR2 only right after a page fault, and there is none in between.
        unsafe { asm!("mov cr2, {}", in(reg) to.cr2, options(nomem, nostack, preserves_flags)) };
    }
}

/// Raises an NMI or a machine check that an exit has swallowed. Its handler does not return.
fn raise(vector: u8) {
    // SAFETY: the gates of both lead to the kernel's handlers, by the stubs of vectors without an error code.
    unsafe {
        match vector {
            2 => asm!("int 2"),
            _ => asm!("int 18"),
        }
    }
}

/// VMLAUNCH or VMRESUME with the guest's general registers; true when it came to an exit, or to an entry failure that looks
/// like one. `host_rsp` is what HOST_RSP holds. When the stack is another one, it is brought up to date, and HOST_RIP, which
/// is always the same, with it: so that is written the first time.
///
/// # Safety
/// The current VMCS is a vCPU's, prepared for this CPU and task; interrupts are off; `registers` are that vCPU's.
#[unsafe(naked)]
unsafe extern "C" fn enter(registers: *mut Registers, host_rsp: *mut u64, launched: bool) -> bool {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push rdi",
        "cmp rsp, [rsi]",
        "je 2f",
        "mov [rsi], rsp",
        "mov eax, {HOST_RSP}",
        "vmwrite rax, rsp",
        "mov eax, {HOST_RIP}",
        "lea rcx, [rip + 4f]",
        "vmwrite rax, rcx",
        "2:",
        // Loads leave the flags alone.
        "test dl, dl",
        "mov rax, [rdi + {RAX}]",
        "mov rbx, [rdi + {RBX}]",
        "mov rcx, [rdi + {RCX}]",
        "mov rdx, [rdi + {RDX}]",
        "mov rsi, [rdi + {RSI}]",
        "mov rbp, [rdi + {RBP}]",
        "mov r8, [rdi + {R8}]",
        "mov r9, [rdi + {R9}]",
        "mov r10, [rdi + {R10}]",
        "mov r11, [rdi + {R11}]",
        "mov r12, [rdi + {R12}]",
        "mov r13, [rdi + {R13}]",
        "mov r14, [rdi + {R14}]",
        "mov r15, [rdi + {R15}]",
        "mov rdi, [rdi + {RDI}]",
        "jnz 3f",
        "vmlaunch",
        "jmp 5f",
        "3:",
        "vmresume",
        // VMfail: the registers are the guest's still, and nobody wants them.
        "5:",
        "pop rdi",
        "xor eax, eax",
        "jmp 6f",
        // An exit: the stack pointer is HOST_RSP.
        "4:",
        "push rdi",
        "mov rdi, [rsp + 8]",
        "mov [rdi + {RAX}], rax",
        "mov [rdi + {RBX}], rbx",
        "mov [rdi + {RCX}], rcx",
        "mov [rdi + {RDX}], rdx",
        "mov [rdi + {RSI}], rsi",
        "mov [rdi + {RBP}], rbp",
        "mov [rdi + {R8}], r8",
        "mov [rdi + {R9}], r9",
        "mov [rdi + {R10}], r10",
        "mov [rdi + {R11}], r11",
        "mov [rdi + {R12}], r12",
        "mov [rdi + {R13}], r13",
        "mov [rdi + {R14}], r14",
        "mov [rdi + {R15}], r15",
        "pop qword ptr [rdi + {RDI}]",
        "pop rdi",
        "mov eax, 1",
        "6:",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
        HOST_RSP = const fields::HOST_RSP.0,
        HOST_RIP = const fields::HOST_RIP.0,
        RAX = const offset_of!(Registers, rax),
        RBX = const offset_of!(Registers, rbx),
        RCX = const offset_of!(Registers, rcx),
        RDX = const offset_of!(Registers, rdx),
        RSI = const offset_of!(Registers, rsi),
        RDI = const offset_of!(Registers, rdi),
        RBP = const offset_of!(Registers, rbp),
        R8 = const offset_of!(Registers, r8),
        R9 = const offset_of!(Registers, r9),
        R10 = const offset_of!(Registers, r10),
        R11 = const offset_of!(Registers, r11),
        R12 = const offset_of!(Registers, r12),
        R13 = const offset_of!(Registers, r13),
        R14 = const offset_of!(Registers, r14),
        R15 = const offset_of!(Registers, r15),
    )
}
