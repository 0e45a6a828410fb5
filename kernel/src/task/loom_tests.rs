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

static REASON: WaitReason = WaitReason("loom");

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

#[test]
fn loom_wait_until_finds_a_condition_set_before_or_after_it_looked() {
    explore(None, || {
        let queue = Arc::new(WaitQueue::new(&REASON));
        let flag = Arc::new(AtomicBool::new(false));
        let (its_queue, its_flag) = (Arc::clone(&queue), Arc::clone(&flag));
        let waiter = start(&Task::detached("waiter"), move || {
            its_queue.wait_until(|| its_flag.load(Relaxed).then_some(()));
        });
        flag.store(true, Relaxed);
        queue.wake_one();
        waiter.join().expect("saw the flag");
        assert!(queue.is_empty());
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

/// Takes one of `items` if there is one.
fn take(items: &AtomicUsize) -> Option<()> {
    items
        .fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1))
        .ok()
        .map(drop)
}

#[test]
fn loom_wake_one_per_item_serves_two_waiters() {
    explore(Some(3), || {
        let queue = Arc::new(WaitQueue::new(&REASON));
        let items = Arc::new(AtomicUsize::new(0));
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let (queue, items) = (Arc::clone(&queue), Arc::clone(&items));
                start(&Task::detached("waiter"), move || {
                    queue.wait_until(|| take(&items))
                })
            })
            .collect();
        for _ in 0..2 {
            items.fetch_add(1, Relaxed);
            queue.wake_one();
        }
        waiters
            .into_iter()
            .for_each(|waiter| waiter.join().expect("took one"));
        assert!(queue.is_empty());
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
        let queue = Arc::new(WaitQueue::new(&REASON));
        let items = Arc::new(AtomicUsize::new(0));
        let hasty = Task::detached("hasty");
        let alarm = hasty.run_as(Alarm::unarmed);
        let (its_queue, its_items) = (Arc::clone(&queue), Arc::clone(&items));
        let waiter = start(&hasty, move || {
            let got = its_queue.wait_alarm(&alarm, || take(&its_items));
            let left = its_items.load(Relaxed);
            assert!(got.is_some() || left <= 1);
        });
        let timer = thread::spawn({
            let hasty = Arc::clone(&hasty);
            move || fire(&hasty)
        });
        items.fetch_add(1, Relaxed);
        queue.wake_one();
        timer.join().expect("fired");
        waiter.join().expect("got the item or gave up");
        assert!(queue.is_empty());
    });
}

#[test]
fn loom_patient_waiter_gets_what_a_hasty_one_gave_up() {
    explore(Some(2), || {
        let queue = Arc::new(WaitQueue::new(&REASON));
        let items = Arc::new(AtomicUsize::new(0));
        let hasty = Task::detached("hasty");
        let alarm = hasty.run_as(Alarm::unarmed);
        let (its_queue, its_items) = (Arc::clone(&queue), Arc::clone(&items));
        let first = start(&hasty, move || {
            if its_queue.wait_alarm(&alarm, || take(&its_items)).is_some() {
                its_items.fetch_add(1, Relaxed);
                its_queue.wake_one();
            }
        });
        let (its_queue, its_items) = (Arc::clone(&queue), Arc::clone(&items));
        let second = start(&Task::detached("patient"), move || {
            its_queue.wait_until(|| take(&its_items))
        });
        fire(&hasty);
        items.fetch_add(1, Relaxed);
        queue.wake_one();
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
            let queue = Arc::new(WaitQueue::new(&REASON));
            let flag = Arc::new(AtomicBool::new(false));
            let (its_queue, its_flag) = (Arc::clone(&queue), Arc::clone(&flag));
            let waiter = start(&Task::detached("waiter"), move || {
                its_queue.wait_until(|| its_flag.load(Relaxed).then_some(()));
            });
            queue.wake_one();
            flag.store(true, Relaxed);
            waiter.join().expect("never in some order");
        });
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn loom_finds_the_lost_wakeup_of_a_waiter_that_does_not_look_again_in_line() {
        explore(None, || {
            let queue = Arc::new(WaitQueue::new(&REASON));
            let flag = Arc::new(AtomicBool::new(false));
            let (its_queue, its_flag) = (Arc::clone(&queue), Arc::clone(&flag));
            let waiter = start(&Task::detached("waiter"), move || {
                while !its_flag.load(Relaxed) {
                    // The condition is not looked at between getting in line and sleeping.
                    let mut looks = 0;
                    its_queue.wait_until(|| {
                        looks += 1;
                        (looks > 2).then_some(())
                    });
                }
            });
            flag.store(true, Relaxed);
            queue.wake_one();
            waiter.join().expect("never in some order");
        });
    }
}
