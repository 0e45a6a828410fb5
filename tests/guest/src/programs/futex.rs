//! futex(2): wait, wake, bitsets, requeue, time limits, shared words, and its refusals.

use guest_tests::child::fork;
use guest_tests::job;
use guest_tests::region::*;
use guest_tests::sys::{Answer, call};
use guest_tests::touch::poke;
use guest_tests::transcript::{answer, ok, show};

const WAIT: usize = 0;
const WAKE: usize = 1;
const REQUEUE: usize = 3;
const CMP_REQUEUE: usize = 4;
const WAKE_OP: usize = 5;
const WAIT_BITSET: usize = 9;
const WAKE_BITSET: usize = 10;
const PRIVATE: usize = 128;
const REALTIME: usize = 256;

pub fn run() {
    refusals();
    wait_and_wake();
    bitsets();
    requeue();
    wake_op();
    time_limits();
    shared();
}

fn futex(word: usize, op: usize, value: usize, fourth: usize, word2: usize, value3: usize) -> Answer {
    call(libc::SYS_futex, &[word, op, value, fourth, word2, value3])
}

/// A word of its own, zero.
fn word() -> usize {
    let region = Region::anon("word", 1);
    poke(region.start, 0);
    region.start
}

fn refusals() {
    let at = word();
    show("futex: another value", ok(futex(at, WAIT, 1, 0, 0, 0)));
    show("futex: word not aligned", ok(futex(at + 1, WAIT, 0, 0, 0, 0)));
    show(
        "futex: word not mapped",
        ok(futex(Region::hole("hole", PAGE).start, WAIT, 0, 0, 0, 0)),
    );
    show(
        "futex: word not mapped, private",
        ok(futex(8, WAIT | PRIVATE, 0, 0, 0, 0)),
    );
    show(
        "futex: word in the kernel",
        ok(futex(0xffff_8000_0000_0000, WAIT, 0, 0, 0, 0)),
    );
    show("futex: unknown operation", ok(futex(at, 77, 0, 0, 0, 0)));
    show(
        "futex: wake of a word not mapped",
        ok(futex(Region::hole("hole", PAGE).start, WAKE, 1, 0, 0, 0)),
    );
    show(
        "futex: private wake of a word not mapped",
        ok(futex(
            Region::hole("hole", PAGE).start,
            WAKE | PRIVATE,
            1,
            0,
            0,
            0,
        )),
    );
    show("futex: wake of nobody", answer(futex(at, WAKE, 1, 0, 0, 0)));
    show(
        "futex: wake, word not aligned",
        ok(futex(at + 2, WAKE, 1, 0, 0, 0)),
    );
    show(
        "futex: empty bitset to wait",
        ok(futex(at, WAIT_BITSET, 0, 0, 0, 0)),
    );
    show(
        "futex: empty bitset to wake",
        ok(futex(at, WAKE_BITSET, 1, 0, 0, 0)),
    );
    show("futex: bad time limit", ok(futex(at, WAIT, 0, 8, 0, 0)));
    let limit = [0u64, 2_000_000_000];
    show(
        "futex: time limit of too many nanoseconds",
        ok(futex(at, WAIT, 0, limit.as_ptr() as usize, 0, 0)),
    );
    let limit = [u64::MAX, 0];
    show(
        "futex: negative time limit",
        ok(futex(at, WAIT, 0, limit.as_ptr() as usize, 0, 0)),
    );
    show("futex: realtime wait", ok(futex(at, WAIT | REALTIME, 1, 0, 0, 0)));
    show("futex: realtime wake", ok(futex(at, WAKE | REALTIME, 1, 0, 0, 0)));
    show(
        "futex: negative requeue",
        ok(futex(at, REQUEUE, 1, usize::MAX, at + 4, 0)),
    );
}

fn wait_and_wake() {
    for (name, kind) in [("shared", 0), ("private", PRIVATE)] {
        let at = word();
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let waiter = job::start(move || answer(futex(at, WAIT | kind, 0, 0, 0, 0)));
                waiter.settle();
                waiter
            })
            .collect();
        show(&format!("futex {name}: the waiters"), waiters[2].settle());
        show(
            &format!("futex {name}: wake another word"),
            answer(futex(at + 4, WAKE | kind, 9, 0, 0, 0)),
        );
        show(
            &format!("futex {name}: wake one"),
            answer(futex(at, WAKE | kind, 1, 0, 0, 0)),
        );
        show(&format!("futex {name}: the oldest"), waiters[0].finish());
        show(&format!("futex {name}: the next"), waiters[1].settle());
        show(
            &format!("futex {name}: wake all"),
            answer(futex(at, WAKE | kind, i32::MAX as usize, 0, 0, 0)),
        );
        show(&format!("futex {name}: the second"), waiters[1].finish());
        show(&format!("futex {name}: the third"), waiters[2].finish());
    }
}

fn bitsets() {
    let at = word();
    let waiter = |bits: usize| {
        let waiter = job::start(move || answer(futex(at, WAIT_BITSET, 0, 0, 0, bits)));
        waiter.settle();
        waiter
    };
    let (one, two, both) = (waiter(1), waiter(2), waiter(3));
    show("futex bitset: wake 4", answer(futex(at, WAKE_BITSET, 9, 0, 0, 4)));
    show("futex bitset: wake 2", answer(futex(at, WAKE_BITSET, 9, 0, 0, 2)));
    show("futex bitset: the one of 2", two.finish());
    show("futex bitset: the one of both", both.finish());
    show("futex bitset: the one of 1", one.settle());
    show("futex bitset: plain wake", answer(futex(at, WAKE, 9, 0, 0, 0)));
    show("futex bitset: the one of 1 then", one.finish());
}

fn requeue() {
    let region = Region::filled("words", 1, 0);
    let (first, second) = (region.start, region.start + 64);
    let waiters: Vec<_> = (0..4)
        .map(|_| {
            let waiter = job::start(move || answer(futex(first, WAIT, 0, 0, 0, 0)));
            waiter.settle();
            waiter
        })
        .collect();
    show(
        "futex requeue: another value",
        answer(futex(first, CMP_REQUEUE, 1, 2, second, 7)),
    );
    show(
        "futex requeue: one wakes, two move",
        answer(futex(first, CMP_REQUEUE, 1, 2, second, 0)),
    );
    show("futex requeue: the one that wakes", waiters[0].finish());
    show(
        "futex requeue: wake at the second word",
        answer(futex(second, WAKE, 9, 0, 0, 0)),
    );
    show(
        "futex requeue: those that moved",
        format!("{} {}", waiters[1].finish(), waiters[2].finish()),
    );
    show("futex requeue: the one that stayed", waiters[3].settle());
    show(
        "futex requeue: wake at the first word",
        answer(futex(first, WAKE, 9, 0, 0, 0)),
    );
    show("futex requeue: the one that stayed then", waiters[3].finish());
}

fn wake_op() {
    let region = Region::filled("words", 1, 0);
    let (first, second) = (region.start, region.start + 64);
    let waiter = |at: usize| {
        let waiter = job::start(move || answer(futex(at, WAIT, 0, 0, 0, 0)));
        waiter.settle();
        waiter
    };
    let (one, two) = (waiter(first), waiter(second));
    // Sets the second word to 5; it was 0, so its waiter is woken as well.
    let operation = 5 << 12;
    show(
        "futex wake_op: both",
        answer(futex(first, WAKE_OP, 1, 1, second, operation)),
    );
    show("futex wake_op: the first", one.finish());
    show("futex wake_op: the second", two.finish());
    show("futex wake_op: the second word", guest_tests::touch::peek(second));
}

fn time_limits() {
    let at = word();
    let limit = [0u64, 3_000_000];
    show(
        "futex: relative limit",
        ok(futex(at, WAIT, 0, limit.as_ptr() as usize, 0, 0)),
    );
    let now = |clock: i32| {
        let mut time = [0u64; 2];
        call(
            libc::SYS_clock_gettime,
            &[clock as usize, time.as_mut_ptr() as usize],
        )
        .expect("there is a clock");
        time
    };
    let past = [1u64, 0];
    show(
        "futex: absolute limit in the past",
        ok(futex(at, WAIT_BITSET, 0, past.as_ptr() as usize, 0, 1)),
    );
    let mut soon = now(libc::CLOCK_MONOTONIC);
    soon[1] += 3_000_000;
    soon = [soon[0] + soon[1] / 1_000_000_000, soon[1] % 1_000_000_000];
    show(
        "futex: absolute limit",
        ok(futex(at, WAIT_BITSET, 0, soon.as_ptr() as usize, 0, 1)),
    );
    let mut soon = now(libc::CLOCK_REALTIME);
    soon[1] += 3_000_000;
    soon = [soon[0] + soon[1] / 1_000_000_000, soon[1] % 1_000_000_000];
    show(
        "futex: absolute limit, realtime",
        ok(futex(at, WAIT_BITSET | REALTIME, 0, soon.as_ptr() as usize, 0, 1)),
    );
    guest_tests::signal::catch(libc::SIGUSR1, 0, &[]);
    let waiter = job::start(move || ok(futex(at, WAIT, 0, 0, 0, 0)));
    waiter.settle();
    let _ = guest_tests::signal::tgkill(waiter.tid(), libc::SIGUSR1);
    show("futex: interrupted", waiter.finish());
    guest_tests::signal::catch(libc::SIGUSR1, libc::SA_RESTART, &[]);
    let waiter = job::start(move || ok(futex(at, WAIT, 0, 0, 0, 0)));
    waiter.settle();
    let _ = guest_tests::signal::tgkill(waiter.tid(), libc::SIGUSR1);
    show("futex: interrupted, SA_RESTART", waiter.settle());
    show("futex: wake then", answer(futex(at, WAKE, 1, 0, 0, 0)));
    show("futex: the restarted one", waiter.finish());
}

/// A word that two processes share.
fn shared() {
    let region = Region::common("shared");
    let at = region.start;
    let waiter = job::start(move || ok(futex(at, WAIT, 0, 0, 0, 0)));
    waiter.settle();
    let child = fork(|| futex(at, WAKE | PRIVATE, 1, 0, 0, 0).map_or(99, |woken| woken as i32));
    show("futex across fork: private wake of a shared word", child.wait());
    let child = fork(|| futex(at, WAKE, 1, 0, 0, 0).map_or(99, |woken| woken as i32));
    show("futex across fork: shared wake", child.wait());
    show("futex across fork: the waiter", waiter.finish());
    // The same page of a file at two addresses.
    let object = memfd(1);
    let (first, second) = (
        Region::shared("first", object, 1),
        Region::shared("second", object, 1),
    );
    poke(first.start, 0);
    let at = first.start;
    let waiter = job::start(move || ok(futex(at, WAIT, 0, 0, 0, 0)));
    waiter.settle();
    show(
        "futex at two addresses: wake by the other",
        answer(futex(second.start, WAKE, 1, 0, 0, 0)),
    );
    show("futex at two addresses: the waiter", waiter.finish());
}
