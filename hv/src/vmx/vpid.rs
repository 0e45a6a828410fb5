//! Tags of cached translations (VPIDs, SDM vol. 3C, 29.1).
//!
//! With a tag of its own a vCPU's translations, and the host's, outlive entries and exits. Who takes a tag may find what its
//! last owner left, so a new vCPU drops what there is (INVVPID) before it runs. Where all tags are taken a vCPU goes without.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Tags that there are, more than anybody runs vCPUs.
const TAGS: usize = 1024;

/// Bit n: tag n is taken. Tag 0 is the host's.
static TAKEN: [AtomicU64; TAGS / 64] = {
    let mut taken = [const { AtomicU64::new(0) }; TAGS / 64];
    taken[0] = AtomicU64::new(1);
    taken
};

/// A tag that nobody else has.
#[derive(Debug)]
pub(super) struct Vpid(u16);

#[cfg_attr(
    not(any(target_os = "none", test)),
    expect(dead_code, reason = "for the instructions")
)]
impl Vpid {
    /// Takes a tag; none if none is left.
    pub fn take() -> Option<Self> {
        take_from(&TAKEN).map(Self)
    }

    /// Its number, not 0.
    pub fn number(&self) -> u16 {
        self.0
    }
}

impl Drop for Vpid {
    fn drop(&mut self) {
        let number = usize::from(self.0);
        TAKEN[number / 64].fetch_and(!(1 << (number % 64)), Relaxed);
    }
}

/// The number of a bit that was clear and is set now.
fn take_from(words: &[AtomicU64]) -> Option<u16> {
    words.iter().enumerate().find_map(|(index, word)| {
        let old = word
            .fetch_update(Relaxed, Relaxed, |taken| {
                taken.checked_add(1).map(|next| taken | next)
            })
            .ok()?;
        Some((index * 64) as u16 + old.trailing_ones() as u16)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_has_one_owner_and_is_not_the_hosts() {
        let (a, b) = (Vpid::take().expect("free"), Vpid::take().expect("free"));
        assert!(a.number() != 0 && b.number() != 0 && a.number() != b.number());
        let number = a.number();
        drop(a);
        assert_eq!(Vpid::take().expect("free").number(), number);
    }

    #[test]
    fn when_all_are_taken_there_is_none() {
        let words = [const { AtomicU64::new(0) }; 2];
        for expected in 0..128 {
            assert_eq!(take_from(&words), Some(expected));
        }
        assert_eq!(take_from(&words), None);
        words[1].fetch_and(!(1 << 5), Relaxed);
        assert_eq!(take_from(&words), Some(69));
    }
}
