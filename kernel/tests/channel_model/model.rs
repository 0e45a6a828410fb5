//! The model: arrays of cells, arrays of pages, and a pair of queues for each context.

use std::collections::{BTreeSet, VecDeque};

use kernel::mm::fault::FaultError;
use kernel::mm::pt::Prot;
use kernel::uffd::{FillMode, Modes, Outcome, Refusal, TrapKind, WriteProtectError};

use crate::ops::{
    BASE_CELLS, CELLS, CONTEXT_SPACES, Memory, OBJECTS, ObjectType, POOL, SPACES, Span, TASK_SPACES, granule,
};

/// A page: an index into [`Model::words`].
pub type PageId = usize;

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

    fn object(&self) -> Option<(usize, usize)> {
        match self.memory {
            Memory::Anonymous => None,
            Memory::Object(object, offset, _) => Some((object, offset)),
        }
    }

    fn ty(&self) -> Option<ObjectType> {
        self.object().map(|(object, _)| OBJECTS[object].0)
    }

    fn is_shared(&self) -> bool {
        matches!(self.memory, Memory::Object(_, _, true))
    }

    /// The area of the cell that follows, if the two could be one.
    fn next(self) -> Self {
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

    fn can(&self, fill: &Fill) -> bool {
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

    fn is_absent(&self) -> bool {
        matches!(self.content, Content::Nothing | Content::Marked)
    }

    fn put(&mut self, content: Content, protected: bool) {
        self.content = content;
        self.protected = protected;
        self.forked = false;
    }

    /// The page goes, or the protection of one that was not there: remembered in mappings of objects that are
    /// registered for it.
    fn empty(&mut self) {
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

    fn protect(&mut self, absent_too: bool) {
        match self.content {
            Content::Zeros | Content::Page(_) => self.protected = true,
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

/// An object: how many cells it has, and the pages of some of them.
#[derive(Clone, Debug)]
pub struct Object {
    pub size: usize,
    pub pages: Vec<Option<PageId>>,
}

/// What a fill puts into cells.
pub enum Fill {
    /// Pages that begin with these words; cells past the last have no source.
    Copy(Vec<u64>),
    Zero,
    Continue,
    Poison,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Touched {
    Resolved,
    Delegated,
    SelfFault,
    Failed(FaultError),
}

pub struct Model {
    pub spaces: [[Cell; CELLS]; SPACES],
    pub objects: Vec<Object>,
    pub contexts: Vec<Queues>,
    /// The word that each page begins with.
    pub words: Vec<u64>,
}

impl Model {
    pub fn new() -> Self {
        let objects = OBJECTS.map(|(_, size)| Object {
            size,
            pages: vec![None; crate::ops::MAX_OBJECT_CELLS],
        });
        Self {
            spaces: [[Cell::UNMAPPED; CELLS]; SPACES],
            objects: objects.to_vec(),
            contexts: vec![Queues::default(); CONTEXT_SPACES.len()],
            words: Vec::new(),
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

    /// The outcome of the next look at a fault; the fault is queued if it is delegated.
    pub fn touch(&mut self, task: usize, number: usize, store: bool) -> Touched {
        let cell = self.spaces[TASK_SPACES[task]][number];
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
        let (Some(kind), Some(Owner { ctx, .. })) = (kind, area.owner) else {
            let starved =
                number >= BASE_CELLS && self.takes_a_page(&cell, &area, store) && self.pool_is_empty();
            return if starved {
                Touched::Failed(FaultError::PoolEmpty)
            } else {
                Touched::Resolved
            };
        };
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
        let keeps = stored.is_none() && cell.content == Content::Marked && area.modes().contains(Modes::WP);
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
                let page = if own { page } else { self.page(0) };
                self.words[page] = word;
                Content::Page(page)
            }
            (_, Some(word)) => Content::Page(self.page(word)),
        };
        self.spaces[space][number].put(content, keeps);
        self.word(content)
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

    /// Whether all cells of `span` belong to one area.
    fn one_area(&self, space: usize, span: Span) -> Option<Area> {
        let first = self.spaces[space][span.0].area?;
        let mut expected = first;
        for cell in &self.spaces[space][span.cells()] {
            if cell.area != Some(expected) {
                return None;
            }
            expected = expected.next();
        }
        Some(first)
    }

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
                Err(()) => Err(Refusal::BeyondEnd),
                Ok(None) => Err(Refusal::NoPage),
                Ok(Some(_)) if !free => Err(Refusal::Exists),
                Ok(Some(page)) => Ok(Content::Page(page)),
            };
        }
        if !free {
            return Err(Refusal::Exists);
        }
        let cached = self.cached(&area).map_err(|()| Refusal::BeyondEnd)?;
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

    /// The second space becomes a copy of the first, without registrations.
    pub fn fork(&mut self) {
        for number in 0..CELLS {
            let parent = &mut self.spaces[0][number];
            let mut child = Cell {
                content: match parent.content {
                    Content::Marked => Content::Nothing,
                    _ if parent.area.is_some_and(|area| area.is_shared()) => Content::Nothing,
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

    /// Has every mapping of the object's cells from `first` to before `end` lose its pages, because a hole was punched or
    /// because the object was cut short. Private copies of base pages survive a hole, and so does poison there; protection
    /// survives all but the cutting of huge pages.
    fn take_away(&mut self, object: usize, first: usize, end: usize, shortened: bool) {
        let pages = self.objects[object].pages.clone();
        let everything = shortened || OBJECTS[object].0 == ObjectType::Huge;
        for cell in self.spaces.iter_mut().flatten() {
            let Some((_, offset)) = cell
                .area
                .and_then(|area| area.object())
                .filter(|found| found.0 == object)
            else {
                continue;
            };
            if !(first..end).contains(&offset) {
                continue;
            }
            let goes = match cell.content {
                Content::Page(page) => everything || pages.contains(&Some(page)),
                Content::Poisoned => everything,
                _ => true,
            };
            if goes && shortened && OBJECTS[object].0 == ObjectType::Huge {
                cell.put(Content::Nothing, false);
            } else if goes {
                cell.empty();
            }
        }
    }

    /// Has the object stored to at a cell, if it has that.
    pub fn write(&mut self, object: usize, cell: usize, word: u64) {
        let page = match self.objects[object].pages[cell] {
            Some(page) => page,
            None => self.page(0),
        };
        self.words[page] = word;
        self.objects[object].pages[cell] = Some(page);
        self.objects[object].size = self.objects[object].size.max(cell + 1);
    }

    pub fn punch(&mut self, object: usize, first: usize, cells: usize) {
        let end = (first + cells).min(crate::ops::MAX_OBJECT_CELLS);
        self.take_away(object, first, end, false);
        self.objects[object].pages[first.min(end)..end].fill(None);
    }

    pub fn truncate(&mut self, object: usize, size: usize) {
        if size <= self.objects[object].size {
            self.take_away(object, size, usize::MAX, true);
            self.objects[object].pages[size..].fill(None);
        }
        self.objects[object].size = size;
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
