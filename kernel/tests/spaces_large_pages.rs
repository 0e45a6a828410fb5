//! Areas in large pages begin and end between pages: what would cut one is refused, and nothing has changed then.

mod common;

use common::kinds::{Bed, Kind};
use common::{RW, object_world};
use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::frame::allocator;
use kernel::mm::memtype::Granule;
use kernel::mm::memtype::guest_memfd::{GUEST_MEMFD, GUEST_MEMFD_PRIVATE};
use kernel::mm::memtype::hugetlb::HUGETLB;
use kernel::mm::pt::{Level, Prot};
use kernel::mm::range::VirtRange;
use kernel::mm::space::{
    AdviseError, DiscardError, GuardError, MapError, MapRequest, Memory, ProtectError, UnmapError,
};
use kernel::mm::vma::VmaFlags;
use kernel::uffd::Features;

const P: u64 = PAGE_SIZE;

fn bed(kind: Kind) -> Bed {
    let bed = Bed::unregistered(kind, 3, Features::empty());
    (0..3).for_each(|i| bed.store(i, i + 1));
    bed
}

/// Ranges that cut a page at their start, at their end, and at both.
fn cutting(bed: &Bed) -> [VirtRange; 3] {
    [
        VirtRange::new(bed.at(1) + P, bed.range.end),
        VirtRange::new(bed.at(0), bed.at(1) + P),
        VirtRange::new(bed.at(1) + P, bed.at(1) + 3 * P),
    ]
}

#[track_caller]
fn assert_unchanged(bed: &Bed) {
    assert_eq!((0..3).map(|i| bed.load(i)).collect::<Vec<_>>(), [1, 2, 3]);
    let areas = bed.space().areas();
    let [area] = &areas[..] else {
        panic!("one area: {areas:?}");
    };
    assert_eq!(
        (area.range, area.prot, area.flags),
        (bed.range, RW, VmaFlags::NO_RESERVE)
    );
}

#[test]
fn large_pages_that_only_the_space_has_come_from_the_pool_and_are_copied_after_a_fork() {
    let world = object_world();
    let free = || allocator().huge_pages().free;
    let len = 2 * Granule::Huge.size();
    let range = world.map_memory(Memory::Own(&HUGETLB), None, len / PAGE_SIZE, RW);
    assert_eq!(world.load(range.start + 5 * P), Ok(0));
    assert_eq!(world.store(range.start + 5 * P, 7), Ok(()));
    let (entry, level) = world.space.entry(range.start);
    assert!(entry.is_leaf() && level == Level::MID, "{entry:?}");
    assert_eq!((world.load(range.start + 5 * P), free()), (Ok(7), 3));
    let child = world.run(|| world.space.fork()).expect("RAM is plenty");
    assert_eq!(world.store(range.start, 1), Ok(()));
    assert_eq!((world.load(range.start + 5 * P), free()), (Ok(7), 2));
    drop(child);
    assert_eq!(free(), 3);
    world.space.unmap(range).expect("mapped");
    assert_eq!(free(), 4);
}

#[test]
fn memory_that_cannot_be_private_cannot_be_the_spaces_own() {
    let world = object_world();
    for ty in [&GUEST_MEMFD, &GUEST_MEMFD_PRIVATE] {
        let request = MapRequest {
            at: None,
            len: P,
            prot: RW,
            memory: Memory::Own(ty),
        };
        assert_eq!(world.space.map(request), Err(MapError::NotPrivately));
    }
}

#[test]
fn unmapping_part_of_a_large_page_is_refused() {
    for kind in Kind::LARGE {
        let bed = bed(kind);
        for range in cutting(&bed) {
            assert_eq!(bed.space().unmap(range), Err(UnmapError::SplitsPage), "{range:?}");
        }
        assert_unchanged(&bed);
    }
}

#[test]
fn protecting_part_of_a_large_page_is_refused() {
    for kind in Kind::LARGE {
        let bed = bed(kind);
        for range in cutting(&bed) {
            let protected = bed.space().protect(range, Prot::READ);
            assert_eq!(protected, Err(ProtectError::SplitsPage), "{range:?}");
        }
        assert_unchanged(&bed);
    }
}

#[test]
fn leaving_part_of_a_large_page_out_of_forks_is_refused() {
    for kind in Kind::LARGE {
        let bed = bed(kind);
        for range in cutting(&bed) {
            let advised = bed.space().set_left_out_of_forks(range, true);
            assert_eq!(advised, Err(AdviseError::SplitsPage), "{range:?}");
        }
        assert_unchanged(&bed);
    }
}

#[test]
fn locking_passes_over_large_pages_whole_or_not() {
    for kind in Kind::LARGE {
        let bed = bed(kind);
        for range in cutting(&bed) {
            assert_eq!(bed.space().lock(range), Ok(()), "{range:?}");
        }
        assert_unchanged(&bed);
    }
}

#[test]
fn guards_are_not_for_large_pages() {
    for kind in Kind::LARGE {
        let bed = bed(kind);
        for range in [bed.one(1), VirtRange::page(bed.at(1))] {
            assert_eq!(bed.space().install_guards(range), Err(GuardError::LargePages));
            assert_eq!(bed.space().remove_guards(range), Err(GuardError::LargePages));
        }
        assert_unchanged(&bed);
    }
}

#[test]
fn discarding_leaves_a_large_page_alone_that_is_only_begun() {
    for kind in Kind::LARGE {
        let bed = bed(kind);
        assert_eq!(bed.space().discard(VirtRange::page(bed.at(1))), Ok(()));
        assert_unchanged(&bed);
        let private = kind == Kind::PrivateHuge;
        assert_eq!(
            bed.space().discard(VirtRange::new(bed.at(0), bed.at(1) + P)),
            Ok(())
        );
        assert_eq!(
            bed.load(0),
            if private { 0 } else { 1 },
            "the object has the shared one"
        );
        assert_eq!((bed.load(1), bed.load(2)), (2, 3));
    }
}

#[test]
fn discarding_from_inside_a_large_page_is_refused() {
    for kind in Kind::LARGE {
        let bed = bed(kind);
        let range = VirtRange::new(bed.at(0) + P, bed.range.end);
        assert_eq!(bed.space().discard(range), Err(DiscardError::InsidePage));
        assert_unchanged(&bed);
    }
}

#[test]
fn large_pages_cannot_be_let_go_of_lazily() {
    for kind in Kind::LARGE {
        let bed = bed(kind);
        assert_eq!(
            bed.space().discard_lazily(bed.range),
            Err(DiscardError::NotAnonymous)
        );
        assert_unchanged(&bed);
    }
}

#[test]
fn whole_large_pages_are_unmapped_and_protected_beside_others() {
    for kind in Kind::LARGE {
        let bed = bed(kind);
        assert_eq!(bed.space().protect(bed.one(2), Prot::READ), Ok(()));
        assert_eq!(bed.space().unmap(bed.one(1)), Ok(()));
        assert_eq!((bed.load(0), bed.load(2)), (1, 3));
        assert_eq!(bed.space().areas().len(), 2);
    }
}

#[test]
fn rights_that_an_area_has_already_do_not_split_a_page() {
    let bed = bed(Kind::Huge);
    let inside = VirtRange::new(bed.at(0) + P, bed.at(1) + P);
    assert_eq!(bed.space().protect_each(inside, RW), Ok(()));
    assert_eq!(
        bed.space().protect_each(inside, Prot::READ),
        Err(ProtectError::SplitsPage)
    );
}
