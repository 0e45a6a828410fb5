//! The page in which the CPU describes a violation that it raises #VE for (SDM vol. 3C, 26.5.7.2).
//!
//! While its busy word is not 0, violations exit instead. The CPU sets it, and the handler clears it when it has read the
//! rest.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::abi::guest::{FAULT_FETCH, FAULT_WALK, FAULT_WRITE, PAGE, RingEntry};

/// Exit qualification of an EPT violation (SDM vol. 3C, table 28-7): a store, a fetch.
const WRITE: u64 = 1 << 1;
const FETCH: u64 = 1 << 2;
/// There is a linear address, and it was that which was touched: not a walk of the guest's tables towards it.
const LINEAR_VALID: u64 = 1 << 7;
const LINEAR_TOUCHED: u64 = 1 << 8;

/// The page.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct ViolationPage {
    reason: AtomicU32,
    busy: AtomicU32,
    qualification: AtomicU64,
    linear: AtomicU64,
    physical: AtomicU64,
}

const _: () = assert!(
    size_of::<ViolationPage>() == PAGE as usize && core::mem::offset_of!(ViolationPage, physical) == 24
);

impl ViolationPage {
    /// What was touched, as a ring's entry would say it; the next violation may come. Whether the page is in the cache is not
    /// among what the CPU knows. In which view it was is, but not every emulator tells it right (Bochs 2.7 does not).
    pub fn take(&self) -> RingEntry {
        let qualification = self.qualification.load(Ordering::Relaxed);
        let addr = self.physical.load(Ordering::Relaxed);
        self.busy.store(0, Ordering::Release);
        RingEntry {
            addr,
            flags: flags_of(qualification),
        }
    }
}

/// The flags of a ring's entry for this qualification.
fn flags_of(qualification: u64) -> u64 {
    let access = match qualification & (WRITE | FETCH) {
        0 => 0,
        FETCH => FAULT_FETCH,
        _ => FAULT_WRITE,
    };
    let walks = qualification & (LINEAR_VALID | LINEAR_TOUCHED) == LINEAR_VALID;
    if walks { access | FAULT_WALK } else { access }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_touched_is_read_and_the_page_is_free_again() {
        let page = ViolationPage {
            reason: AtomicU32::new(48),
            busy: AtomicU32::new(u32::MAX),
            qualification: AtomicU64::new(LINEAR_VALID | LINEAR_TOUCHED | WRITE),
            linear: AtomicU64::new(0xffff_8000_0000_0000),
            physical: AtomicU64::new(0x1_0000_0123),
        };
        let expected = RingEntry {
            addr: 0x1_0000_0123,
            flags: FAULT_WRITE,
        };
        assert_eq!(page.take(), expected);
        assert_eq!(page.busy.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn accesses_are_told_apart() {
        let touched = LINEAR_VALID | LINEAR_TOUCHED;
        for (qualification, flags) in [
            (touched | 1, 0),
            (touched | WRITE, FAULT_WRITE),
            // A CPU that updates its accessed and dirty bits reads and writes.
            (LINEAR_VALID | 1 | WRITE, FAULT_WRITE | FAULT_WALK),
            (touched | FETCH, FAULT_FETCH),
            (LINEAR_VALID | 1, FAULT_WALK),
            (1, 0),
        ] {
            assert_eq!(flags_of(qualification), flags, "{qualification:#x}");
        }
    }
}
