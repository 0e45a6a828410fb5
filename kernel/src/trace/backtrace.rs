//! Return addresses, by frame pointers.
//!
//! The kernel is built with frame pointers: at `[fp]` stands the caller's frame pointer, at `[fp + 8]` the address it
//! goes on at. The walk trusts nothing: it reads through a function that can fail, wants each frame above the last and
//! on the same stack, and ends after [`DEPTH`] frames.

use arrayvec::ArrayVec;

/// Most return addresses that are kept.
pub const DEPTH: usize = 48;
/// No frame is larger, and no stack; a longer step means that the chain is broken.
const LONGEST_STEP: u64 = 256 * 1024;

/// Return addresses, innermost first.
pub type Backtrace = ArrayVec<u64, DEPTH>;

/// Follows the chain that begins at frame pointer `fp`. `read` gives the word at an address, or `None` where nothing
/// can be read.
///
/// `trap` knows the frames that the entry code of exceptions and interrupts builds: for a return address into that
/// code and the address just above it on the stack, it gives the address that was interrupted. The chain itself goes on
/// by the frame pointer, which the entry code leaves alone.
pub fn walk(
    mut fp: u64,
    read: impl Fn(u64) -> Option<u64>,
    trap: impl Fn(u64, u64) -> Option<u64>,
    into: &mut Backtrace,
) {
    while fp != 0 && fp.is_multiple_of(8) {
        let (Some(next), Some(address)) = (read(fp), fp.checked_add(8).and_then(&read)) else {
            return;
        };
        if address == 0 || into.try_push(address).is_err() {
            return;
        }
        if let Some(interrupted) = trap(address, fp + 16)
            && into.try_push(interrupted).is_err()
        {
            return;
        }
        if next <= fp || next - fp > LONGEST_STEP {
            return;
        }
        fp = next;
    }
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;

    fn walk_words(fp: u64, words: &[(u64, u64)], trap: impl Fn(u64, u64) -> Option<u64>) -> Vec<u64> {
        let mut found = Backtrace::new();
        let read = |at| words.iter().find(|(addr, _)| *addr == at).map(|(_, word)| *word);
        walk(fp, read, trap, &mut found);
        found.to_vec()
    }

    fn no_trap(_: u64, _: u64) -> Option<u64> {
        None
    }

    #[test]
    fn chain_is_followed_until_the_frame_pointer_is_zero() {
        let stack = [
            (0x100, 0x140),
            (0x108, 1),
            (0x140, 0x180),
            (0x148, 2),
            (0x180, 0),
            (0x188, 3),
        ];
        assert_eq!(walk_words(0x100, &stack, no_trap), vec![1, 2, 3]);
    }

    #[test]
    fn return_address_zero_ends_the_chain() {
        let stack = [
            (0x100, 0x140),
            (0x108, 1),
            (0x140, 0x180),
            (0x148, 0),
            (0x180, 0),
            (0x188, 3),
        ];
        assert_eq!(walk_words(0x100, &stack, no_trap), vec![1]);
    }

    #[test]
    fn unreadable_memory_ends_the_chain() {
        assert_eq!(walk_words(0x100, &[(0x100, 0x140), (0x108, 1)], no_trap), vec![1]);
        assert_eq!(walk_words(0x100, &[(0x100, 0x140)], no_trap), Vec::<u64>::new());
    }

    #[test]
    fn cycle_and_descending_chain_end() {
        assert_eq!(walk_words(0x100, &[(0x100, 0x100), (0x108, 1)], no_trap), vec![1]);
        assert_eq!(
            walk_words(0x100, &[(0x100, 0xf0), (0x108, 1), (0xf0, 0), (0xf8, 2)], no_trap),
            vec![1]
        );
    }

    #[test]
    fn step_to_another_stack_ends_the_chain() {
        let far = 0x100 + LONGEST_STEP + 8;
        assert_eq!(
            walk_words(
                0x100,
                &[(0x100, far), (0x108, 1), (far, 0), (far + 8, 2)],
                no_trap
            ),
            vec![1]
        );
    }

    #[test]
    fn odd_frame_pointer_and_the_top_of_the_address_space_are_refused() {
        assert_eq!(
            walk_words(0x101, &[(0x101, 0), (0x109, 1)], no_trap),
            Vec::<u64>::new()
        );
        assert_eq!(
            walk_words(u64::MAX - 7, &[(u64::MAX - 7, 0)], no_trap),
            Vec::<u64>::new()
        );
    }

    #[test]
    fn interrupted_address_follows_the_entry_code() {
        let stack = [(0x100, 0x140), (0x108, 1), (0x140, 0), (0x148, 2)];
        let trap = |address, above| (address == 1).then_some(above);
        assert_eq!(walk_words(0x100, &stack, trap), vec![1, 0x110, 2]);
    }

    #[test]
    fn endless_chain_stops_at_the_depth() {
        let mut found = Backtrace::new();
        walk(
            8,
            |at| Some(if at % 16 == 8 { at + 16 } else { 7 }),
            no_trap,
            &mut found,
        );
        assert_eq!(found.len(), DEPTH);
    }
}
