//! User mode: into it, out of it, and what is the same afterwards.
#![expect(unsafe_code, reason = "machine code of user mode, named by its symbols")]

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::arch::global_asm;
use core::sync::atomic::{AtomicBool, Ordering};

use kernel::arch::Extra;
use kernel::arch::user::{Exit, Registers, Request};
use kernel::arch::x86_64::user;
use kernel::mm::addr::VirtAddr;
use kernel::mm::fault::{self, Access, Origin};
use kernel::mm::memtype::anon::ANON;
use kernel::mm::pt::Prot;
use kernel::mm::space::{MapRequest, Memory, Privilege, Space};
use kernel::task;

use super::common;
use crate::{ensure, kernel_test};

/// Where the code stands in user mode, and where its data and its stack end.
const CODE: u64 = 0x40_0000;
const DATA: u64 = 0x80_0000;
const STACK: u64 = 0x90_0000;

// Position-independent; each piece ends in SYSCALL or in an exception.
global_asm!(
    ".pushsection .rodata.user_code, \"a\"",
    ".globl user_code, user_code_end, user_count, user_vectors, user_answered_vectors, user_syscall_twice",
    ".globl user_halt, user_divide",
    ".globl user_undefined, user_breakpoint, user_gate, user_load, user_store, user_jump, user_flags",
    ".globl user_flags_fault, user_set_gs, user_iret",
    ".balign 16",
    "user_code:",
    // Counts RBX down with a pattern in every other register.
    "user_count:",
    "2: dec rbx",
    "jnz 2b",
    "syscall",
    "user_vectors:", // the same with XMM0 and XMM15 loaded from RAX
    "movq xmm0, rax",
    "movq xmm15, rax",
    "fninit",
    "2: dec rbx",
    "jnz 2b",
    "movq rcx, xmm0",
    "movq rdx, xmm15",
    "mov r8, rcx",
    "syscall",
    "user_answered_vectors:", // loads XMM0, makes a call that is answered, and reads it
    "movq xmm0, rdi",
    "syscall",
    "movq r8, xmm0",
    "syscall",
    "user_syscall_twice:",
    "syscall",
    "mov rbx, rax",
    "mov r12, rcx",
    "mov r13, r11",
    "syscall",
    "user_halt: hlt",
    "user_divide: xor edx, edx",
    "xor ecx, ecx",
    "div ecx",
    "user_undefined: ud2",
    "user_breakpoint: int3",
    "user_gate: int 0x40",
    "user_load: mov rax, [rdi]",
    "syscall",
    "user_store: mov [rdi], rax",
    "syscall",
    "user_jump: jmp rdi",
    // Sets the flags in RDI and leaves by a system call, by a fault, by waiting for an interrupt.
    "user_flags: push rdi",
    "popfq",
    "syscall",
    "user_flags_fault: push rdi",
    "popfq",
    "mov rax, [rsi]",
    "syscall",
    "user_iret: push 0",
    "push 0",
    "push 0x202",
    "push 8",
    "push rdi",
    "2: iretq",
    "user_set_gs: wrgsbase rdi",
    "syscall",
    "user_code_end:",
    ".popsection",
);

macro_rules! pieces {
    ($($name:ident)*) => {
        unsafe extern "C" { $(static $name: u8;)* }
    };
}
pieces!(user_code user_code_end user_count user_vectors user_answered_vectors user_syscall_twice user_halt user_divide user_undefined
        user_breakpoint user_gate user_load user_store user_jump user_flags user_flags_fault user_set_gs
        user_iret);

/// The address in user mode of a piece of the code.
macro_rules! at {
    ($name:ident) => {
        CODE + ((&raw const $name).addr() - (&raw const user_code).addr()) as u64
    };
}

/// A space with the code, a page of data that nobody has touched, and a stack.
fn program() -> Result<Arc<Space>, String> {
    let space = Space::new(Privilege::User).map_err(common::text)?;
    let areas = [
        (CODE, Prot::READ | Prot::WRITE | Prot::EXEC),
        (DATA, Prot::READ | Prot::WRITE),
        (STACK - 0x1000, Prot::READ | Prot::WRITE),
    ];
    for (at, prot) in areas {
        let request = MapRequest {
            at: Some(VirtAddr::new(at)),
            len: 0x1000,
            prot,
            memory: Memory::Own(&ANON),
        };
        space.map(request).map_err(common::text)?;
    }
    let len = (&raw const user_code_end).addr() - (&raw const user_code).addr();
    // SAFETY: the two symbols enclose read-only data of the image.
    let code = unsafe { core::slice::from_raw_parts(&raw const user_code, len) };
    space
        .write_bytes(VirtAddr::new(CODE), code, Origin::Kernel)
        .map_err(common::text)?;
    Ok(space)
}

/// Runs user mode until something but an interrupt or a page fault that can be resolved ends its turn.
fn until_it_ends(registers: &mut Registers, extra: &mut Extra) -> Exit {
    answering(registers, extra, &AtomicBool::new(false), |_| None)
}

/// [`until_it_ends`] with answers to system calls, and with something that keeps the CPU from user mode.
fn answering(
    registers: &mut Registers,
    extra: &mut Extra,
    notice: &AtomicBool,
    mut answer: impl FnMut(&Request) -> Option<u64>,
) -> Exit {
    loop {
        match user::run(registers, extra, notice, &mut answer, |_, _| false) {
            Exit::Interrupt => {}
            Exit::PageFault(info) if fault::handle(&info).is_ok() => {}
            exit => return exit,
        }
    }
}

/// Runs the piece at `rip` with registers that `set` has changed; the exit, and the registers after it.
fn run(rip: u64, set: impl FnOnce(&mut Registers) + Send + 'static) -> Result<(Exit, Registers), String> {
    let space = program()?;
    common::run(&space, move || {
        let mut registers = Registers::start(rip, STACK);
        set(&mut registers);
        let exit = until_it_ends(&mut registers, &mut Extra::new());
        (exit, registers)
    })
}

/// Turns of a counting loop that take several ticks.
const LONG: u64 = 30_000_000;

fn pattern(registers: &mut Registers) {
    let all = [
        &mut registers.rax,
        &mut registers.rcx,
        &mut registers.rdx,
        &mut registers.rsi,
        &mut registers.rdi,
        &mut registers.rbp,
        &mut registers.r8,
        &mut registers.r9,
        &mut registers.r10,
        &mut registers.r11,
        &mut registers.r12,
        &mut registers.r13,
        &mut registers.r14,
        &mut registers.r15,
    ];
    for (number, register) in all.into_iter().enumerate() {
        *register = 0x5eed_0000_0000_0000 | number as u64;
    }
}

kernel_test!(
    fn registers_survive_interrupts() -> Result<(), String> {
        let (exit, after) = run(at!(user_count), |registers| {
            pattern(registers);
            registers.rbx = LONG;
        })?;
        ensure!(exit == Exit::Syscall, "{exit:?}");
        let mut expected = after;
        pattern(&mut expected);
        // What SYSCALL itself changes.
        (expected.rcx, expected.r11) = (after.rip, after.rflags);
        ensure!(
            after == expected && after.rbx == 0 && after.rsp == STACK,
            "{after:x?}"
        );
        Ok(())
    }
);

kernel_test!(
    fn system_call_answers_in_rax_and_changes_rcx_and_r11_only() -> Result<(), String> {
        let space = program()?;
        let after = common::run(&space, || {
            let mut registers = Registers::start(at!(user_syscall_twice), STACK);
            pattern(&mut registers);
            let mut extra = Extra::new();
            let first = until_it_ends(&mut registers, &mut extra);
            registers.rax = 0x1234;
            let second = until_it_ends(&mut registers, &mut extra);
            (first, second, registers)
        })?;
        let (first, second, after) = after;
        ensure!(
            first == Exit::Syscall && second == Exit::Syscall,
            "{first:?}, {second:?}"
        );
        let next = at!(user_syscall_twice) + 2;
        ensure!(
            (after.rbx, after.r12) == (0x1234, next) && after.r13 & 0x200 != 0,
            "{after:x?}"
        );
        ensure!(
            after.rdi == 0x5eed_0000_0000_0004 && after.r15 == 0x5eed_0000_0000_000d,
            "{after:x?}"
        );
        Ok(())
    }
);

kernel_test!(
    fn answered_system_call_goes_on_and_changes_rcx_and_r11_only() -> Result<(), String> {
        let space = program()?;
        let (exit, asked, after) = common::run(&space, || {
            let mut registers = Registers::start(at!(user_syscall_twice), STACK);
            pattern(&mut registers);
            let mut asked = None;
            // The first call is answered, the second one is not.
            let answer = |request: &Request| asked.replace(*request).is_none().then_some(0x1234);
            let exit = answering(&mut registers, &mut Extra::new(), &AtomicBool::new(false), answer);
            (exit, asked, registers)
        })?;
        ensure!(exit == Exit::Syscall, "{exit:?}");
        let mut expected = after;
        pattern(&mut expected);
        let first_next = at!(user_syscall_twice) + 2;
        (expected.rax, expected.rbx, expected.r12) = (0x1234, 0x1234, first_next);
        (expected.rcx, expected.r11, expected.r13) = (after.rip, after.rflags, after.rflags);
        ensure!(after == expected && after.rsp == STACK, "{after:x?}");
        let expected = Request::of(&after);
        ensure!(asked == Some(expected), "{asked:x?}, not {expected:x?}");
        Ok(())
    }
);

kernel_test!(
    fn notice_keeps_the_cpu_from_user_mode() -> Result<(), String> {
        let space = program()?;
        let (before, behind, registers) = common::run(&space, || {
            let mut registers = Registers::start(at!(user_syscall_twice), STACK);
            let mut extra = Extra::new();
            let notice = AtomicBool::new(true);
            let before = answering(&mut registers, &mut extra, &notice, |_| Some(1));
            notice.store(false, Ordering::Release);
            let answer = |_: &Request| {
                notice.store(true, Ordering::Release);
                Some(7)
            };
            let behind = answering(&mut registers, &mut extra, &notice, answer);
            (before, behind, registers)
        })?;
        ensure!(
            before == Exit::Notice && behind == Exit::Notice,
            "{before:?}, {behind:?}"
        );
        // The call that was being answered is answered, and nothing behind it has happened.
        ensure!(
            registers.rax == 7 && registers.rbx == 0 && registers.rip == at!(user_syscall_twice) + 2,
            "{registers:x?}"
        );
        Ok(())
    }
);

kernel_test!(
    fn vector_registers_survive_a_call_that_lets_another_thread_run() -> Result<(), String> {
        let space = program()?;
        let start = |value: u64| {
            common::task(&space, move || {
                let mut registers = Registers::start(at!(user_answered_vectors), STACK);
                registers.rdi = value;
                let mut calls = 0;
                let answer = |_: &Request| {
                    calls += 1;
                    task::yield_now();
                    (calls == 1).then_some(0)
                };
                let exit = answering(&mut registers, &mut Extra::new(), &AtomicBool::new(false), answer);
                (exit, registers.r8)
            })
        };
        let (one, other) = (start(0x1111)?, start(0x2222)?);
        for (task, value) in [(one, 0x1111), (other, 0x2222)] {
            let (exit, found) = common::joined(task)?;
            ensure!(
                exit == Exit::Syscall && found == value,
                "{exit:?}, {found:#x} for {value:#x}"
            );
        }
        Ok(())
    }
);

kernel_test!(
    fn vector_registers_are_each_threads_own() -> Result<(), String> {
        let space = program()?;
        let start = |value: u64| {
            common::task(&space, move || {
                let mut registers = Registers::start(at!(user_vectors), STACK);
                (registers.rax, registers.rbx) = (value, LONG);
                let exit = until_it_ends(&mut registers, &mut Extra::new());
                (exit, registers.r8, registers.rdx)
            })
        };
        let (one, other) = (start(0x1111)?, start(0x2222)?);
        for (task, value) in [(one, 0x1111), (other, 0x2222)] {
            let (exit, first, last) = common::joined(task)?;
            ensure!(
                exit == Exit::Syscall && (first, last) == (value, value),
                "{exit:?}, {first:#x}, {last:#x} for {value:#x}"
            );
        }
        Ok(())
    }
);

kernel_test!(
    fn vector_registers_of_a_new_thread_are_clear_or_its_makers() -> Result<(), String> {
        let space = program()?;
        let (fresh, copied) = common::run(&space, || {
            let read = |extra: &mut Extra| {
                let area: Box<[u8]> = extra.fpu_area().into();
                // XMM0 stands at 160 (SDM vol. 1, 10.5.1).
                u64::from_le_bytes(area[160..168].try_into().expect("eight bytes"))
            };
            let mut registers = Registers::start(at!(user_vectors), STACK);
            (registers.rax, registers.rbx) = (0x77, 1);
            let mut extra = Extra::new();
            until_it_ends(&mut registers, &mut extra);
            (read(&mut Extra::new()), read(&mut extra.duplicate()))
        })?;
        ensure!((fresh, copied) == (0, 0x77), "{fresh:#x}, {copied:#x}");
        Ok(())
    }
);

kernel_test!(
    fn exceptions_end_the_turn_where_they_happened() -> Result<(), String> {
        let pieces = [
            (at!(user_halt), 13, 0),
            (at!(user_divide) + 4, 0, 0),
            (at!(user_undefined), 6, 0),
            // INT3 is reported behind itself.
            (at!(user_breakpoint) + 1, 3, 0),
            // A gate that is not user mode's.
            (at!(user_gate), 13, 2),
            // CR4.FSGSBASE is off.
            (at!(user_set_gs), 6, 0),
        ];
        for (rip, vector, error) in pieces {
            let start = match vector {
                0 => at!(user_divide),
                3 => at!(user_breakpoint),
                _ => rip,
            };
            let (exit, after) = run(start, |_| ())?;
            // Which gate is in the error code too; QEMU and the manuals do not agree how.
            let is_it =
                matches!(exit, Exit::Exception { vector: v, error: e } if v == vector && e & 7 == error);
            ensure!(
                is_it && after.rip == rip,
                "{exit:?} at {:#x}, not vector {vector} ({error:#x}) at {rip:#x}",
                after.rip
            );
        }
        Ok(())
    }
);

kernel_test!(
    fn kernel_memory_and_holes_are_out_of_reach() -> Result<(), String> {
        let kernel = (&raw const user_code).addr() as u64;
        for (piece, access) in [
            (at!(user_load), Access::Read),
            (at!(user_store), Access::Write),
            (at!(user_jump), Access::Execute),
        ] {
            for address in [kernel, 0xffff_8000_0000_0000, 0x7fff_ffff_f000, 0, 0x1234_5000] {
                let (exit, _) = run(piece, move |registers| registers.rdi = address)?;
                let Exit::PageFault(info) = exit else {
                    return Err(format!("{access:?} of {address:#x}: {exit:?}"));
                };
                ensure!(
                    info.addr.as_u64() == address && info.access == access && info.origin == Origin::Task,
                    "{access:?} of {address:#x}: {info:?}"
                );
            }
            // An address that does not exist.
            let (exit, _) = run(piece, |registers| registers.rdi = 0x1234_0000_0000_0000)?;
            ensure!(
                matches!(exit, Exit::Exception { vector: 13, .. }),
                "{access:?}: {exit:?}"
            );
        }
        Ok(())
    }
);

kernel_test!(
    fn memory_appears_when_it_is_touched() -> Result<(), String> {
        let (exit, after) = run(at!(user_load), |registers| registers.rdi = DATA + 8)?;
        ensure!(
            exit == Exit::Syscall && after.rax == 0,
            "{exit:?}, {:#x}",
            after.rax
        );
        let (exit, _) = run(at!(user_store), |registers| registers.rdi = DATA + 8)?;
        ensure!(exit == Exit::Syscall, "{exit:?}");
        let (exit, _) = run(at!(user_jump), |registers| registers.rdi = DATA)?;
        ensure!(
            matches!(exit, Exit::PageFault(info) if info.access == Access::Execute),
            "data was executed: {exit:?}"
        );
        Ok(())
    }
);

/// Carry, direction, nested task, alignment check, identification.
const ODD_FLAGS: u64 = 1 | 1 << 10 | 1 << 14 | 1 << 18 | 1 << 21;

kernel_test!(
    fn flags_of_user_mode_stay_there() -> Result<(), String> {
        for piece in [at!(user_flags), at!(user_flags_fault)] {
            let (exit, after) = run(piece, |registers| {
                (registers.rdi, registers.rsi) = (ODD_FLAGS, DATA);
            })?;
            ensure!(exit == Exit::Syscall, "{exit:?}");
            ensure!(after.rflags & ODD_FLAGS == ODD_FLAGS, "flags {:#x}", after.rflags);
            let flags: u64;
            // SAFETY: reads the flags through the stack.
            unsafe { core::arch::asm!("pushfq", "pop {}", out(reg) flags) };
            ensure!(
                flags & (1 << 10 | 1 << 18) == 0,
                "the kernel runs with flags {flags:#x}"
            );
        }
        // Privileged bits are not user mode's to change: IOPL, and interrupts off.
        let (exit, after) = run(at!(user_flags), |registers| registers.rdi = 3 << 12)?;
        ensure!(
            exit == Exit::Syscall && after.rflags & (3 << 12 | 1 << 9) == 1 << 9,
            "{exit:?}, flags {:#x}",
            after.rflags
        );
        Ok(())
    }
);

kernel_test!(
    fn user_mode_cannot_return_into_the_kernel() -> Result<(), String> {
        let (exit, after) = run(at!(user_iret), |registers| {
            registers.rdi = (&raw const user_code).addr() as u64;
        })?;
        ensure!(
            matches!(exit, Exit::Exception { vector: 13, .. }) && after.rip < DATA,
            "{exit:?} at {:#x}",
            after.rip
        );
        Ok(())
    }
);

kernel_test!(
    fn single_step_is_an_exception_of_user_mode() -> Result<(), String> {
        let (exit, _) = run(at!(user_flags), |registers| registers.rdi = 1 << 8)?;
        // The instruction behind POPF is SYSCALL: the trap comes behind it or before, but never in the kernel.
        ensure!(
            matches!(exit, Exit::Syscall | Exit::Exception { vector: 1, .. }),
            "{exit:?}"
        );
        Ok(())
    }
);

kernel_test!(
    fn two_programs_share_the_cpu_and_no_memory() -> Result<(), String> {
        let (one, other) = (program()?, program()?);
        let touch = |space: &Arc<Space>, value: u64| {
            common::task(space, move || {
                let mut extra = Extra::new();
                let mut registers = Registers::start(at!(user_store), STACK);
                (registers.rdi, registers.rax) = (DATA, value);
                until_it_ends(&mut registers, &mut extra);
                task::yield_now();
                let mut registers = Registers::start(at!(user_load), STACK);
                registers.rdi = DATA;
                until_it_ends(&mut registers, &mut extra);
                registers.rax
            })
        };
        let (first, second) = (touch(&one, 1)?, touch(&other, 2)?);
        let read = (common::joined(first)?, common::joined(second)?);
        ensure!(read == (1, 2), "{read:?}");
        Ok(())
    }
);
