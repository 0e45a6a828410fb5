//! Processes: forked, waited for with a limit, and how they ended.
#![expect(unsafe_code, reason = "fork is libc's")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::job::{self, Job, until};
use crate::proc;
use crate::signal;
use crate::sys::{self, Answer};

/// A child process.
pub struct Child {
    /// Its identifier.
    pub pid: i32,
}

/// Forks; the child runs `work` and ends with what it returns.
pub fn fork(work: impl FnOnce() -> i32) -> Child {
    try_fork(work).expect("fork works")
}

/// Forks, or says why not.
pub fn try_fork(work: impl FnOnce() -> i32) -> Answer<Child> {
    // SAFETY: the child uses what is its own: memory, and locks that no other thread of the parent holds meanwhile
    // (programs fork when their threads sleep).
    match unsafe { libc::fork() } {
        -1 => Err(crate::errno::Errno(
            std::io::Error::last_os_error().raw_os_error().unwrap_or(0),
        )),
        0 => end_with(work()),
        pid => Ok(Child { pid }),
    }
}

/// Ends this process, whatever its threads do.
fn end_with(status: i32) -> ! {
    let _ = sys::call(libc::SYS_exit_group, &[status as usize]);
    unreachable!("exit_group does not return");
}

/// Forks in a thread, for forks that wait until somebody has read about them. The job returns the child's identifier;
/// the thread sleeps in its fork, or is through, when this returns.
///
/// libc's fork would hold the allocator's lock all the while. So the call is made past libc, and nobody allocates until
/// the child has been made.
pub fn fork_in_thread(work: impl FnOnce() -> i32 + Send + 'static) -> Job {
    let go = Arc::new(AtomicBool::new(false));
    let theirs = go.clone();
    let job = job::start(move || {
        while !theirs.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        match sys::call(libc::SYS_fork, &[]) {
            Ok(0) => end_with(work()),
            Ok(pid) => pid.to_string(),
            Err(errno) => errno.to_string(),
        }
    });
    go.store(true, Ordering::Release);
    until(|| job.done() || matches!(proc::state(job.tid()), Some('S' | 'D')));
    job
}

impl Child {
    /// The child of a fork in a thread, once that has come back.
    pub fn of(forker: &Job) -> Self {
        Self {
            pid: forker.finish().parse().expect("fork answers a number"),
        }
    }

    /// Waits for the end: `exit 0`, `signal SIGKILL`; a child that does not end in time is killed and called `stuck`.
    pub fn wait(&self) -> String {
        let mut status = 0i32;
        let pid = self.pid as usize;
        let mut ask = |flags: i32| {
            sys::call(
                libc::SYS_wait4,
                &[pid, &raw mut status as usize, flags as usize, 0],
            )
        };
        let mut answer = Ok(0);
        if until(|| {
            answer = ask(libc::WNOHANG);
            answer != Ok(0)
        }) {
            return match answer {
                Ok(_) => ended(status),
                Err(errno) => errno.to_string(),
            };
        }
        let _ = self.kill(libc::SIGKILL);
        let _ = ask(0);
        "stuck".into()
    }

    /// Sends a signal.
    pub fn kill(&self, signal: i32) -> Answer<()> {
        sys::call(libc::SYS_kill, &[self.pid as usize, signal as usize]).map(drop)
    }
}

/// A status of wait4(2) in words.
pub fn ended(status: i32) -> String {
    if libc::WIFEXITED(status) {
        format!("exit {}", libc::WEXITSTATUS(status))
    } else if libc::WIFSIGNALED(status) {
        format!("signal {}", signal::name(libc::WTERMSIG(status)))
    } else if libc::WIFSTOPPED(status) {
        format!("stopped {}", signal::name(libc::WSTOPSIG(status)))
    } else {
        "continued".into()
    }
}
