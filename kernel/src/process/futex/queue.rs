//! Who waits for which word, in the order of their coming.
//!
//! Waiters are tasks, linked into buckets by the hash of their word; nothing is allocated. What a task waits for is in its
//! [`FutexSlot`]. While it is in line that changes under the lock of its bucket only; when it is requeued, under the locks of
//! both, the lower-numbered one taken first. Out of line it is the task's own.
//!
//! A word's space or object has to live as long as somebody waits, or another could be taken for it. A task's own space does;
//! anything else is kept by the slot.

use alloc::sync::Arc;
use core::ptr;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;

use intrusive_collections::LinkedList;
use intrusive_collections::linked_list::CursorMut;

use super::key::{Key, Word};
use crate::mm::cache::Object;
use crate::mm::space::Space;
use crate::sync::SpinLock;
use crate::task::{Current, FutexAdapter, Task, WaitReason, current, wait_told};

const BUCKETS: usize = 64;

type Bucket = LinkedList<FutexAdapter>;

static TABLE: [SpinLock<Bucket>; BUCKETS] =
    [const { SpinLock::new(LinkedList::new(FutexAdapter::NEW)) }; BUCKETS];
static WORD: WaitReason = WaitReason::new("a futex");

/// What a task waits for in `futex`.
#[derive(Debug, Default)]
pub struct FutexSlot {
    /// Its word.
    owner: AtomicUsize,
    at: AtomicU64,
    bits: AtomicU32,
    /// The bucket of that.
    bucket: AtomicUsize,
    /// Out of line by somebody else, who meant one of these bits; none: nobody has woken it.
    woken: AtomicU32,
    /// What the word is one of, unless that is the task's own space.
    kept: SpinLock<Option<Owner>>,
}

/// What a word can be one of.
#[derive(Clone, Debug)]
#[expect(dead_code, reason = "owned for as long as somebody waits, not looked at")]
enum Owner {
    Space(Arc<Space>),
    Object(Arc<Object>),
}

fn bucket_of(key: &Key) -> usize {
    key.hash() % BUCKETS
}

impl FutexSlot {
    fn key(&self) -> Key {
        Key {
            owner: self.owner.load(Ordering::Relaxed),
            at: self.at.load(Ordering::Relaxed),
        }
    }

    fn set(&self, key: &Key, bucket: usize) {
        self.owner.store(key.owner, Ordering::Relaxed);
        self.at.store(key.at, Ordering::Relaxed);
        self.bucket.store(bucket, Ordering::Relaxed);
    }

    /// Whether somebody has taken the task out of line.
    #[inline]
    fn is_woken(&self) -> bool {
        self.woken.load(Ordering::Acquire) != 0
    }

    /// Whether a wake-up of `key` for `bits` is for it. Its bucket is locked.
    fn is_for(&self, key: &Key, bits: u32) -> bool {
        self.bits.load(Ordering::Relaxed) & bits != 0 && self.key() == *key
    }
}

/// Whether words whose owner is at address `owner` are `task`'s own space's.
fn is_own(task: &Task, owner: usize) -> bool {
    task.space()
        .is_some_and(|space| Arc::as_ptr(space).addr() == owner)
}

/// The current task, in line.
#[derive(Debug)]
pub(super) struct Waiter(Current);

impl Waiter {
    /// Gets in line for a word, of an object or of the current task's space.
    #[inline(always)]
    pub fn enter(word: &Word, bits: u32) -> Self {
        let task = current();
        let (slot, bucket) = (&task.futex, bucket_of(&word.key));
        if let Some(object) = &word.object {
            *slot.kept.lock() = Some(Owner::Object(Arc::clone(object)));
        }
        slot.set(&word.key, bucket);
        slot.bits.store(bits, Ordering::Relaxed);
        slot.woken.store(0, Ordering::Relaxed);
        TABLE[bucket].lock().push_back(Arc::clone(&task));
        Self(task)
    }

    /// Sleeps until it is woken, `is_over` says so, or the time is up.
    #[inline(always)]
    pub fn sleep(&self, timeout: Option<Duration>, is_over: impl Fn() -> bool) {
        let slot = &self.0.futex;
        let look = || (slot.is_woken() || is_over()).then_some(());
        let which = slot.at.load(Ordering::Relaxed) as usize;
        // Whether it was woken is for `leave` to say.
        let _ = wait_told(&WORD, which, timeout, look);
    }

    /// Wakes another in its place, whom the waker may have meant as well.
    #[cold]
    pub fn pass_on(&self) {
        let slot = &self.0.futex;
        wake(&slot.key(), 1, slot.woken.load(Ordering::Relaxed));
    }

    /// Gets out of line; true when somebody has woken it.
    #[inline(always)]
    pub fn leave(&self) -> bool {
        // Whoever woke it may be about to unpark it still: that is a look too many in its next wait.
        self.0.futex.is_woken() || self.leave_line()
    }

    #[inline(never)]
    fn leave_line(&self) -> bool {
        let slot = &self.0.futex;
        loop {
            let number = slot.bucket.load(Ordering::Relaxed);
            let mut bucket = TABLE[number].lock();
            if slot.is_woken() {
                return true;
            }
            // It may have been requeued meanwhile.
            if slot.bucket.load(Ordering::Relaxed) == number {
                remove(&mut bucket, &self.0);
                return false;
            }
        }
    }
}

impl Drop for Waiter {
    #[inline(always)]
    fn drop(&mut self) {
        let (task, slot) = (&self.0, &self.0.futex);
        debug_assert!(!task.futex_link.is_linked(), "it has not left");
        if !is_own(task, slot.key().owner) {
            let kept = slot.kept.lock().take();
            drop(kept);
        }
    }
}

/// Takes `task`, which is in the bucket, out of it.
fn remove(bucket: &mut Bucket, task: &Arc<Task>) {
    let mut cursor = bucket.front_mut();
    while let Some(waiter) = cursor.get() {
        if ptr::eq(waiter, Arc::as_ptr(task)) {
            cursor.remove();
            return;
        }
        cursor.move_next();
    }
}

/// Takes the next task for `key`, of those that have one of `bits`, out of line.
#[inline]
fn take(cursor: &mut CursorMut<'_, FutexAdapter>, key: &Key, bits: u32) -> Option<Arc<Task>> {
    while let Some(task) = cursor.get() {
        if task.futex.is_for(key, bits) {
            return cursor.remove();
        }
        cursor.move_next();
    }
    None
}

/// Wakes up to `count` in `bucket` who wait for `key` with one of `bits`; says how many.
#[inline(always)]
fn wake_in(bucket: &mut Bucket, key: &Key, count: usize, bits: u32) -> usize {
    let mut cursor = bucket.front_mut();
    let mut woken = 0;
    while woken < count
        && let Some(task) = take(&mut cursor, key, bits)
    {
        // Under the lock: whoever finds itself out of line with it finds itself woken.
        task.futex.woken.store(bits, Ordering::Release);
        task.unpark();
        woken += 1;
    }
    woken
}

/// Wakes up to `count` who wait for `key` with one of `bits`; says how many.
#[inline(always)]
pub(super) fn wake(key: &Key, count: usize, bits: u32) -> usize {
    wake_in(&mut TABLE[bucket_of(key)].lock(), key, count, bits)
}

/// Wakes up to `wake` who wait for `from`, and has up to `requeue` others wait for `to`, an object's word or one of `space`;
/// says how many were either.
pub(super) fn requeue(from: &Key, to: &Word, space: &Arc<Space>, wake: usize, requeue: usize) -> usize {
    let (first, second) = (bucket_of(from), bucket_of(&to.key));
    let mut lower = TABLE[first.min(second)].lock();
    let mut upper = (first != second).then(|| TABLE[first.max(second)].lock());
    let source = match &mut upper {
        Some(upper) if first > second => &mut **upper,
        _ => &mut *lower,
    };
    let woken = wake_in(source, from, wake, super::ANYBODY);
    let mut moved = LinkedList::new(FutexAdapter::NEW);
    let mut count = 0;
    // Who waits for the same word keeps the same thing, if anything. It is let go of without the locks: with the first
    // reference in hand, no other one is the last.
    let mut kept = None;
    let mut cursor = source.front_mut();
    while *from != to.key
        && count < requeue
        && let Some(task) = take(&mut cursor, from, super::ANYBODY)
    {
        let owner = match &to.object {
            Some(object) => Some(Owner::Object(Arc::clone(object))),
            None if is_own(&task, to.key.owner) => None,
            None => Some(Owner::Space(Arc::clone(space))),
        };
        let old = core::mem::replace(&mut *task.futex.kept.lock(), owner);
        kept = kept.or(old);
        task.futex.set(&to.key, second);
        moved.push_back(task);
        count += 1;
    }
    let target = match &mut upper {
        Some(upper) if second > first => &mut **upper,
        _ => &mut *lower,
    };
    target.back_mut().splice_after(moved);
    drop(upper);
    drop(lower);
    drop(kept);
    woken + count
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::task::State;
    use crate::task::spawn::{JoinHandle, spawn_returning};

    fn until(condition: impl Fn() -> bool) {
        while !condition() {
            crate::task::yield_now();
        }
    }

    /// A task that waits for a word, and then does something else before it leaves; `true` when it was woken.
    fn waiter(word: &Word, bits: u32, then: impl FnOnce(&Waiter) + Send + 'static) -> JoinHandle<bool> {
        let word = word.clone();
        let waits = move || {
            let waiter = Waiter::enter(&word, bits);
            waiter.sleep(None, || crate::task::current().is_killed());
            let woken = waiter.leave();
            then(&waiter);
            woken
        };
        let task = spawn_returning("waiter", None, waits).expect("the host has threads");
        until(|| task.task().state() == State::Parked);
        task
    }

    #[test]
    fn who_passes_a_wake_up_on_passes_it_to_one_whom_the_waker_meant() {
        let _machine = crate::arch::host::SoftMachine::start(crate::arch::host::Config::default());
        let owner = 0;
        let key = Key {
            owner: core::ptr::from_ref(&owner).addr(),
            at: 8,
        };
        let word = Word { key, object: None };
        let first = waiter(&word, super::super::ANYBODY, Waiter::pass_on);
        let other = waiter(&word, 2, |_| ());
        let meant = waiter(&word, 1, |_| ());
        assert_eq!(wake(&key, 1, 1), 1);
        until(|| first.task().state() == State::Ended);
        until(|| {
            [&other, &meant]
                .iter()
                .any(|task| task.task().state() != State::Parked)
        });
        other.task().kill();
        meant.task().kill();
        let woken = [first, other, meant].map(|task| task.join().ok());
        assert_eq!(woken, [Some(true), Some(false), Some(true)]);
    }
}
