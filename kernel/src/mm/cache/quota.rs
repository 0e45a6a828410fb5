//! A limit on the memory of several objects together, like the size of a tmpfs.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes that objects may have in their caches, and how many they have.
#[derive(Debug)]
pub struct Quota {
    limit: u64,
    used: AtomicU64,
}

impl Quota {
    /// At most `limit` bytes.
    pub const fn new(limit: u64) -> Self {
        Self {
            limit,
            used: AtomicU64::new(0),
        }
    }

    /// Bytes that there may be.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes that there are.
    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// Counts `bytes` more, unless that would be too much.
    pub(super) fn charge(&self, bytes: u64) -> bool {
        let more = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.used.try_update(Relaxed, Relaxed, more).is_ok()
    }

    /// Counts `bytes` less.
    pub(super) fn uncharge(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Relaxed);
    }
}
