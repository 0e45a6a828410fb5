//! What a fill puts into an entry, and into the object behind it.
//!
//! | filling | memory of the space only | private mapping of an object | shared mapping |
//! | --- | --- | --- | --- |
//! | new page | mapped | mapped | into the cache, and mapped |
//! | zeros | shared zero page | shared zero page | a page of zeros into the cache, and mapped |
//! | the cache's page | | mapped, not for writing | mapped |
//! | poison | marker | marker | marker |
//!
//! A page that got into the cache and could not be mapped is taken out again. With the table locked.

use super::Space;
use super::fill::{FillStop, Filler, Filling};
use crate::arch::Stage1;
use crate::mm::addr::{PAGE_SIZE, VirtAddr};
use crate::mm::cache::{CacheError, Lookup, Run, RunStart};
use crate::mm::frame::Folio;
use crate::mm::kernel;
use crate::mm::memtype::Granule;
use crate::mm::phys;
use crate::mm::pt::{Attr, AttrFlags, Cursor, Entry, InstallError, Level, Marker, Prot, Vacant};
use crate::mm::range::VirtRange;
use crate::mm::vma::{Backing, Sharing, Vma};

impl Space {
    /// Puts `filling` into the entry at the cursor.
    #[inline(always)]
    pub(super) fn put<F: Filler>(
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
    pub(super) fn put_at<F: Filler>(
        &self,
        vma: &Vma,
        level: Level,
        protect: bool,
        cursor: &mut Cursor<'_, Stage1>,
        filling: Filling,
    ) -> Result<(), FillStop> {
        if vma.ty.ends_before_fills() {
            return Err(FillStop::BeyondEnd);
        }
        if !cursor.is_vacant() {
            match cursor.entry().0 {
                Entry::Absent(Marker::None) => {}
                Entry::Absent(_) if F::goes_over_markers(vma) => {}
                // What CONTINUE would map is looked for first.
                Entry::Leaf(_) if matches!(filling, Filling::Cached) => {}
                // Past the end of the object nothing else matters.
                _ if level == Level::PAGE && is_past_end(vma, cursor.addr()) => {
                    return Err(FillStop::BeyondEnd);
                }
                _ => return Err(FillStop::Exists),
            }
        }
        let (prot, flags) = filled(vma, protect);
        if let Some(backing) = &vma.backing {
            if F::FROM_CACHE {
                return self.put_cached(vma, backing, level, prot, flags, cursor);
            }
            return self.put_object(vma, backing, level, prot, flags, cursor, filling);
        }
        match filling {
            Filling::Folio(folio) => self.put_folio(level, folio, prot, flags, cursor),
            Filling::Zero => self.put_zeros(level, prot, cursor),
            Filling::Cached => Err(FillStop::NoPage),
            Filling::Poison => put_poison(level, cursor),
        }
    }

    /// Puts `filling` into a vacant entry of an area that [`is_plain`], or the cache's page into one of an object's mapping.
    #[inline(always)]
    pub(super) fn put_into_vacant(
        &self,
        vma: &Vma,
        protect: bool,
        entry: Vacant<'_, Stage1>,
        filling: Filling,
    ) -> Result<(), FillStop> {
        let (prot, flags) = filled(vma, protect);
        match (filling, &vma.backing) {
            (Filling::Cached, Some(backing)) => {
                let folio = match vma.ty.lookup(&backing.object, vma.offset_of(entry.addr())) {
                    Lookup::Present(folio) => folio,
                    Lookup::Absent => return Err(FillStop::NoPage),
                    Lookup::BeyondEnd => return Err(FillStop::BeyondEnd),
                };
                entry.map(folio, self.leaf_prot(reached(backing, prot)), Attr::flags(flags));
            }
            (Filling::Cached, None) => return Err(FillStop::NoPage),
            (Filling::Folio(folio), _) => entry.map(folio, self.leaf_prot(prot), Attr::flags(flags)),
            (Filling::Zero, _) => {
                let prot = self.leaf_prot(prot - Prot::WRITE);
                entry.map_borrowed(kernel::get().zero_frame(), prot, Attr::default());
            }
            (Filling::Poison, _) => entry.mark(Marker::Poison),
        }
        Ok(())
    }

    /// Puts new base pages into the entries from the cursor on. Returns the bytes done, and why not all of them.
    #[inline]
    pub(super) fn put_pages<F: Filler>(
        &self,
        vma: &Vma,
        filler: &F,
        cursor: &mut Cursor<'_, Stage1>,
        pages: &mut impl Iterator<Item = Folio>,
    ) -> (u64, Result<(), FillStop>) {
        let (prot, flags) = filled(vma, filler.protects());
        let leaf = (self.leaf_prot(prot), Attr::flags(flags));
        let at_a_glance = is_plain(vma).then_some(leaf);
        put_each(cursor, Granule::Base, at_a_glance, pages, |cursor, page| {
            self.put(vma, Granule::Base, filler, cursor, Filling::Folio(page))
        })
    }

    /// Maps the first pages of `rest` that the object behind the area has: up to a hole, as many as are found in one go.
    /// Returns their bytes, and why not all of them, or none, were mapped.
    pub(super) fn put_run(
        &self,
        vma: &Vma,
        granule: Granule,
        rest: VirtRange,
        protect: bool,
    ) -> (u64, Result<(), FillStop>) {
        let Some(backing) = &vma.backing else {
            return (0, Err(FillStop::NoPage));
        };
        let (prot, flags) = filled(vma, protect);
        let prot = reached(backing, prot);
        let step = granule.size();
        let mut run = Run::new((rest.len() / step) as usize);
        // The cache is looked into with the table locked: what leaves it from now on is taken out of the entries later.
        let mut table = self.table.lock();
        match (vma.ty.cache().lookup_run)(&backing.object, vma.offset_of(rest.start), &mut run) {
            RunStart::Found => {}
            RunStart::Absent => return (0, Err(FillStop::NoPage)),
            // Huge pages are looked for wherever it is, as on Linux.
            RunStart::BeyondEnd if granule == Granule::Huge => return (0, Err(FillStop::NoPage)),
            RunStart::BeyondEnd => return (0, Err(FillStop::BeyondEnd)),
        }
        let mut cursor = table.cursor(VirtRange::new(rest.start, rest.start + run.len() as u64 * step));
        let leaf = (self.leaf_prot(prot), Attr::flags(flags));
        let at_a_glance = (granule == Granule::Base).then_some(leaf);
        put_each(
            &mut cursor,
            granule,
            at_a_glance,
            &mut run.drain(),
            |cursor, folio| match granule {
                Granule::Base => self.put_over_markers(Level::PAGE, folio, prot, flags, cursor),
                Granule::Huge => self.put_over_markers(Level::MID, folio, prot, flags, cursor),
            },
        )
    }

    #[inline(always)]
    fn put_over_markers(
        &self,
        level: Level,
        folio: Folio,
        prot: Prot,
        flags: AttrFlags,
        cursor: &mut Cursor<'_, Stage1>,
    ) -> Result<(), FillStop> {
        if !cursor.is_vacant() && cursor.entry().0.is_leaf() {
            return Err(FillStop::Exists);
        }
        self.put_folio(level, folio, prot, flags, cursor)
    }

    /// Fills an entry of an object's mapping, and the object's cache where the mapping is shared.
    #[expect(clippy::too_many_arguments, reason = "what has been found out so far, once")]
    #[inline(never)]
    fn put_object(
        &self,
        vma: &Vma,
        backing: &Backing,
        level: Level,
        prot: Prot,
        flags: AttrFlags,
        cursor: &mut Cursor<'_, Stage1>,
        filling: Filling,
    ) -> Result<(), FillStop> {
        let (object, offset) = (&backing.object, vma.offset_of(cursor.addr()));
        let shared = backing.sharing == Sharing::Shared;
        // As on Linux, where huge pages that need nothing of the object are put anywhere.
        let anywhere = level != Level::PAGE && (!shared || matches!(filling, Filling::Poison));
        if offset >= object.size() && !anywhere {
            return Err(FillStop::BeyondEnd);
        }
        let folio = match filling {
            Filling::Folio(folio) if shared => folio,
            Filling::Zero if shared => {
                let mut frame = vma.ty.alloc()?;
                phys::zero(&mut frame);
                frame.into()
            }
            Filling::Folio(folio) => return self.put_folio(level, folio, prot, flags, cursor),
            Filling::Zero => return self.put_zeros(level, prot, cursor),
            Filling::Poison => return put_poison(level, cursor),
            Filling::Cached => unreachable!("a filler that maps what the cache has, and does not say so"),
        };
        match (vma.ty.cache().insert)(object, offset, folio.clone()) {
            Ok(()) => {}
            Err(CacheError::Exists(_)) => return Err(FillStop::Exists),
            Err(CacheError::BeyondEnd(_)) => return Err(FillStop::BeyondEnd),
            Err(CacheError::OutOfMemory(_)) => return Err(FillStop::OutOfMemory),
            Err(CacheError::NoSpace(_)) => return Err(FillStop::NoSpace),
        }
        let (folio, stop) = match cursor.install(level, folio, self.leaf_prot(prot), Attr::flags(flags)) {
            Ok(_) => return Ok(()),
            Err(InstallError::Occupied(folio)) => (folio, FillStop::Exists),
            Err(InstallError::OutOfFrames(folio)) => (folio, FillStop::OutOfMemory),
        };
        (vma.ty.cache().remove)(object, offset, &folio);
        Err(stop)
    }

    /// Maps the page that the object's cache has.
    #[inline]
    fn put_cached(
        &self,
        vma: &Vma,
        backing: &Backing,
        level: Level,
        prot: Prot,
        flags: AttrFlags,
        cursor: &mut Cursor<'_, Stage1>,
    ) -> Result<(), FillStop> {
        match vma.ty.lookup(&backing.object, vma.offset_of(cursor.addr())) {
            Lookup::Present(folio) => self.put_folio(level, folio, reached(backing, prot), flags, cursor),
            Lookup::Absent => Err(FillStop::NoPage),
            Lookup::BeyondEnd => Err(FillStop::BeyondEnd),
        }
    }

    #[inline(always)]
    fn put_folio(
        &self,
        level: Level,
        folio: Folio,
        prot: Prot,
        flags: AttrFlags,
        cursor: &mut Cursor<'_, Stage1>,
    ) -> Result<(), FillStop> {
        match cursor.install(level, folio, self.leaf_prot(prot), Attr::flags(flags)) {
            Ok(_) => Ok(()),
            Err(InstallError::Occupied(_)) => Err(FillStop::Exists),
            Err(InstallError::OutOfFrames(_)) => Err(FillStop::OutOfMemory),
        }
    }

    /// The shared zero page.
    #[inline(always)]
    fn put_zeros(&self, level: Level, prot: Prot, cursor: &mut Cursor<'_, Stage1>) -> Result<(), FillStop> {
        let prot = self.leaf_prot(prot - Prot::WRITE);
        match cursor.install_borrowed(level, kernel::get().zero_frame(), prot, Attr::default())? {
            Some(_) => Ok(()),
            None => Err(FillStop::Exists),
        }
    }
}

/// Puts pages into the entries from the cursor on: all at once, as leaves `at_a_glance`, while those are vacant, and otherwise
/// each by `put`. Returns the bytes done, and why not all of them.
#[inline(always)]
fn put_each(
    cursor: &mut Cursor<'_, Stage1>,
    granule: Granule,
    at_a_glance: Option<(Prot, Attr)>,
    pages: &mut impl Iterator<Item = Folio>,
    mut put: impl FnMut(&mut Cursor<'_, Stage1>, Folio) -> Result<(), FillStop>,
) -> (u64, Result<(), FillStop>) {
    let mut done = 0;
    loop {
        if let Some((prot, attr)) = at_a_glance {
            done += cursor.install_vacant(pages, prot, attr) * PAGE_SIZE;
        }
        let Some(page) = pages.next() else {
            return (done, Ok(()));
        };
        let outcome = put(cursor, page);
        if outcome.is_err() {
            return (done, outcome);
        }
        cursor.advance(granule.level());
        done += granule.size();
    }
}

/// Whether nothing but the entries decides about fills of the area's base pages.
#[inline(always)]
pub(super) fn is_plain(vma: &Vma) -> bool {
    vma.backing.is_none() && !vma.ty.ends_before_fills()
}

/// Whether the page lies past the end of the object that its area maps.
fn is_past_end(vma: &Vma, page: VirtAddr) -> bool {
    let past = |backing: &Backing| vma.offset_of(page) >= backing.object.size();
    vma.backing.as_ref().is_some_and(past)
}

#[inline(always)]
fn put_poison(level: Level, cursor: &mut Cursor<'_, Stage1>) -> Result<(), FillStop> {
    match cursor.mark(level, Marker::Poison)? {
        Some(_) => Ok(()),
        None => Err(FillStop::Exists),
    }
}

/// Rights and attributes of what is filled. Filled pages count as written, whatever the area's rights are now.
#[inline(always)]
fn filled(vma: &Vma, protect: bool) -> (Prot, AttrFlags) {
    let flags = AttrFlags::ACCESSED | AttrFlags::DIRTY;
    if protect {
        (vma.prot - Prot::WRITE, flags | AttrFlags::UFFD_WP)
    } else {
        (vma.prot, flags)
    }
}

/// Rights to a page of the cache: a private mapping asks again before it writes.
fn reached(backing: &Backing, prot: Prot) -> Prot {
    match backing.sharing {
        Sharing::Shared => prot,
        Sharing::Private => prot - Prot::WRITE,
    }
}
