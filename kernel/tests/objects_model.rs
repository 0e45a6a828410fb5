//! A memory object, a shared and a private mapping of it, against a model that is obviously right: pages in vectors.

mod common;

use std::sync::Arc;

use common::{RW, World, page};
use kernel::arch::host::Config;
use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::cache::Object;
use kernel::mm::fault::FaultError;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::range::VirtRange;
use kernel::mm::space::{Memory, Privilege};
use kernel::mm::uaccess;
use proptest::prelude::*;

const P: usize = PAGE_SIZE as usize;
/// Pages of the mappings; the object may be longer or shorter.
const PAGES: usize = 6;
/// The model knows this much.
const MOST: usize = 9;

/// Which mapping an access goes through.
#[derive(Clone, Copy, Debug)]
enum Through {
    Shared,
    Private,
}

#[derive(Clone, Debug)]
enum Step {
    Write {
        at: usize,
        len: usize,
        byte: u8,
    },
    Read {
        at: usize,
        len: usize,
    },
    Allocate {
        at: usize,
        len: usize,
        keep: bool,
    },
    Punch {
        at: usize,
        len: usize,
    },
    Truncate {
        size: usize,
    },
    Load {
        through: Through,
        word: usize,
    },
    Store {
        through: Through,
        word: usize,
        value: u64,
    },
}

/// Offsets that like the ends of pages.
fn offset() -> impl Strategy<Value = usize> {
    let near = |page: usize, off: isize| (page * P).saturating_add_signed(off).min(MOST * P);
    prop_oneof![
        (0..=MOST, -9..9_isize).prop_map(move |(page, off)| near(page, off)),
        0..MOST * P,
    ]
}

fn span() -> impl Strategy<Value = (usize, usize)> {
    (offset(), offset())
        .prop_map(|(one, two)| (one.min(two), one.abs_diff(two)))
        .prop_filter("not empty", |(_, len)| *len > 0)
}

fn step() -> impl Strategy<Value = Step> {
    let through = || prop_oneof![Just(Through::Shared), Just(Through::Private)];
    let word =
        || (0..PAGES, prop_oneof![0..3_usize, 509..512_usize]).prop_map(|(page, word)| page * P + word * 8);
    prop_oneof![
        3 => (span(), any::<u8>()).prop_map(|((at, len), byte)| Step::Write { at, len, byte }),
        2 => span().prop_map(|(at, len)| Step::Read { at, len }),
        1 => (span(), any::<bool>()).prop_map(|((at, len), keep)| Step::Allocate { at, len, keep }),
        2 => span().prop_map(|(at, len)| Step::Punch { at, len }),
        2 => offset().prop_map(|size| Step::Truncate { size }),
        3 => (through(), word()).prop_map(|(through, word)| Step::Load { through, word }),
        4 => (through(), word(), any::<u64>())
            .prop_map(|(through, word, value)| Step::Store { through, word, value }),
    ]
}

/// A page; `None`: a hole, or no copy.
type Page = Option<Box<[u8; P]>>;

fn zeros() -> Box<[u8; P]> {
    Box::new([0; P])
}

struct Model {
    size: usize,
    pages: [Page; MOST],
    copies: [Page; PAGES],
}

impl Model {
    fn new(size: usize) -> Self {
        Self {
            size,
            pages: Default::default(),
            copies: Default::default(),
        }
    }

    fn resident(&self) -> usize {
        self.pages.iter().flatten().count() * P
    }

    fn write(&mut self, at: usize, len: usize, byte: u8) {
        for i in at..at + len {
            self.pages[i / P].get_or_insert_with(zeros)[i % P] = byte;
        }
        self.size = self.size.max(at + len);
    }

    fn read(&self, at: usize, len: usize) -> Vec<u8> {
        let byte = |i: usize| self.pages[i / P].as_ref().map_or(0, |page| page[i % P]);
        (at..(at + len).min(self.size)).map(byte).collect()
    }

    fn zero(&mut self, at: usize, end: usize) {
        for i in at..end {
            if let Some(page) = &mut self.pages[i / P] {
                page[i % P] = 0;
            }
        }
    }

    fn allocate(&mut self, at: usize, len: usize, keep: bool) {
        for page in at / P..(at + len).div_ceil(P) {
            self.pages[page].get_or_insert_with(zeros);
        }
        if !keep {
            self.size = self.size.max(at + len);
        }
    }

    fn punch(&mut self, at: usize, len: usize) {
        self.zero(at, at + len);
        for page in at.div_ceil(P)..(at + len) / P {
            self.pages[page] = None;
        }
    }

    fn truncate(&mut self, size: usize) {
        if size <= self.size {
            let kept = size.div_ceil(P);
            self.zero(size, kept * P);
            self.pages[kept..].fill_with(|| None);
            if kept < PAGES {
                self.copies[kept..].fill_with(|| None);
            }
        }
        self.size = size;
    }

    /// The page that an access finds; `None` past the end. A hole becomes a page, whoever touches it.
    fn touched(&mut self, through: Through, word: usize, write: bool) -> Option<&mut [u8; P]> {
        let index = word / P;
        if index * P >= self.size {
            return None;
        }
        if let (Through::Private, Some(_)) = (through, &self.copies[index]) {
            return self.copies[index].as_deref_mut();
        }
        let page = self.pages[index].get_or_insert_with(zeros);
        match through {
            Through::Private if write => {
                self.copies[index] = Some(page.clone());
                self.copies[index].as_deref_mut()
            }
            _ => Some(page),
        }
    }

    fn load(&mut self, through: Through, word: usize) -> Result<u64, FaultError> {
        let page = self.touched(through, word, false).ok_or(FaultError::BeyondEnd)?;
        let bytes = page[word % P..][..8].try_into().expect("eight");
        Ok(u64::from_ne_bytes(bytes))
    }

    fn store(&mut self, through: Through, word: usize, value: u64) -> Result<(), FaultError> {
        let page = self.touched(through, word, true).ok_or(FaultError::BeyondEnd)?;
        page[word % P..][..8].copy_from_slice(&value.to_ne_bytes());
        Ok(())
    }
}

struct Real {
    object: Arc<Object>,
    shared: VirtRange,
    private: VirtRange,
}

impl Real {
    fn addr(&self, through: Through, word: usize) -> kernel::mm::addr::VirtAddr {
        let range = match through {
            Through::Shared => self.shared,
            Through::Private => self.private,
        };
        page(range, 0) + word as u64
    }
}

fn play(real: &Real, model: &mut Model, step: &Step) -> Result<(), TestCaseError> {
    let object = &real.object;
    match *step {
        Step::Write { at, len, byte } => {
            model.write(at, len, byte);
            prop_assert_eq!(object.write(at as u64, &vec![byte; len]), (len as u64, Ok(())));
        }
        Step::Read { at, len } => {
            let mut bytes = vec![0xEE; len];
            let got = object.read(at as u64, &mut bytes);
            prop_assert!(bytes[..got] == model.read(at, len), "other bytes");
        }
        Step::Allocate { at, len, keep } => {
            model.allocate(at, len, keep);
            prop_assert_eq!(object.allocate(at as u64, len as u64, keep), Ok(()));
        }
        Step::Punch { at, len } => {
            model.punch(at, len);
            prop_assert_eq!(object.punch(at as u64, len as u64), Ok(()));
        }
        Step::Truncate { size } => {
            model.truncate(size);
            prop_assert_eq!(object.truncate(size as u64), Ok(()));
        }
        Step::Load { through, word } => {
            let got = uaccess::load(real.addr(through, word)).map_err(|error| error.why);
            prop_assert_eq!(got, model.load(through, word));
        }
        Step::Store { through, word, value } => {
            let got = uaccess::store(real.addr(through, word), value).map_err(|error| error.why);
            prop_assert_eq!(got, model.store(through, word, value));
        }
    }
    prop_assert_eq!(object.size(), model.size as u64);
    prop_assert_eq!(object.resident(), model.resident() as u64);
    Ok(())
}

proptest! {
    #[test]
    fn an_object_and_its_mappings_behave_like_pages_in_vectors(
        size in offset(),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let world = World::with(Config { memory: 2 << 20 }, Privilege::Kernel);
        let object = Object::new(&SHMEM, size as u64);
        let map = |memory| world.map_memory(memory, None, PAGES as u64, RW);
        let real = Real {
            shared: map(Memory::shared(&object)),
            private: map(Memory::private(&object)),
            object,
        };
        let mut model = Model::new(size);
        world.run(|| steps.iter().try_for_each(|step| play(&real, &mut model, step)))?;
        let all = model.read(0, MOST * P);
        let mut bytes = vec![0xEE; MOST * P];
        let got = real.object.read(0, &mut bytes);
        prop_assert!(bytes[..got] == all, "other bytes in the end");
    }
}
