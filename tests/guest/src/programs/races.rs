//! Threads that map, unmap, protect, fork and touch the same pages at once, with a monitor that fills them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use guest_tests::child::fork;
use guest_tests::job::{self, until};
use guest_tests::region::*;
use guest_tests::sys::call;
use guest_tests::touch::{Touch, peek, poke};
use guest_tests::transcript::{check, show};
use guest_tests::uffd::*;

use super::wild_calls::Random;

/// Rounds of each thread.
const ROUNDS: usize = 400;

pub fn run() {
    touchers_and_mappers();
    fork_and_fill();
    two_monitors();
    super::wild_pointers::sane();
}

/// One region, and threads that do everything to it.
fn touchers_and_mappers() {
    let uffd = Uffd::with(0);
    let area = Region::anon("area", 16);
    let source = Region::filled("source", 1, 0x5c);
    uffd.watch(&area, MISSING | WP);
    let stop = Arc::new(AtomicBool::new(false));
    let monitor = {
        let (stop, fd) = (stop.clone(), uffd.fd);
        job::start(move || {
            let uffd = std::mem::ManuallyDrop::new(Uffd { fd });
            while !stop.load(Ordering::Acquire) {
                let _ = uffd.poll(10);
                while let Ok(message) = uffd.read() {
                    let page = message.address() & !(PAGE - 1);
                    if message.flags() & 2 != 0 {
                        let _ = uffd.writeprotect(page, PAGE, 0);
                    } else if uffd.copy(page, source.start, PAGE, 0).answer.is_err() {
                        let _ = uffd.wake(page, PAGE);
                    }
                }
            }
            "ended"
        })
    };
    let workers: Vec<_> = (1..6u64).map(|seed| worker(seed, area, uffd.fd)).collect();
    let done = workers.iter().filter(|worker| until(|| worker.done())).count();
    // Whoever waits for a page that was unmapped and mapped again is not told of it: everybody is woken once.
    let _ = uffd.unregister(area.start, area.len);
    let _ = uffd.wake(area.start, area.len);
    stop.store(true, Ordering::Release);
    let ends = workers
        .iter()
        .filter(|worker| worker.finish() == "through")
        .count();
    show("races: workers that came through", ends.max(done));
    show("races: the monitor", monitor.finish());
}

/// A thread that touches, maps, unmaps, protects and drops pages of the area.
fn worker(seed: u64, area: Region, fd: i32) -> job::Job {
    job::start(move || {
        let uffd = std::mem::ManuallyDrop::new(Uffd { fd });
        let mut random = Random(seed * 77_777);
        for _ in 0..ROUNDS {
            let (page, count) = (random.below(16), 1 + random.below(3));
            let (at, len) = (area.page(page), count.min(16 - page) * PAGE);
            match random.below(9) {
                0 => drop(call(libc::SYS_munmap, &[at, len])),
                1 | 2 => {
                    let _ = mmap(at, len, RW, ANON | libc::MAP_FIXED, -1, 0);
                    let _ = uffd.register(at, len, MISSING | WP);
                }
                3 => drop(mprotect(at, len, libc::PROT_READ).is_ok()),
                4 => drop(mprotect(at, len, RW).is_ok()),
                5 => drop(madvise(at, len, libc::MADV_DONTNEED).is_ok()),
                6 => drop(uffd.writeprotect(at, len, PROTECT).is_ok()),
                7 => drop(peek(at)),
                _ => drop(poke(at, 1)),
            }
            // Nobody waits for long: the page that one waits for may be somebody else's by now.
            let _ = uffd.wake(area.start, area.len);
        }
        "through"
    })
}

/// A parent that forks while its pages are filled and written.
fn fork_and_fill() {
    let uffd = Uffd::with(0);
    let area = Region::anon("area", 64);
    let source = Region::filled("source", 1, 0x5c);
    uffd.watch(&area, MISSING);
    let writer = job::start(move || {
        (0..64)
            .filter(|index| poke(area.page(*index), 1) == Touch::Written)
            .count()
    });
    let filler = {
        let fd = uffd.fd;
        job::start(move || {
            let uffd = std::mem::ManuallyDrop::new(Uffd { fd });
            let mut filled = 0;
            while filled < 64 {
                let Some(message) = uffd.next() else { break };
                if uffd
                    .copy(message.address() & !(PAGE - 1), source.start, PAGE, 0)
                    .answer
                    .is_ok()
                {
                    filled += 1;
                }
            }
            filled
        })
    };
    let mut good = 0;
    for _ in 0..20 {
        // Every page of a child is zeros, a copy, or a copy with the byte that was written.
        let child = fork(|| {
            let fine = (0..64).all(|index| {
                let (first, second) = (peek(area.page(index)), peek(area.page(index) + 1));
                matches!(
                    (first, second),
                    (Touch::Byte(0), Touch::Byte(0)) | (Touch::Byte(1 | 0x5c), Touch::Byte(0x5c))
                )
            });
            i32::from(!fine)
        });
        good += usize::from(child.wait() == "exit 0");
    }
    show("races: children that see whole pages", good);
    check("races: pages written", writer.finish(), "64");
    check("races: pages filled", filler.finish(), "64");
}

/// Two monitors read one descriptor: each fault is one's, and every page arrives.
fn two_monitors() {
    let uffd = Uffd::with(0);
    let area = Region::anon("area", 256);
    let source = Region::filled("source", 1, 0x5c);
    uffd.watch(&area, MISSING);
    let left = Arc::new(AtomicUsize::new(256));
    let monitors: Vec<_> = (0..2)
        .map(|_| {
            let (left, fd) = (left.clone(), uffd.fd);
            job::start(move || {
                let uffd = std::mem::ManuallyDrop::new(Uffd { fd });
                while left.load(Ordering::Acquire) > 0 {
                    let _ = uffd.poll(10);
                    if let Ok(message) = uffd.read() {
                        if uffd
                            .copy(message.address() & !(PAGE - 1), source.start, PAGE, 0)
                            .answer
                            .is_ok()
                        {
                            left.fetch_sub(1, Ordering::AcqRel);
                        } else {
                            let _ = uffd.wake(message.address() & !(PAGE - 1), PAGE);
                        }
                    }
                }
                "ended"
            })
        })
        .collect();
    let readers: Vec<_> = (0..4)
        .map(|_| {
            job::start(move || {
                (0..256)
                    .filter(|index| peek(area.page(*index)) == Touch::Byte(0x5c))
                    .count()
            })
        })
        .collect();
    for reader in &readers {
        check("races: pages that a reader sees", reader.finish(), "256");
    }
    for monitor in &monitors {
        check("races: a monitor", monitor.finish(), "ended");
    }
}
