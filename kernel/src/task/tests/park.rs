//! Tokens and refusals.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::sync::{IrqLock, SpinLock};
use crate::task::{self, Outcome, State, Task, spawn};

#[test]
fn unpark_before_park_is_not_lost() {
    task::current().unpark();
    task::park();
}

#[test]
fn many_unparks_leave_one_token() {
    let task = Task::detached("t");
    (0..3).for_each(|_| task.unpark());
    assert!(task.take_token());
    assert!(!task.take_token());
}

#[test]
fn two_tasks_hand_over_to_each_other() {
    const ROUNDS: usize = if cfg!(miri) { 50 } else { 10_000 };
    let turn = Arc::new(AtomicUsize::new(0));
    let me = task::current_arc();
    let its_turn = Arc::clone(&turn);
    let other = spawn("other", None, move || {
        for _ in 0..ROUNDS {
            while its_turn.load(SeqCst).is_multiple_of(2) {
                task::park();
            }
            its_turn.fetch_add(1, SeqCst);
            me.unpark();
        }
    })
    .unwrap();
    for _ in 0..ROUNDS {
        turn.fetch_add(1, SeqCst);
        other.unpark();
        while !turn.load(SeqCst).is_multiple_of(2) {
            task::park();
        }
    }
    assert_eq!(other.join(), Outcome::Done);
    assert_eq!(turn.load(SeqCst), 2 * ROUNDS);
}

#[test]
fn parked_task_shows_what_it_waits_for() {
    static REASON: task::WaitReason = task::WaitReason::new("a test");
    let sleeper = spawn("sleeper", None, || task::park_on(&REASON, 0x1234)).unwrap();
    while sleeper.state() != State::Parked {
        std::thread::yield_now();
    }
    let line = std::format!("{}", sleeper.info());
    assert!(line.ends_with("(sleeper): waits for a test 0x1234"), "{line}");
    let mut listed = false;
    task::for_each(|task| listed |= Arc::ptr_eq(task, &sleeper));
    assert!(listed);
    sleeper.unpark();
    sleeper.join();
    assert_eq!(sleeper.state(), State::Ended);
}

#[test]
#[should_panic(expected = "a task would wait for a wake-up with preemption off 1 deep")]
fn parking_with_a_lock_held_is_refused() {
    let lock = SpinLock::new(());
    let _guard = lock.lock();
    task::park();
}

#[test]
#[should_panic(expected = "with preemption off 1 deep")]
fn parking_with_a_lock_held_is_refused_even_if_a_token_is_there() {
    task::current().unpark();
    let lock = SpinLock::new(());
    let _guard = lock.lock();
    task::park();
}

#[test]
#[should_panic(expected = "a task would wait for a wake-up with interrupts off")]
fn parking_with_an_interrupt_lock_held_is_refused() {
    let lock = IrqLock::new(());
    let _guard = lock.lock();
    task::park();
}

#[test]
fn sleep_lets_the_time_pass() {
    let before = Instant::now();
    task::sleep(Duration::from_millis(20));
    assert!(before.elapsed() >= Duration::from_millis(20));
    task::sleep(Duration::ZERO);
}

#[test]
fn unpark_does_not_cut_a_sleep_short() {
    let before = Instant::now();
    let sleeper = spawn("sleeper", None, || task::sleep(Duration::from_millis(50))).unwrap();
    for _ in 0..5 {
        sleeper.unpark();
        std::thread::sleep(Duration::from_millis(2));
    }
    sleeper.join();
    assert!(before.elapsed() >= Duration::from_millis(50));
}

#[test]
fn a_task_counts_how_often_it_had_to_wait() {
    let before = task::current().switches().voluntary();
    task::current().unpark();
    task::park();
    assert_eq!(
        task::current().switches().voluntary(),
        before,
        "there was a token"
    );
    let me = task::current_arc();
    let waker = spawn("waker", None, move || {
        while me.state() != State::Parked {
            task::yield_now();
        }
        me.unpark();
    })
    .unwrap();
    task::park();
    assert_eq!(task::current().switches().voluntary(), before + 1);
    assert_eq!(waker.join(), Outcome::Done);
}
