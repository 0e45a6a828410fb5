//! Mappings that change their size or their place, behind Linux's `mremap`.
//!
//! | wanted | done |
//! | --- | --- |
//! | shorter, here | the tail is unmapped |
//! | longer, here | the area grows into free space behind it; its registration grows with it |
//! | longer, anywhere | grows here, or moves to where there is room |
//! | at a fixed place | what is there is unmapped, the tail that is not wanted is unmapped, the rest moves |
//! | not unmapped | moves, and leaves an area without contents behind |
//! | of no bytes that are there | a shared mapping is mapped a second time |
//!
//! What moves is not copied: entries go to their new addresses with the pages that they own, whole nodes at a time where both
//! places allow it. Markers of poison and guards go along. A registration goes along with its write protection if its
//! context asked for [`Features::EVENT_REMAP`](crate::uffd::Features::EVENT_REMAP); otherwise the moved mapping has neither.
//! As on Linux, that is so after it has become one with neighbours that are like it: where it has had no pages yet and comes
//! to lie beside a part of the same registration, that part is not registered any more either.
//!
//! Everything happens under exclusive areas, so that nobody sees it half done, and is announced afterwards, each event
//! waited for by itself: `Event::Unmap` of what was at the fixed place, `Event::Remap`, `Event::Unmap` of the tail,
//! `Event::Unmap` of the old range. A task that waits for a page at an old address stays asleep until that address is
//! woken, and then finds what is there by then.

use alloc::vec::Vec;

use super::Space;
use crate::mm::addr::VirtAddr;
use crate::mm::frame::OutOfFrames;
use crate::mm::range::VirtRange;
use crate::mm::reserve::reserve;
use crate::mm::vma::{TooManyVmas, Vma, VmaFlags, VmaSet};

mod news;
mod request;

use news::News;
use request::check_move;
pub use request::{RemapError, RemapRequest, RemapTo};

/// Part of an area, and where it is to be; the new range is longer where the area grows. Empty where it is mapped a second
/// time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Piece {
    old: VirtRange,
    new: VirtRange,
}

impl Space {
    /// Changes the size or the place of what is mapped in a range. Returns where it is afterwards, in whole pages of its
    /// memory type.
    ///
    /// Returns when every context that is to be told has been told.
    ///
    /// # Errors
    /// See [`RemapError`]; nothing changed then unless it says so.
    ///
    /// # Panics
    /// There is somebody to tell, and a lock is held.
    pub fn remap(&self, request: RemapRequest) -> Result<VirtRange, RemapError> {
        let request = request.checked()?;
        let mut news = News::default();
        let mut vmas = self.vmas.write();
        let remapped = self.remap_areas(&mut vmas, &request, &mut news);
        drop(vmas);
        news.announce();
        remapped
    }

    fn remap_areas(
        &self,
        vmas: &mut VmaSet,
        request: &RemapRequest,
        news: &mut News,
    ) -> Result<VirtRange, RemapError> {
        if let RemapTo::At(at) = request.to
            && request.len == request.old.len()
        {
            let (pieces, stopped) = pieces(vmas, request, at)?;
            let nothing = VirtRange::new(request.old.end, request.old.end);
            let moved = self.move_pieces(vmas, &pieces, nothing, request.leave_mapped, news)?;
            return stopped.map_or(Ok(moved), Err);
        }
        let vma = vmas.find(request.old.start).ok_or(RemapError::NotMapped)?.clone();
        let RemapRequest { old, len, to, .. } = request.in_pages_of(&vma)?;
        let kept = VirtRange::new(old.start, old.start + len.min(old.len()));
        let tail = VirtRange::new(kept.end, old.end);
        if !matches!(to, RemapTo::At(_)) && !request.leave_mapped && len <= old.len() {
            self.cut(vmas, tail, news)?;
            return Ok(kept);
        }
        check_move(&vma, kept, len)?;
        let new = match to {
            RemapTo::At(at) => VirtRange::new(at, at + len),
            _ if !request.leave_mapped && grow(vmas, &vma, old, len)? => {
                return Ok(VirtRange::new(old.start, old.start + len));
            }
            RemapTo::Here => return Err(RemapError::NoRoom),
            RemapTo::Anywhere => self
                .find_gap(vmas, len, vma.ty.granule().size())
                .ok_or(RemapError::NoRoom)?,
        };
        let piece = Piece { old: kept, new };
        self.move_pieces(vmas, &[piece], tail, request.leave_mapped, news)
    }

    /// Unmaps the end of a mapping that becomes shorter.
    fn cut(&self, vmas: &mut VmaSet, tail: VirtRange, news: &mut News) -> Result<(), RemapError> {
        if tail.is_empty() {
            return Ok(());
        }
        if !vmas.can_split_at_ends_of(tail) {
            return Err(RemapError::SplitsPage);
        }
        let mut told = News::default();
        told.is_gone(vmas, tail)?;
        self.take_down(vmas, tail)?;
        *news = told;
        Ok(())
    }

    /// Moves the pieces, after unmapping whatever is where they go, and `tail`. Returns where they are.
    fn move_pieces(
        &self,
        vmas: &mut VmaSet,
        pieces: &[Piece],
        tail: VirtRange,
        leave: bool,
        news: &mut News,
    ) -> Result<VirtRange, RemapError> {
        let (first, last) = (pieces[0], pieces[pieces.len() - 1]);
        let old = VirtRange::new(first.old.start, last.old.end);
        let new = VirtRange::new(first.new.start, last.new.end);
        if !Self::window().covers(&new) {
            return Err(RemapError::BadPlace);
        }
        if old.overlaps(&new) {
            return Err(RemapError::Overlaps);
        }
        let can_split = |range: &VirtRange| range.is_empty() || vmas.can_split_at_ends_of(*range);
        if !can_split(&tail) || !pieces.iter().all(|piece| can_split(&piece.new)) {
            return Err(RemapError::SplitsPage);
        }
        // Both ends of every range may split an area, and every piece becomes one.
        vmas.make_room(5 * pieces.len() + 2)?;
        *news = News::of(vmas, pieces, tail, leave)?;
        for piece in pieces {
            self.take_down(vmas, piece.new)?;
        }
        if let Err(error) = self.prepare(pieces) {
            *news = core::mem::take(news).of_replacing();
            return Err(error.into());
        }
        if !tail.is_empty() {
            self.take_down(vmas, tail)?;
        }
        for piece in pieces {
            self.move_piece(vmas, *piece, leave, news)?;
        }
        Ok(new)
    }

    /// Makes the nodes that the pieces need where they go.
    fn prepare(&self, pieces: &[Piece]) -> Result<(), OutOfFrames> {
        let prepared = pieces.iter().try_for_each(|piece| {
            let mut table = self.table.lock();
            table.prepare_transplant(piece.old, piece.new.start)
        });
        if prepared.is_err() {
            for piece in pieces {
                self.clear(piece.new);
            }
        }
        prepared
    }

    /// Moves one piece to where nothing is mapped any more. There is room for the areas, and the nodes are made.
    fn move_piece(
        &self,
        vmas: &mut VmaSet,
        Piece { old, new }: Piece,
        leave: bool,
        news: &mut News,
    ) -> Result<(), RemapError> {
        let vma = vmas.find(old.start).ok_or(RemapError::NotMapped)?;
        let leaves_all = leave && old == vma.range;
        let mut moved = vma.clipped(old);
        moved.range = new;
        moved.anon = vma.anon.moved(old.start, new.start);
        let stays_behind = moved.uffd.as_ref().is_some_and(|old| !old.ctx.follows_moves());
        if stays_behind {
            self.forget_write_protection(vma, old);
        }
        let mut done = 0;
        while done < old.len() {
            let rest = VirtRange::new(old.start + done, old.end);
            done += self.table.lock().transplant(rest, new.start + done, self);
        }
        vmas.insert(moved)?;
        if stays_behind && let Some(vma) = vmas.find_mut(new.start) {
            vma.uffd = None;
            if vma.range.covers(&old) {
                news.is_no_more(old);
            }
        }
        if leaves_all && let Some(vma) = vmas.find_mut(old.start) {
            vma.anon.unset();
        }
        if leave {
            let locked = |vma: &Vma| vma.flags.contains(VmaFlags::LOCKED);
            vmas.update_unsplit(old, locked, |vma| vma.flags.remove(VmaFlags::LOCKED));
        } else if !old.is_empty() {
            self.take_down_moved(vmas, old)?;
        }
        Ok(())
    }
}

/// What moves when all that is mapped in a range goes to `at`, holes included: a piece for each area, up to one that cannot
/// move; and why that cannot.
fn pieces(
    vmas: &VmaSet,
    request: &RemapRequest,
    at: VirtAddr,
) -> Result<(Vec<Piece>, Option<RemapError>), RemapError> {
    let (old, mut pieces) = (request.old, Vec::new());
    for vma in vmas.overlapping(old) {
        if pieces.is_empty() && old.start < vma.range.start {
            return Err(RemapError::NotMapped);
        }
        match piece(vma, request, at, pieces.is_empty()) {
            Ok(piece) => {
                reserve(&mut pieces, 1)?;
                pieces.push(piece);
            }
            // As on Linux, which finds it after the others have moved.
            Err(error) if !pieces.is_empty() => return Ok((pieces, Some(error))),
            Err(error) => return Err(error),
        }
    }
    if pieces.is_empty() {
        return Err(RemapError::NotMapped);
    }
    Ok((pieces, None))
}

/// The piece of one area, which is the first or not.
fn piece(vma: &Vma, request: &RemapRequest, at: VirtAddr, is_first: bool) -> Result<Piece, RemapError> {
    let old = request.old;
    let alone = is_first && old.end <= vma.range.end;
    if vma.uffd.is_some() && !alone {
        return Err(RemapError::SeveralAreas);
    }
    let part = vma.range.intersect(&old).ok_or(RemapError::NotMapped)?;
    let start = at + (part.start - old.start);
    let piece = RemapRequest {
        old: part,
        len: part.len(),
        to: RemapTo::At(start),
        ..*request
    }
    .in_pages_of(vma)?;
    Ok(Piece {
        old: piece.old,
        new: VirtRange::new(start, start + piece.len),
    })
}

/// Makes the area longer, so that what begins at `old` has `len` bytes. False when it does not end there, or something is in
/// the way.
fn grow(vmas: &mut VmaSet, vma: &Vma, old: VirtRange, len: u64) -> Result<bool, TooManyVmas> {
    let more = VirtRange::new(old.end, old.start + len);
    if vma.range.end != old.end || !Space::window().covers(&more) || !vmas.is_free(more) {
        return Ok(false);
    }
    let backing = vma.backing.as_ref();
    // Becomes one with the area, which it continues in every respect.
    vmas.insert(Vma {
        range: more,
        backing: backing.map(|backing| backing.advanced(vma.range.len())),
        ..vma.clone()
    })?;
    Ok(true)
}
