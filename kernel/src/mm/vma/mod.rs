//! Virtual memory areas: which parts of an address space are mapped, with what rights, by which memory type, and who is
//! told about their faults.

mod set;
#[cfg(test)]
mod tests;

pub use set::{MAX_VMAS, TooManyVmas, VmaSet};

use alloc::sync::Arc;

use super::fault::Access;
use super::memtype::{MemType, Modes};
use super::pt::Prot;
use super::range::VirtRange;
use crate::uffd::Ctx;

/// Who is told about the faults of an area, and about which.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The context.
    pub ctx: Arc<Ctx>,
    /// The faults it traps.
    pub modes: Modes,
}

impl PartialEq for Registration {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.ctx, &other.ctx) && self.modes == other.modes
    }
}

/// A range of an address space that is mapped in one way.
#[derive(Clone, PartialEq, Debug)]
pub struct Vma {
    /// Where; page-aligned, not empty.
    pub range: VirtRange,
    /// Rights.
    pub prot: Prot,
    /// Memory type.
    pub ty: &'static MemType,
    /// Userfault registration.
    pub uffd: Option<Registration>,
}

impl Vma {
    /// Whether the area's rights allow the access.
    #[inline]
    pub fn allows(&self, access: Access) -> bool {
        self.prot.contains(match access {
            Access::Read => Prot::READ,
            Access::Write => Prot::WRITE,
            Access::Execute => Prot::EXEC,
        })
    }

    /// Whether `next`, which starts where this ends, could be the same area.
    pub fn continues_as(&self, next: &Self) -> bool {
        self.range.end == next.range.start
            && self.prot == next.prot
            && self.ty == next.ty
            && self.uffd == next.uffd
    }
}
