//! Runs programs, one process each, and frames their transcripts.
#![expect(unsafe_code, reason = "fork and signal handlers are libc's")]

use std::process::ExitCode;

use guest_tests::errno::Errno;
use guest_tests::sys;
use guest_tests::transcript::{failures, say};

use crate::programs::Program;

/// Runs the programs in order. A program that is over its time is killed with its whole process group.
pub fn run<'a>(programs: impl Iterator<Item = &'a Program>) -> ExitCode {
    interrupt_on_alarm();
    let mut all_well = true;
    for program in programs {
        say(format_args!("=== {}", program.name));
        let end = run_one(program);
        all_well &= end == "exit 0";
        say(format_args!("=== {}: {end}", program.name));
    }
    if all_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs one program in a process of its own, and says how it ended.
fn run_one(program: &Program) -> String {
    // SAFETY: this process has one thread.
    let child = unsafe { libc::fork() };
    match child {
        -1 => "cannot fork".into(),
        0 => {
            let _ = sys::call(libc::SYS_setpgid, &[0, 0]);
            (program.run)();
            std::process::exit(i32::from(failures() > 0));
        }
        child => wait(child, program.seconds),
    }
}

/// Waits for the process, and ends it and its group when it is over its time.
pub fn wait(child: i32, seconds: u32) -> String {
    let _ = sys::call(libc::SYS_alarm, &[seconds as usize]);
    let mut late = false;
    let status = loop {
        let mut status = 0i32;
        match sys::call(libc::SYS_wait4, &[child as usize, &raw mut status as usize, 0, 0]) {
            Ok(_) => break status,
            Err(Errno(libc::EINTR)) => {
                late = true;
                let _ = sys::call(libc::SYS_kill, &[child as usize, libc::SIGKILL as usize]);
            }
            Err(errno) => return format!("wait4 says {errno}"),
        }
    };
    let _ = sys::call(libc::SYS_alarm, &[0]);
    // What the program has left behind must not disturb the next one.
    let _ = sys::call(libc::SYS_kill, &[-child as usize, libc::SIGKILL as usize]);
    if late {
        format!("out of time ({seconds} s)")
    } else if libc::WIFEXITED(status) {
        format!("exit {}", libc::WEXITSTATUS(status))
    } else {
        format!("signal {}", libc::WTERMSIG(status))
    }
}

/// Lets SIGALRM interrupt a wait without restarting it.
pub fn interrupt_on_alarm() {
    extern "C" fn nothing(_: i32) {}
    // SAFETY: the structure is plain data, and the handler does nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut());
    }
}
