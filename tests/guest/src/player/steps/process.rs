//! Touches, forks, signals, and what the kernel touches on behalf of a task.
//!
//! ```text
//! r AT · w AT              loads or stores a byte of the page; each actor has its own one, unless AT names a byte
//! fork K · kill K          makes child K; ends it
//! signal ACTOR             SIGUSR1, whose handler does nothing
//! vmread AT LEN · vmwrite AT LEN     process_vm_readv and _writev of one byte per page
//! sysread AT · syswrite AT           read(2) into the page, write(2) from it, of one byte by way of a pipe
//! ```

use std::fmt::Write;
use std::sync::atomic::Ordering;

use guest_tests::sys;

use super::super::arena::PAGE;
use super::super::control::{ACTORS, Control, THREADS};
use super::super::touch;
use super::{Bad, Outcome, Words, say, say_ok};

/// Pages that `vmread` and `vmwrite` reach, at most.
const MOST: usize = 32;

pub fn touch(verb: &str, words: &mut Words<'_>, out: &mut impl Write) -> Outcome {
    let mut at = words.address()?;
    if at % PAGE == 0 {
        at += words.own_byte();
    }
    let touched = match verb {
        "r" => touch::load(at),
        _ => touch::store(at, words.value()).map(|()| words.value()),
    };
    match touched {
        Ok(value) => write!(out, "{value:#04x}")?,
        Err(raised) => write!(out, "{raised}")?,
    }
    Ok(())
}

pub fn carry_out(verb: &str, words: &mut Words<'_>, out: &mut impl Write) -> Outcome {
    let control = words.stage.control;
    match verb {
        "kill" => {
            let child = child(words)?;
            match kill(control, child) {
                Some(status) => Ok(write!(out, "{status:#x}")?),
                None => Ok(out.write_str("no such child")?),
            }
        }
        "signal" => {
            let name = words.word()?;
            let actor = ACTORS.iter().position(|actor| *actor == name).ok_or(Bad(name))?;
            interrupt(control, actor);
            Ok(out.write_str("ok")?)
        }
        "vmread" | "vmwrite" => copy_across(verb == "vmwrite", words, out),
        _ => through_a_pipe(verb == "sysread", words, out),
    }
}

fn child(words: &mut Words<'_>) -> Outcome<usize> {
    match words.number()? {
        child if (child as usize) < ACTORS.len() - THREADS => Ok(THREADS + child as usize),
        _ => Err(Bad("no such child")),
    }
}

/// Forks. In the child, answers who it is.
pub fn fork(words: &mut Words<'_>, out: &mut impl Write) -> Outcome<Option<usize>> {
    let (control, me) = (words.stage.control, words.stage.me);
    let actor = child(words)?;
    let slot = control.slot(actor);
    // A child that is still being made has its place already.
    if me >= THREADS || slot.pid.load(Ordering::Relaxed) != 0 {
        out.write_str("no place for a child")?;
        return Ok(None);
    }
    slot.tid.store(0, Ordering::Relaxed);
    match sys::call(libc::SYS_fork, &[]) {
        Ok(0) => return Ok(Some(actor)),
        Ok(pid) => {
            slot.pid.store(pid as u32, Ordering::Release);
            out.write_str("ok")?;
        }
        Err(errno) => write!(out, "{errno}")?,
    }
    Ok(None)
}

/// Whether the kernel looks pages up in the course of the step: it waits for one as it does for an event to be read, with no
/// ear for signals.
pub fn looks_pages_up(what: &str) -> bool {
    const VERBS: [&str; 3] = ["vmread", "vmwrite", "lock"];
    let verb = what.split(' ').next().unwrap_or_default();
    VERBS.contains(&verb) || what.contains(" pop")
}

/// The child that a step kills.
pub fn killed(what: &str) -> Option<usize> {
    let child: usize = what.strip_prefix("kill ")?.parse().ok()?;
    (child < ACTORS.len() - THREADS).then_some(THREADS + child)
}

/// Kills a child and waits for its end. Answers its status.
pub fn kill(control: &Control, actor: usize) -> Option<i32> {
    let slot = control.slot(actor);
    let pid = slot.pid.load(Ordering::Relaxed) as usize;
    if pid == 0 {
        return None;
    }
    let _ = sys::call(libc::SYS_kill, &[pid, libc::SIGKILL as usize]);
    let mut status = 0_i32;
    // Not asleep: whoever waits for a child's end is not quiet.
    while sys::call(
        libc::SYS_wait4,
        &[pid, &raw mut status as usize, libc::WNOHANG as usize, 0],
    ) == Ok(0)
    {
        let _ = sys::call(libc::SYS_sched_yield, &[]);
    }
    slot.vacate();
    Some(status)
}

/// Sends SIGUSR1 to a thread of this process.
pub fn interrupt(control: &Control, actor: usize) {
    let pid = sys::call(libc::SYS_getpid, &[]).unwrap_or_default();
    let tid = control.slot(actor).tid.load(Ordering::Relaxed) as usize;
    let _ = sys::call(libc::SYS_tgkill, &[pid, tid, libc::SIGUSR1 as usize]);
}

fn copy_across(write: bool, words: &mut Words<'_>, out: &mut impl Write) -> Outcome {
    let (at, len) = (words.address()?, words.length()?);
    let pages = len / PAGE;
    if pages > MOST {
        return Err(Bad("too many pages"));
    }
    let mut bytes = [words.value(); MOST];
    let mut far = [[0_usize; 2]; MOST];
    for (page, far) in far.iter_mut().enumerate() {
        *far = [at + page * PAGE + words.own_byte(), 1];
    }
    let near = [bytes.as_mut_ptr() as usize, pages];
    let pid = sys::call(libc::SYS_getpid, &[]).unwrap_or_default();
    let number = if write {
        libc::SYS_process_vm_writev
    } else {
        libc::SYS_process_vm_readv
    };
    let done = sys::call(
        number,
        &[
            pid,
            &raw const near as usize,
            1,
            &raw const far as usize,
            pages,
            0,
        ],
    );
    say(out, done)?;
    if !write {
        for byte in &bytes[..done.unwrap_or_default()] {
            write!(out, " {byte:#04x}")?;
        }
    }
    Ok(())
}

fn through_a_pipe(read: bool, words: &mut Words<'_>, out: &mut impl Write) -> Outcome {
    let at = words.address()? + words.own_byte();
    let mut ends = [0_i32; 2];
    if sys::call(
        libc::SYS_pipe2,
        &[&raw mut ends as usize, libc::O_CLOEXEC as usize],
    )
    .is_err()
    {
        return Err(Bad("no pipe"));
    }
    let [from, to] = ends.map(|end| end as usize);
    let mut value = words.value();
    if read {
        let _ = sys::call(libc::SYS_write, &[to, &raw const value as usize, 1]);
        say_ok(out, sys::call(libc::SYS_read, &[from, at, 1]))?;
    } else {
        let written = sys::call(libc::SYS_write, &[to, at, 1]);
        say_ok(out, written)?;
        if written.is_ok() {
            let _ = sys::call(libc::SYS_read, &[from, &raw mut value as usize, 1]);
            write!(out, " {value:#04x}")?;
        }
    }
    let _ = sys::call(libc::SYS_close, &[from]);
    let _ = sys::call(libc::SYS_close, &[to]);
    Ok(())
}
