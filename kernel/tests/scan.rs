//! Scanning of page tables (`PAGEMAP_SCAN`) and the words of `/proc/pid/pagemap`, as Linux has them (checked there on 6.18).
//! Each test is named after what it claims.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{RW, World, object_world, page, part, populate, registered_with, returned};
use kernel::mm::addr::{PAGE_SIZE, USER_TOP, VirtAddr};
use kernel::mm::cache::Object;
use kernel::mm::frame::allocator;
use kernel::mm::memtype::hugetlb::HUGETLB;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::pt::{Entry, Marker};
use kernel::mm::range::VirtRange;
use kernel::mm::space::{Category, Memory, PageRun, ScanError, ScanRequest, Scanned};
use kernel::mm::uaccess;
use kernel::uffd::{Event, Features, FillMode, Modes, Outcome, ReadError, Uffd};

const P: u64 = PAGE_SIZE;
const NOW: FillMode = FillMode::empty();
const NOTHING: Result<Event, ReadError> = Err(ReadError::WouldBlock);

const WPA: Category = Category::WPALLOWED;
const WRITTEN: Category = Category::WRITTEN;
const PRESENT: Category = Category::PRESENT;
const MARKED: Category = Category::SWAPPED;
const ZERO: Category = Category::PFNZERO;
const FILE: Category = Category::FILE;
const HUGE: Category = Category::HUGE;
/// Base pages in a huge page.
const HUGE_PAGES: u64 = 512;

fn tracked(pages: u64) -> (World, Uffd, VirtRange) {
    registered_with(pages, Modes::WP, Features::WP_ASYNC)
}

/// The runs that a scan reports, as page numbers of `base`, and where it stopped.
fn scan_into(
    world: &World,
    base: VirtRange,
    request: &ScanRequest,
    room: usize,
) -> (Vec<(u64, u64, Category)>, u64) {
    let mut out = vec![PageRun::EMPTY; room];
    let Scanned { runs, end } = world.space.scan(request, &mut out).expect("it can be scanned");
    let number = |addr: VirtAddr| (addr - base.start) / P;
    let runs = out[..runs]
        .iter()
        .map(|run| (number(run.range.start), number(run.range.end), run.categories))
        .collect();
    (runs, number(end))
}

fn scan(world: &World, base: VirtRange, request: &ScanRequest) -> Vec<(u64, u64, Category)> {
    let (runs, end) = scan_into(world, base, request, 64);
    assert_eq!(end, base.pages(), "it comes to the end");
    runs
}

/// Every page that is anything, with all that it is.
fn everything(range: VirtRange) -> ScanRequest {
    ScanRequest {
        all_of: Category::empty(),
        any_of: Category::all(),
        report: Category::all(),
        ..ScanRequest::written(range)
    }
}

/// The pages that were written, without what else they are.
fn written(world: &World, range: VirtRange) -> Vec<(u64, u64)> {
    scan(world, range, &ScanRequest::written(range))
        .into_iter()
        .map(|(start, end, _)| (start, end))
        .collect()
}

/// The same, and they are protected again.
fn collect(world: &World, range: VirtRange) -> Vec<(u64, u64)> {
    scan(world, range, &ScanRequest::collect_written(range))
        .into_iter()
        .map(|(start, end, _)| (start, end))
        .collect()
}

fn store(world: &World, range: VirtRange, pages: &[u64]) {
    world.run(|| {
        for number in pages {
            assert_eq!(uaccess::store(page(range, *number), 1), Ok(()));
        }
    });
}

#[test]
fn the_first_scan_reports_everything_as_written_and_later_ones_new_stores_only() {
    let (world, uffd, range) = tracked(32);
    store(&world, range, &[0, 3]);
    assert_eq!(collect(&world, range), [(0, 32)]);
    assert_eq!(collect(&world, range), []);
    store(&world, range, &[0, 1, 5]);
    assert_eq!(collect(&world, range), [(0, 2), (5, 6)]);
    assert_eq!(collect(&world, range), []);
    assert_eq!(uffd.try_read_event(), NOTHING);
}

#[test]
fn a_scan_that_does_not_protect_reports_the_same_again() {
    let (world, _uffd, range) = tracked(8);
    collect(&world, range);
    store(&world, range, &[2]);
    assert_eq!(written(&world, range), [(2, 3)]);
    assert_eq!(written(&world, range), [(2, 3)]);
}

#[test]
fn each_page_is_reported_with_what_it_is() {
    let (world, uffd, range) = tracked(8);
    store(&world, range, &[0, 1]);
    assert_eq!(world.load(page(range, 2)), Ok(0));
    collect(&world, part(range, 1, 4));
    assert_eq!(uffd.poison(part(range, 6, 1), NOW), Outcome::Done);
    assert_eq!(
        scan(&world, range, &everything(range)),
        [
            (0, 1, WPA | WRITTEN | PRESENT),
            (1, 2, WPA | PRESENT),
            (2, 3, WPA | PRESENT | ZERO),
            (3, 5, WPA | MARKED),
            (5, 6, WPA | WRITTEN),
            (6, 7, WPA | WRITTEN | MARKED),
            (7, 8, WPA | WRITTEN),
        ]
    );
}

#[test]
fn pages_without_a_table_count_as_written_where_write_protection_is_registered() {
    let world = World::new();
    let range = world.map(1024 + 8, RW);
    let request = everything(range);
    assert_eq!(scan(&world, range, &request), []);
    let uffd = Uffd::new(&world.space, Features::empty());
    assert!(uffd.register(range, Modes::MISSING).is_ok());
    assert_eq!(scan(&world, range, &request), []);
    assert!(uffd.register(range, Modes::WP).is_ok());
    assert_eq!(scan(&world, range, &request), [(0, 1032, WRITTEN)]);
}

#[test]
fn empty_pages_beside_a_page_that_is_there_count_as_written_also_in_plain_memory() {
    let world = World::new();
    let range = world.map_at(Some(VirtAddr::new(0x4000_0000)), 1024, RW);
    store(&world, range, &[5]);
    assert_eq!(
        scan(&world, range, &everything(range)),
        [(0, 5, WRITTEN), (5, 6, WRITTEN | PRESENT), (6, 512, WRITTEN)]
    );
}

#[test]
fn stores_to_an_area_whose_faults_are_messages_are_told_but_not_wpallowed() {
    let (world, uffd, range) = registered_with(3, Modes::WP, Features::empty());
    populate(&world, part(range, 0, 2));
    assert_eq!(uffd.write_protect(part(range, 0, 1)), Ok(()));
    assert_eq!(
        scan(&world, range, &everything(range)),
        [(0, 1, PRESENT), (1, 2, WRITTEN | PRESENT), (2, 3, WRITTEN)]
    );
}

#[test]
fn masks_choose_the_pages_and_inversion_turns_them_round() {
    let (world, _uffd, range) = tracked(12);
    collect(&world, range);
    store(&world, range, &[0, 1, 5]);
    assert_eq!(world.load(page(range, 7)), Ok(0));
    let ask = |inverted, all_of, any_of| {
        let request = ScanRequest {
            inverted,
            all_of,
            any_of,
            report: Category::empty(),
            ..ScanRequest::written(range)
        };
        scan(&world, range, &request)
            .into_iter()
            .map(|(start, end, _)| (start, end))
            .collect::<Vec<_>>()
    };
    let none = Category::empty();
    assert_eq!(ask(none, PRESENT, none), [(0, 2), (5, 6), (7, 8)]);
    assert_eq!(ask(PRESENT, PRESENT, none), [(2, 5), (6, 7), (8, 12)]);
    assert_eq!(ask(WRITTEN, PRESENT | WRITTEN, none), [(7, 8)]);
    assert_eq!(ask(none, none, ZERO | WRITTEN), [(0, 2), (5, 6), (7, 8)]);
    assert_eq!(ask(none, PRESENT, ZERO | MARKED), [(7, 8)]);
    assert_eq!(ask(none, none, none), [(0, 12)]);
    assert_eq!(ask(WPA, WPA, none), []);
}

#[test]
fn runs_are_cut_where_what_is_reported_differs_and_nowhere_else() {
    let (world, _uffd, range) = tracked(6);
    store(&world, range, &[1, 2]);
    let request = ScanRequest {
        report: PRESENT,
        ..ScanRequest::written(range)
    };
    assert_eq!(
        scan(&world, range, &request),
        [
            (0, 1, Category::empty()),
            (1, 3, PRESENT),
            (3, 6, Category::empty())
        ]
    );
    let request = ScanRequest {
        report: WPA,
        ..request
    };
    assert_eq!(scan(&world, range, &request), [(0, 6, WPA)]);
}

#[test]
fn it_ends_at_the_page_that_exceeds_the_most_pages_or_the_room_for_runs() {
    let (world, _uffd, range) = tracked(8);
    collect(&world, range);
    store(&world, range, &[0, 1, 5, 6]);
    let most = |max_pages, room| {
        let request = ScanRequest {
            max_pages: Some(max_pages),
            ..ScanRequest::written(range)
        };
        let (runs, end) = scan_into(&world, range, &request, room);
        let runs: Vec<_> = runs.into_iter().map(|(start, end, _)| (start, end)).collect();
        (runs, end)
    };
    assert_eq!(most(1, 64), (vec![(0, 1)], 1));
    assert_eq!(most(2, 64), (vec![(0, 2)], 5));
    assert_eq!(most(3, 64), (vec![(0, 2), (5, 6)], 6));
    assert_eq!(most(4, 64), (vec![(0, 2), (5, 7)], 8));
    assert_eq!(most(4, 1), (vec![(0, 2)], 5));
    assert_eq!(most(4, 2), (vec![(0, 2), (5, 7)], 8));
}

#[test]
fn what_did_not_fit_into_the_report_is_not_protected() {
    let (world, _uffd, range) = tracked(8);
    collect(&world, range);
    store(&world, range, &[0, 1, 5, 6]);
    let request = ScanRequest {
        max_pages: Some(3),
        ..ScanRequest::collect_written(range)
    };
    let (runs, end) = scan_into(&world, range, &request, 64);
    assert_eq!((runs, end), (vec![(0, 2, WRITTEN), (5, 6, WRITTEN)], 6));
    assert_eq!(written(&world, range), [(6, 7)]);
    store(&world, range, &[0]);
    let (runs, end) = scan_into(&world, range, &ScanRequest::collect_written(range), 1);
    assert_eq!((runs, end), (vec![(0, 1, WRITTEN)], 6));
    assert_eq!(written(&world, range), [(6, 7)]);
}

#[test]
fn only_what_is_reported_as_written_is_protected() {
    let (world, _uffd, range) = tracked(8);
    store(&world, range, &[0, 1]);
    let request = ScanRequest {
        all_of: PRESENT,
        report: PRESENT,
        ..ScanRequest::collect_written(range)
    };
    assert_eq!(scan(&world, range, &request), [(0, 2, PRESENT)]);
    assert_eq!(written(&world, range), [(2, 8)]);
    let request = ScanRequest {
        report: Category::empty(),
        ..ScanRequest::collect_written(range)
    };
    assert_eq!(scan(&world, range, &request), [(2, 8, Category::empty())]);
    assert_eq!(written(&world, range), []);
}

#[test]
fn without_room_for_a_report_everything_is_protected_and_nothing_counted() {
    let (world, _uffd, range) = tracked(8);
    store(&world, range, &[0, 1]);
    let request = ScanRequest {
        all_of: PRESENT,
        max_pages: Some(1),
        ..ScanRequest::collect_written(range)
    };
    assert_eq!(scan_into(&world, range, &request, 0), (vec![], 8));
    assert_eq!(written(&world, range), []);
}

#[test]
fn areas_whose_stores_are_not_noted_are_skipped_or_refused_as_asked() {
    let world = World::new();
    let range = world.map(8, RW);
    let uffd = Uffd::new(&world.space, Features::WP_ASYNC);
    assert!(uffd.register(part(range, 0, 4), Modes::WP).is_ok());
    store(&world, range, &[0, 1, 5]);
    assert_eq!(written(&world, range), [(0, 8)]);
    let silent = ScanRequest {
        require_tracking: false,
        ..ScanRequest::collect_written(range)
    };
    assert_eq!(scan(&world, range, &silent), [(0, 4, WRITTEN)]);
    assert_eq!(written(&world, range), [(4, 8)], "the others are left alone");
    store(&world, range, &[2]);
    let mut out = [PageRun::EMPTY; 8];
    assert_eq!(
        world.space.scan(&ScanRequest::collect_written(range), &mut out),
        Err(ScanError::NotTracked)
    );
    assert_eq!(
        written(&world, range),
        [(4, 8)],
        "what comes before is protected already"
    );
    let required = ScanRequest {
        require_tracking: true,
        ..ScanRequest::written(part(range, 4, 1))
    };
    assert_eq!(world.space.scan(&required, &mut out), Err(ScanError::NotTracked));
}

#[test]
fn holes_are_skipped() {
    let (world, _uffd, range) = tracked(32);
    world.space.unmap(part(range, 8, 4)).expect("mapped");
    assert_eq!(collect(&world, range), [(0, 8), (12, 32)]);
    assert_eq!(collect(&world, range), []);
}

#[test]
fn ranges_are_rounded_up_at_the_end_and_refused_otherwise() {
    let (world, _uffd, range) = tracked(4);
    let mut out = [PageRun::EMPTY; 4];
    let mut ask = |start, end| {
        let request = ScanRequest::written(VirtRange { start, end });
        world.space.scan(&request, &mut out).map(|scanned| scanned.end)
    };
    let start = range.start;
    assert_eq!(ask(start, start + P + 5), Ok(start + 2 * P));
    assert_eq!(ask(start, start), Ok(start));
    assert_eq!(ask(start, USER_TOP), Ok(USER_TOP));
    assert_eq!(ask(start + 1, range.end), Err(ScanError::Unaligned));
    assert_eq!(ask(start, USER_TOP + P), Err(ScanError::BeyondTop));
    assert_eq!(ask(start + P, start), Err(ScanError::BeyondTop));
}

#[test]
fn an_empty_range_reports_nothing_even_where_tracking_is_required() {
    let world = World::new();
    let range = world.map(2, RW);
    let request = ScanRequest::collect_written(VirtRange {
        start: range.start,
        end: range.start,
    });
    assert_eq!(
        world.space.scan(&request, &mut []),
        Ok(Scanned {
            runs: 0,
            end: range.start
        })
    );
}

#[test]
fn no_frame_for_the_tables_is_an_error_and_the_scan_can_be_repeated() {
    // A fresh space needs three nodes for its first page.
    for successes in 0..3 {
        let (world, _uffd, range) = tracked(4);
        let mut out = [PageRun::EMPTY; 4];
        allocator().inject_failure(successes);
        let result = world.space.scan(&ScanRequest::collect_written(range), &mut out);
        allocator().stop_injection();
        assert_eq!(result, Err(ScanError::OutOfMemory), "after {successes}");
        assert_eq!(collect(&world, range), [(0, 4)]);
        assert_eq!(collect(&world, range), []);
    }
}

#[test]
fn scans_go_across_tables_and_merge_over_their_borders() {
    let world = World::new();
    let range = world.map_at(Some(VirtAddr::new(0x4000_0000)), 1536, RW);
    let uffd = Uffd::new(&world.space, Features::WP_ASYNC);
    assert!(uffd.register(range, Modes::WP).is_ok());
    assert_eq!(collect(&world, range), [(0, 1536)]);
    store(&world, range, &[511, 512, 1024]);
    let middle = part(range, 511, 600);
    assert_eq!(written(&world, middle), [(0, 2), (513, 514)]);
    assert_eq!(collect(&world, range), [(511, 513), (1024, 1025)]);
}

#[test]
fn pages_of_an_object_are_told_from_a_mappings_own() {
    let world = object_world();
    let object = Object::new(&SHMEM, 8 * P);
    let shared = world.map_memory(Memory::shared(&object), None, 8, RW);
    let uffd = Uffd::new(&world.space, Features::WP_ASYNC);
    assert!(uffd.register(shared, Modes::WP).is_ok());
    store(&world, shared, &[0]);
    assert_eq!(
        scan(&world, shared, &everything(shared)),
        [(0, 1, WPA | WRITTEN | FILE | PRESENT), (1, 8, WPA | WRITTEN)]
    );
    collect(&world, shared);
    assert_eq!(
        scan(&world, shared, &everything(shared)),
        [(0, 1, WPA | FILE | PRESENT), (1, 8, WPA | MARKED)]
    );
    assert_eq!(world.load(page(shared, 1)), Ok(0));
    store(&world, shared, &[2]);
    assert_eq!(
        scan(&world, shared, &everything(shared)),
        [
            (0, 2, WPA | FILE | PRESENT),
            (2, 3, WPA | WRITTEN | FILE | PRESENT),
            (3, 8, WPA | MARKED)
        ]
    );

    let private = world.map_memory(Memory::private(&object), None, 8, RW);
    assert!(uffd.register(private, Modes::WP).is_ok());
    assert_eq!(world.load(page(private, 0)), Ok(1));
    store(&world, private, &[1]);
    assert_eq!(
        scan(&world, private, &everything(private)),
        [
            (0, 1, WPA | WRITTEN | FILE | PRESENT),
            (1, 2, WPA | WRITTEN | PRESENT),
            (2, 8, WPA | WRITTEN)
        ]
    );
    assert_eq!(uffd.write_protect(private), Ok(()));
    let word = |range, number| world.space.pagemap(page(range, number), false);
    assert_eq!(word(private, 0), 0xa200_0000_0000_0000, "mapped twice");
    assert_eq!(word(private, 1), 0x8300_0000_0000_0000);
    assert_eq!(word(private, 2), 0x4200_0000_0000_003f);
    assert_eq!(word(shared, 2), 0xa100_0000_0000_0000);
    assert_eq!(uffd.try_read_event(), NOTHING);
}

#[test]
fn a_huge_page_is_reported_page_by_page_and_protected_as_a_whole() {
    let world = object_world();
    let object = Object::new(&HUGETLB, 4 * HUGE_PAGES * P);
    let range = world.map_memory(Memory::shared(&object), None, 4 * HUGE_PAGES, RW);
    let uffd = Uffd::new(&world.space, Features::WP_ASYNC);
    assert!(uffd.register(range, Modes::WP).is_ok());
    assert_eq!(
        scan(&world, range, &everything(range)),
        [(0, 2048, WPA | HUGE)],
        "an empty huge page does not count as written"
    );
    store(&world, range, &[0]);
    let present = WPA | FILE | PRESENT | HUGE;
    assert_eq!(
        scan(&world, range, &everything(range)),
        [(0, 512, present | WRITTEN), (512, 2048, WPA | HUGE)]
    );
    let some = ScanRequest {
        max_pages: Some(100),
        ..ScanRequest::written(range)
    };
    let (runs, end) = scan_into(&world, range, &some, 4);
    assert_eq!((runs, end), (vec![(0, 100, WRITTEN)], 100));
    let protect_some = ScanRequest {
        protect: true,
        ..some
    };
    assert_eq!(scan_into(&world, range, &protect_some, 4), (vec![], 0));
    let late = VirtRange::new(range.start + P, range.end);
    assert_eq!(written(&world, late), [(0, 511)]);
    let (runs, end) = scan_into(&world, late, &ScanRequest::collect_written(late), 4);
    assert_eq!((runs, end), (vec![], 0));
    assert_eq!(written(&world, range), [(0, 512)], "still not protected");

    assert_eq!(collect(&world, range), [(0, 512)]);
    assert_eq!(
        scan(&world, range, &everything(range)),
        [(0, 512, present), (512, 2048, WPA | HUGE)]
    );
    assert_eq!(uffd.write_protect(range), Ok(()));
    assert_eq!(
        scan(&world, range, &everything(range)),
        [(0, 512, present), (512, 2048, WPA | MARKED | HUGE)]
    );
    let word = |number| world.space.pagemap(page(range, number), false);
    assert_eq!((word(0), word(511)), (0xa300 << 48, 0xa300 << 48));
    assert_eq!((word(512), word(2047)), (0x0200 << 48, 0x0200 << 48));
    store(&world, range, &[700]);
    assert_eq!(written(&world, range), [(512, 1024)]);
    assert_eq!(uffd.try_read_event(), NOTHING);
}

#[test]
fn whoever_copies_what_each_scan_reports_ends_up_with_what_the_writers_wrote() {
    const PAGES: u64 = 24;
    let (world, _uffd, range) = tracked(PAGES);
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3u64)
        .map(|writer| {
            let stop = Arc::clone(&stop);
            world.spawn("writer", move || {
                let mut value = writer + 1;
                while !stop.load(Ordering::Relaxed) {
                    // A different word of every page for each writer.
                    let at = page(range, value.wrapping_mul(2_654_435_761) % PAGES) + 8 * writer;
                    uaccess::store(at, value).expect("mapped");
                    value += 3;
                }
            })
        })
        .collect();
    let mut mirror = vec![[0u64; 3]; PAGES as usize];
    let mut copy_reported = || {
        for (start, end) in collect(&world, range) {
            for number in start..end {
                for (i, word) in mirror[number as usize].iter_mut().enumerate() {
                    *word = world
                        .run(|| uaccess::load(page(range, number) + 8 * i as u64))
                        .expect("mapped");
                }
            }
        }
    };
    for _ in 0..200 {
        copy_reported();
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        returned(writer);
    }
    copy_reported();
    for (number, words) in mirror.iter().enumerate() {
        for (i, word) in words.iter().enumerate() {
            assert_eq!(
                world.load(page(range, number as u64) + 8 * i as u64),
                Ok(*word),
                "page {number}, writer {i}"
            );
        }
    }
}

#[test]
fn the_words_of_pagemap_tell_presence_protection_and_markers() {
    let (world, uffd, range) = tracked(5);
    store(&world, range, &[0]);
    assert_eq!(world.load(page(range, 1)), Ok(0));
    assert_eq!(uffd.poison(part(range, 3, 1), NOW), Outcome::Done);
    assert_eq!(uffd.write_protect(part(range, 0, 3)), Ok(()));
    let word = |number| world.space.pagemap(page(range, number) + 8, false);
    assert_eq!(word(0), 1 << 63 | 1 << 57 | 1 << 56);
    assert_eq!(word(1), 1 << 63 | 1 << 57, "the page of zeros is everybody's");
    assert_eq!(word(2), 0x4200_0000_0000_003f);
    assert_eq!(word(3), 0x4000_0000_0000_005f);
    assert_eq!(word(4), 0);
    assert_eq!(world.space.pagemap(range.end, true), 0, "nothing is mapped");
    assert_eq!(world.store(page(range, 0), 1), Ok(()));
    assert_eq!(word(0), 1 << 63 | 1 << 56);
    assert_eq!(world.space.entry(page(range, 2)).0, Entry::Absent(Marker::UffdWp));
}

#[test]
fn frame_numbers_show_to_whoever_may_see_them() {
    let world = World::new();
    let range = world.map(1, RW);
    store(&world, range, &[0]);
    let Entry::Leaf(leaf) = world.space.entry(range.start).0 else {
        panic!("it was written");
    };
    let hidden = world.space.pagemap(range.start, false);
    assert_eq!(
        world.space.pagemap(range.start, true),
        hidden | leaf.frame.as_u64()
    );
    assert_eq!(hidden & ((1 << 55) - 1), 0);
}
