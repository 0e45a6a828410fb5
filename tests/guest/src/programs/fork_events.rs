//! Fork under a userfaultfd, with and without EVENT_FORK (section 4.8, end).

use guest_tests::attempt::{outcome, read};
use guest_tests::child::{self, Child, fork_in_thread};
use guest_tests::proc::page;
use guest_tests::region::*;
use guest_tests::sys::{self, call};
use guest_tests::touch::{peek, poke, until_byte};
use guest_tests::transcript::{answer, check, ok};
use guest_tests::uffd::*;

pub fn run() {
    without();
    with();
    protection();
    two_contexts();
    closed_by_the_parent();
    closed_by_a_child();
    no_descriptor();
}

fn without() {
    let uffd = Uffd::with(0);
    let area = Region::anon("area", 3);
    area.fill(0, 1, 0x11);
    uffd.watch(&area, MISSING | WP);
    uffd.writeprotect(area.start, PAGE, PROTECT)
        .expect("it is registered");
    let child = child::fork(|| {
        check(
            "4.8 fork without the feature, child: a missing page",
            peek(area.page(1)),
            "0x00",
        );
        check(
            "4.8 fork without the feature, child: a protected page",
            poke(area.start, 1),
            "written",
        );
        check(
            "4.8 fork without the feature, child: not registered",
            guest_tests::proc::uffd_flags(area.start),
            "none",
        );
        0
    });
    check("4.8 fork without the feature: the child", child.wait(), "exit 0");
    check("4.8 fork without the feature: no event", uffd.now(), "EAGAIN");
    check(
        "4.8 fork without the feature: the parent's is registered",
        outcome(&uffd, &read(area.page(1))),
        "fault flags 0 at area+0x1000",
    );
    check(
        "4.8 fork without the feature: the parent's protection",
        page(area.start),
        "present wp",
    );
}

fn with() {
    let uffd = Uffd::with(feature::EVENT_FORK | feature::EVENT_REMOVE | feature::EXACT_ADDRESS);
    let area = Region::anon("area", 4);
    let flag = Region::common("flag");
    area.fill(0, 1, 0x11);
    uffd.watch(&area, MISSING);
    let fd = uffd.fd;
    let forker = fork_in_thread(move || {
        // The child's own copy of the parent's descriptor is of no use to it.
        let _ = sys::close(fd);
        poke(flag.start, 1);
        let got = peek(area.page(1) + 5);
        poke(flag.start, 2);
        let _ = area.advise(libc::MADV_DONTNEED);
        i32::from(got != guest_tests::touch::Touch::Byte(0x5c))
    });
    check("4.8 fork: the caller", forker.settle(), "blocked (D)");
    check("4.8 fork: the child does not run yet", peek(flag.start), "0x00");
    check(
        "4.8 fork: fills meanwhile",
        uffd.zeropage(area.page(3), PAGE, 0),
        "EAGAIN field -EAGAIN",
    );
    let event = uffd.next().expect("a fork is told");
    check("4.8 fork: the message", event, "fork");
    check(
        "1.3 message of a fork: the rest is zero",
        event.0[0] == 0x13 && event.0[1] >> 32 == 0 && event.0[2..] == [0, 0],
        true,
    );
    check("4.8 fork: one message", uffd.now(), "EAGAIN");
    let theirs = event.forked();
    let child = Child::of(&forker);
    check(
        "4.8 fork: the new descriptor: F_GETFD",
        answer(sys::fcntl(theirs.fd, libc::F_GETFD, 0)),
        "1",
    );
    check(
        "4.8 fork: the new descriptor: F_GETFL",
        answer(sys::fcntl(theirs.fd, libc::F_GETFL, 0)),
        "2048",
    );
    check(
        "4.8 fork: the child's fault",
        theirs.told(),
        "fault flags 0 at area+0x1005",
    );
    check("4.8 fork: nothing for the parent's", uffd.now(), "EAGAIN");
    check("4.8 fork: the child runs", peek(flag.start), "0x01");
    let features = "API: aa:8000080a:80000000000001ff";
    check(
        "4.8 fork: the new descriptor: features",
        theirs.fdinfo().ends_with(features),
        true,
    );
    let source = Region::filled("source", 1, 0x5c);
    check(
        "4.8 fork: COPY for the child",
        theirs.copy(area.page(1), source.start, PAGE, 0),
        "ok 1p",
    );
    check("4.8 fork: the child goes on", until_byte(flag.start, 2), true);
    check(
        "4.8 fork: the child's event",
        theirs.told(),
        "remove area to area+0x4000",
    );
    check("4.8 fork: the child's end", child.wait(), "exit 0");
    check("4.8 fork: the parent's page", page(area.page(1)), "empty");
    check(
        "4.8 fork: the child's space is gone",
        theirs.zeropage(area.start, PAGE, 0),
        "ESRCH field untouched",
    );
    check(
        "4.8 fork: the parent's is alive",
        uffd.zeropage(area.page(1), PAGE, 0),
        "ok 1p",
    );
}

/// The child keeps protection and markers.
fn protection() {
    let uffd = Uffd::with(feature::EVENT_FORK | feature::WP_UNPOPULATED);
    let area = Region::anon("area", 3);
    area.fill(0, 1, 0x11);
    uffd.watch(&area, WP);
    uffd.writeprotect(area.start, 2 * PAGE, PROTECT)
        .expect("it is registered");
    let fd = uffd.fd;
    let forker = fork_in_thread(move || {
        let _ = sys::close(fd);
        check(
            "4.8 fork, child: a protected page",
            page(area.start),
            "present wp",
        );
        check(
            "4.8 fork, child: a marker",
            page(area.page(1)),
            "0x420000000000003f",
        );
        check(
            "4.8 fork, child: VmFlags",
            guest_tests::proc::uffd_flags(area.start),
            "uw",
        );
        poke(area.start, 0x22);
        0
    });
    let event = uffd.next().expect("a fork is told");
    let theirs = event.forked();
    let child = Child::of(&forker);
    check(
        "4.8 fork, child: its write",
        theirs.told(),
        "fault flags 3 at area",
    );
    check(
        "4.8 fork: unprotect in the child",
        ok(theirs.writeprotect(area.start, PAGE, 0)),
        "ok",
    );
    check("4.8 fork: the child that wrote", child.wait(), "exit 0");
    check("4.8 fork: the parent's page", peek(area.start), "0x11");
    check(
        "4.8 fork: the parent's protection",
        page(area.start),
        "present wp",
    );
}

/// One event for each context.
fn two_contexts() {
    let first = Uffd::with(feature::EVENT_FORK);
    let second = Uffd::with(feature::EVENT_FORK);
    let without = Uffd::with(0);
    let area = Region::anon("area", 3);
    first.register(area.start, PAGE, MISSING).expect("it is free");
    second.register(area.page(1), PAGE, MISSING).expect("it is free");
    without.register(area.page(2), PAGE, MISSING).expect("it is free");
    let forker = fork_in_thread(|| 0);
    let told = first.next().expect("a fork is told");
    check("4.8 fork of two contexts: the first", told, "fork");
    check(
        "4.8 fork of two contexts: it waits for the second",
        forker.settle(),
        "blocked (D)",
    );
    let other = second.next().expect("a fork is told");
    check("4.8 fork of two contexts: the second", other, "fork");
    check(
        "4.8 fork of two contexts: the child",
        Child::of(&forker).wait(),
        "exit 0",
    );
    check(
        "4.8 fork of two contexts: the one without the feature",
        without.now(),
        "EAGAIN",
    );
    let _ = sys::close(told.descriptor());
    let _ = sys::close(other.descriptor());
    // A context that has nothing registered is not told.
    let idle = Uffd::with(feature::EVENT_FORK);
    drop((first, second));
    let child = child::fork(|| 0);
    check("4.8 fork, nothing registered: the child", child.wait(), "exit 0");
    check("4.8 fork, nothing registered: no event", idle.now(), "EAGAIN");
}

/// The half-made child holds the descriptor too, so closing the parent's does not let the fork go on.
fn closed_by_the_parent() {
    let outer = child::fork(|| {
        let uffd = Uffd::with(feature::EVENT_FORK);
        let area = Region::anon("area", 1);
        uffd.watch(&area, MISSING);
        let forker = fork_in_thread(|| 0);
        check(
            "4.8 fork, closed by the parent: the caller",
            forker.settle(),
            "blocked (D)",
        );
        drop(uffd);
        check(
            "4.8 fork, closed by the parent: the caller then",
            forker.finish_soon(),
            "still blocked (D)",
        );
        // A fatal signal ends it.
        let _ = call(
            libc::SYS_kill,
            &[std::process::id() as usize, libc::SIGKILL as usize],
        );
        0
    });
    check(
        "4.8 fork, closed by the parent: killed",
        outer.wait(),
        "signal SIGKILL",
    );
}

/// Without a free descriptor the event stays.
/// The parent has closed the descriptor, and a child that has inherited it ends while another fork waits to be read about: that
/// other child has not inherited it, so that nobody can read any more.
fn closed_by_a_child() {
    let row = |what: &str| format!("4.8 the last descriptor is a child's: {what}");
    let uffd = Uffd::with(feature::EVENT_FORK);
    let area = Region::anon("area", 1);
    uffd.watch(&area, MISSING);
    let forked = || {
        let _ = call(libc::SYS_pause, &[]);
        0
    };
    let first = fork_in_thread(forked);
    check(&row("the first fork"), first.settle(), "blocked (D)");
    let message = uffd.next().expect("it was told");
    let _ = sys::close(message.descriptor());
    let child = Child::of(&first);
    drop(uffd);
    let second = fork_in_thread(forked);
    check(&row("the second fork"), second.settle(), "blocked (D)");
    let _ = child.kill(libc::SIGKILL);
    check(&row("the first child"), child.wait(), "signal SIGKILL");
    let other = Child::of(&second);
    check(&row("a page is just a page"), peek(area.start), "0x00");
    let _ = other.kill(libc::SIGKILL);
    check(&row("the second child"), other.wait(), "signal SIGKILL");
}

fn no_descriptor() {
    let uffd = Uffd::with(feature::EVENT_FORK);
    let area = Region::anon("area", 1);
    uffd.watch(&area, MISSING);
    let limit = |soft: u64| {
        let new = [soft, 4096u64];
        call(
            libc::SYS_prlimit64,
            &[0, libc::RLIMIT_NOFILE as usize, new.as_ptr() as usize, 0],
        )
    };
    let forker = fork_in_thread(|| 0);
    forker.settle();
    check(
        "4.7 fork without a free descriptor: the limit",
        ok(limit(0)),
        "ok",
    );
    check("4.7 fork without a free descriptor: read", uffd.now(), "EMFILE");
    check("4.7 fork without a free descriptor: again", uffd.now(), "EMFILE");
    check(
        "4.7 fork without a free descriptor: poll",
        answer(uffd.poll(0)),
        "EINVAL",
    );
    check(
        "4.7 fork without a free descriptor: the limit is back",
        ok(limit(1024)),
        "ok",
    );
    check(
        "4.7 fork without a free descriptor: the caller",
        forker.settle(),
        "blocked (D)",
    );
    check(
        "4.7 fork without a free descriptor: poll then",
        answer(uffd.poll(0)),
        "1",
    );
    let event = uffd.next().expect("it is queued still");
    check("4.7 fork without a free descriptor: at last", event, "fork");
    check(
        "4.7 fork without a free descriptor: the child",
        Child::of(&forker).wait(),
        "exit 0",
    );
    let _ = sys::close(event.descriptor());
}
