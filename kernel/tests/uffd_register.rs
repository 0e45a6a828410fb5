//! REGISTER and UNREGISTER of MISSING on anonymous memory, row by row as Linux has them (checked there on 6.18). Each test
//! is named after what it claims.

mod common;

use std::sync::Arc;

use common::{RW, World, page, part, returned, until_it_waits, was_woken};
use kernel::mm::addr::{PAGE_SIZE, USER_TOP, VirtAddr};
use kernel::mm::memtype::{Class, MemType, Privately, anon::ANON};
use kernel::mm::pt::Prot;
use kernel::mm::range::VirtRange;
use kernel::mm::space::{MapRequest, Memory};
use kernel::mm::uaccess;
use kernel::uffd::{
    Event, Features, FillMode, Modes, OpSet, Outcome, RangeError, ReadError, Refusal, RegisterError, Uffd,
    UnregisterError, linux,
};

/// A type of memory that can never be registered, like a file of a disk file system.
static PLAIN: MemType = MemType {
    name: "plain",
    class: Class::File,
    privately: Privately::Itself,
    fixed_size: false,
    guest_only: false,
    pool: None,
    uffd: None,
};

fn uffd(world: &World) -> Uffd {
    Uffd::new(&world.space, Features::empty())
}

/// Ranges that are none, and what is wrong with each.
fn bad_ranges(good: VirtRange) -> [(VirtRange, RangeError); 6] {
    let (start, top) = (good.start, USER_TOP);
    let range = |start, end| VirtRange { start, end };
    [
        (range(start + 8, good.end), RangeError::Unaligned),
        (range(start, good.end - 1), RangeError::Unaligned),
        (range(start, start), RangeError::Empty),
        (range(top, top + PAGE_SIZE), RangeError::BeyondTop),
        (range(top - PAGE_SIZE, top + PAGE_SIZE), RangeError::BeyondTop),
        (
            range(start, VirtAddr::new(0xffff_ffff_ffff_f000)),
            RangeError::BeyondTop,
        ),
    ]
}

#[test]
fn anonymous_memory_registers_missing_and_offers_copy_and_zeropage() {
    let world = World::new();
    for prot in [RW, Prot::READ, Prot::empty()] {
        let range = world.map(2, prot);
        let uffd = uffd(&world);
        let ops = uffd
            .register(range, Modes::MISSING)
            .expect("anonymous memory can");
        assert!(ops.contains(OpSet::COPY | OpSet::ZEROPAGE), "{prot:?}");
        assert_eq!(world.modes_at(range.start), Some(Modes::MISSING));
    }
}

#[test]
fn no_mode_is_einval_before_anything_else() {
    let world = World::new();
    let bad = VirtRange {
        start: VirtAddr::new(1),
        end: VirtAddr::new(2),
    };
    assert_eq!(
        uffd(&world).register(bad, Modes::empty()),
        Err(RegisterError::NoMode)
    );
    assert_eq!(linux::register(RegisterError::NoMode).number(), 22);
}

#[test]
fn bad_ranges_are_einval() {
    let world = World::new();
    let range = world.map(2, RW);
    let uffd = uffd(&world);
    for (bad, why) in bad_ranges(range) {
        assert_eq!(
            uffd.register(bad, Modes::MISSING),
            Err(RegisterError::Range(why)),
            "{bad:?}"
        );
        assert_eq!(uffd.unregister(bad), Err(UnregisterError::Range(why)), "{bad:?}");
        assert_eq!(linux::register(RegisterError::Range(why)).number(), 22);
        assert_eq!(linux::unregister(UnregisterError::Range(why)).number(), 22);
    }
    assert_eq!(world.modes_at(range.start), None);
}

#[test]
fn a_bad_range_is_seen_before_the_space_that_is_gone() {
    let world = World::new();
    let range = world.map(1, RW);
    let uffd = uffd(&world);
    let World { space, machine } = world;
    drop(space);
    let bad = VirtRange {
        start: range.start,
        end: range.start,
    };
    assert_eq!(
        uffd.register(bad, Modes::MISSING),
        Err(RegisterError::Range(RangeError::Empty))
    );
    assert_eq!(
        uffd.register(range, Modes::MISSING),
        Err(RegisterError::SpaceGone)
    );
    assert_eq!(uffd.unregister(range), Err(UnregisterError::SpaceGone));
    drop(machine);
}

#[test]
fn a_space_that_is_gone_is_enomem() {
    assert_eq!(linux::register(RegisterError::SpaceGone).number(), 12);
    assert_eq!(linux::unregister(UnregisterError::SpaceGone).number(), 12);
}

#[test]
fn nothing_mapped_in_the_range_is_einval() {
    let world = World::new();
    let range = world.map(4, RW);
    world.space.unmap(part(range, 1, 2)).expect("mapped");
    let uffd = uffd(&world);
    assert_eq!(
        uffd.register(part(range, 1, 2), Modes::MISSING),
        Err(RegisterError::NotMapped)
    );
    assert_eq!(
        uffd.unregister(part(range, 1, 2)),
        Err(UnregisterError::NotMapped)
    );
    assert_eq!(linux::register(RegisterError::NotMapped).number(), 22);
    assert_eq!(linux::unregister(UnregisterError::NotMapped).number(), 22);
}

#[test]
fn minor_on_anonymous_memory_is_einval_with_any_other_mode() {
    let world = World::new();
    let range = world.map(1, RW);
    for modes in [
        Modes::MINOR,
        Modes::MINOR | Modes::MISSING,
        Modes::MINOR | Modes::WP,
        Modes::all(),
    ] {
        assert_eq!(
            uffd(&world).register(range, modes),
            Err(RegisterError::Unsupported),
            "{modes:?}"
        );
    }
    assert_eq!(linux::register(RegisterError::Unsupported).number(), 22);
}

#[test]
fn memory_without_a_table_of_operations_is_refused_both_ways() {
    let world = World::new();
    let request = MapRequest {
        at: None,
        len: PAGE_SIZE,
        prot: RW,
        memory: Memory::Own(&PLAIN),
    };
    let range = world.space.map(request).expect("there is room");
    let uffd = uffd(&world);
    assert_eq!(
        uffd.register(range, Modes::MISSING),
        Err(RegisterError::Unsupported)
    );
    assert_eq!(uffd.unregister(range), Err(UnregisterError::Unsupported));
}

#[test]
fn memory_of_another_context_is_ebusy_to_register_and_einval_to_unregister() {
    let world = World::new();
    let range = world.map(2, RW);
    let (owner, other) = (uffd(&world), uffd(&world));
    owner
        .register(part(range, 1, 1), Modes::MISSING)
        .expect("anonymous memory can");
    assert_eq!(other.register(range, Modes::MISSING), Err(RegisterError::Busy));
    assert_eq!(other.unregister(range), Err(UnregisterError::NotOurs));
    assert_eq!(linux::register(RegisterError::Busy).number(), 16);
    assert_eq!(linux::unregister(UnregisterError::NotOurs).number(), 22);
    assert_eq!(
        (world.modes_at(range.start), world.modes_at(page(range, 1))),
        (None, Some(Modes::MISSING))
    );
}

#[test]
fn one_area_that_refuses_leaves_all_of_them_as_they_were() {
    let world = World::new();
    let range = world.map(4, RW);
    world.space.unmap(part(range, 3, 1)).expect("mapped");
    let request = MapRequest {
        at: Some(page(range, 3)),
        len: PAGE_SIZE,
        prot: RW,
        memory: Memory::Own(&PLAIN),
    };
    world.space.map(request).expect("just unmapped");
    assert_eq!(
        uffd(&world).register(range, Modes::MISSING),
        Err(RegisterError::Unsupported)
    );
    assert!((0..4).all(|i| world.modes_at(page(range, i)).is_none()));
}

#[test]
fn holes_in_or_before_the_range_are_skipped_silently() {
    let world = World::new();
    let range = world.map(6, RW);
    world.space.unmap(part(range, 0, 2)).expect("mapped");
    world.space.unmap(part(range, 3, 1)).expect("mapped");
    let uffd = uffd(&world);
    assert!(uffd.register(range, Modes::MISSING).is_ok());
    let registered: Vec<_> = (0..6).map(|i| world.modes_at(page(range, i)).is_some()).collect();
    assert_eq!(registered, [false, false, true, false, true, true]);
    assert_eq!(uffd.unregister(range), Ok(()));
    assert!((0..6).all(|i| world.modes_at(page(range, i)).is_none()));
}

#[test]
fn registering_part_of_an_area_splits_it_and_unregistering_merges_it_again() {
    let world = World::new();
    let range = world.map(5, RW);
    let uffd = uffd(&world);
    uffd.register(part(range, 1, 2), Modes::MISSING)
        .expect("anonymous memory can");
    assert_eq!(world.space.areas().len(), 3);
    uffd.unregister(range).expect("ours");
    assert_eq!(world.space.areas().len(), 1);
}

#[test]
fn adjacent_registrations_of_one_context_and_mode_are_one_area() {
    let world = World::new();
    let range = world.map(4, RW);
    let uffd = uffd(&world);
    uffd.register(part(range, 0, 2), Modes::MISSING)
        .expect("anonymous memory can");
    uffd.register(part(range, 2, 2), Modes::MISSING)
        .expect("anonymous memory can");
    assert_eq!(world.space.areas().len(), 1);
    let outcome = uffd.copy(page(range, 1), &[1; 8192], 2 * PAGE_SIZE, FillMode::empty());
    assert_eq!(outcome, Outcome::Done, "crossing from one to the other works");
}

#[test]
fn registering_again_with_the_same_mode_changes_nothing() {
    let world = World::new();
    let range = world.map(2, RW);
    let uffd = uffd(&world);
    let first = uffd.register(range, Modes::MISSING);
    assert_eq!(uffd.register(range, Modes::MISSING), first);
    assert_eq!(world.modes_at(range.start), Some(Modes::MISSING));
}

#[test]
fn pages_that_are_there_do_not_raise_missing_faults() {
    let world = World::new();
    let range = world.map(2, RW);
    let uffd = uffd(&world);
    world.run(|| {
        uaccess::store(range.start, 5).expect("mapped");
        uaccess::load(page(range, 1)).expect("mapped");
        uffd.register(range, Modes::MISSING)
            .expect("anonymous memory can");
        assert_eq!(uaccess::load(range.start), Ok(5));
        assert_eq!(
            uaccess::load(page(range, 1)),
            Ok(0),
            "the zero page counts as there"
        );
        assert_eq!(
            uaccess::store(page(range, 1), 6),
            Ok(()),
            "and is copied without a message"
        );
    });
    assert_eq!(uffd.try_read_event(), Err(ReadError::WouldBlock));
}

#[test]
fn unregistering_what_is_not_registered_is_fine_and_so_is_doing_it_twice() {
    let world = World::new();
    let range = world.map(2, RW);
    let uffd = uffd(&world);
    assert_eq!(uffd.unregister(range), Ok(()));
    uffd.register(range, Modes::MISSING)
        .expect("anonymous memory can");
    assert_eq!((uffd.unregister(range), uffd.unregister(range)), (Ok(()), Ok(())));
}

#[test]
fn unregistering_wakes_those_who_wait_for_missing_pages_and_they_find_plain_memory() {
    let world = World::new();
    let range = world.map(2, RW);
    let uffd = uffd(&world);
    uffd.register(range, Modes::MISSING)
        .expect("anonymous memory can");
    let (unread, read) = (
        world.spawn_load(range.start),
        world.spawn_store(page(range, 1), 3),
    );
    until_it_waits(unread.task());
    until_it_waits(read.task());
    assert!(uffd.try_read_event().is_ok());
    uffd.unregister(range).expect("ours");
    assert_eq!(returned(unread), Ok(0));
    assert_eq!(returned(read), Ok(()));
    assert_eq!(
        uffd.try_read_event(),
        Err(ReadError::WouldBlock),
        "unread messages are gone"
    );
}

#[test]
fn unregistering_one_page_leaves_waiters_of_the_next_asleep() {
    let world = World::new();
    let range = world.map(2, RW);
    let uffd = uffd(&world);
    uffd.register(range, Modes::MISSING)
        .expect("anonymous memory can");
    let (first, second) = (world.stuck_at(range.start), world.stuck_at(page(range, 1)));
    uffd.unregister(part(range, 0, 1)).expect("ours");
    assert_eq!((was_woken(&first), was_woken(&second)), (true, false));
    assert_eq!(uffd.zeropage(part(range, 1, 1), FillMode::empty()), Outcome::Done);
    assert!(was_woken(&second));
}

#[test]
fn the_memory_of_a_closed_context_can_be_registered_by_another() {
    let world = World::new();
    let range = world.map(1, RW);
    let (first, second) = (uffd(&world), uffd(&world));
    first
        .register(range, Modes::MISSING)
        .expect("anonymous memory can");
    assert_eq!(second.register(range, Modes::MISSING), Err(RegisterError::Busy));
    drop(first);
    assert!(second.register(range, Modes::MISSING).is_ok());
}

#[test]
fn unmapping_ends_a_registration_and_new_memory_there_is_plain() {
    let world = World::new();
    let range = world.map(1, RW);
    let uffd = uffd(&world);
    uffd.register(range, Modes::MISSING)
        .expect("anonymous memory can");
    world.space.unmap(range).expect("mapped");
    assert_eq!(
        uffd.zeropage(range, FillMode::empty()),
        Outcome::Refused(Refusal::NotRegistered)
    );
    world.map_at(Some(range.start), 1, RW);
    world.run(|| assert_eq!(uaccess::load(range.start), Ok(0)));
    assert_eq!(uffd.try_read_event(), Err(ReadError::WouldBlock));
}

#[test]
fn protecting_memory_keeps_its_registration() {
    let world = World::new();
    let range = world.map(3, RW);
    let uffd = uffd(&world);
    uffd.register(range, Modes::MISSING)
        .expect("anonymous memory can");
    world
        .space
        .protect(part(range, 1, 1), Prot::READ)
        .expect("mapped");
    assert!((0..3).all(|i| world.modes_at(page(range, i)) == Some(Modes::MISSING)));
}

#[test]
fn discarding_pages_arms_their_missing_faults_again() {
    let world = World::new();
    let range = world.map(1, RW);
    let uffd = uffd(&world);
    uffd.register(range, Modes::MISSING)
        .expect("anonymous memory can");
    assert_eq!(
        uffd.copy(range.start, &[7; 4096], PAGE_SIZE, FillMode::empty()),
        Outcome::Done
    );
    world.space.discard(range).expect("mapped");
    let task = world.spawn_load(range.start);
    until_it_waits(task.task());
    assert!(matches!(uffd.try_read_event(), Ok(Event::Pagefault { addr, .. }) if addr == range.start));
    assert_eq!(uffd.zeropage(range, FillMode::empty()), Outcome::Done);
    assert_eq!(returned(task), Ok(0));
}

#[test]
fn a_registration_keeps_its_context_alive_but_not_open() {
    let world = World::new();
    let range = world.map(1, RW);
    let uffd = uffd(&world);
    uffd.register(range, Modes::MISSING)
        .expect("anonymous memory can");
    let ctx = Arc::clone(uffd.ctx());
    drop(uffd);
    assert_eq!(world.modes_at(range.start), None);
    assert_eq!(Arc::strong_count(&ctx), 1, "no area refers to it any more");
    assert!(core::ptr::eq(
        world.space.query(range.start).expect("still mapped").ty,
        &raw const ANON
    ));
}
