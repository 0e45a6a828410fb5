//! Into the guest and out of it.
//!
//! An entry takes from the VMCS what it holds; general registers are swapped here, what else it does not switch in
//! [`switched`](super::switched). Interrupts are off from before the VMCS is made current until the host's state is whole
//! again. Then they come on, and an interrupt that ended the run is delivered: it is still pending, because exits do not
//! acknowledge it. NMIs and machine checks are swallowed by the exit and raised again by INT.
//!
//! A field is written only when it changes, and read only when somebody wants it: each is an instruction, and the way in and
//! out is short for what happens all the time. What is rare stands out of line.
#![expect(unsafe_code, reason = "the entry itself")]

use core::arch::{asm, naked_asm};
use core::mem::offset_of;

use kernel::arch::{Machine, Tlb};
use x86_64::instructions::tables::lgdt;
use x86_64::registers::model_specific::FsBase;
use x86_64::registers::segmentation::{FS, Segment64};

use super::control::{Current, Vcpu};
use super::cr::written_to_cr4;
use super::detect::PRIMARY_INTERRUPT_WINDOW;
use super::exits::{self, CONTROL_REGISTER, ENTRY_FAILED, Fields, INTERRUPT_WINDOW, beside};
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

/// In place of an exit reason: the entry did not come as far as to an exit. No reason has all bits set.
const NONE: u32 = u32::MAX;

/// See [`Vendor::run`](crate::vendor::Vendor::run).
#[inline(always)]
pub fn run(vcpu: &mut Vcpu, registers: &mut Registers, flush: bool) -> Stopped {
    let mut current = vcpu.current();
    let reason = current.run_once(registers, flush);
    if exits::is_common(reason) {
        let stopped = exits::common(reason, &current);
        if exits::has_event(&stopped) {
            current.keep_event(reason);
        }
        return stopped;
    }
    current.uncommon(reason, registers)
}

/// See [`Vendor::inject`](crate::vendor::Vendor::inject).
pub fn inject(vcpu: &mut Vcpu, registers: &Registers, what: Injection) -> Injected {
    let current = vcpu.current();
    let open = current.takes_interrupts(registers);
    current.vcpu.attention = true;
    current.vcpu.events.inject(what, open)
}

impl Current<'_> {
    /// Whether the guest has interrupts on and is not in their shadow, which ends with the instruction that it is for.
    fn takes_interrupts(&self, registers: &Registers) -> bool {
        registers.rflags & INTERRUPTS != 0
            && (registers.rip != self.vcpu.held.rip || self.read(fields::INTERRUPTIBILITY) & SHADOW == 0)
    }

    /// Runs the guest until it stops, and says why: the exit reason, or [`NONE`].
    #[inline(always)]
    fn run_once(&mut self, registers: &mut Registers, flush: bool) -> u32 {
        if (flush || self.vcpu.attention) && !self.attend(registers, flush) {
            return NONE;
        }
        self.prepare_host();
        self.prepare_registers(registers);
        if !self.enter(registers) {
            return NONE;
        }
        let reason = self.read(fields::EXIT_REASON) as u32;
        if reason & ENTRY_FAILED == 0 {
            self.after_exit(registers);
        }
        reason
    }

    /// Does what is not to be done before each run: drops translations, and has events delivered. False: the vCPU's state cannot
    /// be loaded.
    #[cold]
    fn attend(&mut self, registers: &Registers, flush: bool) -> bool {
        if flush || self.vcpu.fresh {
            self.forget_tables();
        }
        if self.vcpu.stale {
            self.forget_linear();
        }
        (self.vcpu.fresh, self.vcpu.stale) = (false, false);
        self.prepare_events(registers);
        let possible = self.vcpu.switched.are_possible();
        self.vcpu.attention = !possible || self.vcpu.held.window || !self.vcpu.events.is_idle();
        possible
    }

    /// The host's fields that vary by task.
    #[inline]
    fn prepare_host(&mut self) {
        let cr3 = Machine::root().start().as_u64();
        let fs_base = match self.vcpu.host.has_base_instructions {
            true => FS::read_base(),
            false => FsBase::read(),
        }
        .as_u64();
        if self.vcpu.held.host_cr3 != cr3 {
            self.write(fields::HOST_CR3, cr3);
            self.vcpu.held.host_cr3 = cr3;
        }
        if self.vcpu.held.host_fs_base != fs_base {
            self.write(fields::HOST_FS_BASE, fs_base);
            self.vcpu.held.host_fs_base = fs_base;
        }
    }

    fn prepare_events(&mut self, registers: &Registers) {
        let open = self.takes_interrupts(registers);
        let (event, window) = self.vcpu.events.at_entry(open);
        // Written in any case: an entry that failed has left the last one there.
        self.write(fields::ENTRY_EVENT, event.map_or(0, |event| event.info.into()));
        if let Some(event) = event {
            self.write(fields::ENTRY_ERROR_CODE, event.code.into());
            self.write(fields::ENTRY_INSTRUCTION_LENGTH, event.len.into());
        }
        if self.vcpu.held.window != window {
            let primary = self.vcpu.controls.primary;
            let wanted = if window { PRIMARY_INTERRUPT_WINDOW } else { 0 };
            self.write(fields::PRIMARY_CONTROLS, (primary | wanted).into());
            self.vcpu.held.window = window;
        }
    }

    #[inline]
    fn prepare_registers(&mut self, registers: &Registers) {
        let Registers { rip, rsp, rflags, .. } = *registers;
        let held = self.vcpu.held;
        if rip != held.rip {
            if (rflags | held.rflags) & (INTERRUPTS | TRAP) != 0 {
                self.moved_on(rflags);
            }
            self.write(fields::GUEST_RIP, rip);
            self.vcpu.held.rip = rip;
        }
        if rsp != held.rsp {
            self.write(fields::GUEST_RSP, rsp);
            self.vcpu.held.rsp = rsp;
        }
        if rflags != held.rflags {
            self.write(fields::GUEST_RFLAGS, rflags);
            self.vcpu.held.rflags = rflags;
        }
    }

    /// An instruction was completed for the guest: the shadow that it may have been in is over, and if the guest steps, a step
    /// is done. (With interrupts off, and no steps, there is nothing that a shadow keeps away.)
    fn moved_on(&mut self, rflags: u64) {
        let interruptibility = self.read(fields::INTERRUPTIBILITY);
        if interruptibility & SHADOW != 0 {
            self.write(fields::INTERRUPTIBILITY, interruptibility & !SHADOW);
        }
        if rflags & TRAP != 0 {
            self.write(fields::PENDING_DEBUG, SINGLE_STEP);
        }
    }

    /// Enters the guest and comes back with its exit. False: it came to neither, because the CPU does not take the control
    /// fields.
    #[inline]
    fn enter(&mut self, registers: &mut Registers) -> bool {
        let Vcpu {
            switched,
            host,
            held,
            launched,
            ..
        } = &mut *self.vcpu;
        // SAFETY: interrupts are off until they are swapped again.
        let own_base = unsafe { switched.swap_in() };
        // SAFETY: the VMCS is current; its host state is this CPU's and this task's, and leads back into `enter` with the
        // stack as it is. What the guest can reach is what its stage-2 tables map.
        let entered = unsafe { enter(registers, &raw mut held.host_rsp, *launched) };
        // SAFETY: the table is the one that this CPU had before; the registers are swapped with what they were.
        unsafe {
            lgdt(&host.gdtr);
            switched.swap_out(&host.syscall, own_base);
        }
        entered
    }

    /// Takes over what the exit has saved.
    #[inline]
    fn after_exit(&mut self, registers: &mut Registers) {
        registers.rip = self.read(fields::GUEST_RIP);
        registers.rsp = self.read(fields::GUEST_RSP);
        registers.rflags = self.read(fields::GUEST_RFLAGS);
        let held = &mut self.vcpu.held;
        (held.rip, held.rsp, held.rflags) = (registers.rip, registers.rsp, registers.rflags);
        self.vcpu.launched = true;
        self.vcpu.events.delivered();
    }

    /// What the exit was, and what has to be done about it. The guest goes on where that is nobody else's business.
    #[inline(never)]
    fn uncommon(mut self, mut reason: u32, registers: &mut Registers) -> Stopped {
        loop {
            if reason == NONE {
                return self.refused();
            }
            let stopped = exits::decode(reason, &self);
            if exits::has_event(&stopped) {
                self.keep_event(reason);
            }
            if !self.goes_on(&stopped, registers) {
                return stopped;
            }
            reason = self.run_once(registers, false);
        }
    }

    /// Whether the guest goes on, because the exit is nobody else's business: a window that opened for an interrupt which waited
    /// here, or a write of CR4 that it may make.
    fn goes_on(&mut self, stopped: &Stopped, registers: &mut Registers) -> bool {
        match stopped.raw.code as u32 {
            INTERRUPT_WINDOW => {
                self.vcpu.attention = true;
                !self.vcpu.events.opened()
            }
            CONTROL_REGISTER => {
                let done = written_to_cr4(stopped.raw.info, registers).is_some_and(|new| self.write_cr4(new));
                if done {
                    registers.rip += self.read(fields::EXIT_INSTRUCTION_LENGTH);
                }
                done
            }
            _ => false,
        }
    }

    /// Keeps an event that the exit has cut short, or has only come by; and raises again what was the host's.
    #[cold]
    fn keep_event(&mut self, reason: u32) {
        let beside = beside(reason, self);
        self.vcpu.attention = true;
        if let Some(event) = beside.cut_short {
            self.vcpu.events.deliver_again(event);
        }
        if let Some(exception) = beside.exception {
            self.vcpu.events.put_first(exception);
        }
        if let Some(vector) = beside.host_vector {
            raise(vector);
        }
    }

    /// An entry that did not take place.
    fn refused(&self) -> Stopped {
        let error = match self.vcpu.switched.are_possible() {
            true => self.read(fields::INSTRUCTION_ERROR),
            false => 0,
        };
        Stopped {
            exit: Exit::EntryRefused,
            raw: Raw {
                code: VM_FAIL,
                info: error,
                more: 0,
            },
        }
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
