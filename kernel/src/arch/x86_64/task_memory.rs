//! Memory of the current task, with faults that end in an error.
//!
//! Each instruction that touches task memory has an entry in the section `.fixups`: its address, and where to go on
//! when the access is impossible. The page-fault handler looks there after the memory manager has said no; the general
//! exception path does the same for addresses that are not canonical. An access that is made [`AT_ONCE`] or not at all goes on
//! there without the memory manager having been asked.
#![expect(unsafe_code, reason = "string instructions on memory that may not be there")]

use core::arch::asm;
use core::slice;

use super::Machine;
use super::features::{Features, features};
use crate::arch::{Cpu, TaskMemory};
use crate::mm::addr::{USER_TOP, VirtAddr};

/// One entry of the table.
#[repr(C)]
struct Fixup {
    /// The instruction that may fault.
    access: u64,
    /// Where to go on.
    resume: u64,
    /// [`ASKING`] or [`AT_ONCE`].
    when: u64,
}

/// The memory manager is asked first.
pub(super) const ASKING: u64 = 0;
/// Nobody is asked: the access is made with preemption off.
pub(super) const AT_ONCE: u64 = 1;

unsafe extern "C" {
    static __fixups_start: Fixup;
    static __fixups_end: Fixup;
}

/// Where to go on when the instruction at `rip` cannot make its access; `None` when it is not one of ours.
pub(super) fn resume_after(rip: u64) -> Option<u64> {
    find(rip).map(|fixup| fixup.resume)
}

/// The same for accesses that are made [`AT_ONCE`] or not at all.
pub(super) fn resume_at_once(rip: u64) -> Option<u64> {
    find(rip)
        .filter(|fixup| fixup.when == AT_ONCE)
        .map(|fixup| fixup.resume)
}

fn find(rip: u64) -> Option<&'static Fixup> {
    let (start, end) = (&raw const __fixups_start, &raw const __fixups_end);
    let len = (end.addr() - start.addr()) / size_of::<Fixup>();
    // SAFETY: the linker script puts the table between the two symbols; it is read-only data.
    let table = unsafe { slice::from_raw_parts(start, len) };
    table.iter().find(|fixup| fixup.access == rip)
}

/// Whether `[addr, addr + len)` can be task memory at all.
#[inline]
pub(super) fn in_task_half(addr: VirtAddr, len: usize) -> bool {
    addr.checked_add(len as u64).is_some_and(|end| end <= USER_TOP)
}

/// Lets the kernel at pages of user mode while `access` runs, which is an access with a [`Fixup`] and nothing else.
#[inline(always)]
pub(super) fn with_user_pages<R>(access: impl FnOnce() -> R) -> R {
    let prevented = features().contains(Features::SMAP);
    if prevented {
        // SAFETY: the CPU has the instruction; only what the CPU may touch changes. Not `nomem`: the access stays behind it.
        unsafe { asm!("stac", options(nostack)) };
    }
    let result = access();
    if prevented {
        // SAFETY: as above; the access stays before it.
        unsafe { asm!("clac", options(nostack)) };
    }
    result
}

/// Copies eight bytes at a time, then the rest; returns how many bytes are left when an access was impossible.
///
/// # Safety
/// The side that is not task memory is valid for `len` bytes.
#[inline]
unsafe fn copy<const WHEN: u64>(dst: u64, src: u64, len: usize) -> usize {
    let left: usize;
    // SAFETY: the kernel's side is valid (caller); an impossible access on the task's side resumes at label 4 or 5 with
    // rcx holding what is left. DF is clear (ABI).
    unsafe {
        asm!(
            "2: rep movsq",
            "mov ecx, {tail:e}",
            "3: rep movsb",
            "jmp 5f",
            "4: lea rcx, [{tail} + rcx * 8]",
            "5:",
            ".pushsection .fixups, \"a\"",
            ".quad 2b, 4b, {when}",
            ".quad 3b, 5b, {when}",
            ".popsection",
            when = const WHEN,
            tail = in(reg) len % 8,
            inout("rcx") len / 8 => left,
            inout("rdi") dst => _,
            inout("rsi") src => _,
            options(nostack),
        );
    }
    left
}

/// Whether one instruction could make its access to `$len` bytes of task memory at `{at}`; where it could not, its outputs are
/// as they were.
macro_rules! one_access {
    ($addr:expr, $len:literal, $instruction:literal, $($operands:tt)*) => {
        in_task_half($addr, $len) && {
            let mut done = 0u32;
            // SAFETY: the instruction touches task memory only; an impossible access resumes at label 3 with `done` still 0.
            with_user_pages(|| unsafe {
                asm!(
                    concat!("2: ", $instruction),
                    "mov {done:e}, 1",
                    "3:",
                    ".pushsection .fixups, \"a\"",
                    ".quad 2b, 3b, {when}",
                    ".popsection",
                    when = const ASKING,
                    at = in(reg) $addr.as_u64(),
                    done = inout(reg) done,
                    $($operands)*,
                    options(nostack),
                );
            });
            done != 0
        }
    };
}

impl TaskMemory for Machine {
    #[inline]
    unsafe fn copy_in(dst: *mut u8, src: VirtAddr, len: usize) -> usize {
        if !in_task_half(src, len) {
            return len;
        }
        // SAFETY: the caller's `dst` is valid for `len` bytes.
        with_user_pages(|| unsafe { copy::<ASKING>(dst.expose_provenance() as u64, src.as_u64(), len) })
    }

    #[inline]
    unsafe fn copy_in_at_once(dst: *mut u8, src: VirtAddr, len: usize) -> usize {
        debug_assert_ne!(Machine::preempt_count(), 0, "somebody could be asked");
        if !in_task_half(src, len) {
            return len;
        }
        // SAFETY: the caller's `dst` is valid for `len` bytes.
        with_user_pages(|| unsafe { copy::<AT_ONCE>(dst.expose_provenance() as u64, src.as_u64(), len) })
    }

    #[inline]
    unsafe fn copy_out(dst: VirtAddr, src: *const u8, len: usize) -> usize {
        if !in_task_half(dst, len) {
            return len;
        }
        // SAFETY: the caller's `src` is valid for `len` bytes.
        with_user_pages(|| unsafe { copy::<ASKING>(dst.as_u64(), src.expose_provenance() as u64, len) })
    }

    #[inline]
    fn load_u64(src: VirtAddr) -> Option<u64> {
        let mut value = 0u64;
        one_access!(src, 8, "mov {value}, [{at}]", value = inout(reg) value).then_some(value)
    }

    #[inline]
    fn store_u64(dst: VirtAddr, value: u64) -> bool {
        one_access!(dst, 8, "mov [{at}], {value}", value = in(reg) value)
    }

    #[inline]
    fn load_u32(src: VirtAddr) -> Option<u32> {
        let mut value = 0u32;
        one_access!(src, 4, "mov {value:e}, [{at}]", value = inout(reg) value).then_some(value)
    }

    fn compare_exchange_u32(dst: VirtAddr, old: u32, new: u32) -> Option<u32> {
        let mut value = old;
        one_access!(dst, 4, "lock cmpxchg [{at}], {new:e}", new = in(reg) new, inout("eax") value)
            .then_some(value)
    }
}
