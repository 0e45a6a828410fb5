//! COPY, ZEROPAGE, CONTINUE, POISON and WRITEPROTECT on mappings of memory objects, row by row as Linux has them (checked
//! there on 6.18). Each test is named after what it claims.

mod common;

use std::sync::Arc;

use common::kinds::map;
use common::{RW, World, answer, object_world, page, part, was_woken, word};
use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::cache::{Lookup, Object};
use kernel::mm::fault::FaultError;
use kernel::mm::frame::allocator;
use kernel::mm::memtype::guest_memfd::{GUEST_MEMFD, GUEST_MEMFD_WRITTEN};
use kernel::mm::memtype::hugetlb::HUGETLB;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::memtype::zero::ZERO;
use kernel::mm::memtype::{Granule, MemType};
use kernel::mm::pt::{AttrFlags, Entry, Marker, Prot};
use kernel::mm::range::VirtRange;
use kernel::mm::space::Memory;
use kernel::mm::uaccess;
use kernel::uffd::{Features, FillMode, Modes, Outcome, Refusal, Uffd, WriteProtectError, linux};

const P: u64 = PAGE_SIZE;
const H: u64 = Granule::Huge.size();
const NOW: FillMode = FillMode::empty();

/// An object of so many granules, mapped in one way and registered. The machine, which counts frames, is dropped last.
struct Bed {
    object: Arc<Object>,
    range: VirtRange,
    uffd: Uffd,
    world: World,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum How {
    Shared,
    Private,
}
use How::{Private, Shared};

/// Whatever is not only a guest's, mapped in every way.
const EVERYWHERE: [(&MemType, How); 4] = [
    (&SHMEM, Shared),
    (&SHMEM, Private),
    (&HUGETLB, Shared),
    (&HUGETLB, Private),
];

impl Bed {
    fn new(ty: &'static MemType, how: How, granules: u64, modes: Modes) -> Self {
        Self::sized(ty, how, granules, granules, modes)
    }

    /// The object has other granules than the mapping.
    fn sized(ty: &'static MemType, how: How, in_object: u64, mapped: u64, modes: Modes) -> Self {
        let world = object_world();
        let granule = ty.granule().size();
        let object = Object::new(ty, in_object * granule);
        let memory = match how {
            Shared => Memory::shared(&object),
            Private => Memory::private(&object),
        };
        let range = map(&world, memory, None, mapped * granule);
        let uffd = Uffd::new(&world.space, Features::empty());
        uffd.register(range, modes).expect("the type can");
        Self {
            object,
            range,
            uffd,
            world,
        }
    }

    /// Another, shared mapping of the object.
    fn alias(&self) -> VirtRange {
        map(&self.world, Memory::shared(&self.object), None, self.range.len())
    }

    fn granule(&self) -> u64 {
        self.object.ty().granule().size()
    }

    /// Has a page with this word put into the cache at granule `index`, mapped nowhere.
    fn cache(&self, index: u64, value: u64) {
        let alias = self.alias();
        let at = alias.start + index * self.granule();
        self.world
            .run(|| uaccess::store(at, value))
            .expect("nothing traps it");
        self.world.space.unmap(alias).expect("it is mapped");
    }

    fn is_cached(&self, index: u64) -> bool {
        matches!(self.object.lookup(index * self.granule()), Lookup::Present(_))
    }

    fn copy(&self, byte: u8, mode: FillMode) -> Outcome {
        let bytes = vec![byte; self.range.len() as usize];
        self.uffd.copy(self.range.start, &bytes, self.range.len(), mode)
    }

    /// A store to the first granule stops, and whoever made it is woken when the protection is removed.
    #[track_caller]
    fn assert_unprotecting_wakes_a_writer(&self) {
        let writer = self.world.stuck_storing_at(self.range.start);
        assert_eq!(self.uffd.remove_write_protection(self.range, NOW), Ok(()));
        assert!(was_woken(&writer));
    }

    fn load(&self, granule: u64) -> Result<u64, FaultError> {
        self.world.load(self.range.start + granule * self.granule())
    }

    fn store(&self, granule: u64, value: u64) -> Result<(), FaultError> {
        self.world
            .store(self.range.start + granule * self.granule(), value)
    }
}

#[test]
fn copy_into_a_shared_mapping_fills_the_object() {
    for ty in [&SHMEM, &HUGETLB, &GUEST_MEMFD] {
        let bed = Bed::new(ty, Shared, 2, Modes::MISSING);
        assert_eq!(bed.copy(6, NOW), Outcome::Done);
        assert!(bed.is_cached(0) && bed.is_cached(1));
        let alias = bed.alias();
        assert_eq!(bed.world.load(alias.start + bed.granule()), Ok(word(6)));
        // One page, mapped twice.
        assert_eq!(bed.store(1, 99), Ok(()));
        assert_eq!(bed.world.load(alias.start + bed.granule()), Ok(99));
    }
}

#[test]
fn copy_over_a_page_of_the_objects_cache_is_eexist_even_if_it_is_not_mapped() {
    for ty in [&SHMEM, &HUGETLB, &GUEST_MEMFD] {
        let bed = Bed::new(ty, Shared, 1, Modes::MISSING | Modes::MINOR);
        bed.cache(0, 4);
        let waiter = bed.world.stuck_at(bed.range.start);
        let outcome = bed.copy(6, NOW);
        assert_eq!(
            (outcome, answer(outcome, bed.range.len())),
            (Outcome::Refused(Refusal::Exists), (Some(17), Some(-17)))
        );
        assert!(!was_woken(&waiter), "nothing is woken where nothing was done");
        assert_eq!(bed.uffd.wake(bed.range), Ok(()));
        assert!(was_woken(&waiter));
    }
}

#[test]
fn copy_into_a_private_mapping_makes_a_private_page_whatever_the_cache_has() {
    for ty in [&SHMEM, &HUGETLB] {
        for cached in [false, true] {
            let bed = Bed::new(ty, Private, 1, Modes::MISSING);
            if cached {
                bed.cache(0, 4);
            }
            assert_eq!(bed.copy(6, NOW), Outcome::Done);
            assert_eq!(bed.is_cached(0), cached, "the object stays as it was");
            assert_eq!(bed.load(0), Ok(word(6)));
            assert_eq!(bed.store(0, 5), Ok(()));
            let alias = bed.alias();
            assert_eq!(bed.world.load(alias.start), Ok(if cached { 4 } else { 0 }));
        }
    }
}

#[test]
fn copy_over_a_mapped_page_is_eexist_on_every_type() {
    for (ty, how) in [
        (&SHMEM, Shared),
        (&SHMEM, Private),
        (&HUGETLB, Shared),
        (&HUGETLB, Private),
        (&GUEST_MEMFD, Shared),
    ] {
        let bed = Bed::new(ty, how, 1, Modes::MISSING);
        assert_eq!(bed.copy(1, NOW), Outcome::Done);
        assert_eq!(
            bed.copy(2, NOW),
            Outcome::Refused(Refusal::Exists),
            "{ty:?} {how:?}"
        );
        assert_eq!(bed.load(0), Ok(word(1)));
    }
}

#[test]
fn copy_over_a_marker_replaces_it_by_a_clean_page() {
    for (ty, how) in EVERYWHERE {
        for poison in [false, true] {
            let bed = Bed::new(ty, how, 1, Modes::MISSING | Modes::WP);
            if poison {
                assert_eq!(bed.uffd.poison(bed.range, NOW), Outcome::Done);
            } else {
                assert_eq!(bed.uffd.write_protect(bed.range), Ok(()));
            }
            assert_eq!(bed.copy(3, NOW), Outcome::Done);
            assert_eq!(bed.store(0, 8), Ok(()), "not protected any more");
        }
    }
}

#[test]
fn copy_with_wp_installs_the_page_protected() {
    for (ty, how) in EVERYWHERE {
        let bed = Bed::new(ty, how, 1, Modes::MISSING | Modes::WP);
        assert_eq!(bed.copy(3, FillMode::WP), Outcome::Done);
        assert_eq!(bed.load(0), Ok(word(3)));
        bed.assert_unprotecting_wakes_a_writer();
        assert_eq!(bed.store(0, 8), Ok(()));
    }
}

#[test]
fn copy_with_wp_where_the_area_has_no_wp_is_einval() {
    let bed = Bed::new(&SHMEM, Shared, 1, Modes::MISSING);
    let outcome = bed.copy(3, FillMode::WP);
    assert_eq!(
        (outcome, answer(outcome, P)),
        (Outcome::Refused(Refusal::NoWriteProtect), (Some(22), Some(-22)))
    );
}

#[test]
fn huge_ranges_that_are_not_huge_aligned_are_einval() {
    let bed = Bed::new(&HUGETLB, Shared, 2, Modes::MISSING | Modes::MINOR | Modes::WP);
    let bytes = vec![1; 2 * H as usize];
    let (start, cut) = (bed.range.start, bed.range.start + P);
    for outcome in [
        bed.uffd.copy(start, &bytes, P, NOW),
        bed.uffd.copy(cut, &bytes, H, NOW),
        bed.uffd.cont(VirtRange::new(start, cut), NOW),
        bed.uffd.poison(VirtRange::new(start, cut), NOW),
    ] {
        assert_eq!(
            (outcome, answer(outcome, P)),
            (Outcome::Refused(Refusal::Unsupported), (Some(22), Some(-22)))
        );
    }
    let protect = bed.uffd.write_protect(VirtRange::new(cut, bed.range.end));
    assert_eq!(protect, Err(WriteProtectError::Misaligned));
    assert_eq!(linux::write_protect(WriteProtectError::Misaligned).number(), 22);
}

#[test]
fn copy_past_the_end_of_the_object_is_efault_on_the_first_page_and_partial_on_a_later_one() {
    for how in [Shared, Private] {
        let bed = Bed::sized(&SHMEM, how, 2, 4, Modes::MISSING);
        let bytes = vec![7; 4 * P as usize];
        let outcome = bed.uffd.copy(page(bed.range, 2), &bytes, P, NOW);
        assert_eq!(
            (outcome, answer(outcome, P)),
            (Outcome::Refused(Refusal::BeyondEnd), (Some(14), Some(-14)))
        );
        let outcome = bed.uffd.copy(bed.range.start, &bytes, 4 * P, NOW);
        let partial = Outcome::Partial {
            bytes: 2 * P,
            why: Refusal::BeyondEnd,
        };
        assert_eq!(
            (outcome, answer(outcome, 4 * P)),
            (partial, (Some(11), Some(2 * P as i64)))
        );
    }
}

#[test]
fn copy_from_an_empty_pool_is_eexist_although_nothing_is_there() {
    let bed = Bed::new(&HUGETLB, Shared, 6, Modes::MISSING);
    let bytes = vec![7; 6 * H as usize];
    let outcome = bed.uffd.copy(bed.range.start, &bytes, 6 * H, NOW);
    let partial = Outcome::Partial {
        bytes: 4 * H,
        why: Refusal::PoolEmpty,
    };
    assert_eq!(outcome, partial);
    let outcome = bed.uffd.copy(bed.range.start + 4 * H, &bytes, H, NOW);
    assert_eq!(
        (outcome, answer(outcome, H)),
        (Outcome::Refused(Refusal::PoolEmpty), (Some(17), Some(-17)))
    );
    let touch = bed.world.run(|| uaccess::load(bed.range.start));
    assert_eq!(touch, Ok(word(7)));
}

#[test]
fn copy_over_a_huge_page_is_refused_before_the_pool_and_the_source_are_looked_at() {
    let bed = Bed::new(&HUGETLB, Shared, 6, Modes::MISSING);
    let bytes = vec![7; 4 * H as usize];
    let exists = Outcome::Refused(Refusal::Exists);
    assert_eq!(
        bed.uffd.copy(bed.range.start, &bytes[..H as usize], H, NOW),
        Outcome::Done
    );
    assert_eq!(bed.uffd.copy(bed.range.start, &[], H, NOW), exists, "no source");
    let rest = bed.uffd.copy(bed.range.start + H, &bytes, 3 * H, NOW);
    assert_eq!(rest, Outcome::Done, "the pool is empty from now on");
    assert_eq!(bed.uffd.copy(bed.range.start, &bytes, H, NOW), exists);
    // The object has the page, the mapping does not.
    bed.world
        .space
        .discard(part(bed.range, 0, H / P))
        .expect("it is mapped");
    assert_eq!(bed.uffd.copy(bed.range.start, &[], H, NOW), exists);
    let nothing = bed.uffd.copy(bed.range.start + 4 * H, &[], H, NOW);
    assert_eq!(nothing, Outcome::Refused(Refusal::PoolEmpty));
}

#[test]
fn a_touch_with_an_empty_pool_is_a_bus_error() {
    let world = object_world();
    let object = Object::new(&HUGETLB, 5 * H);
    let range = map(&world, Memory::shared(&object), None, 5 * H);
    for granule in 0..4 {
        assert_eq!(world.store(range.start + granule * H, 1), Ok(()));
    }
    assert_eq!(world.store(range.start + 4 * H, 1), Err(FaultError::PoolEmpty));
    // What is unmapped and let go of goes back to the pool.
    world.space.unmap(range).expect("it is mapped");
    drop(object);
    let object = Object::new(&HUGETLB, H);
    let range = map(&world, Memory::shared(&object), None, H);
    assert_eq!(world.store(range.start, 1), Ok(()));
    drop((object, world));
}

#[test]
fn zeropage_allocates_in_a_shared_object_and_maps_the_shared_zeros_in_a_private_mapping() {
    let bed = Bed::new(&SHMEM, Shared, 2, Modes::MISSING);
    assert_eq!(bed.uffd.zeropage(bed.range, NOW), Outcome::Done);
    assert!(bed.is_cached(0) && bed.is_cached(1));
    assert_eq!(
        (bed.load(0), bed.store(0, 3), bed.load(0)),
        (Ok(0), Ok(()), Ok(3))
    );
    drop(bed);
    let bed = Bed::new(&SHMEM, Private, 2, Modes::MISSING);
    let before = allocator().stats().free;
    assert_eq!(bed.uffd.zeropage(bed.range, NOW), Outcome::Done);
    assert!(!bed.is_cached(0), "the object stays a hole");
    assert!(before - allocator().stats().free <= 4, "tables, no pages");
    assert_eq!(
        (bed.load(1), bed.store(1, 3), bed.load(1)),
        (Ok(0), Ok(()), Ok(3))
    );
}

#[test]
fn zeropage_on_huge_pages_is_einval_always() {
    for how in [Shared, Private] {
        let bed = Bed::new(&HUGETLB, how, 1, Modes::MISSING);
        let outcome = bed.uffd.zeropage(bed.range, NOW);
        assert_eq!(
            (outcome, answer(outcome, H)),
            (Outcome::Refused(Refusal::Unsupported), (Some(22), Some(-22)))
        );
    }
}

#[test]
fn zeropage_over_a_wp_marker_is_eexist_in_a_private_mapping_and_done_in_a_shared_one() {
    for (how, expected) in [
        (Private, Outcome::Refused(Refusal::Exists)),
        (Shared, Outcome::Done),
    ] {
        let bed = Bed::new(&SHMEM, how, 1, Modes::MISSING | Modes::WP);
        assert_eq!(bed.uffd.write_protect(bed.range), Ok(()));
        assert_eq!(bed.uffd.zeropage(bed.range, NOW), expected);
    }
}

#[test]
fn zeropage_over_a_poison_marker_of_a_private_mapping_is_eexist() {
    let bed = Bed::new(&SHMEM, Private, 1, Modes::MISSING);
    assert_eq!(bed.uffd.poison(bed.range, NOW), Outcome::Done);
    assert_eq!(
        bed.uffd.zeropage(bed.range, NOW),
        Outcome::Refused(Refusal::Exists)
    );
}

#[test]
fn continue_maps_the_page_of_the_cache_and_wakes() {
    for (ty, how) in [
        (&SHMEM, Shared),
        (&SHMEM, Private),
        (&HUGETLB, Shared),
        (&HUGETLB, Private),
        (&GUEST_MEMFD, Shared),
        (&GUEST_MEMFD_WRITTEN, Shared),
    ] {
        let bed = Bed::new(ty, how, 1, Modes::MINOR);
        bed.cache(0, 21);
        let waiter = bed.world.stuck_at(bed.range.start);
        let outcome = bed.uffd.cont(bed.range, NOW);
        let len = bed.range.len();
        assert_eq!(
            (outcome, answer(outcome, len)),
            (Outcome::Done, (None, Some(len as i64)))
        );
        assert!(was_woken(&waiter));
        assert_eq!(bed.load(0), Ok(21));
    }
}

#[test]
fn continue_without_a_page_in_the_cache_is_efault_and_partial_on_a_later_one() {
    for (ty, how) in [
        (&SHMEM, Shared),
        (&SHMEM, Private),
        (&HUGETLB, Shared),
        (&GUEST_MEMFD, Shared),
    ] {
        let bed = Bed::new(ty, how, 2, Modes::MINOR);
        let outcome = bed.uffd.cont(bed.range, NOW);
        assert_eq!(
            (outcome, answer(outcome, P)),
            (Outcome::Refused(Refusal::NoPage), (Some(14), Some(-14)))
        );
        bed.cache(0, 1);
        let outcome = bed.uffd.cont(bed.range, NOW);
        let partial = Outcome::Partial {
            bytes: bed.granule(),
            why: Refusal::NoPage,
        };
        assert_eq!(outcome, partial);
    }
}

#[test]
fn continue_of_what_is_mapped_already_is_eexist() {
    for how in [Shared, Private] {
        let bed = Bed::new(&SHMEM, how, 1, Modes::MINOR);
        bed.cache(0, 1);
        assert_eq!(bed.uffd.cont(bed.range, NOW), Outcome::Done);
        assert_eq!(bed.uffd.cont(bed.range, NOW), Outcome::Refused(Refusal::Exists));
    }
}

#[test]
fn continue_works_on_a_range_that_is_registered_for_missing_only() {
    let bed = Bed::new(&SHMEM, Shared, 1, Modes::MISSING);
    bed.cache(0, 5);
    assert_eq!(bed.uffd.cont(bed.range, NOW), Outcome::Done);
    assert_eq!(bed.load(0), Ok(5));
}

#[test]
fn continue_goes_over_a_poison_marker() {
    let bed = Bed::new(&SHMEM, Shared, 1, Modes::MINOR);
    bed.cache(0, 5);
    assert_eq!(bed.uffd.poison(bed.range, NOW), Outcome::Done);
    assert_eq!(bed.load(0), Err(FaultError::Poisoned));
    assert_eq!(bed.uffd.cont(bed.range, NOW), Outcome::Done);
    assert_eq!(bed.load(0), Ok(5));
}

#[test]
fn continue_past_the_end_of_the_object_is_refused_by_name() {
    let bed = Bed::sized(&SHMEM, Shared, 1, 2, Modes::MINOR);
    let beyond = part(bed.range, 1, 1);
    assert_eq!(bed.uffd.cont(beyond, NOW), Outcome::Refused(Refusal::BeyondEnd));
}

#[test]
fn continue_with_wp_maps_the_page_protected() {
    for (ty, how) in EVERYWHERE {
        let bed = Bed::new(ty, how, 1, Modes::MINOR | Modes::WP);
        bed.cache(0, 5);
        assert_eq!(bed.uffd.cont(bed.range, FillMode::WP), Outcome::Done);
        assert_eq!(bed.load(0), Ok(5));
        bed.assert_unprotecting_wakes_a_writer();
        assert_eq!(bed.store(0, 6), Ok(()));
        let alias = bed.alias();
        let seen = if how == Shared { 6 } else { 5 };
        assert_eq!(bed.world.load(alias.start), Ok(seen));
    }
}

#[test]
fn continue_on_memory_without_a_cache_is_einval() {
    let world = object_world();
    let range = world.map(1, RW);
    let uffd = Uffd::new(&world.space, Features::empty());
    uffd.register(range, Modes::MISSING).expect("it can");
    let outcome = uffd.cont(range, NOW);
    assert_eq!(
        (outcome, answer(outcome, P)),
        (Outcome::Refused(Refusal::Unsupported), (Some(22), Some(-22)))
    );
}

#[test]
fn poison_hides_a_page_of_the_cache_in_this_mapping_only() {
    for (ty, how) in [(&SHMEM, Shared), (&SHMEM, Private), (&HUGETLB, Shared)] {
        let bed = Bed::new(ty, how, 1, Modes::MISSING);
        bed.cache(0, 5);
        assert_eq!(bed.uffd.poison(bed.range, NOW), Outcome::Done);
        assert_eq!(bed.load(0), Err(FaultError::Poisoned));
        let alias = bed.alias();
        assert_eq!(bed.world.load(alias.start), Ok(5));
    }
}

#[test]
fn poison_past_the_end_of_the_object_is_efault() {
    let bed = Bed::sized(&SHMEM, Shared, 1, 2, Modes::MISSING);
    let outcome = bed.uffd.poison(part(bed.range, 1, 1), NOW);
    assert_eq!(
        (outcome, answer(outcome, P)),
        (Outcome::Refused(Refusal::BeyondEnd), (Some(14), Some(-14)))
    );
}

#[test]
fn past_the_end_of_the_object_it_does_not_matter_what_the_entry_says() {
    for how in [Shared, Private] {
        let bed = Bed::sized(&SHMEM, how, 1, 2, Modes::MISSING | Modes::WP);
        let one = part(bed.range, 1, 1);
        assert_eq!(bed.uffd.write_protect(one), Ok(()));
        let past = Outcome::Refused(Refusal::BeyondEnd);
        assert_eq!(bed.uffd.poison(one, NOW), past);
        assert_eq!(bed.uffd.zeropage(one, NOW), past);
        assert_eq!(bed.uffd.copy(one.start, &[7; P as usize], P, NOW), past);
    }
}

#[test]
fn continue_past_the_end_of_huge_pages_finds_no_page() {
    let bed = Bed::sized(&HUGETLB, Shared, 1, 2, Modes::MINOR);
    let outcome = bed
        .uffd
        .cont(VirtRange::new(bed.range.start + H, bed.range.end), NOW);
    assert_eq!(outcome, Outcome::Refused(Refusal::NoPage));
}

#[test]
fn huge_pages_that_need_nothing_of_the_object_are_put_past_its_end() {
    let bed = Bed::sized(&HUGETLB, Shared, 1, 2, Modes::MISSING);
    assert_eq!(
        bed.uffd
            .poison(VirtRange::new(bed.range.start + H, bed.range.end), NOW),
        Outcome::Done
    );
    let outcome = bed.uffd.copy(bed.range.start + H, &vec![7; H as usize], H, NOW);
    assert_eq!(outcome, Outcome::Refused(Refusal::BeyondEnd));
    let bed = Bed::sized(&HUGETLB, Private, 1, 2, Modes::MISSING);
    let outcome = bed.uffd.copy(bed.range.start + H, &vec![7; H as usize], H, NOW);
    assert_eq!(outcome, Outcome::Done);
}

#[test]
fn fills_of_a_private_mapping_of_dev_zero_are_past_its_end_even_over_a_page() {
    let world = object_world();
    let range = world.map_type(&ZERO, None, 2, RW);
    assert_eq!(world.store(page(range, 1), 5), Ok(()));
    let uffd = Uffd::new(&world.space, Features::empty());
    assert!(uffd.register(range, Modes::MISSING | Modes::WP).is_ok());
    let past = Outcome::Refused(Refusal::BeyondEnd);
    for index in 0..2 {
        let one = part(range, index, 1);
        assert_eq!(uffd.copy(one.start, &[7; P as usize], P, NOW), past);
        assert_eq!(uffd.zeropage(one, NOW), past);
        assert_eq!(uffd.poison(one, NOW), past);
        assert_eq!(uffd.cont(one, NOW), Outcome::Refused(Refusal::Unsupported));
    }
    assert_eq!(uffd.write_protect(range), Ok(()));
    assert_eq!(uffd.unregister(range), Ok(()));
    assert_eq!(world.load(range.start), Ok(0));
    assert_eq!(world.load(page(range, 1)), Ok(5));
}

#[test]
fn protecting_empty_entries_of_an_object_leaves_markers_without_being_asked() {
    for (ty, how) in EVERYWHERE {
        let bed = Bed::new(ty, how, 2, Modes::WP);
        assert_eq!(bed.uffd.write_protect(bed.range), Ok(()));
        for granule in 0..2 {
            let entry = bed.world.space.entry(bed.range.start + granule * bed.granule());
            assert_eq!(entry.0, Entry::Absent(Marker::UffdWp), "{ty:?} {how:?}");
        }
        bed.assert_unprotecting_wakes_a_writer();
        assert_eq!(bed.store(0, 1), Ok(()));
    }
}

#[test]
fn the_protection_of_an_objects_page_survives_a_change_of_rights() {
    for (ty, how) in [(&SHMEM, Shared), (&SHMEM, Private), (&HUGETLB, Shared)] {
        let bed = Bed::new(ty, how, 1, Modes::WP);
        assert_eq!(bed.store(0, 1), Ok(()));
        assert_eq!(bed.uffd.write_protect(bed.range), Ok(()));
        assert_eq!(bed.world.space.protect(bed.range, Prot::READ), Ok(()));
        assert_eq!(bed.world.space.protect(bed.range, RW), Ok(()));
        let Entry::Leaf(leaf) = bed.world.space.entry(bed.range.start).0 else {
            panic!("still mapped");
        };
        assert!(leaf.attr.flags.contains(AttrFlags::UFFD_WP));
        let writer = bed.world.stuck_storing_at(bed.range.start);
        assert_eq!(bed.uffd.wake(bed.range), Ok(()));
        assert!(was_woken(&writer));
    }
}

#[test]
fn copy_out_of_task_memory_reads_from_any_byte_and_refuses_what_cannot_be_read() {
    let world = object_world();
    let range = world.map(4, RW);
    let whole = world.map(5, RW);
    // The last page of the source is followed by nothing.
    world.space.unmap(part(whole, 3, 2)).expect("it is mapped");
    let source = part(whole, 0, 3);
    let uffd = Arc::new(Uffd::new(&world.space, Features::empty()));
    uffd.register(range, Modes::MISSING).expect("it can");
    let copier = Arc::clone(&uffd);
    let handle = world.spawn("copier", move || {
        let bytes: Vec<u8> = (0..3 * P).map(|i| (i / 8) as u8).collect();
        uaccess::write(source.start, &bytes).expect("plain memory");
        let whole = copier.copy_from_task(range.start, source.start + 8, 2 * P, NOW);
        let cut = copier.copy_from_task(page(range, 2), page(source, 2) + 8, P, NOW);
        let nowhere = copier.copy_from_task(page(range, 2), source.end + P, P, NOW);
        (whole, cut, nowhere, uaccess::load(range.start))
    });
    let (whole, cut, nowhere, first) = common::returned(handle);
    assert_eq!(whole, Outcome::Done);
    assert_eq!(cut, Outcome::Refused(Refusal::BadSource));
    assert_eq!(nowhere, Outcome::Refused(Refusal::BadSource));
    assert_eq!(first, Ok(word(1)));
    assert_eq!(answer(nowhere, P), (Some(14), Some(-14)));
}

#[test]
fn a_source_that_ends_on_the_way_leaves_the_pages_before() {
    let world = object_world();
    let range = world.map(40, RW);
    let source = world.map(40, RW);
    // Longer than a batch on either side of the hole.
    world.space.unmap(part(source, 19, 1)).expect("it is mapped");
    let uffd = Arc::new(Uffd::new(&world.space, Features::empty()));
    uffd.register(range, Modes::MISSING).expect("it can");
    let copier = Arc::clone(&uffd);
    let handle = world.spawn("copier", move || {
        for n in (0..40).filter(|n| *n != 19) {
            uaccess::store(page(source, n), n + 1).expect("plain memory");
        }
        let whole = copier.copy_from_task(range.start, source.start, 40 * P, NOW);
        let rest = copier.copy_from_task(page(range, 20), page(source, 20), 20 * P, NOW);
        (whole, rest, [18, 20, 39].map(|n| uaccess::load(page(range, n))))
    });
    let (whole, rest, seen) = common::returned(handle);
    let (bytes, why) = (19 * P, Refusal::BadSource);
    assert_eq!(whole, Outcome::Partial { bytes, why });
    assert_eq!(rest, Outcome::Done);
    assert_eq!(seen, [Ok(19), Ok(21), Ok(40)]);
}

#[test]
fn a_page_that_a_copy_fills_is_the_source_of_the_next() {
    let world = object_world();
    let (first, range) = {
        let whole = world.map(4, RW);
        (part(whole, 0, 1), part(whole, 1, 3))
    };
    let uffd = Arc::new(Uffd::new(&world.space, Features::empty()));
    uffd.register(range, Modes::MISSING).expect("it can");
    let copier = Arc::clone(&uffd);
    let handle = world.spawn("copier", move || {
        uaccess::store(first.start, 7).expect("plain memory");
        let copied = copier.copy_from_task(range.start, first.start, range.len(), NOW);
        (copied, uaccess::load(page(range, 2)))
    });
    assert_eq!(common::returned(handle), (Outcome::Done, Ok(7)));
}

#[test]
fn a_source_that_is_missing_itself_blocks_the_copier_until_it_is_filled() {
    let world = object_world();
    let (range, source) = (world.map(1, RW), world.map(1, RW));
    let dst = Arc::new(Uffd::new(&world.space, Features::empty()));
    dst.register(range, Modes::MISSING).expect("it can");
    let src = Uffd::new(&world.space, Features::empty());
    src.register(source, Modes::MISSING).expect("it can");
    let copier = Arc::clone(&dst);
    let handle = world.spawn("copier", move || {
        copier.copy_from_task(range.start, source.start, P, NOW)
    });
    common::until_it_waits(handle.task());
    assert_eq!(src.try_read_event(), common::missing(source.start, false));
    assert_eq!(
        src.copy(source.start, &common::source(9, 1), P, NOW),
        Outcome::Done
    );
    assert_eq!(common::returned(handle), Outcome::Done);
    assert_eq!(world.load(range.start), Ok(word(9)));
}
