//! Every interleaving of parking, waking, waiting and timing out.
//!
//! Threads are loom's; a thread is made a task by [`Task::run_as`]. A lost wake-up shows as loom's "deadlock", a doubled
//! one as the panic of `threads::resume`. The last tests are of broken variants: loom must find what is wrong with them,
//! otherwise the tests above prove nothing.

use alloc::sync::Arc;
use std::vec::Vec;

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use loom::thread;

use super::sleep::Alarm;
use super::{Completion, SleepLock, Task, WaitQueue, WaitReason, engine, park};

static REASON: WaitReason = WaitReason::new("loom");

/// Explores `f` with at most `preemptions` forced switches per run, or all of them.
fn explore(preemptions: Option<usize>, f: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = preemptions;
    model.check(f);
}

fn start(task: &Arc<Task>, f: impl FnOnce() + 'static) -> thread::JoinHandle<()> {
    let task = Arc::clone(task);
    thread::spawn(move || task.run_as(f))
}

fn fire(task: &Task) {
    if let Some(woken) = task.fire_timer() {
        engine::resume(woken);
    }
}

#[test]
fn loom_unpark_reaches_park_in_any_order() {
    explore(None, || {
        let task = Task::detached("parker");
        let parker = start(&task, park);
        task.unpark();
        parker.join().expect("parked and went on");
    });
}

#[test]
fn loom_park_sees_what_was_done_before_unpark() {
    explore(None, || {
        let task = Task::detached("parker");
        let data = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&data);
        let parker = start(&task, move || {
            park();
            assert_eq!(seen.load(Relaxed), 7);
        });
        data.store(7, Relaxed);
        task.unpark();
        parker.join().expect("saw the data");
    });
}

#[test]
fn loom_two_wakers_resume_a_task_once_per_park() {
    explore(None, || {
        let task = Task::detached("parker");
        let flags = Arc::new([AtomicBool::new(false), AtomicBool::new(false)]);
        let wakers: Vec<_> = (0..2)
            .map(|n| {
                let (task, flags) = (Arc::clone(&task), Arc::clone(&flags));
                thread::spawn(move || {
                    flags[n].store(true, Relaxed);
                    task.unpark();
                })
            })
            .collect();
        task.run_as(|| {
            while !flags.iter().all(|flag| flag.load(Relaxed)) {
                park();
            }
        });
        wakers.into_iter().for_each(|waker| waker.join().expect("woke"));
    });
}

/// Something to be waited for until it is open.
struct Gate {
    queue: WaitQueue,
    is_open: AtomicBool,
}

impl Gate {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            queue: WaitQueue::new(&REASON),
            is_open: AtomicBool::new(false),
        })
    }

    fn look(&self) -> Option<()> {
        self.is_open.load(Relaxed).then_some(())
    }

    /// A thread that waits for it.
    fn waiter(self: &Arc<Self>) -> thread::JoinHandle<()> {
        let gate = Arc::clone(self);
        start(&Task::detached("waiter"), move || {
            gate.queue.wait_until(|| gate.look())
        })
    }
}

#[test]
fn loom_wait_until_finds_a_condition_set_before_or_after_it_looked() {
    explore(None, || {
        let gate = Gate::new();
        let waiter = gate.waiter();
        gate.is_open.store(true, Relaxed);
        gate.queue.wake_one();
        waiter.join().expect("saw it open");
        assert!(gate.queue.is_empty());
    });
}

#[test]
fn loom_a_sleep_lock_has_one_holder_and_wakes_the_next() {
    explore(Some(3), || {
        let lock = Arc::new(SleepLock::new(&REASON));
        let inside = Arc::new(AtomicUsize::new(0));
        let work = |lock: &SleepLock, inside: &AtomicUsize| {
            let _held = lock.lock();
            assert_eq!(inside.fetch_add(1, Relaxed), 0, "two holders");
            inside.fetch_sub(1, Relaxed);
        };
        let others: Vec<_> = ["one", "two"]
            .map(|name| {
                let (lock, inside) = (Arc::clone(&lock), Arc::clone(&inside));
                start(&Task::detached(name), move || work(&lock, &inside))
            })
            .into_iter()
            .collect();
        Task::detached("main").run_as(|| work(&lock, &inside));
        others
            .into_iter()
            .for_each(|other| other.join().expect("had its turn"));
    });
}

/// Items that tasks wait for.
struct Supply {
    queue: WaitQueue,
    items: AtomicUsize,
}

impl Supply {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            queue: WaitQueue::new(&REASON),
            items: AtomicUsize::new(0),
        })
    }

    /// One more item, for one who waits.
    fn put(&self) {
        self.items.fetch_add(1, Relaxed);
        self.queue.wake_one();
    }

    /// An item, if there is one.
    fn take(&self) -> Option<()> {
        self.items
            .fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1))
            .ok()
            .map(drop)
    }

    fn wait(&self) {
        self.queue.wait_until(|| self.take());
    }

    /// Whether there was an item before the alarm.
    fn wait_alarm(&self, alarm: &Alarm) -> bool {
        self.queue.wait_alarm(alarm, || self.take()).is_some()
    }
}

#[test]
fn loom_wake_one_per_item_serves_two_waiters() {
    explore(Some(3), || {
        let supply = Supply::new();
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let supply = Arc::clone(&supply);
                start(&Task::detached("waiter"), move || supply.wait())
            })
            .collect();
        supply.put();
        supply.put();
        waiters
            .into_iter()
            .for_each(|waiter| waiter.join().expect("took one"));
        assert!(supply.queue.is_empty());
    });
}

#[test]
fn loom_completion_releases_everybody() {
    explore(Some(3), || {
        let done = Arc::new(Completion::new(&REASON));
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let done = Arc::clone(&done);
                start(&Task::detached("waiter"), move || done.wait())
            })
            .collect();
        done.complete();
        waiters
            .into_iter()
            .for_each(|waiter| waiter.join().expect("went on"));
    });
}

#[test]
fn loom_timeout_ends_a_wait_that_nobody_wakes() {
    explore(None, || {
        let queue = Arc::new(WaitQueue::new(&REASON));
        let task = Task::detached("waiter");
        let its_queue = Arc::clone(&queue);
        // The alarm is made before the timer can fire, as arming it does.
        let alarm = task.run_as(Alarm::unarmed);
        let waiter = start(&task, move || {
            assert_eq!(its_queue.wait_alarm(&alarm, || None::<()>), None);
        });
        fire(&task);
        waiter.join().expect("gave up");
        assert!(queue.is_empty());
    });
}

#[test]
fn loom_timeout_against_wake_never_wastes_the_item() {
    explore(Some(3), || {
        let supply = Supply::new();
        let hasty = Task::detached("hasty");
        let alarm = hasty.run_as(Alarm::unarmed);
        let its = Arc::clone(&supply);
        let waiter = start(&hasty, move || {
            assert!(its.wait_alarm(&alarm) || its.items.load(Relaxed) <= 1);
        });
        let timer = thread::spawn({
            let hasty = Arc::clone(&hasty);
            move || fire(&hasty)
        });
        supply.put();
        timer.join().expect("fired");
        waiter.join().expect("got the item or gave up");
        assert!(supply.queue.is_empty());
    });
}

#[test]
fn loom_patient_waiter_gets_what_a_hasty_one_gave_up() {
    explore(Some(2), || {
        let supply = Supply::new();
        let hasty = Task::detached("hasty");
        let alarm = hasty.run_as(Alarm::unarmed);
        let its = Arc::clone(&supply);
        let first = start(&hasty, move || {
            if its.wait_alarm(&alarm) {
                its.put();
            }
        });
        let its = Arc::clone(&supply);
        let second = start(&Task::detached("patient"), move || its.wait());
        fire(&hasty);
        supply.put();
        first.join().expect("took it and put it back, or gave up");
        second.join().expect("got it in the end");
    });
}

mod broken {
    //! What loom must not accept.

    use super::*;

    /// A park word that looks and then writes, in two steps.
    struct TwoSteps(loom::sync::atomic::AtomicU8);

    impl TwoSteps {
        fn begin(&self) -> bool {
            if self.0.load(Relaxed) == 1 {
                self.0.store(0, Relaxed);
                return false;
            }
            self.0.store(2, Relaxed);
            true
        }

        fn notify(&self) -> bool {
            self.0.swap(1, Relaxed) == 2
        }
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn loom_finds_the_lost_wakeup_of_a_park_that_looks_before_it_writes() {
        explore(None, || {
            let word = Arc::new(TwoSteps(loom::sync::atomic::AtomicU8::new(0)));
            let its_word = Arc::clone(&word);
            let sleeper = thread::spawn(move || {
                if its_word.begin() {
                    // As deep a sleep as that of a task: only `notify` ends it.
                    thread::park();
                }
            });
            if word.notify() {
                sleeper.thread().unpark();
            }
            sleeper.join().expect("never in some order");
        });
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn loom_finds_the_lost_wakeup_of_a_waker_that_wakes_before_it_changes_the_condition() {
        explore(None, || {
            let gate = Gate::new();
            let waiter = gate.waiter();
            gate.queue.wake_one();
            gate.is_open.store(true, Relaxed);
            waiter.join().expect("never in some order");
        });
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn loom_finds_the_lost_wakeup_of_a_waiter_that_does_not_look_again_in_line() {
        explore(None, || {
            let gate = Gate::new();
            let its = Arc::clone(&gate);
            let waiter = start(&Task::detached("waiter"), move || {
                while its.look().is_none() {
                    // The condition is not looked at between getting in line and sleeping.
                    let mut looks = 0;
                    its.queue.wait_until(|| {
                        looks += 1;
                        (looks > 2).then_some(())
                    });
                }
            });
            gate.is_open.store(true, Relaxed);
            gate.queue.wake_one();
            waiter.join().expect("never in some order");
        });
    }
}
