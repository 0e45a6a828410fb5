//! Slots of guest memory objects: what is delegated, by which message, and how it is resolved.

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::{
    Guest, World, bytes, delegating, eventually, gpa, gpages, guest_fault, page, pagefault, returned,
    serving, slot_of_object, until_it_waits, word,
};
use hv::soft::SoftFormat;
use hv::stage2::DELEGATED;
use hv::userfault::{Delivery, MemoryFault, MemoryFaultFlags, Outcome};
use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::cache::Object;
use kernel::mm::fault::{Access, FaultError};
use kernel::mm::memtype::guest_memfd::{GUEST_MEMFD, GUEST_MEMFD_PRIVATE};
use kernel::mm::pt::Entry;
use kernel::mm::space::Memory;
use kernel::mm::uaccess;
use kernel::task::spawn::spawn_returning;
use kernel::uffd::{
    Features, FillMode, Flags, Modes, MonitorDeath, Outcome as Filled, ReadError, Refusal, TrapKind, Uffd,
};

for_both! {
    a_hole_that_is_not_delegated_is_zeros_and_the_object_gets_the_page
    a_delegated_page_stops_the_vcpu_for_its_owner
    a_page_that_the_cache_has_is_delegated_as_minor
    the_three_ways_of_a_guest_memfd_end_in_the_same_page
    a_message_of_stage_2_is_answered_by_copy
    a_message_of_stage_2_is_answered_by_write_and_continue
    a_bit_cleared_by_a_store_needs_a_wake_and_a_wake_alone_asks_again
    copy_over_what_the_host_has_filled_is_refused_and_continue_maps_it
    continue_without_a_page_or_without_delegation_is_refused
    odd_requests_are_refused_by_name
    a_poisoned_page_fails_the_access_until_it_is_filled
    a_hole_punched_under_the_guest_takes_the_page_away
    a_page_that_is_delegated_again_is_asked_for_again
    a_slot_that_is_removed_lets_its_waiters_go
    memory_that_is_closed_lets_its_waiters_go
    a_lost_monitor_is_answered_by_its_policy
    a_closed_context_fails_what_it_would_have_served
    a_monitor_that_touches_what_it_serves_is_refused
    operations_of_stage_1_and_stage_2_do_not_mix
    the_host_cannot_touch_private_guest_memory_and_the_guest_can
    absent_delegated_pages_are_convertible_where_that_was_asked_for
    host_and_guest_that_touch_a_page_at_once_are_answered_each_by_its_own
    a_handler_resolves_on_the_vcpus_task
}

fn exit<F: SoftFormat>() -> (World<F>, Guest<F>, Arc<Object>, Arc<hv::bitmap::Bitmap>) {
    let world = World::<F>::new();
    let (object, bitmap, _) = delegating(&world, 4, Delivery::Exit);
    let guest = world.guest();
    (world, guest, object, bitmap)
}

/// A world whose guest waits for messages, and the context.
fn told<F: SoftFormat>() -> (World<F>, Arc<Uffd>, Arc<Object>, Arc<hv::bitmap::Bitmap>) {
    let world = World::<F>::new();
    let uffd = Arc::new(serving(&world, Features::empty()));
    let delivery = Delivery::Message(Arc::clone(uffd.ctx()));
    let (object, bitmap, _) = delegating(&world, 4, delivery);
    (world, uffd, object, bitmap)
}

fn a_hole_that_is_not_delegated_is_zeros_and_the_object_gets_the_page<F: SoftFormat>() {
    let world = World::<F>::new();
    let object = Object::new(&GUEST_MEMFD, 2 * PAGE_SIZE);
    world
        .memory
        .add(slot_of_object(&object, None))
        .expect("nothing is wrong with it");
    let mut guest = world.guest();
    assert_eq!(guest.load(0), Ok(0));
    assert_eq!(guest.store(1, 5), Ok(()));
    assert_eq!(object.resident(), 2 * PAGE_SIZE);
    let mut read = [0; 8];
    assert_eq!(object.read(PAGE_SIZE, &mut read), 8);
    assert_eq!(u64::from_ne_bytes(read), 5);
}

fn a_delegated_page_stops_the_vcpu_for_its_owner<F: SoftFormat>() {
    let (_world, mut guest, object, bitmap) = exit::<F>();
    let slot = guest.memory.slots()[0].id;
    let fault = MemoryFault {
        addr: gpa(2),
        size: PAGE_SIZE,
        access: Access::Write,
        flags: MemoryFaultFlags::USERFAULT,
        kind: TrapKind::Missing,
        slot,
        offset: 2 * PAGE_SIZE,
    };
    for _ in 0..2 {
        assert_eq!(guest.store(2, 1), Err(Outcome::Delegated(fault)));
    }
    assert_eq!(object.resident(), 0, "nobody fills it in the owner's place");
    let (written, outcome) = object.write(fault.offset, &bytes(3));
    assert_eq!((written, outcome), (PAGE_SIZE, Ok(())));
    // One store for the word that has the bit.
    let left = !(1 << 2) & 0b1111;
    bitmap.words()[0].store(left, Ordering::Release);
    assert_eq!(guest.load(2), Ok(word(3)));
    assert_eq!(guest.store(2, 1), Ok(()));
}

fn a_page_that_the_cache_has_is_delegated_as_minor<F: SoftFormat>() {
    let (_world, mut guest, object, bitmap) = exit::<F>();
    assert_eq!(object.write(0, &bytes(7)).1, Ok(()));
    let Err(Outcome::Delegated(fault)) = guest.load(0) else {
        panic!("the bit is set, whatever the cache has");
    };
    assert_eq!((fault.kind, fault.access), (TrapKind::Minor, Access::Read));
    assert!(bitmap.clear(0));
    assert_eq!(guest.load(0), Ok(word(7)));
}

/// Host major: COPY; host minor: CONTINUE; stage 2: write, and a cleared bit.
fn the_three_ways_of_a_guest_memfd_end_in_the_same_page<F: SoftFormat>() {
    let (world, mut guest, object, bitmap) = exit::<F>();
    let memory = Memory::shared(&object);
    let range = world.map_memory(memory, 4);
    let uffd = Uffd::new(&world.space, Features::empty());
    uffd.register(range, Modes::MISSING | Modes::MINOR)
        .expect("guest memory can");
    let host_load = |at| {
        let space = Some(Arc::clone(&world.space));
        spawn_returning("host", space, move || uaccess::load(at)).expect("the host has threads")
    };

    // The host touches what is nowhere.
    let major = host_load(page(range, 0));
    until_it_waits(major.task());
    assert_eq!(
        uffd.try_read_event(),
        pagefault(TrapKind::Missing, page(range, 0), false)
    );
    let copied = uffd.copy(page(range, 0), &bytes(1), PAGE_SIZE, FillMode::empty());
    assert_eq!(copied, Filled::Done);
    assert_eq!(returned(major), Ok(word(1)));

    // The guest touches what is nowhere.
    let Err(Outcome::Delegated(fault)) = guest.load(1) else {
        panic!("delegated");
    };
    assert_eq!((fault.kind, fault.offset), (TrapKind::Missing, PAGE_SIZE));
    assert_eq!(object.write(fault.offset, &bytes(2)).1, Ok(()));
    assert!(bitmap.clear(1));
    assert_eq!(guest.load(1), Ok(word(2)));

    // The host touches what the guest's owner wrote: it is in the cache, and not mapped.
    let minor = host_load(page(range, 1));
    until_it_waits(minor.task());
    assert_eq!(
        uffd.try_read_event(),
        pagefault(TrapKind::Minor, page(range, 1), false)
    );
    let second = kernel::mm::range::VirtRange::page(page(range, 1));
    assert_eq!(uffd.cont(second, FillMode::empty()), Filled::Done);
    assert_eq!(returned(minor), Ok(word(2)));

    // The guest touches what the host's monitor copied: still delegated, and minor.
    let Err(Outcome::Delegated(fault)) = guest.load(0) else {
        panic!("a fill on the host's side does not end the delegation");
    };
    assert_eq!(fault.kind, TrapKind::Minor);
    assert!(bitmap.clear(0));
    assert_eq!(guest.load(0), Ok(word(1)));
    assert_eq!(guest.store(0, 77), Ok(()));
    assert_eq!(returned(host_load(page(range, 0))), Ok(77), "one page, for both");
    assert_eq!(uffd.try_read_event(), Err(ReadError::WouldBlock));
}

fn a_message_of_stage_2_is_answered_by_copy<F: SoftFormat>() {
    let (world, uffd, _, bitmap) = told::<F>();
    let waiting = world.guest().spawn_store(1, 9);
    until_it_waits(waiting.task());
    assert!(uffd.is_readable());
    assert_eq!(uffd.try_read_event(), guest_fault(TrapKind::Missing, 1, true));
    assert_eq!(uffd.try_read_event(), Err(ReadError::WouldBlock), "once");
    let stage2 = uffd.stage2().expect("it serves a guest");
    assert_eq!(stage2.copy(gpa(1), &bytes(4), FillMode::empty()), Filled::Done);
    assert_eq!(returned(waiting).map(drop), Ok(()));
    assert!(!bitmap.is_set(1) && bitmap.is_set(0));
    let mut guest = world.guest();
    assert_eq!(guest.load(1), Ok(9));
    assert_eq!(guest.violations, 0, "COPY has mapped it");
}

fn a_message_of_stage_2_is_answered_by_write_and_continue<F: SoftFormat>() {
    let (world, uffd, object, _) = told::<F>();
    assert_eq!(object.write(PAGE_SIZE, &bytes(5)).1, Ok(()));
    let waiting = world.guest().spawn_load(1);
    until_it_waits(waiting.task());
    assert_eq!(uffd.try_read_event(), guest_fault(TrapKind::Minor, 1, false));
    let stage2 = uffd.stage2().expect("it serves a guest");
    assert_eq!(stage2.cont(gpages(1, 1), FillMode::empty()), Filled::Done);
    assert_eq!(returned(waiting), Ok(word(5)));
}

fn a_bit_cleared_by_a_store_needs_a_wake_and_a_wake_alone_asks_again<F: SoftFormat>() {
    let (world, uffd, object, bitmap) = told::<F>();
    let stage2 = uffd.stage2().expect("it serves a guest");
    let waiting = world.guest().spawn_load(3);
    until_it_waits(waiting.task());
    assert_eq!(uffd.try_read_event(), guest_fault(TrapKind::Missing, 3, false));
    assert_eq!(stage2.wake(gpages(3, 1)), Ok(()));
    eventually("it asks again", || uffd.is_readable());
    assert_eq!(uffd.try_read_event(), guest_fault(TrapKind::Missing, 3, false));
    assert_eq!(object.write(3 * PAGE_SIZE, &bytes(6)).1, Ok(()));
    assert!(bitmap.clear(3));
    assert_eq!(uffd.ctx().outstanding_faults().len(), 1, "a store tells nobody");
    assert_eq!(stage2.wake(gpages(0, 4)), Ok(()));
    assert_eq!(returned(waiting), Ok(word(6)));
    assert_eq!(uffd.ctx().outstanding_faults().len(), 0);
}

fn copy_over_what_the_host_has_filled_is_refused_and_continue_maps_it<F: SoftFormat>() {
    let (world, uffd, object, _) = told::<F>();
    let stage2 = uffd.stage2().expect("it serves a guest");
    let waiting = world.guest().spawn_load(0);
    until_it_waits(waiting.task());
    assert_eq!(uffd.try_read_event(), guest_fault(TrapKind::Missing, 0, false));
    // The host is faster.
    assert_eq!(object.write(0, &bytes(8)).1, Ok(()));
    let refused = Filled::Refused(Refusal::Exists);
    assert_eq!(stage2.copy(gpa(0), &bytes(1), FillMode::empty()), refused);
    assert_eq!(stage2.zeropage(gpages(0, 1), FillMode::empty()), refused);
    assert!(waiting.task().fault.is_waiting(), "and nobody was woken");
    assert_eq!(stage2.cont(gpages(0, 1), FillMode::empty()), Filled::Done);
    assert_eq!(returned(waiting), Ok(word(8)), "what came first stays");
}

fn continue_without_a_page_or_without_delegation_is_refused<F: SoftFormat>() {
    let (_world, uffd, object, bitmap) = told::<F>();
    let stage2 = uffd.stage2().expect("it serves a guest");
    let cont = |first, pages| stage2.cont(gpages(first, pages), FillMode::empty());
    assert_eq!(cont(0, 1), Filled::Refused(Refusal::NoPage));
    assert_eq!(object.write(0, &bytes(1)).1, Ok(()));
    let partial = Filled::Partial {
        bytes: PAGE_SIZE,
        why: Refusal::NoPage,
    };
    assert_eq!(cont(0, 2), partial);
    assert_eq!(cont(0, 1), Filled::Refused(Refusal::Exists));
    assert_eq!(bitmap.count(), 3);
}

fn odd_requests_are_refused_by_name<F: SoftFormat>() {
    use kernel::uffd::RangeError::{BeyondTop, Empty, Unaligned};
    let (world, uffd, _, _) = told::<F>();
    let stage2 = uffd.stage2().expect("it serves a guest");
    let refused = |why: kernel::uffd::RangeError| Filled::Refused(Refusal::Range(why));
    let none = FillMode::empty();
    assert_eq!(stage2.copy(gpa(0), &[], none), refused(Empty));
    assert_eq!(stage2.copy(gpa(0), &[1; 100], none), refused(Unaligned));
    assert_eq!(stage2.copy(gpa(0) + 8, &bytes(1), none), refused(Unaligned));
    let last = kernel::mm::addr::GuestPhysAddr::new(!(PAGE_SIZE - 1));
    assert_eq!(stage2.copy(last, &bytes(1), none), refused(BeyondTop));
    assert_eq!(
        stage2.zeropage(gpages(0, 1), FillMode::WP),
        Filled::Refused(Refusal::UnknownMode)
    );
    assert_eq!(
        stage2.zeropage(gpages(4, 1), none),
        Filled::Refused(Refusal::NotRegistered),
        "past the slot"
    );
    let partial = Filled::Partial {
        bytes: PAGE_SIZE,
        why: Refusal::NotRegistered,
    };
    assert_eq!(stage2.zeropage(gpages(3, 2), none), partial);
    drop(world);
    assert_eq!(
        stage2.zeropage(gpages(0, 1), none),
        Filled::Refused(Refusal::SpaceGone)
    );
}

fn a_poisoned_page_fails_the_access_until_it_is_filled<F: SoftFormat>() {
    let (world, uffd, object, _) = told::<F>();
    let stage2 = uffd.stage2().expect("it serves a guest");
    let waiting = world.guest().spawn_load(1);
    until_it_waits(waiting.task());
    assert_eq!(stage2.poison(gpages(1, 1), FillMode::empty()), Filled::Done);
    let poisoned = Err(Outcome::Failed(FaultError::Poisoned));
    assert_eq!(returned(waiting), poisoned);
    let mut guest = world.guest();
    assert_eq!(guest.load(1), poisoned);
    assert_eq!(object.write(PAGE_SIZE, &bytes(1)).1, Ok(()));
    assert_eq!(guest.load(1), poisoned, "poison is the entry's, not the cache's");
    assert_eq!(object.punch(PAGE_SIZE, PAGE_SIZE), Ok(()));
    assert_eq!(stage2.copy(gpa(1), &bytes(2), FillMode::empty()), Filled::Done);
    assert_eq!(guest.load(1), Ok(word(2)));
    assert_eq!(
        stage2.poison(gpages(1, 1), FillMode::empty()),
        Filled::Refused(Refusal::Exists)
    );
}

fn a_hole_punched_under_the_guest_takes_the_page_away<F: SoftFormat>() {
    let (_world, mut guest, object, bitmap) = exit::<F>();
    assert_eq!(object.write(0, &bytes(9)).1, Ok(()));
    assert!(bitmap.clear(0));
    assert_eq!(guest.load(0), Ok(word(9)));
    assert_eq!(object.punch(0, PAGE_SIZE), Ok(()));
    assert_eq!(object.resident(), 0);
    assert_eq!(guest.load(0), Ok(0), "the bit is clear: a hole is zeros");
}

fn a_page_that_is_delegated_again_is_asked_for_again<F: SoftFormat>() {
    let (world, mut guest, object, bitmap) = exit::<F>();
    assert_eq!(object.write(0, &bytes(9)).1, Ok(()));
    assert!(bitmap.clear(0));
    assert_eq!(guest.load(0), Ok(word(9)));
    world.memory.delegate(gpages(0, 1));
    assert!(bitmap.is_set(0));
    assert!(matches!(guest.load(0), Err(Outcome::Delegated(_))));
    assert!(bitmap.clear(0));
    assert_eq!(guest.load(0), Ok(word(9)), "the contents were never gone");
}

fn a_slot_that_is_removed_lets_its_waiters_go<F: SoftFormat>() {
    let (world, _uffd, _, _) = told::<F>();
    let waiting = world.guest().spawn_load(1);
    until_it_waits(waiting.task());
    let slot = world.memory.slots()[0].id;
    assert_eq!(world.memory.remove(slot), Ok(()));
    assert_eq!(returned(waiting), Err(Outcome::Unbacked));
}

fn memory_that_is_closed_lets_its_waiters_go<F: SoftFormat>() {
    let (world, uffd, object, _) = told::<F>();
    let waiting = [world.guest().spawn_load(1), world.guest().spawn_load(2)];
    waiting.iter().for_each(|vcpu| until_it_waits(vcpu.task()));
    world.memory.close();
    for vcpu in waiting {
        assert_eq!(returned(vcpu), Err(Outcome::Unbacked));
    }
    assert_eq!(uffd.ctx().outstanding_faults().len(), 0);
    let again = world.memory.add(slot_of_object(&object, None));
    assert_eq!(again, Err(hv::memslot::SlotError::Closed));
}

fn a_lost_monitor_is_answered_by_its_policy<F: SoftFormat>() {
    for policy in [
        MonitorDeath::Fail,
        MonitorDeath::Poison,
        MonitorDeath::Kill,
        MonitorDeath::Zero,
        MonitorDeath::Reattach,
    ] {
        let (world, uffd, _, _) = told::<F>();
        uffd.on_monitor_death(policy);
        let monitor = {
            let uffd = Arc::clone(&uffd);
            spawn_returning("monitor", None, move || {
                uffd.attach_monitor(&kernel::task::current());
                uffd.read_event().is_ok()
            })
        };
        let monitor = monitor.expect("the host has threads");
        eventually("it reads", || {
            monitor.task().state() == kernel::task::State::Parked
        });
        let waiting = world.guest().spawn_load(1);
        assert!(returned(monitor), "it was told, and ends");
        if policy == MonitorDeath::Reattach {
            until_it_waits(waiting.task());
            let second = kernel::task::Task::detached("second");
            uffd.attach_monitor(&second);
            assert_eq!(uffd.try_read_event(), guest_fault(TrapKind::Missing, 1, false));
            let stage2 = uffd.stage2().expect("it serves a guest");
            assert_eq!(stage2.copy(gpa(1), &bytes(3), FillMode::empty()), Filled::Done);
            assert_eq!(returned(waiting), Ok(word(3)));
            uffd.detach_monitor();
            continue;
        }
        let expected = match policy {
            MonitorDeath::Poison => FaultError::Poisoned,
            MonitorDeath::Kill => FaultError::Killed,
            _ => FaultError::MonitorGone,
        };
        eventually("the vCPU has ended", || {
            waiting.task().state() == kernel::task::State::Ended
        });
        match waiting.join() {
            Ok(answer) => assert_eq!(answer, Err(Outcome::Failed(expected)), "{policy}"),
            Err(outcome) => assert_eq!(policy, MonitorDeath::Kill, "{outcome:?}"),
        }
    }
}

fn a_closed_context_fails_what_it_would_have_served<F: SoftFormat>() {
    let (world, uffd, _, _) = told::<F>();
    let waiting = world.guest().spawn_load(1);
    until_it_waits(waiting.task());
    uffd.close();
    let gone = Err(Outcome::Failed(FaultError::MonitorGone));
    assert_eq!(returned(waiting), gone);
    assert_eq!(returned(world.guest().spawn_load(2)), gone);
}

fn a_monitor_that_touches_what_it_serves_is_refused<F: SoftFormat>() {
    let (world, uffd, _, _) = told::<F>();
    let (shared, mut guest) = (Arc::clone(&uffd), world.guest());
    let monitor = spawn_returning("monitor", None, move || {
        shared.attach_monitor(&kernel::task::current());
        let answer = guest.load(0);
        shared.detach_monitor();
        (answer, kernel::task::current().id())
    });
    let (answer, id) = returned(monitor.expect("the host has threads"));
    let refused = FaultError::SelfFault { monitor: id };
    assert_eq!(answer, Err(Outcome::Failed(refused)));
}

fn operations_of_stage_1_and_stage_2_do_not_mix<F: SoftFormat>() {
    let (world, uffd, _, _) = told::<F>();
    let range = world.map(1);
    assert!(uffd.register(range, Modes::MISSING).is_err());
    let copied = uffd.copy(range.start, &bytes(1), PAGE_SIZE, FillMode::empty());
    assert_eq!(copied, Filled::Refused(Refusal::SpaceGone));
    assert!(Uffd::new(&world.space, Features::empty()).stage2().is_none());
}

fn the_host_cannot_touch_private_guest_memory_and_the_guest_can<F: SoftFormat>() {
    let world = World::<F>::new();
    let object = Object::new(&GUEST_MEMFD_PRIVATE, PAGE_SIZE);
    world
        .memory
        .add(slot_of_object(&object, None))
        .expect("nothing is wrong with it");
    let memory = Memory::shared(&object);
    let range = world.map_memory(memory, 1);
    let mut guest = world.guest();
    assert_eq!(guest.store(0, 4), Ok(()));
    assert_eq!(guest.load(0), Ok(4));
    let touched = world.run(|| uaccess::load(page(range, 0)));
    assert_eq!(touched.map_err(|error| error.why), Err(FaultError::GuestOnly));
}

fn absent_delegated_pages_are_convertible_where_that_was_asked_for<F: SoftFormat>() {
    let (world, mut guest, object, bitmap) = exit::<F>();
    let convertible = |page| world.memory.stage2().entry(gpa(page)).0 == Entry::Absent(DELEGATED);
    let all = || (0..4).map(convertible).collect::<Vec<_>>();
    assert_eq!(all(), [false; 4]);
    assert_eq!(object.write(0, &bytes(1)).1, Ok(()));
    assert!(bitmap.clear(0));
    assert_eq!(guest.load(0), Ok(word(1)));
    world
        .memory
        .set_convertible(gpages(0, 3), true)
        .expect("memory is plenty");
    assert_eq!(
        all(),
        [false, true, true, false],
        "what is there is not, nor what is exempt"
    );
    world.memory.delegate(gpages(0, 4));
    assert_eq!(all(), [true, true, true, false]);
    assert!(
        matches!(guest.load(1), Err(Outcome::Delegated(_))),
        "it exits all the same"
    );
    assert!(bitmap.clear(0));
    assert!(all()[0], "nobody was told of the store");
    assert_eq!(guest.load(0), Ok(word(1)));
    assert_eq!(all(), [false, true, true, false]);
    object.punch(0, PAGE_SIZE).expect("it can");
    assert!(!all()[0], "not delegated");
    world
        .memory
        .set_convertible(gpages(1, 1), false)
        .expect("memory is plenty");
    assert_eq!(all(), [false, false, true, false]);
}

fn host_and_guest_that_touch_a_page_at_once_are_answered_each_by_its_own<F: SoftFormat>() {
    let (world, guests, object, bitmap) = told::<F>();
    let range = world.map_memory(Memory::shared(&object), 4);
    let hosts = Uffd::new(&world.space, Features::empty());
    hosts
        .register(range, Modes::MISSING | Modes::MINOR)
        .expect("guest memory can");
    let stage2 = guests.stage2().expect("it serves a guest");
    let (at, none) = (page(range, 2), FillMode::empty());
    for host_first in [true, false] {
        let vcpu = world.guest().spawn_load(2);
        let space = Some(Arc::clone(&world.space));
        let host = spawn_returning("host", space, move || uaccess::load(at)).expect("the host has threads");
        until_it_waits(vcpu.task());
        until_it_waits(host.task());
        assert_eq!(guests.try_read_event(), guest_fault(TrapKind::Missing, 2, false));
        assert_eq!(hosts.try_read_event(), pagefault(TrapKind::Missing, at, false));
        let one_page = kernel::mm::range::VirtRange::page(at);
        let refused = Filled::Refused(Refusal::Exists);
        if host_first {
            assert_eq!(hosts.copy(at, &bytes(1), PAGE_SIZE, none), Filled::Done);
            assert!(vcpu.task().fault.is_waiting(), "the guest's side was not told");
            assert_eq!(stage2.copy(gpa(2), &bytes(2), none), refused);
            assert_eq!(stage2.cont(gpages(2, 1), none), Filled::Done);
        } else {
            assert_eq!(stage2.copy(gpa(2), &bytes(1), none), Filled::Done);
            assert!(host.task().fault.is_waiting(), "the host's side was not told");
            assert_eq!(hosts.copy(at, &bytes(2), PAGE_SIZE, none), refused);
            assert_eq!(hosts.cont(one_page, none), Filled::Done);
        }
        assert_eq!((returned(vcpu), returned(host)), (Ok(word(1)), Ok(word(1))));
        // Again, the other way round.
        object.punch(2 * PAGE_SIZE, PAGE_SIZE).expect("it can");
        world.memory.delegate(gpages(2, 1));
        assert!(bitmap.is_set(2));
    }
}

fn a_handler_resolves_on_the_vcpus_task<F: SoftFormat>() {
    use kernel::uffd::{Delivery as Way, Handled, Upcall};
    let world = World::<F>::new();
    let handler = |fault: &Upcall<'_>| {
        let stage2 = fault.stage2().expect("it serves a guest");
        let at = kernel::mm::addr::GuestPhysAddr::new(fault.page().start.as_u64());
        match (at == gpa(3), stage2.copy(at, &bytes(6), FillMode::empty())) {
            (false, Filled::Done) => Handled::Resolved,
            _ => Handled::Failed,
        }
    };
    let memory = Arc::downgrade(&world.memory);
    let uffd = Uffd::for_guest(memory, Flags::empty(), Features::empty(), Way::upcall(handler));
    let (object, _, slot) = delegating(&world, 4, Delivery::Message(Arc::clone(uffd.ctx())));
    let mut guest = world.guest();
    assert_eq!(guest.load(1), Ok(word(6)));
    assert_eq!(object.resident(), PAGE_SIZE);
    // It says that it failed; but the page is there, so the access is not held to it.
    assert_eq!(guest.load(3), Ok(word(6)));
    assert_eq!(world.memory.remove(slot), Ok(()));
    assert_eq!(guest.load(2), Err(Outcome::Unbacked));
}
