//! The loop that fills absent entries, behind COPY, ZEROPAGE and POISON.
//!
//! What is special about an operation is its [`Filler`]; what is special about a memory type is its table of operations.
//! Everything else stands here once: the checks of the area, the order of steps, and what happens when something is in the
//! way. Folios are prepared in small batches without the table's lock, and a whole batch is installed under it.

use arrayvec::ArrayVec;

use super::Space;
use crate::arch::Stage1;
use crate::mm::addr::PAGE_SIZE;
use crate::mm::frame::{Folio, OutOfFrames};
use crate::mm::kernel;
use crate::mm::memtype::{AllocError, Granule, Modes, OpSet, UffdOps};
use crate::mm::pt::{Attr, AttrFlags, Cursor, Entry, InstallError, Level, Marker, Prot};
use crate::mm::range::VirtRange;
use crate::mm::vma::Vma;
use crate::uffd::FillMode;

/// Pages that are prepared before the table is locked.
const CHUNK: usize = 16;

/// What goes into an entry.
#[derive(Debug)]
pub enum Filling {
    /// A page of its own.
    Folio(Folio),
    /// The shared zero page.
    Zero,
    /// Nothing but the memory that every access fails.
    Poison,
}

/// What an operation brings to the loop.
pub trait Filler {
    /// The operation.
    const OP: OpSet;
    /// Modes that it has.
    const MODES: FillMode;
    /// Whether it goes over entries that remember something (a write-protect or poison marker).
    const OVER_MARKERS: bool;

    /// Whether what it fills is write-protected in the same step.
    #[inline]
    fn protects(&self) -> bool {
        false
    }

    /// What to put into the entry `offset` bytes into the range: `size` bytes, the granule of the type.
    ///
    /// # Errors
    /// It cannot be had.
    fn prepare(&mut self, ops: &UffdOps, size: u64, offset: u64) -> Result<Filling, FillStop>;
}

/// Why the loop stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FillStop {
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
    /// Fills `range`, a page after the other. Returns the bytes done, and why it stopped if that was before the end.
    #[inline]
    pub fn fill<F: Filler>(&self, range: VirtRange, filler: &mut F) -> (u64, Result<(), FillStop>) {
        if range.len() == PAGE_SIZE {
            return match self.fill_page(range, filler) {
                Ok(()) => (PAGE_SIZE, Ok(())),
                Err(stop) => (0, Err(stop)),
            };
        }
        let mut done = 0;
        while done < range.len() {
            // Areas may change between two chunks: the rest is looked up again each time.
            let rest = VirtRange::new(range.start + done, range.end);
            let vmas = self.vmas.read();
            let (filled, stop) = match registered(vmas.find(rest.start), rest, filler) {
                Ok((vma, ops)) => self.fill_chunk(vma, ops, rest, done, filler),
                Err(stop) => (0, Err(stop)),
            };
            done += filled;
            if stop.is_err() {
                return (done, stop);
            }
        }
        (done, Ok(()))
    }

    /// The answer to a single fault: no loop, no batch, every size a constant.
    #[inline]
    fn fill_page<F: Filler>(&self, page: VirtRange, filler: &mut F) -> Result<(), FillStop> {
        let vmas = self.vmas.read();
        let (vma, ops) = registered(vmas.find(page.start), page, filler)?;
        let filling = filler.prepare(ops, PAGE_SIZE, 0)?;
        let mut table = self.table.lock();
        self.put_at::<F>(
            vma,
            Level::PAGE,
            filler.protects(),
            &mut table.cursor_at(page.start),
            filling,
        )
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
    ) -> (u64, Result<(), FillStop>) {
        let step = ops.granule.size();
        let mut stop = Ok(());
        let mut ready = ArrayVec::<Filling, CHUNK>::new();
        while !ready.is_full() && (ready.len() as u64) * step < rest.len() {
            match filler.prepare(ops, step, offset + ready.len() as u64 * step) {
                Ok(filling) => ready.push(filling),
                Err(why) => {
                    stop = Err(why);
                    break;
                }
            }
        }
        let mut done = 0;
        let mut table = self.table.lock();
        let mut cursor = table.cursor(VirtRange::new(rest.start, rest.start + ready.len() as u64 * step));
        for filling in ready.drain(..) {
            if let Err(why) = self.put(vma, ops.granule, filler, &mut cursor, filling) {
                stop = Err(why);
                break;
            }
            cursor.advance(ops.granule.level());
            done += step;
        }
        (done, stop)
    }

    #[inline]
    fn put<F: Filler>(
        &self,
        vma: &Vma,
        granule: Granule,
        filler: &F,
        cursor: &mut Cursor<'_, Stage1>,
        filling: Filling,
    ) -> Result<(), FillStop> {
        let protect = filler.protects();
        // The level as a constant: what follows is compiled once for each.
        match granule {
            Granule::Base => self.put_at::<F>(vma, Level::PAGE, protect, cursor, filling),
            Granule::Huge => self.put_at::<F>(vma, Level::MID, protect, cursor, filling),
        }
    }

    #[inline(always)]
    fn put_at<F: Filler>(
        &self,
        vma: &Vma,
        level: Level,
        protect: bool,
        cursor: &mut Cursor<'_, Stage1>,
        filling: Filling,
    ) -> Result<(), FillStop> {
        let remembers = |entry| matches!(entry, Entry::Absent(marker) if marker != Marker::None);
        if !F::OVER_MARKERS && !cursor.is_vacant() && remembers(cursor.entry().0) {
            return Err(FillStop::Exists);
        }
        match filling {
            Filling::Folio(folio) => {
                // Filled pages count as written, whatever the area's rights are now.
                let (prot, flags) = match protect {
                    false => (vma.prot, AttrFlags::ACCESSED | AttrFlags::DIRTY),
                    true => (
                        vma.prot - Prot::WRITE,
                        AttrFlags::ACCESSED | AttrFlags::DIRTY | AttrFlags::UFFD_WP,
                    ),
                };
                match cursor.install(level, folio, self.leaf_prot(prot), Attr::flags(flags)) {
                    Ok(_) => Ok(()),
                    Err(InstallError::Occupied(_)) => Err(FillStop::Exists),
                    Err(InstallError::OutOfFrames(_)) => Err(FillStop::OutOfMemory),
                }
            }
            Filling::Zero => {
                let prot = self.leaf_prot(vma.prot - Prot::WRITE);
                match cursor.install_borrowed(level, kernel::get().zero_frame(), prot, Attr::default())? {
                    Some(_) => Ok(()),
                    None => Err(FillStop::Exists),
                }
            }
            Filling::Poison => match cursor.mark(level, Marker::Poison)? {
                Some(_) => Ok(()),
                None => Err(FillStop::Exists),
            },
        }
    }
}

/// The area that all of `range` lies in, and what its type can do.
#[inline]
fn registered<'a, F: Filler>(
    vma: Option<&'a Vma>,
    range: VirtRange,
    filler: &F,
) -> Result<(&'a Vma, &'a UffdOps), FillStop> {
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
        .filter(|ops| ops.ops.contains(F::OP))
        .ok_or(FillStop::Unsupported)?;
    if !range.is_aligned(ops.granule.size()) {
        return Err(FillStop::Unsupported);
    }
    Ok((vma, ops))
}
