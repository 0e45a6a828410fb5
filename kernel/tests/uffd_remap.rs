//! Registered memory that moves, grows and shrinks: who is told of what, in which order, and what stays registered, row by
//! row as Linux has it (checked there on 6.18). Each test is named after what it claims.

mod common;

use std::sync::Arc;

use common::kinds::{Bed, Kind, Seen, map, until_it_announces};
use common::{eventually, missing, returned, until_it_waits};
use kernel::mm::addr::{PAGE_SIZE, USER_TOP, VirtAddr};
use kernel::mm::fault::FaultError;
use kernel::mm::frame::allocator;
use kernel::mm::memtype::anon::ANON;
use kernel::mm::pt::Prot;
use kernel::mm::range::VirtRange;
use kernel::mm::space::{Memory, RemapError, RemapRequest, RemapTo};
use kernel::task::State;
use kernel::task::spawn::JoinHandle;
use kernel::uffd::{Event, Features, FillMode, Modes, Outcome, ReadError, Refusal, Uffd};

const P: u64 = PAGE_SIZE;
const FAR: VirtAddr = VirtAddr::new(0x10_0000_0000);
const NOW: FillMode = FillMode::empty();
const NOTHING: Result<Event, ReadError> = Err(ReadError::WouldBlock);
const REMAP: Features = Features::EVENT_REMAP;
const UNMAP: Features = Features::EVENT_UNMAP;

type Remapped = Result<VirtRange, RemapError>;

/// Four granules of a kind, present and registered for missing pages.
fn bed(kind: Kind, features: Features) -> Bed {
    let bed = Bed::unregistered(kind, 4, features);
    (0..4).for_each(|i| bed.store(i, i + 1));
    bed.uffd
        .register(bed.range, Modes::MISSING)
        .expect("the type can");
    bed
}

fn request(old: VirtRange, len: u64, to: RemapTo) -> RemapRequest {
    RemapRequest {
        old,
        len,
        to,
        leave_mapped: false,
    }
}

/// Moves `old` to `at` as it is.
fn moving(old: VirtRange, at: VirtAddr) -> RemapRequest {
    request(old, old.len(), RemapTo::At(at))
}

fn leaving(old: VirtRange, at: VirtAddr) -> RemapRequest {
    RemapRequest {
        leave_mapped: true,
        ..moving(old, at)
    }
}

/// Starts a task that remaps.
fn start(bed: &Bed, request: RemapRequest) -> JoinHandle<Remapped> {
    bed.spawn(move |space| space.remap(request))
}

/// Remaps in a task, which must not wait for anybody.
fn at_once(bed: &Bed, request: RemapRequest) -> Remapped {
    returned(start(bed, request))
}

fn remapped(from: VirtAddr, to: VirtAddr, len: u64) -> Result<Event, ReadError> {
    Ok(Event::Remap { from, to, len })
}

fn unmapped(range: VirtRange) -> Result<Event, ReadError> {
    Ok(Event::Unmap { range })
}

/// Waits until the task announces, and reads that at the context.
#[track_caller]
fn read_from<T>(uffd: &Uffd, task: &JoinHandle<T>) -> Result<Event, ReadError> {
    until_it_announces(task);
    uffd.try_read_event()
}

/// The modes that the memory at `addr` is registered in with the bed's context.
fn modes(bed: &Bed, addr: VirtAddr) -> Option<Modes> {
    let registration = bed.space().query(addr).expect("it is mapped").uffd?;
    Arc::ptr_eq(&registration.ctx, bed.uffd.ctx()).then_some(registration.modes)
}

const MISSING: Option<Modes> = Some(Modes::MISSING);

fn to(at: VirtAddr, len: u64) -> VirtRange {
    VirtRange::from_len(at, len).expect("far below the top")
}

// Moving.

#[test]
fn a_move_is_told_and_the_registration_goes_along() {
    for kind in Kind::ALL {
        let bed = bed(kind, REMAP);
        let len = bed.range.len();
        let task = start(&bed, moving(bed.range, FAR));
        until_it_announces(&task);
        assert_eq!(bed.world.load(FAR), Ok(1), "already moved");
        assert_eq!(bed.world.load(bed.at(0)), Err(FaultError::Unmapped));
        assert_eq!(bed.uffd.try_read_event(), remapped(bed.at(0), FAR, len));
        assert_eq!(returned(task), Ok(to(FAR, len)));
        assert_eq!((modes(&bed, FAR), bed.uffd.try_read_event()), (MISSING, NOTHING));
    }
}

#[test]
fn without_the_feature_nobody_is_told_and_the_moved_mapping_is_not_registered() {
    for kind in Kind::ALL {
        let bed = bed(kind, Features::empty());
        assert!(at_once(&bed, moving(bed.part(0, 2), FAR)).is_ok());
        assert_eq!((modes(&bed, FAR), bed.uffd.try_read_event()), (None, NOTHING));
        assert_eq!(modes(&bed, bed.at(2)), MISSING, "what stays is registered");
        assert_eq!(bed.world.load(FAR), Ok(1));
    }
}

#[test]
fn missing_pages_of_the_moved_mapping_are_reported_at_their_new_address() {
    let bed = Bed::new(Kind::Anon, 2, Modes::MISSING, REMAP);
    let task = start(&bed, moving(bed.range, FAR));
    assert_eq!(read_from(&bed.uffd, &task), remapped(bed.at(0), FAR, 2 * P));
    assert!(returned(task).is_ok());
    let task = bed.world.spawn_load(FAR + P);
    until_it_waits(task.task());
    assert_eq!(bed.uffd.try_read_event(), missing(FAR + P, false));
    assert_eq!(bed.uffd.copy(FAR + P, &[7; P as usize], P, NOW), Outcome::Done);
    assert_eq!(returned(task), Ok(0x0707_0707_0707_0707));
}

#[test]
fn a_move_is_a_remap_and_then_an_unmap_each_waited_for() {
    let bed = bed(Kind::Anon, REMAP | UNMAP);
    let task = start(&bed, moving(bed.part(0, 3), FAR));
    assert_eq!(read_from(&bed.uffd, &task), remapped(bed.at(0), FAR, 3 * P));
    assert_eq!(read_from(&bed.uffd, &task), unmapped(bed.part(0, 3)));
    assert_eq!(
        (returned(task), bed.uffd.try_read_event()),
        (Ok(to(FAR, 3 * P)), NOTHING)
    );
}

#[test]
fn a_context_that_only_wants_to_know_of_unmapping_is_told_of_the_old_range() {
    let bed = bed(Kind::Anon, UNMAP);
    let task = start(&bed, moving(bed.range, FAR));
    assert_eq!(read_from(&bed.uffd, &task), unmapped(bed.range));
    assert_eq!((returned(task), modes(&bed, FAR)), (Ok(to(FAR, 4 * P)), None));
}

#[test]
fn growing_elsewhere_tells_the_old_length_and_registers_the_new_one() {
    let bed = bed(Kind::Anon, REMAP | UNMAP);
    assert_eq!(bed.range.end, USER_TOP, "no room behind it");
    let task = start(&bed, request(bed.range, 6 * P, RemapTo::Anywhere));
    until_it_announces(&task);
    let event = bed.uffd.try_read_event();
    let Ok(Event::Remap { from, to: new, len }) = event else {
        panic!("a move: {event:?}");
    };
    assert_eq!((from, len), (bed.at(0), 4 * P));
    assert_eq!(read_from(&bed.uffd, &task), unmapped(bed.range));
    assert_eq!(returned(task), Ok(to(new, 6 * P)));
    assert_eq!((modes(&bed, new), modes(&bed, new + 5 * P)), (MISSING, MISSING));
}

#[test]
fn growing_here_registers_the_new_part_and_tells_nobody() {
    for features in [Features::empty(), REMAP | UNMAP] {
        let bed = Bed::unregistered(Kind::Anon, 1, features);
        let range = map(&bed.world, Memory::Own(&ANON), Some(FAR), P);
        bed.uffd
            .register(range, Modes::MISSING)
            .expect("anonymous memory can");
        assert_eq!(
            at_once(&bed, request(range, 3 * P, RemapTo::Here)),
            Ok(to(FAR, 3 * P))
        );
        assert_eq!(
            (modes(&bed, FAR + 2 * P), bed.uffd.try_read_event()),
            (MISSING, NOTHING)
        );
        let task = bed.world.spawn_load(FAR + 2 * P);
        until_it_waits(task.task());
        assert_eq!(bed.uffd.try_read_event(), missing(FAR + 2 * P, false));
        assert_eq!(bed.uffd.zeropage(to(FAR, 3 * P), NOW), Outcome::Done, "one area");
        assert_eq!(returned(task), Ok(0));
    }
}

#[test]
fn shrinking_is_an_unmap_of_the_tail_which_is_gone_by_then() {
    for kind in Kind::ALL {
        let bed = bed(kind, REMAP | UNMAP);
        let task = start(&bed, request(bed.range, bed.kind.granule(), RemapTo::Here));
        until_it_announces(&task);
        assert_eq!(bed.world.load(bed.at(1)), Err(FaultError::Unmapped));
        assert_eq!(bed.uffd.try_read_event(), unmapped(bed.part(1, 3)));
        assert_eq!(
            (returned(task), bed.uffd.try_read_event()),
            (Ok(bed.one(0)), NOTHING)
        );
        assert_eq!(modes(&bed, bed.at(0)), MISSING);
    }
}

#[test]
fn shrinking_tells_of_the_whole_tail_once_whatever_is_in_it() {
    let bed = bed(Kind::Anon, UNMAP);
    bed.space().protect(bed.one(2), Prot::READ).expect("mapped");
    bed.uffd.unregister(bed.one(3)).expect("ours");
    let task = start(&bed, request(bed.range, P, RemapTo::Here));
    assert_eq!(read_from(&bed.uffd, &task), unmapped(bed.part(1, 3)));
    assert_eq!(
        (returned(task), bed.uffd.try_read_event()),
        (Ok(bed.one(0)), NOTHING)
    );
}

#[test]
fn moving_less_than_there_is_tells_of_the_rest_before_the_old_range() {
    let bed = bed(Kind::Anon, REMAP | UNMAP);
    let task = start(&bed, request(bed.range, 2 * P, RemapTo::At(FAR)));
    assert_eq!(read_from(&bed.uffd, &task), remapped(bed.at(0), FAR, 2 * P));
    assert_eq!(read_from(&bed.uffd, &task), unmapped(bed.part(2, 2)));
    assert_eq!(read_from(&bed.uffd, &task), unmapped(bed.part(0, 2)));
    assert_eq!(
        (returned(task), bed.uffd.try_read_event()),
        (Ok(to(FAR, 2 * P)), NOTHING)
    );
}

#[test]
fn what_was_at_the_fixed_place_is_told_of_before_the_move() {
    let bed = bed(Kind::Anon, REMAP | UNMAP);
    let place = map(&bed.world, Memory::Own(&ANON), Some(FAR), 4 * P);
    let other = Uffd::new(bed.space(), UNMAP);
    other.register(to(FAR, 2 * P), Modes::MISSING).expect("nobody's");
    bed.uffd
        .register(to(FAR + 2 * P, 2 * P), Modes::MISSING)
        .expect("nobody's");
    let task = start(&bed, moving(bed.range, FAR));
    assert_eq!(read_from(&other, &task), unmapped(place));
    assert_eq!(
        read_from(&bed.uffd, &task),
        unmapped(place),
        "the whole place, to each"
    );
    assert_eq!(read_from(&bed.uffd, &task), remapped(bed.at(0), FAR, 4 * P));
    assert_eq!(read_from(&bed.uffd, &task), unmapped(bed.range));
    assert_eq!(returned(task), Ok(place));
    assert_eq!(modes(&bed, FAR), MISSING);
}

// Staying mapped.

#[test]
fn what_stays_mapped_stays_registered_with_or_without_the_feature() {
    for features in [UNMAP, REMAP | UNMAP] {
        let bed = bed(Kind::Anon, features);
        let task = start(&bed, leaving(bed.part(0, 2), FAR));
        let follows = features.contains(REMAP);
        if follows {
            assert_eq!(read_from(&bed.uffd, &task), remapped(bed.at(0), FAR, 2 * P));
        }
        assert_eq!(returned(task), Ok(to(FAR, 2 * P)));
        assert_eq!(bed.uffd.try_read_event(), NOTHING, "nothing was unmapped");
        assert_eq!(modes(&bed, bed.at(0)), MISSING);
        assert_eq!(modes(&bed, FAR), follows.then_some(Modes::MISSING));
        assert_eq!(bed.world.load(FAR), Ok(1));
        let task = bed.world.spawn_load(bed.at(1));
        until_it_waits(task.task());
        assert_eq!(
            bed.uffd.try_read_event(),
            missing(bed.at(1), false),
            "it is empty"
        );
        assert_eq!(bed.uffd.zeropage(bed.part(0, 2), NOW), Outcome::Done);
        assert_eq!(returned(task), Ok(0));
    }
}

// A second mapping.

#[test]
fn a_second_mapping_is_told_as_a_move_of_nothing_and_registered() {
    let bed = bed(Kind::Shmem, REMAP | UNMAP);
    let nothing = VirtRange::new(bed.at(1), bed.at(1));
    let task = start(&bed, request(nothing, 2 * P, RemapTo::At(FAR)));
    assert_eq!(read_from(&bed.uffd, &task), remapped(bed.at(1), FAR, 0));
    assert_eq!(
        (returned(task), bed.uffd.try_read_event()),
        (Ok(to(FAR, 2 * P)), NOTHING)
    );
    assert_eq!((modes(&bed, FAR), modes(&bed, bed.at(1))), (MISSING, MISSING));
    assert_eq!(bed.world.load(FAR), Ok(2));
}

// While somebody waits.

#[test]
fn fills_are_refused_until_every_event_of_the_context_is_read() {
    let bed = bed(Kind::Anon, REMAP | UNMAP);
    let hole = map(&bed.world, Memory::Own(&ANON), Some(FAR + 64 * P), 3 * P);
    bed.uffd.register(hole, Modes::MISSING).expect("nobody's");
    let fill = |i: u64| bed.uffd.zeropage(VirtRange::page(hole.start + i * P), NOW);
    let task = start(&bed, moving(bed.range, FAR));
    until_it_announces(&task);
    assert_eq!(fill(0), Outcome::Refused(Refusal::Changing));
    assert_eq!(bed.uffd.try_read_event(), remapped(bed.at(0), FAR, 4 * P));
    assert_eq!(
        fill(0),
        Outcome::Refused(Refusal::Changing),
        "of the unmapping it was not told yet"
    );
    assert_eq!(read_from(&bed.uffd, &task), unmapped(bed.range));
    assert!(returned(task).is_ok());
    assert_eq!(fill(0), Outcome::Done);
}

#[test]
fn closing_the_context_lets_the_caller_go_on() {
    let bed = bed(Kind::Anon, REMAP | UNMAP);
    let task = start(&bed, moving(bed.range, FAR));
    until_it_announces(&task);
    bed.uffd.close();
    assert_eq!(returned(task), Ok(to(FAR, 4 * P)));
    assert_eq!((modes(&bed, FAR), bed.world.load(FAR)), (None, Ok(1)));
}

#[test]
fn a_caller_that_is_killed_has_moved_all_the_same() {
    let bed = bed(Kind::Anon, REMAP | UNMAP);
    let task = start(&bed, moving(bed.range, FAR));
    until_it_announces(&task);
    task.task().kill();
    assert_eq!(returned(task), Ok(to(FAR, 4 * P)));
    assert_eq!((bed.uffd.try_read_event(), bed.world.load(FAR)), (NOTHING, Ok(1)));
}

#[test]
fn a_waiter_at_an_old_address_stays_asleep_and_finds_nothing_mapped_when_woken() {
    let bed = Bed::new(Kind::Anon, 2, Modes::MISSING, REMAP);
    let waiter = bed.world.spawn_load(bed.at(1));
    until_it_waits(waiter.task());
    let task = start(&bed, moving(bed.range, FAR));
    assert_eq!(read_from(&bed.uffd, &task), missing(bed.at(1), false));
    assert_eq!(bed.uffd.try_read_event(), remapped(bed.at(0), FAR, 2 * P));
    assert!(returned(task).is_ok());
    assert!(waiter.task().fault.is_waiting());
    let filled = bed.uffd.zeropage(to(FAR, 2 * P), NOW);
    assert_eq!(filled, Outcome::Done);
    assert!(waiter.task().fault.is_waiting(), "its address is the old one");
    assert_eq!(bed.uffd.wake(bed.range), Ok(()));
    assert_eq!(common::failed(returned(waiter)), Err(FaultError::Unmapped));
}

// Refusals.

#[test]
fn several_areas_do_not_move_together_if_the_first_is_registered() {
    let bed = Bed::unregistered(Kind::Anon, 4, REMAP | UNMAP);
    (0..4).for_each(|i| bed.store(i, i + 1));
    bed.uffd
        .register(bed.part(0, 2), Modes::MISSING)
        .expect("nobody's");
    for refused in [moving(bed.range, FAR), leaving(bed.range, FAR)] {
        assert_eq!(at_once(&bed, refused), Err(RemapError::SeveralAreas));
    }
    assert_eq!((0..4).map(|i| bed.load(i)).collect::<Vec<_>>(), [1, 2, 3, 4]);
}

#[test]
fn of_several_areas_those_before_a_registered_one_have_moved_when_it_is_refused() {
    let bed = Bed::unregistered(Kind::Anon, 4, REMAP | UNMAP);
    (0..4).for_each(|i| bed.store(i, i + 1));
    bed.uffd
        .register(bed.part(2, 2), Modes::MISSING)
        .expect("nobody's");
    let refused = at_once(&bed, moving(bed.range, FAR));
    assert_eq!(refused, Err(RemapError::SeveralAreas));
    assert!(bed.world.space.query(bed.at(1)).is_none());
    assert_eq!((bed.world.load(FAR), bed.world.load(FAR + P)), (Ok(1), Ok(2)));
    assert_eq!((bed.load(2), bed.load(3)), (3, 4));
    assert!(bed.world.space.query(FAR + 2 * P).is_none());
}

#[test]
fn a_registered_area_does_not_move_together_with_the_hole_behind_it() {
    let bed = Bed::unregistered(Kind::Anon, 1, REMAP | UNMAP);
    let area = map(&bed.world, Memory::Own(&ANON), Some(FAR + 64 * P), P);
    let longer = to(area.start, 2 * P);
    bed.uffd.register(area, Modes::MISSING).expect("nobody's");
    assert_eq!(at_once(&bed, moving(longer, FAR)), Err(RemapError::SeveralAreas));
    bed.uffd.unregister(area).expect("ours");
    assert_eq!(at_once(&bed, moving(longer, FAR)), Ok(to(FAR, P)));
}

#[test]
fn a_refused_move_tells_nobody_and_fills_go_on() {
    let bed = bed(Kind::Anon, REMAP | UNMAP);
    let hole = map(&bed.world, Memory::Own(&ANON), Some(FAR), P);
    bed.uffd.register(hole, Modes::MISSING).expect("nobody's");
    bed.space().protect(bed.one(3), Prot::READ).expect("mapped");
    for refused in [
        moving(bed.range, bed.at(1)),
        request(bed.range, 5 * P, RemapTo::At(FAR)),
        request(bed.range, 5 * P, RemapTo::Here),
    ] {
        assert!(at_once(&bed, refused).is_err());
    }
    assert_eq!(bed.uffd.try_read_event(), NOTHING);
    assert_eq!(bed.uffd.zeropage(hole, NOW), Outcome::Done);
}

#[test]
fn a_move_that_finds_no_frames_tells_of_what_it_unmapped_only() {
    for successes in 0.. {
        let bed = bed(Kind::Anon, REMAP | UNMAP);
        let place = map(&bed.world, Memory::Own(&ANON), Some(FAR), 4 * P);
        let other = Arc::new(Uffd::new(bed.space(), UNMAP));
        other.register(place, Modes::MISSING).expect("nobody's");
        let old = bed.range;
        let task = bed.spawn(move |space| {
            allocator().inject_failure(successes);
            space.remap(moving(old, FAR))
        });
        eventually("the task is through, or announces", || {
            task.task().event.is_queued() || task.task().state() == State::Ended
        });
        allocator().stop_injection();
        let unmapped_place = bed.space().query(FAR).is_none();
        if task.task().event.is_queued() {
            assert_eq!(other.try_read_event(), unmapped(place));
        }
        if bed.space().query(old.start).is_none() {
            assert!(successes > 3, "enough for records and for three nodes");
            bed.uffd.close();
            assert!(returned(task).is_ok());
            break;
        }
        assert!(returned(task).is_err());
        assert_eq!(
            bed.uffd.try_read_event(),
            NOTHING,
            "nothing of its own has changed"
        );
        assert_eq!((bed.seen(0), modes(&bed, bed.at(0))), (Seen::Page, MISSING));
        assert_eq!(other.try_read_event(), NOTHING);
        // The contexts may fill again: no change is under way.
        bed.space().discard(bed.one(0)).expect("mapped");
        assert_eq!(bed.uffd.zeropage(bed.one(0), NOW), Outcome::Done);
        if !unmapped_place {
            assert_eq!(other.zeropage(place, NOW), Outcome::Done);
        }
    }
}
