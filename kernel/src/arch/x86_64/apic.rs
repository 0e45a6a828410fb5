//! The local APIC: end of interrupt, and the timer that ticks.
//!
//! Two ways to the same registers: memory-mapped (xAPIC), or MSRs (x2APIC), which is preferred where it exists. Register
//! numbers here are the memory offsets; the MSR of offset `r` is `0x800 + r / 16` (SDM vol. 3A 12.12.1.2).
#![expect(unsafe_code, reason = "memory-mapped registers and MSRs")]

use core::fmt;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use raw_cpuid::CpuId;
use x86_64::registers::model_specific::Msr;

use super::clock;
use super::features::{Features, features};
use super::interrupt::{APIC_ERROR, SPURIOUS, TIMER};
use super::timer::{NoTimer, TICK_RATE};
use crate::mm::addr::{PAGE_SIZE, PhysAddr};
use crate::mm::kmap;
use crate::mm::pt::CacheType;

const IA32_APIC_BASE: Msr = Msr::new(0x1b);
const BASE_X2APIC: u64 = 1 << 10;
const BASE_ENABLE: u64 = 1 << 11;
const BASE_ADDRESS: u64 = 0x000f_ffff_ffff_f000;

const ID: u32 = 0x20;
const TASK_PRIORITY: u32 = 0x80;
const EOI: u32 = 0xb0;
const SPURIOUS_VECTOR: u32 = 0xf0;
const LVT_TIMER: u32 = 0x320;
const LVT_LINT0: u32 = 0x350;
const LVT_ERROR: u32 = 0x370;
const INITIAL_COUNT: u32 = 0x380;
const CURRENT_COUNT: u32 = 0x390;
const DIVIDE: u32 = 0x3e0;

const SOFTWARE_ENABLE: u32 = 1 << 8;
const MASKED: u32 = 1 << 16;
const PERIODIC: u32 = 1 << 17;
/// DIVIDE: by 16. Slow enough that 32 bits last, fast enough to be exact.
const BY_16: u32 = 0b0011;

/// Where the registers are mapped; null in x2APIC mode.
static REGISTERS: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
/// Timer counts per second, after the divider.
static TIMER_FREQUENCY: AtomicU64 = AtomicU64::new(0);

/// How the local APIC is reached and how fast its timer counts, for the boot log.
#[derive(Clone, Copy, Debug)]
pub struct Summary;

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if REGISTERS.load(Ordering::Relaxed).is_null() {
            "x2APIC"
        } else {
            "xAPIC"
        };
        let (timer, tsc) = (TIMER_FREQUENCY.load(Ordering::Relaxed), clock::frequency());
        write!(
            f,
            "{mode}, timer {} kHz, TSC {} kHz ({:?})",
            timer / 1000,
            tsc / 1000,
            clock::source()
        )
    }
}

/// Enables the local APIC, measures its timer and the TSC, and starts the tick.
///
/// # Errors
/// There is no APIC, or its timer stands still.
pub fn start() -> Result<(), NoTimer> {
    if !CpuId::new().get_feature_info().is_some_and(|f| f.has_apic()) {
        return Err(NoTimer::NoApic);
    }
    enable()?;
    write(DIVIDE, BY_16);
    write(LVT_TIMER, MASKED | u32::from(TIMER));
    write(INITIAL_COUNT, u32::MAX);
    let frequency = clock::calibrate();
    TIMER_FREQUENCY.store(frequency, Ordering::Relaxed);
    let count = u32::try_from(frequency / TICK_RATE).unwrap_or(u32::MAX);
    if count == 0 {
        return Err(NoTimer::Stopped);
    }
    write(LVT_TIMER, PERIODIC | u32::from(TIMER));
    write(INITIAL_COUNT, count);
    Ok(())
}

/// Ends the interrupt that is being served.
#[inline]
pub fn end_of_interrupt() {
    write(EOI, 0);
}

/// The number by which interrupts are sent to this CPU.
pub fn id() -> u32 {
    let id = read(ID);
    // In memory it stands in the top byte (SDM vol. 3A figure 12-6).
    if REGISTERS.load(Ordering::Relaxed).is_null() {
        id
    } else {
        id >> 24
    }
}

/// What the timer still has to count down.
pub fn timer_count() -> u32 {
    read(CURRENT_COUNT)
}

fn enable() -> Result<(), NoTimer> {
    let mut msr = IA32_APIC_BASE;
    // SAFETY: the MSR exists wherever CPUID shows an APIC.
    let base = unsafe { msr.read() };
    let x2apic = base & BASE_X2APIC != 0 || features().contains(Features::X2APIC);
    let mode = if x2apic {
        BASE_ENABLE | BASE_X2APIC
    } else {
        BASE_ENABLE
    };
    // SAFETY: enabling is what is wanted, the address stays, and x2APIC is entered from xAPIC mode or was on: one step
    // at a time, as SDM vol. 3A figure 12-27 demands.
    unsafe {
        msr.write(base | BASE_ENABLE);
        msr.write(base | mode);
    }
    if !x2apic {
        let registers = map_registers(PhysAddr::new(base & BASE_ADDRESS))?;
        REGISTERS.store(registers, Ordering::Release);
    }
    write(TASK_PRIORITY, 0);
    write(LVT_LINT0, MASKED); // where the legacy controller is connected
    write(LVT_ERROR, u32::from(APIC_ERROR));
    write(SPURIOUS_VECTOR, SOFTWARE_ENABLE | u32::from(SPURIOUS));
    Ok(())
}

/// Maps the page of registers, uncached.
fn map_registers(at: PhysAddr) -> Result<*mut u8, NoTimer> {
    let page = kmap::map_device(at, PAGE_SIZE, CacheType::Uncached).map_err(|_| NoTimer::NoMemory)?;
    Ok(ptr::with_exposed_provenance_mut(page.as_u64() as usize))
}

#[inline]
fn write(register: u32, value: u32) {
    let base = REGISTERS.load(Ordering::Relaxed);
    if base.is_null() {
        // SAFETY: x2APIC mode is on (`enable`); the registers written here exist in it.
        unsafe { Msr::new(0x800 + register / 16).write(u64::from(value)) };
    } else {
        // SAFETY: `base` maps the page of registers, uncached.
        unsafe { base.add(register as usize).cast::<u32>().write_volatile(value) };
    }
}

#[inline]
fn read(register: u32) -> u32 {
    let base = REGISTERS.load(Ordering::Relaxed);
    if base.is_null() {
        // SAFETY: as in `write`.
        unsafe { Msr::new(0x800 + register / 16).read() as u32 }
    } else {
        // SAFETY: as in `write`.
        unsafe { base.add(register as usize).cast::<u32>().read_volatile() }
    }
}
