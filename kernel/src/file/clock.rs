//! The time that files are stamped with.

use crate::abi::stat::Timestamp;
use crate::process::clock::realtime;

/// Now.
pub fn now() -> Timestamp {
    let now = realtime();
    Timestamp {
        seconds: now.as_secs() as i64,
        nanos: now.subsec_nanos(),
    }
}
