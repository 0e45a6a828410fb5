//! Several workloads and several monitors at once, on as many CPUs: whoever loses a race for a page wakes those who wait
//! for it, no wake-up is lost, and every byte is right. `STRESS_ROUNDS=200` makes a long run of it.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{RW, World, page, part, returned};
use kernel::arch::host::Config;
use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::range::VirtRange;
use kernel::mm::space::Privilege;
use kernel::mm::uaccess;
use kernel::uffd::{Event, Features, FillMode, Modes, Outcome, Refusal, Uffd};

const PAGES: u64 = 128;
const WORKLOADS: u64 = 4;
const MONITORS: u64 = 3;

fn rounds() -> u64 {
    std::env::var("STRESS_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(5)
}

/// What page `number` begins with; the workloads write their own words behind it.
fn expected(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn contents(first: u64, pages: u64) -> Vec<u8> {
    let one = |number: u64| {
        [
            expected(number).to_ne_bytes().to_vec(),
            vec![0; PAGE_SIZE as usize - 8],
        ]
        .concat()
    };
    (first..first + pages).flat_map(one).collect()
}

/// Serves until the context is closed; fills up to `prefetch` pages beyond the one that was asked for.
fn serve(uffd: &Uffd, range: VirtRange, prefetch: u64, filled: &AtomicU64) {
    while let Ok(Event::Pagefault { addr, .. }) = uffd.read_event() {
        let first = (addr - range.start) / PAGE_SIZE;
        let pages = (1 + prefetch).min(PAGES - first);
        let outcome = uffd.copy(
            addr,
            &contents(first, pages),
            pages * PAGE_SIZE,
            FillMode::empty(),
        );
        filled.fetch_add(outcome.bytes(pages * PAGE_SIZE) / PAGE_SIZE, Ordering::Relaxed);
        match outcome {
            Outcome::Done
            | Outcome::Partial {
                why: Refusal::Exists, ..
            } => {}
            // Another monitor filled it; its wake may have come before this fault was queued.
            Outcome::Refused(Refusal::Exists) => {
                uffd.wake(part(range, first, 1)).expect("a good range");
            }
            // Closed with a message still in hand: everybody was served.
            Outcome::Refused(Refusal::NotRegistered) => return,
            other => panic!("page {first}: {other:?}"),
        }
    }
}

/// Visits every page in an order of its own, checks the first word and leaves a word of its own.
fn work(range: VirtRange, worker: u64) {
    let stride = [1, 37, PAGES - 1, 53][worker as usize % 4];
    for i in 0..PAGES {
        let number = (i * stride + worker) % PAGES;
        let at = page(range, number);
        assert_eq!(uaccess::load(at), Ok(expected(number)), "page {number}");
        assert_eq!(uaccess::store(at + 8 * (worker + 1), number), Ok(()));
    }
}

#[test]
fn racing_monitors_serve_racing_workloads_without_losing_a_wake_up() {
    for round in 0..rounds() {
        let world = World::with(Config { memory: 4 << 20 }, Privilege::Kernel);
        let range = world.map(PAGES, RW);
        let uffd = Arc::new(Uffd::new(&world.space, Features::empty()));
        uffd.register(range, Modes::MISSING)
            .expect("anonymous memory can");
        let filled = Arc::new(AtomicU64::new(0));
        let monitors: Vec<_> = (0..MONITORS)
            .map(|n| {
                let (uffd, filled) = (Arc::clone(&uffd), Arc::clone(&filled));
                world.spawn("monitor", move || serve(&uffd, range, (n + round) % 4, &filled))
            })
            .collect();
        let workloads: Vec<_> = (0..WORKLOADS)
            .map(|n| world.spawn("workload", move || work(range, n)))
            .collect();
        workloads.into_iter().for_each(returned);
        uffd.close();
        monitors.into_iter().for_each(returned);
        assert_eq!(filled.load(Ordering::Relaxed), PAGES, "each page was filled once");
        world.run(|| {
            for (number, worker) in (0..PAGES).flat_map(|n| (0..WORKLOADS).map(move |w| (n, w))) {
                assert_eq!(uaccess::load(page(range, number) + 8 * (worker + 1)), Ok(number));
            }
        });
    }
}

#[test]
fn closing_in_the_middle_of_it_hangs_nobody() {
    for round in 0..rounds() {
        let world = World::with(Config { memory: 4 << 20 }, Privilege::Kernel);
        let range = world.map(PAGES, RW);
        let uffd = Arc::new(Uffd::new(&world.space, Features::empty()));
        uffd.register(range, Modes::MISSING)
            .expect("anonymous memory can");
        let filled = Arc::new(AtomicU64::new(0));
        let monitor = {
            let (uffd, filled) = (Arc::clone(&uffd), Arc::clone(&filled));
            world.spawn("monitor", move || {
                // Closed by then, the rest of the registration is gone: stop at the first refusal.
                while let Ok(Event::Pagefault { addr, .. }) = uffd.read_event() {
                    let number = (addr - range.start) / PAGE_SIZE;
                    if uffd.copy(addr, &contents(number, 1), PAGE_SIZE, FillMode::empty()) != Outcome::Done {
                        uffd.wake(part(range, number, 1)).expect("a good range");
                    }
                    filled.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let workloads: Vec<_> = (0..WORKLOADS)
            .map(|n| {
                world.spawn("workload", move || {
                    for i in 0..PAGES {
                        let number = (i + n * 32) % PAGES;
                        let word = uaccess::load(page(range, number)).expect("mapped");
                        assert!(
                            word == expected(number) || word == 0,
                            "filled, or plain after the end"
                        );
                    }
                })
            })
            .collect();
        common::eventually("some pages were served", || {
            filled.load(Ordering::Relaxed) > 10 + round
        });
        uffd.close();
        workloads.into_iter().for_each(returned);
        returned(monitor);
    }
}

#[test]
fn mapping_touching_and_unmapping_on_several_cpus_leaves_nothing_behind() {
    for _ in 0..rounds() {
        let world = World::with(Config { memory: 8 << 20 }, Privilege::Kernel);
        let tasks: Vec<_> = (0..4u64)
            .map(|n| {
                let space = Arc::clone(&world.space);
                world.spawn("mapper", move || {
                    for i in 0..20u64 {
                        let request = kernel::mm::space::MapRequest {
                            at: None,
                            len: (1 + (i + n) % 7) * PAGE_SIZE,
                            prot: RW,
                            memory: kernel::mm::space::Memory::Own(&kernel::mm::memtype::anon::ANON),
                        };
                        let range = space.map(request).expect("there is room");
                        (0..range.pages()).for_each(|p| uaccess::store(page(range, p), n).expect("mapped"));
                        space.discard(part(range, 0, 1)).expect("mapped");
                        assert_eq!(uaccess::load(range.start), Ok(0));
                        space.unmap(range).expect("mapped");
                    }
                })
            })
            .collect();
        tasks.into_iter().for_each(returned);
        assert!(world.space.areas().is_empty());
    }
}
