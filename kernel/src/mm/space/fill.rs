//! The loop that fills absent entries, behind COPY, ZEROPAGE, CONTINUE and POISON.
//!
//! What is special about an operation is its [`Filler`]; what is special about a memory type is its table of operations.
//! Everything else stands here once: the checks of the area, the order of steps, and what happens when memory is short or
//! has to be waited for. Folios are prepared in small batches without the table's lock, and a whole batch is put into the
//! entries under it (`put`).

use arrayvec::ArrayVec;

use super::Space;
use super::put::is_plain;
use crate::arch::Stage1;
use crate::mm::addr::{PAGE_SIZE, Pfn, VirtAddr};
use crate::mm::cache::{Claim, Lookup};
use crate::mm::frame::{Anon, Folio, Frame, OutOfFrames};
use crate::mm::memtype::{AllocError, Granule, Modes, OpSet, Supply, UffdOps};
use crate::mm::pressure::{self, MAX_RELIEFS};
use crate::mm::pt::{Cursor, Level};
use crate::mm::range::VirtRange;
use crate::mm::vma::Vma;
use crate::uffd::{Ctx, FillMode, Ioctls};

/// Pages that are prepared before the table is locked.
const CHUNK: usize = 16;

/// What goes into an entry.
#[derive(Debug)]
pub enum Filling {
    /// A new page: into the cache where the area shares an object, of the space's own otherwise.
    Folio(Folio),
    /// Zeros: a new page in the cache, or the shared zero page.
    Zero,
    /// The page that the cache has.
    Cached,
    /// Nothing but the memory that every access fails.
    Poison,
}

/// Why a filling is not ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unready {
    /// It cannot be had.
    Stop(FillStop),
    /// It takes waiting: not while the areas are locked.
    MustWait,
}

impl<E: Into<FillStop>> From<E> for Unready {
    fn from(error: E) -> Self {
        Self::Stop(error.into())
    }
}

/// What an operation brings to the loop.
pub trait Filler {
    /// The operation.
    const OP: OpSet;
    /// The same as a command.
    const COMMAND: Ioctls;
    /// Modes that it has.
    const MODES: FillMode;
    /// Whether it maps what the cache has, so that there is nothing to prepare.
    const FROM_CACHE: bool = false;

    /// Whether it brings a new page for each that it fills ([`Self::fill_new`]).
    const NEW_PAGES: bool = false;

    /// Whether it goes over entries that remember something (a write-protect or poison marker).
    fn goes_over_markers(vma: &Vma) -> bool;

    /// Whether what it fills is write-protected in the same step.
    #[inline]
    fn protects(&self) -> bool {
        false
    }

    /// What to put into the entry `offset` bytes into the range: `size` bytes, the granule of the type. The areas are
    /// locked: nothing here may sleep.
    ///
    /// # Errors
    /// It cannot be had, or not like this.
    fn prepare(&mut self, ops: &UffdOps, size: u64, offset: u64) -> Result<Filling, Unready>;

    /// Gives `page`, a new base page, the contents for `offset` bytes into the range. As for [`Self::prepare`], nothing here may
    /// sleep.
    ///
    /// # Errors
    /// They cannot be had, or not like this.
    fn fill_new(&mut self, _page: &mut Frame<Anon>, _offset: u64) -> Result<(), Unready> {
        unreachable!("a filler that brings no new pages")
    }

    /// The same when [`Self::prepare`] must wait: no lock is held.
    ///
    /// # Errors
    /// It cannot be had.
    fn prepare_waiting(&mut self, ops: &UffdOps, size: u64, offset: u64) -> Result<Filling, FillStop> {
        match self.prepare(ops, size, offset) {
            Ok(filling) => Ok(filling),
            Err(Unready::Stop(stop)) => Err(stop),
            Err(Unready::MustWait) => unreachable!("a filler that waits and does not say how"),
        }
    }
}

/// Why the loop stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FillStop {
    /// The layout of the filler's space changes.
    Changing,
    /// The range is not wholly inside one registered area.
    NotRegistered,
    /// Write protection is wanted, and the area is not registered for it.
    NoWriteProtect,
    /// The area's memory type does not have the operation, or the range does not fit its granule.
    Unsupported,
    /// Something is there already.
    Exists,
    /// The source could not be read.
    BadSource,
    /// The range leaves the object behind the area.
    BeyondEnd,
    /// The object's cache has no page to map.
    NoPage,
    /// No frame is free.
    OutOfMemory,
    /// The reserved pool of the memory type is empty.
    PoolEmpty,
    /// The object behind the area may not have more pages.
    NoSpace,
}

impl From<OutOfFrames> for FillStop {
    fn from(_: OutOfFrames) -> Self {
        Self::OutOfMemory
    }
}

impl From<AllocError> for FillStop {
    fn from(error: AllocError) -> Self {
        match error {
            AllocError::OutOfFrames => Self::OutOfMemory,
            AllocError::PoolEmpty => Self::PoolEmpty,
        }
    }
}

impl Space {
    /// Fills `range` for `ctx`, a granule after the other. Returns the bytes done, and why it stopped if that was before the
    /// end.
    ///
    /// No lock may be held: when memory is short, or the filler has to wait, everything is let go of, and what is found
    /// afterwards is looked at again from the start.
    #[inline(never)]
    pub fn fill<F: Filler>(
        &self,
        range: VirtRange,
        ctx: &Ctx,
        filler: &mut F,
    ) -> (u64, Result<(), FillStop>) {
        let (mut done, mut reliefs) = (0, 0);
        while done < range.len() {
            // Areas may change between two chunks: the rest is looked up again each time.
            let rest = VirtRange::new(range.start + done, range.end);
            let vmas = self.vmas.read();
            let (vma, ops) = match registered(vmas.find_to_fill(rest.start), rest, ctx, filler) {
                Ok(found) => found,
                Err(stop) => return (done, Err(stop)),
            };
            let (filled, outcome) = self.fill_chunk(vma, ops, rest, done, filler);
            drop(vmas);
            done += filled;
            let stop = match outcome {
                Ok(()) => continue,
                Err(Unready::Stop(stop)) => stop,
                Err(Unready::MustWait) => match self.fill_waiting(ops, range, done, ctx, filler) {
                    Ok(filled) => {
                        done += filled;
                        continue;
                    }
                    Err(stop) => stop,
                },
            };
            if stop != FillStop::OutOfMemory || reliefs == MAX_RELIEFS || !relieve(ops) {
                return (done, Err(stop));
            }
            reliefs += 1;
        }
        (done, Ok(()))
    }

    /// [`Self::fill`] of a page, the answer to a single fault: no loop, no batch, every size a constant. What takes waiting, or
    /// memory that is short, is for `fill`.
    ///
    /// # Errors
    /// It was not filled.
    #[inline]
    pub fn fill_page<F: Filler>(&self, page: VirtRange, ctx: &Ctx, filler: &mut F) -> Result<(), Unready> {
        let vmas = self.vmas.read();
        let (vma, ops) = registered(vmas.find_to_fill(page.start), page, ctx, filler)?;
        let filling = filler.prepare(ops, PAGE_SIZE, 0)?;
        let mut table = self.table.lock();
        if (is_plain(vma) || F::FROM_CACHE && vma.backing.is_some())
            && let Some(entry) = table.vacant(page.start)
        {
            return Ok(self.put_into_vacant(vma, filler.protects(), entry, filling)?);
        }
        let mut cursor = table.cursor_at(page.start);
        Ok(self.put(vma, Granule::Base, filler, &mut cursor, filling)?)
    }

    /// Fills one granule at `done` bytes into `range` with what took waiting: a filling in hand, the area is looked up
    /// again. Returns its bytes; nothing when its type has changed meanwhile and the filling does not fit any more.
    fn fill_waiting<F: Filler>(
        &self,
        ops: &'static UffdOps,
        range: VirtRange,
        done: u64,
        ctx: &Ctx,
        filler: &mut F,
    ) -> Result<u64, FillStop> {
        let step = ops.granule.size();
        let rest = VirtRange::new(range.start + done, range.end);
        let claim = match ops.granule {
            Granule::Base => None,
            Granule::Huge => self.query(rest.start).and_then(|vma| vma.claim(rest.start)),
        };
        let filling = filler.prepare_waiting(&supplied(ops, claim.as_ref()), step, done)?;
        let vmas = self.vmas.read();
        // Found anew: another area may be there, or what it remembered may have gone with its pages.
        let (vma, now) = registered(vmas.find_to_fill(rest.start), rest, ctx, filler)?;
        let still_claimed = claim
            .as_ref()
            .is_none_or(|claim| vma.has_promised(claim, rest.start));
        if !core::ptr::eq(now, ops) || !still_claimed {
            return Ok(0);
        }
        let mut table = self.table.lock();
        let mut cursor = table.cursor(VirtRange::new(rest.start, rest.start + step));
        self.put_claimed(vma, ops.granule, filler, &mut cursor, filling, claim)?;
        Ok(step)
    }

    /// Puts `filling` into the entry at the cursor; if its page was promised, it is not any more.
    fn put_claimed<F: Filler>(
        &self,
        vma: &Vma,
        granule: Granule,
        filler: &F,
        cursor: &mut Cursor<'_, Stage1>,
        filling: Filling,
        claim: Option<Claim>,
    ) -> Result<(), FillStop> {
        let page = match &filling {
            Filling::Folio(folio) => Some(folio.pfn()),
            _ => None,
        };
        let outcome = self.put(vma, granule, filler, cursor, filling);
        if let (Some(claim), Some(page)) = (claim, page) {
            // One that could not be mapped stays in the cache if somebody else has found it there.
            if outcome.is_ok() || is_cached(vma, cursor.addr(), page) {
                claim.used(page);
            }
        }
        outcome
    }

    /// Fills the first of `rest`, a huge page, which begins `offset` bytes into the whole range.
    fn fill_huge<F: Filler>(
        &self,
        vma: &Vma,
        ops: &UffdOps,
        rest: VirtRange,
        offset: u64,
        filler: &mut F,
    ) -> Result<u64, Unready> {
        let step = ops.granule.size();
        if F::OP == OpSet::COPY && self.has_huge_page(vma, rest.start) {
            return Err(FillStop::Exists.into());
        }
        let claim = match F::OP {
            OpSet::COPY => vma.claim(rest.start),
            _ => None,
        };
        let filling = filler.prepare(&supplied(ops, claim.as_ref()), step, offset)?;
        let mut table = self.table.lock();
        let mut cursor = table.cursor(VirtRange::new(rest.start, rest.start + step));
        self.put_claimed(vma, ops.granule, filler, &mut cursor, filling, claim)?;
        Ok(step)
    }

    /// Fills the first pages of `rest`, which begins `offset` bytes into the whole range.
    #[inline]
    fn fill_chunk<F: Filler>(
        &self,
        vma: &Vma,
        ops: &UffdOps,
        rest: VirtRange,
        offset: u64,
        filler: &mut F,
    ) -> (u64, Result<(), Unready>) {
        if F::FROM_CACHE {
            let (done, outcome) = self.put_run(vma, ops.granule, rest, filler.protects());
            return (done, outcome.map_err(Unready::Stop));
        }
        if ops.granule == Granule::Huge {
            return match self.fill_huge(vma, ops, rest, offset, filler) {
                Ok(done) => (done, Ok(())),
                Err(why) => (0, Err(why)),
            };
        }
        if F::NEW_PAGES {
            return self.fill_with_pages(vma, ops, rest, offset, filler);
        }
        let step = PAGE_SIZE;
        let mut outcome = Ok(());
        let mut ready = ArrayVec::<Filling, CHUNK>::new();
        while !ready.is_full() && (ready.len() as u64) * step < rest.len() {
            match filler.prepare(ops, step, offset + ready.len() as u64 * step) {
                Ok(filling) => ready.push(filling),
                Err(why) => {
                    outcome = Err(why);
                    break;
                }
            }
        }
        let mut done = 0;
        let mut table = self.table.lock();
        let mut cursor = table.cursor(VirtRange::new(rest.start, rest.start + ready.len() as u64 * step));
        for filling in ready.drain(..) {
            if let Err(why) = self.put(vma, Granule::Base, filler, &mut cursor, filling) {
                outcome = Err(why.into());
                break;
            }
            cursor.advance(Level::PAGE);
            done += step;
        }
        (done, outcome)
    }

    /// [`Self::fill_chunk`] with new base pages.
    #[inline]
    fn fill_with_pages<F: Filler>(
        &self,
        vma: &Vma,
        ops: &UffdOps,
        rest: VirtRange,
        offset: u64,
        filler: &mut F,
    ) -> (u64, Result<(), Unready>) {
        let mut pages = ArrayVec::<Folio, CHUNK>::new();
        let prepared = new_pages(ops, rest.pages() as usize, offset, filler, &mut pages);
        let len = pages.len() as u64 * PAGE_SIZE;
        let mut table = self.table.lock();
        let mut cursor = table.cursor(VirtRange::new(rest.start, rest.start + len));
        match self.put_pages(vma, filler, &mut cursor, &mut pages.drain(..)) {
            (done, Ok(())) => (done, prepared),
            (done, Err(stop)) => (done, Err(stop.into())),
        }
    }

    /// Whether there is a page already where a huge one shall be copied to. Looked at before one is taken out of the pool
    /// and its source is read, as on Linux: a page that is there is what it reports, whatever else is wrong. What changes
    /// afterwards is found when the page is put in.
    fn has_huge_page(&self, vma: &Vma, at: VirtAddr) -> bool {
        if self.table.lock().lookup(at).0.is_leaf() {
            return true;
        }
        vma.is_shared()
            && vma.backing.as_ref().is_some_and(|backing| {
                let found = vma.ty.lookup(&backing.object, vma.offset_of(at));
                matches!(found, Lookup::Present(_))
            })
    }
}

/// Whether the object that the area shares has `page` for `at`.
#[cold]
fn is_cached(vma: &Vma, at: VirtAddr, page: Pfn) -> bool {
    let shared = vma.backing.as_ref().filter(|_| vma.is_shared());
    shared.is_some_and(|backing| {
        let found = vma.ty.lookup(&backing.object, vma.offset_of(at));
        matches!(found, Lookup::Present(folio) if folio.pfn() == page)
    })
}

/// Up to `wanted` new base pages with their contents, the first of them `offset` bytes into the range, as many as `pages` has
/// room for.
#[inline]
fn new_pages<F: Filler>(
    ops: &UffdOps,
    wanted: usize,
    offset: u64,
    filler: &mut F,
    pages: &mut ArrayVec<Folio, CHUNK>,
) -> Result<(), Unready> {
    let mut fresh = ArrayVec::<_, CHUNK>::new();
    let taken = ops.alloc.take_some(wanted, &mut fresh);
    let mut offset = offset;
    for mut page in fresh.drain(..) {
        filler.fill_new(&mut page, offset)?;
        pages.push(page.into());
        offset += PAGE_SIZE;
    }
    Ok(taken?)
}

/// The table with the pool's promised pages as its supply, where one was promised.
fn supplied(ops: &UffdOps, claim: Option<&Claim>) -> UffdOps {
    let alloc = claim.map_or(ops.alloc, |claim| Supply::Pool(claim.pool().alloc));
    UffdOps { alloc, ..*ops }
}

/// Asks for as much memory as a batch takes.
#[cold]
fn relieve(ops: &UffdOps) -> bool {
    pressure::relieve(ops.granule.level().frames() * CHUNK as u64)
}

/// The area that all of `range` lies in, and what its type can do. With the areas locked: no layout change that `ctx` is
/// told about begins meanwhile.
#[inline]
fn registered<'a, F: Filler>(
    vma: Option<&'a Vma>,
    range: VirtRange,
    ctx: &Ctx,
    filler: &F,
) -> Result<(&'a Vma, &'static UffdOps), FillStop> {
    if ctx.is_changing() {
        return Err(FillStop::Changing);
    }
    let vma = vma
        .filter(|vma| vma.range.covers(&range))
        .ok_or(FillStop::NotRegistered)?;
    let registration = vma.uffd.as_ref().ok_or(FillStop::NotRegistered)?;
    if filler.protects() && !registration.modes.contains(Modes::WP) {
        return Err(FillStop::NoWriteProtect);
    }
    let ops = vma
        .ty
        .uffd
        .as_ref()
        .filter(|ops| ops.ops.contains(F::OP) && ctx.release().has(F::OP, vma.ty))
        .ok_or(FillStop::Unsupported)?;
    if !range.is_aligned(ops.granule.size()) {
        return Err(FillStop::Unsupported);
    }
    Ok((vma, ops))
}
