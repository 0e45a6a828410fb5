//! What operations cost, in ticks of the time-stamp counter: under a counting emulator, in instructions.
//!
//! Each row is the median of many; a tick is read with `lfence` on both sides, by the thread that waits. Two threads share
//! one processor and read the descriptor blocking: what is measured is the work of the kernel, not waiting for another
//! processor.
#![expect(unsafe_code, reason = "counters and pages are read as they are")]

use std::arch::x86_64::{_mm_lfence, _rdtsc};
use std::process::ExitCode;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering};

use guest_tests::region::*;
use guest_tests::signal;
use guest_tests::sys::{self, call};
use guest_tests::transcript::say;
use guest_tests::uffd::*;

/// Operations of each row.
const TIMES: usize = 200;

/// A row: its name, and what one operation took.
type Row = (&'static str, u64);

/// Measures everything and prints it, as a table or as JSON.
pub fn measure(as_json: bool) -> ExitCode {
    // Threads that are made later stay on the processor of the one that makes them.
    let first = 1u64;
    let _ = call(libc::SYS_sched_setaffinity, &[0, 8, &raw const first as usize]);
    let rows: [fn() -> Row; 14] = [
        empty,
        missing_copy,
        missing_zeropage,
        minor_continue,
        wp_clear,
        wp_async,
        sigbus_copy,
        copy_512,
        continue_512,
        writeprotect_4096,
        first_touch,
        getppid,
        pipe_round_trip,
        futex_round_trip,
    ];
    let rows: Vec<Row> = rows.into_iter().map(|row| row()).collect();
    if as_json {
        let members: Vec<String> = rows
            .iter()
            .map(|(name, ticks)| format!("\"{name}\": {ticks}"))
            .collect();
        say(format_args!("{{{}}}", members.join(", ")));
    } else {
        for (name, ticks) in rows {
            say(format_args!("{name:<44} {ticks:>8}"));
        }
    }
    ExitCode::SUCCESS
}

/// The counter, with everything before it done and nothing behind it begun.
fn ticks() -> u64 {
    // SAFETY: both instructions are there on every x86-64.
    unsafe {
        _mm_lfence();
        let ticks = _rdtsc();
        _mm_lfence();
        ticks
    }
}

/// What one operation took, median.
fn median(times: usize, mut operation: impl FnMut(usize)) -> u64 {
    let mut all: Vec<u64> = (0..times)
        .map(|index| {
            let start = ticks();
            operation(index);
            ticks() - start
        })
        .collect();
    all.sort_unstable();
    all[times / 2]
}

/// Reads a byte of a region.
fn load(at: usize) {
    // SAFETY: the region is mapped, and no Rust object lives in it.
    unsafe { (at as *const u8).read_volatile() };
}

/// Writes a byte of a region.
fn store(at: usize) {
    // SAFETY: as above.
    unsafe { (at as *mut u8).write_volatile(1) }
}

/// A descriptor whose reads block.
fn blocking(features: u64) -> Uffd {
    let uffd = Uffd::open(libc::O_CLOEXEC).expect("userfaultfd works");
    uffd.api(features).expect("the features are there");
    uffd
}

/// Runs `touch` for each page of the region while a monitor thread answers every message with `answer`; the median.
fn served(
    uffd: &Uffd,
    region: Region,
    touch: fn(usize),
    answer: impl Fn(&Uffd, usize) + Send + 'static,
) -> u64 {
    let fd = uffd.fd;
    let monitor = std::thread::spawn(move || {
        let uffd = std::mem::ManuallyDrop::new(Uffd { fd });
        for _ in 0..TIMES {
            let message = uffd.read().expect("a message comes");
            answer(&uffd, message.address());
        }
    });
    let ticks = median(TIMES, |index| touch(region.page(index)));
    monitor.join().expect("the monitor ends");
    ticks
}

fn source() -> usize {
    let source = Region::map("source", 512 * PAGE, RW, ANON, -1, 0).expect("memory can be mapped");
    source.fill(0, 512, 0x5c);
    source.start
}

fn empty() -> Row {
    ("nothing (a pair of readings)", median(TIMES, |_| ()))
}

fn missing_copy() -> Row {
    let (uffd, area, source) = (blocking(0), Region::anon("area", TIMES), source());
    uffd.watch(&area, MISSING);
    let ticks = served(&uffd, area, store, move |uffd, at| {
        uffd.copy(at, source, PAGE, 0);
    });
    ("MISSING write + COPY, monitor thread", ticks)
}

fn missing_zeropage() -> Row {
    let (uffd, area) = (blocking(0), Region::anon("area", TIMES));
    uffd.watch(&area, MISSING);
    let ticks = served(&uffd, area, load, |uffd, at| {
        uffd.zeropage(at, PAGE, 0);
    });
    ("MISSING read + ZEROPAGE", ticks)
}

fn minor_continue() -> Row {
    let (uffd, object) = (blocking(0), memfd(TIMES));
    Region::shared("alias", object, TIMES).fill(0, TIMES, 1);
    let area = Region::shared("area", object, TIMES);
    uffd.watch(&area, MINOR);
    let ticks = served(&uffd, area, load, |uffd, at| {
        uffd.cont(at, PAGE, 0);
    });
    ("shmem MINOR + CONTINUE", ticks)
}

fn wp_clear() -> Row {
    let (uffd, area) = (blocking(0), Region::anon("area", TIMES));
    area.fill(0, TIMES, 1);
    uffd.watch(&area, WP);
    uffd.writeprotect(area.start, area.len, PROTECT)
        .expect("it is registered");
    let ticks = served(&uffd, area, store, |uffd, at| {
        let _ = uffd.writeprotect(at, PAGE, 0);
    });
    ("WP fault + clear", ticks)
}

fn wp_async() -> Row {
    let (uffd, area) = (blocking(feature::WP_ASYNC), Region::anon("area", TIMES));
    area.fill(0, TIMES, 1);
    uffd.watch(&area, WP);
    uffd.writeprotect(area.start, area.len, PROTECT)
        .expect("it is registered");
    ("WP_ASYNC fault", median(TIMES, |index| store(area.page(index))))
}

/// What the handler of the next row copies with, and from where.
static HANDLER: (AtomicI32, AtomicUsize) = (AtomicI32::new(0), AtomicUsize::new(0));

extern "C" fn copy_in_handler(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a pointer to a siginfo on this stack.
    let address = unsafe { (*info).si_addr() as usize };
    let page = address & !(PAGE - 1);
    let uffd = std::mem::ManuallyDrop::new(Uffd {
        fd: HANDLER.0.load(Ordering::Relaxed),
    });
    uffd.copy(page, HANDLER.1.load(Ordering::Relaxed), PAGE, 0);
}

fn sigbus_copy() -> Row {
    let (uffd, area) = (blocking(feature::SIGBUS), Region::anon("area", TIMES));
    HANDLER.0.store(uffd.fd, Ordering::Relaxed);
    HANDLER.1.store(source(), Ordering::Relaxed);
    signal::handle(libc::SIGBUS, 0, &[], copy_in_handler as *const () as usize);
    uffd.watch(&area, MISSING);
    (
        "SIGBUS mode + COPY in the handler",
        median(TIMES, |index| store(area.page(index))),
    )
}

fn copy_512() -> Row {
    let (uffd, source) = (blocking(0), source());
    let areas: Vec<Region> = (0..5).map(|_| Region::anon("area", 512)).collect();
    for area in &areas {
        uffd.watch(area, MISSING);
    }
    let ticks = median(5, |index| {
        uffd.copy(areas[index].start, source, 512 * PAGE, 0);
    });
    ("COPY, 512 pages in one call, per page", ticks / 512)
}

fn continue_512() -> Row {
    let (uffd, object) = (blocking(0), memfd(512));
    Region::shared("alias", object, 512).fill(0, 512, 1);
    let areas: Vec<Region> = (0..5).map(|_| Region::shared("area", object, 512)).collect();
    for area in &areas {
        uffd.watch(area, MINOR);
    }
    let ticks = median(5, |index| {
        uffd.cont(areas[index].start, 512 * PAGE, 0);
    });
    ("CONTINUE, 512 pages in one call, per page", ticks / 512)
}

fn writeprotect_4096() -> Row {
    let (uffd, area) = (blocking(0), Region::anon("area", 4096));
    area.fill(0, 4096, 1);
    uffd.watch(&area, WP);
    let mut all: Vec<u64> = (0..5)
        .map(|_| {
            let start = ticks();
            uffd.writeprotect(area.start, area.len, PROTECT)
                .expect("it is registered");
            let took = ticks() - start;
            uffd.writeprotect(area.start, area.len, 0)
                .expect("it is registered");
            took
        })
        .collect();
    all.sort_unstable();
    ("WRITEPROTECT set, 4096 pages, per page", all[2] / 4096)
}

fn first_touch() -> Row {
    let area = Region::anon("area", TIMES);
    (
        "first touch of anonymous memory, no uffd",
        median(TIMES, |index| store(area.page(index))),
    )
}

fn getppid() -> Row {
    (
        "getppid",
        median(TIMES, |_| {
            let _ = call(libc::SYS_getppid, &[]);
        }),
    )
}

fn pipe_round_trip() -> Row {
    let (there, back) = (
        sys::pipe2(0).expect("a pipe can be made"),
        sys::pipe2(0).expect("a pipe can be made"),
    );
    let other = std::thread::spawn(move || {
        for _ in 0..TIMES {
            let mut byte = [0u8];
            let _ = sys::read(there.0, &mut byte);
            let _ = sys::write(back.1, &byte);
        }
    });
    let ticks = median(TIMES, |_| {
        let _ = sys::write(there.1, b"x");
        let _ = sys::read(back.0, &mut [0; 1]);
    });
    other.join().expect("the other thread ends");
    ("pipe round trip, two threads", ticks)
}

/// Whose turn it is: even the one that measures, odd the other.
static TURN: AtomicU32 = AtomicU32::new(0);

/// Gives the turn away and waits until it comes back.
fn hand_over() {
    let word = TURN.as_ptr() as usize;
    let next = TURN.fetch_add(1, Ordering::AcqRel) + 1;
    let private = libc::FUTEX_PRIVATE_FLAG as usize;
    let _ = call(libc::SYS_futex, &[word, libc::FUTEX_WAKE as usize | private, 1]);
    while TURN.load(Ordering::Acquire) == next {
        let _ = call(
            libc::SYS_futex,
            &[word, libc::FUTEX_WAIT as usize | private, next as usize, 0],
        );
    }
}

fn futex_round_trip() -> Row {
    let other = std::thread::spawn(|| {
        let word = TURN.as_ptr() as usize;
        let private = libc::FUTEX_PRIVATE_FLAG as usize;
        while TURN.load(Ordering::Acquire).is_multiple_of(2) {
            let _ = call(
                libc::SYS_futex,
                &[word, libc::FUTEX_WAIT as usize | private, 0, 0],
            );
        }
        for _ in 1..TIMES {
            hand_over();
        }
        // The last turn is given away for good.
        TURN.fetch_add(1, Ordering::AcqRel);
        let _ = call(libc::SYS_futex, &[word, libc::FUTEX_WAKE as usize | private, 1]);
    });
    let ticks = median(TIMES, |_| hand_over());
    other.join().expect("the other thread ends");
    ("futex round trip, two threads", ticks)
}
