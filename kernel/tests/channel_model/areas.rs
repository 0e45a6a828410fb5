//! The operations on areas: what is mapped, with which rights, and with whom it is registered.

use std::sync::Arc;

use kernel::mm::memtype::anon::ANON;
use kernel::mm::pt::Prot;
use kernel::mm::space::{DiscardError, MapError, MapOptions, MapRequest, Memory as Mapped, ProtectError};
use kernel::mm::vma::{Sharing, VmaFlags};
use kernel::uffd::{Modes, RegisterError, UnregisterError};

use crate::model::{Area, Cell, Owner};
use crate::ops::{CONTEXT_SPACES, Memory, Span, addr, granule};
use crate::{Check, range};

impl Check<'_> {
    pub(super) fn map(&mut self, space: usize, span: Span, memory: Memory, prot: Prot) {
        let cells = &mut self.model.spaces[space][span.cells()];
        let free = cells.iter().all(|cell| cell.area.is_none());
        let request = MapRequest {
            at: Some(addr(span.0)),
            len: range(span).len(),
            prot,
            memory: match memory {
                Memory::Anonymous => Mapped::Own(&ANON),
                Memory::Object(object, offset, shared) => Mapped::Object {
                    object: Arc::clone(&self.objects[object]),
                    offset: offset as u64 * granule(span.0),
                    sharing: if shared { Sharing::Shared } else { Sharing::Private },
                    read_only: false,
                },
            },
        };
        let expected = if free {
            Ok(range(span))
        } else {
            Err(MapError::Occupied)
        };
        // Whether a huge page is there for a touch is for the model to say.
        let options = MapOptions {
            flags: VmaFlags::NO_RESERVE,
            ..MapOptions::default()
        };
        assert_eq!(self.spaces[space].map_with(request, options), expected);
        if free {
            for (index, cell) in cells.iter_mut().enumerate() {
                let memory = match memory {
                    Memory::Anonymous => Memory::Anonymous,
                    Memory::Object(object, offset, shared) => Memory::Object(object, offset + index, shared),
                };
                let owner = None;
                let area = Some(Area { prot, memory, owner });
                *cell = Cell {
                    area,
                    ..Cell::UNMAPPED
                };
            }
        }
    }

    pub(super) fn protect(&mut self, space: usize, span: Span, prot: Prot) {
        let cells = &mut self.model.spaces[space][span.cells()];
        let whole = cells.iter().all(|cell| cell.area.is_some());
        let expected = if whole {
            Ok(())
        } else {
            Err(ProtectError::NotMapped)
        };
        assert_eq!(self.spaces[space].protect(range(span), prot), expected);
        if whole {
            let areas = cells.iter_mut().filter_map(|cell| cell.area.as_mut());
            areas.for_each(|area| area.prot = prot);
        }
    }

    pub(super) fn discard(&mut self, space: usize, span: Span) {
        let hole = span
            .cells()
            .any(|cell| self.model.spaces[space][cell].area.is_none());
        let expected = if hole {
            Err(DiscardError::NotMapped)
        } else {
            Ok(())
        };
        assert_eq!(self.spaces[space].discard(range(span)), expected);
        self.model.discard(space, span);
    }

    /// The areas of `span` in the space of `ctx`.
    fn areas(&self, ctx: usize, span: Span) -> Vec<Area> {
        let cells = &self.model.spaces[CONTEXT_SPACES[ctx]][span.cells()];
        cells.iter().filter_map(|cell| cell.area).collect()
    }

    pub(super) fn register(&mut self, ctx: usize, span: Span, modes: Modes) {
        let areas = self.areas(ctx, span);
        // The first area that refuses says why.
        let refusal = areas.iter().find_map(|area| {
            if !area.may().contains(modes) {
                Some(RegisterError::Unsupported)
            } else if area.owner.is_some_and(|owner| owner.ctx != ctx) {
                Some(RegisterError::Busy)
            } else {
                None
            }
        });
        let expected = match refusal {
            _ if areas.is_empty() => Err(RegisterError::NotMapped),
            Some(refusal) => Err(refusal),
            None => Ok(()),
        };
        let result = self.uffds[ctx].register(range(span), modes);
        assert_eq!(result.map(drop), expected);
        if expected.is_ok() {
            let cells = &mut self.model.spaces[CONTEXT_SPACES[ctx]][span.cells()];
            let areas = cells.iter_mut().filter_map(|cell| cell.area.as_mut());
            // Less than there is changes nothing; anything else replaces it.
            areas
                .filter(|area| !area.owner.is_some_and(|owner| owner.modes.contains(modes)))
                .for_each(|area| area.owner = Some(Owner { ctx, modes }));
        }
    }

    pub(super) fn unregister(&mut self, ctx: usize, span: Span) {
        let areas = self.areas(ctx, span);
        let expected = if areas.is_empty() {
            Err(UnregisterError::NotMapped)
        } else if areas
            .iter()
            .any(|area| area.owner.is_some_and(|owner| owner.ctx != ctx))
        {
            Err(UnregisterError::NotOurs)
        } else {
            Ok(())
        };
        assert_eq!(self.uffds[ctx].unregister(range(span)), expected);
        for number in span.cells().filter(|_| expected.is_ok()) {
            let modes = self.model.spaces[CONTEXT_SPACES[ctx]][number].unregister(ctx);
            if modes.is_some_and(|modes| modes.contains(Modes::MISSING)) {
                self.model.wake(ctx, Span(number, number + 1));
            }
        }
    }
}
