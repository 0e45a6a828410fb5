//! Signals for those who wait for a page (section 4.4, end).

use guest_tests::attempt::{outcome, read};
use guest_tests::child::{Child, fork_in_thread};
use guest_tests::job::{self, Job, until};
use guest_tests::region::*;
use guest_tests::signal;
use guest_tests::sys::{self, call};
use guest_tests::touch::peek;
use guest_tests::transcript::{answer, check, ok};
use guest_tests::uffd::*;

use super::kernel_access::{ACCESSES, Access, Waits};

pub fn run() {
    signal::catch(libc::SIGUSR1, libc::SA_RESTART, &[]);
    user_mode();
    kernel_mode();
    for access in ACCESSES {
        by_access(access);
    }
    after_a_look_up();
    killed();
}

fn user_mode() {
    let uffd = Uffd::with(0);
    let area = Region::anon("area", 2);
    uffd.watch(&area, MISSING);
    let waiter = read(area.start);
    check(
        "4.4 a waiter, its message read",
        outcome(&uffd, &waiter),
        "fault flags 0 at area",
    );
    check(
        "4.4 signal",
        ok(signal::tgkill(waiter.tid(), libc::SIGUSR1)),
        "ok",
    );
    check(
        "4.4 signal: the handler runs",
        until(|| signal::count() == 1),
        true,
    );
    check(
        "4.4 signal: a fresh message",
        uffd.told(),
        "fault flags 0 at area",
    );
    check("4.4 signal: one", uffd.now(), "EAGAIN");
    check("4.4 signal: the waiter", waiter.settle(), "blocked");
    uffd.zeropage(area.start, PAGE, 0);
    check("4.4 signal: filled", waiter.finish(), "0x00");
    signal::forget();
    let waiter = read(area.page(1));
    waiter.settle();
    check(
        "4.4 a waiter, its message unread",
        uffd.fdinfo().starts_with("pending: 1, total: 1"),
        true,
    );
    check(
        "4.4 signal to it",
        ok(signal::tgkill(waiter.tid(), libc::SIGUSR1)),
        "ok",
    );
    check(
        "4.4 signal to it: the handler runs",
        until(|| signal::count() == 1),
        true,
    );
    check("4.4 signal to it: it waits again", waiter.settle(), "blocked");
    check(
        "4.4 signal to it: the message",
        uffd.told(),
        "fault flags 0 at area+0x1000",
    );
    check("4.4 signal to it: the old one is gone", uffd.now(), "EAGAIN");
    uffd.zeropage(area.page(1), PAGE, 0);
    check("4.4 signal to it: filled", waiter.finish(), "0x00");
    signal::forget();
}

/// A context, its page, and a task that waits for the page in the kernel and has a signal.
pub fn signalled_in_the_kernel() -> (Uffd, Region, Job) {
    let uffd = Uffd::with(0);
    let area = Region::anon("area", 1);
    uffd.watch(&area, MISSING);
    let (from, to) = sys::pipe2(0).expect("a pipe can be made");
    sys::write(to, b"xy").expect("a pipe takes bytes");
    let at = area.start;
    let waiter = job::start(move || answer(call(libc::SYS_read, &[from as usize, at, 2])));
    check(
        "4.4 in the kernel: a waiter",
        outcome(&uffd, &waiter),
        "fault flags 1 at area",
    );
    check(
        "4.4 in the kernel: signal",
        ok(signal::tgkill(waiter.tid(), libc::SIGUSR1)),
        "ok",
    );
    (uffd, area, waiter)
}

/// In the kernel it tries again and again until the page is there; the handler runs afterwards.
fn kernel_mode() {
    let (uffd, area, waiter) = signalled_in_the_kernel();
    check("4.4 in the kernel: the handler has not run", signal::count(), "0");
    check(
        "4.4 in the kernel: filled",
        uffd.zeropage(area.start, PAGE, 0),
        "ok 1p",
    );
    check("4.4 in the kernel: the call", waiter.finish(), "2");
    check(
        "4.4 in the kernel: the handler",
        until(|| signal::count() == 1),
        true,
    );
    check("4.4 in the kernel: the bytes", peek(area.start), "0x78");
    signal::forget();
}

/// A signal for one who waits in a call: a copy is tried again and again, a page that is looked up is waited for as if there were
/// no signal. The call is not cut short either way.
fn by_access(access: &Access) {
    let touch = access.touch;
    let (flags, done) = access.missing;
    let message = format!("fault flags {flags} at area");
    let name = |what: &str| format!("4.4 signal, {}: {what}", access.name);
    let uffd = Uffd::with(0);
    let area = Region::anon("area", 1);
    uffd.watch(&area, MISSING);
    let at = area.start;
    let waiter = job::start(move || answer(touch(at)));
    check(&name("a waiter"), outcome(&uffd, &waiter), &message);
    check(
        &name("sent"),
        ok(signal::tgkill(waiter.tid(), libc::SIGUSR1)),
        "ok",
    );
    match access.waits {
        Waits::Interruptibly => again_and_again(&name("the message"), &uffd, &message),
        Waits::Killably => {
            check(&name("the waiter"), waiter.settle(), "blocked (D)");
            check(&name("the message"), uffd.now(), "EAGAIN");
        }
    }
    check(&name("the handler has not run"), signal::count(), "0");
    check(&name("filled"), uffd.zeropage(at, PAGE, 0), "ok 1p");
    check(&name("the call"), waiter.finish(), done);
    check(&name("the handler"), until(|| signal::count() == 1), true);
    signal::forget();
}

/// The same message comes three times more.
fn again_and_again(name: &str, uffd: &Uffd, message: &str) {
    for _ in 0..3 {
        check(name, uffd.told(), message);
    }
}

/// A signal that comes while a page is looked up is found by the copy that follows in the same call.
fn after_a_look_up() {
    let uffd = Uffd::with(0);
    let (from, to) = (Region::anon("from", 1), Region::anon("to", 1));
    uffd.watch(&from, MISSING);
    uffd.watch(&to, MISSING);
    let (there, here) = (from.start, to.start);
    let waiter = job::start(move || {
        let (local, remote) = ([here, 8], [there, 8]);
        let (local, remote) = (local.as_ptr() as usize, remote.as_ptr() as usize);
        let number = libc::SYS_process_vm_readv;
        answer(call(
            number,
            &[std::process::id() as usize, local, 1, remote, 1, 0],
        ))
    });
    let name = |what: &str| format!("4.4 signal, process_vm_readv of two pages: {what}");
    check(
        &name("it looks one up"),
        outcome(&uffd, &waiter),
        "fault flags 0 at from",
    );
    check(
        &name("sent"),
        ok(signal::tgkill(waiter.tid(), libc::SIGUSR1)),
        "ok",
    );
    check(&name("the waiter"), waiter.settle(), "blocked (D)");
    check(&name("filled"), uffd.zeropage(there, PAGE, 0), "ok 1p");
    again_and_again(&name("the other's message"), &uffd, "fault flags 1 at to");
    check(&name("the other filled"), uffd.zeropage(here, PAGE, 0), "ok 1p");
    check(&name("the call"), waiter.finish(), "8");
    check(&name("the handler"), until(|| signal::count() == 1), true);
    signal::forget();
}

/// A waiter that is killed takes its message along.
fn killed() {
    let in_kernel: fn(usize) = |at| {
        let _ = call(libc::SYS_gettimeofday, &[at, 0]);
    };
    let in_look_up: fn(usize) = |at| {
        let _ = call(libc::SYS_mlock, &[at, PAGE]);
    };
    let in_user_mode: fn(usize) = |at| {
        let _ = peek(at);
    };
    for (name, touch) in [
        ("in user mode", in_user_mode),
        ("in the kernel", in_kernel),
        ("in mlock", in_look_up),
    ] {
        let uffd = Uffd::with(feature::EVENT_FORK);
        let area = Region::anon("area", 1);
        uffd.watch(&area, MISSING);
        let (at, fd) = (area.start, uffd.fd);
        let forker = fork_in_thread(move || {
            // Not to hold the parent's context.
            let _ = sys::close(fd);
            touch(at);
            0
        });
        let event = uffd.next().expect("a fork is told");
        check(&format!("4.4 SIGKILL {name}: the fork"), event, "fork");
        let theirs = event.forked();
        let child = Child::of(&forker);
        check(
            &format!("4.4 SIGKILL {name}: the child waits"),
            until(|| theirs.poll(0) == Ok(libc::POLLIN)),
            true,
        );
        call(libc::SYS_kill, &[child.pid as usize, libc::SIGKILL as usize]).expect("it is alive");
        check(
            &format!("4.4 SIGKILL {name}: its end"),
            child.wait(),
            "signal SIGKILL",
        );
        check(&format!("4.4 SIGKILL {name}: poll"), answer(theirs.poll(0)), "0");
        check(&format!("4.4 SIGKILL {name}: read"), theirs.now(), "EAGAIN");
    }
}
