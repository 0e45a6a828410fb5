//! Clocks, sleeps, alarms, interval timers, timerfd.

use std::time::{Duration, Instant};

use guest_tests::job::{self, until};
use guest_tests::signal;
use guest_tests::sys::{self, Answer, call};
use guest_tests::transcript::{answer, ok, show};

pub fn run() {
    clocks();
    discipline();
    sleeps();
    alarms();
    intervals();
    posix_timers();
    timer_descriptors();
}

fn clocks() {
    let mut time = [0u64; 2];
    let at = time.as_mut_ptr() as usize;
    for (name, clock) in [
        ("REALTIME", 0),
        ("MONOTONIC", 1),
        ("PROCESS_CPUTIME", 2),
        ("THREAD_CPUTIME", 3),
        ("MONOTONIC_RAW", 4),
        ("REALTIME_COARSE", 5),
        ("MONOTONIC_COARSE", 6),
        ("BOOTTIME", 7),
        ("unknown 99", 99),
    ] {
        show(
            &format!("clock_gettime: {name}"),
            ok(call(libc::SYS_clock_gettime, &[clock, at])),
        );
        show(
            &format!("clock_getres: {name}"),
            ok(call(libc::SYS_clock_getres, &[clock, at])),
        );
    }
    show(
        "clock_gettime: bad pointer",
        ok(call(libc::SYS_clock_gettime, &[1, 8])),
    );
    show(
        "clock_getres: no pointer",
        ok(call(libc::SYS_clock_getres, &[1, 0])),
    );
    call(libc::SYS_clock_getres, &[1, at]).expect("there is a clock");
    show("clock_getres: MONOTONIC", format!("{} s {} ns", time[0], time[1]));
    let (first, second) = (Instant::now(), Instant::now());
    show("clock: it does not go back", second >= first);
    call(libc::SYS_clock_gettime, &[0, at]).expect("there is a clock");
    let mut seconds = 0u64;
    show("time: the same second, or the next", {
        let _ = call(libc::SYS_time, &[&raw mut seconds as usize]);
        seconds.abs_diff(time[0]) <= 1
    });
    show(
        "gettimeofday: bad pointer",
        ok(call(libc::SYS_gettimeofday, &[8, 0])),
    );
    let mut times = [0u64; 4];
    show(
        "times: ticks have passed",
        call(libc::SYS_times, &[times.as_mut_ptr() as usize]).is_ok(),
    );
}

/// Whether something took at least this long.
/// What is known of the wall clock's discipline, and who may change it.
fn discipline() {
    const TIMEX: usize = 26;
    let ask = |clock: Option<usize>, modes: u64| {
        let mut words = [0x5555_5555_5555_5555u64; TIMEX];
        words[0] = modes;
        let at = words.as_mut_ptr() as usize;
        let answer = match clock {
            None => call(libc::SYS_adjtimex, &[at]),
            Some(clock) => call(libc::SYS_clock_adjtime, &[clock, at]),
        };
        (answer, words)
    };
    for (name, clock) in [("adjtimex", None), ("clock_adjtime", Some(0))] {
        let (answer, words) = ask(clock, 0);
        show(
            &format!("{name}: reading answers a state"),
            answer.is_ok_and(|state| state <= 5),
        );
        show(&format!("{name}: modes"), words[0] as u32);
        show(&format!("{name}: precision"), words[7]);
        show(&format!("{name}: tolerance"), words[8]);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let difference = now.map_or(99, |now| now.as_secs().abs_diff(words[9]));
        show(&format!("{name}: it is the wall clock's time"), difference <= 2);
        show(
            &format!("{name}: a tick is near 10000 us"),
            words[11].abs_diff(10_000) < 1000,
        );
        show(
            &format!("{name}: what is reserved stays"),
            words[22..] == [0x5555_5555_5555_5555; TIMEX - 22],
        );
    }
    show("adjtimex: bad pointer", ok(call(libc::SYS_adjtimex, &[8])));
    show(
        "clock_adjtime: bad pointer",
        ok(call(libc::SYS_clock_adjtime, &[0, 8])),
    );
    for (name, clock) in [
        ("MONOTONIC", 1),
        ("PROCESS_CPUTIME", 2),
        ("MONOTONIC_RAW", 4),
        ("REALTIME_COARSE", 5),
        ("BOOTTIME", 7),
        ("unknown 99", 99),
    ] {
        show(&format!("clock_adjtime: {name}"), ok(ask(Some(clock), 0).0));
    }
    show(
        "clock_adjtime: unknown clock, bad pointer",
        ok(call(libc::SYS_clock_adjtime, &[99, 8])),
    );
    let child = guest_tests::child::fork(|| {
        let _ = call(libc::SYS_setresuid, &[1000, 1000, 1000]);
        for (name, modes) in [("a frequency", 2), ("a tick", 0x4000), ("the time", 0x100)] {
            show(&format!("adjtimex by somebody: {name}"), ok(ask(None, modes).0));
            show(
                &format!("clock_adjtime by somebody: {name}"),
                ok(ask(Some(0), modes).0),
            );
        }
        show(
            "adjtimex by somebody: reading",
            ask(None, 0).0.is_ok_and(|state| state <= 5),
        );
        show(
            "adjtimex by somebody: reading the offset",
            ask(None, 0xa001).0.is_ok_and(|state| state <= 5),
        );
        0
    });
    show("adjtimex by somebody: the end", child.wait());
}

fn at_least(milliseconds: u64, work: impl FnOnce() -> String) -> String {
    let start = Instant::now();
    let said = work();
    format!(
        "{said}, {}",
        if start.elapsed() >= Duration::from_millis(milliseconds) {
            "in time"
        } else {
            "too early"
        }
    )
}

fn sleeps() {
    let sleep = |seconds: u64, nanoseconds: u64| {
        let time = [seconds, nanoseconds];
        ok(call(libc::SYS_nanosleep, &[time.as_ptr() as usize, 0]))
    };
    show("nanosleep: 0", sleep(0, 0));
    show("nanosleep: 3 ms", at_least(3, || sleep(0, 3_000_000)));
    show("nanosleep: too many nanoseconds", sleep(0, 1_000_000_000));
    show("nanosleep: negative", sleep(u64::MAX, 0));
    show("nanosleep: bad pointer", ok(call(libc::SYS_nanosleep, &[8, 0])));
    let clock = |clock: usize, flags: usize, time: [u64; 2]| {
        ok(call(
            libc::SYS_clock_nanosleep,
            &[clock, flags, time.as_ptr() as usize, 0],
        ))
    };
    show(
        "clock_nanosleep: MONOTONIC",
        at_least(3, || clock(1, 0, [0, 3_000_000])),
    );
    show("clock_nanosleep: absolute, past", clock(1, 1, [0, 1]));
    show("clock_nanosleep: unknown clock", clock(99, 0, [0, 1]));
    show("clock_nanosleep: of the thread's time", clock(3, 0, [0, 1]));
    signal::catch(libc::SIGUSR1, 0, &[]);
    let sleeper = job::start(|| {
        let (time, mut left) = ([100u64, 0], [0u64; 2]);
        let got = call(
            libc::SYS_nanosleep,
            &[time.as_ptr() as usize, left.as_mut_ptr() as usize],
        );
        format!(
            "{}, {}",
            ok(got),
            if (98..=99).contains(&left[0]) {
                "the rest is told"
            } else {
                "the rest is not"
            }
        )
    });
    sleeper.settle();
    let _ = signal::tgkill(sleeper.tid(), libc::SIGUSR1);
    show("nanosleep: interrupted", sleeper.finish());
}

fn alarms() {
    signal::forget();
    signal::catch(libc::SIGALRM, 0, &[]);
    show("alarm: none before", answer(call(libc::SYS_alarm, &[100])));
    show("alarm: what was left", answer(call(libc::SYS_alarm, &[1])));
    show(
        "alarm: it comes",
        at_least(900, || until(|| signal::count() == 1).to_string()),
    );
    show("alarm: once", answer(call(libc::SYS_alarm, &[0])));
    let (mut from, _) = (0, 0);
    let _ = call(libc::SYS_alarm, &[100]);
    let child = guest_tests::child::fork(|| call(libc::SYS_alarm, &[0]).map_or(99, |left| left as i32));
    show("alarm: a child has none", child.wait());
    from += call(libc::SYS_alarm, &[0]).map_or(0, |left| left);
    show("alarm: the parent's stays", (99..=100).contains(&from));
}

fn intervals() {
    signal::forget();
    let set = |which: usize, words: [u64; 4]| -> Answer {
        call(libc::SYS_setitimer, &[which, words.as_ptr() as usize, 0])
    };
    show("setitimer: unknown", ok(set(7, [0; 4])));
    show(
        "setitimer: too many microseconds",
        ok(set(0, [0, 0, 0, 1_000_000])),
    );
    show(
        "setitimer: bad pointer",
        ok(call(libc::SYS_setitimer, &[0, 8, 0])),
    );
    show("setitimer: every 2 ms", ok(set(0, [0, 2000, 0, 2000])));
    show("setitimer: five come", until(|| signal::count() >= 5));
    let mut now = [0u64; 4];
    show(
        "getitimer",
        ok(call(libc::SYS_getitimer, &[0, now.as_mut_ptr() as usize])),
    );
    show("getitimer: the interval", now[1]);
    show("setitimer: off", ok(set(0, [0; 4])));
    show(
        "setitimer: code",
        signal::caught().first().map_or(-1, |one| one.code),
    );
    signal::forget();
    signal::catch(libc::SIGVTALRM, 0, &[]);
    show("setitimer: virtual", ok(set(1, [0, 0, 0, 5000])));
    let mut spins = 0u64;
    while signal::count() == 0 && spins < 20_000_000_000 {
        spins += 1;
        std::hint::black_box(spins);
    }
    show(
        "setitimer: virtual: it comes",
        signal::caught().first().map_or(0, |one| one.signal),
    );
}

fn posix_timers() {
    signal::forget();
    signal::catch(libc::SIGUSR2, 0, &[]);
    // sigevent: value, signal, how.
    let mut event = [0u64; 8];
    event[0] = 4711;
    event[1] = libc::SIGUSR2 as u64;
    let mut timer = 0u32;
    let create = |clock: usize, event: usize, timer: &mut u32| {
        ok(call(
            libc::SYS_timer_create,
            &[clock, event, timer as *mut u32 as usize],
        ))
    };
    show("timer_create: unknown clock", create(99, 0, &mut timer));
    show("timer_create", create(1, event.as_ptr() as usize, &mut timer));
    let set = |timer: u32, flags: usize, words: [u64; 4]| {
        ok(call(
            libc::SYS_timer_settime,
            &[timer as usize, flags, words.as_ptr() as usize, 0],
        ))
    };
    show(
        "timer_settime: too many nanoseconds",
        set(timer, 0, [0, 0, 0, 1_000_000_000]),
    );
    show("timer_settime: unknown timer", set(timer + 77, 0, [0; 4]));
    show("timer_settime", set(timer, 0, [0, 0, 0, 2_000_000]));
    show("timer: it comes", until(|| signal::count() == 1));
    let one = signal::caught().first().copied();
    show(
        "timer: told",
        one.map_or(String::new(), |one| {
            format!("code {} value {}", one.code, one.value)
        }),
    );
    let mut left = [9u64; 4];
    show(
        "timer_gettime",
        ok(call(
            libc::SYS_timer_gettime,
            &[timer as usize, left.as_mut_ptr() as usize],
        )),
    );
    show("timer_gettime: nothing is left", format!("{left:?}"));
    show(
        "timer_getoverrun",
        answer(call(libc::SYS_timer_getoverrun, &[timer as usize])),
    );
    show(
        "timer_delete",
        ok(call(libc::SYS_timer_delete, &[timer as usize])),
    );
    show(
        "timer_delete: again",
        ok(call(libc::SYS_timer_delete, &[timer as usize])),
    );
}

fn timer_descriptors() {
    let create = |clock: usize, flags: i32| call(libc::SYS_timerfd_create, &[clock, flags as usize]);
    show("timerfd: unknown clock", ok(create(99, 0)));
    show("timerfd: of the process's time", ok(create(2, 0)));
    show("timerfd: unknown flag", ok(create(1, 1)));
    let fd = create(1, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC).expect("timerfd works") as i32;
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}"));
    show(
        "timerfd: its link",
        link.map_or("none".into(), |path| path.display().to_string()),
    );
    let read = || {
        let mut count = [0u8; 8];
        answer(sys::read(fd, &mut count).map(|_| u64::from_le_bytes(count)))
    };
    let set = |flags: usize, words: [u64; 4]| {
        ok(call(
            libc::SYS_timerfd_settime,
            &[fd as usize, flags, words.as_ptr() as usize, 0],
        ))
    };
    show("timerfd: read while it is off", read());
    show(
        "timerfd: poll while it is off",
        answer(sys::poll(fd, libc::POLLIN, 0)),
    );
    show("timerfd: short buffer", answer(sys::read(fd, &mut [0; 4])));
    show("timerfd: write", answer(sys::write(fd, &[0; 8])));
    show("timerfd: too many nanoseconds", set(0, [0, 0, 0, 1_000_000_000]));
    show("timerfd: unknown flag to set", set(8, [0, 0, 0, 1]));
    // Longer than is waited for below: showing this line takes some of it.
    show("timerfd: in 30 ms", set(0, [0, 0, 0, 30_000_000]));
    show(
        "timerfd: poll",
        at_least(3, || answer(sys::poll(fd, libc::POLLIN, 2000))),
    );
    show("timerfd: read", read());
    show("timerfd: read again", read());
    show("timerfd: absolute, past", set(1, [0, 0, 0, 1]));
    show("timerfd: poll then", answer(sys::poll(fd, libc::POLLIN, 2000)));
    show("timerfd: read then", read());
    show("timerfd: every 2 ms", set(0, [0, 2_000_000, 0, 2_000_000]));
    std::thread::sleep(Duration::from_millis(30));
    let mut count = [0u8; 8];
    let _ = sys::read(fd, &mut count);
    show("timerfd: several at once", u64::from_le_bytes(count) >= 5);
    let mut now = [0u64; 4];
    show(
        "timerfd: gettime",
        ok(call(
            libc::SYS_timerfd_gettime,
            &[fd as usize, now.as_mut_ptr() as usize],
        )),
    );
    show("timerfd: the interval", now[1]);
    show("timerfd: settime of a pipe", {
        let (from, _to) = sys::pipe2(0).expect("a pipe can be made");
        ok(call(
            libc::SYS_timerfd_settime,
            &[from as usize, 0, now.as_ptr() as usize, 0],
        ))
    });
    let blocking = create(1, 0).expect("timerfd works") as i32;
    let words = [0u64, 0, 0, 20_000_000];
    let _ = call(
        libc::SYS_timerfd_settime,
        &[blocking as usize, 0, words.as_ptr() as usize, 0],
    );
    let reader = job::start(move || answer(sys::read(blocking, &mut [0; 8])));
    show("timerfd: a read that blocks", reader.finish());
}
