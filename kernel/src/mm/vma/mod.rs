//! Virtual memory areas: which parts of an address space are mapped, with what rights, by which memory type, and who is
//! told about their faults.

mod anon;
mod set;
#[cfg(test)]
mod tests;

pub use anon::AnonVma;
pub use set::{MAX_VMAS, TooManyVmas, VmaSet};

use alloc::sync::Arc;
use core::any::Any;
use core::fmt;

use bitflags::bitflags;

use super::addr::{PAGE_SIZE, VirtAddr};
use super::cache::{Claim, NotPromised, Object, ObjectRange, Promise};
use super::fault::{Access, Origin};
use super::frame::{Anon, Frame};
use super::memtype::{AllocError, Granule, MemType, Modes};
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

/// Whether stores to mapped memory reach the object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    /// They do, and every mapping of the object sees them.
    Shared,
    /// A page is copied before the first store to it.
    Private,
}

/// The file that an area was mapped from: kept open, and shown as the area's name. Areas of two openings of a file are not
/// one, as on Linux.
#[derive(Clone)]
pub struct MappedFile(pub Arc<dyn Any + Send + Sync>);

impl PartialEq for MappedFile {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for MappedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MappedFile")
    }
}

/// The part of a memory object that an area maps.
#[derive(Clone, Debug)]
pub struct Backing {
    /// The object.
    pub object: Arc<Object>,
    /// Which of its bytes the area starts with; a multiple of the type's granule.
    pub offset: u64,
    /// Whether stores reach it.
    pub sharing: Sharing,
    /// The file that it was mapped from, if it was.
    pub file: Option<MappedFile>,
    /// Pages of its own that a private mapping was promised, by their place in the object.
    pub promise: Option<Arc<Promise>>,
}

impl Backing {
    /// The part that begins `bytes` further on.
    pub fn advanced(&self, bytes: u64) -> Self {
        Self {
            offset: self.offset + bytes,
            ..self.clone()
        }
    }

    /// Whether `next` maps what comes `len` bytes after this.
    fn continues_as(&self, next: &Self, len: u64) -> bool {
        Arc::ptr_eq(&self.object, &next.object)
            && self.offset + len == next.offset
            && self.sharing == next.sharing
            && self.file == next.file
            && self.promise.as_ref().map(Arc::as_ptr) == next.promise.as_ref().map(Arc::as_ptr)
    }
}

impl PartialEq for Backing {
    fn eq(&self, other: &Self) -> bool {
        self.continues_as(other, 0)
    }
}

bitflags! {
    /// What else is known about an area.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct VmaFlags: u32 {
        /// The object was opened for reading only: the area can never be written (Linux: no `VM_MAYWRITE`).
        const READ_ONLY = 1;
        /// A fork leaves it out (`MADV_DONTFORK`).
        const DONT_FORK = 1 << 1;
        /// Its pages stay (`mlock`).
        const LOCKED = 1 << 2;
        /// They are not populated beforehand (`mlock2` with `MLOCK_ONFAULT`). Only together with [`Self::LOCKED`].
        const LOCKED_ON_FAULT = 1 << 3;
        /// A stack: a touch just below it makes it longer (`MAP_GROWSDOWN`).
        const GROWS_DOWN = 1 << 4;
        /// Nothing is set aside for its pages (`MAP_NORESERVE`). Areas that differ in this are not one.
        const NO_RESERVE = 1 << 5;
        /// It counts as memory that may be needed: it was private and writable at some time, and not made read-only before it
        /// had a page. Areas that differ in this are not one, as on Linux.
        const ACCOUNTED = 1 << 6;
        /// A fork's child finds it empty (`MADV_WIPEONFORK`).
        const WIPE_ON_FORK = 1 << 7;
        /// Core dumps leave it out (`MADV_DONTDUMP`).
        const DONT_DUMP = 1 << 8;
        /// Read ahead a lot (`MADV_SEQUENTIAL`).
        const SEQUENTIAL = 1 << 9;
        /// Do not read ahead (`MADV_RANDOM`).
        const RANDOM = 1 << 10;
        /// Large pages are wanted (`MADV_HUGEPAGE`).
        const LARGE_PAGES = 1 << 11;
        /// They are not (`MADV_NOHUGEPAGE`).
        const BASE_PAGES = 1 << 12;
    }
}

/// Bytes below an area that grows that nothing is put into without being asked for (Linux: `stack_guard_gap`).
pub const STACK_GAP: u64 = 256 * PAGE_SIZE;

/// A range of an address space that is mapped in one way.
#[derive(Clone, PartialEq, Debug)]
pub struct Vma {
    /// Where; page-aligned, not empty.
    pub range: VirtRange,
    /// Rights.
    pub prot: Prot,
    /// Memory type.
    pub ty: &'static MemType,
    /// The object behind it; `None` for memory that only its space has.
    pub backing: Option<Backing>,
    /// What else there is to know.
    pub flags: VmaFlags,
    /// Userfault registration.
    pub uffd: Option<Registration>,
    /// What it remembers of pages of its own.
    pub anon: AnonVma,
}

impl Vma {
    /// Whether the area's rights allow the access.
    #[inline]
    pub fn allows(&self, access: Access) -> bool {
        self.prot.intersects(access.right())
    }

    /// Whether somebody whom rights do not bind gets at its pages: to read them, and to write to those that are, or become, the
    /// space's own (Linux: `FOLL_FORCE`).
    pub fn yields_to(&self, access: Access, origin: Origin) -> bool {
        origin == Origin::Debugger && (access != Access::Write || !self.is_shared())
    }

    /// The offset in its object of `addr`, which lies in the area; 0 without an object.
    #[inline]
    pub fn offset_of(&self, addr: VirtAddr) -> u64 {
        match &self.backing {
            Some(backing) => backing.offset + (addr - self.range.start),
            None => 0,
        }
    }

    /// The bytes of its object that it maps; those of an area without one begin at 0.
    fn object_range(&self) -> ObjectRange {
        let start = self.offset_of(self.range.start);
        ObjectRange {
            start,
            end: start + self.range.len(),
        }
    }

    /// Has it promised the pages that it can come to need, where its type has a pool and it does not do without.
    ///
    /// # Errors
    /// See [`NotPromised`].
    pub fn reserve(&mut self) -> Result<(), NotPromised> {
        let (Some(pool), false) = (self.ty.pool, self.flags.contains(VmaFlags::NO_RESERVE)) else {
            return Ok(());
        };
        let (range, granule) = (self.object_range(), self.ty.granule().size());
        match &mut self.backing {
            Some(backing) if backing.sharing == Sharing::Shared => backing.object.promise(range),
            Some(backing) => {
                let promise = Promise::new(pool);
                promise.extend(range.start / granule..range.end / granule, |_| true)?;
                backing.promise = Some(promise);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// It is not mapped any more: what a private mapping was promised and has not used is not wanted.
    pub fn unreserve(&self) {
        if let Some(promise) = self.backing.as_ref().and_then(|backing| backing.promise.as_ref()) {
            let (range, granule) = (self.object_range(), self.ty.granule().size());
            promise.release(range.start / granule..range.end / granule);
        }
    }

    /// The number of the page at `addr` in its promise, or its object's.
    pub fn promised_page(&self, addr: VirtAddr) -> u64 {
        self.offset_of(addr) / self.ty.granule().size()
    }

    /// The right to a promised page for the entry at `addr`, if one was promised.
    pub fn claim(&self, addr: VirtAddr) -> Option<Claim> {
        self.ty.pool?;
        let backing = self.backing.as_ref()?;
        let promise = match backing.sharing {
            Sharing::Shared => backing.object.promised(),
            Sharing::Private => backing.promise.as_ref(),
        };
        Claim::to(promise?, self.promised_page(addr))
    }

    /// Whether `claim` is to a page for the entry at `addr`.
    pub fn has_promised(&self, claim: &Claim, addr: VirtAddr) -> bool {
        let backing = self.backing.as_ref();
        let promise = backing.and_then(|backing| match backing.sharing {
            Sharing::Shared => backing.object.promised(),
            Sharing::Private => backing.promise.as_ref(),
        });
        promise.is_some_and(|promise| claim.is_to(promise, self.promised_page(addr)))
    }

    /// A page for the entry at `addr`, with arbitrary contents: one that was promised, if it was. The claim is to be told when it
    /// is used.
    ///
    /// # Errors
    /// See [`AllocError`].
    #[inline]
    pub fn alloc_at(&self, addr: VirtAddr) -> Result<(Frame<Anon>, Option<Claim>), AllocError> {
        match self.claim(addr) {
            None => Ok((self.ty.alloc()?, None)),
            Some(claim) => Ok((claim.alloc()?, Some(claim))),
        }
    }

    /// Where what others put below it has to end: at its start, or at some distance where it grows.
    #[inline]
    pub fn guarded_start(&self) -> VirtAddr {
        if self.flags.contains(VmaFlags::GROWS_DOWN) {
            VirtAddr::new(self.range.start.as_u64().saturating_sub(STACK_GAP))
        } else {
            self.range.start
        }
    }

    /// Whether its pages count as memory that may be needed once it can be written: private ones, in base pages, unless nothing
    /// is to be set aside.
    pub fn is_accountable(&self) -> bool {
        !self.is_shared() && self.ty.granule() == Granule::Base && !self.flags.contains(VmaFlags::NO_RESERVE)
    }

    /// Whether the area's pages are those of an object, for everybody who maps it.
    #[inline]
    pub fn is_shared(&self) -> bool {
        matches!(&self.backing, Some(backing) if backing.sharing == Sharing::Shared)
    }

    /// Whether its pages stay, and are to be there at once.
    pub fn is_locked_at_once(&self) -> bool {
        self.flags.contains(VmaFlags::LOCKED) && !self.flags.contains(VmaFlags::LOCKED_ON_FAULT)
    }

    /// Whether the area may get pages of its own and has had none yet.
    #[inline]
    pub fn lacks_own_pages(&self) -> bool {
        self.anon.is_unset() && !self.is_shared()
    }

    /// Whether the access may be what gives the area its first page of its own: a store, or any to large pages, of which there is
    /// no shared one with zeros.
    #[inline]
    pub fn may_begin_own_pages(&self, access: Access) -> bool {
        (access == Access::Write || self.ty.granule() == Granule::Huge) && self.lacks_own_pages()
    }

    /// The part of the area in `range`, which shares an address with it, as an area of its own.
    pub fn clipped(&self, range: VirtRange) -> Self {
        let start = self.range.start.max(range.start);
        let range = VirtRange::new(start, self.range.end.min(range.end));
        let backing = self.backing.as_ref();
        Self {
            range,
            backing: backing.map(|backing| backing.advanced(start - self.range.start)),
            ..self.clone()
        }
    }

    /// Whether `next`, which starts where this ends, could be the same area. Areas of large pages that were parted stay so,
    /// as on Linux (`VM_DONTEXPAND`).
    pub fn continues_as(&self, next: &Self) -> bool {
        self.ty.granule() == Granule::Base
            && self.prot == next.prot
            && self.uffd == next.uffd
            && self.anon.can_join(&next.anon)
            && self.maps_on(next)
    }

    /// Makes the area one with `next`, which it continues as.
    fn join(&mut self, next: &Self) {
        self.range.end = next.range.end;
        self.anon.join(&next.anon);
    }

    /// Whether `next` maps what comes after this, for the same purpose; with whatever rights.
    fn maps_on(&self, next: &Self) -> bool {
        self.range.end == next.range.start
            && self.ty == next.ty
            && self.flags == next.flags
            && match (&self.backing, &next.backing) {
                (None, None) => self.anon.is_as_far_as(&next.anon),
                (Some(backing), Some(next)) => backing.continues_as(next, self.range.len()),
                _ => false,
            }
    }

    /// Whether the first page of either, where it has had none, is remembered like those of the other. `next` starts where this
    /// ends, or they have nothing to do with one another.
    fn remembers_with(&self, next: &Self) -> bool {
        let modes = |vma: &Self| vma.uffd.as_ref().map_or(Modes::empty(), |uffd| uffd.modes);
        self.maps_on(next) && modes(self) == modes(next)
    }
}
