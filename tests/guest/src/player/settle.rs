//! When all is quiet.
//!
//! An actor is quiet when its step is done, or when it sleeps. A look at one that sleeps tells the state letter and how
//! often it has been switched away from; two rounds of looks that tell the same show that nobody ran between them, so that
//! all of them slept at once: only another step can wake one of them. A thread that is woken is runnable before the call
//! that wakes it returns, so nothing is missed between two steps.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use guest_tests::sys;

use super::control::{ACTORS, Control, THREADS};
use super::pen::Pen;

/// Seconds after which something that never becomes quiet is given up.
const LIMIT: i64 = 10;
/// Rounds that tell the same before somebody who has just fallen asleep counts as asleep: with something of the kernel's own,
/// a lock that another process holds, it is over sooner.
const CALM_ROUNDS: usize = 4;
/// Rounds that only give the processor away; later ones sleep as well.
const EAGER_ROUNDS: usize = 200;

/// What a look at an actor tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Look {
    /// The state letter of `/proc/PID/status`.
    pub state: u8,
    /// How often it has been switched away from.
    pub switches: u64,
}

/// One look per actor: none at those that are idle or not there.
pub type Looks = [Option<Look>; ACTORS.len()];

/// Watches the actors.
pub struct Watch {
    control: &'static Control,
    /// Descriptors of the status files, by actor; -1 where none is open.
    status: [i32; ACTORS.len()],
}

impl Watch {
    /// Over the threads of this process; children are found as they appear.
    pub fn new(control: &'static Control) -> Self {
        Self {
            control,
            status: [-1; ACTORS.len()],
        }
    }

    /// Waits until all is quiet, where `before` is how it was the last time: the looks of the last round, and whether all is.
    pub fn settle(&mut self, before: &Looks) -> (Looks, bool) {
        let begin = seconds();
        let mut eager = EAGER_ROUNDS;
        loop {
            let looks = self.round();
            if quiet(&looks) && self.stays(&looks, before) {
                return (looks, true);
            }
            if eager > 0 {
                eager -= 1;
                let _ = sys::call(libc::SYS_sched_yield, &[]);
            } else {
                pause(50);
                if seconds() - begin > LIMIT {
                    return (looks, false);
                }
            }
        }
    }

    /// Whether more rounds tell the same.
    fn stays(&mut self, looks: &Looks, before: &Looks) -> bool {
        let woken = |(now, before): (&Option<Look>, &Option<Look>)| now.is_some() && now != before;
        if looks.iter().zip(before).any(woken) {
            (0..CALM_ROUNDS).all(|_| {
                pause(150);
                *looks == self.round()
            })
        } else {
            looks.iter().all(Option::is_none) || *looks == self.round()
        }
    }

    /// Forgets a child that has ended.
    pub fn forget(&mut self, actor: usize) {
        let _ = sys::call(
            libc::SYS_close,
            &[std::mem::replace(&mut self.status[actor], -1) as usize],
        );
    }

    fn round(&mut self) -> Looks {
        let mut looks = [None; ACTORS.len()];
        for (actor, look) in looks.iter_mut().enumerate() {
            let slot = self.control.slot(actor);
            let born = actor < THREADS || slot.pid.load(Ordering::Acquire) != 0;
            if born && slot.tid.load(Ordering::Acquire) == 0 {
                *look = Some(Look {
                    state: b'R',
                    switches: 0,
                });
            } else if born && slot.busy() {
                *look = Some(self.look(actor));
                // It may have ended the step since: then the letter is that of its next sleep.
                if !slot.busy() {
                    *look = None;
                }
            }
        }
        looks
    }

    fn look(&mut self, actor: usize) -> Look {
        if self.status[actor] < 0 {
            let mut path = Pen::<64>::new();
            let slot = self.control.slot(actor);
            let tid = slot.tid.load(Ordering::Relaxed);
            let folder = if actor < THREADS { "self/task" } else { "." };
            let _ = write!(path, "/proc/{folder}/{tid}/status\0");
            let flags = libc::O_RDONLY | libc::O_CLOEXEC;
            let opened = sys::call(
                libc::SYS_openat,
                &[
                    libc::AT_FDCWD as usize,
                    path.text().as_ptr() as usize,
                    flags as usize,
                ],
            );
            // Out of the way of the numbers that steps print.
            self.status[actor] = opened.map_or(-1, |fd| {
                let high = sys::call(libc::SYS_fcntl, &[fd, libc::F_DUPFD_CLOEXEC as usize, 200]);
                let _ = sys::call(libc::SYS_close, &[fd]);
                high.map_or(-1, |fd| fd as i32)
            });
        }
        let mut text = [0_u8; 4096];
        let read = sys::call(
            libc::SYS_pread64,
            &[
                self.status[actor] as usize,
                text.as_mut_ptr() as usize,
                text.len(),
                0,
            ],
        );
        // A process that is gone has no file any more.
        let Ok(len) = read else {
            return Look {
                state: b'Z',
                switches: 0,
            };
        };
        let text = std::str::from_utf8(&text[..len]).unwrap_or_default();
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name))
                .map(str::trim)
        };
        let count = |name: &str| {
            field(name)
                .and_then(|text| text.parse::<u64>().ok())
                .unwrap_or_default()
        };
        Look {
            state: field("State:")
                .and_then(|text| text.bytes().next())
                .unwrap_or(b'?'),
            switches: count("voluntary_ctxt_switches:") + count("nonvoluntary_ctxt_switches:"),
        }
    }
}

fn quiet(looks: &Looks) -> bool {
    looks
        .iter()
        .flatten()
        .all(|look| matches!(look.state, b'S' | b'D' | b'Z'))
}

fn pause(microseconds: i64) {
    let pause = libc::timespec {
        tv_sec: 0,
        tv_nsec: microseconds * 1000,
    };
    let _ = sys::call(libc::SYS_nanosleep, &[&raw const pause as usize, 0]);
}

/// Seconds of a clock that runs on.
fn seconds() -> i64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let _ = sys::call(
        libc::SYS_clock_gettime,
        &[libc::CLOCK_MONOTONIC as usize, &raw mut now as usize],
    );
    now.tv_sec
}
