//! The ring in which a guest's monitor is told of faults, seen from the host.
//!
//! The page is the guest's: what it holds is an allegation. The host keeps its own head; the guest's tail must lie within
//! [`RING_ENTRIES`] behind it, or the guest is not to be trusted any more.

use core::fmt;

use kernel::abi::guest::{RING_ENTRIES, Ring, RingEntry};
use kernel::mm::addr::GuestPhysAddr;

/// Why no entry can be put in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RingError {
    /// The tail is nowhere near the head.
    Lie {
        /// What the host has put in.
        head: u32,
        /// What the guest says it has taken out.
        tail: u32,
    },
    /// The guest takes nothing out.
    Full,
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lie { head, tail } => write!(
                f,
                "its ring of faults says that {tail} entries were taken out, and {head} were put in"
            ),
            Self::Full => write!(
                f,
                "its ring of faults is full: {RING_ENTRIES} entries, and none is taken out"
            ),
        }
    }
}

/// The host's end of a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Producer {
    /// Address of the page.
    pub page: GuestPhysAddr,
    head: u32,
}

/// Where the parts of the page lie.
const HEAD: u64 = core::mem::offset_of!(Ring, head) as u64;
const TAIL: u64 = core::mem::offset_of!(Ring, tail) as u64;
const ENTRIES: u64 = size_of::<Ring>() as u64;

impl Producer {
    /// A ring whose page the guest has cleared.
    pub const fn new(page: GuestPhysAddr) -> Self {
        Self { page, head: 0 }
    }

    /// Address of the word that holds the guest's tail.
    pub fn tail_at(&self) -> GuestPhysAddr {
        self.page + TAIL
    }

    /// Address of the word that holds the head.
    pub fn head_at(&self) -> GuestPhysAddr {
        self.page + HEAD
    }

    /// Where the next entry goes, given the guest's tail.
    ///
    /// # Errors
    /// There is no room, or never was so much.
    pub fn next(&self, tail: u32) -> Result<GuestPhysAddr, RingError> {
        match self.head.wrapping_sub(tail) {
            RING_ENTRIES => Err(RingError::Full),
            used if used < RING_ENTRIES => {
                let index = u64::from(self.head % RING_ENTRIES);
                Ok(self.page + ENTRIES + index * size_of::<RingEntry>() as u64)
            }
            _ => Err(RingError::Lie {
                head: self.head,
                tail,
            }),
        }
    }

    /// The entry is in place; the head to be published.
    pub fn advance(&mut self) -> u32 {
        self.head = self.head.wrapping_add(1);
        self.head
    }
}

/// The bytes of an entry.
pub fn bytes_of(entry: RingEntry) -> [u8; size_of::<RingEntry>()] {
    let mut bytes = [0; size_of::<RingEntry>()];
    bytes[..8].copy_from_slice(&entry.addr.to_le_bytes());
    bytes[8..].copy_from_slice(&entry.flags.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring_at(head: u32) -> Producer {
        Producer {
            page: GuestPhysAddr::new(0x5000),
            head,
        }
    }

    #[test]
    fn entries_follow_the_head_of_the_page_and_stay_in_it() {
        let mut ring = ring_at(0);
        assert_eq!(ring.next(0), Ok(GuestPhysAddr::new(0x5020)));
        assert_eq!(ring.advance(), 1);
        assert_eq!(ring.next(0), Ok(GuestPhysAddr::new(0x5030)));
        for head in [RING_ENTRIES - 1, 2 * RING_ENTRIES - 1] {
            let last = ring_at(head).next(head).expect("it is empty");
            assert!(last.as_u64() + 16 <= 0x6000);
        }
    }

    #[test]
    fn a_ring_that_nobody_empties_is_full() {
        assert_eq!(ring_at(RING_ENTRIES).next(0), Err(RingError::Full));
        assert!(ring_at(RING_ENTRIES).next(1).is_ok());
    }

    #[test]
    fn an_impossible_tail_is_a_lie() {
        for (head, tail) in [(0, 1), (5, 6), (1000, 5), (0, u32::MAX / 2)] {
            assert_eq!(ring_at(head).next(tail), Err(RingError::Lie { head, tail }));
        }
        assert!(
            ring_at(2).next(u32::MAX).is_ok(),
            "counters wrap: three are in the ring"
        );
    }
}
