//! Moving pages from one place of a space to another, behind MOVE.
//!
//! A page that moves is not copied: the leaf goes to the other address, and the reference to the folio with it. Areas are
//! checked for every chunk, entries page by page, in the order in which Linux looks at them:
//!
//! | what is found | result |
//! | --- | --- |
//! | no table of pages where the source is, and holes are not allowed | [`MoveStop::SourceHole`] |
//! | anything at all at the destination, markers too | [`MoveStop::Exists`] |
//! | nothing at the source | [`MoveStop::SourceHole`], or counted as moved where holes are allowed |
//! | a marker at the source | [`MoveStop::BadSource`] |
//! | a page with other owners, or one that was forked and not written since | [`MoveStop::Busy`] |
//! | the shared page of zeros | moves, and stays shared |
//! | a page of the space's own | moves, and may be written at once; write protection stays behind |
//!
//! A chunk is moved under one hold of the table's lock, the flush included: were the lock let go between taking a page away
//! and putting it down, a touch of the destination could put another page there.

use alloc::sync::Arc;

use super::Space;
use crate::arch::Stage1;
use crate::mm::addr::{PAGE_SIZE, VirtAddr};
use crate::mm::frame::OutOfFrames;
use crate::mm::memtype::OpSet;
use crate::mm::pressure::{self, MAX_RELIEFS};
use crate::mm::pt::{Attr, AttrFlags, Entry, Leaf, Lifted, Prot, Route};
use crate::mm::range::VirtRange;
use crate::mm::vma::{Registration, Vma, VmaFlags, VmaSet};
use crate::uffd::Ctx;

/// Why pages cannot move from one area to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Immovable {
    /// One of them is shared.
    Shared,
    /// A range ends past the area that it begins in.
    PastEnd,
    /// Their rights differ.
    Rights,
    /// One is locked and the other is not.
    Locking,
    /// They cannot be written.
    ReadOnly,
    /// Pages of such memory do not move: only those of plain anonymous memory do.
    Type,
    /// The destination is not registered with the context that moves.
    NotOurs,
}

/// Why the loop stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MoveStop {
    /// The layout of the space changes.
    Changing,
    /// Nothing is mapped where a range begins.
    NotMapped,
    /// The areas are not made for it.
    Immovable(Immovable),
    /// Something is at the destination already.
    Exists,
    /// Nothing is at the source.
    SourceHole,
    /// What is at the source is no page.
    BadSource,
    /// The page is not this space's alone.
    Busy,
    /// No frame for a node of the tables.
    OutOfMemory,
}

impl From<Immovable> for MoveStop {
    fn from(why: Immovable) -> Self {
        Self::Immovable(why)
    }
}

impl From<OutOfFrames> for MoveStop {
    fn from(_: OutOfFrames) -> Self {
        Self::OutOfMemory
    }
}

/// Nodes that the way to one page takes at most.
const NODES: u64 = 3;

/// What becomes of a page.
enum Step {
    /// It moves.
    Lift,
    /// There is none, and that is all right.
    Skip,
}

impl Space {
    /// Moves the pages from `src` on to `dst`, one after the other, as `ctx` was asked to. With `holes`, pages that are not
    /// there count as moved. Returns the bytes done, and why it stopped if that was before the end.
    ///
    /// Source and destination may overlap; the result is that of moving page by page in ascending order. No lock may be
    /// held: when there is no frame for a node, everything is let go of, and what is found afterwards is looked at again.
    pub fn move_pages(
        &self,
        ctx: &Arc<Ctx>,
        dst: VirtRange,
        src: VirtAddr,
        holes: bool,
    ) -> (u64, Result<(), MoveStop>) {
        let (mut done, mut reliefs) = (0, 0);
        while done < dst.len() {
            // Areas may change between two chunks: the rest is looked up again each time.
            let to = VirtRange::new(dst.start + done, dst.end);
            let from = VirtRange::new(src + done, src + dst.len());
            let vmas = self.vmas.read();
            let area = match movable(&vmas, ctx, to, from) {
                Ok(area) => area,
                Err(stop) => return (done, Err(stop)),
            };
            let (moved, result) = self.move_chunk(area, to, from.start, holes);
            drop(vmas);
            done += moved;
            let Err(stop) = result else { continue };
            if stop != MoveStop::OutOfMemory || reliefs == MAX_RELIEFS || !pressure::relieve(NODES) {
                return (done, Err(stop));
            }
            reliefs += 1;
        }
        (done, Ok(()))
    }

    /// Moves the first pages of the rest to `area`.
    fn move_chunk(
        &self,
        area: &Vma,
        to: VirtRange,
        from: VirtAddr,
        holes: bool,
    ) -> (u64, Result<(), MoveStop>) {
        let mut lifted = Lifted::new();
        let mut table = self.table.lock();
        let mut route = table.route(from, to.start, to.pages(), &mut lifted);
        let (mut done, mut stop) = (0, Ok(()));
        while done < route.pages() {
            let step = match look(&route, done, holes) {
                Ok(Step::Lift) => route.lift(done).map_err(MoveStop::from),
                Ok(Step::Skip) => Ok(()),
                Err(why) => Err(why),
            };
            if step.is_err() {
                stop = step;
                break;
            }
            done += 1;
        }
        route.land(self, |leaf| self.arrival(area, leaf));
        (done as u64 * PAGE_SIZE, stop)
    }

    /// Rights and attributes of a page that arrives in `area`.
    fn arrival(&self, area: &Vma, leaf: &Leaf) -> (Prot, Attr) {
        let prot = if leaf.attr.is_borrowed() {
            area.prot - Prot::WRITE
        } else {
            area.prot
        };
        let flags = leaf.attr.flags & (AttrFlags::ACCESSED | AttrFlags::DIRTY);
        (self.leaf_prot(prot), Attr { flags, ..leaf.attr })
    }
}

/// What the entries of a page say, by the table above.
#[inline]
fn look(route: &Route<'_, Stage1>, page: usize, holes: bool) -> Result<Step, MoveStop> {
    if route.is_bare() && !holes {
        return Err(MoveStop::SourceHole);
    }
    if route.target(page) != Entry::EMPTY {
        return Err(MoveStop::Exists);
    }
    match route.source(page) {
        Entry::EMPTY if holes => Ok(Step::Skip),
        Entry::EMPTY => Err(MoveStop::SourceHole),
        Entry::Absent(_) => Err(MoveStop::BadSource),
        Entry::Leaf(leaf) if leaf.attr.is_borrowed() => Ok(Step::Lift),
        Entry::Leaf(leaf) if !leaf.attr.flags.contains(AttrFlags::FORKED) && route.owners(&leaf) == 1 => {
            Ok(Step::Lift)
        }
        Entry::Leaf(_) | Entry::Table(_) => Err(MoveStop::Busy),
    }
}

/// The area that `to` lies in, if pages can move there from where `from` lies. The order is Linux's. With the areas locked:
/// no layout change that `ctx` is told about begins meanwhile.
fn movable<'a>(
    vmas: &'a VmaSet,
    ctx: &Arc<Ctx>,
    to: VirtRange,
    from: VirtRange,
) -> Result<&'a Vma, MoveStop> {
    let target = vmas.find_to_fill(to.start);
    if ctx.is_changing() {
        return Err(MoveStop::Changing);
    }
    let target = target.ok_or(MoveStop::NotMapped)?;
    let source = vmas.find(from.start).ok_or(MoveStop::NotMapped)?;
    for (area, range) in [(source, from), (target, to)] {
        if area.is_shared() {
            return Err(Immovable::Shared.into());
        }
        if !area.range.covers(&range) {
            return Err(Immovable::PastEnd.into());
        }
    }
    if source.prot != target.prot {
        return Err(Immovable::Rights.into());
    }
    if (source.flags ^ target.flags).contains(VmaFlags::LOCKED) {
        return Err(Immovable::Locking.into());
    }
    if !source.prot.contains(Prot::WRITE) {
        return Err(Immovable::ReadOnly.into());
    }
    let ours = |registration: &Registration| Arc::ptr_eq(&registration.ctx, ctx);
    if !target.uffd.as_ref().is_some_and(ours) {
        return Err(Immovable::NotOurs.into());
    }
    let moves = |area: &Vma| {
        let ops = area.ty.uffd.as_ref();
        area.backing.is_none() && ops.is_some_and(|ops| ops.ops.contains(OpSet::MOVE))
    };
    if !moves(source) || !moves(target) {
        return Err(Immovable::Type.into());
    }
    Ok(target)
}
