//! Running a guest: to the point where it is saved, to its end.
//!
//! A guest runs as long as it likes until its limit, which is looked at when the host's clock interrupts it. Whatever else
//! ends a run is a sentence.

use alloc::string::String;
use core::fmt;

use hv::userfault::MemoryFault;
use hv::vcpu::{Broken, Stop, Vcpu};
use hv::vendor::Vendor;
use kernel::arch::{Clock, Machine};
use kernel::mm::addr::GuestPhysAddr;

/// The mark at which guests are saved.
const SAVED_AT: u64 = 1;

/// When a guest is saved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SavePoint {
    /// So many ticks after mark 1.
    Mark {
        /// 0: at the mark.
        then: u64,
    },
    /// At the first stop that is so many ticks after its start.
    Ticks(u64),
}

/// How long a guest may run, from some moment on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    ms: u64,
    ticks: u64,
}

/// Why a guest did not come to where it should.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GuestError {
    /// It cannot go on.
    Broken(Broken),
    /// It was not done in time.
    TooLong(Limit),
    /// The task that ran it was killed.
    Killed,
    /// It touched a delegated page, and nobody serves it.
    Unserved(GuestPhysAddr),
    /// It came to its end before the point at which it should be saved.
    NoSavePoint {
        /// Its exit status.
        status: u64,
        /// The point.
        point: SavePoint,
    },
    /// Its owner could not resolve a fault, or would not.
    Owner(String),
}

/// How a guest came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: u64,
    /// Ticks that this took.
    pub ticks: u64,
}

impl Limit {
    /// So many milliseconds.
    pub fn ms(ms: u64) -> Self {
        let ticks = u128::from(ms) * u128::from(Machine::frequency()) / 1000;
        Self {
            ms,
            ticks: u64::try_from(ticks).unwrap_or(u64::MAX),
        }
    }

    /// So many times as long: for guests that take turns.
    pub fn times(self, number: u64) -> Self {
        Self {
            ms: self.ms.saturating_mul(number),
            ticks: self.ticks.saturating_mul(number),
        }
    }

    fn from(self, begin: u64) -> u64 {
        begin.saturating_add(self.ticks)
    }
}

impl fmt::Display for GuestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(broken) => broken.fmt(f),
            Self::TooLong(limit) => write!(
                f,
                "the guest was not done after {} ms; if it is not looping, give it more with --guest-deadline",
                limit.ms
            ),
            Self::Killed => f.write_str("the task that ran the guest was killed"),
            Self::Unserved(addr) => write!(
                f,
                "the guest touched the delegated page at {addr}, which nobody serves"
            ),
            Self::NoSavePoint {
                status,
                point: SavePoint::Mark { .. },
            } => write!(
                f,
                "the guest ended with status {status} and never made the hypercall that marks where it is to be saved \
                 (mark {SAVED_AT}); give a time instead with --mark-after"
            ),
            Self::NoSavePoint {
                status,
                point: SavePoint::Ticks(ticks),
            } => write!(
                f,
                "the guest ended with status {status} before {ticks} ticks were over (--mark-after)"
            ),
            Self::Owner(why) => f.write_str(why),
        }
    }
}

/// Runs a guest until it is to be saved. Nothing of its memory is delegated.
///
/// # Errors
/// It does not come to that point.
pub fn run_to_point<V: Vendor>(vcpu: &mut Vcpu<V>, point: SavePoint, limit: Limit) -> Result<(), GuestError> {
    let begin = Machine::ticks();
    let last = limit.from(begin);
    let mut until = match point {
        SavePoint::Mark { .. } => None,
        SavePoint::Ticks(ticks) => Some(begin.saturating_add(ticks)),
    };
    loop {
        let deadline = until.unwrap_or(last).min(last);
        match (vcpu.run(deadline), point) {
            (Stop::Mark(SAVED_AT), SavePoint::Mark { then: 0 }) => return Ok(()),
            (Stop::Mark(SAVED_AT), SavePoint::Mark { then }) if until.is_none() => {
                until = Some(Machine::ticks().saturating_add(then));
            }
            (Stop::Mark(_), _) => {}
            (Stop::Deadline, _) if until.is_some() && deadline < last => return Ok(()),
            (Stop::Exited(status), _) => return Err(GuestError::NoSavePoint { status, point }),
            (stop, _) => return Err(error(stop, limit)),
        }
    }
}

/// Runs a guest to its end. Delegated accesses are for `serve`.
///
/// # Errors
/// It does not come to its end, or `serve` failed.
pub fn run_to_end<V: Vendor>(
    vcpu: &mut Vcpu<V>,
    limit: Limit,
    mut serve: impl FnMut(MemoryFault) -> Result<(), GuestError>,
) -> Result<Ended, GuestError> {
    let begin = Machine::ticks();
    loop {
        match vcpu.run(limit.from(begin)) {
            Stop::Exited(status) => {
                let ticks = Machine::ticks() - begin;
                return Ok(Ended { status, ticks });
            }
            Stop::Mark(_) => {}
            Stop::Userfault(fault) => serve(fault)?,
            stop => return Err(error(stop, limit)),
        }
    }
}

/// A stop that nobody has a use for.
fn error(stop: Stop, limit: Limit) -> GuestError {
    match stop {
        Stop::Broken(broken) => GuestError::Broken(broken),
        Stop::Killed => GuestError::Killed,
        Stop::Userfault(fault) => GuestError::Unserved(fault.addr),
        Stop::Deadline | Stop::Mark(_) | Stop::Exited(_) => GuestError::TooLong(limit),
    }
}
