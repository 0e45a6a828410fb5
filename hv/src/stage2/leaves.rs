//! Leaves of one stage-2 table: made, widened, taken away.
//!
//! Whoever calls holds the lock of the tables ([`Tables`](super::table::Tables)).

use kernel::mm::addr::{GuestPhysAddr, PAGE_SIZE, Pfn};
use kernel::mm::frame::{Folio, OutOfFrames};
use kernel::mm::pt::{
    Attr, AttrFlags, Cursor, Entry, Flush, InstallError, Invalidator, Leaf, Level, Marker, PageTable, Prot,
    PtFormat,
};
use kernel::mm::range::GuestRange;

use super::table::Stage2;

/// Entries that one pass takes away before it flushes.
const BATCH: u64 = 512;
/// Bytes that four levels translate.
const REACH: u64 = 1 << 48;

/// Memory that lies in one piece both for the guest and in the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// Where the guest has it.
    pub range: GuestRange,
    /// Its first frame.
    pub frame: Pfn,
}

impl Run {
    /// The level of the largest leaf around `addr` that stays in the run, and where it begins.
    fn leaf_around(&self, addr: GuestPhysAddr, max: Level) -> (Level, GuestPhysAddr) {
        let fits = |level: &Level| {
            let leaf = GuestRange::from_len(addr.align_down(level.size()), level.size());
            *level <= max
                && leaf.is_some_and(|leaf| self.range.covers(&leaf))
                && self.frame_at(addr.align_down(level.size())).as_u64() & (level.frames() - 1) == 0
        };
        let level = [Level::UPPER, Level::MID]
            .into_iter()
            .find(fits)
            .unwrap_or(Level::PAGE);
        (level, addr.align_down(level.size()))
    }

    /// The frame of the page at `addr`.
    fn frame_at(&self, addr: GuestPhysAddr) -> Pfn {
        self.frame.offset((addr - self.range.start) / PAGE_SIZE)
    }
}

/// The flush of what was widened: none.
struct Widened;

impl Invalidator<GuestPhysAddr> for Widened {
    fn invalidate(&self, _: GuestRange, _: u64) {}
}

/// See [`Tables::map_page`](super::table::Tables::map_page). `page` is the page itself.
#[inline(always)]
pub(super) fn map_page<F: PtFormat<Addr = GuestPhysAddr>>(
    table: &mut PageTable<F>,
    stage2: &Stage2<F>,
    page: GuestPhysAddr,
    frame: Pfn,
    prot: Prot,
) -> Result<(), OutOfFrames> {
    if install(table, page, Level::PAGE, frame, prot)? {
        return Ok(());
    }
    map_again(table, stage2, page, frame, prot)
}

/// The same where something may be mapped.
#[inline(never)]
pub(super) fn map_again<F: PtFormat<Addr = GuestPhysAddr>>(
    table: &mut PageTable<F>,
    stage2: &Stage2<F>,
    page: GuestPhysAddr,
    frame: Pfn,
    prot: Prot,
) -> Result<(), OutOfFrames> {
    if !widen(table, stage2, page, frame, prot) {
        install(table, page, Level::PAGE, frame, prot)?;
    }
    Ok(())
}

/// See [`Tables::map_run`](super::table::Tables::map_run).
pub(super) fn map_run<F: PtFormat<Addr = GuestPhysAddr>>(
    table: &mut PageTable<F>,
    stage2: &Stage2<F>,
    addr: GuestPhysAddr,
    run: &Run,
    max: Level,
    prot: Prot,
) -> Result<(), OutOfFrames> {
    let page = addr.align_down(PAGE_SIZE);
    let (level, at) = run.leaf_around(page, max.min(F::max_leaf()));
    // Otherwise smaller leaves, or markers, are there already.
    if level > Level::PAGE && install(table, at, level, run.frame_at(at), prot)? {
        return Ok(());
    }
    map_again(table, stage2, page, run.frame_at(page), prot)
}

/// Fills the entry of `level` at `at`. False when something is mapped there.
#[inline(always)]
fn install<F: PtFormat<Addr = GuestPhysAddr>>(
    table: &mut PageTable<F>,
    at: GuestPhysAddr,
    level: Level,
    frame: Pfn,
    prot: Prot,
) -> Result<bool, OutOfFrames> {
    let attr = Attr::flags(AttrFlags::empty());
    let mut cursor = match level {
        Level::PAGE => table.cursor_at(at),
        _ => table.cursor(GuestRange::new(at, at + level.size())),
    };
    Ok(cursor.install_borrowed(level, frame, prot, attr)?.is_some())
}

/// See [`Tables::map_owned`](super::table::Tables::map_owned).
pub(super) fn map_owned<F: PtFormat<Addr = GuestPhysAddr>>(
    table: &mut PageTable<F>,
    stage2: &Stage2<F>,
    addr: GuestPhysAddr,
    folio: Folio,
    prot: Prot,
) -> Result<(), OutOfFrames> {
    let page = addr.align_down(PAGE_SIZE);
    let attr = Attr::flags(AttrFlags::empty());
    let install = |table: &mut PageTable<F>, folio| {
        let mut cursor = table.cursor_at(page);
        match cursor.install(Level::PAGE, folio, prot, attr) {
            Ok(_) => Ok(None),
            Err(InstallError::Occupied(folio)) => Ok(Some(folio)),
            Err(InstallError::OutOfFrames(_)) => Err(OutOfFrames),
        }
    };
    if let Some(folio) = install(table, folio)?
        && !widen(table, stage2, page, folio.pfn(), prot)
    {
        install(table, folio)?;
    }
    Ok(())
}

/// Adds rights to the leaf that maps `page` to `frame`. False when there is none: one that maps it elsewhere is taken
/// away, whose own end is on its way already.
fn widen<F: PtFormat<Addr = GuestPhysAddr>>(
    table: &mut PageTable<F>,
    stage2: &Stage2<F>,
    page: GuestPhysAddr,
    frame: Pfn,
    prot: Prot,
) -> bool {
    let mut flush = Flush::new();
    let mut cursor = table.cursor_at(page);
    let (Entry::Leaf(leaf), level) = cursor.entry() else {
        return false;
    };
    let offset = (page.as_u64() & (level.size() - 1)) / PAGE_SIZE;
    if leaf.frame.offset(offset) != frame {
        cursor.take(Marker::None, &mut flush);
        flush.spend(stage2);
        return false;
    }
    cursor.rewrite(leaf.prot | prot, leaf.attr, &mut flush);
    flush.spend(&Widened);
    true
}

/// See [`Tables::take_away`](super::table::Tables::take_away).
pub(super) fn take_away<F: PtFormat<Addr = GuestPhysAddr>>(
    table: &mut PageTable<F>,
    stage2: &Stage2<F>,
    range: GuestRange,
    leave: &impl Fn(GuestPhysAddr) -> Marker,
    taken: &mut impl FnMut(GuestRange, AttrFlags),
) {
    each_leaf(table, stage2, range, |cursor, _, level, flush| {
        let start = cursor.addr().align_down(level.size());
        let marker = match level {
            Level::PAGE => leave(start),
            _ => Marker::None,
        };
        let flags = cursor.take(marker, flush);
        taken(GuestRange::new(start, start + level.size()), flags);
    });
}

/// Calls `f` at every leaf that has a page in `range`, and flushes what it restricts.
pub(super) fn each_leaf<F: PtFormat<Addr = GuestPhysAddr>>(
    table: &mut PageTable<F>,
    stage2: &Stage2<F>,
    range: GuestRange,
    mut f: impl FnMut(&mut Cursor<'_, F>, Leaf, Level, &mut Flush<GuestPhysAddr>),
) {
    let mut flush = Flush::new();
    let mut cursor = table.cursor(range);
    while !cursor.is_done() {
        if flush.is_full() || flush.pages() >= BATCH {
            flush.spend(stage2);
        }
        let (entry, level) = cursor.entry();
        if let Entry::Leaf(leaf) = entry {
            f(&mut cursor, leaf, level, &mut flush);
        }
        cursor.advance(level);
    }
    flush.spend(stage2);
}

/// Gives `to`, which is empty, the leaves and markers of `from`.
pub(super) fn copy<F: PtFormat<Addr = GuestPhysAddr>>(
    from: &mut PageTable<F>,
    to: &mut PageTable<F>,
) -> Result<(), OutOfFrames> {
    let mut cursor = from.cursor(GuestRange::new(GuestPhysAddr::new(0), GuestPhysAddr::new(REACH)));
    while !cursor.is_done() {
        let (entry, level) = cursor.entry();
        let at = cursor.addr();
        match entry {
            Entry::Leaf(leaf) => {
                let mut place = to.cursor(GuestRange::new(at, at + level.size()));
                let noted = AttrFlags::ACCESSED | AttrFlags::DIRTY;
                let flags = leaf.attr.flags - noted;
                let attr = Attr { flags, ..leaf.attr };
                match cursor.share() {
                    Some(folio) => match place.install(level, folio, leaf.prot, attr) {
                        Ok(_) | Err(InstallError::Occupied(_)) => {}
                        Err(InstallError::OutOfFrames(_)) => return Err(OutOfFrames),
                    },
                    None => drop(place.install_borrowed(level, leaf.frame, leaf.prot, attr)?),
                }
            }
            Entry::Absent(marker) if marker != Marker::None => {
                to.cursor_at(at).mark(Level::PAGE, marker)?;
            }
            Entry::Absent(_) | Entry::Table(_) => {}
        }
        cursor.advance(level);
    }
    Ok(())
}
