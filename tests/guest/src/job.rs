//! Threads that do one thing, and whether they are blocked in it.
//!
//! A thread counts as blocked when the kernel shows it asleep between the moment it begins and the moment its work has
//! returned. That is a fact of the kernel's, not a matter of waiting long enough.

use std::fmt::Display;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::proc;
use crate::signal::gettid;

/// How long anything may take before it counts as stuck.
pub const LIMIT: Duration = Duration::from_secs(5);

/// A thread at its one piece of work.
pub struct Job {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The thread, once it has begun.
    tid: AtomicI32,
    /// What the work has returned.
    result: OnceLock<String>,
}

/// Starts `work` in a thread of its own.
pub fn start<T: Display>(work: impl FnOnce() -> T + Send + 'static) -> Job {
    let shared = Arc::new(Shared::default());
    let theirs = shared.clone();
    std::thread::spawn(move || {
        theirs.tid.store(gettid(), Ordering::Release);
        let result = work().to_string();
        let _ = theirs.result.set(result);
    });
    let job = Job { shared };
    until(|| job.tid() != 0);
    job
}

impl Job {
    /// The thread's identifier.
    pub fn tid(&self) -> i32 {
        self.shared.tid.load(Ordering::Acquire)
    }

    /// Whether the work has returned.
    pub fn done(&self) -> bool {
        self.shared.result.get().is_some()
    }

    /// Waits until the thread sleeps in its work or is through: `blocked`, `blocked (D)` where no signal reaches it, or
    /// what the work has returned.
    pub fn settle(&self) -> String {
        let mut asleep = 0;
        let mut state = 'R';
        let settled = until(|| {
            let now = proc::state(self.tid()).unwrap_or('R');
            asleep = if matches!(now, 'S' | 'D') && now == state {
                asleep + 1
            } else {
                0
            };
            state = now;
            self.done() || asleep > 3
        });
        match (self.shared.result.get(), state) {
            (Some(result), _) => result.clone(),
            (None, 'D') => "blocked (D)".into(),
            (None, _) if settled => "blocked".into(),
            (None, _) => "busy".into(),
        }
    }

    /// What the work returns, or `still blocked` when it has not for too long.
    pub fn finish(&self) -> String {
        until(|| self.done());
        self.shared
            .result
            .get()
            .cloned()
            .unwrap_or_else(|| format!("still {}", self.settle()))
    }

    /// As [`finish`](Self::finish), for work that is expected not to end: it has half a second.
    pub fn finish_soon(&self) -> String {
        until_within(Duration::from_millis(500), || self.done());
        self.shared
            .result
            .get()
            .cloned()
            .unwrap_or_else(|| format!("still {}", self.settle()))
    }
}

/// Waits until `true`, and says whether that came within [`LIMIT`].
pub fn until(condition: impl FnMut() -> bool) -> bool {
    until_within(LIMIT, condition)
}

/// Waits until `true`, and says whether that came in time.
pub fn until_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    let mut rounds = 0u32;
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        rounds += 1;
        if rounds < 50 {
            std::thread::yield_now();
        } else {
            std::thread::sleep(Duration::from_micros(300));
        }
    }
}
