//! Stacks: preparing one, and switching between two.
//!
//! What lies on a stack that does not run, from its saved stack pointer upwards: r15 r14 r13 r12 rbx rbp, and the
//! address to go on at. Everything else is dead at a call (System V ABI); the kernel is built without vector registers.
#![expect(unsafe_code, reason = "moves the CPU to another stack")]

use core::arch::naked_asm;

use super::{Machine, percpu};
use crate::arch::Switch;
use crate::task::Task;

/// A stack that has never run.
#[repr(C)]
struct Fresh {
    registers: [usize; 6],
    entry: extern "C" fn() -> !,
    /// Where `entry` would return to: nowhere. Backtraces end at it, and it aligns the stack as a call does.
    nowhere: usize,
}

const _: () = assert!(size_of::<Fresh>().is_multiple_of(16));

impl Switch for Machine {
    unsafe fn prepare(top: *mut u8, entry: extern "C" fn() -> !) -> usize {
        // SAFETY: the caller gives a stack of at least 256 bytes that ends at `top`.
        let fresh = unsafe { top.sub(size_of::<Fresh>()) }.cast::<Fresh>();
        // SAFETY: as above, and `top` is 16-aligned.
        unsafe {
            fresh.write(Fresh {
                registers: [0; 6],
                entry,
                nowhere: 0,
            })
        };
        fresh.expose_provenance()
    }

    #[inline]
    unsafe fn switch(save: *mut usize, load: usize) {
        // SAFETY: the caller's contract is that of the function.
        unsafe { switch_stacks(save, load) }
    }

    #[inline]
    fn running() -> *const Task {
        percpu::running()
    }

    #[inline]
    fn set_running(task: *const Task) {
        percpu::set_running(task);
    }
}

/// Saves what a call must preserve, swaps stack pointers, and returns on the other stack.
#[unsafe(naked)]
unsafe extern "C" fn switch_stacks(save: *mut usize, load: usize) {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov [rdi], rsp",
        "mov rsp, rsi",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}
