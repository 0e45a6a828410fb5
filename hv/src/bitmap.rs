//! A bit for each page of a slot, set and cleared without a lock.

use alloc::boxed::Box;
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

/// Bits by page number. Whoever finds a bit cleared sees what was done before it was.
#[derive(Debug)]
pub struct Bitmap {
    words: Box<[AtomicU64]>,
    len: u64,
}

impl Bitmap {
    /// `len` bits, none of them set.
    ///
    /// # Errors
    /// No kernel memory.
    pub fn new(len: u64) -> Result<Self, TryReserveError> {
        let count = len.div_ceil(64) as usize;
        let mut words = Vec::new();
        words.try_reserve_exact(count)?;
        words.resize_with(count, AtomicU64::default);
        Ok(Self {
            words: words.into_boxed_slice(),
            len,
        })
    }

    /// Number of bits.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The words, bit n of the bitmap being bit n % 64 of word n / 64: for whoever changes many at a time.
    pub fn words(&self) -> &[AtomicU64] {
        &self.words
    }

    /// Whether bit `bit` is set.
    ///
    /// # Panics
    /// There is no such bit.
    #[inline]
    pub fn is_set(&self, bit: u64) -> bool {
        self.word(bit).load(Ordering::Acquire) >> (bit % 64) & 1 != 0
    }

    /// Sets a bit.
    ///
    /// # Panics
    /// There is no such bit.
    #[inline]
    pub fn set(&self, bit: u64) {
        self.word(bit).fetch_or(1 << (bit % 64), Ordering::AcqRel);
    }

    /// Clears a bit. Returns whether it was set.
    ///
    /// # Panics
    /// There is no such bit.
    #[inline]
    pub fn clear(&self, bit: u64) -> bool {
        let before = self.word(bit).fetch_and(!(1 << (bit % 64)), Ordering::AcqRel);
        before >> (bit % 64) & 1 != 0
    }

    /// Sets all bits.
    pub fn set_all(&self) {
        (0..self.len).for_each(|bit| self.set(bit));
    }

    /// Number of bits that are set, if nobody changes any meanwhile.
    pub fn count(&self) -> u64 {
        let ones = |word: &AtomicU64| u64::from(word.load(Ordering::Acquire).count_ones());
        self.words.iter().map(ones).sum()
    }

    /// Clears all bits, and puts what they were into `out`, which has room.
    pub(crate) fn take(&self, out: &mut Vec<u64>) {
        out.extend(self.words.iter().map(|word| word.swap(0, Ordering::AcqRel)));
    }

    #[inline]
    fn word(&self, bit: u64) -> &AtomicU64 {
        assert!(bit < self.len, "bit {bit} of {}", self.len);
        &self.words[(bit / 64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_set_cleared_counted_and_taken() {
        let bits = Bitmap::new(130).expect("memory is plenty");
        assert_eq!((bits.len(), bits.count()), (130, 0));
        bits.set_all();
        assert_eq!(bits.count(), 130, "no bit past the end");
        assert!(bits.clear(129) && !bits.clear(129));
        assert!(bits.is_set(128) && !bits.is_set(129));
        let mut out = Vec::with_capacity(3);
        bits.take(&mut out);
        assert_eq!(out, [u64::MAX, u64::MAX, 0b01]);
        assert_eq!(bits.count(), 0);
    }

    #[test]
    #[should_panic(expected = "bit 64 of 64")]
    fn there_is_no_bit_past_the_end() {
        Bitmap::new(64).expect("memory is plenty").set(64);
    }
}
