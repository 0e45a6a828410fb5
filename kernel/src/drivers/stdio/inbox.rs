//! Standard input as it comes over the line: asked for a frame at a time, so that nothing arrives unasked.
//!
//! ```text
//!            ask                 length byte n > 0               n bytes
//!   Quiet ─────────► Asked ──────────────────────────► Body ─────────────► Quiet, with n bytes to take
//!     ▲                │ length byte 0                                        │
//!     │                ▼                                                      │
//!     │              Ended                                 all taken          │
//!     └───────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! The kernel asks with a byte ([`REQUEST`]); the other side answers with one frame: a length byte from 1 to 255 and so many
//! bytes, or 0 for the end of the file. The frame is asked for when somebody wants input and none is there. So a program that
//! never looks at its input runs the same whatever is there for it, and what it leaves is not taken from the host either.

use arrayvec::ArrayVec;

/// What is sent to ask for a frame.
pub const REQUEST: u8 = b'?';
/// Most bytes of a frame.
pub const FRAME: usize = u8::MAX as usize;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Nothing is on its way.
    Quiet,
    /// A frame was asked for.
    Asked,
    /// So many bytes of it are to come.
    Body(u8),
    /// The file has ended.
    Ended,
}

/// The frame that is being received or read.
#[derive(Debug)]
pub struct Inbox {
    state: State,
    bytes: ArrayVec<u8, FRAME>,
    /// How many of `bytes` were taken.
    taken: usize,
}

/// What a byte from the line came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// More is to come.
    Partial,
    /// There is something to take, be it the end of the file.
    Ready,
    /// Nobody asked for it; it was dropped.
    Unasked,
}

impl Inbox {
    /// Nothing there, nothing asked for.
    pub const fn new() -> Self {
        Self {
            state: State::Quiet,
            bytes: ArrayVec::new_const(),
            taken: 0,
        }
    }

    /// Whether [`take`](Self::take) has an answer.
    pub fn is_ready(&self) -> bool {
        self.state == State::Ended || self.state == State::Quiet && self.taken < self.bytes.len()
    }

    /// Whether a frame was asked for that has not wholly come.
    pub fn is_awaited(&self) -> bool {
        matches!(self.state, State::Asked | State::Body(_))
    }

    /// Somebody wants input. Says whether [`REQUEST`] has to be sent: nothing is there and nothing is on its way.
    pub fn ask(&mut self) -> bool {
        let ask = !self.is_ready() && !self.is_awaited();
        if ask {
            self.bytes.clear();
            self.taken = 0;
            self.state = State::Asked;
        }
        ask
    }

    /// Takes the next byte of the line.
    pub fn push(&mut self, byte: u8) -> Arrival {
        self.state = match (self.state, byte) {
            (State::Quiet | State::Ended, _) => return Arrival::Unasked,
            (State::Asked, 0) => State::Ended,
            (State::Asked, length) => State::Body(length),
            (State::Body(left), byte) => {
                self.bytes.push(byte);
                match left - 1 {
                    0 => State::Quiet,
                    left => State::Body(left),
                }
            }
        };
        if self.is_awaited() {
            Arrival::Partial
        } else {
            Arrival::Ready
        }
    }

    /// Moves bytes into `buffer`, as many as are there and fit; `None` when nothing is there yet, `Some(0)` at the end of the
    /// file (and for an empty buffer when something is there).
    pub fn take(&mut self, buffer: &mut [u8]) -> Option<usize> {
        if !self.is_ready() {
            return None;
        }
        let left = &self.bytes[self.taken..];
        let count = left.len().min(buffer.len());
        buffer[..count].copy_from_slice(&left[..count]);
        self.taken += count;
        Some(count)
    }
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn push(inbox: &mut Inbox, bytes: &[u8]) -> Vec<Arrival> {
        bytes.iter().map(|&byte| inbox.push(byte)).collect()
    }

    #[test]
    fn nothing_is_there_until_a_whole_frame_has_come() {
        let mut inbox = Inbox::new();
        assert_eq!(inbox.take(&mut [0; 4]), None);
        assert!(inbox.ask());
        assert_eq!(push(&mut inbox, &[2, b'a']), [Arrival::Partial; 2]);
        assert_eq!(inbox.take(&mut [0; 4]), None);
        assert_eq!(inbox.push(b'b'), Arrival::Ready);
        let mut buffer = [0; 4];
        assert_eq!(inbox.take(&mut buffer), Some(2));
        assert_eq!(&buffer, b"ab\0\0");
        assert_eq!(inbox.take(&mut buffer), None);
    }

    #[test]
    fn a_frame_is_asked_for_once_and_only_when_nothing_is_left() {
        let mut inbox = Inbox::new();
        assert!(inbox.ask());
        assert!(!inbox.ask(), "it is on its way");
        inbox.push(2);
        assert!(!inbox.ask(), "it is half there");
        push(&mut inbox, b"xy");
        assert!(!inbox.ask(), "it is there");
        assert_eq!(inbox.take(&mut [0]), Some(1));
        assert!(!inbox.ask(), "half of it is left");
        assert_eq!(inbox.take(&mut [0]), Some(1));
        assert!(inbox.ask());
    }

    #[test]
    fn the_end_of_the_file_stays() {
        let mut inbox = Inbox::new();
        assert!(inbox.ask());
        assert_eq!(inbox.push(0), Arrival::Ready);
        for _ in 0..3 {
            assert!(inbox.is_ready() && !inbox.ask());
            assert_eq!(inbox.take(&mut [0; 8]), Some(0));
        }
    }

    #[test]
    fn what_nobody_asked_for_is_dropped() {
        let mut inbox = Inbox::new();
        assert_eq!(inbox.push(7), Arrival::Unasked);
        assert!(inbox.ask());
        push(&mut inbox, &[1, b'x']);
        assert_eq!(inbox.push(b'y'), Arrival::Unasked);
        let mut buffer = [0; 2];
        assert_eq!(inbox.take(&mut buffer), Some(1));
        assert!(inbox.ask());
        assert_eq!(inbox.push(0), Arrival::Ready);
        assert_eq!(inbox.push(1), Arrival::Unasked);
        assert_eq!(inbox.take(&mut buffer), Some(0));
    }

    #[test]
    fn an_empty_buffer_takes_nothing() {
        let mut inbox = Inbox::new();
        assert_eq!(inbox.take(&mut []), None);
        inbox.ask();
        push(&mut inbox, &[1, b'x']);
        assert_eq!(inbox.take(&mut []), Some(0));
        assert!(inbox.is_ready());
    }

    proptest! {
        #[test]
        fn a_file_arrives_whole_however_it_is_framed_and_read(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..=FRAME), 0..8),
            reads in prop::collection::vec(1_usize..600, 1..20),
        ) {
            let (mut inbox, mut got) = (Inbox::new(), Vec::<u8>::new());
            let mut line = frames.iter().map(Vec::as_slice).chain([&[][..]]);
            let mut sizes = reads.iter().cycle();
            loop {
                if inbox.ask() {
                    let frame = line.next().expect("nothing is asked for after the end");
                    inbox.push(frame.len() as u8);
                    push(&mut inbox, frame);
                }
                let mut buffer = vec![0; *sizes.next().expect("it cycles")];
                match inbox.take(&mut buffer).expect("a whole frame is there") {
                    0 => break,
                    count => got.extend(&buffer[..count]),
                }
            }
            prop_assert_eq!(got, frames.concat());
        }
    }
}
