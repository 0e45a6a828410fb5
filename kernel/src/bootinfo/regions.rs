//! From what loader and firmware say about physical memory to a map without overlaps.
//!
//! Firmware maps may overlap, be unsorted and end in the middle of pages; loaders put things into memory that the map
//! calls free. Everything said is collected as a claim; where claims overlap the strongest wins:
//!
//! `Usable` < `Other` < `Reserved`
//!
//! (what the kernel itself reserves is known to be RAM with something in it, whatever the firmware calls it). A page
//! that is only partly usable is not usable.

use arrayvec::ArrayVec;

use super::{MAX_REGIONS, Region, RegionKind};
use crate::mm::addr::{PAGE_SIZE, PhysAddr};

/// Claims kept: the loader's regions, and room for the kernel's own, which are few.
const MAX_CLAIMS: usize = MAX_REGIONS + 16;

/// Start of the hole between conventional memory and 1 MiB (video memory, option ROMs, BIOS).
const LEGACY_HOLE: PhysAddr = PhysAddr::new(0xa_0000);
const MIB: PhysAddr = PhysAddr::new(0x10_0000);

/// Collects claims about physical memory.
#[derive(Debug)]
pub struct MapBuilder {
    claims: ArrayVec<Region, MAX_CLAIMS>,
    dropped: usize,
}

impl RegionKind {
    /// Who wins where claims overlap.
    fn strength(self) -> u8 {
        match self {
            Self::Usable => 1,
            Self::Other => 2,
            Self::Reserved => 3,
        }
    }
}

impl Default for MapBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl MapBuilder {
    /// Begins with what holds on every PC: conventional memory is kept from the allocator (the BIOS has its data there,
    /// and further CPUs start there), and from 640 KiB to 1 MiB nothing is RAM.
    pub fn new() -> Self {
        let mut claims = ArrayVec::new();
        claims.push(Region {
            start: PhysAddr::new(0),
            end: LEGACY_HOLE,
            kind: RegionKind::Reserved,
        });
        claims.push(Region {
            start: LEGACY_HOLE,
            end: MIB,
            kind: RegionKind::Other,
        });
        Self { claims, dropped: 0 }
    }

    /// Something the kernel knows to be in RAM and to stay there: its image, the ramdisk, the loader's structures.
    /// Call before [`add`](Self::add), so that there is room.
    pub fn reserve(&mut self, start: PhysAddr, len: u64) {
        self.claim(start, len, RegionKind::Reserved, MAX_CLAIMS);
    }

    /// A region of the loader's map.
    pub fn add(&mut self, start: PhysAddr, len: u64, kind: RegionKind) {
        self.claim(start, len, kind, MAX_REGIONS);
    }

    fn claim(&mut self, start: PhysAddr, len: u64, kind: RegionKind, room: usize) {
        let Some(region) = whole_pages(start, len, kind) else {
            return;
        };
        if self.claims.len() >= room {
            self.dropped += 1;
        } else {
            self.claims.push(region);
        }
    }

    /// The map: sorted, page-aligned, without overlaps, neighbours of one kind joined; and how many regions were left
    /// out because there were too many.
    pub fn finish(self) -> (ArrayVec<Region, MAX_REGIONS>, usize) {
        let mut bounds: ArrayVec<PhysAddr, { 2 * MAX_CLAIMS }> = ArrayVec::new();
        for claim in &self.claims {
            bounds.push(claim.start);
            bounds.push(claim.end);
        }
        bounds.sort_unstable();
        let mut map: ArrayVec<Region, MAX_REGIONS> = ArrayVec::new();
        let mut dropped = self.dropped;
        for pair in bounds.windows(2) {
            let (start, end) = (pair[0], pair[1]);
            let Some(kind) = self.strongest(start, end) else {
                continue;
            };
            match map.last_mut() {
                Some(last) if last.end == start && last.kind == kind => last.end = end,
                _ => dropped += usize::from(map.try_push(Region { start, end, kind }).is_err()),
            }
        }
        (map, dropped)
    }

    /// The strongest claim on `[start, end)`, which no claim's boundary divides; `None` when nobody claims it.
    fn strongest(&self, start: PhysAddr, end: PhysAddr) -> Option<RegionKind> {
        let covering = self
            .claims
            .iter()
            .filter(|claim| start < end && claim.start <= start && end <= claim.end);
        covering
            .map(|claim| claim.kind)
            .max_by_key(|kind| kind.strength())
    }
}

/// The claim in whole pages: what is usable shrinks, everything else grows. `None` when nothing is left.
fn whole_pages(start: PhysAddr, len: u64, kind: RegionKind) -> Option<Region> {
    // An end past the address space is the firmware's way of saying "all that follows".
    let last_page = PhysAddr::new(u64::MAX).align_down(PAGE_SIZE);
    let end = start.checked_add(len).unwrap_or(last_page).min(last_page);
    let (start, end) = match kind {
        RegionKind::Usable => (start.align_up(PAGE_SIZE)?, end.align_down(PAGE_SIZE)),
        _ if len == 0 => return None,
        _ => (start.align_down(PAGE_SIZE), end.align_up(PAGE_SIZE)?),
    };
    (start < end).then_some(Region { start, end, kind })
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::RegionKind::{Other, Reserved, Usable};
    use super::*;

    /// The map above 1 MiB as plain numbers.
    fn map(builder: MapBuilder) -> Vec<(u64, u64, RegionKind)> {
        let (regions, dropped) = builder.finish();
        assert_eq!(dropped, 0);
        let plain = regions.iter().map(|r| (r.start.as_u64(), r.end.as_u64(), r.kind));
        plain.filter(|r| r.1 > MIB.as_u64()).collect()
    }

    fn add(builder: &mut MapBuilder, start: u64, end: u64, kind: RegionKind) {
        builder.add(PhysAddr::new(start), end - start, kind);
    }

    #[test]
    fn first_mebibyte_is_never_usable() {
        let mut builder = MapBuilder::new();
        add(&mut builder, 0, 0x20_0000, Usable);
        let (regions, _) = builder.finish();
        let kinds: Vec<_> = regions
            .iter()
            .map(|r| (r.start.as_u64(), r.end.as_u64(), r.kind))
            .collect();
        assert_eq!(
            kinds,
            [
                (0, 0xa_0000, Reserved),
                (0xa_0000, 0x10_0000, Other),
                (0x10_0000, 0x20_0000, Usable)
            ]
        );
    }

    #[test]
    fn reservation_is_cut_out_of_usable_memory() {
        let mut builder = MapBuilder::new();
        builder.reserve(PhysAddr::new(0x30_0000), 0x1234);
        add(&mut builder, 0x10_0000, 0x100_0000, Usable);
        assert_eq!(
            map(builder),
            [
                (0x10_0000, 0x30_0000, Usable),
                (0x30_0000, 0x30_2000, Reserved),
                (0x30_2000, 0x100_0000, Usable)
            ]
        );
    }

    #[test]
    fn reservation_outside_the_firmwares_map_is_kept() {
        let mut builder = MapBuilder::new();
        builder.reserve(PhysAddr::new(0x800_0000), 0x1000);
        assert_eq!(map(builder), [(0x800_0000, 0x800_1000, Reserved)]);
    }

    #[test]
    fn overlapping_and_unsorted_firmware_regions_are_sorted_out() {
        let mut builder = MapBuilder::new();
        add(&mut builder, 0x500_0000, 0x600_0000, Usable);
        add(&mut builder, 0x100_0000, 0x300_0000, Usable);
        add(&mut builder, 0x200_0000, 0x580_0000, Other);
        assert_eq!(
            map(builder),
            [
                (0x100_0000, 0x200_0000, Usable),
                (0x200_0000, 0x580_0000, Other),
                (0x580_0000, 0x600_0000, Usable)
            ]
        );
    }

    #[test]
    fn partly_usable_pages_are_not_usable() {
        let mut builder = MapBuilder::new();
        add(&mut builder, 0x10_0800, 0x10_3800, Usable);
        add(&mut builder, 0x10_5001, 0x10_5fff, Usable);
        add(&mut builder, 0x10_6fff, 0x10_7001, Other);
        assert_eq!(
            map(builder),
            [(0x10_1000, 0x10_3000, Usable), (0x10_6000, 0x10_8000, Other)]
        );
    }

    #[test]
    fn neighbours_of_one_kind_are_joined() {
        let mut builder = MapBuilder::new();
        add(&mut builder, 0x20_0000, 0x30_0000, Usable);
        add(&mut builder, 0x30_0000, 0x40_0000, Usable);
        add(&mut builder, 0x20_0000, 0x30_0000, Usable);
        assert_eq!(map(builder), [(0x20_0000, 0x40_0000, Usable)]);
    }

    #[test]
    fn empty_and_endless_regions_do_no_harm() {
        let mut builder = MapBuilder::new();
        add(&mut builder, 0x20_0000, 0x20_0000, Other);
        builder.add(PhysAddr::new(0xffff_ffff_0000_0000), u64::MAX, Other);
        assert_eq!(
            map(builder),
            [(0xffff_ffff_0000_0000, 0xffff_ffff_ffff_f000, Other)]
        );
    }

    #[test]
    fn too_many_regions_are_counted_and_reservations_survive() {
        let mut builder = MapBuilder::new();
        builder.reserve(PhysAddr::new(0x1000_0000), 0x1000);
        for i in 0..300 {
            add(
                &mut builder,
                0x20_0000 + i * 0x2000,
                0x20_1000 + i * 0x2000,
                Usable,
            );
        }
        let (regions, dropped) = builder.finish();
        assert_eq!(regions.iter().filter(|r| r.kind == Usable).count() + dropped, 300);
        assert!(dropped > 0);
        assert!(
            regions
                .iter()
                .any(|r| r.start == PhysAddr::new(0x1000_0000) && r.kind == Reserved)
        );
    }

    proptest! {
        #[test]
        fn every_page_has_the_strongest_kind_claimed_for_it(
            claims in proptest::collection::vec((0x100u64..0x180, 0u64..0x20, 0u8..3), 0..24),
        ) {
            let kinds = [Usable, Other, Reserved];
            let mut builder = MapBuilder::new();
            for &(page, pages, kind) in &claims {
                builder.add(PhysAddr::new(page << 12), pages << 12, kinds[kind as usize]);
            }
            let (map, dropped) = builder.finish();
            prop_assert_eq!(dropped, 0);
            prop_assert!(map.windows(2).all(|w| w[0].end <= w[1].start));
            for page in 0x100u64..0x1a0 {
                let covering = claims.iter().filter(|&&(p, n, _)| p <= page && page < p + n);
                let expected = covering.map(|c| kinds[c.2 as usize]).max_by_key(|k| k.strength());
                let at = PhysAddr::new(page << 12);
                let found = map.iter().find(|r| r.start <= at && at < r.end).map(|r| r.kind);
                prop_assert_eq!(found, expected, "page {:#x}", page);
            }
        }
    }
}
