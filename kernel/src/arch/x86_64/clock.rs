//! The TSC and what it is worth.
//!
//! Its frequency is what [`told`] was told, in a guest of our own hypervisor. Elsewhere it comes from CPUID where the CPU or the hypervisor knows it (leaf 0x15, SDM vol. 3A 20.7.3; leaf
//! 0x4000_0010 of hypervisors), else from the PIT, which also measures the local APIC's timer.
//!
//! Under an emulator, or with firmware that takes the CPU away (SMI), any two instructions may be milliseconds apart. So
//! the counters are read together several times at either end of the measurement, and the reading that took the
//! shortest counts.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use raw_cpuid::{CpuId, cpuid};

use super::{apic, pit};
use crate::arch::{Clock, Machine};

/// PIT ticks that a measurement takes at least: 5 ms.
const SPAN: u16 = (pit::FREQUENCY / 200) as u16;
/// Readings at either end.
const READINGS: usize = 8;
/// Measurements tried, should the host stop us for longer than the PIT counts.
const TRIALS: usize = 4;
/// TSC ticks after which a PIT that has not moved is none: some milliseconds.
const PATIENCE: u64 = 1 << 24;
/// Taken when nothing tells: most machines are within a factor of five.
const GUESS: u64 = 1_000_000_000;

static FREQUENCY: AtomicU64 = AtomicU64::new(0);
static SOURCE: AtomicU8 = AtomicU8::new(Source::Unknown as u8);

/// Where the frequency is from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Source {
    /// Not calibrated yet.
    Unknown,
    /// CPUID named it.
    Cpuid,
    /// Measured against the PIT.
    Pit,
    /// Assumed: neither CPUID nor a PIT.
    Guess,
    /// The hypervisor said it.
    Told,
}

/// TSC ticks per second; 0 before [`calibrate`].
#[inline]
pub fn frequency() -> u64 {
    FREQUENCY.load(Ordering::Relaxed)
}

/// Where [`frequency`] is from.
pub fn source() -> Source {
    let stored = SOURCE.load(Ordering::Relaxed);
    let all = [Source::Cpuid, Source::Pit, Source::Guess, Source::Told];
    all.into_iter()
        .find(|source| *source as u8 == stored)
        .unwrap_or(Source::Unknown)
}

/// The TSC's frequency, for a machine whose hypervisor says it. Then nothing is measured.
pub fn told(frequency: u64) {
    FREQUENCY.store(frequency, Ordering::Relaxed);
    SOURCE.store(Source::Told as u8, Ordering::Relaxed);
}

/// Finds the TSC's frequency and returns that of the local APIC's timer, whose count must be running down.
pub fn calibrate() -> u64 {
    let named = tsc_from_cpuid();
    let measured = (0..TRIALS).find_map(|_| measure());
    let (tsc, source) = match (named, measured) {
        (Some(tsc), _) => (tsc, Source::Cpuid),
        (None, Some((tsc, _))) => (tsc, Source::Pit),
        (None, None) => (GUESS, Source::Guess),
    };
    FREQUENCY.store(tsc, Ordering::Relaxed);
    SOURCE.store(source as u8, Ordering::Relaxed);
    measured.map_or_else(|| apic_against_tsc(tsc), |(_, apic)| apic)
}

/// The three counters, read together.
struct Reading {
    tsc: u64,
    apic: u32,
    pit: u16,
    /// TSC ticks that the reading took.
    took: u64,
}

fn read_once() -> Reading {
    let start = Machine::ticks();
    let (apic, pit) = (apic::timer_count(), pit::count());
    let took = Machine::ticks() - start;
    Reading {
        tsc: start + took / 2,
        apic,
        pit,
        took,
    }
}

fn read() -> Reading {
    let first = read_once();
    (1..READINGS).map(|_| read_once()).fold(
        first,
        |best, next| if next.took < best.took { next } else { best },
    )
}

/// TSC and APIC timer ticks per second, by the PIT; `None` when there is none or its count ran out.
fn measure() -> Option<(u64, u64)> {
    pit::start();
    let before = read();
    loop {
        let elapsed = before.pit.wrapping_sub(pit::count());
        let stands_still = elapsed == 0 && Machine::ticks() - before.tsc > PATIENCE;
        if stands_still || pit::is_over() {
            pit::stop();
            return None;
        }
        if elapsed >= SPAN {
            break;
        }
    }
    let after = read();
    let over = pit::is_over();
    pit::stop();
    let elapsed = u64::from(before.pit.wrapping_sub(after.pit));
    let per_second = |count: u64| count * pit::FREQUENCY / elapsed;
    let apic = u64::from(before.apic.wrapping_sub(after.apic));
    (!over && elapsed > 0).then(|| (per_second(after.tsc - before.tsc), per_second(apic)))
}

/// The APIC timer's frequency when there is no PIT: 10 ms by the TSC.
fn apic_against_tsc(tsc: u64) -> u64 {
    let before = (Machine::ticks(), apic::timer_count());
    while Machine::ticks() - before.0 < tsc / 100 {
        core::hint::spin_loop();
    }
    u64::from(before.1.wrapping_sub(apic::timer_count())) * 100
}

fn tsc_from_cpuid() -> Option<u64> {
    let id = CpuId::new();
    let native = id.get_tsc_info().and_then(|tsc| tsc.tsc_frequency());
    let hypervisor = || {
        id.get_feature_info().filter(|f| f.has_hypervisor())?;
        // The highest hypervisor leaf stands in EAX of the first; 0x4000_0010 gives kHz in EAX.
        (cpuid!(0x4000_0000).eax >= 0x4000_0010).then(|| u64::from(cpuid!(0x4000_0010).eax) * 1000)
    };
    native.or_else(hypervisor).filter(|&hz| hz > 0)
}
