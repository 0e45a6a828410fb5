//! The model: an array of pages and a pair of queues for each context.

use std::collections::VecDeque;

use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::fault::FaultError;
use kernel::mm::pt::Prot;
use kernel::uffd::{Outcome, Refusal};

use crate::ops::{CONTEXTS, PAGES, Span};

/// What a page of the model holds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Content {
    Nothing,
    /// The shared page of zeros.
    Zeros,
    /// A page of its own that begins with this word.
    Own(u64),
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Area {
    pub prot: Prot,
    pub ctx: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
pub struct Page {
    pub area: Option<Area>,
    pub content: Content,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Waiting {
    pub task: usize,
    pub page: usize,
    pub store: bool,
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
        match area.ctx {
            Some(ctx) if self.pages[page].content == Content::Nothing => {
                if self.contexts[ctx].monitor == Some(task) {
                    return Touched::SelfFault;
                }
                self.contexts[ctx].unread.push_back(Waiting { task, page, store });
                Touched::Delegated
            }
            _ => Touched::Resolved,
        }
    }

    /// Fills the pages of `span` from `source` on behalf of `ctx`; how it ends.
    pub fn fill(
        &mut self,
        ctx: usize,
        span: Span,
        quiet: bool,
        mut source: impl FnMut(usize) -> Option<Content>,
    ) -> Outcome {
        let first = self.pages[span.0].area;
        let one_area = span.pages().all(|page| self.pages[page].area == first);
        if !one_area || first.is_none_or(|area| area.ctx.is_none()) {
            return Outcome::Refused(Refusal::NotRegistered);
        }
        let mut done = 0;
        let stop = span.pages().find_map(|page| {
            let Some(content) = source(page) else {
                return Some(Refusal::BadSource);
            };
            if self.pages[page].content != Content::Nothing {
                return Some(Refusal::Exists);
            }
            self.pages[page].content = content;
            done += 1;
            None
        });
        if !quiet && done > 0 {
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
