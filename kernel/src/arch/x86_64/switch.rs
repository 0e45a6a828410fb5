//! Stacks: preparing one, and switching between two.
//!
//! What lies on a stack that does not run, from its saved stack pointer upwards: rbx, rbp, and the address to go on at.
//! The other registers are dead at a switch: the compiler is told that it changes them, and so saves only what it needs
//! afterwards. The kernel is built without vector registers.
#![expect(unsafe_code, reason = "moves the CPU to another stack")]

use core::arch::asm;

use super::{Machine, percpu};
use crate::arch::Switch;
use crate::task::Task;

/// A stack that has never run.
#[repr(C)]
struct Fresh {
    rbx: usize,
    /// The end of the chain of frames.
    rbp: usize,
    entry: extern "C" fn(*mut usize) -> !,
    /// Where `entry` would return to: nowhere. Backtraces end at it, and it aligns the stack as a call does.
    nowhere: usize,
}

const _: () = assert!(size_of::<Fresh>().is_multiple_of(16));

impl Switch for Machine {
    unsafe fn prepare(top: *mut u8, entry: extern "C" fn(*mut usize) -> !) -> usize {
        // SAFETY: the caller gives a stack of at least 256 bytes that ends at `top`.
        let fresh = unsafe { top.sub(size_of::<Fresh>()) }.cast::<Fresh>();
        // SAFETY: as above, and `top` is 16-aligned.
        unsafe {
            fresh.write(Fresh {
                rbx: 0,
                rbp: 0,
                entry,
                nowhere: 0,
            })
        };
        fresh.expose_provenance()
    }

    /// In line, so that the compiler saves what it needs and no more. `save` stays in RDI on the way, where the other
    /// side finds it: as this function's result, or as the first argument of `entry`.
    #[inline(always)]
    unsafe fn switch(save: *mut usize, load: usize) -> *mut usize {
        let left;
        // SAFETY: by the caller's contract `load` points to what this code pushed, or to a `Fresh`. RBX and RBP cannot be
        // named as changed, so they are saved here.
        unsafe {
            asm!(
                "lea rax, [rip + 2f]",
                "push rax",
                "push rbp",
                "push rbx",
                "mov [rdi], rsp",
                "mov rsp, rsi",
                "pop rbx",
                "pop rbp",
                "pop rax",
                "jmp rax",
                "2:",
                inlateout("rdi") save => left,
                inlateout("rsi") load => _,
                out("r12") _, out("r13") _, out("r14") _, out("r15") _,
                clobber_abi("C"),
            );
        }
        left
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
