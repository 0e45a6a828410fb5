//! What becomes of registrations when their space is forked.
//!
//! Without [`Features::EVENT_FORK`] the child's copy of the memory is plain. With it the child gets a context of its own
//! for each of its parent's: the same features, the same modes on the same ranges. Its only handle travels in the event;
//! whoever reads that serves the child from then on. When nobody does, the handle is dropped, and the child's memory is as
//! after any closing.
//!
//! Until the event is read the fork of a kernel task's space also has a handle to the *parent's* context, like the child on
//! Linux, which has inherited the descriptor by then: dropping the last handle elsewhere closes the context only after the
//! fork. The child of a process has what it has inherited, and nothing if its parent had closed the descriptor before.

use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::api::Features;
use super::ctx::{Ctx, Uffd};
use super::event::Event;
use super::layout::Change;
use crate::mm::reserve::reserve;
use crate::mm::space::{Privilege, Space};
use crate::mm::vma::Registration;

/// The contexts of a fork, one pair for each that wants to be told. Made with the parent's areas locked exclusively.
#[derive(Debug)]
pub(crate) struct Forks<'a> {
    child: &'a Arc<Space>,
    forks: Vec<Fork>,
}

/// A context and its child.
#[derive(Debug)]
struct Fork {
    child: Uffd,
    change: Change,
    /// Dropped without locks: it may be what closes the parent's context. Nothing where the last handle went with its monitor.
    inherited: Option<Uffd>,
}

impl<'a> Forks<'a> {
    /// None yet, of a fork whose child is `child`.
    pub(crate) const fn new(child: &'a Arc<Space>) -> Self {
        Self {
            child,
            forks: Vec::new(),
        }
    }

    /// What the child's copy of an area that is registered like this is registered with, if anything.
    ///
    /// # Errors
    /// No kernel memory.
    pub(crate) fn inherit(&mut self, old: &Registration) -> Result<Option<Registration>, TryReserveError> {
        let known = self
            .forks
            .iter()
            .find(|fork| Arc::ptr_eq(fork.change.ctx(), &old.ctx));
        let ctx = match known {
            Some(fork) => fork.child.ctx(),
            None => match self.begin(&old.ctx)? {
                Some(fork) => fork.child.ctx(),
                None => return Ok(None),
            },
        };
        Ok(Some(Registration {
            ctx: Arc::clone(ctx),
            modes: old.modes,
        }))
    }

    fn begin(&mut self, ctx: &Arc<Ctx>) -> Result<Option<&Fork>, TryReserveError> {
        reserve(&mut self.forks, 1)?;
        let Some(change) = Change::begin(ctx, Features::EVENT_FORK) else {
            return Ok(None);
        };
        // Last of all, since it is kept from now on: dropped here it may be the last, and closing locks the areas.
        let inherited = Uffd::another(ctx);
        if inherited.is_none() && !ctx.is_orphaned() {
            // Its last handle is gone, and closing it waits for the areas.
            return Ok(None);
        }
        self.forks.push(Fork {
            child: ctx.forked(self.child),
            change,
            inherited,
        });
        Ok(self.forks.last())
    }

    /// Tells all contexts, one after the other. The child is complete.
    ///
    /// # Panics
    /// A lock is held.
    pub(crate) fn announce(mut self) {
        if self.child.privilege() == Privilege::User {
            self.forks.iter_mut().for_each(|fork| drop(fork.inherited.take()));
        }
        for fork in self.forks {
            fork.change.announce(Event::Fork { uffd: fork.child });
        }
    }
}
