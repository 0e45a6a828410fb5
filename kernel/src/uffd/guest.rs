//! Faults of a guest's memory: the channel at stage 2.
//!
//! ```text
//!   vCPU's task, or a task of the guest        monitor
//!   ───────────────────────────────────        ───────
//!   touches a delegated page
//!   Ctx::guest_fault: classify, queue, sleep ► Uffd::read_event: Event::GuestFault
//!   runs again ◄──────── wakes the range ───── Uffd::stage2: copy, zeropage, cont, poison
//!                                                  └─► GuestBacking: the hypervisor, or a hypercall to it
//! ```
//!
//! A context for a guest has the queue, readers, deliveries, policies and diagnosis of any other. What it does not have is a
//! space: pages are named by guest-physical address, nothing is registered, and the operations are those of
//! [`Stage2`], which ask a [`GuestBacking`] to do the work. So the same channel serves on the host, where the hypervisor
//! implements that, and inside the guest, where hypercalls do.
//!
//! What is delegated is a bit for each page ([`GuestBacking::delegates`]), set by the owner of the memory and not by the
//! context: it may be cleared by an atomic store that nobody here is told about. Two things follow.
//!
//! * The kind of a fault is that of [`classify`](mod@super::classify) for an empty entry registered for MISSING and MINOR.
//! * Whoever queues a fault looks at the bit once more behind that: if it was cleared, and the range woken, in between, the
//!   fault is taken back. Whoever clears a bit by itself wakes the range afterwards ([`Stage2::wake`]).
//!
//! Closing the context leaves the bits: accesses then fail with
//! [`FaultError::MonitorGone`], since there is no plain memory behind them. [`MonitorDeath::Zero`](super::MonitorDeath::Zero)
//! comes to the same.

use alloc::sync::{Arc, Weak};
use core::fmt;

use super::admit::Admission;
use super::api::{Features, Flags, Ioctls};
use super::classify::{CacheState, EntryState, classify};
use super::ctx::{Ctx, Resolver, Uffd};
use super::delivery::{self, Delivery, Wait};
use super::ops::{FillMode, Outcome, RangeError, Refusal, WakeError};
use super::release::Release;
use super::slot::Fault;
use crate::mm::addr::{GuestPhysAddr, PAGE_SIZE, VirtAddr};
use crate::mm::fault::{Access, FaultError, FaultInfo, Origin};
use crate::mm::memtype::{Granule, Modes, OpSet};
use crate::mm::range::{GuestRange, VirtRange};
use crate::task::Task;

/// Whose tables a fault is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Those of an address space.
    One,
    /// Those of a guest's memory: the address is guest-physical.
    Two,
}

/// The memory of a guest, for whoever serves its faults.
///
/// Each operation goes on page by page until one is refused, and wakes nobody. Ranges consist of whole pages.
pub trait GuestBacking: Send + Sync {
    /// Whether accesses of the page at `addr` are delegated.
    fn delegates(&self, addr: GuestPhysAddr) -> bool;

    /// Fills absent pages with `source`, and ends their delegation.
    fn copy(&self, to: GuestPhysAddr, source: &[u8]) -> (u64, Result<(), Refusal>);

    /// Fills absent pages with zeros, and ends their delegation.
    fn zeropage(&self, range: GuestRange) -> (u64, Result<(), Refusal>);

    /// Ends the delegation of pages that are there.
    fn cont(&self, range: GuestRange) -> (u64, Result<(), Refusal>);

    /// Makes accesses of absent pages fail, and ends their delegation.
    fn poison(&self, range: GuestRange) -> (u64, Result<(), Refusal>);
}

/// An access of a guest's memory that is delegated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestFault {
    /// What was touched.
    pub addr: GuestPhysAddr,
    /// How.
    pub access: Access,
    /// Whether the page is in the cache of what backs it.
    pub cache: CacheState,
    /// On whose account: the guest's own accesses are [`Origin::Task`] inside the guest, and the kernel's on the host.
    pub origin: Origin,
}

/// The operations on a guest's memory. Names, modes and answers are those of stage 1.
#[derive(Clone, Copy)]
pub struct Stage2<'a> {
    resolver: &'a Resolver,
    backing: &'a Weak<dyn GuestBacking>,
}

impl fmt::Debug for Stage2<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage2")
            .field("ctx", self.resolver.ctx())
            .finish_non_exhaustive()
    }
}

impl Uffd {
    /// A context for the faults of a guest's memory. It is ready; nothing is negotiated. The memory does not belong to it:
    /// once that is gone, operations are refused as those of a space that is ([`Refusal::SpaceGone`]).
    pub fn for_guest(
        backing: Weak<dyn GuestBacking>,
        flags: Flags,
        features: Features,
        delivery: Delivery,
    ) -> Self {
        Self::ready(Ctx::of_guest(backing, flags, &Release::ALL, delivery), features)
    }
}

impl Resolver {
    /// The operations on a guest's memory; `None` when the context serves a space.
    pub fn stage2(&self) -> Option<Stage2<'_>> {
        let backing = self.ctx.guest()?;
        Some(Stage2 {
            resolver: self,
            backing,
        })
    }
}

impl Stage2<'_> {
    /// COPY: fills the pages from `to` on with `source`, whole pages of bytes, and wakes whoever waits for them.
    ///
    /// A page that the memory has already is [`Refusal::Exists`], delegated or not: it takes [`Self::cont`].
    pub fn copy(&self, to: GuestPhysAddr, source: &[u8], mode: FillMode) -> Outcome {
        let range = GuestRange::from_len(to, source.len() as u64);
        self.operate(OpSet::COPY, range, mode, |backing, _| backing.copy(to, source))
    }

    /// ZEROPAGE: fills pages with zeros, and wakes whoever waits for them. Answers are those of [`Self::copy`].
    pub fn zeropage(&self, range: GuestRange, mode: FillMode) -> Outcome {
        self.operate(OpSet::ZEROPAGE, Some(range), mode, |backing, range| {
            backing.zeropage(range)
        })
    }

    /// CONTINUE: lets the guest at pages that the memory has, and wakes whoever waits for them.
    ///
    /// A page that is not there is [`Refusal::NoPage`], one that is not delegated [`Refusal::Exists`].
    pub fn cont(&self, range: GuestRange, mode: FillMode) -> Outcome {
        self.operate(OpSet::CONTINUE, Some(range), mode, |backing, range| {
            backing.cont(range)
        })
    }

    /// POISON: makes accesses of absent pages fail, and wakes whoever waits for them, to that.
    pub fn poison(&self, range: GuestRange, mode: FillMode) -> Outcome {
        self.operate(OpSet::POISON, Some(range), mode, |backing, range| {
            backing.poison(range)
        })
    }

    /// WAKE: has whoever waits for a page in `range` look again. For who has ended the delegation by itself, or left it
    /// with [`FillMode::DONTWAKE`].
    ///
    /// # Errors
    /// See [`WakeError`].
    pub fn wake(&self, range: GuestRange) -> Result<(), WakeError> {
        let ctx = self.resolver.ctx();
        ctx.gate(Ioctls::WAKE)?;
        check(range)?;
        ctx.stir_guest(range);
        Ok(())
    }

    fn operate(
        &self,
        op: OpSet,
        range: Option<GuestRange>,
        mode: FillMode,
        work: impl FnOnce(&dyn GuestBacking, GuestRange) -> (u64, Result<(), Refusal>),
    ) -> Outcome {
        let ctx = self.resolver.ctx();
        let checked = || {
            ctx.gate(op.into())?;
            let range = range.ok_or(RangeError::BeyondTop)?;
            check(range)?;
            if !FillMode::DONTWAKE.contains(mode) {
                return Err(Refusal::UnknownMode);
            }
            let backing = self.backing.upgrade().ok_or(Refusal::SpaceGone)?;
            Ok((range, backing))
        };
        match checked() {
            Err(why) => Outcome::Refused(why),
            Ok((range, backing)) => {
                let (bytes, result) = work(&*backing, range);
                let done = at_stage1(GuestRange::new(range.start, range.start + bytes));
                let wake = !mode.contains(FillMode::DONTWAKE);
                self.resolver.finish(done, bytes, wake, result)
            }
        }
    }
}

impl Ctx {
    /// A task, the current one, has touched a delegated page of a guest's memory: queues the fault, or calls the handler,
    /// and returns when it is to look again. `still` says once more whether the page is delegated. May sleep; no lock is
    /// held.
    ///
    /// # Errors
    /// Nobody would ever resolve the fault, or the wait was cut short for good.
    pub fn guest_fault(
        self: &Arc<Self>,
        fault: &GuestFault,
        task: &Arc<Task>,
        still: impl FnOnce() -> bool,
    ) -> Result<(), FaultError> {
        let GuestFault {
            addr,
            access,
            cache,
            origin,
        } = *fault;
        let info = FaultInfo {
            addr: VirtAddr::new(addr.as_u64()),
            access,
            origin,
        };
        let modes = Modes::MISSING | Modes::MINOR;
        let Some(trap) = classify(EntryState::Empty, cache, modes, access) else {
            return Ok(());
        };
        let result = match self.admit(trap, origin) {
            Admission::Note => return Ok(()),
            Admission::BusError(why) => Err(FaultError::BusError(why)),
            Admission::Message => {
                let fault = Fault {
                    trap,
                    addr: info.addr,
                    granule: Granule::Base,
                };
                self.deliver(task, fault).and_then(|()| {
                    // Whoever cleared the bit before this look, and woke nobody, was before the queue's lock.
                    if !task.fault.is_called() && !still() && self.withdraw_fault(task) {
                        return Ok(());
                    }
                    delivery::hand_over(task, &info, Wait::Interruptible)
                })
            }
        };
        result.inspect_err(|error| {
            task.fault.fail(info.addr, *error);
            if *error == FaultError::Killed {
                task.kill();
            }
        })
    }

    /// Has whoever waits for a page in `range` look again, for a reason that is not the monitor's.
    pub fn stir_guest(&self, range: GuestRange) {
        self.stir(at_stage1(range));
    }

    /// Whose tables its faults are about.
    #[inline]
    pub(super) fn stage(&self) -> Stage {
        match self.guest() {
            None => Stage::One,
            Some(_) => Stage::Two,
        }
    }

    /// Whether the guest's page at `addr` is delegated still; `None` when the context serves a space.
    pub(super) fn guest_delegates(&self, addr: VirtAddr) -> Option<bool> {
        let backing = self.guest()?;
        let addr = GuestPhysAddr::new(addr.as_u64());
        Some(backing.upgrade().is_some_and(|backing| backing.delegates(addr)))
    }
}

/// What the check of every range that a monitor names is at stage 2.
fn check(range: GuestRange) -> Result<(), RangeError> {
    if !range.is_aligned(PAGE_SIZE) {
        return Err(RangeError::Unaligned);
    }
    if range.is_empty() {
        return Err(RangeError::Empty);
    }
    Ok(())
}

/// The range as the queue has it, which goes by numbers.
fn at_stage1(range: GuestRange) -> VirtRange {
    VirtRange::new(
        VirtAddr::new(range.start.as_u64()),
        VirtAddr::new(range.end.as_u64()),
    )
}
