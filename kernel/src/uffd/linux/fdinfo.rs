//! The lines of `/proc/pid/fdinfo`.

use core::fmt;

use crate::uffd::api::{API_VERSION, Features, Ioctls};
use crate::uffd::ctx::READY;
use crate::uffd::release::Release;

/// What the file shows of a context; displayed as its lines.
#[derive(Clone, Copy, Debug)]
pub struct FdInfo {
    /// Faults that are not read yet.
    pub pending: usize,
    /// Those, and the ones that are read and not resolved.
    pub total: usize,
    /// What it was asked for; `None` before the handshake.
    pub features: Option<Features>,
    /// What it offers.
    pub release: &'static Release,
}

impl fmt::Display for FdInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let features = self.features.map_or(0, |features| features.bits() | READY);
        let ioctls = Ioctls::API | self.release.ioctls;
        writeln!(f, "pending:\t{}", self.pending)?;
        writeln!(f, "total:\t{}", self.total)?;
        writeln!(f, "API:\t{API_VERSION:x}:{features:x}:{:x}", ioctls.bits())
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    fn lines(pending: usize, total: usize, features: Option<Features>) -> alloc::string::String {
        FdInfo {
            pending,
            total,
            features,
            release: &Release::V6_18,
        }
        .to_string()
    }

    #[test]
    fn a_fresh_context_has_no_features_not_even_the_mark() {
        assert_eq!(
            lines(0, 0, None),
            "pending:\t0\ntotal:\t0\nAPI:\taa:0:80000000000001ff\n"
        );
    }

    #[test]
    fn features_carry_the_mark_and_what_they_imply() {
        let tracking = Features::WP_ASYNC.with_implied();
        assert_eq!(
            lines(2, 3, Some(tracking)),
            "pending:\t2\ntotal:\t3\nAPI:\taa:8000a000:80000000000001ff\n"
        );
        assert!(lines(0, 0, Some(Features::empty())).contains("aa:80000000:"));
    }
}
