//! The model: an array of pages and a pair of queues for each context.

use std::collections::VecDeque;

use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::fault::FaultError;
use kernel::mm::pt::Prot;
use kernel::uffd::{FillMode, Modes, Outcome, Refusal, TrapKind, WriteProtectError};

use crate::ops::{CONTEXTS, PAGES, Span};

/// What a page of the model holds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Content {
    Nothing,
    /// Nothing, but write-protected.
    Marked,
    /// Nothing, and every access fails.
    Poisoned,
    /// The shared page of zeros.
    Zeros,
    /// A page of its own that begins with this word.
    Own(u64),
}

/// The context that an area is registered with, and for what.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Owner {
    pub ctx: usize,
    pub modes: Modes,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Area {
    pub prot: Prot,
    pub owner: Option<Owner>,
}

#[derive(Clone, Copy, Debug)]
pub struct Page {
    pub area: Option<Area>,
    pub content: Content,
    /// Whether the page that is there is write-protected.
    pub protected: bool,
}

impl Page {
    pub const UNMAPPED: Self = Self {
        area: None,
        content: Content::Nothing,
        protected: false,
    };

    /// What the page is registered for.
    pub fn modes(&self) -> Modes {
        let owner = self.area.and_then(|area| area.owner);
        owner.map_or(Modes::empty(), |owner| owner.modes)
    }

    pub fn is_absent(&self) -> bool {
        matches!(self.content, Content::Nothing | Content::Marked)
    }

    fn put(&mut self, content: Content, protected: bool) {
        self.content = content;
        self.protected = protected;
    }

    pub fn discard(&mut self) {
        self.put(Content::Nothing, false);
    }

    /// A store or a load that nothing stops. Loads see zeros where nothing was.
    pub fn access(&mut self, stored: Option<u64>) {
        match stored {
            Some(word) => self.put(Content::Own(word), false),
            None if self.is_absent() => {
                let stays = self.content == Content::Marked && self.modes().contains(Modes::WP);
                self.put(Content::Zeros, stays);
            }
            None => {}
        }
    }

    fn protect(&mut self, absent_too: bool) {
        match self.content {
            Content::Zeros | Content::Own(_) => self.protected = true,
            Content::Nothing if absent_too => self.content = Content::Marked,
            _ => {}
        }
    }

    fn unprotect(&mut self) {
        self.protected = false;
        if self.content == Content::Marked {
            self.content = Content::Nothing;
        }
    }

    /// Ends the page's registration with `ctx`, if it has one; what it was for.
    pub fn unregister(&mut self, ctx: usize) -> Option<Modes> {
        let owner = &mut self.area.as_mut()?.owner;
        let Owner { modes, .. } = owner.take_if(|owner| owner.ctx == ctx)?;
        if modes.contains(Modes::WP) {
            self.unprotect();
        }
        Some(modes)
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Waiting {
    pub task: usize,
    pub page: usize,
    pub store: bool,
    pub kind: TrapKind,
}

/// A context of the model: two queues and a monitor.
#[derive(Clone, Default, Debug)]
pub struct Queues {
    pub unread: VecDeque<Waiting>,
    pub read: VecDeque<Waiting>,
    pub monitor: Option<usize>,
}

/// The model.
pub struct Model {
    pub pages: [Page; PAGES],
    pub contexts: [Queues; CONTEXTS],
}

impl Model {
    pub fn waits(&self, task: usize) -> bool {
        self.contexts
            .iter()
            .flat_map(|ctx| ctx.unread.iter().chain(&ctx.read))
            .any(|w| w.task == task)
    }

    pub fn wake(&mut self, ctx: usize, span: Span) {
        let ctx = &mut self.contexts[ctx];
        ctx.unread.retain(|waiting| !span.pages().contains(&waiting.page));
        ctx.read.retain(|waiting| !span.pages().contains(&waiting.page));
    }

    /// The outcome of the next look at a fault; the fault is queued if it is delegated.
    pub fn touch(&mut self, task: usize, page: usize, store: bool) -> Touched {
        let Some(area) = self.pages[page].area else {
            return Touched::Failed(FaultError::Unmapped);
        };
        if !area.prot.contains(if store { Prot::WRITE } else { Prot::READ }) {
            return Touched::Failed(FaultError::Forbidden);
        }
        let found = &self.pages[page];
        if found.content == Content::Poisoned {
            return Touched::Failed(FaultError::Poisoned);
        }
        let missing = found.is_absent() && found.modes().contains(Modes::MISSING);
        let stopped = found.protected || found.content == Content::Marked;
        let kind = if missing {
            TrapKind::Missing
        } else if store && stopped && found.modes().contains(Modes::WP) {
            TrapKind::WriteProtect
        } else {
            return Touched::Resolved;
        };
        let Some(Owner { ctx, .. }) = area.owner else {
            return Touched::Resolved;
        };
        if self.contexts[ctx].monitor == Some(task) {
            return Touched::SelfFault;
        }
        self.contexts[ctx].unread.push_back(Waiting {
            task,
            page,
            store,
            kind,
        });
        Touched::Delegated
    }

    /// Changes the write protection of one area after the other until one is not registered for it.
    pub fn write_protect(
        &mut self,
        span: Span,
        covers_absent: impl Fn(usize) -> bool,
        protect: bool,
    ) -> Result<(), WriteProtectError> {
        let mut any = false;
        for page in &mut self.pages[span.pages()] {
            let Some(area) = page.area else {
                continue;
            };
            let owner = area.owner.filter(|owner| owner.modes.contains(Modes::WP));
            let owner = owner.ok_or(WriteProtectError::NotRegistered)?;
            if protect {
                page.protect(covers_absent(owner.ctx));
            } else {
                page.unprotect();
            }
            any = true;
        }
        if any {
            Ok(())
        } else {
            Err(WriteProtectError::NotRegistered)
        }
    }

    /// Fills the pages of `span` from `source` on behalf of `ctx`; how it ends. Pages of their own go over markers.
    pub fn fill(
        &mut self,
        ctx: usize,
        span: Span,
        mode: FillMode,
        mut source: impl FnMut(usize) -> Option<Content>,
    ) -> Outcome {
        let first = self.pages[span.0].area;
        let one_area = span.pages().all(|page| self.pages[page].area == first);
        if !one_area || first.is_none_or(|area| area.owner.is_none()) {
            return Outcome::Refused(Refusal::NotRegistered);
        }
        let protect = mode.contains(FillMode::WP);
        if protect && !self.pages[span.0].modes().contains(Modes::WP) {
            return Outcome::Refused(Refusal::NoWriteProtect);
        }
        let mut done = 0;
        let stop = span.pages().find_map(|page| {
            let Some(content) = source(page) else {
                return Some(Refusal::BadSource);
            };
            let free = match self.pages[page].content {
                Content::Nothing => true,
                Content::Marked | Content::Poisoned => matches!(content, Content::Own(_)),
                Content::Zeros | Content::Own(_) => false,
            };
            if !free {
                return Some(Refusal::Exists);
            }
            self.pages[page].put(content, protect);
            done += 1;
            None
        });
        if !mode.contains(FillMode::DONTWAKE) && done > 0 {
            self.wake(ctx, Span(span.0, span.0 + done));
        }
        match stop {
            None => Outcome::Done,
            Some(why) if done > 0 => Outcome::Partial {
                bytes: done as u64 * PAGE_SIZE,
                why,
            },
            Some(why) => Outcome::Refused(why),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Touched {
    Resolved,
    Delegated,
    SelfFault,
    Failed(FaultError),
}
