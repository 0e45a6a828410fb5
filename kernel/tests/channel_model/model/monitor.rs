//! What monitors do: filling cells, moving pages into them, and protecting them.

use kernel::mm::pt::Prot;
use kernel::uffd::{FillMode, Modes, Outcome, Refusal, WriteProtectError};

use super::{Area, Cell, Content, Model};
use crate::ops::{BASE_CELLS, CONTEXT_SPACES, Memory, Span, granule};

/// What a fill puts into cells.
pub enum Fill {
    /// Pages that begin with these words; cells past the last have no source.
    Copy(Vec<u64>),
    Zero,
    Continue,
    Poison,
}

impl Model {
    /// Fills the cells of `span` on behalf of `ctx`; how it ends.
    pub fn fill(&mut self, ctx: usize, span: Span, mode: FillMode, fill: &Fill) -> Outcome {
        let space = CONTEXT_SPACES[ctx];
        let Some(area) = self.one_area(space, span).filter(|area| area.owner.is_some()) else {
            return Outcome::Refused(Refusal::NotRegistered);
        };
        let protect = mode.contains(FillMode::WP);
        if protect && !area.modes().contains(Modes::WP) {
            return Outcome::Refused(Refusal::NoWriteProtect);
        }
        if !area.can(fill) {
            return Outcome::Refused(Refusal::Unsupported);
        }
        let mut stop = None;
        let mut done = 0;
        for number in span.cells() {
            match self.fill_cell(space, number, done, fill) {
                Ok(content) => self.spaces[space][number].put(content, protect),
                Err(why) => {
                    stop = Some(why);
                    break;
                }
            }
            done += 1;
        }
        if !mode.contains(FillMode::DONTWAKE) && done > 0 {
            self.wake(ctx, Span(span.0, span.0 + done));
        }
        finished(done, granule(span.0), stop)
    }

    /// Whether a page is mapped in the cell, or in the object that it shares.
    fn has_page(&self, cell: &Cell, area: &Area) -> bool {
        matches!(cell.content, Content::Zeros | Content::Page(_))
            || (area.is_shared() && matches!(self.cached(area), Ok(Some(_))))
    }

    /// What the cell, the `index`-th of a fill, holds afterwards.
    fn fill_cell(
        &mut self,
        space: usize,
        number: usize,
        index: usize,
        fill: &Fill,
    ) -> Result<Content, Refusal> {
        let cell = self.spaces[space][number];
        let area = cell.area.expect("inside an area");
        if let Fill::Copy(words) = fill {
            // Huge memory is looked at before anything is allocated or read.
            if number >= BASE_CELLS && self.has_page(&cell, &area) {
                return Err(Refusal::Exists);
            }
            if number >= BASE_CELLS && self.pool_is_empty() {
                return Err(Refusal::PoolEmpty);
            }
            if index >= words.len() {
                return Err(Refusal::BadSource);
            }
        }
        let shared_zeros = matches!(fill, Fill::Zero) && area.is_shared();
        let over_markers = matches!(fill, Fill::Copy(_) | Fill::Continue) || shared_zeros;
        let free = match cell.content {
            Content::Nothing => true,
            Content::Marked | Content::Poisoned => over_markers,
            Content::Zeros | Content::Page(_) => false,
        };
        if let Fill::Continue = fill {
            return match self.cached(&area) {
                Err(()) if number < BASE_CELLS => Err(Refusal::BeyondEnd),
                Err(()) | Ok(None) => Err(Refusal::NoPage),
                Ok(Some(_)) if !free => Err(Refusal::Exists),
                Ok(Some(page)) => Ok(Content::Page(page)),
            };
        }
        if !free && number < BASE_CELLS && self.cached(&area).is_err() {
            return Err(Refusal::BeyondEnd);
        }
        if !free {
            return Err(Refusal::Exists);
        }
        let cached = match self.cached(&area) {
            Ok(cached) => cached,
            // Huge pages that need nothing of the object are put anywhere.
            Err(()) if number >= BASE_CELLS && (!area.is_shared() || matches!(fill, Fill::Poison)) => None,
            Err(()) => return Err(Refusal::BeyondEnd),
        };
        let word = match fill {
            Fill::Copy(words) => words[index],
            Fill::Zero if area.is_shared() => 0,
            Fill::Zero => return Ok(Content::Zeros),
            _ => return Ok(Content::Poisoned),
        };
        if area.is_shared() && cached.is_some() {
            return Err(Refusal::Exists);
        }
        let page = self.page(word);
        if let (Some((object, offset)), true) = (area.object(), area.is_shared()) {
            self.objects[object].pages[offset] = Some(page);
        }
        Ok(Content::Page(page))
    }

    /// Moves as many cells as `dst` has from `src` on, on behalf of `ctx`; how it may end. `None` stands for memory that
    /// cannot be moved like this, whatever the reason.
    pub fn move_cells(&mut self, ctx: usize, dst: Span, src: Span, holes: bool) -> Option<Vec<Outcome>> {
        let space = CONTEXT_SPACES[ctx];
        if [dst.0, src.0]
            .iter()
            .any(|&cell| self.spaces[space][cell].area.is_none())
        {
            return Some(vec![Outcome::Refused(Refusal::NotMapped)]);
        }
        let (to, from) = (self.one_area(space, dst)?, self.one_area(space, src)?);
        let plain = |area: &Area| area.memory == Memory::Anonymous && area.prot.contains(Prot::WRITE);
        if !plain(&to) || !plain(&from) || to.prot != from.prot || to.owner?.ctx != ctx {
            return None;
        }
        let mut stop = None;
        let mut either = false;
        let mut done = 0;
        for (to, from) in dst.cells().zip(src.cells()) {
            let [found, seen] = [from, to].map(|cell| self.spaces[space][cell]);
            let shared = matches!(found.content, Content::Page(page) if self.mapped(page) > 1);
            match found.content {
                _ if seen.content != Content::Nothing => {
                    stop = Some(Refusal::Exists);
                    // Which of the two is found first depends on whether there are tables for the source.
                    either = !holes && found.content == Content::Nothing;
                }
                Content::Nothing if holes => {}
                Content::Nothing => stop = Some(Refusal::SourceHole),
                Content::Marked | Content::Poisoned => stop = Some(Refusal::BadSource),
                Content::Page(_) if found.forked || shared => stop = Some(Refusal::Busy),
                Content::Page(_) | Content::Zeros => {
                    self.spaces[space][from].put(Content::Nothing, false);
                    self.spaces[space][to].put(found.content, false);
                }
            }
            if stop.is_some() {
                break;
            }
            done += 1;
        }
        if done > 0 {
            self.wake(ctx, Span(dst.0, dst.0 + done));
        }
        let mut outcomes = vec![finished(done, granule(dst.0), stop)];
        if either {
            outcomes.push(finished(done, granule(dst.0), Some(Refusal::SourceHole)));
        }
        Some(outcomes)
    }

    /// Changes the write protection of one area after the other until one is not registered for it.
    pub fn write_protect(
        &mut self,
        space: usize,
        span: Span,
        covers_absent: impl Fn(usize) -> bool,
        protect: bool,
    ) -> Result<(), WriteProtectError> {
        let mut any = false;
        for cell in &mut self.spaces[space][span.cells()] {
            let Some(area) = cell.area else {
                continue;
            };
            let owner = area.owner.filter(|owner| owner.modes.contains(Modes::WP));
            let owner = owner.ok_or(WriteProtectError::NotRegistered)?;
            if protect {
                cell.protect(area.object().is_some() || covers_absent(owner.ctx));
            } else {
                cell.unprotect();
            }
            any = true;
        }
        if any {
            Ok(())
        } else {
            Err(WriteProtectError::NotRegistered)
        }
    }
}

/// The outcome of `done` cells of this size, and then a stop.
fn finished(done: usize, size: u64, stop: Option<Refusal>) -> Outcome {
    match stop {
        None => Outcome::Done,
        Some(why) if done > 0 => Outcome::Partial {
            bytes: done as u64 * size,
            why,
        },
        Some(why) => Outcome::Refused(why),
    }
}
