//! A virtual machine: what its vCPUs have in common.
//!
//! ```text
//!   owner (a task) ── Vcpu::run ──► Stop      one task per vCPU; the owner decides what a Stop means
//!                        │
//!                       Vm ── GuestMemory (slots, stage-2 tables)
//!                        ├── Ports        what the guest prints
//!                        └── Monitor      the guest's own monitor, once it has declared itself
//! ```
//!
//! Locks: those of a machine are taken one at a time, none of them while the guest's memory is touched, which may sleep.

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use arrayvec::ArrayVec;
use kernel::abi::guest::{Delivery, Resumed};
use kernel::mm::addr::GuestPhysAddr;
use kernel::mm::range::GuestRange;
use kernel::sync::SpinLock;

use crate::memory::GuestMemory;
use crate::memslot::SlotError;
use crate::ports::{Ports, Sink};
use crate::ring::Producer;
use crate::vendor::Vendor;

/// Ranges that a guest can declare exempt.
pub const EXEMPTIONS: usize = 16;

/// A machine.
pub struct Vm<V: Vendor> {
    /// Its memory.
    pub memory: Arc<GuestMemory<V::Format>>,
    /// What is delegated to the guest's monitor once there is one; empty: nothing.
    delegated: GuestRange,
    pub(crate) ports: SpinLock<Ports>,
    monitor: SpinLock<Option<Monitor>>,
    exempt: SpinLock<ArrayVec<GuestRange, EXEMPTIONS>>,
    /// What the next mark answers.
    resumed: AtomicU64,
    /// What its vCPUs have done.
    pub counters: Counters,
}

impl<V: Vendor> fmt::Debug for Vm<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vm")
            .field("delegated", &self.delegated)
            .field("monitor", &*self.monitor.lock())
            .finish_non_exhaustive()
    }
}

/// A guest's monitor, as it has declared itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Monitor {
    /// How it is told.
    pub delivery: Delivery,
    /// The interrupt that tells it.
    pub vector: u8,
    /// The ring that says of what.
    pub ring: Producer,
}

/// What the vCPUs of a machine have done so far.
#[derive(Debug, Default)]
pub struct Counters {
    /// Exits of every kind.
    pub exits: AtomicU64,
    /// Stage-2 violations.
    pub violations: AtomicU64,
    /// Those that the guest's monitor was told of by injection.
    pub injected: AtomicU64,
    /// Those that the owner was told of.
    pub delegated: AtomicU64,
    /// Hypercalls.
    pub hypercalls: AtomicU64,
}

impl Counters {
    #[inline]
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The guest has declared as many exemptions as there is room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooManyExemptions;

impl<V: Vendor> Vm<V> {
    /// A machine with this memory, of which `delegated` is what its own monitor may be told of. What it prints goes to
    /// `console`.
    pub fn new(memory: Arc<GuestMemory<V::Format>>, delegated: GuestRange, console: Sink) -> Arc<Self> {
        Arc::new(Self {
            memory,
            delegated,
            ports: SpinLock::new(Ports::new(console)),
            monitor: SpinLock::new(None),
            exempt: SpinLock::new(ArrayVec::new()),
            resumed: AtomicU64::new(Resumed::AsBefore as u64),
            counters: Counters::default(),
        })
    }

    /// What may be delegated to the guest's monitor.
    pub fn delegated(&self) -> GuestRange {
        self.delegated
    }

    /// Has the next mark of the guest answer this.
    pub fn resume_as(&self, how: Resumed) {
        self.resumed.store(how as u64, Ordering::Relaxed);
    }

    /// What a mark answers now; the marks after it go on as before.
    pub(crate) fn take_resumed(&self) -> u64 {
        self.resumed.swap(Resumed::AsBefore as u64, Ordering::Relaxed)
    }

    /// The guest's monitor, if it has one.
    pub fn monitor(&self) -> Option<Monitor> {
        *self.monitor.lock()
    }

    /// The guest's monitor is this one from now on, and told as it wants to be.
    ///
    /// # Errors
    /// No memory for that: it has none from now on.
    pub(crate) fn set_monitor(&self, monitor: Option<Monitor>) -> Result<(), SlotError> {
        let by_exceptions = |monitor: Option<Monitor>| {
            monitor.is_some_and(|monitor| monitor.delivery == Delivery::VirtualizationException)
        };
        let before = core::mem::replace(&mut *self.monitor.lock(), monitor);
        if by_exceptions(monitor) {
            let converted = self.convert_violations();
            if converted.is_ok() {
                return Ok(());
            }
            *self.monitor.lock() = None;
            self.memory.forget_convertible(self.delegated);
            return converted;
        }
        if by_exceptions(before) {
            self.memory.forget_convertible(self.delegated);
        }
        Ok(())
    }

    /// Changes the ring's end of the guest's monitor, if it is still the same one.
    pub(crate) fn put_back_ring(&self, ring: Producer) {
        if let Some(monitor) = self.monitor.lock().as_mut()
            && monitor.ring.page == ring.page
        {
            monitor.ring = ring;
        }
    }

    /// Has violations of what is for the guest's monitor come as #VE, wherever a vCPU's are diverted.
    ///
    /// # Errors
    /// No memory for that: they are the owner's.
    fn convert_violations(&self) -> Result<(), SlotError> {
        let mut exempt = self.exemptions();
        exempt.sort_unstable_by_key(|range| range.start);
        let mut at = self.delegated.start;
        for range in exempt {
            if at < range.start {
                self.memory
                    .set_convertible(GuestRange::new(at, range.start), true)?;
            }
            at = at.max(range.end);
        }
        if at < self.delegated.end {
            self.memory
                .set_convertible(GuestRange::new(at, self.delegated.end), true)?;
        }
        Ok(())
    }

    /// Whether all of `range` is delegated memory, exempt or not.
    pub fn is_delegated(&self, range: GuestRange) -> bool {
        self.delegated.start <= range.start && range.end <= self.delegated.end
    }

    /// Whether `addr` is delegated memory that the guest has not exempted.
    pub fn is_for_monitor(&self, addr: GuestPhysAddr) -> bool {
        self.delegated.contains(addr) && !self.exempt.lock().iter().any(|range| range.contains(addr))
    }

    /// What the guest has exempted.
    pub fn exemptions(&self) -> ArrayVec<GuestRange, EXEMPTIONS> {
        self.exempt.lock().clone()
    }

    /// Exempts a range of delegated memory.
    ///
    /// # Errors
    /// There is no room for one more.
    pub fn exempt(&self, range: GuestRange) -> Result<(), TooManyExemptions> {
        let mut all = self.exempt.lock();
        if all.contains(&range) {
            return Ok(());
        }
        all.try_push(range).map_err(|_| TooManyExemptions)?;
        drop(all);
        self.memory.forget_convertible(range);
        Ok(())
    }

    /// Passes on what the guest has printed without an end of line.
    pub fn flush_console(&self) {
        self.ports.lock().flush_rest();
    }
}
