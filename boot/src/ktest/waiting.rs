//! Waiting: for time, for each other, and under preemption at the worst moments.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use kernel::arch::{Cpu, Irq, Machine};
use kernel::sync::SpinLock;
use kernel::task::spawn::{JoinHandle, spawn_returning};
use kernel::task::{self, Completion, State, WaitQueue, WaitReason};

use crate::{ensure, kernel_test};

static REASON: WaitReason = WaitReason::new("a kernel test");

fn start<T: Send + 'static>(
    name: &str,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, String> {
    spawn_returning(name, None, job).map_err(|error| error.to_string())
}

fn result<T>(task: JoinHandle<T>) -> Result<T, String> {
    task.join().map_err(|outcome| format!("{outcome:?}"))
}

kernel_test!(
    fn sleep_is_never_short() -> Result<(), String> {
        for millis in [0, 1, 9, 10, 11, 35] {
            let (wanted, before) = (Duration::from_millis(millis), task::now());
            task::sleep(wanted);
            let slept = task::now() - before;
            ensure!(slept >= wanted, "{slept:?} instead of {wanted:?}");
        }
        Ok(())
    }
);

/// Sleeps at once, in as many tasks as there are times. Who woke in which order; `None` when the host was busy elsewhere while
/// they began, so that they did not all sleep from about the same moment on.
fn sleep_together(millis: &[u64]) -> Result<Option<Vec<u64>>, String> {
    const TOGETHER: Duration = Duration::from_millis(40);
    let order = Arc::new(SpinLock::new(Vec::new()));
    let before = task::now();
    let mut sleepers = Vec::new();
    for &millis in millis {
        let order = Arc::clone(&order);
        sleepers.push(start("sleeper", move || {
            task::sleep(Duration::from_millis(millis));
            order.lock().push(millis);
        })?);
    }
    while sleepers
        .iter()
        .any(|sleeper| sleeper.task().state() == State::Runnable)
    {
        task::yield_now();
    }
    let together = task::now() - before < TOGETHER;
    for sleeper in sleepers {
        result(sleeper)?;
    }
    let order = order.lock().clone();
    Ok(together.then_some(order))
}

kernel_test!(
    fn sleepers_wake_in_the_order_of_their_deadlines() -> Result<(), String> {
        for _ in 0..100 {
            if let Some(order) = sleep_together(&[150, 50, 250, 100, 200])? {
                ensure!(order == [50, 100, 150, 200, 250], "{order:?}");
                return Ok(());
            }
        }
        Err("the host never let them begin together".into())
    }
);

kernel_test!(
    fn timers_with_one_deadline_are_disarmed_one_by_one() -> Result<(), String> {
        // Longer than the clock counts, so all of them have the last deadline there is.
        const FOR_EVER: Duration = Duration::MAX;
        let doors: Arc<[Completion; 2]> = Arc::new([const { Completion::new(&REASON) }; 2]);
        let mut waiters = Vec::new();
        for _ in 0..7 {
            let doors = Arc::clone(&doors);
            // The second wait arms a timer that the first must have disarmed.
            waiters.push(start("waiter", move || {
                doors.iter().all(|door| door.wait_timeout(FOR_EVER))
            })?);
        }
        for door in &*doors {
            task::sleep(Duration::from_millis(20));
            door.complete();
        }
        for waiter in waiters {
            ensure!(result(waiter)?, "a wait without an end has ended");
        }
        Ok(())
    }
);

kernel_test!(
    fn sleep_ends_while_another_task_spins() -> Result<(), String> {
        let stop = Arc::new(AtomicBool::new(false));
        let its = Arc::clone(&stop);
        let spinner = start("spinner", move || while !its.load(Ordering::Relaxed) {})?;
        let before = task::now();
        task::sleep(Duration::from_millis(20));
        let slept = task::now() - before;
        stop.store(true, Ordering::Relaxed);
        result(spinner)?;
        ensure!(slept < Duration::from_secs(2), "{slept:?}");
        Ok(())
    }
);

kernel_test!(
    fn timed_wait_gives_up_in_time_and_leaves_the_queue() -> Result<(), String> {
        let queue = WaitQueue::new(&REASON);
        let before = task::now();
        let got = queue.wait_timeout(Duration::from_millis(30), || None::<()>);
        let waited = task::now() - before;
        ensure!(got.is_none() && queue.is_empty(), "{got:?}");
        ensure!(waited >= Duration::from_millis(30), "only {waited:?}");
        Ok(())
    }
);

kernel_test!(
    fn wake_up_beats_a_long_timeout() -> Result<(), String> {
        let done = Arc::new(Completion::new(&REASON));
        let its = Arc::clone(&done);
        let waiter = start("waiter", move || its.wait_timeout(Duration::from_secs(3600)))?;
        while waiter.task().state() != State::Parked {
            task::yield_now();
        }
        done.complete();
        ensure!(result(waiter)?, "it was told that the time was up");
        Ok(())
    }
);

kernel_test!(
    fn waiting_task_shows_what_it_waits_for() -> Result<(), String> {
        let queue = Arc::new(WaitQueue::new(&REASON));
        let go = Arc::new(AtomicBool::new(false));
        let (its_queue, its_go) = (Arc::clone(&queue), Arc::clone(&go));
        let waiter = start("waiter", move || {
            its_queue.wait_until(|| its_go.load(Ordering::Relaxed).then_some(()));
        })?;
        while waiter.task().state() != State::Parked {
            task::yield_now();
        }
        let line = waiter.task().info().to_string();
        go.store(true, Ordering::Relaxed);
        queue.wake_all();
        result(waiter)?;
        let expected = format!("waits for a kernel test {:#x}", Arc::as_ptr(&queue).addr());
        ensure!(line.ends_with(&expected), "{line}");
        Ok(())
    }
);

/// Loses the CPU at the end of the innermost critical section that follows.
fn disturb(seed: &mut u64) {
    *seed = seed
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    match *seed >> 61 {
        0..3 => Machine::request_reschedule(),
        3 => task::yield_now(),
        4 => task::sleep(Duration::ZERO),
        _ => {}
    }
}

/// A queue of items for the stress test; each step asks for preemption at random.
#[derive(Debug)]
struct Pipe {
    waiters: WaitQueue,
    items: SpinLock<VecDeque<u64>>,
}

impl Pipe {
    fn send(&self, item: u64, seed: &mut u64) {
        disturb(seed);
        self.items.lock().push_back(item);
        disturb(seed);
        self.waiters.wake_one();
    }

    fn receive(&self, seed: &mut u64) -> u64 {
        self.waiters.wait_until(|| {
            disturb(seed);
            self.items.lock().pop_front()
        })
    }
}

kernel_test!(
    fn wait_queue_loses_nothing_under_preemption() -> Result<(), String> {
        const ITEMS: u64 = 5_000;
        const CONSUMERS: u64 = 4;
        let pipe = Arc::new(Pipe {
            waiters: WaitQueue::new(&REASON),
            items: SpinLock::new(VecDeque::new()),
        });
        let mut consumers = Vec::new();
        for mut seed in 0..CONSUMERS {
            let pipe = Arc::clone(&pipe);
            consumers.push(start("consumer", move || {
                let mut sum = 0;
                loop {
                    match pipe.receive(&mut seed) {
                        0 => return sum,
                        item => sum += item,
                    }
                }
            })?);
        }
        let mut producers = Vec::new();
        for half in 0..2 {
            let pipe = Arc::clone(&pipe);
            producers.push(start("producer", move || {
                let mut seed = 100 + half;
                (1..=ITEMS)
                    .filter(|item| item % 2 == half)
                    .for_each(|item| pipe.send(item, &mut seed));
            })?);
        }
        for producer in producers {
            result(producer)?;
        }
        (0..CONSUMERS).for_each(|n| pipe.send(0, &mut (200 + n)));
        let mut sum = 0;
        for consumer in consumers {
            sum += result(consumer)?;
        }
        ensure!(sum == ITEMS * (ITEMS + 1) / 2, "the items add up to {sum}");
        ensure!(pipe.waiters.is_empty(), "somebody is still in line");
        Ok(())
    }
);

kernel_test!(
    fn interrupts_are_on_and_preemption_too_in_a_task() -> Result<(), String> {
        let state = || (Machine::enabled(), Machine::preempt_count());
        let before = state();
        task::yield_now();
        task::sleep(Duration::from_millis(15));
        let other = result(start("other", state)?)?;
        let after = state();
        ensure!(
            [before, other, after] == [(true, 0); 3],
            "{before:?}, {other:?}, {after:?}"
        );
        Ok(())
    }
);
