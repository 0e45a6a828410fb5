//! Random numbers for programs. They are the same on every run, like everything else here: **not for secrets**.

use crate::lab::rng::SplitMix64;
use crate::sync::SpinLock;

static STREAM: SpinLock<SplitMix64> = SpinLock::new(SplitMix64::new(0x0fa1_71ae));

/// Fills `bytes` with the next ones.
pub fn fill(bytes: &mut [u8]) {
    STREAM.lock().fill(bytes);
}
