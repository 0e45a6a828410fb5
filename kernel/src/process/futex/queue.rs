//! Who waits for which word, in the order of their coming.
//!
//! Waiters stand in buckets by the hash of their word, each with a lock. A waiter's word changes when it is requeued, under
//! the locks of both buckets; the lower-numbered one is taken first.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use super::key::{Key, Owner};
use crate::sync::SpinLock;
use crate::task::{WaitQueue, WaitReason};

const BUCKETS: usize = 64;

static TABLE: [SpinLock<Vec<Arc<Entry>>>; BUCKETS] = [const { SpinLock::new(Vec::new()) }; BUCKETS];
static WORD: WaitReason = WaitReason("a futex");

/// A waiter as its wakers see it.
#[derive(Debug)]
struct Entry {
    /// Its word, with what keeps that from being another's.
    word: SpinLock<(Key, Owner)>,
    bits: u32,
    /// Out of line, and by somebody else.
    woken: AtomicBool,
    sleeper: WaitQueue,
}

impl Entry {
    fn key(&self) -> Key {
        self.word.lock().0
    }

    fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        self.sleeper.wake_all();
    }
}

/// The current task, in line.
#[derive(Debug)]
pub(super) struct Waiter(Arc<Entry>);

fn bucket_of(key: &Key) -> usize {
    key.hash() % BUCKETS
}

impl Waiter {
    /// Gets in line for a word.
    pub fn enter(key: Key, owner: Owner, bits: u32) -> Self {
        let entry = Arc::new(Entry {
            word: SpinLock::new((key, owner)),
            bits,
            woken: AtomicBool::new(false),
            sleeper: WaitQueue::new(&WORD),
        });
        TABLE[bucket_of(&key)].lock().push(Arc::clone(&entry));
        Self(entry)
    }

    /// Sleeps until it is woken, `is_over` says so, or the time is up.
    pub fn sleep(&self, timeout: Option<Duration>, is_over: impl Fn() -> bool) {
        let look = || (self.0.woken.load(Ordering::Acquire) || is_over()).then_some(());
        match timeout {
            None => self.0.sleeper.wait_until(look),
            Some(timeout) => self.0.sleeper.wait_timeout(timeout, look).unwrap_or(()),
        }
    }

    /// The word it waits for now.
    pub fn key(&self) -> Key {
        self.0.key()
    }

    /// Gets out of line; true when somebody has woken it.
    pub fn leave(&self) -> bool {
        loop {
            let key = self.key();
            let mut bucket = TABLE[bucket_of(&key)].lock();
            if self.0.woken.load(Ordering::Acquire) {
                return true;
            }
            // It may have been requeued meanwhile.
            if self.key() != key {
                continue;
            }
            let place = bucket.iter().position(|entry| Arc::ptr_eq(entry, &self.0));
            let gone = place.map(|place| bucket.remove(place));
            drop(bucket);
            drop(gone);
            return false;
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Takes up to `count` entries for `key` out of `bucket`, of those that have one of `bits`.
fn take(bucket: &mut Vec<Arc<Entry>>, key: &Key, count: usize, bits: u32) -> Vec<Arc<Entry>> {
    let mut left = count;
    let is_taken = |entry: &mut Arc<Entry>| {
        let taken = left > 0 && entry.bits & bits != 0 && entry.key() == *key;
        left -= usize::from(taken);
        taken
    };
    bucket.extract_if(.., is_taken).collect()
}

/// Wakes up to `count` who wait for `key` with one of `bits`; says how many.
pub(super) fn wake(key: &Key, count: usize, bits: u32) -> usize {
    let mut bucket = TABLE[bucket_of(key)].lock();
    let woken = take(&mut bucket, key, count, bits);
    // Under the lock: whoever finds itself out of line finds itself woken.
    woken.iter().for_each(|entry| entry.wake());
    drop(bucket);
    woken.len()
}

/// Wakes up to `wake` who wait for `from`, and has up to `requeue` others wait for `to`; says how many were either.
pub(super) fn requeue(from: &Key, to: &Key, owner: &Owner, wake: usize, requeue: usize) -> usize {
    let (first, second) = (bucket_of(from), bucket_of(to));
    let mut lower = TABLE[first.min(second)].lock();
    let mut upper = (first != second).then(|| TABLE[first.max(second)].lock());
    let source = match &mut upper {
        Some(upper) if first > second => &mut **upper,
        _ => &mut *lower,
    };
    let woken = take(source, from, wake, super::ANYBODY);
    let moved = match from == to {
        true => Vec::new(),
        false => take(source, from, requeue, super::ANYBODY),
    };
    woken.iter().for_each(|entry| entry.wake());
    let target = match &mut upper {
        Some(upper) if second > first => &mut **upper,
        _ => &mut *lower,
    };
    let mut owners = Vec::new();
    for entry in &moved {
        let old = core::mem::replace(&mut *entry.word.lock(), (*to, owner.clone()));
        owners.push(old);
        target.push(Arc::clone(entry));
    }
    drop(upper);
    drop(lower);
    woken.len() + moved.len()
}
