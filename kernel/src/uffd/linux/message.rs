//! A message as Linux's read gives it: 32 bytes (`struct uffd_msg`).
//!
//! | event | byte 0 | offset 8 | offset 16 | offset 24 |
//! | --- | --- | --- | --- | --- |
//! | page fault | 0x12 | flags | address | thread, 32 bits |
//! | fork | 0x13 | descriptor, 32 bits | | |
//! | remap | 0x14 | from | to | length before |
//! | remove | 0x15 | start | end | |
//! | unmap | 0x16 | start | end | |
//!
//! Everything else is zero. A fault of a guest's memory, which Linux's channel does not have, is a page fault with a flag
//! of its own, [`PAGEFAULT_FLAG_GUEST`].

use crate::abi::uffd::{
    EVENT_FORK, EVENT_PAGEFAULT, EVENT_REMAP, EVENT_REMOVE, EVENT_UNMAP, MESSAGE_SIZE, PAGEFAULT_FLAG_MINOR,
    PAGEFAULT_FLAG_WP, PAGEFAULT_FLAG_WRITE,
};
use crate::task::TaskId;
use crate::uffd::classify::TrapKind;
use crate::uffd::ctx::Uffd;
use crate::uffd::event::Event;

/// The address is guest-physical. Linux's flags end at bit 2.
pub const PAGEFAULT_FLAG_GUEST: u64 = 1 << 63;

/// The message about `event`. `descriptor` gives the number that the reader has put a fork's context under.
pub fn encode(event: &Event, descriptor: impl FnOnce(&Uffd) -> u32) -> [u8; MESSAGE_SIZE] {
    let (number, words) = match event {
        Event::Pagefault {
            kind,
            write,
            addr,
            thread,
        } => (
            EVENT_PAGEFAULT,
            fault_words(*kind, *write, addr.as_u64(), *thread, 0),
        ),
        Event::GuestFault {
            kind,
            write,
            addr,
            thread,
        } => {
            let stage = PAGEFAULT_FLAG_GUEST;
            (
                EVENT_PAGEFAULT,
                fault_words(*kind, *write, addr.as_u64(), *thread, stage),
            )
        }
        Event::Fork { uffd } => (EVENT_FORK, [descriptor(uffd).into(), 0, 0]),
        Event::Remap { from, to, len } => (EVENT_REMAP, [from.as_u64(), to.as_u64(), *len]),
        Event::Remove { range } => (EVENT_REMOVE, [range.start.as_u64(), range.end.as_u64(), 0]),
        Event::Unmap { range } => (EVENT_UNMAP, [range.start.as_u64(), range.end.as_u64(), 0]),
    };
    pack(number, words)
}

/// The message about a fork whose context the reader has under this descriptor.
pub fn fork(descriptor: u32) -> [u8; MESSAGE_SIZE] {
    pack(EVENT_FORK, [descriptor.into(), 0, 0])
}

#[inline]
fn pack(number: u8, words: [u64; 3]) -> [u8; MESSAGE_SIZE] {
    let mut message = [0; MESSAGE_SIZE];
    let [first, second, third] = words;
    for (bytes, word) in message
        .chunks_exact_mut(8)
        .zip([number.into(), first, second, third])
    {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    message
}

/// Flags, address and thread of a fault.
fn fault_words(kind: TrapKind, write: bool, addr: u64, thread: Option<TaskId>, more: u64) -> [u64; 3] {
    let why = match kind {
        TrapKind::Missing => 0,
        TrapKind::WriteProtect => PAGEFAULT_FLAG_WP,
        TrapKind::Minor => PAGEFAULT_FLAG_MINOR,
    };
    let access = if write { PAGEFAULT_FLAG_WRITE } else { 0 };
    // Linux's thread numbers have 32 bits.
    let thread = thread.map_or(0, |thread| u64::from(thread.as_u64() as u32));
    [why | access | more, addr, thread]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::addr::VirtAddr;
    use crate::mm::range::VirtRange;
    use crate::task::TaskId;

    const ADDR: VirtAddr = VirtAddr::new(0x7f12_3456_7000);
    const END: VirtAddr = VirtAddr::new(0x7f12_3456_9000);

    fn words(event: &Event) -> [u64; 4] {
        let message = encode(event, |_| unreachable!("no fork here"));
        let word = |i: usize| u64::from_le_bytes(message[i * 8..][..8].try_into().expect("8 bytes"));
        [word(0), word(1), word(2), word(3)]
    }

    #[test]
    fn every_kind_of_fault_has_its_flags() {
        let rows = [
            (TrapKind::Missing, false, 0),
            (TrapKind::Missing, true, 1),
            (TrapKind::WriteProtect, true, 3),
            (TrapKind::Minor, false, 4),
            (TrapKind::Minor, true, 5),
        ];
        for (kind, write, flags) in rows {
            let event = Event::Pagefault {
                kind,
                write,
                addr: ADDR,
                thread: None,
            };
            assert_eq!(words(&event), [0x12, flags, ADDR.as_u64(), 0]);
        }
    }

    #[test]
    fn the_thread_is_the_low_half_of_the_last_word() {
        let event = Event::Pagefault {
            kind: TrapKind::Missing,
            write: false,
            addr: ADDR,
            thread: Some(TaskId::from_u64(0x1_0000_0007)),
        };
        assert_eq!(words(&event)[3], 7);
    }

    #[test]
    fn ranges_and_moves_have_their_words_in_order() {
        let range = VirtRange {
            start: ADDR,
            end: END,
        };
        let (start, end) = (ADDR.as_u64(), END.as_u64());
        assert_eq!(words(&Event::Remove { range }), [0x15, start, end, 0]);
        assert_eq!(words(&Event::Unmap { range }), [0x16, start, end, 0]);
        let remap = Event::Remap {
            from: ADDR,
            to: END,
            len: 0x3000,
        };
        assert_eq!(words(&remap), [0x14, start, end, 0x3000]);
    }
}
