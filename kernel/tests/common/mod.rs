//! A space in a software machine, tasks in it, and what a monitor sees of them.
#![allow(dead_code, reason = "every test file uses its own part")]

mod basics;
pub mod kinds;
pub mod moving;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use kernel::arch::host::{Config, Running, SoftMachine};
use kernel::mm::addr::{PAGE_SIZE, USER_TOP, VirtAddr};
use kernel::mm::fault::{Access, FaultError, FaultInfo, Origin, Verdict};
use kernel::mm::frame::{Kind, allocator};
use kernel::mm::memtype::{MemType, anon::ANON};
use kernel::mm::pressure::Shrinker;
use kernel::mm::pt::Prot;
use kernel::mm::range::VirtRange;
use kernel::mm::space::{MapRequest, Memory, Privilege, Space};
use kernel::mm::uaccess::{self, AccessError};
use kernel::task::Task;
use kernel::task::spawn::{JoinHandle, spawn_returning};
use kernel::uffd::{Event, Features, Modes, Outcome, ReadError, TrapKind, Uffd, linux};

pub use self::basics::*;

/// A machine with one address space. Fields are dropped in this order: the space before the machine that is checked then.
pub struct World {
    pub space: Arc<Space>,
    pub machine: Running,
}

impl World {
    /// 16 MiB of RAM and an empty space for kernel tasks.
    pub fn new() -> Self {
        Self::with(Config::default(), Privilege::Kernel)
    }

    /// The same, made to measure.
    pub fn with(config: Config, privilege: Privilege) -> Self {
        let machine = SoftMachine::start(config);
        let space = Space::new(privilege).expect("RAM is plenty");
        Self { space, machine }
    }

    /// Maps anonymous memory of so many pages somewhere.
    pub fn map(&self, pages: u64, prot: Prot) -> VirtRange {
        self.map_at(None, pages, prot)
    }

    /// Maps anonymous memory of so many pages.
    pub fn map_at(&self, at: Option<VirtAddr>, pages: u64, prot: Prot) -> VirtRange {
        self.map_type(&ANON, at, pages, prot)
    }

    /// Maps memory of a type that only the space has.
    pub fn map_type(&self, ty: &'static MemType, at: Option<VirtAddr>, pages: u64, prot: Prot) -> VirtRange {
        self.map_memory(Memory::Own(ty), at, pages, prot)
    }

    /// Maps any memory.
    pub fn map_memory(&self, memory: Memory, at: Option<VirtAddr>, pages: u64, prot: Prot) -> VirtRange {
        let request = MapRequest {
            at,
            len: pages * PAGE_SIZE,
            prot,
            memory,
        };
        self.space.map(request).expect("there is room")
    }

    /// What the page at `addr` is registered for, if it is.
    pub fn modes_at(&self, addr: VirtAddr) -> Option<Modes> {
        let registration = self.space.query(addr)?.uffd?;
        Some(registration.modes)
    }

    /// Runs `f` on this thread, as a task of the space.
    pub fn run<R>(&self, f: impl FnOnce() -> R) -> R {
        run_in(&self.space, f)
    }

    /// Starts a task in the space.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        spawn_returning(name, Some(Arc::clone(&self.space)), f).expect("the host has threads")
    }

    /// A task that waits for the page at `addr` to be there for a load, and that does nothing when it is woken: what woke
    /// it shows, and what did not.
    pub fn stuck_at(&self, addr: VirtAddr) -> Arc<Task> {
        self.stuck(addr, Access::Read)
    }

    /// A task that waits like one of [`Self::stuck_at`], but for a store.
    pub fn stuck_storing_at(&self, addr: VirtAddr) -> Arc<Task> {
        self.stuck(addr, Access::Write)
    }

    fn stuck(&self, addr: VirtAddr, access: Access) -> Arc<Task> {
        let task = Task::detached_in("stuck", Arc::clone(&self.space));
        let info = FaultInfo {
            addr,
            access,
            origin: Origin::Task,
        };
        let mut verdict = self.space.step(&info, &task);
        if matches!(verdict, Verdict::Retry) {
            // What was protected without a page has one now.
            verdict = self.space.step(&info, &task);
        }
        assert!(
            matches!(verdict, Verdict::Delegated),
            "{access:?} at {addr:?} is delegated"
        );
        task
    }

    /// Loads the word at `addr` in a task of its own; an access that waits fails the test instead of stopping it.
    #[track_caller]
    pub fn load(&self, addr: VirtAddr) -> Result<u64, FaultError> {
        returned(self.spawn_load(addr)).map_err(|error| error.why)
    }

    /// Stores a word at `addr` in a task of its own; an access that waits fails the test instead of stopping it.
    #[track_caller]
    pub fn store(&self, addr: VirtAddr, value: u64) -> Result<(), FaultError> {
        returned(self.spawn_store(addr, value)).map_err(|error| error.why)
    }

    /// Starts a task that loads the word at `addr`.
    pub fn spawn_load(&self, addr: VirtAddr) -> JoinHandle<Result<u64, AccessError>> {
        self.spawn("loader", move || uaccess::load(addr))
    }

    /// Starts a task that stores `value` at `addr`.
    pub fn spawn_store(&self, addr: VirtAddr, value: u64) -> JoinHandle<Result<(), AccessError>> {
        self.spawn("storer", move || uaccess::store(addr, value))
    }
}

/// A world with room for objects: 32 MiB of RAM, four huge pages of them in the pool.
pub fn object_world() -> World {
    let world = World::with(Config { memory: 32 << 20 }, Privilege::Kernel);
    allocator().reserve_huge(4).expect("RAM is plenty");
    world
}

/// A world with so many pages that are registered.
pub fn registered_with(pages: u64, modes: Modes, features: Features) -> (World, Uffd, VirtRange) {
    let world = World::new();
    let range = world.map(pages, RW);
    let uffd = Uffd::new(&world.space, features);
    uffd.register(range, modes).expect("anonymous memory can");
    (world, uffd, range)
}

/// A world with `pages` of memory with rights `prot`, registered for missing pages, and the context for tasks to share.
pub fn shared_with(pages: u64, prot: Prot, features: Features) -> (World, Arc<Uffd>, VirtRange) {
    let world = World::new();
    let range = world.map(pages, prot);
    let uffd = Uffd::new(&world.space, features);
    uffd.register(range, Modes::MISSING)
        .expect("anonymous memory can");
    (world, Arc::new(uffd), range)
}

/// The same with readable and writable memory and no features.
pub fn shared(pages: u64) -> (World, Arc<Uffd>, VirtRange) {
    shared_with(pages, RW, Features::empty())
}

/// Why an access failed, without where.
pub fn failed<T>(result: Result<T, AccessError>) -> Result<T, FaultError> {
    result.map_err(|error| error.why)
}

/// Stores 1, 2, ... at the start of pages 0, 1, ... of `range`.
pub fn populate(world: &World, range: VirtRange) {
    populate_in(&world.space, range);
}

/// Ranges that no operation on areas takes, whatever is mapped: nothing, one that is not aligned, and one above the top.
pub fn bad_ranges(good: VirtRange) -> [VirtRange; 3] {
    [
        VirtRange::new(good.start, good.start),
        VirtRange::new(good.start + 1, good.end),
        VirtRange::new(USER_TOP, USER_TOP + PAGE_SIZE),
    ]
}

/// Frames that tasks have in use.
pub fn anon_frames() -> u64 {
    allocator().stats().of(Kind::Anon)
}

/// Whether a task from [`World::stuck_at`] was woken.
pub fn was_woken(task: &Task) -> bool {
    let woken = !task.fault.is_waiting();
    assert_eq!(
        task.take_token(),
        woken,
        "a task that may go on has been told, and no other"
    );
    woken
}

/// A message about a missing page.
pub fn missing(addr: VirtAddr, write: bool) -> Result<Event, ReadError> {
    pagefault(TrapKind::Missing, addr, write)
}

/// A message about a store to a write-protected page.
pub fn write_protected(addr: VirtAddr) -> Result<Event, ReadError> {
    pagefault(TrapKind::WriteProtect, addr, true)
}

/// Result and output field of a fill's ioctl.
pub fn answer(outcome: Outcome, len: u64) -> (Option<i64>, Option<i64>) {
    let answer = linux::fill(outcome, len);
    (answer.result.err().map(|errno| errno.number()), answer.field)
}

/// Pages whose bytes are `first`, `first + 1`, ...
pub fn source(first: u8, pages: u64) -> Vec<u8> {
    (0..pages)
        .flat_map(|i| [first + i as u8; PAGE_SIZE as usize])
        .collect()
}

/// Somebody who ends an injected shortage of memory when asked for some.
#[derive(Default)]
pub struct Giver(AtomicU64);

impl Giver {
    pub fn register() -> Arc<Self> {
        let giver = Arc::new(Self::default());
        let weak: Weak<dyn Shrinker> = Arc::<Self>::downgrade(&giver);
        kernel::mm::kernel::get().pressure.register(weak);
        giver
    }

    /// How often it was asked.
    pub fn asked(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Shrinker for Giver {
    fn shrink(&self, _frames: u64) -> u64 {
        allocator().stop_injection();
        self.0.fetch_add(1, Ordering::Relaxed);
        1
    }
}
