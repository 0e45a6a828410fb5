//! Does each operation to the real thing and to the model, and compares.

use std::sync::Arc;

use hv::bitmap::Bitmap;
use hv::fill::{Fill, FillError, Filled};
use hv::memslot::{Backing, SlotError, SlotId, SlotRequest};
use hv::soft::{self, Soft, SoftFormat};
use hv::userfault::{Delivery, Outcome, Userfaults};
use hv::vendor::{Features, Vendor};
use kernel::mm::addr::{GuestPhysAddr, PAGE_SIZE, Pfn};
use kernel::mm::cache::{Lookup, Object};
use kernel::mm::fault::Origin;
use kernel::mm::memtype::anon::ANON;
use kernel::mm::memtype::guest_memfd::GUEST_MEMFD;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::pt::{Entry, Prot};
use kernel::mm::range::{GuestRange, VirtRange};
use kernel::mm::space::{Memory, Space};
use kernel::mm::uaccess;

use crate::common::{Guest, RW, World, page, part};
use crate::model::{Answer, Model, SlotModel};
use crate::{Area, At, Op, PAGES};

const AREAS: [Area; 3] = [Area::Own, Area::Shared, Area::Direct];

/// Where the slot of an area begins.
fn slot_at(area: Area) -> GuestPhysAddr {
    GuestPhysAddr::new((area as u64 + 1) << 24)
}

fn gpa(at: At) -> GuestPhysAddr {
    slot_at(at.area) + at.page * PAGE_SIZE
}

fn pages_at(page: u64) -> GuestRange {
    GuestRange::page(gpa(At {
        area: Area::Direct,
        page,
    }))
}

struct Player<F: SoftFormat> {
    guests: [Guest<F>; 2],
    child: Option<Arc<Space>>,
    slots: [Option<SlotId>; 3],
    ranges: [VirtRange; 3],
    objects: [Option<Arc<Object>>; 3],
    bitmap: Arc<Bitmap>,
    world: World<F>,
    model: Model,
}

pub fn play<F: SoftFormat>(ops: &[Op], by_dirty_bit: bool) {
    let mut player = Player::<F>::new(by_dirty_bit);
    for area in AREAS {
        player.add(area, false, true);
    }
    for op in ops {
        player.step(*op);
        player.check_leaves();
    }
    player.check_words();
}

impl<F: SoftFormat> Player<F> {
    fn new(by_dirty_bit: bool) -> Self {
        let world = World::<F>::with(&Features {
            accessed_dirty: by_dirty_bit,
            ..Soft::<F>::enable().expect("it is there")
        });
        let shared = Object::new(&SHMEM, PAGES * PAGE_SIZE);
        let direct = Object::new(&GUEST_MEMFD, PAGES * PAGE_SIZE);
        let ranges = [
            world.map_memory(Memory::Own(&ANON), PAGES),
            world.map_memory(Memory::shared(&shared), PAGES),
            world.map_memory(Memory::shared(&direct), PAGES),
        ];
        let guest = || {
            let mut guest = world.guest();
            guest.vcpu.notes_use = by_dirty_bit;
            guest
        };
        Self {
            guests: [guest(), guest()],
            child: None,
            slots: [None; 3],
            ranges,
            objects: [None, Some(shared), Some(direct)],
            bitmap: Arc::new(Bitmap::new(PAGES).expect("memory is plenty")),
            world,
            model: Model::default(),
        }
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::GuestLoad { vcpu, at } => {
                let seen = self.guests[vcpu].execute(soft::Op::Load(gpa(at).as_u64()));
                assert_eq!(answer(seen), self.model.guest(at, None));
            }
            Op::GuestStore { vcpu, at, value } => {
                let done = self.guests[vcpu].execute(soft::Op::Store(gpa(at).as_u64(), value));
                match self.model.guest(at, Some(value)) {
                    Answer::Word(_) => assert!(done.is_ok(), "{done:?}"),
                    expected => assert_eq!(answer(done), expected),
                }
            }
            Op::HostLoad(at) => {
                let addr = page(self.ranges[at.area as usize], at.page);
                let seen = self.world.run(|| uaccess::load(addr)).map_err(|error| error.why);
                assert_eq!(seen, self.model.host(at, None));
            }
            Op::HostStore { at, value } => {
                let addr = page(self.ranges[at.area as usize], at.page);
                let done = self.world.run(|| uaccess::store(addr, value));
                let expected = self.model.host(at, Some(value)).map(drop);
                assert_eq!(done.map_err(|error| error.why), expected);
            }
            Op::Drop(at) => self.drop_page(at),
            Op::Protect { page, writable } => {
                let range = part(self.ranges[0], page, 1);
                let prot = if writable { RW } else { Prot::READ };
                self.world.space.protect(range, prot).expect("it is mapped");
                self.model.protect(page, writable);
            }
            Op::Fork => {
                self.child = Some(self.world.space.fork().expect("RAM is plenty"));
                self.model.fork();
            }
            Op::EndChild => {
                self.check_child();
                (self.child, self.model.child) = (None, None);
            }
            Op::Delegate(page) => {
                self.world.memory.delegate(pages_at(page));
                self.model.delegate(page);
            }
            Op::ClearBit(page) => assert_eq!(self.bitmap.clear(page), self.model.clear_bit(page)),
            Op::Copy { .. } | Op::Continue(_) | Op::Poison(_) => self.fill(op),
            _ => self.change_slot(op),
        }
    }

    fn drop_page(&mut self, at: At) {
        match &self.objects[at.area as usize] {
            None => {
                let range = part(self.ranges[0], at.page, 1);
                self.world.space.discard(range).expect("it is mapped");
            }
            Some(object) => object.punch(at.page * PAGE_SIZE, PAGE_SIZE).expect("it can"),
        }
        self.model.drop_page(at);
    }

    fn fill(&mut self, op: Op) {
        if self.slots[Area::Direct as usize].is_none() {
            return;
        }
        let memory = &self.world.memory;
        let (expected, filled) = match op {
            Op::Copy { page, value } => {
                let bytes: Vec<u8> = value.to_ne_bytes().into_iter().chain([0; 4088]).collect();
                let filled = memory.fill(pages_at(page), Fill::Bytes(&bytes));
                let stop = (!self.model.copy(page, value)).then_some(FillError::Exists);
                (stop, filled)
            }
            Op::Continue(page) => {
                let filled = memory.fill(pages_at(page), Fill::Continue);
                let stop = match self.model.cont(page) {
                    None => Some(FillError::Absent),
                    Some(true) => None,
                    Some(false) => Some(FillError::Exists),
                };
                (stop, filled)
            }
            Op::Poison(page) => {
                let mapped = memory.stage2().entry(pages_at(page).start).0.is_leaf();
                let filled = memory.fill(pages_at(page), Fill::Poison);
                if !mapped {
                    self.model.poison(page);
                }
                (mapped.then_some(FillError::Exists), filled)
            }
            _ => unreachable!("no fill"),
        };
        let bytes = if expected.is_none() { PAGE_SIZE } else { 0 };
        let stop = expected;
        assert_eq!(filled, Filled { bytes, stop });
    }

    fn change_slot(&mut self, op: Op) {
        let memory = &self.world.memory;
        let of = |area: Area| self.slots[area as usize];
        match op {
            Op::Remove(area) => {
                if let Some(slot) = of(area) {
                    assert_eq!(memory.remove(slot), Ok(()));
                    self.slots[area as usize] = None;
                    self.model.remove(area);
                }
            }
            Op::Add {
                area,
                read_only,
                log_dirty,
            } => self.add(area, read_only, log_dirty),
            Op::ReadOnly { area, on } => {
                if let (Some(slot), Some(model)) = (of(area), &mut self.model.slots[area as usize]) {
                    assert_eq!(memory.set_read_only(slot, on), Ok(()));
                    model.read_only = on;
                }
            }
            Op::Log { area, on } => {
                if let (Some(slot), Some(model)) = (of(area), &mut self.model.slots[area as usize]) {
                    assert_eq!(memory.set_logging(slot, on), Ok(()));
                    if on != model.log.is_some() {
                        model.log = on.then(Default::default);
                    }
                }
            }
            Op::TakeDirty(area) => {
                if let (Some(slot), Some(model)) = (of(area), &mut self.model.slots[area as usize]) {
                    let seen = memory.take_dirty(slot).expect("memory is plenty");
                    let bits = |log: &mut std::collections::BTreeSet<u64>| {
                        let word = log.iter().fold(0, |word, page| word | 1 << page);
                        log.clear();
                        vec![word]
                    };
                    assert_eq!(seen, model.log.as_mut().map(bits));
                }
            }
            _ => unreachable!("no slot is changed"),
        }
    }

    fn add(&mut self, area: Area, read_only: bool, log_dirty: bool) {
        let backing = match (area, &self.objects[area as usize]) {
            (Area::Direct, Some(object)) => Backing::Object {
                object: Arc::clone(object),
                offset: 0,
                userfaults: Some(Userfaults {
                    bitmap: Arc::clone(&self.bitmap),
                    delivery: Delivery::Exit,
                }),
            },
            _ => Backing::Space {
                space: Arc::clone(&self.world.space),
                addr: self.ranges[area as usize].start,
            },
        };
        let added = self.world.memory.add(SlotRequest {
            at: slot_at(area),
            len: PAGES * PAGE_SIZE,
            backing,
            read_only,
            log_dirty,
        });
        if let Some(there) = self.slots[area as usize] {
            assert_eq!(added, Err(SlotError::Overlaps(there)));
            return;
        }
        self.slots[area as usize] = Some(added.expect("the place is free"));
        self.model.slots[area as usize] = Some(SlotModel {
            read_only,
            log: log_dirty.then(Default::default),
        });
    }

    /// The page that backs a page of a slot now, and what the host may do with it.
    fn backing(&self, at: At) -> Option<(Pfn, Prot)> {
        if at.area == Area::Direct {
            let object = self.objects[at.area as usize].as_ref()?;
            return match object.lookup(at.page * PAGE_SIZE) {
                Lookup::Present(folio) => Some((folio.pfn(), RW)),
                Lookup::Absent | Lookup::BeyondEnd => None,
            };
        }
        match self
            .world
            .space
            .entry(page(self.ranges[at.area as usize], at.page))
            .0
        {
            Entry::Leaf(leaf) => Some((leaf.frame, leaf.prot & RW)),
            Entry::Absent(_) | Entry::Table(_) => None,
        }
    }

    /// Every leaf leads to what backs its page now, and allows no more.
    fn check_leaves(&self) {
        for area in AREAS {
            for page in 0..PAGES {
                let at = At { area, page };
                let root = self.world.memory.root();
                let Some(found) = soft::walk::<F>(root, gpa(at).as_u64()) else {
                    continue;
                };
                let slot = self.model.slots[area as usize].as_ref();
                let slot = slot.expect("a leaf where no slot is");
                let (frame, prot) = self.backing(at).expect("a leaf where nothing is");
                assert_eq!(Pfn::containing(found.page), frame, "{at:?}");
                let writable = found.prot.contains(Prot::WRITE);
                assert!(
                    !writable || (prot.contains(Prot::WRITE) && !slot.read_only),
                    "{at:?} may be written"
                );
            }
        }
    }

    fn check_child(&self) {
        let (Some(child), Some(words)) = (&self.child, self.model.child) else {
            return;
        };
        for (i, expected) in words.into_iter().enumerate() {
            let mut word = [0; 8];
            child
                .read_bytes(page(self.ranges[0], i as u64), &mut word, Origin::Kernel)
                .expect("it is mapped");
            assert_eq!(u64::from_ne_bytes(word), expected, "page {i} of the child");
        }
    }

    /// What everybody sees in the end.
    fn check_words(&mut self) {
        self.check_child();
        for area in AREAS {
            for page in 0..PAGES {
                let at = At { area, page };
                for vcpu in 0..2 {
                    self.step(Op::GuestLoad { vcpu, at });
                }
                self.step(Op::HostLoad(at));
            }
        }
    }
}

fn answer(result: Result<u64, Outcome>) -> Answer {
    match result {
        Ok(word) => Answer::Word(word),
        Err(Outcome::Unbacked) => Answer::Unbacked,
        Err(Outcome::ReadOnly) => Answer::ReadOnly,
        Err(Outcome::Delegated(fault)) => Answer::Delegated(fault.kind),
        Err(Outcome::Failed(why)) => Answer::Failed(why),
        Err(Outcome::Retry) => unreachable!("the guest retries"),
    }
}
