//! What tasks say about areas: locking, leaving out of forks; and rights that an object does not allow.

mod common;

use common::{RW, World, anon_frames, bad_ranges, object_world, page, part};
use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::cache::Object;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::pt::Prot;
use kernel::mm::range::VirtRange;
use kernel::mm::space::{AdviseError, LockError, MapError, MapRequest, Memory, ProtectError};
use kernel::mm::vma::{Sharing, Vma, VmaFlags};

const P: u64 = PAGE_SIZE;

fn flags(world: &World, range: VirtRange) -> Vec<Option<VmaFlags>> {
    let at = |i| {
        world
            .space
            .query(page(range, i))
            .map(|vma| vma.flags - VmaFlags::ACCOUNTED)
    };
    (0..range.pages()).map(at).collect()
}

const PLAIN: Option<VmaFlags> = Some(VmaFlags::empty());
const LOCKED: Option<VmaFlags> = Some(VmaFlags::LOCKED);
const LEFT_OUT: Option<VmaFlags> = Some(VmaFlags::DONT_FORK);

#[test]
fn part_of_an_area_is_locked_and_unlocking_makes_it_one_again() {
    let world = World::new();
    let range = world.map(4, RW);
    assert_eq!(world.space.lock(part(range, 1, 2)), Ok(()));
    assert_eq!(flags(&world, range), [PLAIN, LOCKED, LOCKED, PLAIN]);
    assert_eq!(world.space.unlock(range), Ok(()));
    assert_eq!(
        (flags(&world, range), world.space.areas().len()),
        (vec![PLAIN; 4], 1)
    );
}

#[test]
fn locked_memory_that_may_be_written_at_last_gets_its_pages() {
    let world = World::new();
    let range = world.map(3, Prot::READ);
    world.space.lock(part(range, 0, 1)).expect("mapped");
    world
        .space
        .set_lock(part(range, 1, 1), VmaFlags::LOCKED | VmaFlags::LOCKED_ON_FAULT)
        .expect("mapped");
    let before = anon_frames();
    world.run(|| world.space.protect_each(range, RW)).expect("mapped");
    assert_eq!(
        anon_frames(),
        before + 1,
        "only the first is to have all pages at once"
    );
    world.run(|| world.space.protect_each(range, RW)).expect("mapped");
    assert_eq!(anon_frames(), before + 1);
}

#[test]
fn locking_stops_at_a_hole() {
    let world = World::new();
    let range = world.map(5, RW);
    world.space.unmap(part(range, 2, 1)).expect("mapped");
    assert_eq!(world.space.lock(range), Err(LockError::NotMapped));
    assert_eq!(flags(&world, range), [LOCKED, LOCKED, None, PLAIN, PLAIN]);
}

#[test]
fn leaving_out_of_forks_goes_on_behind_a_hole_and_reports_it() {
    let world = World::new();
    let range = world.map(5, RW);
    world.space.unmap(part(range, 2, 1)).expect("mapped");
    let left_out = world.space.set_left_out_of_forks(range, true);
    assert_eq!(left_out, Err(AdviseError::NotMapped));
    assert_eq!(
        flags(&world, range),
        [LEFT_OUT, LEFT_OUT, None, LEFT_OUT, LEFT_OUT]
    );
    assert_eq!(
        world.space.set_left_out_of_forks(part(range, 0, 2), false),
        Ok(())
    );
    assert_eq!(flags(&world, range), [PLAIN, PLAIN, None, LEFT_OUT, LEFT_OUT]);
}

#[test]
fn ranges_that_nobody_may_name_are_refused() {
    let world = World::new();
    let range = world.map(2, RW);
    for bad in bad_ranges(range) {
        assert_eq!(world.space.lock(bad), Err(LockError::BadRange));
        assert_eq!(
            world.space.set_left_out_of_forks(bad, true),
            Err(AdviseError::BadRange)
        );
    }
}

#[test]
fn a_shared_mapping_of_an_object_that_may_only_be_read_is_never_writable() {
    let world = object_world();
    let object = Object::new(&SHMEM, 2 * P);
    let map = |prot, sharing| {
        world.space.map(MapRequest {
            at: None,
            len: 2 * P,
            prot,
            memory: Memory::Object {
                object: object.clone(),
                offset: 0,
                sharing,
                read_only: true,
            },
        })
    };
    assert_eq!(map(RW, Sharing::Shared), Err(MapError::ReadOnly));
    let range = map(Prot::READ, Sharing::Shared).expect("only read");
    assert_eq!(world.space.protect(range, RW), Err(ProtectError::ReadOnly));
    assert_eq!(world.space.protect(range, Prot::empty()), Ok(()));
    let private = map(Prot::READ, Sharing::Private).expect("copied before it is written");
    assert_eq!(world.space.protect(private, RW), Ok(()));
    assert_eq!(world.store(private.start, 5), Ok(()));
    assert_eq!(world.space.protect(range, Prot::READ), Ok(()));
    assert_eq!(world.load(range.start), Ok(0));
}

#[test]
fn what_is_noted_with_areas_stops_at_the_first_that_is_unfit_and_passes_over_holes() {
    let world = World::new();
    let range = world.map(6, RW);
    world.space.unmap(part(range, 1, 1)).expect("mapped");
    world
        .space
        .protect(part(range, 4, 2), Prot::READ)
        .expect("mapped");
    let note = |fit: fn(&Vma) -> bool| {
        world
            .space
            .advise(range, VmaFlags::DONT_DUMP, VmaFlags::empty(), fit)
    };
    assert_eq!(
        note(|vma| vma.prot.contains(Prot::WRITE)),
        Err(AdviseError::Unfit)
    );
    const NOTED: Option<VmaFlags> = Some(VmaFlags::DONT_DUMP);
    assert_eq!(flags(&world, range), [NOTED, None, NOTED, NOTED, PLAIN, PLAIN]);
    assert_eq!(note(|_| true), Err(AdviseError::NotMapped));
    assert_eq!(flags(&world, range)[5], NOTED);
    assert_eq!(world.space.check_each(part(range, 2, 4), |_| true), Ok(()));
}

#[test]
fn rights_change_area_by_area_until_one_cannot_have_them() {
    let world = World::new();
    let range = world.map(4, RW);
    world.space.unmap(part(range, 2, 1)).expect("mapped");
    assert_eq!(
        world.space.protect_each(range, Prot::READ),
        Err(ProtectError::NotMapped)
    );
    let prot = |i| world.space.query(page(range, i)).map(|vma| vma.prot);
    assert_eq!(
        [prot(0), prot(1), prot(2), prot(3)],
        [Some(Prot::READ), Some(Prot::READ), None, Some(RW)]
    );
}
