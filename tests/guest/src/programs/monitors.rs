//! Monitors that go away while others wait for them.

use std::mem::ManuallyDrop;

use guest_tests::attempt::{outcome, read, write};
use guest_tests::child::{Child, fork, fork_in_thread};
use guest_tests::region::*;
use guest_tests::sys::{self, call};
use guest_tests::touch::{peek, poke, until_byte};
use guest_tests::transcript::{check, show};
use guest_tests::uffd::*;

pub fn run() {
    closes();
    process_ends("exits", |_| ());
    process_ends("is killed", |monitor| {
        monitor.kill(libc::SIGKILL).expect("it is alive")
    });
    closed_under_readers();
    child_uses_it();
    kernel_waiter();
    monitor_faults_itself();
}

fn closes() {
    let uffd = Uffd::with(0);
    let area = Region::anon("area", 8);
    uffd.watch(&area, MISSING);
    let waiters: Vec<_> = (0..8)
        .map(|index| {
            if index % 2 == 0 {
                read(area.page(index))
            } else {
                write(area.page(index), 1)
            }
        })
        .collect();
    for waiter in &waiters {
        waiter.settle();
    }
    // Some are read, some are not.
    for _ in 0..3 {
        uffd.read().expect("there are eight");
    }
    drop(uffd);
    let ended = waiters
        .iter()
        .map(|waiter| waiter.finish())
        .filter(|end| end == "0x00" || end == "written")
        .count();
    check("monitor closes: waiters that go on", ended, "8");
}

/// A monitor in a process of its own, that holds the only descriptor.
fn process_ends(how: &str, end: fn(&Child)) {
    let uffd = Uffd::with(0);
    let area = Region::anon("area", 2);
    let flag = Region::common("flag");
    uffd.watch(&area, MISSING);
    let by_itself = how == "exits";
    let monitor = fork(|| {
        poke(flag.start, 1);
        if by_itself {
            until_byte(flag.start, 2);
            return 0;
        }
        loop {
            let _ = call(libc::SYS_pause, &[]);
        }
    });
    until_byte(flag.start, 1);
    let waiter = read(area.start);
    check(
        &format!("monitor {how}: a waiter"),
        outcome(&uffd, &waiter),
        "fault flags 0 at area",
    );
    drop(uffd);
    check(
        &format!("monitor {how}: it holds the last descriptor"),
        waiter.settle(),
        "blocked",
    );
    poke(flag.start, 2);
    end(&monitor);
    show(&format!("monitor {how}: its end"), monitor.wait());
    check(
        &format!("monitor {how}: the waiter goes on"),
        waiter.finish(),
        "0x00",
    );
    check(
        &format!("monitor {how}: the memory is plain"),
        peek(area.page(1)),
        "0x00",
    );
}

/// A descriptor is closed by one thread while another one sleeps in its read.
fn closed_under_readers() {
    let uffd = Uffd::open(libc::O_CLOEXEC).expect("userfaultfd works");
    uffd.api(0).expect("the handshake works");
    let area = Region::anon("area", 1);
    uffd.watch(&area, MISSING);
    let fd = uffd.fd;
    let reader = guest_tests::job::start(move || {
        let borrowed = ManuallyDrop::new(Uffd { fd });
        guest_tests::transcript::answer(borrowed.read())
    });
    check("closed under a reader: it waits", reader.settle(), "blocked");
    drop(uffd);
    check(
        "closed under a reader: the read keeps it open",
        reader.settle(),
        "blocked",
    );
    let waiter = read(area.start);
    check(
        "closed under a reader: a fault is told to it",
        reader.finish(),
        "fault flags 0 at area",
    );
    check(
        "closed under a reader: then it is closed for good",
        waiter.finish(),
        "0x00",
    );
}

/// A child uses the descriptor of the parent's space, then the parent ends.
fn child_uses_it() {
    let outer = fork(|| {
        let uffd = Uffd::with(0);
        let area = Region::anon("area", 4);
        let source = Region::filled("source", 1, 0x5c);
        uffd.watch(&area, MISSING);
        let waiter = read(area.start);
        waiter.settle();
        let child = fork(|| {
            let told = uffd.told();
            check(
                "child with the parent's descriptor: the message",
                told,
                "fault flags 0 at area",
            );
            check(
                "child with the parent's descriptor: COPY",
                uffd.copy(area.start, source.start, PAGE, 0),
                "ok 1p",
            );
            check(
                "child with the parent's descriptor: its own memory",
                peek(area.start),
                "0x00",
            );
            0
        });
        check(
            "child with the parent's descriptor: its end",
            child.wait(),
            "exit 0",
        );
        check(
            "child with the parent's descriptor: the parent's page",
            waiter.finish(),
            "0x5c",
        );
        // The process ends with a waiter that nobody will serve.
        let stuck = write(area.page(1), 1);
        stuck.settle();
        0
    });
    check("ends with a waiter of its own: its end", outer.wait(), "exit 0");
    let outer = fork(|| {
        let uffd = Uffd::with(feature::EVENT_REMOVE);
        let area = Region::anon("area", 4);
        uffd.watch(&area, MISSING);
        let stuck = guest_tests::job::start(move || area.advise(libc::MADV_DONTNEED).is_ok());
        stuck.settle();
        0
    });
    check(
        "ends with a waiter for its event: its end",
        outer.wait(),
        "exit 0",
    );
}

/// A child sleeps in the kernel for a page of a descriptor that its parent holds; both ways out of it.
fn kernel_waiter() {
    for (name, by_kill) in [("killed", true), ("closed", false)] {
        let uffd = Uffd::with(feature::EVENT_FORK);
        let area = Region::anon("area", 1);
        uffd.watch(&area, MISSING);
        let (at, fd) = (area.start, uffd.fd);
        let forker = fork_in_thread(move || {
            let _ = sys::close(fd);
            call(libc::SYS_pipe2, &[at, 0]).map_or(1, |_| 0)
        });
        let theirs = uffd.next().expect("a fork is told").forked();
        let child = Child::of(&forker);
        check(
            &format!("waiter in the kernel, {name}: its message"),
            theirs.told(),
            "fault flags 1 at area",
        );
        if by_kill {
            child.kill(libc::SIGKILL).expect("it is alive");
        } else {
            drop(theirs);
        }
        show(&format!("waiter in the kernel, {name}: its end"), child.wait());
    }
}

/// A monitor that touches what it should fill: only another thread can help it.
fn monitor_faults_itself() {
    let uffd = Uffd::with(0);
    let area = Region::anon("area", 2);
    uffd.watch(&area, MISSING);
    let first = read(area.start);
    check(
        "monitor faults itself: the first fault",
        outcome(&uffd, &first),
        "fault flags 0 at area",
    );
    let fd = uffd.fd;
    let monitor = guest_tests::job::start(move || {
        let uffd = ManuallyDrop::new(Uffd { fd });
        // Its source is a page that is missing as well.
        uffd.copy(area.start, area.page(1), PAGE, 0)
    });
    check(
        "monitor faults itself: its own fault",
        outcome(&uffd, &monitor),
        "fault flags 0 at area+0x1000",
    );
    check(
        "monitor faults itself: somebody else fills",
        uffd.zeropage(area.page(1), PAGE, 0),
        "ok 1p",
    );
    check("monitor faults itself: it goes on", monitor.finish(), "ok 1p");
    check("monitor faults itself: the first", first.finish(), "0x00");
}
