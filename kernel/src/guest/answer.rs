//! What comes back from a hypercall, told apart.

use core::fmt;

use crate::abi::guest::Status;

/// Why a call was not carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallError {
    /// As the hypervisor says; never [`Status::Done`].
    Refused(Status),
    /// It answers what the contract does not have.
    Unknown(u64),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = match self {
            Self::Refused(status) => status,
            Self::Unknown(number) => {
                return write!(f, "the hypervisor answers {number}, which means nothing");
            }
        };
        f.write_str(match status {
            Status::Done => "it was done",
            Status::NoSuchCall => "the hypervisor has no such call",
            Status::Invalid => "the hypervisor finds no sense in the arguments",
            Status::BadAddress => "an address does not lie where it has to",
            Status::Exists => "there is a page already",
            Status::Absent => "there is no page in the cache",
            Status::OutOfMemory => "the host has no memory left",
            Status::NotSupported => "this CPU cannot do it",
        })
    }
}

impl core::error::Error for CallError {}

/// What a call that fills pages came to: how far, and why no further.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Filled {
    /// Bytes that were done, from the first on.
    pub bytes: u64,
    /// Why it ended there; `None` when that is all.
    pub stop: Option<CallError>,
}

/// RAX and RDX of a call, read as the contract says.
pub fn decode(rax: u64, rdx: u64) -> Result<u64, CallError> {
    match Status::from_number(rax) {
        Some(Status::Done) => Ok(rdx),
        Some(status) => Err(CallError::Refused(status)),
        None => Err(CallError::Unknown(rax)),
    }
}

/// The same for a call that fills pages.
pub fn decode_fill(rax: u64, rdx: u64) -> Filled {
    Filled {
        bytes: rdx,
        stop: decode(rax, rdx).err(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_with_success_alone() {
        assert_eq!(decode(0, 7), Ok(7));
        for number in 1..8 {
            let status = Status::from_number(number).expect("the contract has these");
            assert_eq!(decode(number, 7), Err(CallError::Refused(status)));
        }
        assert_eq!(decode(8, 7), Err(CallError::Unknown(8)));
        assert_eq!(decode(u64::MAX, 7), Err(CallError::Unknown(u64::MAX)));
    }

    #[test]
    fn a_fill_says_how_far_it_came_also_when_it_was_refused() {
        assert_eq!(
            decode_fill(0, 8192),
            Filled {
                bytes: 8192,
                stop: None
            }
        );
        let exists = Filled {
            bytes: 4096,
            stop: Some(CallError::Refused(Status::Exists)),
        };
        assert_eq!(decode_fill(Status::Exists as u64, 4096), exists);
    }
}
