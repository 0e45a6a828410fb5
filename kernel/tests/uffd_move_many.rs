//! MOVE of many pages: across tables and chunks, under the eyes of other CPUs, and without memory.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::moving::{Bed, HOLES, NOW};
use common::{
    RW, anon_frames, answer, eventually, page, part, populate, registered_with, returned, was_woken,
};
use kernel::arch::host::{Mode, SoftMachine};
use kernel::mm::addr::{PAGE_SIZE, VirtAddr};
use kernel::mm::fault::Access;
use kernel::mm::frame::{Kind, allocator};
use kernel::mm::pt::Entry;
use kernel::mm::space::Immovable;
use kernel::mm::uaccess;
use kernel::uffd::{Features, FillMode, Modes, Outcome, Refusal};

const P: u64 = PAGE_SIZE;

#[test]
fn runs_of_every_length_arrive_whole_across_tables_and_chunks() {
    const ALL: u64 = 1300;
    // Both ranges cross borders of 2 MiB, at different pages.
    for (pages, skew) in [(1, 0), (63, 500), (64, 511), (65, 448), (129, 400), (ALL - 7, 7)] {
        let (world, uffd, dst) = registered_with(ALL, Modes::MISSING, Features::empty());
        let src = world.map_at(Some(VirtAddr::new(0x1000_0000)), ALL, RW);
        populate(&world, src);
        let before = anon_frames();
        let outcome = uffd.move_pages(&world.space, page(dst, skew / 2), page(src, skew), pages * P, NOW);
        assert_eq!(outcome, Outcome::Done, "{pages} pages");
        assert_eq!(anon_frames(), before, "no frame more, no frame less");
        world.run(|| {
            for i in 0..pages {
                assert_eq!(uaccess::load(page(dst, skew / 2 + i)), Ok(skew + i + 1));
            }
        });
        let left = |i: u64| i < skew || i >= skew + pages;
        for i in 0..ALL {
            let there = matches!(world.space.entry(page(src, i)).0, Entry::Leaf(_));
            assert_eq!(there, left(i), "page {i} of the source");
        }
    }
}

#[test]
fn no_store_is_lost_while_its_page_moves_to_and_fro() {
    let (world, uffd, range) = registered_with(2, Modes::MISSING, Features::empty());
    let uffd = Arc::new(uffd);
    let (home, away) = (range.start, page(range, 1));
    assert_eq!(uffd.zeropage(part(range, 0, 1), FillMode::empty()), Outcome::Done);
    assert_eq!(world.store(home, 0), Ok(()));
    let space = Arc::clone(&world.space);
    let serving = Arc::clone(&uffd);
    let moved = Arc::new(AtomicU64::new(0));
    let moves = Arc::clone(&moved);
    // Takes the page away, looks that nobody writes to it there, and brings it back; for as long as somebody asks.
    let mover = world.spawn("mover", move || {
        loop {
            let taken = serving.move_pages(&space, away, home, P, NOW);
            assert!(
                taken == Outcome::Done || taken == Outcome::Refused(Refusal::Immovable(Immovable::NotOurs)),
                "{taken:?}"
            );
            if taken != Outcome::Done {
                return;
            }
            let seen = uaccess::load(away);
            for _ in 0..50 {
                assert_eq!(uaccess::load(away), seen, "written through its old address");
            }
            // Until somebody misses it, or for a while.
            for _ in 0..200 {
                if serving.try_read_event().is_ok() {
                    break;
                }
                std::thread::yield_now();
            }
            assert_eq!(serving.move_pages(&space, home, away, P, NOW), Outcome::Done);
            moves.fetch_add(1, Ordering::Relaxed);
        }
    });
    let writer = world.spawn("writer", move || {
        let mut stored = 0u64;
        while stored < 3000 || moved.load(Ordering::Relaxed) < 10 {
            assert_eq!(uaccess::load(home), Ok(stored));
            stored += 1;
            assert_eq!(uaccess::store(home, stored), Ok(()));
        }
        stored
    });
    let stored = returned(writer);
    // The mover finds its destination unregistered, with the page at home.
    assert_eq!(uffd.unregister(part(range, 1, 1)), Ok(()));
    returned(mover);
    assert_eq!(world.load(home), Ok(stored));
}

/// The machine complains at the end about a page that was reached at one address while a CPU had it cached for the other.
#[test]
fn no_cpu_stores_to_a_page_at_its_old_address_once_another_reaches_it_at_the_new_one() {
    const PAGES: u64 = 64;
    let bed = Bed::full(PAGES);
    bed.uffd
        .register(bed.src, Modes::MISSING)
        .expect("anonymous memory can");
    let stop = Arc::new(AtomicBool::new(false));
    let stored = Arc::new([const { AtomicU64::new(0) }; 3]);
    let places = [bed.src, bed.dst];
    // They store wherever the pages are at the moment, and ask nobody where they are not.
    let storers = [0, 1, 2].map(|n| {
        let (stop, stored) = (Arc::clone(&stop), Arc::clone(&stored));
        bed.world.spawn("storer", move || {
            while !stop.load(Ordering::Relaxed) {
                for place in places {
                    // The first page to arrive, one in the middle, and the last to be taken.
                    let at = page(place, [0, PAGES / 2, PAGES - 1][n]);
                    let machine = SoftMachine::current();
                    if machine.probe(at, Access::Write, Mode::Supervisor).is_ok() {
                        stored[n].fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        })
    });
    let to_and_fro = [(bed.dst, bed.src), (bed.src, bed.dst)];
    eventually("all of them stored while the pages moved", || {
        for (dst, src) in to_and_fro.into_iter().cycle().take(200) {
            assert_eq!(bed.move_at(dst.start, src.start, PAGES * P, NOW), Outcome::Done);
        }
        stored.iter().all(|count| count.load(Ordering::Relaxed) > 100)
    });
    stop.store(true, Ordering::Relaxed);
    storers.into_iter().for_each(returned);
    bed.world
        .run(|| (0..PAGES).for_each(|i| assert_eq!(uaccess::load(page(bed.src, i)), Ok(i + 1))));
}

// Memory that runs out.

#[test]
fn no_frame_for_the_tables_is_enomem_and_leaves_every_page_where_it_was() {
    // A destination in a part of the space that has nothing yet needs three nodes.
    for successes in 0..4 {
        let bed = Bed::full(3);
        let waiter = bed.world.stuck_at(bed.dst.start);
        let before = anon_frames();
        allocator().inject_failure(successes);
        let outcome = bed.move_pages(0, 0, 3, NOW);
        allocator().stop_injection();
        if successes < 3 {
            assert_eq!(
                (outcome, answer(outcome, P)),
                (Outcome::Refused(Refusal::OutOfMemory), (Some(12), Some(-12)))
            );
            assert!(!was_woken(&waiter));
            bed.world
                .run(|| (0..3).for_each(|i| assert_eq!(uaccess::load(page(bed.src, i)), Ok(i + 1))));
            assert_eq!(bed.entry(bed.dst.start), Entry::EMPTY);
            assert_eq!(
                bed.move_pages(0, 0, 3, NOW),
                Outcome::Done,
                "with memory it works"
            );
        } else {
            assert_eq!(outcome, Outcome::Done);
        }
        assert!(was_woken(&waiter));
        assert_eq!(anon_frames(), before);
    }
}

#[test]
fn no_frame_for_the_second_table_is_eagain_with_what_fitted_into_the_first() {
    let (world, uffd, dst) = registered_with(1024, Modes::MISSING, Features::empty());
    let src = world.map_at(Some(VirtAddr::new(0x1000_0000)), 1024, RW);
    populate(&world, src);
    let in_first = 512 - (dst.start.as_u64() / P) % 512;
    allocator().inject_failure(3);
    let outcome = uffd.move_pages(&world.space, dst.start, src.start, 1024 * P, NOW);
    allocator().stop_injection();
    let bytes = in_first * P;
    assert_eq!(
        outcome,
        Outcome::Partial {
            bytes,
            why: Refusal::OutOfMemory
        }
    );
    assert_eq!(anon_frames(), 1024);
    let rest = (page(dst, in_first), page(src, in_first), (1024 - in_first) * P);
    assert_eq!(
        uffd.move_pages(&world.space, rest.0, rest.1, rest.2, NOW),
        Outcome::Done
    );
    world.run(|| (0..1024).for_each(|i| assert_eq!(uaccess::load(page(dst, i)), Ok(i + 1))));
}

#[test]
fn holes_take_no_tables() {
    let bed = Bed::new(64);
    let before = allocator().stats().of(Kind::Table);
    allocator().inject_failure(0);
    assert_eq!(bed.move_pages(0, 0, 64, HOLES), Outcome::Done);
    allocator().stop_injection();
    assert_eq!(allocator().stats().of(Kind::Table), before);
}
