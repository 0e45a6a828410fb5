//! Unregistering and waking (sections 3.3 and 3.4).

use guest_tests::attempt::{outcome, read, reading, write, writing};
use guest_tests::job;
use guest_tests::proc::page;
use guest_tests::region::*;
use guest_tests::sys::call;
use guest_tests::touch::peek;
use guest_tests::transcript::{check, ok};
use guest_tests::uffd::*;

pub fn run() {
    arguments();
    owners();
    cut_page();
    state();
    waiters();
    wake();
}

fn arguments() {
    let uffd = Uffd::with(0);
    let memory = Region::anon("memory", 4);
    let hole = Region::hole("hole", PAGE);
    for (command, name, fits) in [
        (command::UNREGISTER, "3.3 unregister", "EINVAL"),
        (command::WAKE, "3.4 wake", "ok"),
    ] {
        let row = |what: &str, start: usize, len: usize, want: &str| {
            let got = ok(uffd.words(command, &mut [start as u64, len as u64]));
            check(&format!("{name}: {what}"), got, want);
        };
        check(
            &format!("{name}: unreadable"),
            ok(uffd.ioctl(command, 0)),
            "EFAULT",
        );
        row("start not aligned", memory.start + 1, PAGE, "EINVAL");
        row("length not aligned", memory.start, 1, "EINVAL");
        row("length 0", memory.start, 0, "EINVAL");
        row("start at the end of user space", USER_END, PAGE, "EINVAL");
        row("length wraps", memory.start, usize::MAX - PAGE + 1, "EINVAL");
        row("behind user space", USER_END - PAGE, 2 * PAGE, "EINVAL");
        row("nothing mapped", hole.start, PAGE, fits);
    }
    check("3.4 wake: all of user space", ok(uffd.wake(0, USER_END)), "ok");
    check(
        "3.4 wake: not registered",
        ok(uffd.wake(memory.start, PAGE)),
        "ok",
    );
}

fn owners() {
    let uffd = Uffd::with(0);
    let other = Uffd::with(0);
    let memory = Region::anon("memory", 2);
    check(
        "3.3 unregister: never registered",
        ok(uffd.unregister(memory.start, PAGE)),
        "ok",
    );
    uffd.watch(&memory, MISSING);
    check(
        "3.3 unregister: owned by another",
        ok(other.unregister(memory.start, PAGE)),
        "EINVAL",
    );
    check(
        "3.3 unregister: the owner's still",
        reading(&uffd, memory.start),
        "fault flags 0 at memory",
    );
    check(
        "3.3 unregister: by the owner",
        ok(uffd.unregister(memory.start, memory.len)),
        "ok",
    );
    check(
        "3.3 unregister: twice",
        ok(uffd.unregister(memory.start, memory.len)),
        "ok",
    );
    check(
        "3.3 unregister: the memory is plain",
        reading(&uffd, memory.page(1)),
        "0x00",
    );
    let memory = Region::anon("part", 4);
    uffd.watch(&memory, MISSING);
    check(
        "3.3 unregister: the middle",
        ok(uffd.unregister(memory.page(1), 2 * PAGE)),
        "ok",
    );
    check(
        "3.3 unregister: the middle is plain",
        reading(&uffd, memory.page(2)),
        "0x00",
    );
    check(
        "3.3 unregister: the back is watched",
        reading(&uffd, memory.page(3)),
        "fault flags 0 at part+0x3000",
    );
    if want_huge_pages(1) {
        let huge = Region::huge("huge", 1);
        uffd.watch(&huge, MISSING);
        check(
            "3.3 unregister: hugetlb start not aligned",
            ok(uffd.unregister(huge.start + PAGE, PAGE)),
            "EINVAL",
        );
        check(
            "3.3 unregister: hugetlb",
            ok(uffd.unregister(huge.start, HUGE)),
            "ok",
        );
    }
}

/// What has been done by the time it turns out that the range would part an area within a page.
fn cut_page() {
    if !want_huge_pages(2) {
        return;
    }
    let uffd = Uffd::with(0);
    let huge = Region::huge("huge", 2);
    let second = huge.start + HUGE;
    huge.fill(0, 1, 0x11);
    uffd.watch(&huge, MISSING | WP);
    uffd.writeprotect(huge.start, HUGE, PROTECT)
        .expect("it is registered");
    check(
        "3.3 cut page: a protected one",
        ok(uffd.unregister(huge.start, PAGE)),
        "EINVAL",
    );
    check("3.3 cut page: a write", writing(&uffd, huge.start), "written");
    let waiter = read(second);
    check(
        "3.3 cut page: a waiter",
        outcome(&uffd, &waiter),
        "fault flags 0 at huge+0x200000",
    );
    check(
        "3.3 cut page: its page",
        ok(uffd.unregister(second, PAGE)),
        "EINVAL",
    );
    check(
        "3.3 cut page: the waiter, again",
        outcome(&uffd, &waiter),
        "fault flags 0 at huge+0x200000",
    );
    check(
        "3.3 cut page: to its end",
        ok(uffd.unregister(second, HUGE)),
        "ok",
    );
    check("3.3 cut page: the waiter, after that", waiter.finish(), "0x00");
}

/// What it leaves in the page table.
fn state() {
    let uffd = Uffd::with(feature::WP_UNPOPULATED);
    let memory = Region::anon("memory", 4);
    memory.fill(0, 1, 0x11);
    uffd.watch(&memory, MISSING | WP);
    uffd.writeprotect(memory.start, 2 * PAGE, PROTECT)
        .expect("it is registered");
    check("3.3 poison", uffd.poison(memory.page(2), PAGE, 0), "ok 1p");
    check("3.3 before: a protected page", page(memory.start), "present wp");
    check("3.3 before: a marker", page(memory.page(1)), "0x420000000000003f");
    check("3.3 before: poison", page(memory.page(2)), "0x400000000000005f");
    uffd.unregister(memory.start, memory.len)
        .expect("it is registered");
    check("3.3 after: the page", page(memory.start), "present");
    check("3.3 after: the marker", page(memory.page(1)), "empty");
    check("3.3 after: poison", page(memory.page(2)), "0x400000000000005f");
    check("3.3 after: a write", writing(&uffd, memory.start), "written");
    check(
        "3.3 after: the poisoned page",
        peek(memory.page(2)),
        "SIGBUS code 2 at memory+0x2000",
    );
}

/// Whom it wakes.
fn waiters() {
    for (name, mode, woken) in [
        ("MISSING", MISSING, true),
        ("MISSING and WP", MISSING | WP, true),
        ("WP", WP, false),
        ("MINOR", MINOR, false),
        ("WP and MINOR", WP | MINOR, false),
        ("MISSING, WP and MINOR", MISSING | WP | MINOR, true),
    ] {
        let uffd = Uffd::with(0);
        let object = memfd(2);
        let alias = Region::shared("alias", object, 2);
        let memory = Region::shared("memory", object, 2);
        alias.fill(0, 1, 0x33);
        uffd.watch(&memory, mode);
        // The first access that this mode traps: a protected page, else what is cached and not mapped, else a hole.
        if mode & WP != 0 {
            uffd.protect(&memory);
        }
        let at = if mode == MISSING {
            memory.page(1)
        } else {
            memory.start
        };
        let waiter = write(at, 0x44);
        let told = outcome(&uffd, &waiter);
        check(
            &format!("3.3 waiter of {name}: blocked"),
            told.starts_with("fault"),
            true,
        );
        check(
            &format!("3.3 waiter of {name}: unregister"),
            ok(uffd.unregister(memory.start, memory.len)),
            "ok",
        );
        let state = if woken { waiter.finish() } else { waiter.settle() };
        check(
            &format!("3.3 waiter of {name}: afterwards"),
            state,
            if woken { "written" } else { "blocked" },
        );
        check(
            &format!("3.3 waiter of {name}: WAKE"),
            ok(uffd.wake(memory.start, memory.len)),
            "ok",
        );
        check(
            &format!("3.3 waiter of {name}: at last"),
            waiter.finish(),
            "written",
        );
    }
}

fn wake() {
    let uffd = Uffd::with(0);
    let memory = Region::anon("memory", 4);
    uffd.watch(&memory, MISSING);
    check(
        "3.4 wake before the fault",
        ok(uffd.wake(memory.start, PAGE)),
        "ok",
    );
    let waiter = read(memory.start);
    check(
        "3.4 is not remembered",
        outcome(&uffd, &waiter),
        "fault flags 0 at memory",
    );
    check(
        "3.4 wake of another page",
        ok(uffd.wake(memory.page(1), PAGE)),
        "ok",
    );
    check("3.4 wakes nobody here", waiter.settle(), "blocked");
    check("3.4 wake, unresolved", ok(uffd.wake(memory.start, PAGE)), "ok");
    check(
        "3.4 the thread faults again",
        uffd.told(),
        "fault flags 0 at memory",
    );
    check(
        "3.4 fill without waking",
        uffd.zeropage(memory.start, PAGE, DONTWAKE),
        "ok 1p",
    );
    check("3.4 it sleeps on", waiter.settle(), "blocked");
    check("3.4 wake of everything", ok(uffd.wake(0, USER_END)), "ok");
    check("3.4 it reads", waiter.finish(), "0x00");
    // A message that nobody has read goes with its thread.
    let waiter = read(memory.page(1));
    waiter.settle();
    check(
        "3.4 unread message: fill without waking",
        uffd.zeropage(memory.page(1), PAGE, DONTWAKE),
        "ok 1p",
    );
    check(
        "3.4 unread message: still there",
        uffd.poll(0).map_or(0, i32::from),
        1,
    );
    check(
        "3.4 unread message: wake",
        ok(uffd.wake(memory.page(1), PAGE)),
        "ok",
    );
    check("3.4 unread message: gone", uffd.now(), "EAGAIN");
    check("3.4 unread message: the thread", waiter.finish(), "0x00");
    let waiter = job::start(move || peek(memory.page(2)));
    waiter.settle();
    call(libc::SYS_munmap, &[memory.page(2), PAGE]).expect("munmap works");
    check(
        "3.4 unmapped range with a waiter: it sleeps on",
        waiter.settle(),
        "blocked",
    );
    check(
        "3.4 unmapped range with a waiter: wake",
        ok(uffd.wake(memory.page(2), PAGE)),
        "ok",
    );
    check(
        "3.4 unmapped range with a waiter: what it gets",
        waiter.finish(),
        "SIGSEGV code 1 at memory+0x2000",
    );
}
