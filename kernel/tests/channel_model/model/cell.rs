//! A cell of a space: what is mapped there, and what it holds.

use kernel::mm::pt::Prot;
use kernel::uffd::Modes;

use super::{Fill, PageId};
use crate::ops::{Memory, OBJECTS, ObjectType};

/// What a cell holds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Content {
    Nothing,
    /// Nothing, but write-protected.
    Marked,
    /// Nothing, and every access fails.
    Poisoned,
    /// The shared page of zeros.
    Zeros,
    Page(PageId),
}

/// The context that an area is registered with, and for what.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Owner {
    pub ctx: usize,
    pub modes: Modes,
}

/// What is known about the mapping of a cell. The offset in [`Memory::Object`] is that of this very cell.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Area {
    pub prot: Prot,
    pub memory: Memory,
    pub owner: Option<Owner>,
}

impl Area {
    pub fn modes(&self) -> Modes {
        self.owner.map_or(Modes::empty(), |owner| owner.modes)
    }

    pub(super) fn object(&self) -> Option<(usize, usize)> {
        match self.memory {
            Memory::Anonymous => None,
            Memory::Object(object, offset, _) => Some((object, offset)),
        }
    }

    pub(super) fn ty(&self) -> Option<ObjectType> {
        self.object().map(|(object, _)| OBJECTS[object].0)
    }

    pub(super) fn is_shared(&self) -> bool {
        matches!(self.memory, Memory::Object(_, _, true))
    }

    /// The area of the cell that follows, if the two could be one.
    pub(super) fn next(self) -> Self {
        let memory = match self.memory {
            Memory::Anonymous => Memory::Anonymous,
            Memory::Object(object, offset, shared) => Memory::Object(object, offset + 1, shared),
        };
        Self { memory, ..self }
    }

    /// The modes that may be registered.
    pub fn may(&self) -> Modes {
        match self.ty() {
            None => Modes::MISSING | Modes::WP,
            Some(ObjectType::Guest) => Modes::MISSING | Modes::MINOR,
            Some(_) => Modes::all(),
        }
    }

    pub(super) fn can(&self, fill: &Fill) -> bool {
        match fill {
            Fill::Copy(_) | Fill::Poison => true,
            Fill::Zero => !matches!(self.ty(), Some(ObjectType::Huge | ObjectType::Guest)),
            Fill::Continue => self.ty().is_some(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Cell {
    pub area: Option<Area>,
    pub content: Content,
    /// Whether the page that is there is write-protected.
    pub protected: bool,
    /// Whether it was shared by a fork and not stored to since.
    pub forked: bool,
}

impl Cell {
    pub const UNMAPPED: Self = Self {
        area: None,
        content: Content::Nothing,
        protected: false,
        forked: false,
    };

    pub fn modes(&self) -> Modes {
        self.area.map_or(Modes::empty(), |area| area.modes())
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self.content, Content::Nothing | Content::Marked)
    }

    pub(super) fn put(&mut self, content: Content, protected: bool) {
        self.content = content;
        self.protected = protected;
        self.forked = false;
    }

    /// The page goes, or the protection of one that was not there: remembered in mappings of objects that are
    /// registered for it.
    pub(super) fn empty(&mut self) {
        let object = self.area.is_some_and(|area| area.object().is_some());
        let protected = self.protected || self.content == Content::Marked;
        let remembered = object && protected && self.modes().contains(Modes::WP);
        let content = if remembered {
            Content::Marked
        } else {
            Content::Nothing
        };
        self.put(content, false);
    }

    pub(super) fn protect(&mut self, absent_too: bool) {
        match self.content {
            Content::Zeros | Content::Page(_) => self.protected = true,
            Content::Nothing if absent_too => self.content = Content::Marked,
            _ => {}
        }
    }

    pub(super) fn unprotect(&mut self) {
        self.protected = false;
        if self.content == Content::Marked {
            self.content = Content::Nothing;
        }
    }

    /// Ends the registration with `ctx`, if there is one; what it was for.
    pub fn unregister(&mut self, ctx: usize) -> Option<Modes> {
        let owner = &mut self.area.as_mut()?.owner;
        let Owner { modes, .. } = owner.take_if(|owner| owner.ctx == ctx)?;
        if modes.contains(Modes::WP) {
            self.unprotect();
        }
        Some(modes)
    }
}
