//! The hypercalls, typed. To be used in a guest only.
#![expect(unsafe_code, reason = "hands pages of this kernel to the hypervisor")]

use core::fmt;

use super::answer::{CallError, Filled, decode, decode_fill};
use crate::abi::guest::{Call, Delivery, ExitCode, Resumed, WITH_VIEWS};
use crate::arch::hypercall;
use crate::mm::addr::PhysAddr;
use crate::mm::frame::{Frame, KernelData};

pub use crate::arch::hypercall::is_guest;

/// # Safety
/// As for [`hypercall::call`].
#[inline]
unsafe fn call(which: Call, arguments: [u64; 4]) -> (u64, u64) {
    // SAFETY: the caller's contract.
    unsafe { hypercall::call(which as u64, arguments) }
}

/// Ends the machine.
pub fn exit(code: ExitCode) -> ! {
    leave(code as u64)
}

/// Ends the machine with a number of one's own.
pub fn leave(status: u64) -> ! {
    // SAFETY: names no memory.
    let answer = unsafe { call(Call::Exit, [status, 0, 0, 0]) };
    panic!("the hypervisor went on after the end of its guest: {answer:?}")
}

/// Why a guest cannot go on behind a mark.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MarkError {
    /// The call was refused.
    Refused(CallError),
    /// It says to go on in a way that the contract does not have.
    Unknown(u64),
}

impl fmt::Display for MarkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => why.fmt(f),
            Self::Unknown(how) => write!(
                f,
                "the hypervisor says to go on in way {how}, which means nothing"
            ),
        }
    }
}

/// A point is reached: the machine may be saved here, and go on in another one.
///
/// # Errors
/// See [`MarkError`].
pub fn mark(number: u64) -> Result<Resumed, MarkError> {
    // SAFETY: names no memory. What another machine leaves out of it is delegated memory, which nobody borrows.
    let (rax, rdx) = unsafe { call(Call::Mark, [number, 0, 0, 0]) };
    let how = decode(rax, rdx).map_err(MarkError::Refused)?;
    Resumed::from_number(how).ok_or(MarkError::Unknown(how))
}

/// An interrupt every `period` ticks of the TSC on `vector`; 0 ends that.
///
/// # Errors
/// The call was refused.
pub fn timer(period: u64, vector: u8) -> Result<(), CallError> {
    // SAFETY: names no memory; a handler for the vector is the business of the interrupt table, which has all.
    let (rax, rdx) = unsafe { call(Call::Timer, [period, vector.into(), 0, 0]) };
    decode(rax, rdx).map(|_| ())
}

/// How faults on delegated memory are told.
#[derive(Debug)]
pub enum Telling {
    /// By the vector, with an entry in the ring.
    Injected,
    /// By #VE.
    Exceptions {
        /// Where the CPU describes them from now on.
        info: &'static Frame<KernelData>,
        /// Whether this CPU is to switch views.
        views: bool,
    },
}

/// The guest's monitor is ready: faults on delegated memory are its business from now on, told on `vector` with entries in
/// the page `ring`, which holds zeros.
///
/// The pages are the hypervisor's to write from then on, so they are never given back.
///
/// # Errors
/// The call was refused; nothing changed.
pub fn declare(ring: &'static Frame<KernelData>, vector: u8, telling: Telling) -> Result<(), CallError> {
    let at = |page: &Frame<KernelData>| page.pfn().start().as_u64();
    const BY_EXCEPTION: u64 = Delivery::VirtualizationException as u64;
    let (delivery, info) = match telling {
        Telling::Injected => (Delivery::Injected as u64, 0),
        Telling::Exceptions { info, views: false } => (BY_EXCEPTION, at(info)),
        Telling::Exceptions { info, views: true } => (BY_EXCEPTION | WITH_VIEWS, at(info)),
    };
    // SAFETY: the pages are the caller's for ever, as their handles say.
    let (rax, rdx) = unsafe { call(Call::Monitor, [at(ring), vector.into(), delivery, info]) };
    decode(rax, rdx).map(|_| ())
}

/// The monitor is ready no more: faults are the owner's business.
///
/// # Errors
/// The call was refused.
pub fn dismiss() -> Result<(), CallError> {
    // SAFETY: names no memory.
    let (rax, rdx) = unsafe { call(Call::Monitor, [0; 4]) };
    decode(rax, rdx).map(|_| ())
}

/// Faults on `len` bytes of delegated memory at `start` stay the owner's business.
///
/// # Errors
/// The call was refused.
pub fn exempt(start: PhysAddr, len: u64) -> Result<(), CallError> {
    // SAFETY: changes no memory.
    let (rax, rdx) = unsafe { call(Call::Exempt, [start.as_u64(), len, 0, 0]) };
    decode(rax, rdx).map(|_| ())
}

/// Fills `len` bytes of absent delegated memory at `to` with those at `from`, and maps them.
pub fn copy(to: PhysAddr, from: PhysAddr, len: u64) -> Filled {
    // SAFETY: changes delegated memory that is absent only, which nobody has seen anything of.
    let (rax, rdx) = unsafe { call(Call::Copy, [to.as_u64(), from.as_u64(), len, 0]) };
    decode_fill(rax, rdx)
}

/// Maps `len` bytes of delegated memory at `to` that are in the cache.
pub fn cont(to: PhysAddr, len: u64) -> Filled {
    // SAFETY: changes no contents.
    let (rax, rdx) = unsafe { call(Call::Continue, [to.as_u64(), len, 0, 0]) };
    decode_fill(rax, rdx)
}

/// Fills `len` bytes of absent delegated memory at `to` with zeros, and maps them.
pub fn zeropage(to: PhysAddr, len: u64) -> Filled {
    // SAFETY: as for `copy`.
    let (rax, rdx) = unsafe { call(Call::Zeropage, [to.as_u64(), len, 0, 0]) };
    decode_fill(rax, rdx)
}

/// Has the owner resolve an access to delegated memory that came as #VE; `flags` are those of a ring's entry.
///
/// # Errors
/// The call was refused.
pub fn resolve(addr: PhysAddr, flags: u64) -> Result<(), CallError> {
    // SAFETY: changes no memory that somebody has seen.
    let (rax, rdx) = unsafe { call(Call::Resolve, [addr.as_u64(), flags, 0, 0]) };
    decode(rax, rdx).map(|_| ())
}

/// A call with any number and arguments, to see what the hypervisor makes of it: RAX and RDX.
///
/// # Safety
/// As for [`hypercall::call`].
pub unsafe fn raw(number: u64, arguments: [u64; 4]) -> (u64, u64) {
    // SAFETY: the caller's contract.
    unsafe { hypercall::call(number, arguments) }
}
