//! The TSC and what it is worth.
//!
//! Its frequency comes from CPUID where the CPU or the hypervisor knows it (leaf 0x15, SDM vol. 3A 20.7.3; leaf
//! 0x4000_0010 of hypervisors), else from the PIT, which also measures the local APIC's timer.

use core::sync::atomic::{AtomicU64, Ordering};

use raw_cpuid::{CpuId, cpuid};

use super::{apic, pit};
use crate::arch::{Clock, Machine};

/// PIT ticks of one measurement: 4 ms.
const SPAN: u16 = (pit::FREQUENCY / 250) as u16;
/// Measurements taken; the shortest counts, since whatever disturbs one (a busy host, an SMI) makes it longer.
const TRIALS: usize = 4;
/// Taken when nothing tells: most machines are within a factor of five.
const GUESS: u64 = 1_000_000_000;

static FREQUENCY: AtomicU64 = AtomicU64::new(0);
static SOURCE: AtomicU64 = AtomicU64::new(0);

/// Where the frequency is from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// Not calibrated yet.
    Unknown,
    /// CPUID named it.
    Cpuid,
    /// Measured against the PIT.
    Pit,
    /// Assumed: neither CPUID nor a PIT.
    Guess,
}

/// TSC ticks per second; 0 before [`calibrate`].
#[inline]
pub fn frequency() -> u64 {
    FREQUENCY.load(Ordering::Relaxed)
}

/// Where [`frequency`] is from.
pub fn source() -> Source {
    match SOURCE.load(Ordering::Relaxed) {
        1 => Source::Cpuid,
        2 => Source::Pit,
        3 => Source::Guess,
        _ => Source::Unknown,
    }
}

/// Finds the TSC's frequency and returns that of the local APIC's timer, whose count must be running down.
pub fn calibrate() -> u64 {
    let named = tsc_from_cpuid();
    let measured = (0..TRIALS).map_while(|_| measure()).min();
    let (tsc, source) = match (named, measured) {
        (Some(tsc), _) => (tsc, Source::Cpuid),
        (None, Some((tsc, _))) => (tsc, Source::Pit),
        (None, None) => (GUESS, Source::Guess),
    };
    FREQUENCY.store(tsc, Ordering::Relaxed);
    SOURCE.store(source as u64, Ordering::Relaxed);
    measured.map_or_else(|| apic_against_tsc(tsc), |(_, apic)| apic)
}

/// TSC and APIC timer ticks per second, by the PIT.
fn measure() -> Option<(u64, u64)> {
    let sample = || (Machine::ticks(), apic::timer_count());
    let ((tsc0, apic0), (tsc1, apic1)) = pit::measure(SPAN, sample)?;
    let per_second = |count: u64| count * pit::FREQUENCY / u64::from(SPAN);
    Some((
        per_second(tsc1 - tsc0),
        per_second(u64::from(apic0.wrapping_sub(apic1))),
    ))
}

/// The APIC timer's frequency when there is no PIT: 10 ms by the TSC.
fn apic_against_tsc(tsc: u64) -> u64 {
    let (start, count) = (Machine::ticks(), apic::timer_count());
    while Machine::ticks() - start < tsc / 100 {
        core::hint::spin_loop();
    }
    u64::from(count.wrapping_sub(apic::timer_count())) * 100
}

fn tsc_from_cpuid() -> Option<u64> {
    let id = CpuId::new();
    let native = id.get_tsc_info().and_then(|tsc| tsc.tsc_frequency());
    native
        .or_else(|| {
            id.get_feature_info().filter(|f| f.has_hypervisor())?;
            // The highest hypervisor leaf stands in EAX of the first; 0x4000_0010 gives kHz in EAX.
            (cpuid!(0x4000_0000).eax >= 0x4000_0010).then(|| u64::from(cpuid!(0x4000_0010).eax) * 1000)
        })
        .filter(|&hz| hz > 0)
}
