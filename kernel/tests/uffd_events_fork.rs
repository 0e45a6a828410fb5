//! Forking a space with registered memory, row by row as Linux has it (checked there on 6.18).

mod common;

use std::sync::Arc;

use common::{
    RW, World, answer, eventually, failed, missing, object_world, page, part, populate, returned,
    shared_with, source, until_it_waits, word, write_protected,
};
use kernel::mm::addr::{PAGE_SIZE, VirtAddr};
use kernel::mm::cache::Object;
use kernel::mm::fault::{BusError, FaultError};
use kernel::mm::frame::allocator;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::pt::{AttrFlags, Entry, Marker};
use kernel::mm::range::VirtRange;
use kernel::mm::space::{ForkError, MapRequest, Memory, Space};
use kernel::mm::uaccess::{self, AccessError};
use kernel::task::spawn::{JoinHandle, spawn_returning};
use kernel::task::{State, Task};
use kernel::uffd::linux::message;
use kernel::uffd::{
    Event, Features, FillMode, Flags, Modes, MoveMode, Outcome, ReadError, Refusal, TrapKind, Uffd,
};

const P: u64 = PAGE_SIZE;
const NOW: FillMode = FillMode::empty();
const TELL: Features = Features::EVENT_FORK;
/// Every event but a fork.
const OTHERS: Features = Features::EVENT_REMAP
    .union(Features::EVENT_REMOVE)
    .union(Features::EVENT_UNMAP);
const NOTHING: Result<Event, ReadError> = Err(ReadError::WouldBlock);

type Forked = Result<Arc<Space>, ForkError>;

/// A task that forks the world's space, until it waits for its event to be read.
fn forker(world: &World) -> JoinHandle<Forked> {
    let space = Arc::clone(&world.space);
    let task = world.spawn("forker", move || space.fork());
    eventually("the fork waits for its event to be read", || {
        task.task().event.is_queued() && task.task().state() == State::Parked
    });
    task
}

/// What a fork made; one that waits fails the test.
#[track_caller]
fn child_of(task: JoinHandle<Forked>) -> Arc<Space> {
    returned(task).expect("RAM is plenty, and nobody killed it")
}

/// Reads a fork's event.
#[track_caller]
fn read_fork(uffd: &Uffd) -> Uffd {
    match uffd.try_read_event() {
        Ok(Event::Fork { uffd }) => uffd,
        other => panic!("a fork is to be read: {other:?}"),
    }
}

/// Forks the world's space, whose one context reads of it.
#[track_caller]
fn fork(world: &World, uffd: &Uffd) -> (Arc<Space>, Uffd) {
    let task = forker(world);
    let childs = read_fork(uffd);
    (child_of(task), childs)
}

fn spawn_load(space: &Arc<Space>, addr: VirtAddr) -> JoinHandle<Result<u64, AccessError>> {
    spawn_returning("loader", Some(Arc::clone(space)), move || uaccess::load(addr)).expect("threads")
}

fn spawn_store(space: &Arc<Space>, addr: VirtAddr) -> JoinHandle<Result<(), AccessError>> {
    spawn_returning("storer", Some(Arc::clone(space)), move || {
        uaccess::store(addr, 77)
    })
    .expect("threads")
}

/// Loads in the child; an access that waits fails the test.
#[track_caller]
fn load(space: &Arc<Space>, addr: VirtAddr) -> Result<u64, FaultError> {
    failed(returned(spawn_load(space, addr)))
}

#[track_caller]
fn store(space: &Arc<Space>, addr: VirtAddr) -> Result<(), FaultError> {
    failed(returned(spawn_store(space, addr)))
}

fn is_protected(space: &Space, addr: VirtAddr) -> bool {
    match space.entry(addr).0 {
        Entry::Leaf(leaf) => leaf.attr.flags.contains(AttrFlags::UFFD_WP),
        Entry::Absent(marker) => marker == Marker::UffdWp,
        Entry::Table(_) => false,
    }
}

/// A world with `pages` of anonymous memory registered for everything it can be, with these features.
fn protecting(pages: u64, features: Features) -> (World, Arc<Uffd>, VirtRange) {
    let (world, uffd, range) = shared_with(pages, RW, features);
    uffd.register(range, Modes::MISSING | Modes::WP)
        .expect("anonymous memory can");
    (world, uffd, range)
}

/// A shared mapping of an object, registered with `modes`.
fn object(world: &World, pages: u64, modes: Modes, features: Features) -> (Uffd, VirtRange) {
    let request = MapRequest {
        at: None,
        len: pages * P,
        prot: RW,
        memory: Memory::shared(&Object::new(&SHMEM, pages * P)),
    };
    let range = world.space.map(request).expect("there is room");
    let uffd = Uffd::new(&world.space, features);
    uffd.register(range, modes).expect("shared memory can");
    (uffd, range)
}

#[test]
fn without_event_fork_the_childs_copy_is_entirely_unregistered_and_the_parent_keeps_everything() {
    let (world, uffd, range) = protecting(3, OTHERS | Features::WP_UNPOPULATED);
    assert_eq!(uffd.copy(range.start, &source(1, 2), 2 * P, NOW), Outcome::Done);
    assert_eq!(uffd.write_protect(range), Ok(()));
    let child = world.space.fork().expect("nobody is to be told");
    assert_eq!(child.query(range.start).expect("mapped").uffd, None);
    let protected = |space| [0, 1, 2].map(|i| is_protected(space, page(range, i)));
    assert_eq!(protected(&child), [false; 3], "write protection is dropped");
    assert_eq!(protected(&world.space), [true; 3]);
    assert_eq!(load(&child, page(range, 2)), Ok(0), "missing pages read as zero");
    assert_eq!(store(&child, range.start), Ok(()));
    assert_eq!(uffd.try_read_event(), NOTHING);
    let writer = world.spawn_store(range.start, 5);
    until_it_waits(writer.task());
    assert!(matches!(
        uffd.try_read_event(),
        Ok(Event::Pagefault {
            kind: TrapKind::WriteProtect,
            ..
        })
    ));
    assert_eq!(uffd.remove_write_protection(range, NOW), Ok(()));
    assert_eq!(returned(writer), Ok(()));
}

#[test]
fn with_event_fork_the_child_gets_a_new_context_with_the_same_features_on_the_same_ranges() {
    let (world, uffd, range) = shared_with(4, RW, TELL | Features::EXACT_ADDRESS | Features::THREAD_ID);
    uffd.register(part(range, 2, 2), Modes::WP)
        .expect("anonymous memory can");
    let (child, childs) = fork(&world, &uffd);
    assert_ne!(childs, *uffd);
    let of = |space: &Space, number| {
        let vma = space.query(page(range, number)).expect("mapped");
        let registration = vma.uffd.expect("registered");
        (vma.range, registration.modes, registration.ctx)
    };
    for (number, modes) in [(0, Modes::MISSING), (2, Modes::WP)] {
        let (parents, its) = (of(&world.space, number), of(&child, number));
        assert_eq!((its.0, its.1), (parents.0, modes));
        assert_eq!(parents.1, modes);
        assert!(Arc::ptr_eq(&its.2, childs.ctx()) && Arc::ptr_eq(&parents.2, uffd.ctx()));
    }
    let faulter = spawn_load(&child, range.start + 8);
    until_it_waits(faulter.task());
    let expected = Event::Pagefault {
        kind: TrapKind::Missing,
        write: false,
        addr: range.start + 8,
        thread: Some(faulter.task().id()),
    };
    assert_eq!(childs.try_read_event(), Ok(expected));
    childs.close();
    assert_eq!(returned(faulter), Ok(0));
}

#[test]
fn the_message_of_a_fork_carries_the_descriptor_and_nothing_else() {
    let (world, uffd, _) = shared_with(1, RW, TELL);
    let task = forker(&world);
    let event = uffd.try_read_event().expect("the fork is told");
    let bytes = message::encode(&event, |childs| {
        assert_ne!(childs, &*uffd);
        0xfedc_ba98
    });
    let mut expected = [0; 32];
    expected[0] = 0x13;
    expected[8..12].copy_from_slice(&0xfedc_ba98_u32.to_le_bytes());
    assert_eq!(bytes, expected);
    child_of(task);
}

#[test]
fn the_childs_context_has_the_flags_of_its_parents() {
    let world = World::new();
    let range = world.map(1, RW);
    let uffd = Uffd::with_flags(&world.space, Flags::USER_MODE_ONLY, TELL);
    uffd.register(range, Modes::MISSING)
        .expect("anonymous memory can");
    let (child, _childs) = fork(&world, &uffd);
    let by_the_kernel = spawn_returning("caller", Some(child), move || {
        uaccess::on_behalf(|| uaccess::load(range.start))
    });
    assert_eq!(
        failed(returned(by_the_kernel.expect("threads"))),
        Err(FaultError::BusError(BusError::KernelAccess))
    );
}

#[test]
fn there_is_one_fork_event_for_each_context_and_fork() {
    let world = World::new();
    let range = world.map(7, RW);
    let uffds = [0, 1].map(|_| Uffd::new(&world.space, TELL));
    // Four areas; the contexts take turns.
    for i in 0..4 {
        uffds[i % 2]
            .register(part(range, 2 * i as u64, 1), Modes::MISSING)
            .expect("anonymous memory can");
    }
    for _ in 0..2 {
        let task = forker(&world);
        assert!(uffds.iter().all(|uffd| uffd.is_changing()));
        assert!(!uffds[1].is_readable(), "one after the other");
        let first = read_fork(&uffds[0]);
        eventually("the second is told", || uffds[1].is_readable());
        let second = read_fork(&uffds[1]);
        let child = child_of(task);
        assert_ne!(first, second);
        assert_eq!([0, 1].map(|i| uffds[i].try_read_event()), [NOTHING, NOTHING]);
        assert!(uffds.iter().all(|uffd| !uffd.is_changing()));
        for (i, uffd) in [&first, &second, &first, &second].into_iter().enumerate() {
            let vma = child.query(page(range, 2 * i as u64)).expect("mapped");
            assert!(Arc::ptr_eq(&vma.uffd.expect("registered").ctx, uffd.ctx()));
        }
    }
}

#[test]
fn faults_of_the_child_go_to_the_new_context_only_and_the_parents_to_the_old() {
    let (world, uffd, range) = shared_with(2, RW, TELL);
    let (child, childs) = fork(&world, &uffd);
    let its = spawn_load(&child, range.start);
    let parents = world.spawn_load(page(range, 1));
    until_it_waits(its.task());
    until_it_waits(parents.task());
    assert_eq!(childs.try_read_event(), missing(range.start, false));
    assert_eq!(childs.try_read_event(), NOTHING);
    assert_eq!(uffd.try_read_event(), missing(page(range, 1), false));
    assert_eq!(uffd.try_read_event(), NOTHING);
    // Filling the same pages in one does not wake, or show, in the other.
    assert_eq!(uffd.copy(range.start, &source(1, 2), 2 * P, NOW), Outcome::Done);
    assert_eq!(returned(parents), Ok(word(2)));
    assert!(its.task().fault.is_waiting());
    assert_eq!(childs.copy(range.start, &source(8, 1), P, NOW), Outcome::Done);
    assert_eq!(returned(its), Ok(word(8)));
    assert_eq!(world.load(range.start), Ok(word(1)));
}

#[test]
fn the_fork_waits_until_its_event_is_read_and_meanwhile_fills_are_refused() {
    let (world, uffd, range) = shared_with(2, RW, TELL);
    let task = forker(&world);
    assert_eq!(uffd.zeropage(range, NOW), Outcome::Refused(Refusal::Changing));
    let waiter = world.spawn_load(range.start);
    until_it_waits(waiter.task());
    assert_eq!(
        uffd.try_read_event(),
        missing(range.start, false),
        "other threads of the parent go on"
    );
    assert!(task.task().event.is_queued());
    let childs = read_fork(&uffd);
    let child = child_of(task);
    assert_eq!(uffd.zeropage(range, NOW), Outcome::Done);
    assert_eq!(returned(waiter), Ok(0));
    let its = spawn_load(&child, range.start);
    until_it_waits(its.task());
    assert_eq!(
        childs.zeropage(range, NOW),
        Outcome::Done,
        "what was filled since is the parent's alone"
    );
    assert_eq!(returned(its), Ok(0));
}

#[test]
fn the_child_is_complete_while_the_fork_waits() {
    let (world, uffd, range) = shared_with(3, RW, TELL);
    assert_eq!(uffd.copy(range.start, &source(1, 1), P, NOW), Outcome::Done);
    let task = forker(&world);
    // What the parent does now comes too late for the child.
    assert_eq!(world.store(range.start, 5), Ok(()));
    world.space.unmap(part(range, 2, 1)).expect("mapped");
    let childs = read_fork(&uffd);
    let child = child_of(task);
    assert_eq!(load(&child, range.start), Ok(word(1)));
    assert!(child.query(page(range, 2)).is_some());
    drop(childs);
}

#[test]
fn write_protection_is_kept_with_event_fork() {
    let (world, uffd, range) = protecting(3, TELL | Features::WP_UNPOPULATED);
    assert_eq!(uffd.copy(range.start, &source(1, 2), 2 * P, NOW), Outcome::Done);
    for i in [0, 2] {
        assert_eq!(uffd.write_protect(part(range, i, 1)), Ok(()));
    }
    let (child, childs) = fork(&world, &uffd);
    for (i, protected) in [(0, true), (1, false), (2, true)] {
        assert_eq!(is_protected(&child, page(range, i)), protected, "page {i}");
        assert_eq!(is_protected(&world.space, page(range, i)), protected, "page {i}");
    }
    assert_eq!(store(&child, page(range, 1)), Ok(()), "copied without a message");
    let writer = spawn_store(&child, range.start);
    until_it_waits(writer.task());
    assert_eq!(childs.try_read_event(), write_protected(range.start));
    assert_eq!(uffd.try_read_event(), NOTHING);
    assert_eq!(childs.remove_write_protection(range, NOW), Ok(()));
    assert_eq!(returned(writer), Ok(()));
    assert_eq!(
        load(&world.space, range.start),
        Ok(word(1)),
        "the end of protection does not make a shared page writable"
    );
    assert!(is_protected(&world.space, range.start));
}

#[test]
fn write_protection_of_a_shared_mapping_is_kept_with_event_fork_and_dropped_without() {
    for told in [true, false] {
        let world = object_world();
        let features = if told { TELL } else { Features::empty() };
        let (uffd, range) = object(&world, 3, Modes::WP, features);
        assert_eq!(world.store(range.start, 1), Ok(()));
        assert_eq!(world.store(page(range, 1), 2), Ok(()));
        for i in [0, 2] {
            // A page that is mapped, and one that is nowhere.
            assert_eq!(uffd.write_protect(part(range, i, 1)), Ok(()));
        }
        let (child, childs) = if told {
            let (child, childs) = fork(&world, &uffd);
            (child, Some(childs))
        } else {
            (world.space.fork().expect("nobody is to be told"), None)
        };
        let seen = [0, 1, 2].map(|i| is_protected(&child, page(range, i)));
        assert_eq!(seen, [told, false, told]);
        let Some(childs) = childs else {
            assert_eq!(store(&child, range.start), Ok(()));
            continue;
        };
        assert_eq!(store(&child, page(range, 1)), Ok(()));
        assert_eq!(world.load(page(range, 1)), Ok(77), "it is still the same page");
        let writer = spawn_store(&child, range.start);
        until_it_waits(writer.task());
        assert_eq!(childs.try_read_event(), write_protected(range.start));
        assert_eq!(childs.remove_write_protection(range, NOW), Ok(()));
        assert_eq!(returned(writer), Ok(()));
        assert_eq!(world.load(range.start), Ok(77));
    }
}

#[test]
fn poison_of_a_shared_mapping_is_inherited_only_with_write_protection_under_event_fork() {
    let rows = [
        (Features::empty(), Modes::MISSING | Modes::WP, false),
        (TELL, Modes::MISSING, false),
        (TELL, Modes::WP, true),
        (TELL, Modes::MISSING | Modes::WP, true),
    ];
    for (features, modes, inherited) in rows {
        let world = object_world();
        let (uffd, range) = object(&world, 1, modes, features);
        assert_eq!(uffd.poison(range, NOW), Outcome::Done);
        let child = if features == TELL {
            let (child, childs) = fork(&world, &uffd);
            childs.close();
            child
        } else {
            world.space.fork().expect("nobody is to be told")
        };
        let expected = if inherited {
            Err(FaultError::Poisoned)
        } else {
            Ok(0)
        };
        assert_eq!(load(&child, range.start), expected, "{features:?} {modes:?}");
        assert_eq!(world.load(range.start), Err(FaultError::Poisoned));
    }
}

#[test]
fn poison_of_anonymous_memory_is_inherited_with_event_fork_too() {
    let (world, uffd, range) = shared_with(1, RW, TELL);
    assert_eq!(uffd.poison(range, NOW), Outcome::Done);
    let (child, childs) = fork(&world, &uffd);
    assert_eq!(load(&child, range.start), Err(FaultError::Poisoned));
    assert_eq!(childs.try_read_event(), NOTHING);
}

#[test]
fn a_fork_waiter_is_not_released_by_the_parent_closing_its_handle_and_a_fatal_signal_ends_it() {
    let (world, uffd, range) = shared_with(2, RW, TELL);
    // So that the load below needs no frame: the page of zeros goes into a node that is there.
    assert_eq!(uffd.zeropage(part(range, 1, 1), NOW), Outcome::Done);
    let before = allocator().stats();
    let task = forker(&world);
    let ctx = Arc::clone(uffd.ctx());
    drop(uffd);
    task.task().unpark();
    assert!(
        task.task().event.is_queued(),
        "the half-made child holds another handle"
    );
    assert!(world.space.query(range.start).expect("mapped").uffd.is_some());
    let reads = world.spawn_load(range.start);
    until_it_waits(reads.task());
    task.task().kill();
    assert_eq!(returned(task).err(), Some(ForkError::Killed));
    // That was the last handle: the memory is plain.
    assert_eq!(returned(reads), Ok(0));
    assert_eq!(world.space.query(range.start).expect("mapped").uffd, None);
    assert_eq!(Arc::strong_count(&ctx), 1, "nothing of the child is left");
    assert_eq!(allocator().stats().in_use, before.in_use);
}

#[test]
fn closing_although_there_are_handles_releases_a_fork_and_its_child_finds_plain_memory() {
    let (world, uffd, range) = shared_with(1, RW, TELL);
    let task = forker(&world);
    uffd.close();
    let child = child_of(task);
    assert_eq!(child.query(range.start).expect("mapped").uffd, None);
    assert_eq!(load(&child, range.start), Ok(0));
}

#[test]
fn killing_the_task_takes_the_event_away_and_the_parent_goes_on() {
    let (world, uffd, range) = shared_with(1, RW, TELL);
    let task = forker(&world);
    task.task().kill();
    assert_eq!(returned(task).err(), Some(ForkError::Killed));
    assert_eq!(uffd.try_read_event(), NOTHING);
    assert_eq!(uffd.zeropage(range, NOW), Outcome::Done);
}

#[test]
fn a_reader_without_a_free_descriptor_leaves_the_fork_queued_behind_other_events() {
    let (world, uffd, range) = shared_with(2, RW, TELL | Features::EVENT_UNMAP);
    let task = forker(&world);
    let unmapper = {
        let space = Arc::clone(&world.space);
        world.spawn("unmapper", move || space.unmap(part(range, 1, 1)))
    };
    eventually("it waits too", || unmapper.task().event.is_queued());
    let no_descriptor = |event: &Event| !matches!(event, Event::Fork { .. });
    assert_eq!(uffd.try_read_event_if(no_descriptor), Err(ReadError::NotAdmitted));
    assert!(matches!(
        uffd.try_read_event_if(no_descriptor),
        Ok(Event::Unmap { .. })
    ));
    assert_eq!(uffd.try_read_event_if(no_descriptor), Err(ReadError::NotAdmitted));
    assert!(task.task().event.is_queued(), "the fork keeps waiting");
    let childs = read_fork(&uffd);
    let child = child_of(task);
    assert_eq!(returned(unmapper), Ok(()));
    assert_eq!(childs.zeropage(range, NOW), Outcome::Done);
    assert_eq!(load(&child, page(range, 1)), Ok(0));
}

#[test]
fn dropping_the_handle_out_of_the_event_makes_the_childs_memory_plain() {
    let (world, uffd, range) = protecting(2, TELL);
    assert_eq!(
        uffd.copy(range.start, &source(1, 1), P, FillMode::WP),
        Outcome::Done
    );
    let (child, childs) = fork(&world, &uffd);
    assert!(is_protected(&child, range.start));
    drop(childs);
    assert_eq!(child.query(range.start).expect("mapped").uffd, None);
    assert!(!is_protected(&child, range.start));
    assert_eq!(store(&child, range.start), Ok(()));
    assert_eq!(load(&child, page(range, 1)), Ok(0));
    assert!(is_protected(&world.space, range.start));
}

#[test]
fn what_a_forked_child_does_with_an_inherited_handle_fills_the_parents_memory() {
    let (world, uffd, range) = shared_with(2, RW, Features::empty());
    let child = world.space.fork().expect("nobody is to be told");
    let inherited = Arc::clone(&uffd);
    let filler = spawn_returning("child", Some(Arc::clone(&child)), move || {
        inherited.copy(range.start, &source(3, 1), P, NOW)
    });
    assert_eq!(returned(filler.expect("threads")), Outcome::Done);
    assert_eq!(world.load(range.start), Ok(word(3)));
    assert_eq!(load(&child, range.start), Ok(0));
}

#[test]
fn moving_from_a_forked_child_with_an_inherited_handle_is_einval() {
    let (world, uffd, dst) = shared_with(1, RW, Features::empty());
    let src = world.map(1, RW);
    populate(&world, src);
    let child = world.space.fork().expect("nobody is to be told");
    let outcome = uffd.move_pages(&child, dst.start, src.start, P, MoveMode::empty());
    assert_eq!(outcome, Outcome::Refused(Refusal::ForeignSpace));
    assert_eq!(answer(outcome, P), (Some(22), None));
}

#[test]
fn a_monitor_that_ends_before_it_reads_leaves_no_zeros_to_the_child() {
    let (world, uffd, range) = shared_with(1, RW, TELL);
    let monitor = world.spawn("monitor", || ());
    let task = forker(&world);
    uffd.attach_monitor(monitor.task());
    returned(monitor);
    let child = child_of(task);
    assert_eq!(load(&child, range.start), Err(FaultError::MonitorGone));
    // And so does a fork that comes later.
    let second = world.space.fork().expect("nobody reads, so nobody waits");
    assert_eq!(load(&second, range.start), Err(FaultError::MonitorGone));
    assert_eq!(world.load(range.start), Err(FaultError::MonitorGone));
}

#[test]
fn a_context_that_lost_its_last_handle_with_its_monitor_leaves_no_zeros_to_a_child() {
    let (world, uffd, range) = shared_with(1, RW, TELL);
    let monitor = world.spawn("monitor", move || {
        uffd.attach_monitor(&kernel::task::current_arc());
        drop(uffd);
    });
    returned(monitor);
    let child = world.space.fork().expect("nobody reads, so nobody waits");
    assert_eq!(load(&child, range.start), Err(FaultError::MonitorGone));
}

#[test]
fn threads_share_the_space_so_starting_them_is_no_fork() {
    let (world, uffd, range) = shared_with(1, RW, TELL | OTHERS);
    let thread = world.spawn_load(range.start);
    until_it_waits(thread.task());
    assert!(matches!(uffd.try_read_event(), Ok(Event::Pagefault { .. })));
    assert_eq!(uffd.try_read_event(), NOTHING);
    uffd.close();
    assert_eq!(returned(thread), Ok(0));
}

#[test]
fn a_fork_that_fails_at_any_point_tells_nobody_and_leaves_no_context() {
    let (world, uffd, range) = protecting(4, TELL | Features::WP_UNPOPULATED);
    populate_by(&uffd, range);
    assert_eq!(uffd.write_protect(part(range, 2, 2)), Ok(()));
    let (ctx, before) = (Arc::clone(uffd.ctx()), allocator().stats());
    let contexts = Arc::strong_count(&ctx);
    let mut failures = 0;
    // Killed from the start, so that the fork that gets through does not wait either.
    let task = Task::detached_in("forker", Arc::clone(&world.space));
    task.kill();
    loop {
        allocator().inject_failure(failures);
        let outcome = task.run_as(|| world.space.fork());
        allocator().stop_injection();
        assert_eq!(
            allocator().stats().in_use,
            before.in_use,
            "after failure {failures}"
        );
        assert_eq!(Arc::strong_count(&ctx), contexts);
        assert!(!uffd.is_changing() && !uffd.is_readable());
        match outcome.err() {
            Some(ForkError::Killed) => break,
            error => assert_eq!(error, Some(ForkError::OutOfMemory)),
        }
        failures += 1;
    }
    assert!(failures >= 4, "a root and three nodes: {failures}");
    assert!(is_protected(&world.space, page(range, 2)));
    assert_eq!(world.load(range.start), Ok(word(1)));
}

/// Fills the first two pages.
fn populate_by(uffd: &Uffd, range: VirtRange) {
    assert_eq!(uffd.copy(range.start, &source(1, 2), 2 * P, NOW), Outcome::Done);
}

#[test]
fn a_context_that_has_nothing_registered_is_not_told() {
    let (world, uffd, range) = shared_with(1, RW, TELL);
    assert_eq!(uffd.unregister(range), Ok(()));
    let child = world.space.fork().expect("nobody is to be told");
    assert_eq!(load(&child, range.start), Ok(0));
    assert_eq!(uffd.try_read_event(), NOTHING);
}

#[test]
fn a_context_whose_memory_is_left_out_of_the_fork_is_not_told() {
    let (world, uffd, range) = shared_with(1, RW, TELL);
    world.space.set_left_out_of_forks(range, true).expect("mapped");
    let child = world.space.fork().expect("nobody is to be told");
    assert_eq!(load(&child, range.start), Err(FaultError::Unmapped));
    assert_eq!(uffd.try_read_event(), NOTHING);
}

#[test]
fn a_fork_of_the_child_is_told_to_the_childs_context() {
    let (world, uffd, range) = shared_with(1, RW, TELL);
    let (child, childs) = fork(&world, &uffd);
    let its = Arc::clone(&child);
    let task = spawn_returning("child", Some(Arc::clone(&child)), move || its.fork()).expect("threads");
    eventually("the child's fork waits", || task.task().event.is_queued());
    assert_eq!(uffd.try_read_event(), NOTHING);
    let grandchilds = read_fork(&childs);
    let grandchild = child_of(task);
    let faulter = spawn_load(&grandchild, range.start);
    until_it_waits(faulter.task());
    assert_eq!(grandchilds.try_read_event(), missing(range.start, false));
    assert_eq!(grandchilds.zeropage(range, NOW), Outcome::Done);
    assert_eq!(returned(faulter), Ok(0));
}
