//! What becomes of write protection, poison and guards when pages are taken from the object that is mapped, on every kind of
//! mapping, row by row as Linux has it (checked there on 6.18).

mod common;

use common::kinds::{Bed, Kind, Seen};
use common::{returned, until_it_waits, write_protected};
use kernel::mm::cache::{Lookup, Object};
use kernel::mm::fault::FaultError;
use kernel::uffd::{Event, Features, FillMode, Modes, Outcome, ReadError};

const NOTHING: Result<Event, ReadError> = Err(ReadError::WouldBlock);

/// A bed with [`STATES`](common::kinds::STATES) in its granules.
fn prepared(kind: Kind) -> Bed {
    Bed::with_states(kind, Features::empty())
}

fn object(bed: &Bed) -> &Object {
    bed.object.as_ref().expect("the kind has objects")
}

/// Whether granule number `index` is a cache page of the object.
fn is_cached(bed: &Bed, index: u64) -> bool {
    matches!(object(bed).lookup(index * bed.kind.granule()), Lookup::Present(_))
}

/// A store to granule number `index` is a message, and goes on when the protection is removed.
#[track_caller]
fn assert_store_stops(bed: &Bed, index: u64, value: u64) {
    let writer = bed.world.spawn_store(bed.at(index), value);
    until_it_waits(writer.task());
    assert_eq!(bed.uffd.try_read_event(), write_protected(bed.at(index)));
    let unprotected = bed
        .uffd
        .remove_write_protection(bed.one(index), FillMode::empty());
    assert_eq!(unprotected, Ok(()));
    assert_eq!(returned(writer), Ok(()));
}

#[test]
fn a_hole_keeps_protection_as_markers_and_the_poison_of_small_pages() {
    use Seen::{Empty, Guard, Page, Poison, WpMarker, WpPage};
    for (kind, expected) in [
        (Kind::Shmem, [Empty, WpMarker, WpMarker, Poison, Guard]),
        // What was stored to are copies, and not the object's.
        (Kind::PrivateShmem, [Page, WpPage, WpMarker, Poison, Guard]),
        (Kind::Huge, [Empty, WpMarker, WpMarker, Empty, Guard]),
        (Kind::PrivateHuge, [Empty, WpMarker, WpMarker, Empty, Guard]),
    ] {
        let bed = prepared(kind);
        assert_eq!(object(&bed).punch(0, bed.range.len()), Ok(()));
        assert_eq!(bed.states(), expected, "{kind:?}");
        assert_eq!(object(&bed).resident(), 0);
        assert_eq!(bed.uffd.try_read_event(), NOTHING);
    }
}

#[test]
fn cutting_an_object_short_keeps_the_protection_of_small_pages_and_drops_copies_and_poison() {
    use Seen::{Empty, Guard, WpMarker};
    for (kind, expected) in [
        (Kind::Shmem, [Empty, WpMarker, WpMarker, Empty, Guard]),
        (Kind::PrivateShmem, [Empty, WpMarker, WpMarker, Empty, Guard]),
        (Kind::Huge, [Empty, Empty, Empty, Empty, Guard]),
        (Kind::PrivateHuge, [Empty, Empty, Empty, Empty, Guard]),
    ] {
        let bed = prepared(kind);
        assert_eq!(object(&bed).truncate(0), Ok(()));
        assert_eq!(bed.states(), expected, "{kind:?}");
        assert_eq!(object(&bed).truncate(bed.range.len()), Ok(()));
        assert_eq!(bed.states(), expected, "{kind:?}, long again");
        assert_eq!(bed.uffd.try_read_event(), NOTHING);
    }
}

#[test]
fn a_write_after_the_object_has_grown_back_still_raises_a_write_protect_fault() {
    for kind in [Kind::Shmem, Kind::PrivateShmem] {
        let bed = prepared(kind);
        assert_eq!(object(&bed).truncate(0), Ok(()));
        assert_eq!(bed.world.store(bed.at(1), 9), Err(FaultError::BeyondEnd));
        assert_eq!(bed.uffd.try_read_event(), NOTHING);
        assert_eq!(object(&bed).truncate(bed.range.len()), Ok(()));
        assert_store_stops(&bed, 1, 9);
        assert_eq!(bed.load(1), 9);
    }
}

#[test]
fn a_write_into_a_hole_that_was_protected_raises_a_write_protect_fault() {
    for kind in [Kind::Shmem, Kind::Huge, Kind::PrivateHuge] {
        let bed = prepared(kind);
        assert_eq!(object(&bed).punch(0, bed.range.len()), Ok(()));
        // A load takes a page of zeros, still protected.
        assert_eq!(bed.load(1), 0);
        assert_eq!(bed.seen(1), Seen::WpPage, "{kind:?}");
        assert_store_stops(&bed, 1, 9);
    }
}

#[test]
fn a_page_that_a_private_mapping_only_reads_goes_with_the_hole() {
    let bed = Bed::new(Kind::PrivateShmem, 3, Modes::WP, Features::empty());
    for i in 0..2 {
        assert_eq!(bed.load(i), 0);
        assert!(is_cached(&bed, i));
    }
    assert_eq!(bed.uffd.write_protect(bed.one(1)), Ok(()));
    assert_eq!(object(&bed).punch(0, bed.range.len()), Ok(()));
    assert_eq!((bed.seen(0), bed.seen(1)), (Seen::Empty, Seen::WpMarker));
}

#[test]
fn taking_pages_away_wakes_nobody_and_sends_no_event() {
    let bed = Bed::new(
        Kind::Shmem,
        2,
        Modes::MISSING,
        Features::EVENT_REMOVE | Features::EVENT_UNMAP,
    );
    let waiter = bed.world.stuck_at(bed.at(0));
    assert!(matches!(bed.uffd.try_read_event(), Ok(Event::Pagefault { .. })));
    assert_eq!(object(&bed).punch(0, bed.range.len()), Ok(()));
    assert_eq!(object(&bed).truncate(0), Ok(()));
    assert!(!common::was_woken(&waiter));
    assert_eq!(bed.uffd.try_read_event(), NOTHING);
    // Filling what the object does not reach any more is refused, and wakes nobody either.
    let page = vec![1; bed.kind.granule() as usize];
    let outcome = bed
        .uffd
        .copy(bed.at(0), &page, bed.kind.granule(), FillMode::empty());
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    assert!(!common::was_woken(&waiter));
}

#[test]
fn protection_is_forgotten_with_the_hole_where_nobody_asks_for_it_any_more() {
    let bed = prepared(Kind::Shmem);
    assert!(bed.uffd.register(bed.range, Modes::MISSING).is_ok());
    assert_eq!(object(&bed).punch(0, bed.range.len()), Ok(()));
    assert_eq!((bed.seen(1), bed.seen(2)), (Seen::Empty, Seen::Empty));
}
