//! Every interleaving of fault, event, read, fill, wake and the monitor's end.
//!
//! The queue, the fault slots, parking and waking are the kernel's own; the page table is one lock around "is the page
//! there", which is all that matters here: a fault looks at the entry and is queued under that lock, a fill changes it
//! under that lock and wakes afterwards. A lost wake-up shows as loom's "deadlock". The command is in
//! [`mod@crate::task::wait`].

use alloc::sync::Arc;

use loom::thread;

use super::api::Features;
use super::classify::{Trap, TrapKind};
use super::ctx::{Ctx, Uffd};
use super::delivery::queue::{Wait, hand_over};
use super::event::{Event, ReadError};
use super::layout::Change;
use super::policy::MonitorDeath;
use super::slot::Fault;
use crate::arch::host::{Config, SoftMachine};
use crate::mm::addr::VirtAddr;
use crate::mm::fault::{FaultError, Origin};
use crate::mm::memtype::Granule;
use crate::mm::range::VirtRange;
use crate::sync::model::SpinLock;
use crate::task::{Task, current};

const PAGE: VirtAddr = VirtAddr::new(0x10_0000);
const END: VirtAddr = VirtAddr::new(0x10_1000);
const RANGE: VirtRange = VirtRange {
    start: PAGE,
    end: END,
};
const UNMAPPED: Result<Event, ReadError> = Ok(Event::Unmap { range: RANGE });
const FAULT: Fault = Fault {
    trap: Trap {
        kind: TrapKind::Missing,
        write: true,
    },
    addr: PAGE,
    granule: Granule::Base,
};

/// A page that is missing, and the context it is registered with.
#[derive(Clone)]
struct World {
    present: Arc<SpinLock<bool>>,
    ctx: Arc<Ctx>,
}

impl World {
    fn new() -> Self {
        Self {
            present: Arc::new(SpinLock::new(false)),
            ctx: Ctx::of_nothing(),
        }
    }

    /// Touches the page until it is there, as the fault path does.
    fn touch(&self) -> Result<(), FaultError> {
        let task = current();
        loop {
            let present = self.present.lock();
            if *present {
                return Ok(());
            }
            self.ctx.enqueue(&task, FAULT)?;
            drop(present);
            hand_over(&task, &Origin::Task, Wait::Interruptible, |task| {
                self.withdraw(task)
            })?;
        }
    }

    /// Takes back the fault of `task`. There is one context: the list of all is other models' as well.
    fn withdraw(&self, task: &Arc<Task>) {
        self.ctx.withdraw_fault(task);
        assert!(!task.fault.is_waiting(), "it waited here, or was woken");
    }

    /// Starts a task that touches the page; how that ended is given to `check`.
    fn start_toucher(
        &self,
        check: impl Fn(Result<(), FaultError>) + 'static,
    ) -> (Arc<Task>, thread::JoinHandle<()>) {
        let (task, world) = (Task::detached("faulter"), self.clone());
        let its = Arc::clone(&task);
        let thread = thread::spawn(move || its.run_as(|| check(world.touch())));
        (task, thread)
    }

    /// Nobody waits, and there is nothing to read.
    fn assert_at_rest(&self) {
        assert_eq!(self.wake(), 0, "nobody is left in the queue");
        assert_eq!(self.ctx.next_event(|_| true), Err(ReadError::WouldBlock));
    }

    /// Fills the page and wakes who waits for it, as COPY does.
    fn fill(&self) {
        *self.present.lock() = true;
        self.wake();
    }

    /// Unmaps something, which a context that hears of it has to read.
    fn unmap(&self) {
        let change =
            Change::begin(&self.ctx, Features::EVENT_UNMAP).expect("the context asked for all events");
        change.announce(Event::Unmap { range: RANGE });
    }

    /// Reads, as a handle does that stays.
    fn read(&self) -> Result<Event, ReadError> {
        core::mem::ManuallyDrop::new(Uffd::of(self.ctx.clone())).read_event()
    }

    /// Drops the only handle.
    fn close(&self) {
        drop(Uffd::of(self.ctx.clone()));
    }

    fn wake(&self) -> usize {
        self.ctx.queue.lock().wake(PAGE, END)
    }

    fn start(&self, name: &str, f: impl FnOnce(Self) + 'static) -> thread::JoinHandle<()> {
        let (task, world) = (Task::detached(name), self.clone());
        thread::spawn(move || task.run_as(|| f(world)))
    }
}

fn explore(preemptions: Option<usize>, f: impl Fn() + Send + Sync + 'static) {
    // The clock is the software machine's; loom's threads all run on this one.
    let _machine = SoftMachine::start(Config::default());
    let mut model = loom::model::Builder::new();
    model.preemption_bound = preemptions;
    model.check(f);
}

fn join(thread: thread::JoinHandle<()>) {
    thread.join().expect("went on and ended");
}

#[test]
fn loom_fault_that_a_monitor_reads_and_fills_goes_on() {
    explore(Some(3), || {
        let world = World::new();
        let faulter = world.start("faulter", |world| assert_eq!(world.touch(), Ok(())));
        let monitor = world.start("monitor", |world| {
            world.read().expect("there is a fault");
            world.fill();
        });
        join(faulter);
        join(monitor);
        assert_eq!(world.wake(), 0, "nobody is left in the queue");
    });
}

#[test]
fn loom_fill_that_comes_before_the_read_is_not_missed() {
    explore(None, || {
        let world = World::new();
        let faulter = world.start("faulter", |world| assert_eq!(world.touch(), Ok(())));
        world.fill();
        join(faulter);
        assert_eq!(
            world.ctx.next_event(|_| true),
            Err(ReadError::WouldBlock),
            "its message is gone"
        );
    });
}

#[test]
fn loom_one_fill_wakes_both_who_wait_for_the_page() {
    explore(Some(2), || {
        let world = World::new();
        let faulters = [0, 1].map(|_| world.start("faulter", |world| assert_eq!(world.touch(), Ok(()))));
        world.fill();
        faulters.into_iter().for_each(join);
        assert_eq!(world.wake(), 0);
    });
}

#[test]
fn loom_wake_without_a_fill_sends_the_fault_again() {
    explore(Some(3), || {
        let world = World::new();
        let faulter = world.start("faulter", |world| assert_eq!(world.touch(), Ok(())));
        world.wake();
        world.fill();
        join(faulter);
    });
}

#[test]
fn loom_closing_wakes_whoever_waits_or_is_about_to() {
    explore(None, || {
        let world = World::new();
        let faulter = world.start("faulter", |world| {
            assert_eq!(world.touch(), Err(FaultError::MonitorGone));
        });
        world.close();
        join(faulter);
    });
}

#[test]
fn loom_event_that_is_read_lets_its_task_go_on() {
    explore(None, || {
        let world = World::new();
        let unmapper = world.start("unmapper", |world| world.unmap());
        assert_eq!(world.read(), UNMAPPED);
        join(unmapper);
        assert!(!world.ctx.is_changing() && !world.ctx.has_message());
    });
}

#[test]
fn loom_closing_releases_whoever_announces_or_is_about_to() {
    explore(None, || {
        let world = World::new();
        let unmapper = world.start("unmapper", |world| world.unmap());
        world.close();
        join(unmapper);
        assert!(!world.ctx.is_changing() && !world.ctx.has_message());
    });
}

#[test]
fn loom_event_is_read_or_released_when_reading_and_closing_race() {
    explore(Some(3), || {
        let world = World::new();
        let unmapper = world.start("unmapper", |world| world.unmap());
        let monitor = world.start("monitor", |world| {
            let read = world.read();
            assert!(read == UNMAPPED || read == Err(ReadError::Closed), "{read:?}");
        });
        world.close();
        join(unmapper);
        join(monitor);
        assert!(!world.ctx.is_changing() && !world.ctx.has_message());
    });
}

#[test]
fn loom_task_that_is_killed_takes_its_event_with_it_unless_it_is_read() {
    explore(None, || {
        let world = World::new();
        let task = Task::detached("unmapper");
        let (its, victim) = (world.clone(), Arc::clone(&task));
        let unmapper = thread::spawn(move || task.run_as(|| its.unmap()));
        victim.kill();
        let read = world.ctx.next_event(|_| true);
        assert!(read == UNMAPPED || read == Err(ReadError::WouldBlock), "{read:?}");
        join(unmapper);
        // Before it was announced there was nothing to read; afterwards there is nothing left.
        assert!(!world.ctx.is_changing() && !world.ctx.has_message());
    });
}

#[test]
fn loom_fault_that_is_interrupted_is_sent_again_and_none_is_lost_or_left() {
    explore(Some(3), || {
        let world = World::new();
        let (task, faulter) = world.start_toucher(|touched| assert_eq!(touched, Ok(())));
        let signal = thread::spawn(move || task.interrupt());
        world.fill();
        join(faulter);
        join(signal);
        world.assert_at_rest();
    });
}

#[test]
fn loom_fault_that_is_read_and_interrupted_is_sent_again() {
    explore(Some(2), || {
        let world = World::new();
        let (task, faulter) = world.start_toucher(|touched| assert_eq!(touched, Ok(())));
        let monitor = world.start("monitor", |world| {
            world.read().expect("there is a fault");
            world.fill();
        });
        task.interrupt();
        join(faulter);
        join(monitor);
        world.assert_at_rest();
    });
}

#[test]
fn loom_fault_of_a_task_that_is_killed_is_woken_or_taken_back() {
    explore(Some(3), || {
        let world = World::new();
        let (task, faulter) = world.start_toucher(|touched| {
            assert!(
                touched == Ok(()) || touched == Err(FaultError::Killed),
                "{touched:?}"
            );
        });
        let killer = thread::spawn(move || task.kill());
        world.wake();
        world.fill();
        join(faulter);
        join(killer);
        world.assert_at_rest();
    });
}

#[test]
fn loom_task_that_is_killed_does_not_wait_for_a_page_that_never_comes() {
    explore(None, || {
        let world = World::new();
        let (task, faulter) = world.start_toucher(|touched| {
            assert_eq!(touched, Err(FaultError::Killed));
        });
        task.kill();
        join(faulter);
        world.assert_at_rest();
    });
}

#[test]
fn loom_reader_that_is_interrupted_takes_no_message_with_it() {
    explore(Some(3), || {
        let world = World::new();
        let (task, its) = (Task::detached("monitor"), world.clone());
        let me = Arc::clone(&task);
        let reader = thread::spawn(move || {
            me.run_as(|| match its.read() {
                Ok(_) => true,
                Err(error) => {
                    assert_eq!(error, ReadError::Interrupted);
                    false
                }
            })
        });
        let signal = thread::spawn(move || task.interrupt());
        let faulter = Task::detached("faulter");
        assert_eq!(world.ctx.enqueue(&faulter, FAULT), Ok(()));
        join(signal);
        let was_read = reader.join().expect("went on and ended");
        assert_eq!(world.ctx.has_message(), !was_read, "read, or still there");
        assert_eq!(world.wake(), 1, "and it waits");
    });
}

#[test]
fn loom_two_readers_share_a_fault_and_an_event() {
    explore(Some(2), || {
        let world = World::new();
        let readers = [0, 1].map(|_| {
            world.start("monitor", |world| {
                if matches!(world.read(), Ok(Event::Pagefault { .. })) {
                    world.fill();
                }
            })
        });
        let faulter = world.start("faulter", |world| assert_eq!(world.touch(), Ok(())));
        world.unmap();
        join(faulter);
        readers.into_iter().for_each(join);
        assert_eq!(world.wake(), 0);
        assert!(!world.ctx.is_changing() && !world.ctx.has_message());
    });
}

#[test]
fn loom_closing_ends_a_read() {
    explore(None, || {
        let world = World::new();
        let reader = world.start("monitor", |world| {
            assert_eq!(world.read(), Err(ReadError::Closed));
        });
        world.close();
        join(reader);
    });
}

#[test]
fn loom_fault_that_is_read_when_its_monitor_is_lost_goes_on_with_the_next() {
    explore(Some(2), || {
        let world = World::new();
        let uffd = core::mem::ManuallyDrop::new(Uffd::of(world.ctx.clone()));
        uffd.on_monitor_death(MonitorDeath::Reattach);
        let first = Task::detached("first");
        uffd.attach_monitor(&first);
        let faulter = world.start("faulter", |world| assert_eq!(world.touch(), Ok(())));
        let monitors = world.start("monitors", move |world| {
            let uffd = core::mem::ManuallyDrop::new(Uffd::of(world.ctx.clone()));
            let lost = uffd.try_read_event();
            world.ctx.lose_monitor(first.id());
            uffd.attach_monitor(&Task::detached("second"));
            let again = uffd.read_event();
            assert!(lost.is_err() || lost == again, "{lost:?}, then {again:?}");
            world.fill();
        });
        join(faulter);
        join(monitors);
        assert_eq!(world.wake(), 0, "nobody is left in the queue");
    });
}

#[test]
fn loom_monitor_that_ends_while_another_is_attached_takes_nothing_from_it() {
    explore(None, || {
        let world = World::new();
        let uffd = core::mem::ManuallyDrop::new(Uffd::of(world.ctx.clone()));
        let (first, second) = (Task::detached("first"), Task::detached("second"));
        uffd.attach_monitor(&first);
        let end = world.start("end of the first", move |world| {
            world.ctx.lose_monitor(first.id())
        });
        uffd.attach_monitor(&second);
        join(end);
        assert!(!world.ctx.is_orphaned(), "the second serves");
        uffd.detach_monitor();
    });
}

#[test]
fn loom_losing_the_monitor_fails_whoever_waits_or_is_about_to() {
    explore(Some(3), || {
        let world = World::new();
        let uffd = core::mem::ManuallyDrop::new(Uffd::of(world.ctx.clone()));
        let monitor = Task::detached("monitor");
        uffd.attach_monitor(&monitor);
        let faulter = world.start("faulter", |world| {
            assert_eq!(world.touch(), Err(FaultError::MonitorGone));
        });
        let reader = world.start("reader", |world| drop(world.read()));
        world.ctx.lose_monitor(monitor.id());
        join(faulter);
        join(reader);
        assert_eq!(world.wake(), 0, "nobody is left in the queue");
    });
}

#[test]
#[should_panic(expected = "deadlock")]
fn loom_finds_the_lost_wakeup_of_a_fill_that_wakes_first() {
    explore(None, || {
        let world = World::new();
        let faulter = world.start("faulter", |world| assert_eq!(world.touch(), Ok(())));
        world.wake();
        *world.present.lock() = true;
        join(faulter);
    });
}

#[test]
#[should_panic(expected = "deadlock")]
fn loom_finds_the_lost_wakeup_of_a_fault_queued_after_the_table_is_unlocked() {
    explore(None, || {
        let world = World::new();
        let faulter = world.start("faulter", |world| {
            let task = current();
            while !*world.present.lock() {
                world.ctx.enqueue(&task, FAULT).expect("the context is open");
                let withdraw = |task: &_| world.withdraw(task);
                hand_over(&task, &Origin::Task, Wait::Interruptible, withdraw).expect("nobody kills it");
            }
        });
        world.fill();
        join(faulter);
    });
}
