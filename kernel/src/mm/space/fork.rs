//! Copying a space.
//!
//! | memory | what the child gets |
//! | --- | --- |
//! | of the space only, and private mappings, that have had pages of their own | the same pages; whoever stores first, on either side, gets a copy |
//! | poison and guards there | the same |
//! | the same that have had none | nothing: zeros, or the object's pages, are found again by faults |
//! | of areas that are wiped ([`VmaFlags::WIPE_ON_FORK`]) | nothing |
//! | shared mappings | the object; its pages are found again by faults |
//! | shared mappings that have had guards | also the entries |
//! | mappings whose stores the child's context traps | also the entries: protection stands in them, and poison |
//!
//! Write protection goes with the registration (see `crate::uffd::fork`): the child's copy has it only where a context of
//! its own traps stores.
//!
//! A page that was shared by a fork is marked [`AttrFlags::FORKED`] on both sides until it is stored to.

use alloc::collections::TryReserveError;
use alloc::sync::{Arc, Weak};

use super::Space;
use crate::arch::Stage1;
use crate::mm::addr::VirtAddr;
use crate::mm::cache::{NoRoomForView, View};
use crate::mm::frame::OutOfFrames;
use crate::mm::memtype::Modes;
use crate::mm::pt::{Attr, AttrFlags, Cursor, Entry, Flush, InstallError, Leaf, Level, Marker, Prot};
use crate::mm::vma::{TooManyVmas, Vma, VmaFlags};
use crate::task;
use crate::uffd::Forks;

/// Why there is no child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForkError {
    /// No memory for the child's tables or for the kernel's own records (Linux: ENOMEM).
    OutOfMemory,
    /// The task was killed while it waited for a monitor to read of the fork (EINTR).
    Killed,
}

impl From<OutOfFrames> for ForkError {
    fn from(_: OutOfFrames) -> Self {
        Self::OutOfMemory
    }
}

impl From<NoRoomForView> for ForkError {
    fn from(_: NoRoomForView) -> Self {
        Self::OutOfMemory
    }
}

impl From<TooManyVmas> for ForkError {
    fn from(_: TooManyVmas) -> Self {
        Self::OutOfMemory
    }
}

impl From<TryReserveError> for ForkError {
    fn from(_: TryReserveError) -> Self {
        Self::OutOfMemory
    }
}

impl Space {
    /// A copy of the space, for a new process. Areas with [`VmaFlags::DONT_FORK`] are left out.
    ///
    /// Returns when every context with [`Features::EVENT_FORK`](crate::uffd::Features::EVENT_FORK) and a part in the child
    /// has been told, once each: the child is complete by then, and nothing runs in it.
    ///
    /// # Errors
    /// See [`ForkError`]. Nothing is left of the child then; pages that it shared for a moment count as forked.
    ///
    /// # Panics
    /// There is somebody to tell, and a lock is held.
    pub fn fork(self: &Arc<Self>) -> Result<Arc<Self>, ForkError> {
        let child = Self::new(self.privilege)?;
        child.set_ceiling(self.ceiling());
        child.set_stack_limit(self.stack_limit());
        let mut forks = Forks::new(&child);
        self.copy_into(&child, &mut forks)?;
        forks.announce();
        if task::current().is_killed() {
            return Err(ForkError::Killed);
        }
        Ok(child)
    }

    /// Copies all areas and what is mapped in them.
    fn copy_into(&self, child: &Arc<Self>, forks: &mut Forks<'_>) -> Result<(), ForkError> {
        let vmas = self.vmas.write();
        let mut flush = Flush::new();
        let copied = vmas
            .iter()
            .filter(|vma| !vma.flags.contains(VmaFlags::DONT_FORK))
            .try_for_each(|vma| self.copy_area(vma, child, forks, &mut flush));
        // Also after a failure, and before anybody faults here: what is shared must not stay writable anywhere.
        flush.spend(self);
        copied
    }

    fn copy_area(
        &self,
        vma: &Vma,
        child: &Arc<Self>,
        forks: &mut Forks<'_>,
        flush: &mut Flush<VirtAddr>,
    ) -> Result<(), ForkError> {
        let uffd = match &vma.uffd {
            Some(registration) => forks.inherit(registration)?,
            None => None,
        };
        let wiped = vma.flags.contains(VmaFlags::WIPE_ON_FORK);
        let mut anon = vma.anon.forked();
        if wiped {
            anon.unset();
        }
        let mut copy = Vma {
            anon,
            flags: vma.flags - VmaFlags::LOCKED - VmaFlags::LOCKED_ON_FAULT,
            uffd,
            ..vma.clone()
        };
        // What was promised stays the parent's.
        if let Some(backing) = &mut copy.backing {
            backing.promise = None;
        }
        let mut areas = child.vmas.write();
        if let Some(backing) = &copy.backing {
            // Before its pages are mapped: whoever takes pages away from now on asks the child too, after the parent.
            let view: Weak<Self> = Arc::downgrade(child);
            let view: Weak<dyn View> = view;
            backing.object.attach(view)?;
        }
        let copying = Copying {
            private: !vma.is_shared(),
            keeps_protection: copy
                .uffd
                .as_ref()
                .is_some_and(|registration| registration.modes.contains(Modes::WP)),
        };
        areas.insert_apart(copy)?;
        drop(areas);
        if wiped || vma.anon.is_unset() && !copying.keeps_protection {
            return Ok(());
        }
        let (mut table, mut childs) = (self.table.lock(), child.table.lock());
        let mut from = table.cursor(vma.range);
        let mut to = childs.cursor(vma.range);
        while !from.is_done() {
            let (entry, level) = from.entry();
            to.seek(from.addr());
            copying.copy(entry, level, &mut from, &mut to, flush)?;
            from.advance(level);
        }
        Ok(())
    }
}

/// How the entries of an area are copied.
#[derive(Clone, Copy, Debug)]
struct Copying {
    /// Stores must not reach the other side.
    private: bool,
    /// The child's context traps stores.
    keeps_protection: bool,
}

impl Copying {
    /// Copies the entry at `from` to the same place of the child's tables.
    fn copy(
        self,
        entry: Entry,
        level: Level,
        from: &mut Cursor<'_, Stage1>,
        to: &mut Cursor<'_, Stage1>,
        flush: &mut Flush<VirtAddr>,
    ) -> Result<(), OutOfFrames> {
        match entry {
            Entry::Absent(Marker::None) | Entry::Table(_) => Ok(()),
            Entry::Absent(Marker::UffdWp) if !self.keeps_protection => Ok(()),
            Entry::Absent(marker) => to.mark(level, marker).map(|_| ()),
            Entry::Leaf(leaf) => self.copy_leaf(leaf, level, from, to, flush),
        }
    }

    fn copy_leaf(
        self,
        leaf: Leaf,
        level: Level,
        from: &mut Cursor<'_, Stage1>,
        to: &mut Cursor<'_, Stage1>,
        flush: &mut Flush<VirtAddr>,
    ) -> Result<(), OutOfFrames> {
        let mut left = leaf;
        if self.private {
            left.prot -= Prot::WRITE;
            left.attr.flags.set(AttrFlags::FORKED, !leaf.attr.is_borrowed());
        }
        // The child has not used the page yet.
        let mut dropped = AttrFlags::ACCESSED;
        dropped.set(AttrFlags::UFFD_WP, !self.keeps_protection);
        let attr = Attr {
            flags: left.attr.flags - dropped,
            ..left.attr
        };
        match from.share() {
            Some(folio) => match to.install(level, folio, left.prot, attr) {
                Ok(_) => {}
                Err(InstallError::OutOfFrames(_)) => return Err(OutOfFrames),
                Err(InstallError::Occupied(_)) => unreachable!("the child's tables are empty here"),
            },
            None => {
                to.install_borrowed(level, leaf.frame, left.prot, attr)?;
            }
        }
        from.rewrite(left.prot, left.attr, flush);
        Ok(())
    }
}
