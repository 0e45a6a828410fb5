//! Wait queues under threads that get in each other's way.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use std::vec::Vec;

use crate::sync::SpinLock;
use crate::task::{self, Completion, Outcome, WaitQueue, WaitReason, spawn};

static REASON: WaitReason = WaitReason::new("a test");

#[test]
fn items_reach_waiters_without_loss_or_doubling() {
    const ITEMS: u64 = if cfg!(miri) { 50 } else { 2_000 };
    let queue = Arc::new((WaitQueue::new(&REASON), SpinLock::new(VecDeque::new())));
    let consumers: Vec<_> = (0..3)
        .map(|_| {
            let queue = Arc::clone(&queue);
            task::spawn::spawn_returning("consumer", None, move || {
                let mut sum = 0;
                loop {
                    match queue.0.wait_until(|| queue.1.lock().pop_front()) {
                        0 => return sum,
                        item => sum += item,
                    }
                }
            })
            .unwrap()
        })
        .collect();
    let ends = core::iter::repeat_n(0, consumers.len());
    for item in (1..=ITEMS).chain(ends) {
        queue.1.lock().push_back(item);
        queue.0.wake_one();
    }
    let sum: u64 = consumers
        .into_iter()
        .map(|consumer| consumer.join().unwrap())
        .sum();
    assert_eq!(sum, ITEMS * (ITEMS + 1) / 2);
    assert!(queue.0.is_empty());
}

#[test]
fn wake_one_wakes_in_the_order_of_arrival() {
    let queue = Arc::new(WaitQueue::new(&REASON));
    let order = Arc::new(SpinLock::new(Vec::new()));
    let allowed = Arc::new(SpinLock::new(0));
    let mut waiters = Vec::new();
    for n in 0..3 {
        let (queue, order, allowed) = (Arc::clone(&queue), Arc::clone(&order), Arc::clone(&allowed));
        let waiter = spawn("waiter", None, move || {
            queue.wait_until(|| (*allowed.lock() > n).then_some(()));
            order.lock().push(n);
        })
        .unwrap();
        while waiter.info().waits_for.is_none() {
            std::thread::yield_now();
        }
        waiters.push(waiter);
    }
    for waiter in waiters {
        *allowed.lock() += 1;
        assert!(queue.wake_one());
        assert_eq!(waiter.join(), Outcome::Done);
    }
    assert!(!queue.wake_one());
    assert_eq!(*order.lock(), [0, 1, 2]);
}

#[test]
fn timeout_gives_up_and_leaves_the_queue() {
    let queue = WaitQueue::new(&REASON);
    assert_eq!(queue.wait_timeout(Duration::from_millis(10), || None::<()>), None);
    assert!(queue.is_empty());
    assert_eq!(queue.wait_timeout(Duration::ZERO, || None::<()>), None);
    assert_eq!(queue.wait_timeout(Duration::ZERO, || Some(1)), Some(1));
}

#[test]
fn wake_beats_a_long_timeout() {
    let shared = Arc::new((WaitQueue::new(&REASON), AtomicBool::new(false)));
    let its = Arc::clone(&shared);
    let waiter = task::spawn::spawn_returning("waiter", None, move || {
        its.0
            .wait_timeout(Duration::from_secs(60), || its.1.load(SeqCst).then_some(5))
    })
    .unwrap();
    shared.1.store(true, SeqCst);
    shared.0.wake_all();
    assert_eq!(waiter.join().unwrap(), Some(5));
}

#[test]
fn completion_stays_complete() {
    let done = Arc::new(Completion::new(&REASON));
    assert!(!done.wait_timeout(Duration::from_millis(1)));
    let its = Arc::clone(&done);
    let waiter = spawn("waiter", None, move || its.wait()).unwrap();
    done.complete();
    waiter.join();
    done.wait();
    assert!(done.wait_timeout(Duration::ZERO));
}
