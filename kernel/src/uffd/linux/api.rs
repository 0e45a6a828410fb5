//! The handshake.

use crate::abi::errno::Errno;
use crate::uffd::api::{API_VERSION, Agreement, ApiError};

/// What `UFFDIO_API` answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ApiAnswer {
    /// Success, or the error number.
    pub result: Result<(), Errno>,
    /// The argument as it is written back: `api`, `features`, `ioctls`. When it cannot be written the answer is EFAULT, and
    /// a handshake that would have succeeded is not made.
    pub argument: [u64; 3],
}

/// The answer for how a handshake ended. One that failed is written back as zeros.
pub const fn api(result: Result<Agreement, ApiError>) -> ApiAnswer {
    match result {
        Ok(agreement) => ApiAnswer {
            result: Ok(()),
            argument: [API_VERSION, agreement.offered.bits(), agreement.ioctls.bits()],
        },
        Err(error) => ApiAnswer {
            result: Err(match error {
                ApiError::NotPermitted => Errno::EPERM,
                ApiError::UnknownVersion | ApiError::UnknownFeature | ApiError::NotFresh => Errno::EINVAL,
            }),
            argument: [0; 3],
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uffd::{Features, Handshake, Release};

    #[test]
    fn success_writes_everything_on_offer_back() {
        let wanted = Handshake {
            api: API_VERSION,
            features: Features::THREAD_ID,
            may_trace: false,
        };
        let answer = api(Release::V6_18.negotiate(wanted));
        assert_eq!(answer.result, Ok(()));
        assert_eq!(answer.argument, [0xaa, 0x1_ffff, 0x8000_0000_0000_0003]);
    }

    #[test]
    fn failure_writes_zeros_back() {
        let rows = [
            (ApiError::UnknownVersion, 22),
            (ApiError::NotPermitted, 1),
            (ApiError::UnknownFeature, 22),
            (ApiError::NotFresh, 22),
        ];
        for (error, errno) in rows {
            let answer = api(Err(error));
            assert_eq!(answer.result.map_err(Errno::number), Err(errno), "{error:?}");
            assert_eq!(answer.argument, [0; 3]);
        }
    }
}
