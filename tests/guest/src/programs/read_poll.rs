//! Reading and polling (section 4.7).

use std::mem::ManuallyDrop;

use guest_tests::attempt::{read, write};
use guest_tests::job::{self, until};
use guest_tests::region::*;
use guest_tests::signal;
use guest_tests::sys::{self, Answer, call};
use guest_tests::transcript::{answer, check, ok};
use guest_tests::uffd::*;

pub fn run() {
    sizes();
    blocking();
    interrupted();
    order();
    one_reader();
    lost();
    poll();
    epoll();
}

/// read(2) with a buffer of this size.
fn sized(fd: i32, len: usize) -> Answer {
    let mut buffer = vec![0u8; len];
    sys::read(fd, &mut buffer)
}

/// Waiters on the first pages of the area, asleep.
fn waiters(area: &Region, count: usize) -> Vec<job::Job> {
    let begin = |index| {
        let waiter = read(area.page(index));
        waiter.settle();
        waiter
    };
    (0..count).map(begin).collect()
}

fn sizes() {
    let uffd = Uffd::with(0);
    let area = Region::anon("area", 8);
    uffd.watch(&area, MISSING);
    let _waiters = waiters(&area, 5);
    for len in [0, 1, 31] {
        check(
            &format!("4.7 a buffer of {len} bytes"),
            answer(sized(uffd.fd, len)),
            "EINVAL",
        );
    }
    check("4.7 a buffer of 40 bytes", answer(sized(uffd.fd, 40)), "32");
    check("4.7 a buffer of 64 bytes", answer(sized(uffd.fd, 64)), "64");
    check(
        "4.7 a buffer of 320 bytes, two messages are there",
        answer(sized(uffd.fd, 320)),
        "64",
    );
    check("4.7 nothing is there", answer(sized(uffd.fd, 320)), "EAGAIN");
    check(
        "4.7 a buffer of 31 bytes, nothing is there",
        answer(sized(uffd.fd, 31)),
        "EINVAL",
    );
}

fn blocking() {
    let uffd = Uffd::open(libc::O_CLOEXEC).expect("userfaultfd works");
    uffd.api(0).expect("the handshake works");
    let area = Region::anon("area", 4);
    uffd.watch(&area, MISSING);
    let fd = uffd.fd;
    let reader = job::start(move || answer(sized(fd, 320)));
    check("4.7 blocking: nothing is there", reader.settle(), "blocked");
    let waiter = read(area.start);
    check("4.7 blocking: it takes what is there", reader.finish(), "32");
    uffd.zeropage(area.start, PAGE, 0);
    check("4.7 blocking: the waiter", waiter.finish(), "0x00");
    let mut buffer = [0u8; 32];
    let vector = [buffer.as_mut_ptr() as usize, 32];
    const RWF_NOWAIT: usize = 8;
    let nowait = call(
        libc::SYS_preadv2,
        &[
            fd as usize,
            vector.as_ptr() as usize,
            1,
            usize::MAX,
            usize::MAX,
            RWF_NOWAIT,
        ],
    );
    check("4.7 blocking: RWF_NOWAIT", answer(nowait), "EAGAIN");
    check(
        "4.7 blocking: poll",
        answer(uffd.poll(0)),
        libc::POLLERR.to_string(),
    );
    sys::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK as usize).expect("F_SETFL works");
    check("4.7 made non-blocking: poll", answer(uffd.poll(0)), "0");
    check("4.7 made non-blocking: read", answer(sized(fd, 32)), "EAGAIN");
}

fn interrupted() {
    for (name, flags, want) in [("", 0, "EINTR"), (", SA_RESTART", libc::SA_RESTART, "32")] {
        signal::forget();
        signal::catch(libc::SIGUSR1, flags, &[]);
        let uffd = Uffd::open(libc::O_CLOEXEC).expect("userfaultfd works");
        uffd.api(0).expect("the handshake works");
        let area = Region::anon("area", 1);
        uffd.watch(&area, MISSING);
        let fd = uffd.fd;
        let reader = job::start(move || answer(sized(fd, 32)));
        reader.settle();
        signal::tgkill(reader.tid(), libc::SIGUSR1).expect("the thread is there");
        check(
            &format!("4.7 signal{name}: the handler"),
            until(|| signal::count() == 1),
            true,
        );
        let waiter = read(area.start);
        check(&format!("4.7 signal{name}: the read"), reader.finish(), want);
        uffd.zeropage(area.start, PAGE, 0);
        check(&format!("4.7 signal{name}: the waiter"), waiter.finish(), "0x00");
    }
}

fn order() {
    let uffd = Uffd::with(feature::EVENT_REMOVE);
    let area = Region::anon("area", 4);
    let first = Region::anon("first", 1);
    let second = Region::anon("second", 1);
    for region in [&area, &first, &second] {
        uffd.watch(region, MISSING);
    }
    let dontneed = |region: Region| {
        let job = job::start(move || ok(region.advise(libc::MADV_DONTNEED)));
        job.settle();
        job
    };
    let events = [dontneed(second), dontneed(first)];
    let faults = [3, 0, 2].map(|index| {
        let waiter = read(area.page(index));
        waiter.settle();
        waiter
    });
    for want in [
        "fault flags 0 at area+0x3000",
        "fault flags 0 at area",
        "fault flags 0 at area+0x2000",
        "remove second to second+0x1000",
        "remove first to first+0x1000",
        "EAGAIN",
    ] {
        check("4.7 order: next", uffd.now(), want);
    }
    let ended = events.iter().filter(|event| event.finish() == "ok").count();
    check("4.7 order: the events' causes", ended, "2");
    for index in [0, 2, 3] {
        uffd.zeropage(area.page(index), PAGE, 0);
    }
    check(
        "4.7 order: the faults",
        faults.iter().filter(|fault| fault.finish() == "0x00").count(),
        "3",
    );
}

fn one_reader() {
    let uffd = Uffd::open(libc::O_CLOEXEC).expect("userfaultfd works");
    uffd.api(0).expect("the handshake works");
    let area = Region::anon("area", 1);
    uffd.watch(&area, MISSING);
    let fd = uffd.fd;
    let readers = [0, 1].map(|_| {
        let reader = job::start(move || answer(sized(fd, 32)));
        reader.settle();
        reader
    });
    let waiter = write(area.start, 1);
    until(|| readers.iter().any(job::Job::done));
    let mut ended: Vec<String> = readers.iter().map(job::Job::settle).collect();
    ended.sort();
    check("4.7 two readers, one message", ended.join(", "), "32, blocked");
    uffd.zeropage(area.start, PAGE, 0);
    check("4.7 two readers: the waiter", waiter.finish(), "written");
}

fn lost() {
    let uffd = Uffd::with(0);
    let area = Region::anon("area", 2);
    uffd.watch(&area, MISSING);
    let waiter = read(area.start);
    waiter.settle();
    let hole = Region::hole("hole", PAGE);
    check(
        "4.7 a bad buffer",
        answer(call(libc::SYS_read, &[uffd.fd as usize, hole.start, 32])),
        "EFAULT",
    );
    check("4.7 a bad buffer: the message is lost", uffd.now(), "EAGAIN");
    check(
        "4.7 a bad buffer: it counts as read",
        uffd.fdinfo().starts_with("pending: 0, total: 1"),
        true,
    );
    check("4.7 a bad buffer: the waiter", waiter.settle(), "blocked");
    uffd.wake(area.start, PAGE).expect("anything can be woken");
    check(
        "4.7 a bad buffer: a wake brings a new one",
        uffd.told(),
        "fault flags 0 at area",
    );
    let waiter = read(area.page(1));
    waiter.settle();
    check("4.7 resolved unread: poll before", answer(uffd.poll(0)), "1");
    uffd.zeropage(area.page(1), PAGE, 0);
    check("4.7 resolved unread: read after", uffd.now(), "EAGAIN");
    check("4.7 resolved unread: poll after", answer(uffd.poll(0)), "0");
    check("4.7 resolved unread: the waiter", waiter.finish(), "0x00");
}

fn poll() {
    let uffd = Uffd::with(feature::EVENT_REMOVE);
    let area = Region::anon("area", 4);
    uffd.watch(&area, MISSING);
    check("4.7 poll: nothing", answer(uffd.poll(0)), "0");
    let _waiters = waiters(&area, 2);
    check("4.7 poll: two unread", answer(uffd.poll(0)), "1");
    check("4.7 poll: again", answer(uffd.poll(0)), "1");
    uffd.read().expect("two are there");
    check("4.7 poll: one unread", answer(uffd.poll(0)), "1");
    uffd.read().expect("one is there");
    check("4.7 poll: read and unresolved", answer(uffd.poll(0)), "0");
    let (start, fd) = (area.page(3), uffd.fd);
    let event = job::start(move || ok(madvise(start, PAGE, libc::MADV_DONTNEED)));
    event.settle();
    check("4.7 poll: an event", answer(uffd.poll(0)), "1");
    check("4.7 poll: the event again", answer(uffd.poll(0)), "1");
    uffd.read().expect("one is there");
    check("4.7 poll: the event is read", answer(uffd.poll(0)), "0");
    event.finish();
    // One that sleeps in poll is woken.
    let poller = job::start(move || answer(ManuallyDrop::new(Uffd { fd }).poll(-1)));
    check("4.7 poll: it waits", poller.settle(), "blocked");
    let _waiter = read(area.page(2));
    check("4.7 poll: it is woken", poller.finish(), "1");
}

fn epoll() {
    let uffd = Uffd::with(0);
    let area = Region::anon("area", 6);
    uffd.watch(&area, MISSING);
    let epoll = |flags: i32| -> i32 {
        let epoll = call(libc::SYS_epoll_create1, &[0]).expect("epoll works") as i32;
        let mut event = libc::epoll_event {
            events: (libc::EPOLLIN | flags) as u32,
            u64: 7,
        };
        let at = &raw mut event as usize;
        call(
            libc::SYS_epoll_ctl,
            &[epoll as usize, libc::EPOLL_CTL_ADD as usize, uffd.fd as usize, at],
        )
        .expect("it can be added");
        epoll
    };
    let wait = |epoll: i32, time: i32| {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        answer(call(
            libc::SYS_epoll_wait,
            &[epoll as usize, &raw mut event as usize, 1, time as usize],
        ))
    };
    let (level, edge) = (epoll(0), epoll(libc::EPOLLET));
    check(
        "4.7 epoll: nothing",
        format!("{} {}", wait(level, 0), wait(edge, 0)),
        "0 0",
    );
    let _first = waiters(&area, 1);
    check("4.7 epoll: level, a fault", wait(level, 1000), "1");
    check("4.7 epoll: level, again", wait(level, 0), "1");
    check("4.7 epoll: edge, a fault", wait(edge, 1000), "1");
    check("4.7 epoll: edge, again", wait(edge, 0), "0");
    let second = read(area.page(1));
    second.settle();
    check("4.7 epoll: edge, a second fault", wait(edge, 1000), "1");
    check("4.7 epoll: edge, a second fault again", wait(edge, 0), "0");
    uffd.read().expect("two are there");
    uffd.read().expect("one is there");
    check("4.7 epoll: level, all read", wait(level, 0), "0");
    let waiting = job::start(move || {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        answer(call(
            libc::SYS_epoll_wait,
            &[level as usize, &raw mut event as usize, 1, usize::MAX],
        ))
    });
    check("4.7 epoll: it waits", waiting.settle(), "blocked");
    let _third = read(area.page(2));
    check("4.7 epoll: it is woken", waiting.finish(), "1");
}
