//! What is expected: words, bits and answers.

use std::collections::BTreeSet;

use kernel::mm::fault::FaultError;
use kernel::uffd::TrapKind;

use crate::{Area, At, PAGES};

const N: usize = PAGES as usize;

/// What a slot is.
#[derive(Clone, Default, Debug)]
pub struct SlotModel {
    pub read_only: bool,
    /// Pages that were stored to, if that is noted.
    pub log: Option<BTreeSet<u64>>,
}

/// What the guest is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    Word(u64),
    Unbacked,
    ReadOnly,
    Delegated(TrapKind),
    Failed(FaultError),
}

/// The memory.
#[derive(Clone, Default, Debug)]
pub struct Model {
    /// The words of the areas; `None` where an object has no page.
    words: [[Option<u64>; N]; 3],
    pub slots: [Option<SlotModel>; 3],
    /// Pages of [`Area::Own`] that may not be written.
    protected: [bool; N],
    /// Bits and poison of [`Area::Direct`]; poison is the slot's, and goes with it.
    delegated: [bool; N],
    poisoned: [bool; N],
    /// Pages of [`Area::Direct`] that the guest has mapped.
    pub child: Option<[u64; N]>,
}

impl Model {
    fn word(&mut self, at: At) -> &mut Option<u64> {
        &mut self.words[at.area as usize][at.page as usize]
    }

    fn slot(&mut self, area: Area) -> Option<&mut SlotModel> {
        self.slots[area as usize].as_mut()
    }

    /// An access of the guest; a store if there is a value.
    pub fn guest(&mut self, at: At, store: Option<u64>) -> Answer {
        let page = at.page as usize;
        match self.slot(at.area) {
            None => return Answer::Unbacked,
            Some(slot) if store.is_some() && slot.read_only => return Answer::ReadOnly,
            Some(_) => {}
        }
        match at.area {
            Area::Own if store.is_some() && self.protected[page] => {
                return Answer::Failed(FaultError::Forbidden);
            }
            Area::Direct if self.poisoned[page] => return Answer::Failed(FaultError::Poisoned),
            Area::Direct if self.delegated[page] => {
                return Answer::Delegated(match self.word(at) {
                    None => TrapKind::Missing,
                    Some(_) => TrapKind::Minor,
                });
            }
            _ => {}
        }
        if store.is_some()
            && let Some(log) = self.slot(at.area).and_then(|slot| slot.log.as_mut())
        {
            log.insert(at.page);
        }
        Answer::Word(self.touch(at, store))
    }

    /// An access of the host's.
    pub fn host(&mut self, at: At, store: Option<u64>) -> Result<u64, FaultError> {
        if at.area == Area::Own && store.is_some() && self.protected[at.page as usize] {
            return Err(FaultError::Forbidden);
        }
        Ok(self.touch(at, store))
    }

    fn touch(&mut self, at: At, store: Option<u64>) -> u64 {
        let word = self.word(at);
        let before = word.unwrap_or(0);
        *word = Some(store.unwrap_or(before));
        before
    }

    pub fn drop_page(&mut self, at: At) {
        *self.word(at) = None;
    }

    pub fn protect(&mut self, page: u64, writable: bool) {
        self.protected[page as usize] = !writable;
    }

    pub fn fork(&mut self) {
        self.child = Some(self.words[Area::Own as usize].map(|word| word.unwrap_or(0)));
    }

    pub fn remove(&mut self, area: Area) {
        self.slots[area as usize] = None;
        if area == Area::Direct {
            self.poisoned = [false; N];
        }
    }

    pub fn delegate(&mut self, page: u64) {
        if self.slots[Area::Direct as usize].is_some() {
            self.delegated[page as usize] = true;
        }
    }

    /// Returns whether it was set.
    pub fn clear_bit(&mut self, page: u64) -> bool {
        std::mem::take(&mut self.delegated[page as usize])
    }

    /// Whether the object has no such page, and has it now.
    pub fn copy(&mut self, page: u64, value: u64) -> bool {
        let at = At {
            area: Area::Direct,
            page,
        };
        let absent = self.word(at).is_none();
        if absent {
            *self.word(at) = Some(value);
            self.delegated[page as usize] = false;
            self.poisoned[page as usize] = false;
        }
        absent
    }

    /// Whether the object has the page; and then, whether it was delegated.
    pub fn cont(&mut self, page: u64) -> Option<bool> {
        let at = At {
            area: Area::Direct,
            page,
        };
        (*self.word(at))?;
        self.poisoned[page as usize] = false;
        Some(self.clear_bit(page))
    }

    pub fn poison(&mut self, page: u64) {
        self.poisoned[page as usize] = true;
        self.delegated[page as usize] = false;
    }
}
