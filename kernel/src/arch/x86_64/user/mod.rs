//! User mode.
//!
//! ```text
//!   run ──► user_run ──► user mode ──► exception, interrupt ──► back in run ──► Exit
//!                          ▲   ├─ SYSCALL ────► answer ──┬─► did not ──┘
//!                          │   └─ page fault ─► resolve ─┤
//!                          └─────────────────────────────┘
//! ```
//!
//! The kernel runs user mode like a function: a task's loop calls [`run`], looks at the [`Exit`], does what it is about and
//! calls it again. The registers are in a structure of the loop's, so whoever may change them (a signal, exec, fork) does it
//! between two runs.
//!
//! Most system calls need no register but those of their arguments, and most page faults none. They are answered and resolved by
//! functions that [`run`] is given, and user mode goes on with the registers that Rust code preserves never saved.
//!
//! | file | what |
//! | --- | --- |
//! | `entry.s` | the ways in and out |
//! | [`fpu`] | x87, SSE and AVX registers |
#![expect(unsafe_code, reason = "enters user mode; MSRs")]

use alloc::boxed::Box;
use core::arch::global_asm;
use core::ffi::c_void;
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, Ordering};
use core::{fmt, ptr};

use x86_64::VirtAddr as X86Addr;
use x86_64::registers::control::{Efer, EferFlags};
use x86_64::registers::model_specific::{FsBase, KernelGsBase, LStar, Msr, SFMask};
use x86_64::registers::rflags::RFlags;

use super::exception::GENERAL_PROTECTION;
use super::{Machine, interrupt, page_fault, percpu};
use crate::arch::fault_code::PageFaultCode;
use crate::arch::user::{Exit, FpuFormat, Registers, Request, SYSCALL};
use crate::arch::{Cpu, Irq};
use crate::mm::addr::VirtAddr;
use crate::mm::fault::{FaultInfo, Origin};

pub mod fpu;

use fpu::Fpu;

global_asm!(
    ".set KERNEL_STACK, {kernel_stack}",
    ".set REGISTERS_END, {registers_end}",
    ".set USER_STACK_POINTER, {user_stack_pointer}",
    ".set ENTRY_STACK, {entry_stack}",
    include_str!("../entry.s"),
    include_str!("entry.s"),
    kernel_stack = const percpu::KERNEL_STACK,
    registers_end = const percpu::REGISTERS_END,
    user_stack_pointer = const percpu::USER_STACK_POINTER,
    entry_stack = const percpu::ENTRY_STACK,
    options(att_syntax)
);

unsafe extern "C" {
    /// Enters user mode; returns when it is left. At a system call `call` is called with `argument` and what
    /// [`percpu::set_user_stacks`] has to be told before user mode goes on, which it does if `call` says so; `fault` likewise at a
    /// page fault (entry.s).
    fn user_run(
        registers: *mut Registers,
        call: unsafe extern "C" fn(*mut c_void, u64) -> bool,
        fault: unsafe extern "C" fn(*mut c_void, u64) -> bool,
        argument: *mut c_void,
    );
    /// Where SYSCALL leads (entry.s).
    static syscall_entry: u8;
}

/// IA32_STAR.
const STAR: Msr = Msr::new(0xc000_0081);
/// Segments of SYSCALL (kernel code, then data) and of SYSRET (16 below user code, 8 below user data).
const SEGMENTS: u64 = 0x08 << 32 | 0x13 << 48;

/// Switches SYSCALL on for this CPU.
pub(super) fn enable() {
    let mut star = STAR;
    // SAFETY: the selectors are those of `tables`, and the entry is code of ours that expects to be entered so.
    unsafe {
        star.write(SEGMENTS);
        LStar::write(X86Addr::from_ptr(&raw const syscall_entry));
        // Interrupts, direction, single steps, alignment checks (SMAP), nested tasks.
        SFMask::write(RFlags::from_bits_retain(0x4_7700));
        Efer::update(|efer| efer.insert(EferFlags::SYSTEM_CALL_EXTENSIONS));
    }
    fpu::enable();
}

/// What user mode has beside its general registers. At a fixed address: the CPU that has it loaded remembers that.
pub struct Extra {
    fpu: Fpu,
    fs_base: u64,
    gs_base: u64,
}

/// What a CPU holds ([`percpu::loaded`]) is the address of an [`Extra`], this, or a number with the bit [`CLAIMED`].
const NOBODY: u64 = 0;
/// Clear in addresses.
const CLAIMED: u64 = 1;

impl Extra {
    /// A new program's.
    pub fn new() -> Box<Self> {
        Box::new(Self {
            fpu: Fpu::new(),
            fs_base: 0,
            gs_base: 0,
        })
    }

    /// The same for another thread.
    #[must_use]
    pub fn duplicate(&mut self) -> Box<Self> {
        self.unload();
        Box::new(Self {
            fpu: self.fpu.duplicate(),
            fs_base: self.fs_base,
            gs_base: self.gs_base,
        })
    }

    /// FS's base.
    pub fn fs_base(&self) -> u64 {
        self.fs_base
    }

    /// GS's base.
    pub fn gs_base(&self) -> u64 {
        self.gs_base
    }

    /// Sets FS's base to an address of user mode.
    pub fn set_fs_base(&mut self, base: VirtAddr) {
        self.unload();
        self.fs_base = base.as_u64();
    }

    /// Sets GS's base to an address of user mode.
    pub fn set_gs_base(&mut self, base: VirtAddr) {
        self.unload();
        self.gs_base = base.as_u64();
    }

    /// How x87, SSE and AVX registers are saved.
    pub fn fpu_format() -> FpuFormat {
        fpu::format()
    }

    /// The x87, SSE and AVX registers, as a signal's frame has them: what FXSAVE writes, or what XSAVE does, labelled.
    pub fn fpu_area(&mut self) -> &[u8] {
        self.unload();
        self.fpu.labelled()
    }

    /// Writes the same to the current task's memory, if the CPU holds the registers and the memory is there, and says whether they
    /// are. Else nobody is asked, and what is there is undefined.
    pub fn save_fpu_at_once(&mut self, at: VirtAddr) -> bool {
        self.while_loaded(|_| fpu::save_to_frame(at)).unwrap_or(false)
    }

    /// Sets those of `components` from an area of which `read` reads the bytes from an offset on, and resets the others; without
    /// `components`, from what FXSAVE writes. If it cannot read them, or the CPU would not load them, all are reset, and the
    /// answer is false.
    pub fn set_fpu_area(
        &mut self,
        components: Option<u64>,
        read: impl FnMut(usize, &mut [u8]) -> bool,
    ) -> bool {
        self.unload();
        self.fpu.set(components, read)
    }

    /// Sets all components from an area in the current task's memory, if the CPU holds the registers, the memory is there and the
    /// CPU takes it, and says whether so. Else nobody is asked, and they are undefined.
    pub fn load_fpu_at_once(&mut self, at: VirtAddr) -> bool {
        self.while_loaded(|_| fpu::load_from_frame(at)).unwrap_or(false)
    }

    /// Sets them as a program finds them.
    pub fn reset_fpu(&mut self) {
        self.fpu.reset();
        self.while_loaded(|fpu| fpu.load());
    }

    fn word(&self) -> u64 {
        ptr::from_ref(self).expose_provenance() as u64
    }

    /// Has what the CPU holds of this saved; it is loaded again before user mode runs.
    fn unload(&mut self) {
        self.while_loaded(|fpu| {
            fpu.save();
            percpu::set_loaded(NOBODY);
        });
    }

    /// Does `work` if the CPU holds this, and goes on doing so meanwhile: with preemption off.
    #[inline]
    fn while_loaded<R>(&mut self, work: impl FnOnce(&mut Fpu) -> R) -> Option<R> {
        Machine::preempt_disable();
        let is_loaded = percpu::loaded() == self.word();
        let result = is_loaded.then(|| work(&mut self.fpu));
        Machine::preempt_enable();
        result
    }

    /// Has this CPU hold it; says whether it did not. If it did, nobody else's user mode has run here since. Interrupts are off.
    #[inline]
    fn load(&mut self) -> bool {
        let last = percpu::loaded();
        let is_new = last != self.word();
        if is_new {
            self.replace(last);
        }
        is_new
    }

    #[inline(never)]
    fn replace(&mut self, last: u64) {
        if !is_extra(last) {
            return self.replace_other(last);
        }
        percpu::set_loaded(self.word());
        // SAFETY: an `Extra` that a CPU has loaded has not been dropped (its drop unloads it), and its task does not run: this
        // one does. It is another than this one (`load`).
        let last = unsafe { &mut *(last as *mut Extra) };
        self.fpu.exchange(&mut last.fpu);
        // What is loaded changes behind an `unload` only. Threads have an FS base each, and hardly ever one of GS.
        if self.fs_base != last.fs_base {
            FsBase::write(X86Addr::new_truncate(self.fs_base));
        }
        if self.gs_base != last.gs_base {
            KernelGsBase::write(X86Addr::new_truncate(self.gs_base));
        }
    }

    /// [`Self::replace`] where the CPU does not hold another thread's.
    #[cold]
    #[inline(never)]
    fn replace_other(&mut self, last: u64) {
        evict(last, self.word());
        self.fpu.load();
        FsBase::write(X86Addr::new_truncate(self.fs_base));
        KernelGsBase::write(X86Addr::new_truncate(self.gs_base));
    }
}

impl Drop for Extra {
    fn drop(&mut self) {
        self.unload();
    }
}

impl fmt::Debug for Extra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extra")
            .field("fs_base", &self.fs_base)
            .field("gs_base", &self.gs_base)
            .finish_non_exhaustive()
    }
}

/// Takes this CPU's x87 and vector registers for somebody who saves what he leaves there, under a number of his. Says whether
/// they still hold what he left; if not, whoever's they were has them saved. Preemption is off for as long as he uses them.
#[inline]
pub fn claim_fpu(number: u64) -> bool {
    let claim = number << 1 | CLAIMED;
    let last = percpu::loaded();
    if last == claim {
        return true;
    }
    evict(last, claim);
    false
}

/// Whether what a CPU holds is an [`Extra`].
#[inline]
fn is_extra(word: u64) -> bool {
    word != NOBODY && word & CLAIMED == 0
}

/// Notes that the CPU holds `next` from now on, and has `last`, which it held, saved. No task can come in between.
#[inline(never)]
fn evict(last: u64, next: u64) {
    percpu::set_loaded(next);
    if is_extra(last) {
        // SAFETY: as in `Extra::replace`.
        unsafe { &mut *(last as *mut Extra) }.fpu.save();
    }
    let is_claimed = |word: u64| word & CLAIMED != 0;
    match (is_claimed(last), is_claimed(next)) {
        (false, true) => fpu::narrow(),
        (true, false) => fpu::widen(),
        _ => {}
    }
}

/// The vector of a page fault.
const PAGE_FAULT: u64 = 14;

/// TF and RF: SYSRET drops RF, and there are CPUs that single-step it while the stack pointer is user mode's already.
const NOT_BY_SYSRET: u64 = 1 << 8 | 1 << 16;

/// What system calls and page faults need while user mode has its turn.
struct Turn<'a, A, F> {
    registers: *mut Registers,
    extra: *mut Extra,
    notice: &'a AtomicBool,
    answer: &'a mut A,
    resolve: &'a mut F,
    /// The last call was answered, or the last fault resolved.
    answered: bool,
}

/// Where the request of a system call stands in the registers.
const REQUEST: usize = offset_of!(Registers, rax);
const _: () = assert!(
    offset_of!(Request, number) == 0
        && offset_of!(Registers, rdi) == REQUEST + offset_of!(Request, args)
        && offset_of!(Registers, rsi) == offset_of!(Registers, rdi) + 8
        && offset_of!(Registers, rdx) == offset_of!(Registers, rdi) + 16
        && offset_of!(Registers, r10) == offset_of!(Registers, rdi) + 24
        && offset_of!(Registers, r8) == offset_of!(Registers, rdi) + 32
        && offset_of!(Registers, r9) == offset_of!(Registers, rdi) + 40
);

impl<A: FnMut(&Request) -> Option<u64>, F: FnMut(&FaultInfo, &mut Registers) -> bool> Turn<'_, A, F> {
    /// User mode makes a system call; interrupts are off, and are so again afterwards. Says whether user mode goes on, by SYSRET.
    ///
    /// # Safety
    /// `turn` is the one of the [`run`] that waits for user mode on this stack, and `stack` where entry code has it.
    unsafe extern "C" fn system_call(turn: *mut c_void, stack: u64) -> bool {
        // SAFETY: the caller's; `run` does not use it meanwhile.
        let turn = unsafe { &mut *turn.cast::<Self>() };
        // SAFETY: `run` has borrowed the registers, and does not use them meanwhile; a request stands in them, as asserted above.
        let request = unsafe { &*turn.registers.byte_add(REQUEST).cast::<Request>() };
        Machine::enable();
        let answer = (turn.answer)(request);
        x86_64::instructions::interrupts::disable();
        turn.answered = answer.is_some();
        let Some(value) = answer else { return false };
        // SAFETY: as above; the request is done with.
        let registers = unsafe { &mut *turn.registers };
        registers.rax = value;
        // RIP is canonical: it follows an instruction below `USER_TOP`, which is a page below the end of its half.
        registers.rflags & NOT_BY_SYSRET == 0 && turn.goes_on(stack)
    }

    /// User mode faults on a page, as [`Self::system_call`]. It goes on by IRET.
    ///
    /// # Safety
    /// As there.
    unsafe extern "C" fn page_fault(turn: *mut c_void, stack: u64) -> bool {
        // SAFETY: the caller's; `run` does not use it meanwhile.
        let turn = unsafe { &mut *turn.cast::<Self>() };
        // SAFETY: `run` has borrowed the registers, and does not use them meanwhile.
        let registers = unsafe { &mut *turn.registers };
        let Some(info) = fault_of_user(registers) else {
            turn.answered = false;
            return false;
        };
        Machine::enable();
        let resolved = (turn.resolve)(&info, registers);
        x86_64::instructions::interrupts::disable();
        turn.answered = resolved;
        if !resolved {
            page_fault::set_cr2(info.addr);
            return false;
        }
        turn.goes_on(stack)
    }

    /// Whether user mode can go on; then everything is as it left it. Interrupts are off.
    #[inline(always)]
    fn goes_on(&mut self, stack: u64) -> bool {
        if self.notice.load(Ordering::Acquire) {
            return false;
        }
        // SAFETY: `run` has borrowed it, and does not use it meanwhile.
        let extra = unsafe { &mut *self.extra };
        if extra.load() {
            percpu::set_user_stacks(stack, self.registers.wrapping_add(1));
        }
        true
    }
}

/// Runs user mode until something happens, in the current task's address space, with interrupts on and no lock held. System
/// calls that `answer` gives a value for do not count, nor do page faults that `resolve` says it has resolved. They are called
/// with interrupts on and see only the request, or the fault: of the registers, those that Rust code preserves are not there then.
///
/// Whoever sets `notice` has user mode not entered any more, at the latest from the next interrupt on.
#[inline]
pub fn run<A: FnMut(&Request) -> Option<u64>, F: FnMut(&FaultInfo, &mut Registers) -> bool>(
    registers: &mut Registers,
    extra: &mut Extra,
    notice: &AtomicBool,
    mut answer: A,
    mut resolve: F,
) -> Exit {
    let flags = Machine::disable();
    let exit = loop {
        if notice.load(Ordering::Acquire) {
            break Exit::Notice;
        }
        extra.load();
        if registers.rflags & NOT_BY_SYSRET != 0 {
            registers.vector = 0;
        }
        let mut turn = Turn {
            registers,
            extra,
            notice,
            answer: &mut answer,
            resolve: &mut resolve,
            answered: false,
        };
        let (call, fault) = (Turn::<A, F>::system_call, Turn::<A, F>::page_fault);
        // SAFETY: the segments and flags are user mode's (`Registers::start` and `restore_all` are the only ways to make them),
        // RIP is one that user mode had or that was checked, and the structure stays where it is: it is what the CPU writes to.
        // The argument is the turn of this run.
        unsafe { user_run(turn.registers, call, fault, (&raw mut turn).cast()) };
        match (registers.vector, turn.answered) {
            (SYSCALL | PAGE_FAULT, true) => {}
            _ => break left(registers),
        }
    };
    Machine::restore(flags);
    exit
}

/// The page fault that user mode was left with; `None` for an access that the CPU made as the kernel for an instruction of user
/// mode: QEMU's IRET pops like that.
#[inline(always)]
fn fault_of_user(registers: &Registers) -> Option<FaultInfo> {
    let code = PageFaultCode::from_bits_retain(registers.error);
    code.contains(PageFaultCode::USER).then(|| FaultInfo {
        addr: page_fault::cr2(),
        access: code.access(),
        origin: Origin::Task,
    })
}

/// Why user mode was left, with these registers.
#[inline]
fn left(registers: &Registers) -> Exit {
    match registers.vector {
        SYSCALL => Exit::Syscall,
        PAGE_FAULT => match fault_of_user(registers) {
            Some(info) => Exit::PageFault(info),
            // Memory cannot be made to allow it.
            None => Exit::Exception {
                vector: GENERAL_PROTECTION,
                error: 0,
            },
        },
        vector @ 32..SYSCALL => {
            interrupt::of_task(vector as u8);
            Exit::Interrupt
        }
        vector => Exit::Exception {
            vector: vector as u8,
            error: registers.error,
        },
    }
}

/// What programs are told that the CPU can do (`AT_HWCAP`: EDX of CPUID's leaf 1).
pub fn user_capabilities() -> u64 {
    core::arch::x86_64::__cpuid(1).edx.into()
}
