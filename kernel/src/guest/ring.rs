//! The ring in which the hypervisor says what was touched: the guest's end.
//!
//! The page is written by the hypervisor at any time, so all of it is atomic. Only the one CPU that takes interrupts of the
//! ring's vector takes entries out.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::abi::guest::{PAGE, RING_ENTRIES, Ring, RingEntry};

/// A page with a ring.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct RingPage {
    ring: Ring,
    /// Address and flags of each entry.
    entries: [[AtomicU64; 2]; RING_ENTRIES as usize],
}

const _: () = assert!(size_of::<RingPage>() == PAGE as usize);

impl RingPage {
    /// Takes the oldest entry out, if there is one.
    pub fn take(&self) -> Option<RingEntry> {
        let tail = self.ring.tail.load(Ordering::Relaxed);
        // What was put in is to be seen with the head that says so.
        if self.ring.head.load(Ordering::Acquire) == tail {
            return None;
        }
        let [addr, flags] = &self.entries[(tail % RING_ENTRIES) as usize];
        let entry = RingEntry {
            addr: addr.load(Ordering::Relaxed),
            flags: flags.load(Ordering::Relaxed),
        };
        // The place may be used again from here on.
        self.ring.tail.store(tail.wrapping_add(1), Ordering::Release);
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::AtomicU32;

    use super::*;

    fn ring_at(count: u32) -> RingPage {
        RingPage {
            ring: Ring {
                head: AtomicU32::new(count),
                tail: AtomicU32::new(count),
                reserved: [0; 3],
            },
            entries: [const { [const { AtomicU64::new(0) }; 2] }; RING_ENTRIES as usize],
        }
    }

    /// What the hypervisor does.
    fn put(page: &RingPage, entry: RingEntry) {
        let head = page.ring.head.load(Ordering::Relaxed);
        let place = &page.entries[(head % RING_ENTRIES) as usize];
        place[0].store(entry.addr, Ordering::Relaxed);
        place[1].store(entry.flags, Ordering::Relaxed);
        page.ring.head.store(head.wrapping_add(1), Ordering::Release);
    }

    #[test]
    fn entries_come_out_oldest_first_and_once_also_where_the_counters_wrap() {
        for start in [0, RING_ENTRIES - 1, u32::MAX - 1] {
            let page = ring_at(start);
            assert_eq!(page.take(), None);
            let entries = [1, 2, 3].map(|number| RingEntry {
                addr: number << 12,
                flags: number,
            });
            entries.iter().for_each(|entry| put(&page, *entry));
            for entry in entries {
                assert_eq!(page.take(), Some(entry));
            }
            assert_eq!(page.take(), None);
            assert_eq!(page.ring.tail.load(Ordering::Relaxed), start.wrapping_add(3));
        }
    }

    #[test]
    fn a_ring_that_is_full_gives_all_it_has() {
        let page = ring_at(7);
        for number in 0..u64::from(RING_ENTRIES) {
            put(
                &page,
                RingEntry {
                    addr: number,
                    flags: 0,
                },
            );
        }
        for number in 0..u64::from(RING_ENTRIES) {
            assert_eq!(page.take().map(|entry| entry.addr), Some(number));
        }
        assert_eq!(page.take(), None);
    }
}
