//! The tick: from the local APIC, or from the hypervisor in a guest of ours, which has no APIC.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use super::interrupt::TIMER;
use super::{apic, clock, hypercall};
use crate::guest::calls;

/// Ticks per second.
pub const TICK_RATE: u64 = 100;

/// Ticks of the TSC between two interrupts that the hypervisor was asked for; 0: it was not.
static PERIOD: AtomicU64 = AtomicU64::new(0);

/// The tick cannot be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoTimer {
    /// CPUID shows no local APIC.
    NoApic,
    /// The APIC's timer does not count.
    Stopped,
    /// No memory to map the APIC's registers.
    NoMemory,
    /// The hypervisor has refused one, or has not said how fast the TSC is.
    Refused,
}

impl NoTimer {
    /// The reason in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoApic => "the CPU has no local APIC, or the firmware has switched it off",
            Self::Stopped => "the local APIC's timer does not count",
            Self::NoMemory => "too little memory to map the local APIC",
            Self::Refused => "the hypervisor gives no timer",
        }
    }
}

impl fmt::Display for NoTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where the tick is from, for the boot log.
#[derive(Clone, Copy, Debug)]
pub struct Summary;

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match PERIOD.load(Ordering::Relaxed) {
            0 => apic::Summary.fmt(f),
            period => write!(
                f,
                "timer of the hypervisor, every {period} ticks of the TSC, which has {} kHz",
                clock::frequency() / 1000
            ),
        }
    }
}

/// Starts the tick. The first one comes when interrupts are enabled.
///
/// # Errors
/// See [`NoTimer`].
pub fn start() -> Result<(), NoTimer> {
    if !hypercall::is_guest() {
        return apic::start();
    }
    let period = clock::frequency() / TICK_RATE;
    if period == 0 {
        return Err(NoTimer::Refused);
    }
    calls::timer(period, TIMER).map_err(|_| NoTimer::Refused)?;
    PERIOD.store(period, Ordering::Relaxed);
    Ok(())
}

/// Ends the interrupt that is being served. Those of the hypervisor's end by themselves.
#[inline]
pub fn end_of_interrupt() {
    if !hypercall::is_guest() {
        apic::end_of_interrupt();
    }
}
