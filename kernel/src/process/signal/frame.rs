//! What a handler finds on its stack (`struct rt_sigframe` of `asm/sigframe.h`), and what `rt_sigreturn` makes of it.
//!
//! ```text
//!   high   x87, SSE and AVX registers as XSAVE writes them, and a magic word behind; aligned to 64
//!          siginfo
//!          ucontext: flags, alternate stack, sigcontext (general registers), blocked signals
//!   low    where the handler returns to                                 ◄── RSP, as if the handler had been called
//! ```
//!
//! The registers on top go straight between the CPU and the task's memory where it has them loaded and the memory is there, as
//! they mostly do; else by a copy of them.
//!
//! What comes back is an allegation: segments and flags are put right, a frame with registers that XRSTOR would not take is none,
//! and an address that is not canonical is found before user mode is entered (`run`).

use alloc::sync::Arc;
use core::mem::MaybeUninit;

use super::{Action, AltStack, SignalSet};
use crate::abi::errno::Errno;
use crate::abi::signal::{SA_ONSTACK, SA_RESTORER, SIGINFO_SIZE, SS_AUTODISARM, STACK_SIZE, SigInfo};
use crate::arch::Extra;
use crate::arch::user::{FP_XSTATE_MAGIC2, LABEL, Registers, USER_CODE, USER_STACK};
use crate::mm::addr::VirtAddr;
use crate::mm::uaccess::{self, on_behalf};
use crate::process::Thread;

/// Bytes below the stack pointer that belong to a function.
const RED_ZONE: u64 = 128;
/// Where the parts are.
const UCONTEXT: usize = 8;
const SIGCONTEXT: usize = UCONTEXT + 16 + STACK_SIZE;
const MASK: usize = SIGCONTEXT + 256;
const SIGINFO: usize = MASK + 8;
/// Bytes of all but the registers on top.
pub const FRAME_SIZE: usize = SIGINFO + SIGINFO_SIZE;

const _: () = assert!(FRAME_SIZE == 440);

/// `uc_flags`: there is extended state, SS is in the frame, and is to be put back.
const UC_FP_XSTATE: u64 = 1;
const UC_SIGCONTEXT_SS: u64 = 2;
const UC_STRICT_RESTORE_SS: u64 = 4;

/// RFLAGS that a handler begins without: DF, RF, TF.
const CLEARED_FLAGS: u64 = 1 << 10 | 1 << 16 | 1 << 8;

/// The last exception of a thread, as `sigcontext` tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Trap {
    /// Its vector.
    pub vector: u64,
    /// Its error code.
    pub error: u64,
    /// The address of the last page fault.
    pub address: u64,
}

/// What a frame is made of.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// What the handler is told.
    pub info: &'a SigInfo,
    /// The handler.
    pub action: &'a Action,
    /// What is blocked afterwards.
    pub mask: SignalSet,
    /// The alternate stack.
    pub altstack: AltStack,
    /// The last exception.
    pub trap: Trap,
}

/// The frame cannot be written, or is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadFrame;

/// Where a frame goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    /// The stack pointer of the handler.
    pointer: u64,
    /// Where the x87, SSE and AVX registers are.
    state: u64,
}

/// Puts a frame on the stack of `thread`, the current one, and has its handler run next.
///
/// # Errors
/// There is no stack for it.
pub fn push(
    frame: &Frame<'_>,
    thread: &Arc<Thread>,
    registers: &mut Registers,
    extra: &mut Extra,
) -> Result<(), BadFrame> {
    let format = Extra::fpu_format();
    let is_extended = format.components != 0;
    let place = place(frame, registers.rsp, format.frame_len() as u64).ok_or(BadFrame)?;
    if frame.action.flags & SA_RESTORER == 0 {
        return Err(BadFrame);
    }
    let bytes = layout(frame, registers, place, is_extended);
    let state = VirtAddr::new(place.state);
    let written = on_behalf(|| {
        if !extra.save_fpu_at_once(state) {
            uaccess::write(state, extra.fpu_area())?;
        }
        uaccess::write(VirtAddr::new(place.pointer), &bytes)
    });
    written.map_err(|_| BadFrame)?;
    if frame.altstack.flags & SS_AUTODISARM != 0 {
        *thread.signals.altstack.lock() = AltStack::default();
    }
    extra.reset_fpu();
    registers.rdi = frame.info.signal.into();
    registers.rsi = place.pointer + SIGINFO as u64;
    registers.rdx = place.pointer + UCONTEXT as u64;
    registers.rax = 0;
    registers.rsp = place.pointer;
    registers.rip = frame.action.handler;
    registers.rflags &= !CLEARED_FLAGS;
    registers.restore_all();
    Ok(())
}

/// Where the frame goes below `pointer`, or on the alternate stack; `None`: it does not fit there.
fn place(frame: &Frame<'_>, pointer: u64, state_len: u64) -> Option<Place> {
    let altstack = &frame.altstack;
    let nested = altstack.is_under(pointer);
    let wants = frame.action.flags & SA_ONSTACK != 0;
    let enters = wants && altstack.size != 0 && !nested;
    let top = match enters {
        true => altstack.base.wrapping_add(altstack.size),
        false => pointer.wrapping_sub(RED_ZONE),
    };
    let state = top.wrapping_sub(state_len) & !63;
    let pointer = (state.wrapping_sub(FRAME_SIZE as u64) & !15).wrapping_sub(8);
    let fits = !(nested || enters) || altstack.holds(pointer);
    fits.then_some(Place { pointer, state })
}

/// The frame, as it lies in memory.
fn layout(frame: &Frame<'_>, registers: &Registers, place: Place, is_extended: bool) -> [u8; FRAME_SIZE] {
    let mut bytes = [0; FRAME_SIZE];
    let mut put = |at: usize, word: u64| bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
    put(0, frame.action.restorer);
    let flags = UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS | if is_extended { UC_FP_XSTATE } else { 0 };
    put(UCONTEXT, flags);
    let r = registers;
    let words = [
        r.r8,
        r.r9,
        r.r10,
        r.r11,
        r.r12,
        r.r13,
        r.r14,
        r.r15,
        r.rdi,
        r.rsi,
        r.rbp,
        r.rbx,
        r.rdx,
        r.rax,
        r.rcx,
        r.rsp,
        r.rip,
        r.rflags,
        // CS, GS, FS, SS.
        USER_CODE | USER_STACK << 48,
        frame.trap.error,
        frame.trap.vector,
        frame.mask.bits(),
        frame.trap.address,
        place.state,
    ];
    for (at, word) in words.into_iter().enumerate() {
        put(SIGCONTEXT + 8 * at, word);
    }
    put(MASK, frame.mask.bits());
    bytes[UCONTEXT + 16..][..STACK_SIZE].copy_from_slice(&frame.altstack.to_bytes());
    bytes[SIGINFO..].copy_from_slice(&frame.info.to_bytes());
    bytes
}

/// `rt_sigreturn`: the thread goes on as the frame that its stack pointer is just behind of says.
///
/// # Errors
/// The frame cannot be read.
pub fn pop(thread: &Arc<Thread>, registers: &mut Registers, extra: &mut Extra) -> Result<(), BadFrame> {
    let at = registers.rsp.wrapping_sub(8);
    let mut room = MaybeUninit::uninit();
    let words: &[u64; SIGINFO / 8] =
        on_behalf(|| uaccess::read_words_into(VirtAddr::new(at), &mut room)).map_err(|_| BadFrame)?;
    let word = |at: usize| words[at / 8];
    thread.block(SignalSet::from_bits(word(MASK)));
    let general = |n: usize| word(SIGCONTEXT + 8 * n);
    registers.r8 = general(0);
    registers.r9 = general(1);
    registers.r10 = general(2);
    registers.r11 = general(3);
    registers.r12 = general(4);
    registers.r13 = general(5);
    registers.r14 = general(6);
    registers.r15 = general(7);
    registers.rdi = general(8);
    registers.rsi = general(9);
    registers.rbp = general(10);
    registers.rbx = general(11);
    registers.rdx = general(12);
    registers.rax = general(13);
    registers.rcx = general(14);
    registers.rsp = general(15);
    registers.rip = general(16);
    registers.rflags = general(17);
    registers.restore_all();
    restore_state(general(23), extra)?;
    let stack = [0, 8, 16].map(|at| word(UCONTEXT + 16 + at).to_le_bytes());
    let stack = stack.as_flattened().try_into().expect("its size");
    restore_altstack(thread, AltStack::from_bytes(stack), registers.rsp);
    Ok(())
}

/// The alternate stack is as it was when the handler began, unless the thread runs on it.
fn restore_altstack(thread: &Thread, stack: AltStack, pointer: u64) {
    let mut present = thread.signals.altstack.lock();
    let replaced: Result<AltStack, Errno> = present.replaced_by(stack, pointer);
    if let Ok(stack) = replaced {
        *present = stack;
    }
}

/// Reads the x87, SSE and AVX registers back from `at`; without an address they are reset.
fn restore_state(at: u64, extra: &mut Extra) -> Result<(), BadFrame> {
    if at == 0 {
        extra.reset_fpu();
        return Ok(());
    }
    load_state(VirtAddr::new(at), extra).inspect_err(|_| extra.reset_fpu())
}

fn load_state(at: VirtAddr, extra: &mut Extra) -> Result<(), BadFrame> {
    let components = saved_components(at)?;
    // As XRSTOR and FXRSTOR want it.
    if !at.is_aligned(if components.is_some() { 64 } else { 16 }) {
        return Err(BadFrame);
    }
    let all = Extra::fpu_format().components;
    let has_all = components.is_some_and(|components| components & all == all);
    if has_all && extra.load_fpu_at_once(at) {
        return Ok(());
    }
    let read = |from: usize, out: &mut [u8]| {
        let from = VirtAddr::new(at.as_u64().wrapping_add(from as u64));
        on_behalf(|| uaccess::read(from, out)).is_ok()
    };
    extra.set_fpu_area(components, read).then_some(()).ok_or(BadFrame)
}

/// The components at `at`, if what is there is labelled at both ends.
fn saved_components(at: VirtAddr) -> Result<Option<u64>, BadFrame> {
    let behind = |bytes: usize| VirtAddr::new(at.as_u64().wrapping_add(bytes as u64));
    let words = on_behalf(|| uaccess::read_words(behind(LABEL))).map_err(|_| BadFrame)?;
    let Some((components, len)) = Extra::fpu_format().labelled(&words) else {
        return Ok(None);
    };
    let mut end = [0; size_of::<u32>()];
    on_behalf(|| uaccess::read(behind(len), &mut end)).map_err(|_| BadFrame)?;
    Ok((end == FP_XSTATE_MAGIC2.to_le_bytes()).then_some(components))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const ACTION: Action = Action {
        handler: 0x40_1000,
        flags: SA_RESTORER,
        restorer: 0x40_2000,
        mask: SignalSet::EMPTY,
    };

    fn frame<'a>(info: &'a SigInfo, action: &'a Action, altstack: AltStack) -> Frame<'a> {
        Frame {
            info,
            action,
            mask: SignalSet::from_bits(0x1234),
            altstack,
            trap: Trap {
                vector: 14,
                error: 6,
                address: 0xdead_0000,
            },
        }
    }

    #[test]
    fn the_parts_lie_where_linux_has_them() {
        let info = SigInfo::fault(11, 1, 0xdead_0000);
        let registers = Registers {
            r8: 8,
            rdi: 0xd1,
            rsp: 0x7fff_0000,
            rip: 0x40_0000,
            rflags: 0x202,
            rax: 0xaa,
            ..Registers::default()
        };
        let place = Place {
            pointer: 0x7ffe_f008,
            state: 0x7ffe_f200,
        };
        let frame = frame(&info, &ACTION, AltStack::default());
        let bytes = layout(&frame, &registers, place, true);
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        assert_eq!(word(0), 0x40_2000, "pretcode");
        assert_eq!(word(8), 7, "uc_flags");
        assert_eq!(word(32) as u32, 2, "uc_stack.ss_flags");
        assert_eq!(word(48), 8, "r8");
        assert_eq!(word(48 + 8 * 8), 0xd1, "di");
        assert_eq!(word(48 + 13 * 8), 0xaa, "ax");
        assert_eq!(word(48 + 15 * 8), 0x7fff_0000, "sp");
        assert_eq!(word(48 + 16 * 8), 0x40_0000, "ip");
        assert_eq!(word(48 + 144), 0x1b << 48 | 0x23, "cs, ss");
        assert_eq!(word(48 + 152), 6, "err");
        assert_eq!(word(48 + 160), 14, "trapno");
        assert_eq!(word(48 + 176), 0xdead_0000, "cr2");
        assert_eq!(word(48 + 184), 0x7ffe_f200, "fpstate");
        assert_eq!(word(304), 0x1234, "uc_sigmask");
        assert_eq!(word(312), 11, "si_signo, si_errno");
        assert_eq!(word(312 + 16), 0xdead_0000, "si_addr");
    }

    #[test]
    fn a_frame_is_aligned_and_below_the_red_zone() {
        let info = SigInfo::kernel(10);
        let frame = frame(&info, &ACTION, AltStack::default());
        for pointer in 0x7fff_0000..0x7fff_0080 {
            let place = place(&frame, pointer, 836).expect("a stack is not looked at");
            assert_eq!(place.state % 64, 0);
            assert_eq!(place.pointer % 16, 8, "as behind a call");
            assert!(place.state + 836 <= pointer - RED_ZONE);
            assert!(place.pointer + FRAME_SIZE as u64 <= place.state);
        }
    }

    #[test]
    fn the_alternate_stack_is_entered_once_and_not_overrun() {
        let info = SigInfo::kernel(10);
        let action = Action {
            flags: SA_RESTORER | SA_ONSTACK,
            ..ACTION
        };
        let altstack = AltStack {
            base: 0x10_0000,
            flags: 0,
            size: 8192,
        };
        let frame = frame(&info, &action, altstack);
        let first = place(&frame, 0x7fff_0000, 836).expect("room");
        assert!(altstack.holds(first.pointer));
        let second = place(&frame, first.pointer, 836).expect("room");
        assert!(second.state + 836 <= first.pointer - RED_ZONE);
        assert_eq!(place(&frame, 0x10_0100, 836), None, "it would run over the end");
        let elsewhere = Frame {
            action: &ACTION,
            ..frame
        };
        let place = place(&elsewhere, 0x7fff_0000, 836).expect("room");
        assert!(!altstack.holds(place.pointer));
    }
}
