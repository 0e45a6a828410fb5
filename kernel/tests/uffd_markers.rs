//! What becomes of write protection, poison and guards when memory is changed in some other way, on every kind of memory,
//! row by row as Linux has it (checked there on 6.18).

mod common;

use common::kinds::{Bed, Kind, STATES, Seen, seen, until_it_announces};
use common::{RW, returned, was_woken};
use kernel::mm::addr::VirtAddr;
use kernel::mm::fault::FaultError;
use kernel::mm::pt::Prot;
use kernel::mm::range::VirtRange;
use kernel::mm::space::{RemapRequest, RemapTo};
use kernel::uffd::{Event, Features, FillMode, Modes, ReadError};

const NOTHING: Result<Event, ReadError> = Err(ReadError::WouldBlock);

/// A bed with [`STATES`] in its granules.
fn prepared(kind: Kind, features: Features) -> Bed {
    Bed::with_states(kind, Features::WP_UNPOPULATED | features)
}

// Contents are dropped.

#[test]
fn discarding_anonymous_memory_drops_protection_and_poison() {
    let bed = prepared(Kind::Anon, Features::empty());
    assert_eq!(bed.space().discard(bed.range), Ok(()));
    let empty = Seen::Empty;
    assert_eq!(bed.states(), [empty, empty, empty, empty, Seen::Guard]);
    (0..4).for_each(|i| assert_eq!(bed.world.store(bed.at(i), 9), Ok(())));
    assert_eq!(bed.uffd.try_read_event(), NOTHING);
}

#[test]
fn discarding_mapped_objects_keeps_protection_as_markers_and_drops_poison() {
    for kind in Kind::OBJECTS {
        let bed = prepared(kind, Features::empty());
        assert_eq!(bed.space().discard(bed.range), Ok(()));
        assert_eq!(
            bed.states(),
            [
                Seen::Empty,
                Seen::WpMarker,
                Seen::WpMarker,
                Seen::Empty,
                Seen::Guard
            ],
            "{kind:?}"
        );
        let waiter = bed.world.stuck_storing_at(bed.at(1));
        assert_eq!(
            bed.uffd.remove_write_protection(bed.range, FillMode::empty()),
            Ok(())
        );
        assert!(was_woken(&waiter));
        assert_eq!(bed.world.store(bed.at(1), 9), Ok(()));
        assert_eq!(bed.world.store(bed.at(3), 9), Ok(()), "no poison");
    }
}

#[test]
fn a_store_to_a_marker_finds_a_page_that_is_still_protected_by_the_time_somebody_is_asked() {
    for kind in Kind::ALL {
        let bed = Bed::new(kind, 1, Modes::WP, Features::WP_UNPOPULATED);
        assert_eq!(bed.uffd.write_protect(bed.range), Ok(()));
        assert_eq!(bed.seen(0), Seen::WpMarker, "{kind:?}");
        let waiter = bed.world.stuck_storing_at(bed.at(0));
        assert_eq!(bed.seen(0), Seen::WpPage, "{kind:?}");
        assert_eq!(
            bed.uffd.remove_write_protection(bed.range, FillMode::empty()),
            Ok(())
        );
        assert!(was_woken(&waiter));
        assert_eq!(bed.world.load(bed.at(0)), Ok(0));
    }
}

#[test]
fn discarding_a_private_copy_keeps_its_protection() {
    for kind in [Kind::PrivateShmem, Kind::PrivateHuge] {
        let bed = Bed::new(kind, 1, Modes::WP, Features::empty());
        bed.prepare(0, Seen::WpPage);
        assert_eq!(bed.space().discard(bed.range), Ok(()));
        assert_eq!(bed.seen(0), Seen::WpMarker);
        assert_eq!(bed.load(0), 0, "the copy is gone");
        assert_eq!(bed.seen(0), Seen::WpPage, "a load keeps the protection");
    }
}

#[test]
fn letting_go_lazily_keeps_protection_and_drops_poison() {
    let bed = prepared(Kind::Anon, Features::empty());
    assert_eq!(bed.space().discard_lazily(bed.range), Ok(()));
    assert_eq!(
        bed.states(),
        [Seen::Page, Seen::WpPage, Seen::WpMarker, Seen::Empty, Seen::Guard]
    );
}

// The registration ends.

#[test]
fn unregistering_and_closing_drop_protection_and_keep_poison_and_guards() {
    for kind in Kind::ALL {
        for close in [false, true] {
            let bed = prepared(kind, Features::empty());
            if close {
                bed.uffd.close();
            } else {
                bed.uffd.unregister(bed.range).expect("ours");
            }
            assert_eq!(
                bed.states(),
                [Seen::Page, Seen::Page, Seen::Empty, Seen::Poison, Seen::Guard],
                "{kind:?}, closed: {close}"
            );
            assert_eq!(bed.world.store(bed.at(3), 1), Err(FaultError::Poisoned));
            assert_eq!(bed.world.store(bed.at(1), 9), Ok(()));
        }
    }
}

// Rights change.

#[test]
fn changes_of_rights_keep_protection_poison_and_guards() {
    for kind in Kind::ALL {
        let bed = prepared(kind, Features::empty());
        for prot in [Prot::READ, Prot::empty(), RW] {
            bed.space().protect(bed.range, prot).expect("mapped");
            assert_eq!(bed.states(), STATES, "{kind:?}, {prot:?}");
        }
        assert_eq!(bed.world.store(bed.at(0), 9), Ok(()));
        let waiters = [1, 2].map(|i| bed.world.stuck_storing_at(bed.at(i)));
        assert_eq!(bed.world.load(bed.at(3)), Err(FaultError::Poisoned));
        bed.uffd.close();
        assert!(waiters.iter().all(|waiter| was_woken(waiter)));
    }
}

#[test]
fn changes_of_rights_wake_nobody() {
    for kind in Kind::ALL {
        let bed = prepared(kind, Features::empty());
        let waiter = bed.world.stuck_storing_at(bed.at(1));
        bed.space().protect(bed.range, Prot::READ).expect("mapped");
        assert!(waiter.fault.is_waiting());
        bed.uffd.close();
        assert!(was_woken(&waiter));
    }
}

#[test]
fn poison_hides_a_page_in_one_mapping_only() {
    for kind in [Kind::Shmem, Kind::Huge] {
        let bed = Bed::new(kind, 1, Modes::WP, Features::empty());
        let alias = common::kinds::map(&bed.world, kind.memory(bed.object.as_ref()), None, kind.granule());
        assert_eq!(bed.world.store(alias.start, 5), Ok(()));
        bed.prepare(0, Seen::Poison);
        assert_eq!(bed.world.load(bed.at(0)), Err(FaultError::Poisoned));
        assert_eq!(bed.world.load(alias.start), Ok(5));
    }
}

// Memory moves.

const FAR: VirtAddr = VirtAddr::new(0x10_0000_0000);

/// Moves the bed to [`FAR`] in a task, and reads what it announces if it announces anything.
fn move_far(bed: &Bed, features: Features, leave_mapped: bool) -> VirtRange {
    let old = bed.range;
    let task = bed.spawn(move |space| {
        space.remap(RemapRequest {
            old,
            len: old.len(),
            to: RemapTo::At(FAR),
            leave_mapped,
        })
    });
    if features.contains(Features::EVENT_REMAP) {
        until_it_announces(&task);
        assert!(matches!(bed.uffd.try_read_event(), Ok(Event::Remap { .. })));
    }
    returned(task).expect("there is room")
}

#[test]
fn memory_that_moves_away_from_its_registration_loses_protection_and_keeps_poison_and_guards() {
    for kind in Kind::ALL {
        let bed = prepared(kind, Features::empty());
        let new = move_far(&bed, Features::empty(), false);
        assert_eq!(
            bed.states_at(new),
            [Seen::Page, Seen::Page, Seen::Empty, Seen::Poison, Seen::Guard],
            "{kind:?}"
        );
        let granule = kind.granule();
        assert_eq!(bed.world.store(new.start + granule, 9), Ok(()));
        assert_eq!(bed.world.load(new.start + 3 * granule), Err(FaultError::Poisoned));
        assert_eq!(bed.uffd.try_read_event(), NOTHING);
    }
}

#[test]
fn memory_that_moves_with_its_registration_keeps_protection_poison_and_guards() {
    for kind in Kind::ALL {
        let bed = prepared(kind, Features::EVENT_REMAP);
        let new = move_far(&bed, Features::EVENT_REMAP, false);
        assert_eq!(bed.states_at(new), STATES, "{kind:?}");
        let granule = kind.granule();
        let waiters = [1, 2].map(|i| bed.world.stuck_storing_at(new.start + i * granule));
        bed.uffd.close();
        assert!(waiters.iter().all(|waiter| was_woken(waiter)));
    }
}

#[test]
fn nothing_is_left_in_the_entries_of_memory_that_stays_mapped() {
    for kind in Kind::SMALL {
        for features in [Features::empty(), Features::EVENT_REMAP] {
            let bed = prepared(kind, features);
            let new = move_far(&bed, features, true);
            assert_eq!(bed.states(), [Seen::Empty; 5], "{kind:?}");
            let kept = features.contains(Features::EVENT_REMAP);
            let without = [Seen::Page, Seen::Page, Seen::Empty, Seen::Poison, Seen::Guard];
            assert_eq!(bed.states_at(new), if kept { STATES } else { without });
        }
    }
}

#[test]
fn protection_that_no_registration_knows_any_more_is_dropped_by_a_move_too() {
    let bed = Bed::new(Kind::Anon, 1, Modes::WP, Features::empty());
    bed.prepare(0, Seen::WpPage);
    bed.uffd.register(bed.range, Modes::MISSING).expect("ours");
    assert_eq!(bed.seen(0), Seen::WpPage, "left over");
    let new = move_far(&bed, Features::empty(), false);
    assert_eq!(seen(bed.space(), new.start), Seen::Page);
}
