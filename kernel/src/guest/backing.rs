//! Delegated memory served by hypercalls: what [`Uffd::stage2`](crate::uffd::Uffd) asks for, the hypervisor does.

use super::answer::{CallError, Filled};
use super::calls;
use crate::abi::guest::Status;
use crate::arch::{Machine, Stage1, Tlb};
use crate::mm::addr::{GuestPhysAddr, PAGE_SIZE, PhysAddr, VirtAddr};
use crate::mm::pt::{Entry, lookup_from};
use crate::mm::range::GuestRange;
use crate::uffd::{GuestBacking, Refusal};

/// The hypervisor, as the one who fills delegated memory.
#[derive(Clone, Copy, Debug)]
pub struct Hypercalls;

/// What an operation answers.
type Answer = (u64, Result<(), Refusal>);

impl GuestBacking for Hypercalls {
    /// The guest cannot see what is delegated: an access that is not delegated any more succeeds when it is made again.
    fn delegates(&self, _: GuestPhysAddr) -> bool {
        true
    }

    fn copy(&self, to: GuestPhysAddr, source: &[u8]) -> Answer {
        let mut done = 0;
        for page in source.chunks(PAGE_SIZE as usize) {
            let Some(from) = physical(VirtAddr::new(page.as_ptr().addr() as u64)) else {
                return (done, Err(Refusal::BadSource));
            };
            // Pages whose contents lie across two frames cannot be named; nobody has such ones.
            if !from.is_aligned(PAGE_SIZE) {
                return (done, Err(Refusal::BadSource));
            }
            let filled = calls::copy(at(to + done), from, PAGE_SIZE);
            done += filled.bytes;
            if let Some(why) = filled.stop {
                return (done, Err(refusal(why)));
            }
        }
        (done, Ok(()))
    }

    fn zeropage(&self, range: GuestRange) -> Answer {
        answer(calls::zeropage(at(range.start), range.len()))
    }

    fn cont(&self, range: GuestRange) -> Answer {
        answer(calls::cont(at(range.start), range.len()))
    }

    /// There is no such call.
    fn poison(&self, _: GuestRange) -> Answer {
        (0, Err(Refusal::Unsupported))
    }
}

/// Guest-physical for the hypervisor, physical here.
fn at(addr: GuestPhysAddr) -> PhysAddr {
    PhysAddr::new(addr.as_u64())
}

fn answer(filled: Filled) -> Answer {
    (filled.bytes, filled.stop.map_or(Ok(()), |why| Err(refusal(why))))
}

/// The channel's word for a call that was refused.
fn refusal(why: CallError) -> Refusal {
    match why {
        CallError::Refused(Status::Exists) => Refusal::Exists,
        CallError::Refused(Status::Absent) => Refusal::NoPage,
        CallError::Refused(Status::OutOfMemory) => Refusal::OutOfMemory,
        CallError::Refused(Status::BadAddress) => Refusal::NotRegistered,
        CallError::Refused(_) | CallError::Unknown(_) => Refusal::Unsupported,
    }
}

/// Where the kernel's tables lead for `addr`.
fn physical(addr: VirtAddr) -> Option<PhysAddr> {
    match lookup_from::<Stage1>(Machine::root(), addr) {
        (Entry::Leaf(leaf), level) => Some(leaf.frame.start() + (addr.as_u64() & (level.size() - 1))),
        _ => None,
    }
}
