//! Reading and polling.

use crate::abi::errno::Errno;
use crate::uffd::event::ReadError;

/// What read answers when there is no message; `None` says "end of file", which Linux has no need of: whoever reads holds
/// the descriptor that keeps the context open.
pub const fn read(error: ReadError) -> Option<Errno> {
    match error {
        ReadError::WouldBlock => Some(Errno::EAGAIN),
        ReadError::Fresh => Some(Errno::EINVAL),
        ReadError::NotAdmitted => Some(Errno::EMFILE),
        ReadError::Interrupted => Some(Errno::EINTR),
        ReadError::Closed | ReadError::Orphaned => None,
    }
}

/// What poll finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Poll {
    /// Nothing.
    Nothing,
    /// A message can be read (POLLIN).
    Readable,
    /// Polling makes no sense (POLLERR).
    Error,
}

/// What poll finds at a context whose handshake is made or not, through a descriptor that is non-blocking or not, with
/// messages or not.
pub const fn poll(ready: bool, nonblocking: bool, readable: bool) -> Poll {
    match (ready && nonblocking, readable) {
        // Somebody else may read the message first, and then a blocking read would block.
        (false, _) => Poll::Error,
        (true, true) => Poll::Readable,
        (true, false) => Poll::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_nothing_has_linuxs_numbers() {
        let numbers = [
            (ReadError::WouldBlock, Some(11)),
            (ReadError::Fresh, Some(22)),
            (ReadError::NotAdmitted, Some(24)),
            (ReadError::Interrupted, Some(4)),
            (ReadError::Closed, None),
            (ReadError::Orphaned, None),
        ];
        for (error, errno) in numbers {
            assert_eq!(read(error).map(Errno::number), errno, "{error:?}");
        }
    }

    #[test]
    fn polling_is_an_error_before_the_handshake_and_on_a_blocking_descriptor() {
        for readable in [false, true] {
            assert_eq!(poll(false, true, readable), Poll::Error);
            assert_eq!(poll(false, false, readable), Poll::Error);
            assert_eq!(poll(true, false, readable), Poll::Error);
        }
        assert_eq!(poll(true, true, true), Poll::Readable);
        assert_eq!(poll(true, true, false), Poll::Nothing);
    }
}
