//! What to do when no frame is free: ask those who hold memory that they can do without.
//!
//! Faults and fills allocate under the locks of a space, and calls on a memory object under its own; they must not wait
//! there. When they find no frame they let go of everything, ask the shrinkers here, and look again from the start.

use alloc::sync::Weak;
use alloc::vec::Vec;
use core::fmt;

use super::kernel;
use crate::sync::{Once, SpinLock};

/// Times that one call looks again because memory was given back, before it gives up.
pub const MAX_RELIEFS: u32 = 16;

/// Somebody who can give frames back.
pub trait Shrinker: Send + Sync {
    /// Gives back at least `frames` frames if it can, and says how many it gave. Called with no lock held; may take the
    /// locks of spaces and objects.
    fn shrink(&self, frames: u64) -> u64;
}

/// The shrinkers of a machine.
#[derive(Default)]
pub struct Pressure {
    shrinkers: SpinLock<Vec<Weak<dyn Shrinker>>>,
    last_resort: Once<fn() -> bool>,
}

impl fmt::Debug for Pressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pressure").finish_non_exhaustive()
    }
}

impl Pressure {
    /// Nobody yet.
    pub const fn new() -> Self {
        Self {
            shrinkers: SpinLock::new(Vec::new()),
            last_resort: Once::new(),
        }
    }

    /// Has `make_room` called when a task that touches memory finds none and no shrinker has any: it ends somebody who has, and
    /// says whether it is worth looking again. The first one stays.
    pub fn set_last_resort(&self, make_room: fn() -> bool) {
        self.last_resort.call_once(|| make_room);
    }

    /// Asks `shrinker` from now on, as long as it lives.
    pub fn register(&self, shrinker: Weak<dyn Shrinker>) {
        let mut shrinkers = self.shrinkers.lock();
        shrinkers.retain(|old| old.strong_count() > 0);
        shrinkers.push(shrinker);
    }

    /// Asks one after the other until `frames` frames came back. True when any did: it is worth looking again.
    fn relieve(&self, frames: u64) -> bool {
        let mut given = 0;
        let mut next = 0;
        while given < frames {
            // One at a time, so that the list is not locked while a shrinker works.
            let Some(shrinker) = self.shrinkers.lock().get(next).cloned() else {
                break;
            };
            if let Some(shrinker) = shrinker.upgrade() {
                given += shrinker.shrink(frames - given);
            }
            next += 1;
        }
        given > 0
    }
}

/// The same for a touch of the current task's, whoever makes it, which is tried again until there is memory: when nobody can give
/// any, somebody is ended. No lock but those to sleep on may be held.
#[cold]
pub fn relieve_touch(frames: u64) -> bool {
    let pressure = &kernel::get().pressure;
    pressure.relieve(frames) || pressure.last_resort.get().is_some_and(|make_room| make_room())
}

/// Has somebody give `frames` frames back. False when nobody can. No lock may be held.
#[cold]
pub fn relieve(frames: u64) -> bool {
    kernel::get().pressure.relieve(frames)
}
