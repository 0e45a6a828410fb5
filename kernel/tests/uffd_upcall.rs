//! Faults that are resolved on the faulting task, by the handler of their context.
#![expect(unsafe_code, reason = "an allocator that counts")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use common::{
    RW, World, eventually, failed, missing, page, populate, returned, source, until_it_waits, word,
};
use kernel::mm::addr::{PAGE_SIZE, VirtAddr};
use kernel::mm::fault::{self, Access, FaultError, FaultInfo, Origin};
use kernel::mm::range::VirtRange;
use kernel::mm::uaccess;
use kernel::task::{self, Completion, TaskId, WaitReason};
use kernel::uffd::delivery::upcall::{DEPTH, upcalls_of};
use kernel::uffd::slot::FaultState;
use kernel::uffd::{
    Delivery, Event, FaultHandler, Features, FillMode, Handled, Modes, MonitorDeath, Outcome, ReadError,
    Refusal, TrapKind, Uffd, Upcall,
};

const P: u64 = PAGE_SIZE;
const NOW: FillMode = FillMode::empty();

/// Counts what each thread allocates.
struct Counting;

std::thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is left to the system's allocator; the counter is a plain cell that needs no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Memory of `pages` pages in `world` whose faults `handler` resolves.
fn called(
    world: &World,
    pages: u64,
    modes: Modes,
    handler: impl FaultHandler + 'static,
) -> (Uffd, VirtRange) {
    let range = world.map(pages, RW);
    let uffd = Uffd::with_delivery(&world.space, Features::empty(), Delivery::upcall(handler));
    uffd.register(range, modes).expect("anonymous memory can");
    (uffd, range)
}

/// Resolves by COPY of a page of bytes `byte`.
fn copy(fault: &Upcall<'_>, byte: u8) -> Outcome {
    fault.copy(fault.addr().align_down(P), &source(byte, 1), P, NOW)
}

fn fill(fault: &Upcall<'_>) -> Handled {
    match copy(fault, 7) {
        Outcome::Done | Outcome::Refused(Refusal::Exists) => Handled::Resolved,
        _ => Handled::Failed,
    }
}

#[test]
fn a_touch_calls_the_handler_on_the_touching_task() {
    let world = World::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let its = Arc::clone(&seen);
    let (uffd, range) = called(&world, 2, Modes::MISSING, move |fault: &Upcall<'_>| {
        let ids: [TaskId; 2] = [task::current().id(), fault.task().id()];
        its.lock()
            .expect("whole")
            .push((ids, fault.addr(), fault.trap(), fault.event()));
        fill(fault)
    });
    let at = page(range, 1) + 0x238;
    let toucher = world.spawn_store(at, 1);
    let id = toucher.task().id();
    assert_eq!(returned(toucher), Ok(()));
    let mut seen = seen.lock().expect("whole");
    let (ids, addr, trap, event) = seen.pop().expect("called");
    assert!(seen.is_empty(), "called once");
    assert_eq!((ids, addr), ([id, id], at));
    assert_eq!((trap.kind, trap.write), (TrapKind::Missing, true));
    assert_eq!(
        Ok(event),
        missing(page(range, 1), true),
        "the message masks the address"
    );
    assert_eq!(world.load(page(range, 1)), Ok(word(7)));
    assert_eq!(
        uffd.try_read_event(),
        Err(ReadError::WouldBlock),
        "nothing is queued"
    );
}

#[test]
fn the_message_has_what_the_contexts_features_say() {
    let world = World::new();
    let seen = Arc::new(Mutex::new(None));
    let its = Arc::clone(&seen);
    let handler = move |fault: &Upcall<'_>| {
        *its.lock().expect("whole") = Some(fault.event());
        fill(fault)
    };
    let range = world.map(1, RW);
    let features = Features::EXACT_ADDRESS | Features::THREAD_ID;
    let uffd = Uffd::with_delivery(&world.space, features, Delivery::upcall(handler));
    uffd.register(range, Modes::MISSING)
        .expect("anonymous memory can");
    let toucher = world.spawn_load(range.start + 0x238);
    let thread = Some(toucher.task().id());
    assert_eq!(returned(toucher), Ok(word(7)));
    let expected = Event::Pagefault {
        kind: TrapKind::Missing,
        write: false,
        addr: range.start + 0x238,
        thread,
    };
    assert_eq!(*seen.lock().expect("whole"), Some(expected));
}

#[test]
fn every_operation_resolves_from_a_handler() {
    let world = World::new();
    let zeropage = |fault: &Upcall<'_>| match fault.zeropage(VirtRange::page(fault.addr().align_down(P)), NOW)
    {
        Outcome::Done => Handled::Resolved,
        _ => Handled::Failed,
    };
    let (_zeros, range) = called(&world, 1, Modes::MISSING, zeropage);
    assert_eq!(world.load(range.start), Ok(0));

    let poison = |fault: &Upcall<'_>| match fault.poison(VirtRange::page(fault.addr().align_down(P)), NOW) {
        Outcome::Done => Handled::Resolved,
        _ => Handled::Failed,
    };
    let (_poison, range) = called(&world, 1, Modes::MISSING, poison);
    assert_eq!(world.load(range.start), Err(FaultError::Poisoned));

    let unprotect = |fault: &Upcall<'_>| {
        let page = VirtRange::page(fault.addr().align_down(P));
        match fault.remove_write_protection(page, NOW) {
            Ok(()) if fault.trap().kind == TrapKind::WriteProtect => Handled::Resolved,
            _ => Handled::Failed,
        }
    };
    let (uffd, range) = called(&world, 2, Modes::WP, unprotect);
    populate(&world, range);
    uffd.write_protect(range).expect("registered");
    assert_eq!(world.store(range.start, 9), Ok(()));
    assert_eq!(world.load(range.start), Ok(9));
    assert_eq!(world.load(page(range, 1)), Ok(2), "loads are not trapped");
}

#[test]
fn copy_in_protected_calls_the_handler_of_a_writer_a_second_time() {
    let world = World::new();
    let kinds = Arc::new(Mutex::new(Vec::new()));
    let its = Arc::clone(&kinds);
    let handler = move |fault: &Upcall<'_>| {
        its.lock().expect("whole").push(fault.trap().kind);
        let page = fault.addr().align_down(P);
        let done = match fault.trap().kind {
            TrapKind::Missing => fault.copy(page, &source(1, 1), P, FillMode::WP) == Outcome::Done,
            _ => fault.remove_write_protection(VirtRange::page(page), NOW).is_ok(),
        };
        if done { Handled::Resolved } else { Handled::Failed }
    };
    let (_uffd, range) = called(&world, 1, Modes::MISSING | Modes::WP, handler);
    assert_eq!(world.store(range.start, 3), Ok(()));
    assert_eq!(
        *kinds.lock().expect("whole"),
        [TrapKind::Missing, TrapKind::WriteProtect]
    );
}

#[test]
fn a_handler_that_fails_fails_the_access_and_only_that() {
    let world = World::new();
    let handler = |fault: &Upcall<'_>| match fault.trap().write {
        true => fill(fault),
        false => Handled::Failed,
    };
    let (_uffd, range) = called(&world, 1, Modes::MISSING, handler);
    assert_eq!(world.load(range.start), Err(FaultError::HandlerFailed));
    assert_eq!(world.store(range.start + 8, 1), Ok(()));
    assert_eq!(world.load(range.start), Ok(word(7)));
}

#[test]
fn a_handler_that_did_nothing_is_called_again() {
    let world = World::new();
    let calls = Arc::new(AtomicU64::new(0));
    let its = Arc::clone(&calls);
    let handler = move |fault: &Upcall<'_>| match its.fetch_add(1, Ordering::Relaxed) {
        0..4 => Handled::Resolved,
        _ => fill(fault),
    };
    let (_uffd, range) = called(&world, 1, Modes::MISSING, handler);
    assert_eq!(world.load(range.start), Ok(word(7)));
    assert_eq!(calls.load(Ordering::Relaxed), 5);
}

#[test]
fn a_handler_that_touches_its_own_contexts_memory_gets_an_error_and_can_go_on() {
    let world = World::new();
    let seen = Arc::new(Mutex::new(None));
    let its = Arc::clone(&seen);
    let handler = move |fault: &Upcall<'_>| {
        let next = fault.addr() + P;
        *its.lock().expect("whole") = Some((next, uaccess::load(next)));
        fill(fault)
    };
    let (_uffd, range) = called(&world, 2, Modes::MISSING, handler);
    let toucher = world.spawn_load(range.start);
    let monitor = toucher.task().id();
    assert_eq!(returned(toucher), Ok(word(7)), "the fault itself was resolved");
    let (next, result) = seen.lock().expect("whole").expect("called");
    let error = result.expect_err("nobody could have resolved it");
    assert_eq!((error.addr, error.why), (next, FaultError::SelfFault { monitor }));
}

#[test]
fn a_handler_that_touches_another_contexts_memory_is_served() {
    let world = World::new();
    let (_inner, inside) = called(&world, 1, Modes::MISSING, fill);
    let outer = move |fault: &Upcall<'_>| match uaccess::load(inside.start) {
        Ok(value) if value == word(7) && copy(fault, 8) == Outcome::Done => Handled::Resolved,
        _ => Handled::Failed,
    };
    let (_outer, range) = called(&world, 1, Modes::MISSING, outer);
    assert_eq!(world.load(range.start), Ok(word(8)));
}

#[test]
fn a_handler_may_wait_for_a_page_of_a_context_with_a_monitor() {
    let world = World::new();
    let queued = world.map(1, RW);
    let monitor = Uffd::new(&world.space, Features::empty());
    monitor
        .register(queued, Modes::MISSING)
        .expect("anonymous memory can");
    let handler = move |fault: &Upcall<'_>| match uaccess::load(queued.start) {
        Ok(0) => fill(fault),
        _ => Handled::Failed,
    };
    let (_uffd, range) = called(&world, 1, Modes::MISSING, handler);
    let toucher = world.spawn_load(range.start);
    until_it_waits(toucher.task());
    assert_eq!(monitor.try_read_event(), missing(queued.start, false));
    assert_eq!(monitor.zeropage(queued, NOW), Outcome::Done);
    assert_eq!(returned(toucher), Ok(word(7)));
}

#[test]
fn handlers_that_touch_each_others_memory_are_told_apart_from_a_chain() {
    let world = World::new();
    let target = Arc::new(AtomicU64::new(0));
    let its = Arc::clone(&target);
    let second = move |fault: &Upcall<'_>| match uaccess::load(VirtAddr::new(its.load(Ordering::Relaxed)))
        .map_err(|error| error.why)
    {
        Err(FaultError::SelfFault { .. }) if copy(fault, 9) == Outcome::Done => Handled::Resolved,
        _ => Handled::Failed,
    };
    let (_second, inside) = called(&world, 1, Modes::MISSING, second);
    let first = move |fault: &Upcall<'_>| match uaccess::load(inside.start) {
        Ok(value) if value == word(9) => fill(fault),
        _ => Handled::Failed,
    };
    let (_first, range) = called(&world, 2, Modes::MISSING, first);
    target.store(page(range, 1).as_u64(), Ordering::Relaxed);
    assert_eq!(world.load(range.start), Ok(word(7)));
}

#[test]
fn a_chain_of_handlers_that_is_too_long_is_an_error_and_no_overflow() {
    let world = World::new();
    let mut contexts = Vec::new();
    let mut below: Option<VirtRange> = None;
    for _ in 0..=DEPTH {
        let handler = move |fault: &Upcall<'_>| match below.map(|range| uaccess::load(range.start)) {
            None | Some(Ok(_)) => fill(fault),
            Some(Err(_)) => Handled::Failed,
        };
        let (uffd, range) = called(&world, 1, Modes::MISSING, handler);
        contexts.push((uffd, range));
        below = Some(range);
    }
    let touch = |at: VirtAddr| {
        let toucher = world.spawn("toucher", move || (uaccess::load(at), fault::last_error()));
        returned(toucher)
    };
    let (_, longest) = &contexts[DEPTH];
    let (result, _) = touch(longest.start);
    assert_eq!(failed(result), Err(FaultError::HandlerFailed));
    let (_, most) = &contexts[DEPTH - 1];
    assert_eq!(touch(most.start).0, Ok(word(7)), "as deep as it goes");
    assert_eq!(touch(longest.start).0, Ok(word(7)), "what is there needs no call");
}

#[test]
fn the_link_that_is_too_much_is_refused_by_name() {
    let world = World::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut contexts = Vec::new();
    let mut below: Option<VirtRange> = None;
    for _ in 0..=DEPTH {
        let its = Arc::clone(&seen);
        let handler = move |_: &Upcall<'_>| {
            let result = below.map(|range| uaccess::load(range.start));
            its.lock().expect("whole").push(result.map(failed));
            Handled::Failed
        };
        let (uffd, range) = called(&world, 1, Modes::MISSING, handler);
        contexts.push(uffd);
        below = Some(range);
    }
    let top = below.expect("there are some");
    assert_eq!(world.load(top.start), Err(FaultError::HandlerFailed));
    let seen = seen.lock().expect("whole");
    assert_eq!(seen.len(), DEPTH, "the innermost handler was never called");
    assert_eq!(seen[0], Some(Err(FaultError::HandlersNested)));
    assert_eq!(seen[1], Some(Err(FaultError::HandlerFailed)));
}

#[test]
fn two_tasks_on_one_page_call_twice_and_both_go_on() {
    let world = World::new();
    let inside = Arc::new(AtomicU64::new(0));
    let its = Arc::clone(&inside);
    let handler = move |fault: &Upcall<'_>| {
        its.fetch_add(1, Ordering::Relaxed);
        while its.load(Ordering::Relaxed) < 2 {
            std::thread::yield_now();
        }
        fill(fault)
    };
    let (_uffd, range) = called(&world, 1, Modes::MISSING, handler);
    let tasks = [world.spawn_load(range.start), world.spawn_load(range.start)];
    for task in tasks {
        assert_eq!(returned(task), Ok(word(7)));
    }
    assert_eq!(inside.load(Ordering::Relaxed), 2);
}

static GATE: WaitReason = WaitReason::new("the test");

/// A handler that says when it is called and then waits until it is let go on.
struct Gate {
    reached: Completion,
    open: Completion,
}

impl Gate {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            reached: Completion::new(&GATE),
            open: Completion::new(&GATE),
        })
    }

    fn pass(&self) {
        self.reached.complete();
        self.open.wait();
    }
}

/// What the handler of [`while_called`] said, and what its operation was told.
type Said = Arc<Mutex<Option<Outcome>>>;

/// Has a task touch memory whose handler waits, does `meanwhile`, lets the handler go on, which tries COPY and fails if
/// that is refused; comes to what the access did and what the handler was told.
fn while_called<R>(
    meanwhile: impl FnOnce(&World, Uffd, VirtRange) -> R,
) -> (Result<u64, FaultError>, Option<Outcome>) {
    let world = World::new();
    let gate = Gate::new();
    let said: Said = Arc::default();
    let (its_gate, its) = (Arc::clone(&gate), Arc::clone(&said));
    let handler = move |fault: &Upcall<'_>| {
        its_gate.pass();
        let outcome = copy(fault, 5);
        *its.lock().expect("whole") = Some(outcome);
        match outcome {
            Outcome::Done => Handled::Resolved,
            _ => Handled::Failed,
        }
    };
    let (uffd, range) = called(&world, 1, Modes::MISSING, handler);
    let toucher = world.spawn_load(range.start);
    gate.reached.wait();
    let kept = meanwhile(&world, uffd, range);
    gate.open.complete();
    let result = failed(returned(toucher));
    drop(kept);
    let said = *said.lock().expect("whole");
    (result, said)
}

#[test]
fn a_handler_holds_no_lock() {
    let (result, said) = while_called(|world, uffd, _| {
        let other = world.map(1, RW);
        world.space.unmap(other).expect("mapped");
        uffd
    });
    assert_eq!((result, said), (Ok(word(5)), Some(Outcome::Done)));
}

#[test]
fn a_wake_while_a_handler_runs_changes_nothing() {
    let (result, said) = while_called(|_, uffd, range| {
        assert_eq!(uffd.wake(range), Ok(()));
        uffd
    });
    assert_eq!((result, said), (Ok(word(5)), Some(Outcome::Done)));
}

#[test]
fn a_handler_that_fails_where_somebody_was_faster_fails_the_access_all_the_same() {
    let (result, said) = while_called(|_, uffd, range| {
        assert_eq!(uffd.zeropage(range, NOW), Outcome::Done);
        uffd
    });
    assert_eq!(said, Some(Outcome::Refused(Refusal::Exists)));
    assert_eq!(
        result,
        Err(FaultError::HandlerFailed),
        "what the handler says counts"
    );
}

#[test]
fn a_fault_that_a_handler_is_at_can_be_listed() {
    let world = World::new();
    let gate = Gate::new();
    let its = Arc::clone(&gate);
    let (uffd, range) = called(&world, 1, Modes::MISSING, move |fault: &Upcall<'_>| {
        its.pass();
        fill(fault)
    });
    let toucher = world.spawn_load(range.start + 16);
    gate.reached.wait();
    let faults = upcalls_of(toucher.task());
    let [fault] = &faults[..] else {
        panic!("{faults:?}")
    };
    assert_eq!((fault.addr, fault.state), (range.start + 16, FaultState::Called));
    assert!(uffd.ctx().outstanding_faults().is_empty(), "it is in no queue");
    gate.open.complete();
    let task = Arc::clone(toucher.task());
    assert_eq!(returned(toucher), Ok(word(7)));
    assert!(upcalls_of(&task).is_empty());
}

#[test]
fn closing_while_a_handler_runs_leaves_plain_memory() {
    let (result, said) = while_called(|_, uffd, _| uffd.close());
    assert_eq!(said, Some(Outcome::Refused(Refusal::NotRegistered)));
    assert_eq!(result, Ok(0));
}

#[test]
fn dropping_the_last_handle_while_a_handler_runs_leaves_plain_memory() {
    let (result, said) = while_called(|_, uffd, _| drop(uffd));
    assert_eq!(said, Some(Outcome::Refused(Refusal::NotRegistered)));
    assert_eq!(result, Ok(0));
}

#[test]
fn unregistering_while_a_handler_runs_leaves_plain_memory() {
    let (result, said) = while_called(|_, uffd, range| {
        uffd.unregister(range).expect("registered");
        uffd
    });
    assert_eq!(said, Some(Outcome::Refused(Refusal::NotRegistered)));
    assert_eq!(result, Ok(0));
}

#[test]
fn unmapping_while_a_handler_runs_fails_the_access_as_unmapped() {
    let (result, said) = while_called(|world, uffd, range| {
        world.space.unmap(range).expect("mapped");
        uffd
    });
    assert_eq!(said, Some(Outcome::Refused(Refusal::NotRegistered)));
    assert_eq!(result, Err(FaultError::Unmapped));
}

/// What a load comes to after the attached monitor of a context with a handler is lost under `policy`, and whether the
/// handler was called.
fn after_losing_its_monitor(policy: MonitorDeath) -> (Result<u64, FaultError>, bool) {
    let world = World::new();
    let calls = Arc::new(AtomicU64::new(0));
    let its = Arc::clone(&calls);
    let (uffd, range) = called(&world, 1, Modes::MISSING, move |fault: &Upcall<'_>| {
        its.fetch_add(1, Ordering::Relaxed);
        fill(fault)
    });
    uffd.on_monitor_death(policy);
    let uffd = Arc::new(uffd);
    let monitored = Arc::clone(&uffd);
    returned(world.spawn("monitor", move || monitored.attach_monitor(&task::current_arc())));
    let loaded = world.load(range.start);
    (loaded, calls.load(Ordering::Relaxed) > 0)
}

#[test]
fn the_policy_answers_instead_of_the_handler_once_the_monitor_is_lost() {
    for (policy, expected) in [
        (MonitorDeath::Fail, Err(FaultError::MonitorGone)),
        (MonitorDeath::Poison, Err(FaultError::Poisoned)),
        (MonitorDeath::Zero, Ok(0)),
    ] {
        assert_eq!(after_losing_its_monitor(policy), (expected, false), "{policy}");
    }
}

#[test]
fn a_policy_that_waits_leaves_faults_to_the_handler() {
    for policy in [MonitorDeath::Hang, MonitorDeath::Reattach] {
        assert_eq!(after_losing_its_monitor(policy), (Ok(word(7)), true), "{policy}");
    }
}

#[test]
fn the_handler_is_called_again_once_another_monitor_is_attached() {
    let world = World::new();
    let (uffd, range) = called(&world, 1, Modes::MISSING, fill);
    let uffd = Arc::new(uffd);
    let monitored = Arc::clone(&uffd);
    returned(world.spawn("monitor", move || monitored.attach_monitor(&task::current_arc())));
    assert_eq!(world.load(range.start), Err(FaultError::MonitorGone));
    uffd.attach_monitor(&task::Task::detached("second"));
    assert_eq!(world.load(range.start), Ok(word(7)));
    uffd.detach_monitor();
}

#[test]
fn a_handler_that_ends_its_task_takes_nothing_with_it() {
    let world = World::new();
    let handler =
        |_: &Upcall<'_>| -> Handled { task::exit(task::Outcome::Failed("ended by the handler".into())) };
    let (uffd, range) = called(&world, 1, Modes::MISSING, handler);
    let toucher = world.spawn_load(range.start);
    eventually("the task has ended", || {
        toucher.task().state() == task::State::Ended
    });
    assert!(matches!(toucher.join(), Err(task::Outcome::Failed(why)) if why == "ended by the handler"));
    uffd.close();
    assert_eq!(world.load(range.start), Ok(0));
}

#[test]
fn the_way_to_a_handler_and_back_allocates_nothing() {
    let world = World::new();
    let calls = Arc::new(AtomicU64::new(0));
    let its = Arc::clone(&calls);
    let handler = move |_: &Upcall<'_>| {
        its.fetch_add(1, Ordering::Relaxed);
        Handled::Resolved
    };
    let (_uffd, range) = called(&world, 1, Modes::MISSING, handler);
    let info = FaultInfo {
        addr: range.start,
        access: Access::Read,
        origin: Origin::Task,
    };
    let allocated = world.run(|| {
        let before = ALLOCATIONS.get();
        for _ in 0..100 {
            assert_eq!(fault::handle(&info), Ok(()));
        }
        ALLOCATIONS.get() - before
    });
    assert_eq!((allocated, calls.load(Ordering::Relaxed)), (0, 100));
}
