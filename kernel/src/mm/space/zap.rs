//! Taking pages out of areas that stay.
//!
//! What the entries remember afterwards depends on the memory and on who takes the pages (as on Linux 6.18):
//!
//! | memory | by | private copies | write protection | poison |
//! | --- | --- | --- | --- | --- |
//! | of the space only | discard | go | goes | goes |
//! | of an object | discard | go | stays | goes |
//! | of an object | hole punched | stay | stays | stays |
//! | of an object | object cut short | go | stays | goes |
//! | of an object in huge pages | hole punched | go | stays | goes |
//! | of an object in huge pages | object cut short | go | goes | goes |
//!
//! Write protection that stays becomes a marker where there was a page, as long as the area is registered for it. Guards
//! stay, whoever asks.

use arrayvec::ArrayVec;

use super::Space;
use crate::arch::Stage1;
use crate::mm::addr::VirtAddr;
use crate::mm::cache::{Promise, Taken};
use crate::mm::frame::{BATCH, Folio, allocator};
use crate::mm::memtype::{Granule, Modes};
use crate::mm::pt::{AttrFlags, Cursor, Entry, Flush, Marker};
use crate::mm::range::VirtRange;
use crate::mm::vma::Vma;

/// What to take out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Zap {
    /// Private copies of an object's pages too.
    copies: bool,
    /// Write protection too.
    protection: bool,
    /// Poison too.
    poison: bool,
}

impl Zap {
    /// The owner of the area wants its contents gone.
    pub(super) fn discarding(vma: &Vma) -> Self {
        Self {
            copies: true,
            protection: vma.backing.is_none(),
            poison: true,
        }
    }

    /// Pages have left the object that the area maps.
    pub(super) fn taken_from(vma: &Vma, what: Taken) -> Self {
        let shortened = what == Taken::Everything;
        match vma.ty.granule() {
            Granule::Base => Self {
                copies: shortened,
                protection: false,
                poison: shortened,
            },
            Granule::Huge => Self {
                copies: true,
                protection: shortened,
                poison: true,
            },
        }
    }

    /// Whether a page goes, given its folio unless it is the shared zero page, which is nobody's copy.
    fn covers(self, folio: Option<&Folio>) -> bool {
        self.copies || folio.is_none_or(Folio::is_cached)
    }

    /// Empties the entry at the cursor, or leaves it, and goes on behind it.
    fn take_one(
        self,
        vma: &Vma,
        cursor: &mut Cursor<'_, Stage1>,
        remembers: bool,
        flush: &mut Flush<VirtAddr>,
        given_back: &mut GivenBack,
    ) {
        let (entry, level) = cursor.entry();
        match entry {
            Entry::Leaf(leaf) if self.covers(cursor.share().as_ref()) => {
                promise_again(vma, cursor, given_back);
                assert!(cursor.fits(level), "a part that ends inside a page");
                let protected = remembers && leaf.attr.flags.contains(AttrFlags::UFFD_WP);
                cursor.take(if protected { Marker::UffdWp } else { Marker::None }, flush);
            }
            Entry::Absent(Marker::UffdWp) if !remembers => {
                cursor.forget_marker();
            }
            Entry::Absent(Marker::Poison) if self.poison => {
                cursor.forget_marker();
            }
            _ => {}
        }
        cursor.advance(level);
    }
}

/// Numbers of pages that are promised again once the flush that carries them is spent: not more than it carries.
type GivenBack = ArrayVec<u64, BATCH>;

/// What a private mapping was promised.
fn promise_of(vma: &Vma) -> Option<&Promise> {
    vma.backing.as_ref()?.promise.as_deref()
}

/// A page of its own that a private mapping was promised, and loses now, is promised to it again (as on Linux 6.18): it goes
/// back to the pool as a promised one, and can be claimed from then on.
fn promise_again(vma: &Vma, cursor: &mut Cursor<'_, Stage1>, given_back: &mut GivenBack) {
    if promise_of(vma).is_some()
        && let Some(folio) = cursor.share()
        // Two owners: the entry, and the handle just made. One that a fork shares stays where it is.
        && folio.owners() == 2
        && !folio.is_cached()
    {
        allocator().mark_promised(folio.pfn());
        given_back.push(vma.promised_page(cursor.addr()));
    }
}

impl Space {
    /// Empties the entries of `part` of the area, which begins and ends between pages, with the tables locked in turns. The
    /// area is locked by the caller, shared or exclusively.
    pub(super) fn zap(&self, vma: &Vma, part: VirtRange, what: Zap) {
        let registered = vma.uffd.as_ref();
        let protects = registered.is_some_and(|registration| registration.modes.contains(Modes::WP));
        let remembers = protects && !what.protection;
        for turn in self.turns(part) {
            let mut at = turn.start;
            while at < turn.end {
                let mut given_back = GivenBack::new_const();
                at = self.change(VirtRange::new(at, turn.end), |cursor, flush| {
                    while !cursor.is_done() && !flush.is_full() {
                        what.take_one(vma, cursor, remembers, flush, &mut given_back);
                    }
                    cursor.addr()
                });
                if let Some(promise) = promise_of(vma) {
                    given_back.iter().for_each(|page| promise.give_back(*page));
                }
            }
        }
    }
}
