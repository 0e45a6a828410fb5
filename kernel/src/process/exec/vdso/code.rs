//! The vDSO's code, with what it has to know filled in.
#![expect(unsafe_code, reason = "machine code of the image, named by its symbols")]

use alloc::vec::Vec;
use core::arch::global_asm;

use crate::arch::{Clock, Machine};
use crate::process::clock;

global_asm!(include_str!("code.s"), options(att_syntax));

unsafe extern "C" {
    static vdso_text: u8;
    static vdso_text_end: u8;
    static vdso_clock_gettime: u8;
    static vdso_gettimeofday: u8;
    static vdso_time: u8;
    static vdso_clock_getres: u8;
    static vdso_getcpu: u8;
    static vdso_frequency: u8;
    static vdso_realtime: u8;
}

/// Code and where in it each function begins.
pub struct Code {
    /// The bytes.
    pub text: Vec<u8>,
    /// Names and offsets.
    pub functions: [(&'static str, usize); 5],
}

fn offset(of: *const u8) -> usize {
    of.addr() - (&raw const vdso_text).addr()
}

/// The code for this machine.
pub fn filled_in() -> Code {
    let len = offset(&raw const vdso_text_end);
    // SAFETY: the two symbols enclose read-only data of the image.
    let mut text = unsafe { core::slice::from_raw_parts(&raw const vdso_text, len) }.to_vec();
    let mut fill = |at: *const u8, word: u64| {
        text[offset(at)..][..8].copy_from_slice(&word.to_le_bytes());
    };
    fill(&raw const vdso_frequency, Machine::frequency());
    fill(&raw const vdso_realtime, clock::realtime_offset().as_secs());
    Code {
        text,
        functions: [
            ("__vdso_clock_gettime", offset(&raw const vdso_clock_gettime)),
            ("__vdso_gettimeofday", offset(&raw const vdso_gettimeofday)),
            ("__vdso_time", offset(&raw const vdso_time)),
            ("__vdso_clock_getres", offset(&raw const vdso_clock_getres)),
            ("__vdso_getcpu", offset(&raw const vdso_getcpu)),
        ],
    }
}
