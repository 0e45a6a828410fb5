//! Mappings of large pages.

use kernel::mm::cache::Object;
use kernel::mm::fault::FaultError;
use kernel::mm::frame::{Kind as FrameKind, allocator};
use kernel::mm::memtype::anon::ANON;
use kernel::mm::memtype::hugetlb::HUGETLB;
use kernel::mm::range::VirtRange;
use kernel::mm::space::{Memory, RemapError, RemapTo};
use kernel::uffd::Features;

use super::{FAR, GIB, H, P, leave, remap, to};
use crate::common::kinds::{Bed, Kind, map};
use crate::common::object_world;

#[test]
fn lengths_of_large_pages_are_rounded_up() {
    for kind in Kind::LARGE {
        let bed = Bed::unregistered(kind, 3, Features::empty());
        (0..3).for_each(|i| bed.store(i, i + 1));
        let begun = VirtRange::new(bed.at(1), bed.at(1) + P);
        assert_eq!(remap(bed.space(), begun, P, RemapTo::Here), Ok(bed.one(1)));
        assert_eq!(remap(bed.space(), begun, P, RemapTo::At(FAR)), Ok(to(FAR, H)));
        assert_eq!(bed.world.load(FAR), Ok(2));
        assert_eq!(bed.world.load(bed.at(1) + H / 2), Err(FaultError::Unmapped));
        let both = VirtRange::new(bed.at(2), bed.at(3));
        assert_eq!(
            remap(bed.space(), both, P, RemapTo::Here),
            Ok(bed.one(2)),
            "nothing to cut off"
        );
        assert_eq!((bed.load(0), bed.load(2)), (1, 3));
    }
}

#[test]
fn large_pages_are_cut_off_whole() {
    for kind in Kind::LARGE {
        let bed = Bed::unregistered(kind, 3, Features::empty());
        (0..3).for_each(|i| bed.store(i, i + 1));
        assert_eq!(
            remap(bed.space(), bed.range, H + P, RemapTo::Here),
            Ok(bed.part(0, 2))
        );
        assert_eq!((bed.load(0), bed.load(1)), (1, 2));
        assert_eq!(bed.world.load(bed.at(2)), Err(FaultError::Unmapped));
    }
}

#[test]
fn large_pages_do_not_grow_stay_mapped_or_move_in_part() {
    for kind in Kind::LARGE {
        let bed = Bed::unregistered(kind, 2, Features::empty());
        bed.store(0, 1);
        let space = bed.space();
        let inside = VirtRange::new(bed.at(0) + P, bed.at(1));
        let rows = [
            (
                remap(space, bed.range, 3 * H, RemapTo::Anywhere),
                RemapError::LargePages,
            ),
            (
                remap(space, bed.range, 3 * H, RemapTo::At(FAR)),
                RemapError::LargePages,
            ),
            (leave(space, bed.range, RemapTo::Anywhere), RemapError::LargePages),
            (leave(space, bed.range, RemapTo::At(FAR)), RemapError::LargePages),
            (
                remap(space, VirtRange::new(bed.at(0), bed.at(0)), H, RemapTo::Anywhere),
                RemapError::LargePages,
            ),
            (
                remap(space, inside, inside.len(), RemapTo::Here),
                RemapError::SplitsPage,
            ),
            (
                remap(space, inside, inside.len(), RemapTo::At(FAR)),
                RemapError::SplitsPage,
            ),
            (
                remap(space, bed.one(0), H, RemapTo::At(FAR + P)),
                RemapError::SplitsPage,
            ),
        ];
        for (i, (result, why)) in rows.into_iter().enumerate() {
            assert_eq!(result, Err(why), "{kind:?}, row {i}");
        }
        assert_eq!((bed.load(0), space.areas().len()), (1, 1));
    }
}

#[test]
fn a_place_inside_a_large_page_is_refused_and_so_is_cutting_to_there() {
    let bed = Bed::unregistered(Kind::Huge, 1, Features::empty());
    bed.store(0, 1);
    let small = map(&bed.world, Memory::Own(&ANON), Some(bed.range.start - P), P);
    let over = remap(bed.space(), small, P, RemapTo::At(bed.at(0) + P));
    assert_eq!(over, Err(RemapError::SplitsPage));
    let across = VirtRange::new(small.start, small.end + 2 * P);
    assert_eq!(
        remap(bed.space(), across, P, RemapTo::Here),
        Err(RemapError::SplitsPage)
    );
    assert_eq!((bed.load(0), bed.world.load(small.start)), (1, Ok(0)));
}

#[test]
fn a_huge_area_of_one_gib_moves_with_the_node_of_its_gib() {
    let world = object_world();
    let object = Object::new(&HUGETLB, GIB);
    let range = map(&world, Memory::shared(&object), Some(FAR), GIB);
    assert_eq!(world.store(FAR + 5 * H, 5), Ok(()));
    let nodes = allocator().stats().of(FrameKind::Table);
    let new = to(FAR + 5 * GIB, GIB);
    assert_eq!(remap(&world.space, range, GIB, RemapTo::At(new.start)), Ok(new));
    assert_eq!(world.load(new.start + 5 * H), Ok(5));
    assert_eq!(
        allocator().stats().of(FrameKind::Table),
        nodes,
        "no node was made"
    );
}
