//! Exceptions of user mode, as signals (Linux: `arch/x86/kernel/traps.c` decides the same).

use crate::abi::signal::{
    BUS_ADRALN, FPE_FLTDIV, FPE_FLTINV, FPE_FLTOVF, FPE_FLTRES, FPE_FLTUND, FPE_INTDIV, ILL_ILLOPN,
    SI_KERNEL, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP, SigInfo, TRAP_TRACE,
};
use crate::arch::Extra;

/// The signal that exception `vector` at `rip` becomes.
pub fn of_exception(vector: u8, rip: u64, extra: &mut Extra) -> SigInfo {
    match vector {
        0 => SigInfo::fault(SIGFPE, FPE_INTDIV, rip),
        1 => SigInfo::fault(SIGTRAP, TRAP_TRACE, rip),
        3 => SigInfo::kernel(SIGTRAP),
        6 => SigInfo::fault(SIGILL, ILL_ILLOPN, rip),
        16 => SigInfo::fault(SIGFPE, floating_point(x87_exceptions(extra)), rip),
        17 => SigInfo::fault(SIGBUS, BUS_ADRALN, 0),
        19 => SigInfo::fault(SIGFPE, floating_point(sse_exceptions(extra)), rip),
        11 => SigInfo::kernel(SIGBUS),
        12 => SigInfo::kernel(SIGBUS),
        // #OF, #BR, #GP and what is left.
        _ => SigInfo {
            code: SI_KERNEL,
            ..SigInfo::kernel(SIGSEGV)
        },
    }
}

/// Exceptions that the x87 has raised and that are not masked: the low bits of its status word and its control word.
fn x87_exceptions(extra: &mut Extra) -> u32 {
    let bytes = extra.fpu_area();
    let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    u32::from(word(2) & !word(0) & 0x3f)
}

/// The same for SSE: MXCSR has both, the masks 7 bits further up.
fn sse_exceptions(extra: &mut Extra) -> u32 {
    let bytes = extra.fpu_area();
    let mxcsr = u32::from_le_bytes(bytes[24..28].try_into().expect("4 bytes"));
    mxcsr & !(mxcsr >> 7) & 0x3f
}

/// `si_code` for exceptions that are raised and not masked: bits as in MXCSR and the x87's status word.
fn floating_point(raised: u32) -> i32 {
    let bit = |n: u32| raised >> n & 1 != 0;
    if bit(0) {
        FPE_FLTINV
    } else if bit(2) {
        FPE_FLTDIV
    } else if bit(3) {
        FPE_FLTOVF
    } else if bit(4) || bit(1) {
        FPE_FLTUND
    } else if bit(5) {
        FPE_FLTRES
    } else {
        0
    }
}
