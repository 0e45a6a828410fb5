//! What tasks do: touching cells.

use kernel::mm::fault::FaultError;
use kernel::mm::pt::Prot;
use kernel::uffd::{Modes, TrapKind};

use super::{Area, Cell, Content, Model, Owner, Waiting};
use crate::ops::{BASE_CELLS, ObjectType, TASK_SPACES};

/// What the next look at a fault comes to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Touched {
    Resolved,
    Delegated,
    SelfFault,
    Failed(FaultError),
}

impl Model {
    /// The outcome of the next look at a fault; the fault is queued if it is delegated.
    pub fn touch(&mut self, task: usize, number: usize, store: bool) -> Touched {
        let cell = &mut self.spaces[TASK_SPACES[task]][number];
        let Some(area) = cell.area else {
            return Touched::Failed(FaultError::Unmapped);
        };
        if !area.prot.contains(if store { Prot::WRITE } else { Prot::READ }) {
            return Touched::Failed(FaultError::Forbidden);
        }
        if cell.content == Content::Poisoned {
            return Touched::Failed(FaultError::Poisoned);
        }
        let modes = area.modes();
        // What a registration has left whose place another one has taken is forgotten before anybody is asked.
        if cell.content == Content::Marked && !modes.contains(Modes::WP) && number < BASE_CELLS {
            cell.content = Content::Nothing;
        }
        let cell = *cell;
        let mut kind = None;
        if cell.is_absent() {
            kind = match self.cached(&area) {
                Err(()) => return Touched::Failed(FaultError::BeyondEnd),
                Ok(None) => modes.contains(Modes::MISSING).then_some(TrapKind::Missing),
                Ok(Some(_)) => modes.contains(Modes::MINOR).then_some(TrapKind::Minor),
            };
        }
        let stopped = cell.protected || cell.content == Content::Marked;
        if kind.is_none() && store && stopped && modes.contains(Modes::WP) {
            kind = Some(TrapKind::WriteProtect);
        }
        let starved = number >= BASE_CELLS && self.takes_a_page(&cell, &area, store) && self.pool_is_empty();
        let (Some(kind), Some(Owner { ctx, .. })) = (kind, area.owner) else {
            return if starved {
                Touched::Failed(FaultError::PoolEmpty)
            } else {
                Touched::Resolved
            };
        };
        if kind == TrapKind::WriteProtect && cell.content == Content::Marked {
            // The page is there before anybody is asked about the store.
            if starved {
                return Touched::Failed(FaultError::PoolEmpty);
            }
            let content = self.populate_to_store(&area);
            self.spaces[TASK_SPACES[task]][number].put(content, true);
        }
        if self.contexts[ctx].monitor == Some(task) {
            return Touched::SelfFault;
        }
        self.contexts[ctx].unread.push_back(Waiting {
            task,
            cell: number,
            store,
            kind,
        });
        Touched::Delegated
    }

    /// Whether an access to a huge cell that nothing stops needs another page.
    fn takes_a_page(&self, cell: &Cell, area: &Area, store: bool) -> bool {
        match cell.content {
            Content::Page(page) => {
                store && !area.is_shared() && (self.is_cached(page) || self.mapped(page) > 1)
            }
            _ => match self.cached(area) {
                Ok(Some(_)) => store && !area.is_shared(),
                _ => true,
            },
        }
    }

    /// An access that nothing stops; the word that is there afterwards.
    pub fn access(&mut self, space: usize, number: usize, stored: Option<u64>) -> u64 {
        let cell = self.spaces[space][number];
        let area = cell.area.expect("only what is mapped is accessed");
        if stored.is_none() && !cell.is_absent() {
            return self.word(cell.content);
        }
        let mut keeps =
            stored.is_none() && cell.content == Content::Marked && area.modes().contains(Modes::WP);
        let content = match cell.content {
            Content::Nothing | Content::Marked => self.populate(&area),
            other => other,
        };
        let content = match (content, stored) {
            (content, None) => content,
            (Content::Page(page), Some(word)) => {
                // The cell that is stored to does not count itself when it has just been populated.
                let others = self.mapped(page) - usize::from(cell.content == content);
                let own = area.is_shared() || (!self.is_cached(page) && others == 0);
                // What a registration has left whose place another one has taken stops nobody, and goes with the page only.
                keeps = own && cell.protected;
                let page = if own { page } else { self.page(0) };
                self.words[page] = word;
                Content::Page(page)
            }
            (_, Some(word)) => Content::Page(self.page(word)),
        };
        self.spaces[space][number].put(content, keeps);
        self.word(content)
    }

    /// What a store finds in an empty cell: a page that may be written.
    fn populate_to_store(&mut self, area: &Area) -> Content {
        match self.populate(area) {
            Content::Page(page) if !area.is_shared() && self.is_cached(page) => {
                Content::Page(self.page(self.words[page]))
            }
            Content::Page(page) => Content::Page(page),
            _ => Content::Page(self.page(0)),
        }
    }

    /// What a cell with this content begins with.
    fn word(&self, content: Content) -> u64 {
        match content {
            Content::Page(page) => self.words[page],
            _ => 0,
        }
    }

    /// What a touch finds in an empty cell.
    fn populate(&mut self, area: &Area) -> Content {
        let Some((object, offset)) = area.object() else {
            return Content::Zeros;
        };
        if let Some(page) = self.objects[object].pages[offset] {
            return Content::Page(page);
        }
        let page = self.page(0);
        // A private mapping of huge pages does not fill the holes of the object.
        if area.is_shared() || area.ty() != Some(ObjectType::Huge) {
            self.objects[object].pages[offset] = Some(page);
        }
        Content::Page(page)
    }
}
