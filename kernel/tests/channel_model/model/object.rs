//! What becomes of memory objects, and of the cells that map them.

use super::{Content, Model, PageId};
use crate::ops::{MAX_OBJECT_CELLS, OBJECTS, ObjectType};

/// An object: how many cells it has, and the pages of some of them.
#[derive(Clone, Debug)]
pub struct Object {
    pub size: usize,
    pub pages: Vec<Option<PageId>>,
}

impl Model {
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
        let end = (first + cells).min(MAX_OBJECT_CELLS);
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
