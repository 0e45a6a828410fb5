//! Commands that look at the machine and end well: for tests of the hypervisor.

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use kernel::abi::guest::{BootInfo, Call, PAGE, Status};
use kernel::guest::calls;
use kernel::println;
use kernel::task;
use kernel::trace::cmdline::Cmdline;

use crate::commands::{Command, Failure};

/// See each function.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "hello",
        run: hello,
    },
    Command {
        name: "leave",
        run: leave,
    },
    Command {
        name: "sleep",
        run: sleep,
    },
    Command {
        name: "refusals",
        run: refusals,
    },
];

/// `hello`: says what the machine is.
fn hello(line: &Cmdline<'_>, given: &'static BootInfo) -> Result<String, Failure> {
    line.allow(&[])?;
    println!(
        "memory {} KiB, free from {:#x}; delegated {} KiB at {:#x}; store {} KiB at {:#x}",
        given.memory_len / 1024,
        given.free_start,
        given.delegated_len / 1024,
        given.delegated_start,
        given.store_len / 1024,
        given.store_start
    );
    println!("{}", kernel::arch::x86_64::timer::Summary);
    Ok("hello".into())
}

/// `leave status=N`: ends with this number.
fn leave(line: &Cmdline<'_>, _: &'static BootInfo) -> Result<String, Failure> {
    line.allow(&["status"])?;
    let status = line.required_number("status", 0, u64::MAX)?;
    calls::leave(status)
}

/// `sleep ms=N`: does nothing for a while, so that only the timer can go on.
fn sleep(line: &Cmdline<'_>, _: &'static BootInfo) -> Result<String, Failure> {
    line.allow(&["ms"])?;
    let wanted = Duration::from_millis(line.number("ms", 1, 1 << 20)?.unwrap_or(50));
    let before = task::now();
    task::sleep(wanted);
    let slept = task::now() - before;
    if slept < wanted {
        return Err(Failure::Failed(format!("slept {slept:?} instead of {wanted:?}")));
    }
    Ok(format!("slept {} ms", slept.as_millis()))
}

/// `refusals`: makes every call in every way that is to be refused, and checks what is said.
#[expect(unsafe_code, reason = "calls that are to change nothing")]
fn refusals(line: &Cmdline<'_>, given: &'static BootInfo) -> Result<String, Failure> {
    line.allow(&[])?;
    let delegated = given.delegated_start;
    let beyond = delegated + given.delegated_len;
    let own = given.free_start;
    let cases: &[(&str, u64, [u64; 4], Status)] = &[
        ("no call", 0, [0; 4], Status::NoSuchCall),
        ("no such call", 0x464c_ffff, [0; 4], Status::NoSuchCall),
        (
            "timer on an exception's vector",
            Call::Timer as u64,
            [1 << 20, 31, 0, 0],
            Status::Invalid,
        ),
        (
            "timer on no vector",
            Call::Timer as u64,
            [1 << 20, 256, 0, 0],
            Status::Invalid,
        ),
        (
            "monitor on an exception's vector",
            Call::Monitor as u64,
            [own, 14, 0, 0],
            Status::Invalid,
        ),
        (
            "monitor with a ring off the page",
            Call::Monitor as u64,
            [own + 8, 0x50, 0, 0],
            Status::Invalid,
        ),
        (
            "monitor told in no way",
            Call::Monitor as u64,
            [own, 0x50, 2, 0],
            Status::Invalid,
        ),
        (
            "monitor with a delegated ring",
            Call::Monitor as u64,
            [delegated, 0x50, 0, 0],
            Status::BadAddress,
        ),
        (
            "monitor with a ring nowhere",
            Call::Monitor as u64,
            [1 << 45, 0x50, 0, 0],
            Status::BadAddress,
        ),
        (
            "exempt nothing",
            Call::Exempt as u64,
            [delegated, 0, 0, 0],
            Status::Invalid,
        ),
        (
            "exempt ordinary memory",
            Call::Exempt as u64,
            [own, PAGE, 0, 0],
            Status::BadAddress,
        ),
        (
            "exempt past the end",
            Call::Exempt as u64,
            [delegated, given.delegated_len + PAGE, 0, 0],
            Status::BadAddress,
        ),
        (
            "copy to half a page",
            Call::Copy as u64,
            [delegated, own, PAGE / 2, 0],
            Status::Invalid,
        ),
        (
            "copy to between pages",
            Call::Copy as u64,
            [delegated + 8, own, PAGE, 0],
            Status::Invalid,
        ),
        (
            "copy to ordinary memory",
            Call::Copy as u64,
            [own, own + PAGE, PAGE, 0],
            Status::BadAddress,
        ),
        (
            "copy past the end",
            Call::Copy as u64,
            [beyond, own, PAGE, 0],
            Status::BadAddress,
        ),
        (
            "copy of delegated memory",
            Call::Copy as u64,
            [delegated, delegated, PAGE, 0],
            Status::BadAddress,
        ),
        (
            "copy of nothing",
            Call::Copy as u64,
            [delegated, 1 << 45, PAGE, 0],
            Status::BadAddress,
        ),
        (
            "copy that wraps",
            Call::Copy as u64,
            [delegated, own, 0u64.wrapping_sub(PAGE), 0],
            Status::Invalid,
        ),
        (
            "continue nothing",
            Call::Continue as u64,
            [delegated, 0, 0, 0],
            Status::Invalid,
        ),
        (
            "continue ordinary memory",
            Call::Continue as u64,
            [own, PAGE, 0, 0],
            Status::BadAddress,
        ),
        (
            "zeros to ordinary memory",
            Call::Zeropage as u64,
            [own, PAGE, 0, 0],
            Status::BadAddress,
        ),
        (
            "resolve nothing",
            Call::Resolve as u64,
            [1 << 45, 0, 0, 0],
            Status::BadAddress,
        ),
        (
            "resolve two accesses at once",
            Call::Resolve as u64,
            [delegated, 3, 0, 0],
            Status::Invalid,
        ),
    ];
    for (what, number, arguments, expected) in cases {
        // SAFETY: none of them is carried out; if one is, the check below says so.
        let (status, _) = unsafe { calls::raw(*number, *arguments) };
        if status != *expected as u64 {
            return Err(Failure::Failed(format!(
                "{what}: {status} instead of {expected:?}"
            )));
        }
    }
    Ok(format!("{} calls were refused as they should be", cases.len()))
}
