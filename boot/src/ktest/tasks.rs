//! The scheduler: who runs, for how long, and what is left of a task that has ended.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;

use kernel::arch::{Cpu, Machine};
use kernel::mm::frame::{self, Kind};
use kernel::mm::memtype::anon::ANON;
use kernel::mm::pt::Prot;
use kernel::mm::space::{MapRequest, Memory, Privilege, Space};
use kernel::mm::uaccess;
use kernel::task::spawn::{JoinHandle, spawn_returning};
use kernel::task::{self, Outcome, State, Task, spawn};

use crate::{ensure, kernel_test};

/// Text of any error.
fn text(error: impl ToString) -> String {
    error.to_string()
}

fn start<T: Send + 'static>(
    name: &str,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, String> {
    spawn_returning(name, None, job).map_err(text)
}

fn result<T>(task: JoinHandle<T>) -> Result<T, String> {
    task.join().map_err(|outcome| format!("{outcome:?}"))
}

/// Spins until told to stop; how many rounds it got.
fn spinner(stop: &Arc<AtomicBool>) -> Result<JoinHandle<u64>, String> {
    let stop = Arc::clone(stop);
    start("spinner", move || {
        let mut rounds = 0;
        while !stop.load(Ordering::Relaxed) {
            rounds += 1;
        }
        rounds
    })
}

kernel_test!(
    fn round_robin_takes_the_cpu_from_a_spinning_task() -> Result<(), String> {
        let before = task::stats();
        let stop = Arc::new(AtomicBool::new(false));
        let spinner = spinner(&stop)?;
        // Nobody would ever come back here from a task that keeps the CPU.
        task::yield_now();
        stop.store(true, Ordering::Relaxed);
        ensure!(result(spinner)? > 0, "the spinner never ran");
        let preempted = task::stats().preempted - before.preempted;
        ensure!(preempted >= 1, "nobody was preempted");
        Ok(())
    }
);

kernel_test!(
    fn round_robin_shares_the_cpu_between_spinning_tasks() -> Result<(), String> {
        let stop = Arc::new(AtomicBool::new(false));
        let spinners = [spinner(&stop)?, spinner(&stop)?, spinner(&stop)?];
        task::sleep(Duration::from_millis(600));
        stop.store(true, Ordering::Relaxed);
        let mut rounds = Vec::new();
        for spinner in spinners {
            rounds.push(result(spinner)?);
        }
        let total: u64 = rounds.iter().sum();
        ensure!(
            rounds.iter().all(|&rounds| rounds > total / 10),
            "unequal shares: {rounds:?}"
        );
        Ok(())
    }
);

/// A task that wakes the caller whenever the caller wakes it.
struct Partner {
    ball: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

/// What is thrown last.
const LAST: u64 = u64::MAX;

impl Partner {
    fn new() -> Result<Self, String> {
        let ball = Arc::new(AtomicU64::new(0));
        let (me, its) = (task::current_arc(), Arc::clone(&ball));
        let task = start("partner", move || {
            loop {
                match its.load(Ordering::Acquire) {
                    LAST => return,
                    thrown if thrown.is_multiple_of(2) => task::park(),
                    thrown => {
                        its.store(thrown + 1, Ordering::Release);
                        me.unpark();
                    }
                }
            }
        })?;
        Ok(Self { ball, task })
    }

    /// Throws the ball and waits until it is back.
    fn play(&self) {
        self.ball.fetch_add(1, Ordering::AcqRel);
        self.task.task().unpark();
        while !self.ball.load(Ordering::Acquire).is_multiple_of(2) {
            task::park();
        }
    }

    fn end(self) -> Result<(), String> {
        self.ball.store(LAST, Ordering::Release);
        self.task.task().unpark();
        result(self.task)
    }
}

kernel_test!(
    fn direct_switch_bypasses_the_run_queue() -> Result<(), String> {
        const ROUNDS: u64 = 10_000;
        let before = task::stats();
        let partner = Partner::new()?;
        (0..ROUNDS).for_each(|_| partner.play());
        partner.end()?;
        let after = task::stats();
        let (direct, queued) = (after.direct - before.direct, after.queued - before.queued);
        // The first and the last switch go through the queue, and so do the few where a tick came in between.
        ensure!(
            direct >= 2 * ROUNDS - 200 && queued <= 200,
            "{direct} direct, {queued} queued"
        );
        Ok(())
    }
);

kernel_test!(
    fn pair_that_hands_over_to_each_other_leaves_time_to_others() -> Result<(), String> {
        let rounds = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (its_rounds, its_stop) = (Arc::clone(&rounds), Arc::clone(&stop));
        let partner = Partner::new()?;
        partner.play();
        let third = start("third", move || {
            while !its_stop.load(Ordering::Relaxed) {
                its_rounds.fetch_add(1, Ordering::Relaxed);
            }
        })?;
        // The pair never leaves the CPU of its own accord until the time is up, which is long also on a busy host.
        let end = task::now() + Duration::from_secs(10);
        while rounds.load(Ordering::Relaxed) == 0 && task::now() < end {
            partner.play();
        }
        let progress = rounds.load(Ordering::Relaxed);
        stop.store(true, Ordering::Relaxed);
        result(third)?;
        partner.end()?;
        ensure!(progress > 0, "the third task never ran");
        Ok(())
    }
);

kernel_test!(
    fn task_that_wakes_another_keeps_the_cpu_until_it_parks() -> Result<(), String> {
        let ran = Arc::new(AtomicBool::new(false));
        let its = Arc::clone(&ran);
        let sleeper = start("sleeper", move || {
            task::park();
            its.store(true, Ordering::Relaxed);
        })?;
        while sleeper.task().state() != State::Parked {
            task::yield_now();
        }
        Machine::preempt_disable();
        sleeper.task().unpark();
        let at_once = ran.load(Ordering::Relaxed);
        Machine::preempt_enable();
        result(sleeper)?;
        ensure!(!at_once, "the waker lost the CPU with preemption off");
        Ok(())
    }
);

kernel_test!(
    fn preemption_waits_for_the_end_of_a_critical_section() -> Result<(), String> {
        let ran = Arc::new(AtomicBool::new(false));
        let its = Arc::clone(&ran);
        let other = start("other", move || its.store(true, Ordering::Relaxed))?;
        Machine::preempt_disable();
        Machine::request_reschedule();
        let end = task::now() + Duration::from_millis(50);
        while task::now() < end {
            core::hint::spin_loop();
        }
        let inside = ran.load(Ordering::Relaxed);
        Machine::preempt_enable();
        let after = ran.load(Ordering::Relaxed);
        result(other)?;
        ensure!(!inside, "another task ran inside the critical section");
        ensure!(after, "the reschedule was not made up for at its end");
        Ok(())
    }
);

kernel_test!(
    fn join_returns_the_result() -> Result<(), String> {
        ensure!(result(start("sum", || 40 + 2)?)? == 42, "another result");
        let failed = spawn("failed", None, || Err::<(), _>("no luck")).map_err(text)?;
        let outcome = failed.join();
        ensure!(outcome == Outcome::Failed("no luck".to_string()), "{outcome:?}");
        Ok(())
    }
);

kernel_test!(
    fn exit_ends_a_task_from_deep_inside() -> Result<(), String> {
        #[inline(never)]
        fn deep(levels: u32) -> u32 {
            if levels == 0 {
                task::exit(Err::<(), _>("deep enough"));
            }
            deep(core::hint::black_box(levels - 1)) + 1
        }
        let task = start("quitter", || deep(20))?;
        let outcome = task.join();
        ensure!(
            outcome == Err(Outcome::Failed("deep enough".to_string())),
            "{outcome:?}"
        );
        Ok(())
    }
);

kernel_test!(
    fn hooks_run_on_the_task_that_ends() -> Result<(), String> {
        let seen = Arc::new(AtomicU64::new(u64::MAX));
        let its = Arc::clone(&seen);
        let task = start("hooked", move || {
            task::current().on_end(move |_, _| {
                task::sleep(Duration::from_millis(1));
                its.store(task::current().id().as_u64(), Ordering::Relaxed);
            });
        })?;
        let id = task.task().id().as_u64();
        result(task)?;
        let seen = seen.load(Ordering::Relaxed);
        ensure!(seen == id, "the hook of task {id} ran on task {seen}");
        Ok(())
    }
);

/// Frames in use for the kernel's own purposes.
fn kernel_frames() -> [u64; 3] {
    let stats = frame::allocator().stats();
    [Kind::Stack, Kind::Table, Kind::Heap].map(|kind| stats.of(kind))
}

kernel_test!(
    fn a_thousand_tasks_leave_no_frame_behind() -> Result<(), String> {
        let batch = |tasks: usize| -> Result<(), String> {
            for _ in 0..tasks / 10 {
                let batch: Result<Vec<_>, _> = (0..10).map(|n| start("short-lived", move || n)).collect();
                for (n, task) in batch?.into_iter().enumerate() {
                    ensure!(result(task)? == n, "a wrong result");
                }
            }
            Ok(())
        };
        // The heap and the tables of the stacks' window grow to what ten tasks need.
        batch(10)?;
        let before = kernel_frames();
        batch(1000)?;
        let after = kernel_frames();
        ensure!(
            before == after,
            "stacks, tables, heap: {before:?} before, {after:?} after"
        );
        Ok(())
    }
);

kernel_test!(
    fn ended_tasks_leave_the_table() -> Result<(), String> {
        let count = || {
            let mut tasks = 0;
            task::for_each(|_: &Arc<Task>| tasks += 1);
            tasks
        };
        let before = count();
        let task = start("counted", task::park)?;
        let during = count();
        while task.task().state() != State::Parked {
            task::yield_now();
        }
        task.task().unpark();
        result(task)?;
        let after = count();
        ensure!(
            (during, after) == (before + 1, before),
            "{before}, {during}, {after} tasks"
        );
        Ok(())
    }
);

/// A task in a space of its own writes `value` to `at` and finds it there whenever it looks.
fn keep_writing(value: u64) -> Result<JoinHandle<Result<(), String>>, String> {
    let space = Space::new(Privilege::Kernel).map_err(|_| "no frame for a space")?;
    let request = MapRequest {
        at: Some(kernel::mm::space::MAP_BOTTOM),
        len: 4096,
        prot: Prot::READ | Prot::WRITE,
        memory: Memory::Own(&ANON),
    };
    let at = space.map(request).map_err(|error| format!("{error:?}"))?.start;
    spawn_returning("writer", Some(space), move || {
        for round in 0..100 {
            uaccess::store(at, value + round).map_err(text)?;
            task::yield_now();
            let found = uaccess::load(at).map_err(text)?;
            ensure!(found == value + round, "{} became {found}", value + round);
        }
        Ok(())
    })
    .map_err(text)
}

kernel_test!(
    fn each_task_runs_in_its_own_space() -> Result<(), String> {
        let writers = [keep_writing(1_000)?, keep_writing(2_000)?, keep_writing(3_000)?];
        let bystander = start("bystander", || (0..300).for_each(|_| task::yield_now()))?;
        for writer in writers {
            result(writer)??;
        }
        result(bystander)
    }
);
