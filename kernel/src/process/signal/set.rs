//! Sets of signals.

use core::fmt;
use core::ops::{BitAnd, BitOr, Not, Sub};

use crate::abi::signal::{SIGKILL, SIGNALS, SIGSTOP};

/// A set of signals: bit n - 1 is signal n, as in Linux's `sigset_t`.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct SignalSet(u64);

impl SignalSet {
    /// No signal.
    pub const EMPTY: Self = Self(0);
    /// Signals that nobody can block, catch or ignore.
    pub const UNSTOPPABLE: Self = Self::of(&[SIGKILL, SIGSTOP]);

    /// These signals.
    pub const fn of(signals: &[u8]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < signals.len() {
            bits |= 1 << (signals[at] - 1);
            at += 1;
        }
        Self(bits)
    }

    /// From Linux's word.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// As Linux's word.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether `signal`, from 1 to 64, is in it.
    pub const fn contains(self, signal: u8) -> bool {
        self.0 >> (signal - 1) & 1 != 0
    }

    /// Whether none is.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// With `signal` in it.
    #[must_use]
    pub const fn with(self, signal: u8) -> Self {
        Self(self.0 | 1 << (signal - 1))
    }

    /// Without `signal`.
    #[must_use]
    pub const fn without(self, signal: u8) -> Self {
        Self(self.0 & !(1 << (signal - 1)))
    }

    /// The lowest number in it.
    pub const fn first(self) -> Option<u8> {
        if self.0 == 0 {
            return None;
        }
        Some(self.0.trailing_zeros() as u8 + 1)
    }
}

impl BitAnd for SignalSet {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl BitOr for SignalSet {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Sub for SignalSet {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl Not for SignalSet {
    type Output = Self;
    fn not(self) -> Self {
        Self(!self.0)
    }
}

impl fmt::Debug for SignalSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries((1..=SIGNALS).filter(|signal| self.contains(*signal)))
            .finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_signal_have_a_place() {
        let set = SignalSet::EMPTY.with(1).with(64);
        assert_eq!(set.bits(), 1 | 1 << 63);
        assert!(set.contains(1) && set.contains(64) && !set.contains(2));
        assert_eq!(set.first(), Some(1));
        assert_eq!(set.without(1).first(), Some(64));
        assert_eq!(set.without(1).without(64), SignalSet::EMPTY);
        assert_eq!(SignalSet::EMPTY.first(), None);
        assert_eq!((!SignalSet::EMPTY - set).bits(), !(1 | 1 << 63));
    }
}
