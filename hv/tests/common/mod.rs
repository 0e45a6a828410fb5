//! A guest on the software machine.
#![allow(dead_code, reason = "every test file uses its own part")]

#[path = "../../../kernel/tests/common/basics.rs"]
mod basics;

use std::sync::{Arc, Weak};

use hv::bitmap::Bitmap;
use hv::exit::Exit;
use hv::memory::GuestMemory;
use hv::memslot::{SlotId, SlotRequest};
use hv::soft::{Op, Soft, SoftFormat, SoftVcpu};
use hv::state::Registers;
use hv::userfault::{Delivery, Outcome, Userfaults};
use hv::vendor::{Features, Vendor};
use kernel::arch::host::{Config, Running, SoftMachine};
use kernel::mm::addr::{GuestPhysAddr, PAGE_SIZE};
use kernel::mm::cache::Object;
use kernel::mm::memtype::anon::ANON;
use kernel::mm::memtype::guest_memfd::GUEST_MEMFD;
use kernel::mm::range::{GuestRange, VirtRange};
use kernel::mm::space::{MapRequest, Memory, Privilege, Space};
use kernel::task::spawn::{JoinHandle, spawn_returning};
use kernel::uffd::{Event, Features as UffdFeatures, Flags, ReadError, TrapKind, Uffd};

pub use self::basics::*;

/// Where slots begin in the tests.
pub const AT: GuestPhysAddr = GuestPhysAddr::new(0x10_0000);

/// A machine with one address space and the memory of one guest. Fields are dropped in this order.
pub struct World<F: SoftFormat> {
    pub memory: Arc<GuestMemory<F>>,
    pub space: Arc<Space>,
    pub machine: Running,
}

impl<F: SoftFormat> World<F> {
    pub fn new() -> Self {
        Self::with(&Soft::<F>::enable().expect("it is there"))
    }

    pub fn with(features: &Features) -> Self {
        let machine = SoftMachine::start(Config { memory: 32 << 20 });
        let space = Space::new(Privilege::Kernel).expect("RAM is plenty");
        Self {
            memory: GuestMemory::new(features).expect("RAM is plenty"),
            space,
            machine,
        }
    }

    /// Maps anonymous memory of so many pages.
    pub fn map(&self, pages: u64) -> VirtRange {
        self.map_memory(Memory::Own(&ANON), pages)
    }

    pub fn map_memory(&self, memory: Memory, pages: u64) -> VirtRange {
        let request = MapRequest {
            at: None,
            len: pages * PAGE_SIZE,
            prot: RW,
            memory,
        };
        self.space.map(request).expect("there is room")
    }

    /// A slot at [`AT`] for all of `range`.
    pub fn show(&self, range: VirtRange) -> SlotId {
        self.memory
            .add(slot_of(&self.space, range))
            .expect("nothing is wrong with it")
    }

    /// Runs `f` on this thread, as a task of the space.
    pub fn run<R>(&self, f: impl FnOnce() -> R) -> R {
        run_in(&self.space, f)
    }

    /// Stores 1, 2, ... at the start of pages 0, 1, ... of `range`.
    pub fn populate(&self, range: VirtRange) {
        populate_in(&self.space, range);
    }

    pub fn guest(&self) -> Guest<F> {
        Guest::of(&self.memory)
    }
}

/// An object of guest memory with so many pages, and a slot at [`AT`] that delegates all of them.
pub fn delegating<F: SoftFormat>(
    world: &World<F>,
    pages: u64,
    delivery: Delivery,
) -> (Arc<Object>, Arc<Bitmap>, SlotId) {
    let object = Object::new(&GUEST_MEMFD, pages * PAGE_SIZE);
    let bitmap = Arc::new(Bitmap::new(pages).expect("memory is plenty"));
    bitmap.set_all();
    let slot = world.memory.add(delegated_slot(AT, &object, &bitmap, delivery));
    (object, bitmap, slot.expect("nothing is wrong with it"))
}

/// A slot at `at` for all of `object`, with what `bitmap` says delegated.
pub fn delegated_slot(
    at: GuestPhysAddr,
    object: &Arc<Object>,
    bitmap: &Arc<Bitmap>,
    delivery: Delivery,
) -> SlotRequest {
    let userfaults = Userfaults {
        bitmap: Arc::clone(bitmap),
        delivery,
    };
    SlotRequest::of_object(at, object, Some(userfaults))
}

/// A slot at [`AT`] for all of `object`.
pub fn slot_of_object(object: &Arc<Object>, userfaults: Option<Userfaults>) -> SlotRequest {
    SlotRequest::of_object(AT, object, userfaults)
}

/// A context that serves the guest's memory.
pub fn serving<F: SoftFormat>(world: &World<F>, features: UffdFeatures) -> Uffd {
    let weak: Weak<GuestMemory<F>> = Arc::downgrade(&world.memory);
    Uffd::for_guest(weak, Flags::empty(), features, kernel::uffd::Delivery::Queue)
}

/// A page of this byte.
pub fn bytes(byte: u8) -> Vec<u8> {
    vec![byte; PAGE_SIZE as usize]
}

/// A message about a page of the guest's.
pub fn guest_fault(kind: TrapKind, page: u64, write: bool) -> Result<Event, ReadError> {
    Ok(Event::GuestFault {
        kind,
        write,
        addr: gpa(page),
        thread: None,
    })
}

/// A slot at [`AT`] for all of `range`.
pub fn slot_of(space: &Arc<Space>, range: VirtRange) -> SlotRequest {
    SlotRequest::of_space(AT, space, range)
}

/// New memory of so many pages, and a slot at [`AT`] for it that is to be asked for.
pub fn request<F: SoftFormat>(world: &World<F>, pages: u64) -> (SlotRequest, VirtRange) {
    let range = world.map(pages);
    (slot_of(&world.space, range), range)
}

/// The address of page number `page` from [`AT`] on.
pub fn gpa(page: u64) -> GuestPhysAddr {
    AT + page * PAGE_SIZE
}

/// So many pages from page number `page` on.
pub fn gpages(page: u64, pages: u64) -> GuestRange {
    GuestRange::new(gpa(page), gpa(page + pages))
}

/// A vCPU, run as its owner would.
pub struct Guest<F: SoftFormat> {
    pub memory: Arc<GuestMemory<F>>,
    pub vcpu: SoftVcpu<F>,
    pub seen: u64,
    /// Violations so far.
    pub violations: u64,
}

impl<F: SoftFormat> Guest<F> {
    pub fn of(memory: &Arc<GuestMemory<F>>) -> Self {
        Self {
            memory: Arc::clone(memory),
            vcpu: Soft::<F>::create(memory.root()).expect("RAM is plenty"),
            seen: 0,
            violations: 0,
        }
    }

    /// Executes one step, with as many violations as that takes.
    pub fn execute(&mut self, op: Op) -> Result<u64, Outcome> {
        self.vcpu.script = vec![op];
        let mut registers = Registers::default();
        loop {
            let entered = self.memory.enter(&mut self.seen);
            let stopped = Soft::run(&mut self.vcpu, &mut registers, entered.flush);
            drop(entered);
            match stopped.exit {
                Exit::Halt { .. } => return Ok(registers.rax),
                Exit::Violation(violation) => {
                    self.violations += 1;
                    match self.memory.resolve(&violation) {
                        Outcome::Retry => {}
                        outcome => return Err(outcome),
                    }
                }
                exit => panic!("no guest here does that: {exit:?}"),
            }
        }
    }

    /// The same in a task of its own.
    pub fn spawn(mut self, op: Op) -> JoinHandle<Result<u64, Outcome>> {
        spawn_returning("vcpu", None, move || self.execute(op)).expect("the host has threads")
    }

    /// Starts a task whose guest loads the word at the start of page number `page`.
    pub fn spawn_load(self, page: u64) -> JoinHandle<Result<u64, Outcome>> {
        self.spawn(Op::Load(gpa(page).as_u64()))
    }

    /// Starts a task whose guest stores a word at the start of page number `page`.
    pub fn spawn_store(self, page: u64, value: u64) -> JoinHandle<Result<u64, Outcome>> {
        self.spawn(Op::Store(gpa(page).as_u64(), value))
    }

    /// Loads the word at the start of page number `page`.
    pub fn load(&mut self, page: u64) -> Result<u64, Outcome> {
        self.execute(Op::Load(gpa(page).as_u64()))
    }

    /// Stores a word at the start of page number `page`.
    pub fn store(&mut self, page: u64, value: u64) -> Result<(), Outcome> {
        self.execute(Op::Store(gpa(page).as_u64(), value)).map(|_| ())
    }
}

/// Runs a test body for both formats.
#[macro_export]
macro_rules! for_both {
    ($($(#[$attr:meta])* $name:ident)*) => {
        mod ept {
            $($(#[$attr])* #[test] fn $name() { super::$name::<hv::stage2::Ept>(); })*
        }
        mod npt {
            $($(#[$attr])* #[test] fn $name() { super::$name::<hv::stage2::Npt>(); })*
        }
    };
}
