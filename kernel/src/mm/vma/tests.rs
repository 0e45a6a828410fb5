//! The areas of a space against an array with one cell per page.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::{AnonVma, Registration, Vma, VmaFlags, VmaSet};
use crate::arch::host::{Config, SoftMachine};
use crate::mm::addr::{PAGE_SIZE, VirtAddr};
use crate::mm::memtype::{Modes, anon::ANON};
use crate::mm::pt::Prot;
use crate::mm::range::VirtRange;
use crate::mm::space::{Privilege, Space};
use crate::uffd::{Features, Uffd};

const PAGES: usize = 48;
const BASE: VirtAddr = VirtAddr::new(0x7000_0000);

/// What the array holds for a mapped page: its rights, and which context it is registered with in which modes.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Cell {
    prot: Prot,
    ctx: Option<(usize, Modes)>,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Insert(usize, usize, Prot),
    Remove(usize, usize),
    Protect(usize, usize, Prot),
    Register(usize, usize, usize, Modes),
    /// Unregisters whole areas that share a page with the range, as closing a context does.
    UnregisterWhole(usize, usize, usize),
    FindGap(usize, u32),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let range = || (0..PAGES, 1..12usize).prop_map(|(start, len)| (start, (start + len).min(PAGES)));
    let prot = || proptest::sample::select(vec![Prot::empty(), Prot::READ, Prot::READ | Prot::WRITE]);
    let modes = proptest::sample::select(vec![Modes::MISSING, Modes::MISSING | Modes::WP]);
    let op = prop_oneof![
        4 => (range(), prot()).prop_map(|((a, b), prot)| Op::Insert(a, b, prot)),
        3 => range().prop_map(|(a, b)| Op::Remove(a, b)),
        3 => (range(), prot()).prop_map(|((a, b), prot)| Op::Protect(a, b, prot)),
        3 => (range(), 0..2usize, modes).prop_map(|((a, b), ctx, modes)| Op::Register(a, b, ctx, modes)),
        1 => (range(), 0..2usize).prop_map(|((a, b), ctx)| Op::UnregisterWhole(a, b, ctx)),
        1 => (1..20usize, 0..3u32).prop_map(|(len, align)| Op::FindGap(len, align)),
    ];
    proptest::collection::vec(op, 1..60)
}

fn addr(page: usize) -> VirtAddr {
    BASE + page as u64 * PAGE_SIZE
}

fn pages(start: usize, end: usize) -> VirtRange {
    VirtRange::new(addr(start), addr(end))
}

/// An area of anonymous memory that nobody has changed.
fn area(start: usize, end: usize, prot: Prot) -> Vma {
    Vma {
        range: pages(start, end),
        prot,
        ty: &ANON,
        backing: None,
        flags: VmaFlags::empty(),
        uffd: None,
        anon: AnonVma::default(),
    }
}

/// The set, the array and the two contexts that areas may be registered with.
struct Check {
    set: VmaSet,
    cells: [Option<Cell>; PAGES],
    contexts: [Uffd; 2],
    space: Arc<Space>,
}

impl Check {
    fn new() -> Self {
        let space = Space::new(Privilege::Kernel).expect("RAM is plenty");
        let contexts = [
            Uffd::new(&space, Features::empty()),
            Uffd::new(&space, Features::empty()),
        ];
        Self {
            set: VmaSet::new(),
            cells: [None; PAGES],
            contexts,
            space,
        }
    }

    fn play(&mut self, op: Op) {
        match op {
            Op::Insert(start, end, prot) => {
                let free = self.cells[start..end].iter().all(Option::is_none);
                assert_eq!(self.set.is_free(pages(start, end)), free);
                if free {
                    self.set
                        .insert(area(start, end, prot))
                        .expect("far from the limit");
                    self.cells[start..end].fill(Some(Cell { prot, ctx: None }));
                }
            }
            Op::Remove(start, end) => self.remove(start, end),
            Op::Protect(start, end, prot) => {
                self.set
                    .update(pages(start, end), |vma| vma.prot = prot)
                    .expect("far from the limit");
                self.change(start, end, |cell| cell.prot = prot);
            }
            Op::Register(start, end, ctx, modes) => {
                let registration = Registration {
                    ctx: Arc::clone(self.contexts[ctx].ctx()),
                    modes,
                };
                let set = |vma: &mut Vma| vma.uffd = Some(registration.clone());
                self.set
                    .update(pages(start, end), set)
                    .expect("far from the limit");
                self.change(start, end, |cell| cell.ctx = Some((ctx, modes)));
            }
            Op::UnregisterWhole(start, end, ctx) => self.unregister_whole(start, end, ctx),
            Op::FindGap(len, align) => self.find_gap(len, PAGE_SIZE << align),
        }
    }

    fn change(&mut self, start: usize, end: usize, change: impl Fn(&mut Cell)) {
        self.cells[start..end].iter_mut().flatten().for_each(change);
    }

    fn remove(&mut self, start: usize, end: usize) {
        let mut removed = [None; PAGES];
        let take = |vma: Vma| {
            for (page, removed) in removed.iter_mut().enumerate() {
                if vma.range.contains(addr(page)) {
                    assert!(removed.is_none(), "page {page} was removed twice");
                    *removed = Some(vma.prot);
                }
            }
        };
        self.set
            .remove(pages(start, end), take)
            .expect("far from the limit");
        for (page, removed) in removed.iter().enumerate() {
            let expected = if (start..end).contains(&page) {
                self.cells[page].map(|cell| cell.prot)
            } else {
                None
            };
            assert_eq!(*removed, expected, "what was removed of page {page}");
        }
        self.cells[start..end].fill(None);
    }

    fn unregister_whole(&mut self, start: usize, end: usize, ctx: usize) {
        let target = Arc::clone(self.contexts[ctx].ctx());
        // The areas that are met, as the array sees them: runs of equal cells.
        let mut met = [false; PAGES];
        for page in start..end {
            for (at, met) in met.iter_mut().enumerate() {
                *met |= self.cells[page].is_some() && self.same_area(page, at);
            }
        }
        let ours = |vma: &Vma| {
            let registration = vma.uffd.as_ref();
            registration.is_some_and(|registration| Arc::ptr_eq(&registration.ctx, &target))
        };
        self.set
            .update_unsplit(pages(start, end), ours, |vma| vma.uffd = None);
        for (cell, met) in self.cells.iter_mut().zip(met) {
            if let Some(cell) = cell
                .as_mut()
                .filter(|cell| met && cell.ctx.is_some_and(|(c, _)| c == ctx))
            {
                cell.ctx = None;
            }
        }
    }

    fn same_area(&self, a: usize, b: usize) -> bool {
        let (low, high) = (a.min(b), a.max(b));
        self.cells[low..=high].iter().all(|cell| cell == &self.cells[a])
    }

    fn find_gap(&self, len: usize, align: u64) {
        let fits = |start: &usize| {
            addr(*start).is_aligned(align) && self.cells[*start..start + len].iter().all(Option::is_none)
        };
        let highest = (0..=PAGES - len).rev().find(fits);
        let found = self.set.find_gap(len as u64 * PAGE_SIZE, align, pages(0, PAGES));
        assert_eq!(found, highest.map(|start| pages(start, start + len)));
    }

    fn compare(&self) {
        for (page, cell) in self.cells.iter().enumerate() {
            let vma = self.set.find(addr(page) + 0x123);
            let found = vma.map(|vma| Cell {
                prot: vma.prot,
                ctx: vma.uffd.as_ref().map(|r| self.name(r)),
            });
            assert_eq!(found, *cell, "page {page}");
        }
        let areas: Vec<&Vma> = self.set.iter().collect();
        assert_eq!(areas.len(), self.set.len());
        for pair in areas.windows(2) {
            assert!(
                pair[0].range.end <= pair[1].range.start,
                "areas are sorted and do not overlap"
            );
            assert!(
                !pair[0].continues_as(pair[1]),
                "neighbours that could be one are one: {pair:?}"
            );
        }
        assert!(areas.iter().all(|vma| !vma.range.is_empty()));
    }

    fn name(&self, registration: &Registration) -> (usize, Modes) {
        let is = |uffd: &Uffd| Arc::ptr_eq(uffd.ctx(), &registration.ctx);
        (
            self.contexts.iter().position(is).expect("one of the two"),
            registration.modes,
        )
    }
}

proptest! {
    #[test]
    fn areas_behave_like_an_array_of_pages(ops in ops()) {
        let _machine = SoftMachine::start(Config { memory: 256 << 10 });
        let mut check = Check::new();
        for op in ops {
            check.play(op);
            check.compare();
        }
        prop_assert_eq!(check.space.areas().len(), 0, "the space itself was not touched");
    }
}

#[test]
fn overlapping_areas_are_those_that_share_an_address() {
    let _machine = SoftMachine::start(Config::default());
    let mut set = VmaSet::new();
    for start in [0, 10, 20] {
        set.insert(area(start, start + 5, Prot::READ))
            .expect("far from the limit");
    }
    let starts = |a, b| {
        let found = set.overlapping(pages(a, b));
        found
            .map(|vma| ((vma.range.start - BASE) / PAGE_SIZE) as usize)
            .collect::<Vec<_>>()
    };
    assert_eq!(starts(0, 30), [0, 10, 20]);
    assert_eq!(starts(4, 11), [0, 10]);
    assert!(starts(5, 10).is_empty());
    assert_eq!(starts(14, 15), [10]);
}

#[test]
#[should_panic(expected = "area over an area")]
fn an_area_over_an_area_panics() {
    let _machine = SoftMachine::start(Config::default());
    let mut set = VmaSet::new();
    for _ in 0..2 {
        let _full = set.insert(area(3, 5, Prot::READ));
    }
}

#[test]
fn a_split_that_would_exceed_the_limit_changes_nothing() {
    let _machine = SoftMachine::start(Config::default());
    let mut set = VmaSet::new();
    // Gaps keep the areas apart.
    for i in 0..super::MAX_VMAS {
        set.insert(area(i * 4, i * 4 + 3, Prot::READ))
            .expect("below the limit");
    }
    assert!(set.insert(area(3, 4, Prot::empty())).is_err());
    assert!(set.remove(pages(1, 2), drop).is_err());
    assert!(set.update(pages(1, 2), |vma| vma.prot = Prot::WRITE).is_err());
    assert_eq!(
        (set.len(), set.find(addr(1)).map(|vma| vma.range)),
        (super::MAX_VMAS, Some(pages(0, 3)))
    );
    assert!(
        set.remove(pages(0, 3), drop).is_ok(),
        "taking a whole area away needs no split"
    );
}
