//! The life of a descriptor and of the space it belongs to (section 4.9).

use std::ffi::CString;

use guest_tests::attempt::{outcome, read, write};
use guest_tests::child::fork;
use guest_tests::job::until;
use guest_tests::proc::page;
use guest_tests::region::*;
use guest_tests::sys::{self, call};
use guest_tests::touch::{peek, poke, until_byte};
use guest_tests::transcript::{answer, check, ok};
use guest_tests::uffd::*;

pub fn run() {
    close();
    duplicates();
    held_by_a_child();
    target_gone("exited", false);
    target_gone("executed another program", true);
}

fn close() {
    let uffd = Uffd::with(0);
    let area = Region::anon("area", 4);
    area.fill(0, 1, 0x11);
    uffd.watch(&area, MISSING | WP);
    uffd.writeprotect(area.start, PAGE, PROTECT)
        .expect("it is registered");
    let reader = read(area.page(1));
    let writer = write(area.page(2), 0x22);
    let protected = write(area.start, 0x33);
    check(
        "4.9 close: a reader",
        outcome(&uffd, &reader),
        "fault flags 0 at area+0x1000",
    );
    check(
        "4.9 close: a writer",
        outcome(&uffd, &writer),
        "fault flags 1 at area+0x2000",
    );
    check(
        "4.9 close: a writer to a protected page",
        outcome(&uffd, &protected),
        "fault flags 3 at area",
    );
    drop(uffd);
    check("4.9 close: the reader", reader.finish(), "0x00");
    check("4.9 close: the writer", writer.finish(), "written");
    check(
        "4.9 close: the writer to a protected page",
        protected.finish(),
        "written",
    );
    check(
        "4.9 close: VmFlags",
        guest_tests::proc::uffd_flags(area.start),
        "none",
    );
    check("4.9 close: the protection", page(area.start), "present");
    check("4.9 close: a missing page", peek(area.page(3)), "0x00");
}

/// Only the last descriptor counts.
fn duplicates() {
    let uffd = Uffd::with(0);
    let area = Region::anon("area", 2);
    uffd.watch(&area, MISSING);
    let reader = read(area.start);
    check(
        "4.9 dup: a reader",
        outcome(&uffd, &reader),
        "fault flags 0 at area",
    );
    let copy = Uffd {
        fd: call(libc::SYS_dup, &[uffd.fd as usize]).expect("dup works") as i32,
    };
    drop(uffd);
    check("4.9 dup: one of two is closed", reader.settle(), "blocked");
    check(
        "4.9 dup: the other one fills",
        copy.zeropage(area.start, PAGE, 0),
        "ok 1p",
    );
    check("4.9 dup: the reader", reader.finish(), "0x00");
    let reader = read(area.page(1));
    reader.settle();
    drop(copy);
    check("4.9 dup: both are closed", reader.finish(), "0x00");
}

/// A child with an inherited descriptor acts on the parent's memory.
fn held_by_a_child() {
    let uffd = Uffd::with(0);
    let area = Region::anon("area", 3);
    let source = Region::filled("source", 1, 0x5c);
    uffd.watch(&area, MISSING);
    let reader = read(area.start);
    reader.settle();
    let child = fork(|| {
        // The child's copy is its own by now.
        source.fill(0, 1, 0x6d);
        check(
            "4.9 child with the parent's: it reads the message",
            uffd.now(),
            "fault flags 0 at area",
        );
        check(
            "4.9 child with the parent's: COPY",
            uffd.copy(area.start, source.start, PAGE, 0),
            "ok 1p",
        );
        check(
            "4.9 child with the parent's: its own page",
            peek(area.start),
            "0x00",
        );
        check(
            "4.9 child with the parent's: MOVE",
            uffd.move_pages(area.page(1), source.start, PAGE, 0),
            "EINVAL field untouched",
        );
        check(
            "4.9 child with the parent's: ZEROPAGE",
            uffd.zeropage(area.page(1), PAGE, 0),
            "ok 1p",
        );
        check(
            "4.9 child with the parent's: UNREGISTER",
            ok(uffd.unregister(area.page(2), PAGE)),
            "ok",
        );
        0
    });
    check("4.9 child with the parent's: its end", child.wait(), "exit 0");
    check("4.9 child with the parent's: the reader", reader.finish(), "0x6d");
    check(
        "4.9 child with the parent's: the zeros",
        page(area.page(1)),
        "present",
    );
    check(
        "4.9 child with the parent's: unregistered",
        outcome(&uffd, &read(area.page(2))),
        "0x00",
    );
    // The parent's descriptor is closed while a child holds it.
    let flag = Region::common("flag");
    let area = Region::anon("later", 1);
    uffd.watch(&area, MISSING);
    let reader = read(area.start);
    reader.settle();
    let child = fork(|| i32::from(!until_byte(flag.start, 1)));
    drop(uffd);
    check(
        "4.9 closed, a child holds it: the reader",
        reader.settle(),
        "blocked",
    );
    poke(flag.start, 1);
    check("4.9 closed, a child held it: its end", child.wait(), "exit 0");
    check("4.9 closed, nobody holds it: the reader", reader.finish(), "0x00");
}

/// A holder outlives the space that the descriptor belongs to.
fn target_gone(how: &str, by_exec: bool) {
    let flag = Region::common("flag");
    let (end_from, end_to) = sys::pipe2(libc::O_CLOEXEC).expect("a pipe can be made");
    let (stay_from, stay_to) = sys::pipe2(libc::O_CLOEXEC).expect("a pipe can be made");
    let target = fork(|| {
        let uffd = Uffd::with(0);
        let area = Region::anon("area", 2);
        let source = Region::filled("source", 1, 1);
        uffd.watch(&area, MISSING | WP);
        // The holder keeps the pipe's end open until it has told everything; nobody waits for it as a child.
        let holder = || {
            let _ = sys::close(end_from);
            let _ = sys::close(stay_to);
            until_byte(flag.start, 1);
            gone(&uffd, how, &area, &source);
            0
        };
        let _ = fork(holder);
        if by_exec {
            let _ = call(libc::SYS_dup2, &[stay_from as usize, 0]);
            let words = ["guest-tests", "role", "wait"].map(|word| CString::new(word).expect("no NUL"));
            let mut argv: Vec<usize> = words.iter().map(|word| word.as_ptr() as usize).collect();
            argv.push(0);
            let path = c"/proc/self/exe".as_ptr() as usize;
            let environment = [0usize];
            let _ = call(
                libc::SYS_execve,
                &[path, argv.as_ptr() as usize, environment.as_ptr() as usize],
            );
            return 97;
        }
        0
    });
    let _ = sys::close(end_to);
    let _ = sys::close(stay_from);
    if by_exec {
        // The new program is there once the process has a short name of it again and its memory is another: its command
        // line says `role`.
        let path = format!("/proc/{}/cmdline", target.pid);
        let there =
            until(|| std::fs::read(&path).is_ok_and(|text| text.windows(4).any(|word| word == b"role")));
        check(&format!("4.9 target {how}: it runs"), there, true);
    } else {
        check(&format!("4.9 target {how}: its end"), target.wait(), "exit 0");
    }
    poke(flag.start, 1);
    check(
        &format!("4.9 target {how}: the holder is through"),
        answer(sys::read(end_from, &mut [0; 1])),
        "0",
    );
    let _ = sys::close(stay_to);
    if by_exec {
        check(&format!("4.9 target {how}: its end"), target.wait(), "exit 0");
    }
    let _ = sys::close(end_from);
}

/// What a descriptor answers whose space is gone.
fn gone(uffd: &Uffd, how: &str, area: &Region, source: &Region) {
    let name = |what: &str| format!("4.9 target {how}: {what}");
    let at = area.start;
    check(
        &name("COPY"),
        uffd.copy(at, source.start, PAGE, 0),
        "ESRCH field untouched",
    );
    check(
        &name("ZEROPAGE"),
        uffd.zeropage(at, PAGE, 0),
        "ESRCH field untouched",
    );
    check(&name("CONTINUE"), uffd.cont(at, PAGE, 0), "ESRCH field untouched");
    check(&name("POISON"), uffd.poison(at, PAGE, 0), "ESRCH field untouched");
    check(
        &name("COPY, bad range"),
        uffd.copy(at + 1, source.start, PAGE, 0),
        "EINVAL field untouched",
    );
    check(&name("WRITEPROTECT"), ok(uffd.writeprotect(at, PAGE, 1)), "ESRCH");
    check(
        &name("WRITEPROTECT, bad mode"),
        ok(uffd.writeprotect(at, PAGE, 3)),
        "EINVAL",
    );
    check(
        &name("MOVE"),
        uffd.move_pages(at, source.start, PAGE, 0),
        "EINVAL field untouched",
    );
    check(&name("REGISTER"), ok(uffd.register(at, PAGE, MISSING)), "ENOMEM");
    check(
        &name("REGISTER, bad mode"),
        ok(uffd.register(at, PAGE, 0)),
        "EINVAL",
    );
    check(&name("UNREGISTER"), ok(uffd.unregister(at, PAGE)), "ENOMEM");
    check(&name("WAKE"), ok(uffd.wake(at, PAGE)), "ok");
    check(&name("poll"), answer(uffd.poll(0)), "0");
    check(&name("read"), uffd.now(), "EAGAIN");
}
