//! Taking pages out of areas that stay.
//!
//! | memory | write protection of a page | poison |
//! | --- | --- | --- |
//! | of the space only | goes with the page | as asked |
//! | of an object | stays as a marker, while the area is registered for it | as asked |

use super::Space;
use crate::mm::frame::Folio;
use crate::mm::memtype::Modes;
use crate::mm::pt::{AttrFlags, Entry, Flush, Marker, SplitError};
use crate::mm::range::VirtRange;
use crate::mm::vma::Vma;

/// What to take out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Zap {
    /// Pages of the object's cache only: private copies of them stay.
    pub cache_pages_only: bool,
    /// Poison too.
    pub poison: bool,
}

impl Space {
    /// Empties the entries of `part` of the area, with its tables locked in turns. The area is locked by the caller, shared
    /// or exclusively.
    ///
    /// # Errors
    /// A large page that sticks out could not be split; what came before it is gone.
    pub(super) fn zap(&self, vma: &Vma, part: VirtRange, what: Zap) -> Result<(), SplitError> {
        let remembers = vma.backing.is_some()
            && vma
                .uffd
                .as_ref()
                .is_some_and(|registration| registration.modes.contains(Modes::WP));
        let mut at = part.start;
        while at < part.end {
            let mut flush = Flush::new();
            let mut table = self.table.lock();
            let mut cursor = table.cursor(VirtRange::new(at, part.end));
            let mut outcome = Ok(());
            while !cursor.is_done() && !flush.is_full() {
                let (entry, level) = cursor.entry();
                match entry {
                    Entry::Leaf(_) if !cursor.fits(level) => {
                        outcome = cursor.split(&mut flush);
                        if outcome.is_err() {
                            break;
                        }
                        continue;
                    }
                    Entry::Leaf(leaf) if what.covers(cursor.share().as_ref()) => {
                        let protected = remembers && leaf.attr.flags.contains(AttrFlags::UFFD_WP);
                        cursor.take(if protected { Marker::UffdWp } else { Marker::None }, &mut flush);
                    }
                    Entry::Absent(Marker::UffdWp) if !remembers => {
                        cursor.forget_marker();
                    }
                    Entry::Absent(Marker::Poison) if what.poison => {
                        cursor.forget_marker();
                    }
                    _ => {}
                }
                cursor.advance(level);
            }
            at = cursor.addr();
            drop(table);
            flush.spend(self);
            outcome?;
        }
        Ok(())
    }
}

impl Zap {
    /// Whether a page goes, given its folio unless it is the shared zero page.
    fn covers(self, folio: Option<&Folio>) -> bool {
        !self.cache_pages_only || folio.is_some_and(Folio::is_cached)
    }
}
