//! Who is told of a remapping.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;

use super::Piece;
use crate::mm::range::VirtRange;
use crate::mm::reserve::reserve;
use crate::mm::space::unmap::begin_unmap;
use crate::mm::vma::VmaSet;
use crate::uffd::{Change, Changes, Event, Features};

/// Who is told of what when the areas are unlocked, in this order.
#[derive(Default, Debug)]
pub(super) struct News {
    replaced: Vec<(Changes, VirtRange)>,
    moved: Option<(Change, Piece)>,
    gone: Vec<(Changes, VirtRange)>,
}

impl News {
    /// What moving the pieces changes for contexts.
    pub(super) fn of(
        vmas: &VmaSet,
        pieces: &[Piece],
        tail: VirtRange,
        leave: bool,
    ) -> Result<Self, TryReserveError> {
        let mut news = Self::default();
        for piece in pieces {
            note(&mut news.replaced, vmas, piece.new)?;
        }
        // Of several, none is registered.
        if let [piece] = pieces
            && let Some(registration) = vmas.find(piece.old.start).and_then(|vma| vma.uffd.as_ref())
        {
            let change = Change::begin(&registration.ctx, Features::EVENT_REMAP);
            news.moved = change.map(|change| (change, *piece));
        }
        news.is_gone(vmas, tail)?;
        for piece in pieces.iter().filter(|_| !leave) {
            news.is_gone(vmas, piece.old)?;
        }
        Ok(news)
    }

    /// `range` is about to be unmapped, and nothing else comes in its place.
    pub(super) fn is_gone(&mut self, vmas: &VmaSet, range: VirtRange) -> Result<(), TryReserveError> {
        note(&mut self.gone, vmas, range)
    }

    /// Nobody is told after all that `range` is unmapped: it is not registered any more.
    pub(super) fn is_no_more(&mut self, range: VirtRange) {
        self.gone.retain(|(_, gone)| *gone != range);
    }

    /// What is left when what was to move stays where it is.
    pub(super) fn of_replacing(self) -> Self {
        Self {
            replaced: self.replaced,
            ..Self::default()
        }
    }

    /// Tells everybody, one after the other.
    pub(super) fn announce(self) {
        let unmapped = |news: Vec<(Changes, VirtRange)>| {
            for (changes, range) in news {
                changes.announce(|| Event::Unmap { range });
            }
        };
        unmapped(self.replaced);
        if let Some((change, Piece { old, new })) = self.moved {
            change.announce(Event::Remap {
                from: old.start,
                to: new.start,
                len: old.len(),
            });
        }
        unmapped(self.gone);
    }
}

/// Notes that `range` is about to be unmapped, if anybody is to be told.
fn note(
    news: &mut Vec<(Changes, VirtRange)>,
    vmas: &VmaSet,
    range: VirtRange,
) -> Result<(), TryReserveError> {
    if range.is_empty() {
        return Ok(());
    }
    let changes = begin_unmap(vmas, range)?;
    if !changes.is_empty() {
        reserve(news, 1)?;
        news.push((changes, range));
    }
    Ok(())
}
