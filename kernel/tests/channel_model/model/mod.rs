//! The model: arrays of cells, arrays of pages, and a pair of queues for each context.
//!
//! | file | what |
//! | --- | --- |
//! | `cell` | a cell, and the area that it is in |
//! | `touch` | what tasks do |
//! | `monitor` | what monitors do |
//! | `object` | what becomes of memory objects |

use std::collections::{BTreeSet, VecDeque};

use kernel::uffd::TrapKind;

use crate::ops::{
    BASE_CELLS, CELLS, CONTEXT_SPACES, MAX_OBJECT_CELLS, OBJECTS, ObjectType, POOL, SPACES, Span,
};

mod cell;
mod monitor;
mod object;
mod touch;

pub use cell::{Area, Cell, Content, Owner};
pub use monitor::Fill;
pub use object::Object;
pub use touch::Touched;

/// A page: an index into [`Model::words`].
pub type PageId = usize;

/// A task that waits for a cell.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Waiting {
    pub task: usize,
    pub cell: usize,
    pub store: bool,
    pub kind: TrapKind,
}

/// A context: two queues and a monitor.
#[derive(Clone, Default, Debug)]
pub struct Queues {
    pub unread: VecDeque<Waiting>,
    pub read: VecDeque<Waiting>,
    pub monitor: Option<usize>,
}

/// Everything there is.
pub struct Model {
    pub spaces: [[Cell; CELLS]; SPACES],
    pub objects: Vec<Object>,
    pub contexts: Vec<Queues>,
    /// The word that each page begins with.
    pub words: Vec<u64>,
    /// The cells that areas of the kernel begin with. That two neighbours are alike does not make them one: that depends on
    /// how they came about, which the model does not follow.
    pub begins: [[bool; CELLS]; SPACES],
}

impl Model {
    pub fn new() -> Self {
        let objects = OBJECTS.map(|(_, size)| Object {
            size,
            pages: vec![None; MAX_OBJECT_CELLS],
        });
        Self {
            spaces: [[Cell::UNMAPPED; CELLS]; SPACES],
            objects: objects.to_vec(),
            contexts: vec![Queues::default(); CONTEXT_SPACES.len()],
            words: Vec::new(),
            begins: [[false; CELLS]; SPACES],
        }
    }

    fn page(&mut self, word: u64) -> PageId {
        self.words.push(word);
        self.words.len() - 1
    }

    fn is_cached(&self, page: PageId) -> bool {
        self.objects
            .iter()
            .any(|object| object.pages.contains(&Some(page)))
    }

    /// How many cells have the page.
    fn mapped(&self, page: PageId) -> usize {
        let cells = self.spaces.iter().flatten();
        cells.filter(|cell| cell.content == Content::Page(page)).count()
    }

    /// The pages that exist: base ones and huge ones.
    pub fn alive(&self) -> (BTreeSet<PageId>, BTreeSet<PageId>) {
        let (mut base, mut huge) = (BTreeSet::new(), BTreeSet::new());
        for space in &self.spaces {
            for (number, cell) in space.iter().enumerate() {
                if let Content::Page(page) = cell.content {
                    if number < BASE_CELLS {
                        base.insert(page)
                    } else {
                        huge.insert(page)
                    };
                }
            }
        }
        for (object, (ty, _)) in self.objects.iter().zip(OBJECTS) {
            let pages = object.pages.iter().copied().flatten();
            if ty == ObjectType::Huge {
                huge.extend(pages)
            } else {
                base.extend(pages)
            };
        }
        (base, huge)
    }

    fn pool_is_empty(&self) -> bool {
        self.alive().1.len() >= POOL
    }

    pub fn waits(&self, task: usize) -> bool {
        self.contexts
            .iter()
            .flat_map(|ctx| ctx.unread.iter().chain(&ctx.read))
            .any(|waiting| waiting.task == task)
    }

    pub fn wake(&mut self, ctx: usize, span: Span) {
        let ctx = &mut self.contexts[ctx];
        ctx.unread.retain(|waiting| !span.cells().contains(&waiting.cell));
        ctx.read.retain(|waiting| !span.cells().contains(&waiting.cell));
    }

    /// The page of the object at the cell's offset; `Err` past the end of the object.
    fn cached(&self, area: &Area) -> Result<Option<PageId>, ()> {
        match area.object() {
            None => Ok(None),
            Some((object, offset)) if offset >= self.objects[object].size => Err(()),
            Some((object, offset)) => Ok(self.objects[object].pages[offset]),
        }
    }

    /// Whether all cells of `span` belong to one area.
    fn one_area(&self, space: usize, span: Span) -> Option<Area> {
        let first = self.spaces[space][span.0].area?;
        let mut expected = first;
        for cell in span.cells() {
            let parted = cell != span.0 && self.begins[space][cell];
            if parted || self.spaces[space][cell].area != Some(expected) {
                return None;
            }
            expected = expected.next();
        }
        Some(first)
    }

    /// The second space becomes a copy of the first, without registrations. Of areas without pages of their own, which `plain`
    /// says of cells, nothing is copied: what is in them is found again.
    pub fn fork(&mut self, plain: impl Fn(usize) -> bool) {
        for number in 0..CELLS {
            let parent = &mut self.spaces[0][number];
            let mut child = Cell {
                content: match parent.content {
                    Content::Marked => Content::Nothing,
                    _ if plain(number) => Content::Nothing,
                    content => content,
                },
                protected: false,
                ..*parent
            };
            if let Some(area) = &mut child.area {
                area.owner = None;
            }
            if matches!(child.content, Content::Page(_)) {
                child.forked = true;
                parent.forked = true;
            }
            self.spaces[1][number] = child;
        }
    }

    /// Drops what the cells of `span` hold, poison too.
    pub fn discard(&mut self, space: usize, span: Span) {
        for cell in &mut self.spaces[space][span.cells()] {
            cell.empty();
        }
    }
}
