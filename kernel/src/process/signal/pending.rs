//! Signals that were sent and not delivered yet.

use alloc::collections::VecDeque;
use core::sync::atomic::{AtomicU64, Ordering};

use super::SignalSet;
use crate::abi::signal::{
    SI_TIMER, SI_USER, SIGBUS, SIGFPE, SIGILL, SIGRTMIN, SIGSEGV, SIGSYS, SIGTRAP, SigInfo,
};
use crate::mm::frame::allocator;
use crate::sync::SpinLock;

/// Signals that an instruction of the thread itself causes. They come first.
const SYNCHRONOUS: SignalSet = SignalSet::of(&[SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGSYS]);

/// Why a signal was not queued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueFull;

/// The pending signals of a thread, or of a process. Of the signals below [`SIGRTMIN`] each is there once at most.
#[derive(Debug, Default)]
pub struct Pending {
    /// The numbers that are in the queue, for a look without the lock.
    set: AtomicU64,
    queue: SpinLock<Queue>,
}

/// Signals in the order in which they were sent. Hardly ever is it more than one: one that comes when there is none has a place
/// of its own, which takes no memory.
#[derive(Debug, Default)]
struct Queue {
    first: Option<SigInfo>,
    rest: VecDeque<SigInfo>,
}

impl Queue {
    fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    /// Adds one; false when there is no memory for it.
    fn push(&mut self, info: SigInfo) -> bool {
        if self.first.is_none() && self.rest.is_empty() {
            self.first = Some(info);
            return true;
        }
        let has_room = !allocator().is_short() && self.rest.try_reserve(1).is_ok();
        if has_room {
            self.rest.push_back(info);
        }
        has_room
    }

    /// Takes the oldest with this number, and says whether there are more.
    fn take(&mut self, signal: u8) -> (Option<SigInfo>, bool) {
        let is_it = |info: &SigInfo| info.signal == signal;
        let taken = self.first.take_if(|first| is_it(first));
        let place = || self.rest.iter().position(is_it);
        let taken = match taken {
            Some(first) => Some(first),
            None => place().and_then(|place| self.rest.remove(place)),
        };
        (taken, self.rest.iter().any(is_it))
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut SigInfo> {
        self.first.iter_mut().chain(self.rest.iter_mut())
    }

    fn discard(&mut self, set: SignalSet) {
        self.first.take_if(|first| set.contains(first.signal));
        self.rest.retain(|info| !set.contains(info.signal));
    }
}

/// One that could not be queued counts as sent by nobody.
fn without_particulars(signal: u8) -> SigInfo {
    SigInfo {
        signal,
        code: SI_USER,
        ..SigInfo::default()
    }
}

impl Pending {
    /// Which are there.
    #[inline]
    pub fn set(&self) -> SignalSet {
        SignalSet::from_bits(self.set.load(Ordering::Acquire))
    }

    /// Adds one, unless it is one that is there already. At most `limit` stand in line.
    ///
    /// # Errors
    /// The queue is full, or there is no memory; only for real-time signals, and not for those of `kill`: they are there then
    /// without their particulars.
    pub fn push(&self, info: SigInfo, limit: usize) -> Result<(), QueueFull> {
        let mut queue = self.queue.lock();
        let there = self.set().contains(info.signal);
        if there && info.signal < SIGRTMIN {
            return Ok(());
        }
        let is_queued = queue.len() < limit && queue.push(info);
        if !is_queued && info.signal >= SIGRTMIN && info.code != SI_USER {
            return Err(QueueFull);
        }
        self.set
            .fetch_or(SignalSet::of(&[info.signal]).bits(), Ordering::AcqRel);
        Ok(())
    }

    /// Counts `times` more times that timer number `timer` went off, if a signal of its waits; says whether.
    pub fn count_timer(&self, signal: u8, timer: u32, times: u64) -> bool {
        let mut queue = self.queue.lock();
        let mut all = queue.iter_mut();
        let is_its = |info: &&mut SigInfo| {
            info.signal == signal && info.code == SI_TIMER && info.words[0] as u32 == timer
        };
        let Some(info) = all.find(is_its) else {
            return false;
        };
        let count = (info.words[0] >> 32).saturating_add(times).min(i32::MAX as u64);
        info.words[0] = u64::from(timer) | count << 32;
        true
    }

    /// Takes the next one that is in `wanted`: those of the thread's own instructions first, then by number, and those of one
    /// number in the order in which they were sent.
    pub fn take(&self, wanted: SignalSet) -> Option<SigInfo> {
        if (self.set() & wanted).is_empty() {
            return None;
        }
        let mut queue = self.queue.lock();
        let there = self.set() & wanted;
        let signal = (there & SYNCHRONOUS).first().or(there.first())?;
        let left = !SignalSet::of(&[signal]);
        // Hardly ever is there another.
        if queue.rest.is_empty() && queue.first.is_none_or(|first| first.signal == signal) {
            self.set.fetch_and(left.bits(), Ordering::AcqRel);
            return queue.first.take().or(Some(without_particulars(signal)));
        }
        let (taken, more) = queue.take(signal);
        if !more {
            self.set.fetch_and(left.bits(), Ordering::AcqRel);
        }
        taken.or(Some(without_particulars(signal)))
    }

    /// Forgets those in `set`.
    pub fn discard(&self, set: SignalSet) {
        let mut queue = self.queue.lock();
        self.set.fetch_and((!set).bits(), Ordering::AcqRel);
        queue.discard(set);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::abi::signal::{SI_QUEUE, SIGCHLD, SIGTERM, SIGUSR1};
    use crate::arch::host::{Config, Running, SoftMachine};

    fn numbered(signal: u8, number: u64) -> SigInfo {
        SigInfo {
            signal,
            code: SI_QUEUE,
            words: [0, number, 0, 0],
            ..SigInfo::default()
        }
    }

    fn drain(pending: &Pending) -> Vec<(u8, u64)> {
        core::iter::from_fn(|| pending.take(!SignalSet::EMPTY))
            .map(|info| (info.signal, info.words[1]))
            .collect()
    }

    fn machine() -> Running {
        SoftMachine::start(Config { memory: 1 << 20 })
    }

    #[test]
    fn signals_come_by_number_and_real_time_signals_queue_up() {
        let _machine = machine();
        let pending = Pending::default();
        for (number, signal) in [40, SIGTERM, 40, SIGUSR1, SIGTERM, 34].into_iter().enumerate() {
            pending.push(numbered(signal, number as u64), 100).expect("room");
        }
        assert_eq!(
            drain(&pending),
            vec![(SIGUSR1, 3), (SIGTERM, 1), (34, 5), (40, 0), (40, 2)]
        );
        assert_eq!(pending.set(), SignalSet::EMPTY);
    }

    #[test]
    fn what_comes_while_the_first_was_taken_stands_behind_what_was_there() {
        let _machine = machine();
        let pending = Pending::default();
        for number in 0..3 {
            pending.push(numbered(40, number), 100).expect("room");
        }
        let taken = pending.take(!SignalSet::EMPTY).map(|info| info.words[1]);
        assert_eq!(taken, Some(0));
        pending.push(numbered(40, 3), 100).expect("room");
        assert_eq!(drain(&pending), vec![(40, 1), (40, 2), (40, 3)]);
    }

    #[test]
    fn what_the_thread_did_itself_comes_first() {
        let _machine = machine();
        let pending = Pending::default();
        pending.push(numbered(1, 0), 100).expect("room");
        pending.push(numbered(SIGSEGV, 1), 100).expect("room");
        assert_eq!(drain(&pending), vec![(SIGSEGV, 1), (1, 0)]);
    }

    #[test]
    fn only_what_is_wanted_is_taken() {
        let _machine = machine();
        let pending = Pending::default();
        pending.push(numbered(SIGCHLD, 1), 100).expect("room");
        assert_eq!(pending.take(SignalSet::of(&[SIGTERM])), None);
        assert!(pending.take(SignalSet::of(&[SIGTERM, SIGCHLD])).is_some());
    }

    #[test]
    fn a_full_queue_refuses_real_time_signals_and_forgets_the_particulars_of_others() {
        let _machine = machine();
        let pending = Pending::default();
        pending.push(numbered(40, 1), 1).expect("room");
        assert_eq!(pending.push(numbered(41, 2), 1), Err(QueueFull));
        assert_eq!(pending.push(numbered(SIGTERM, 2), 1), Ok(()));
        assert_eq!(drain(&pending), vec![(SIGTERM, 0), (40, 1)]);
    }

    #[test]
    fn what_is_discarded_does_not_come() {
        let _machine = machine();
        let pending = Pending::default();
        for signal in [SIGTERM, 40, 40, SIGCHLD] {
            pending.push(numbered(signal, 7), 100).expect("room");
        }
        pending.discard(SignalSet::of(&[40, SIGTERM]));
        assert_eq!(drain(&pending), vec![(SIGCHLD, 7)]);
    }
}
