//! All values of a kind by number, for diagnosis. A value stands here as long as somebody else owns it.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::mem;
use core::ops::Bound;

use arrayvec::ArrayVec;

use super::SpinLock;

/// Values that are held at a time by [`Registry::look_at_each`].
const BATCH: usize = 16;

/// Values of type `T`, numbered by `K`.
#[derive(Debug)]
pub struct Registry<K, T>(SpinLock<BTreeMap<K, Weak<T>>>);

impl<K: Copy + Ord, T> Registry<K, T> {
    /// No values.
    pub const fn new() -> Self {
        Self(SpinLock::new(BTreeMap::new()))
    }

    /// Adds a value.
    pub fn enter(&self, number: K, value: &Arc<T>) {
        self.0.lock().insert(number, Arc::downgrade(value));
    }

    /// Removes a value; the last thing it does.
    pub fn leave(&self, number: K) {
        // Dropped after the lock: it may be the last that holds the value's memory.
        let entry = self.0.lock().remove(&number);
        drop(entry);
    }

    /// The value with this number, if there is one.
    pub fn get(&self, number: K) -> Option<Arc<T>> {
        self.0.lock().get(&number)?.upgrade()
    }

    /// All values in the order of their numbers. Takes memory.
    pub fn all(&self) -> Vec<Arc<T>> {
        // Values may go meanwhile, and the last reference to one may be the one taken here: it must not go under the lock.
        self.0.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// The value with the lowest number above `number`, or the lowest of all. Takes no memory: a walk that may wait.
    pub fn after(&self, number: Option<K>) -> Option<(K, Arc<T>)> {
        let from = number.map_or(Bound::Unbounded, Bound::Excluded);
        let values = self.0.lock();
        let mut above = values.range((from, Bound::Unbounded));
        above.find_map(|(number, value)| Some((*number, value.upgrade()?)))
    }

    /// Calls `f` for each value in the order of their numbers, without waiting for a lock and without memory: from
    /// interrupt handlers, and when a panic is reported. Says whether that could be done.
    ///
    /// A value whose last owner goes meanwhile is leaked: giving it back could wait.
    pub fn look_at_each(&self, mut f: impl FnMut(&Arc<T>)) -> bool {
        let mut from = Bound::Unbounded;
        loop {
            let Some(entries) = self.0.try_lock() else {
                return false;
            };
            let range = (from, Bound::Unbounded);
            let batch: ArrayVec<(K, Arc<T>), BATCH> = entries
                .range(range)
                .filter_map(|(number, value)| Some((*number, value.upgrade()?)))
                .take(BATCH)
                .collect();
            drop(entries);
            let Some((last, _)) = batch.last() else {
                return true;
            };
            from = Bound::Excluded(*last);
            for (_, value) in batch {
                f(&value);
                if Arc::strong_count(&value) == 1 {
                    mem::forget(value);
                }
            }
        }
    }
}

impl<K: Copy + Ord, T> Default for Registry<K, T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::vec;

    use super::*;

    #[test]
    fn values_that_have_gone_are_passed_over() {
        let registry = Registry::new();
        let values: Vec<Arc<u32>> = (0..40).map(Arc::new).collect();
        for value in &values {
            registry.enter(**value, value);
        }
        let kept: Vec<Arc<u32>> = values.into_iter().filter(|value| **value % 3 == 0).collect();
        let mut seen = vec![];
        assert!(registry.look_at_each(|value| seen.push(**value)));
        assert_eq!(seen, (0..40).step_by(3).collect::<Vec<_>>());
        assert_eq!(registry.all(), kept);
        assert_eq!(registry.get(3), Some(Arc::clone(&kept[1])));
        assert_eq!(registry.get(4), None);
        assert_eq!(registry.after(None), Some((0, Arc::clone(&kept[0]))));
        assert_eq!(registry.after(Some(0)), Some((3, Arc::clone(&kept[1]))));
        assert_eq!(registry.after(Some(39)), None);
        registry.leave(3);
        assert_eq!(registry.get(3), None);
        assert!(
            kept.iter().all(|value| Arc::strong_count(value) == 1),
            "nothing is kept"
        );
    }

    #[test]
    fn a_look_does_not_wait_for_the_lock() {
        let registry = Registry::<u32, u32>::new();
        let held = registry.0.lock();
        assert!(!registry.look_at_each(|_| ()));
        drop(held);
        assert!(registry.look_at_each(|_| ()));
    }
}
