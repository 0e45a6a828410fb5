//! poll, select and epoll.

use guest_tests::job;
use guest_tests::region::{PAGE, Region};
use guest_tests::sys::{self, Answer, call};
use guest_tests::transcript::{answer, ok, show};

pub fn run() {
    poll();
    select();
    epoll();
    epoll_modes();
    nested();
}

fn pipe() -> (i32, i32) {
    sys::pipe2(libc::O_NONBLOCK).expect("a pipe can be made")
}

fn poll() {
    let (from, to) = pipe();
    let row = |name: &str, fds: &mut [libc::pollfd], time: i32| {
        let got = call(
            libc::SYS_poll,
            &[fds.as_mut_ptr() as usize, fds.len(), time as usize],
        );
        let events: Vec<String> = fds.iter().map(|fd| format!("{:#x}", fd.revents)).collect();
        show(
            &format!("poll: {name}"),
            format!("{} [{}]", answer(got), events.join(" ")),
        );
    };
    let one = |fd: i32, events: i16| libc::pollfd {
        fd,
        events,
        revents: 0x55,
    };
    row("nothing", &mut [], 0);
    row("nothing, 3 ms", &mut [], 3);
    row(
        "both ends",
        &mut [one(from, libc::POLLIN), one(to, libc::POLLOUT)],
        0,
    );
    row(
        "negative descriptor",
        &mut [one(-1, libc::POLLIN), one(to, libc::POLLOUT)],
        0,
    );
    row("bad descriptor", &mut [one(99, libc::POLLIN)], 0);
    row("3 ms", &mut [one(from, libc::POLLIN)], 3);
    sys::write(to, b"x").expect("a pipe takes a byte");
    row("a byte", &mut [one(from, libc::POLLIN), one(from, 0)], -1);
    row("a byte, RDNORM", &mut [one(from, libc::POLLRDNORM)], -1);
    let _ = sys::close(to);
    row("a byte, and nobody writes", &mut [one(from, libc::POLLIN)], -1);
    row("nobody writes, nothing asked", &mut [one(from, 0)], -1);
    let file = guest_tests::region::memfd(1);
    row(
        "a file",
        &mut [one(file, libc::POLLIN | libc::POLLOUT | libc::POLLPRI)],
        -1,
    );
    show("poll: bad pointer", ok(call(libc::SYS_poll, &[8, 1, 0])));
    let time = [0u64, 1_000_000_000];
    show(
        "ppoll: too many nanoseconds",
        ok(call(libc::SYS_ppoll, &[0, 0, time.as_ptr() as usize, 0, 8])),
    );
    show(
        "ppoll: another size of set",
        ok(call(libc::SYS_ppoll, &[0, 0, 0, file as usize, 4])),
    );
}

fn select() {
    let (from, to) = pipe();
    let bits = |fds: &[i32]| {
        let mut set = [0u64; 16];
        for fd in fds {
            set[*fd as usize / 64] |= 1 << (fd % 64);
        }
        set
    };
    let row = |name: &str, count: i32, read: &[i32], write: &[i32], microseconds: u64| {
        let (mut read, mut write) = (bits(read), bits(write));
        let mut time = [0u64, microseconds];
        let arguments = [
            count as usize,
            read.as_mut_ptr() as usize,
            write.as_mut_ptr() as usize,
            0,
            time.as_mut_ptr() as usize,
        ];
        let got = call(libc::SYS_select, &arguments);
        let count = |set: &[u64; 16]| set.iter().map(|word| word.count_ones()).sum::<u32>();
        show(
            &format!("select: {name}"),
            format!("{} read {} write {}", answer(got), count(&read), count(&write)),
        );
    };
    row("nothing", 0, &[], &[], 3000);
    row("both ends", to + 1, &[from], &[to], 0);
    row("count too small", from, &[from], &[to], 0);
    row("bad descriptor", 51, &[50], &[], 0);
    row("negative count", -1, &[], &[], 0);
    row("3 ms", to + 1, &[from], &[], 3000);
    sys::write(to, b"x").expect("a pipe takes a byte");
    row("a byte", to + 1, &[from], &[to], 3_000);
    let time = [0u64, 2_000_000];
    show(
        "select: too many microseconds",
        ok(call(libc::SYS_select, &[0, 0, 0, 0, time.as_ptr() as usize])),
    );
    let set = [8usize, 8];
    show(
        "pselect: bad mask",
        ok(call(libc::SYS_pselect6, &[0, 0, 0, 0, 0, set.as_ptr() as usize])),
    );
}

fn control(epoll: i32, operation: i32, fd: i32, events: u32, data: u64) -> Answer {
    let mut event = libc::epoll_event { events, u64: data };
    call(
        libc::SYS_epoll_ctl,
        &[
            epoll as usize,
            operation as usize,
            fd as usize,
            &raw mut event as usize,
        ],
    )
}

fn new_epoll() -> i32 {
    call(libc::SYS_epoll_create1, &[0]).expect("epoll works") as i32
}

/// epoll_wait, with what it told: `data:events`.
fn wait(epoll: i32, room: usize, time: i32) -> String {
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; room.max(1)];
    let got = call(
        libc::SYS_epoll_wait,
        &[epoll as usize, events.as_mut_ptr() as usize, room, time as usize],
    );
    match got {
        Ok(count) => {
            let mut told: Vec<String> = events[..count]
                .iter()
                .map(|event| {
                    let (data, events) = (event.u64, event.events);
                    format!("{data}:{events:#x}")
                })
                .collect();
            told.sort();
            format!("{count} [{}]", told.join(" "))
        }
        Err(errno) => errno.to_string(),
    }
}

const IN: u32 = libc::EPOLLIN as u32;
const OUT: u32 = libc::EPOLLOUT as u32;
const ADD: i32 = libc::EPOLL_CTL_ADD;
const DEL: i32 = libc::EPOLL_CTL_DEL;
const MOD: i32 = libc::EPOLL_CTL_MOD;

fn epoll() {
    show("epoll_create: size 0", ok(call(libc::SYS_epoll_create, &[0])));
    show(
        "epoll_create1: unknown flag",
        ok(call(libc::SYS_epoll_create1, &[1])),
    );
    let epoll = new_epoll();
    let (from, to) = pipe();
    let file = guest_tests::region::memfd(1);
    show("epoll_ctl: a file", ok(control(epoll, ADD, file, IN, 0)));
    show("epoll_ctl: itself", ok(control(epoll, ADD, epoll, IN, 0)));
    show("epoll_ctl: bad descriptor", ok(control(epoll, ADD, 99, IN, 0)));
    show("epoll_ctl: not an epoll", ok(control(from, ADD, to, IN, 0)));
    show("epoll_ctl: unknown operation", ok(control(epoll, 9, from, IN, 0)));
    show(
        "epoll_ctl: DEL of what is not there",
        ok(control(epoll, DEL, from, IN, 0)),
    );
    show(
        "epoll_ctl: MOD of what is not there",
        ok(control(epoll, MOD, from, IN, 0)),
    );
    show(
        "epoll_ctl: bad event",
        ok(call(libc::SYS_epoll_ctl, &[epoll as usize, 1, from as usize, 8])),
    );
    show("epoll_ctl: ADD", ok(control(epoll, ADD, from, IN, 11)));
    show("epoll_ctl: ADD again", ok(control(epoll, ADD, from, IN, 11)));
    show("epoll_ctl: ADD the other", ok(control(epoll, ADD, to, OUT, 22)));
    show("epoll_wait: one is ready", wait(epoll, 4, 0));
    show("epoll_wait: no room", wait(epoll, 0, 0));
    show(
        "epoll_wait: bad pointer",
        ok(call(libc::SYS_epoll_wait, &[epoll as usize, 8, 1, 0])),
    );
    sys::write(to, b"x").expect("a pipe takes a byte");
    show("epoll_wait: both", wait(epoll, 4, 0));
    show("epoll_wait: room for one", wait(epoll, 1, 0).len());
    show("epoll_ctl: MOD to nothing", ok(control(epoll, MOD, to, 0, 33)));
    show("epoll_wait: then", wait(epoll, 4, 0));
    let copy = call(libc::SYS_dup, &[from as usize]).expect("dup works") as i32;
    let _ = sys::close(from);
    show("epoll_wait: closed, a copy is open", wait(epoll, 4, 0));
    let _ = sys::close(copy);
    show("epoll_wait: closed for good", wait(epoll, 4, 3));
    show("epoll_ctl: DEL", ok(control(epoll, DEL, to, 0, 0)));
    show("epoll: read", ok(sys::read(epoll, &mut [0; 8])));
}

fn epoll_modes() {
    let epoll = new_epoll();
    let (from, to) = pipe();
    control(epoll, ADD, from, IN | libc::EPOLLET as u32, 1).expect("it can be added");
    sys::write(to, b"x").expect("a pipe takes a byte");
    show("epoll edge: a byte", wait(epoll, 4, 0));
    show("epoll edge: again", wait(epoll, 4, 0));
    sys::write(to, b"y").expect("a pipe takes a byte");
    show("epoll edge: another byte", wait(epoll, 4, 0));
    show(
        "epoll edge: MOD tells again",
        ok(control(epoll, MOD, from, IN | libc::EPOLLET as u32, 2)),
    );
    show("epoll edge: then", wait(epoll, 4, 0));
    show(
        "epoll one shot",
        ok(control(epoll, MOD, from, IN | libc::EPOLLONESHOT as u32, 3)),
    );
    show("epoll one shot: a byte", wait(epoll, 4, 0));
    show("epoll one shot: again", wait(epoll, 4, 0));
    show(
        "epoll one shot: armed again",
        ok(control(epoll, MOD, from, IN | libc::EPOLLONESHOT as u32, 4)),
    );
    show("epoll one shot: then", wait(epoll, 4, 0));
    control(epoll, MOD, from, IN, 5).expect("it can be changed");
    let _ = sys::read(from, &mut [0; 8]);
    let waiter = job::start(move || wait(epoll, 4, -1));
    show("epoll: it waits", waiter.settle());
    sys::write(to, b"z").expect("a pipe takes a byte");
    show("epoll: it is woken", waiter.finish());
    let _ = sys::close(to);
    show("epoll: hang-up", wait(epoll, 4, 0));
    let page = Region::anon("events", 1);
    let got = call(libc::SYS_epoll_wait, &[epoll as usize, page.end() - 12, 2, 0]);
    show("epoll: room for one, told of two", answer(got));
    let got = call(
        libc::SYS_epoll_pwait,
        &[epoll as usize, page.start, PAGE / 12, 0, page.start, 4],
    );
    show("epoll_pwait: another size of set", answer(got));
}

fn nested() {
    let (inner, outer) = (new_epoll(), new_epoll());
    let (from, to) = pipe();
    control(inner, ADD, from, IN, 1).expect("it can be added");
    show("epoll in epoll", ok(control(outer, ADD, inner, IN, 2)));
    show("epoll in epoll: in a ring", ok(control(inner, ADD, outer, IN, 3)));
    show("epoll in epoll: nothing", wait(outer, 4, 0));
    sys::write(to, b"x").expect("a pipe takes a byte");
    show("epoll in epoll: a byte", wait(outer, 4, 0));
    show("epoll by poll", answer(sys::poll(inner, libc::POLLIN, 0)));
}
