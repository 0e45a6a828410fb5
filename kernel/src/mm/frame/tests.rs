//! The frame allocator: against a bitmap, and case by case.
//!
//! The tests in `small` also run under Miri, which checks every raw access of theirs (see `mm::phys` too):
//! `cargo +nightly-2026-10-01 miri test -p faultline-kernel --lib -- small::`

use alloc::vec::Vec;

use proptest::prelude::*;

use super::{Anon, Folio, Frame, FrameAllocator, Kind, MAX_ORDER, OutOfFrames, Stack, Table, allocator};
use crate::arch::host::{Config, Running, SoftMachine};
use crate::mm::addr::{PAGE_SIZE, Pfn};

/// A machine with this many KiB of RAM.
fn machine(kib: u64) -> Running {
    SoftMachine::start(Config { memory: kib << 10 })
}

#[test]
fn what_is_kept_for_the_heap_is_there_for_it_when_programs_have_taken_all_they_can() {
    const KEPT: u64 = 64;
    let _machine = machine(1024);
    let all = allocator();
    assert!(!all.is_short(), "nothing is kept");
    all.keep_for_heap(KEPT);
    let pages: Vec<_> = core::iter::from_fn(|| Frame::<Anon>::alloc().ok()).collect();
    assert!(all.free_in_buddy() >= KEPT, "programs took what is kept");
    assert!(Frame::<Stack>::alloc().is_err());
    assert!(Frame::<Anon>::alloc_order(3).is_err(), "blocks count too");
    assert!(!all.is_short());
    let spare = (all.free_in_buddy() - KEPT / 4 * 3) as usize * PAGE_SIZE as usize;
    assert!(all.can_spare(spare) && !all.can_spare(spare + PAGE_SIZE as usize));
    let tables: Vec<_> = core::iter::from_fn(|| Frame::<Table>::alloc().ok()).collect();
    assert!(tables.len() as u64 >= KEPT / 2 && all.free_in_buddy() >= KEPT / 2);
    assert!(all.is_short(), "a quarter of what is kept is gone");
    assert!(all.can_spare(100) && !all.can_spare(PAGE_SIZE as usize));
    let heap: Vec<_> = core::iter::from_fn(|| Frame::<super::Heap>::alloc().ok()).collect();
    assert!(heap.len() as u64 >= KEPT / 2 && all.free_in_buddy() == 0);
    drop((pages, tables, heap));
    assert!(!all.is_short());
    all.keep_for_heap(0);
}

/// One step of the bitmap test.
#[derive(Clone, Debug)]
enum Step {
    /// Takes a block of this order.
    Alloc(u8),
    /// Gives back the block held at this place in the list (modulo its length).
    Free(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..=7u8).prop_map(Step::Alloc),
        2 => Just(Step::Alloc(0)),
        4 => any::<usize>().prop_map(Step::Free),
    ];
    proptest::collection::vec(step, 1..150)
}

/// One bit per frame of RAM: in use or not.
struct Bitmap {
    first: u64,
    used: Vec<bool>,
}

impl Bitmap {
    /// Everything that is neither free nor cached at the moment counts as used for good.
    fn of_machine(machine: &SoftMachine) -> Self {
        let (start, end) = machine.ram();
        let (first, last) = (Pfn::containing(start).as_u64(), Pfn::containing(end).as_u64());
        let taken = |pfn| !matches!(allocator().meta(Pfn::new(pfn)).kind(), Kind::Free | Kind::Cached);
        Self {
            first,
            used: (first..last).map(taken).collect(),
        }
    }

    fn set(&mut self, pfn: Pfn, order: u8, used: bool) {
        let at = (pfn.as_u64() - self.first) as usize;
        for bit in &mut self.used[at..at + (1 << order)] {
            assert_ne!(*bit, used, "{pfn:?} of order {order} overlaps another block");
            *bit = used;
        }
    }

    fn has_room(&self, order: u8) -> bool {
        let size = 1 << order;
        let offset = (self.first as usize).next_multiple_of(size) - self.first as usize;
        self.used[offset..]
            .chunks_exact(size)
            .any(|block| block.iter().all(|used| !used))
    }

    fn free(&self) -> u64 {
        self.used.iter().filter(|used| !**used).count() as u64
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Blocks never overlap, a block is found whenever an aligned free one exists, and free memory merges back.
    #[test]
    fn blocks_behave_like_runs_in_a_bitmap(steps in steps()) {
        let machine = machine(600);
        allocator().flush_cache();
        let at_start = allocator().stats();
        let mut bitmap = Bitmap::of_machine(&machine);
        let mut held: Vec<Frame<Stack>> = Vec::new();
        for step in steps {
            match step {
                Step::Alloc(order) => {
                    // Frames in a CPU's cache are not merged.
                    allocator().flush_cache();
                    let room = bitmap.has_room(order);
                    match Frame::alloc_order(order) {
                        Ok(frame) => {
                            prop_assert!(frame.pfn().as_u64().is_multiple_of(1 << order));
                            prop_assert_eq!(frame.order(), order);
                            bitmap.set(frame.pfn(), order, true);
                            held.push(frame);
                        }
                        Err(OutOfFrames) => prop_assert!(!room, "order {} was free", order),
                    }
                }
                Step::Free(which) if !held.is_empty() => {
                    let frame = held.swap_remove(which % held.len());
                    bitmap.set(frame.pfn(), frame.order(), false);
                }
                Step::Free(_) => {}
            }
            let stats = allocator().stats();
            prop_assert_eq!(stats.free, bitmap.free());
            prop_assert_eq!(stats.of(Kind::Stack), held.iter().map(|f| 1u64 << f.order()).sum::<u64>());
        }
        held.clear();
        allocator().flush_cache();
        let at_end = allocator().stats();
        prop_assert_eq!(at_end.free_blocks, at_start.free_blocks, "everything merged again");
        prop_assert_eq!(at_end.in_use, at_start.in_use);
    }
}

mod small {
    use super::*;

    fn anon() -> Frame<Anon> {
        Frame::alloc().expect("RAM is plenty")
    }

    #[test]
    fn a_dropped_handle_gives_its_frame_back() {
        let _machine = machine(128);
        let before = allocator().stats();
        let frame = anon();
        assert_eq!(allocator().stats().of(Kind::Anon), 1);
        assert_eq!(allocator().stats().free, before.free - 1);
        drop(frame);
        assert_eq!(allocator().stats().in_use, before.in_use);
    }

    #[test]
    fn frames_are_counted_by_kind() {
        let _machine = machine(128);
        let tables_before = allocator().stats().of(Kind::Table);
        let (_table, _stack) = (Frame::<Table>::alloc(), Frame::<Stack>::alloc_order(2));
        let stats = allocator().stats();
        assert_eq!(
            (stats.of(Kind::Table) - tables_before, stats.of(Kind::Stack)),
            (1, 4)
        );
        assert_eq!(stats.free + stats.in_use.iter().sum::<u64>(), stats.managed);
    }

    #[test]
    fn a_folio_lives_until_its_last_owner_lets_go() {
        let _machine = machine(128);
        let folio = Folio::from(anon());
        let (second, pfn) = (folio.clone(), folio.pfn());
        assert_eq!((folio.owners(), second.pfn()), (2, pfn));
        drop(folio);
        assert_eq!((second.owners(), allocator().stats().of(Kind::Anon)), (1, 1));
        drop(second);
        assert_eq!(allocator().stats().of(Kind::Anon), 0);
    }

    #[test]
    fn a_frame_freed_last_is_handed_out_first() {
        let _machine = machine(128);
        let pfn = anon().pfn();
        assert_eq!(anon().pfn(), pfn, "still warm in the cache of this CPU");
    }

    #[test]
    fn single_frames_come_in_batches_and_only_the_first_one_touches_the_buddy() {
        let _machine = machine(512);
        allocator().flush_cache();
        let before = allocator().free_in_buddy();
        let held: Vec<_> = (0..4).map(|_| anon()).collect();
        let batch = before - allocator().free_in_buddy();
        assert!(batch > 4, "a whole batch left the buddy: {batch}");
        drop(held);
        assert_eq!(
            before - allocator().free_in_buddy(),
            batch,
            "and stays with this CPU"
        );
        allocator().flush_cache();
        assert_eq!(allocator().free_in_buddy(), before);
    }

    #[test]
    fn a_full_cache_spills_into_the_buddy() {
        let _machine = machine(1024);
        let held: Vec<_> = (0..150).map(|_| anon()).collect();
        allocator().flush_cache();
        let before = allocator().free_in_buddy();
        drop(held);
        let cached = 150 - (allocator().free_in_buddy() - before);
        assert!((1..=64).contains(&cached), "{cached} frames cached");
    }

    #[test]
    fn a_frame_may_be_freed_on_another_cpu() {
        let machine = machine(256);
        let frames: Vec<_> = (0..40).map(|_| anon()).collect();
        let soft = machine.machine();
        std::thread::spawn(move || {
            let _cpu = soft.enter();
            drop(frames);
            allocator().flush_cache();
        })
        .join()
        .expect("freeing works there");
        assert_eq!(allocator().stats().of(Kind::Anon), 0);
    }

    #[test]
    #[should_panic(expected = "double free")]
    fn freeing_twice_panics() {
        let _machine = machine(128);
        let pfn = anon().pfn();
        allocator().free(pfn);
    }

    #[test]
    #[should_panic(expected = "double free")]
    fn freeing_a_frame_inside_a_block_panics() {
        let _machine = machine(128);
        let block = Frame::<Stack>::alloc_order(2).expect("RAM is plenty");
        allocator().free(block.pfn().offset(1));
    }

    #[test]
    #[should_panic(expected = "double free")]
    fn freeing_what_was_never_handed_over_panics() {
        let machine = machine(128);
        let (start, _) = machine.ram();
        allocator().free(Pfn::containing(start));
    }

    #[test]
    fn running_out_is_an_error_and_freeing_mends_it() {
        let _machine = machine(128);
        let mut held = Vec::new();
        while let Ok(frame) = Frame::<Anon>::alloc() {
            held.push(frame);
        }
        let stats = allocator().stats();
        assert_eq!(
            (stats.free, stats.failures),
            (0, 1),
            "every last frame was handed out"
        );
        assert!(Frame::<Anon>::alloc_order(3).is_err());
        held.pop();
        assert!(Frame::<Anon>::alloc().is_ok());
    }

    #[test]
    fn a_large_block_is_refused_while_only_small_ones_are_free() {
        let _machine = machine(256);
        let mut held = Vec::new();
        while let Ok(frame) = Frame::<Anon>::alloc() {
            held.push(frame);
        }
        // Every other frame: plenty is free, nothing merges.
        held.retain(|frame| frame.pfn().as_u64().is_multiple_of(2));
        allocator().flush_cache();
        assert!(allocator().stats().free > 20);
        assert!(Frame::<Anon>::alloc_order(1).is_err());
    }

    #[test]
    fn orders_that_do_not_exist_are_out_of_frames() {
        let _machine = machine(128);
        assert!(Frame::<Anon>::alloc_order(MAX_ORDER).is_err(), "larger than RAM");
    }

    #[test]
    fn injected_failures_start_after_the_given_number_of_allocations() {
        let _machine = machine(256);
        let warm = anon();
        drop(warm);
        allocator().inject_failure(2);
        let held = [
            Frame::<Anon>::alloc(),
            Frame::<Anon>::alloc_order(1),
            Frame::<Anon>::alloc(),
        ];
        assert_eq!(held.each_ref().map(Result::is_ok), [true, true, false]);
        assert!(Frame::<Anon>::alloc_zeroed().is_err(), "and go on");
        allocator().stop_injection();
        assert!(Frame::<Anon>::alloc().is_ok());
        assert_eq!(allocator().stats().failures, 2);
    }

    #[test]
    fn a_zeroed_frame_is_zero_whatever_it_held() {
        let _machine = machine(128);
        let mut frame = anon();
        crate::mm::phys::bytes_mut(&mut frame).fill(0xa5);
        let pfn = frame.pfn();
        drop(frame);
        let again = Frame::<Anon>::alloc_zeroed().expect("RAM is plenty");
        assert_eq!(again.pfn(), pfn, "the same memory");
        assert!(crate::mm::phys::bytes(&again).iter().all(|byte| *byte == 0));
    }

    #[test]
    fn the_bytes_of_a_block_are_its_own() {
        let _machine = machine(256);
        let (mut low, mut high) = (Frame::<Stack>::alloc_order(1), Frame::<Stack>::alloc_order(1));
        let (Ok(low), Ok(high)) = (&mut low, &mut high) else {
            panic!("RAM is plenty")
        };
        crate::mm::phys::bytes_mut(low).fill(1);
        crate::mm::phys::bytes_mut(high).fill(2);
        assert_eq!(crate::mm::phys::bytes(low).len() as u64, 2 * PAGE_SIZE);
        assert!(crate::mm::phys::bytes(low).iter().all(|byte| *byte == 1));
        assert!(crate::mm::phys::bytes(high).iter().all(|byte| *byte == 2));
    }

    #[test]
    fn filling_and_copying_a_page_and_looking_at_it() {
        let _machine = machine(128);
        let (mut source, mut copy) = (anon(), anon());
        let text: Vec<u8> = (0..PAGE_SIZE).map(|i| i as u8).collect();
        crate::mm::phys::fill(&mut source, &text);
        let source = Folio::from(source);
        crate::mm::phys::copy(&mut copy, &source);
        assert_eq!(crate::mm::phys::bytes(&copy), text);
        let mut some = [0; 3];
        crate::mm::phys::peek(&source, 300, &mut some);
        assert_eq!(some, [44, 45, 46]);
    }

    #[test]
    #[should_panic(expected = "src.len()")]
    fn filling_a_page_with_more_than_a_page_panics() {
        let _machine = machine(128);
        crate::mm::phys::fill(&mut anon(), &[0; 4097]);
    }

    #[test]
    fn a_block_with_one_owner_splits_into_blocks_that_are_freed_one_by_one() {
        let _machine = machine(256);
        allocator().flush_cache();
        let before = allocator().stats().free_blocks;
        let block = Frame::<Anon>::alloc_order(2).expect("RAM is plenty");
        let first = block.into_raw();
        assert!(super::super::split_block(first, 0));
        for (freed, i) in [2, 0, 3, 1].into_iter().enumerate() {
            assert_eq!(allocator().stats().of(Kind::Anon), 4 - freed as u64);
            allocator().free(first.offset(i));
        }
        allocator().flush_cache();
        assert_eq!(allocator().stats().free_blocks, before, "merged again");
    }

    #[test]
    fn a_shared_block_does_not_split() {
        let _machine = machine(256);
        let folio = Folio::from(Frame::<Anon>::alloc_order(2).expect("RAM is plenty"));
        let other = folio.clone();
        assert!(!super::super::split_block(folio.pfn(), 0));
        drop(other);
        assert_eq!(folio.order(), 2, "still whole");
    }

    #[test]
    fn merged_blocks_are_freed_as_one() {
        let _machine = machine(256);
        let first = Frame::<Anon>::alloc_order(2).expect("RAM is plenty").into_raw();
        assert!(super::super::split_block(first, 0));
        assert!((0..4).all(|i| super::super::can_merge_block(first.offset(i), 0)));
        super::super::merge_block(first, 2);
        assert!(super::super::can_merge_block(first, 2));
        allocator().free(first);
        assert_eq!(allocator().stats().of(Kind::Anon), 0);
    }

    #[test]
    #[should_panic(expected = "handed over twice")]
    fn donating_memory_twice_panics() {
        let machine = machine(128);
        let (_, end) = machine.ram();
        donate(
            allocator(),
            Pfn::containing(end - PAGE_SIZE),
            Pfn::containing(end),
        );
    }

    #[expect(
        unsafe_code,
        reason = "the contract is broken on purpose; the allocator notices before it acts"
    )]
    fn donate(frames: &FrameAllocator, start: Pfn, end: Pfn) {
        // SAFETY: none: the frames are in use. `donate` looks at their metadata first and panics.
        unsafe { frames.donate(start, end) };
    }
}
