//! What stage 2 costs, measured by a guest: from the touch to its next instruction.
//!
//! The guest's own memory is populated on the host's side and mapped at stage 2 before anything is measured, so that a sample
//! is one fault of the region and nothing else. The guest has no timer; the host's ticks are in the figures where they come.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use hv::bitmap::Bitmap;
use hv::fpu::AREA;
use hv::hypercall::Telling;
use hv::memory::{AccessError, GuestMemory};
use hv::memslot::{SlotError, SlotRequest};
use hv::state::{Registers, SystemState, TableRegister};
use hv::userfault::{Delivery, MemoryFault, Userfaults};
use hv::vcpu::{Image, Stop, Timer, Vcpu};
use hv::vendor::{Features, Vendor};
use hv::vm::Vm;
use kernel::lab::samples::Samples;
use kernel::mm::addr::{GuestPhysAddr, PAGE_SIZE, VirtAddr};
use kernel::mm::cache::Object;
use kernel::mm::memtype::anon::ANON;
use kernel::mm::memtype::guest_memfd::GUEST_MEMFD;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::pt::Prot;
use kernel::mm::range::{GuestRange, VirtRange};
use kernel::mm::space::{MapError, MapRequest, Memory, Privilege, Space};
use kernel::mm::uaccess;
use kernel::task::spawn::{SpawnError, spawn_returning};
use kernel::uffd::{
    Event, FillMode, Modes, Outcome, ReadError, RegisterError, TrapKind, Uffd, WriteProtectError,
};

use self::probe::{Entry, Handler};

mod probe;
mod rows;

pub use rows::{Row, rows};

/// RFLAGS without interrupts, and with them.
const CLOSED: u64 = 2;
const OPEN: u64 = 0x202;
/// A page-table entry: present, writable, accessed, dirty; and large.
const ENTRY: u64 = 0x63;
const LARGE: u64 = 0x80;
/// Descriptors of 64-bit code and of data, both for privilege level 0.
const CODE_SEGMENT: u64 = 0x00af_9b00_0000_ffff;
const DATA_SEGMENT: u64 = 0x00cf_9300_0000_ffff;
/// #VE.
const VIOLATION_EXCEPTION: u64 = 20;
/// How the probe spells hypercalls.
const VMMCALL: [u8; 3] = [0x0f, 0x01, 0xd9];
/// Bytes of the guest's own memory.
const OWN: u64 = 16 << 20;
/// Most pages of a measurement: their figures lie in the guest's own memory.
pub const MAX_PAGES: u64 = (OWN - probe::RESULTS) / 8;

/// Why something could not be measured.
#[derive(Debug)]
pub enum GuestCostError {
    /// No region.
    Map(MapError),
    /// The channel refused the region.
    Register(RegisterError),
    /// Write protection did not change.
    Protect(WriteProtectError),
    /// No task.
    Spawn(SpawnError),
    /// No slot.
    Slot(SlotError),
    /// No frames for the guest.
    OutOfFrames,
    /// The guest's memory could not be reached.
    Access(AccessError),
    /// The host's own touch failed.
    Touch(uaccess::AccessError),
    /// A fill was not done.
    Fill(Outcome),
    /// The guest stopped for another reason than to be measured.
    Stopped(String),
    /// The owner could not write into the object.
    Write,
    /// Another number of faults was served than there were touches.
    Served {
        /// Faults.
        faults: u64,
        /// Touches.
        touches: u64,
    },
}

impl fmt::Display for GuestCostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map(error) => write!(f, "no region: {error:?}"),
            Self::Register(error) => write!(f, "the region could not be registered: {error:?}"),
            Self::Protect(error) => write!(f, "write protection did not change: {error:?}"),
            Self::Spawn(error) => write!(f, "no task: {error}"),
            Self::Slot(error) => error.fmt(f),
            Self::OutOfFrames => f.write_str("no frames for the guest"),
            Self::Access(error) => error.fmt(f),
            Self::Touch(error) => error.fmt(f),
            Self::Fill(outcome) => write!(f, "a fill was not done: {outcome:?}"),
            Self::Stopped(why) => f.write_str(why),
            Self::Write => f.write_str("the object could not be written"),
            Self::Served { faults, touches } => write!(f, "{touches} touches, but {faults} faults"),
        }
    }
}

/// What is behind the region, and who serves it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scene {
    /// Nothing is touched: the owner is called.
    Call,
    /// The host has touched all of it.
    Present,
    /// Anonymous memory that nobody has touched.
    Anonymous,
    /// The same, registered for MISSING; a monitor task copies.
    Missing,
    /// Shared memory whose pages are in the cache, registered for MINOR; a monitor task continues.
    Minor,
    /// Memory that the host has touched and protected; a monitor task ends the protection.
    Protected,
    /// A guest_memfd with a userfault bitmap: the owner writes into the object and clears the bit.
    ExitMissing,
    /// The same, with the pages in the cache: the owner clears the bit.
    ExitMinor,
    /// A guest_memfd with a userfault bitmap: the guest's own handler copies.
    InjectMissing,
    /// The same, told by #VE.
    ExceptionMissing,
    /// The same, with the pages in the cache: the guest's own handler switches to the view in which they are there.
    ExceptionCached,
}

impl Scene {
    /// What of it is for the guest's monitor.
    fn delegated(self, region: GuestRange) -> GuestRange {
        match self.handler() {
            Some(_) => region,
            None => GuestRange::new(region.start, region.start),
        }
    }

    fn entry(self) -> Entry {
        match self {
            Self::Call => Entry::Call,
            Self::Minor | Self::ExitMinor => Entry::Load,
            Self::ExceptionCached => Entry::LoadInView,
            _ => Entry::Store,
        }
    }

    /// The guest's own monitor.
    fn handler(self) -> Option<Handler> {
        match self {
            Self::InjectMissing => Some(Handler::Copies),
            Self::ExceptionMissing => Some(Handler::CopiesOnException),
            Self::ExceptionCached => Some(Handler::Switches),
            _ => None,
        }
    }

    /// Whether a CPU with these features can do it.
    fn is_possible(self, features: &Features) -> bool {
        match self {
            Self::ExceptionMissing => features.violation_exceptions,
            Self::ExceptionCached => features.violation_exceptions && features.root_switching,
            _ => true,
        }
    }

    fn modes(self) -> Option<Modes> {
        match self {
            Self::Missing => Some(Modes::MISSING),
            Self::Minor => Some(Modes::MINOR),
            Self::Protected => Some(Modes::WP),
            _ => None,
        }
    }
}

/// Measures `scene` over so many pages, with guests of this vendor.
///
/// # Errors
/// See [`GuestCostError`].
pub fn measure<V: Vendor>(features: &Features, scene: Scene, pages: u64) -> Result<Samples, GuestCostError> {
    let stage = Stage::<V>::new(features, scene, pages)?;
    let space = Arc::clone(&stage.space);
    // The owner is a task of the space, as it would be on Linux.
    let owner = spawn_returning("owner", Some(space), move || stage.play()).map_err(GuestCostError::Spawn)?;
    owner
        .join()
        .map_err(|outcome| GuestCostError::Stopped(format!("the owner ended: {outcome:?}")))?
}

/// A guest, ready to be measured.
struct Stage<V: Vendor> {
    scene: Scene,
    pages: u64,
    space: Arc<Space>,
    memory: Arc<GuestMemory<V::Format>>,
    own: VirtRange,
    region: Option<VirtRange>,
    object: Option<Arc<Object>>,
    bitmap: Option<Arc<Bitmap>>,
}

impl<V: Vendor> Stage<V> {
    fn new(features: &Features, scene: Scene, pages: u64) -> Result<Self, GuestCostError> {
        let space = Space::new(Privilege::Kernel).map_err(|_| GuestCostError::OutOfFrames)?;
        let memory = GuestMemory::new(features).map_err(|_| GuestCostError::OutOfFrames)?;
        let own = map(&space, OWN, Memory::Own(&ANON))?;
        let mut stage = Self {
            scene,
            pages,
            space,
            memory,
            own,
            region: None,
            object: None,
            bitmap: None,
        };
        stage.show(GuestPhysAddr::new(0), own)?;
        match scene {
            Scene::Call => {}
            Scene::ExitMissing
            | Scene::ExitMinor
            | Scene::InjectMissing
            | Scene::ExceptionMissing
            | Scene::ExceptionCached => stage.show_object()?,
            Scene::Present | Scene::Anonymous | Scene::Missing | Scene::Minor | Scene::Protected => {
                stage.show_region()?;
            }
        }
        Ok(stage)
    }

    fn len(&self) -> u64 {
        self.pages * PAGE_SIZE
    }

    fn region_in_guest(&self) -> GuestRange {
        let start = GuestPhysAddr::new(probe::REGION);
        GuestRange::new(start, start + self.len())
    }

    fn show(&self, at: GuestPhysAddr, range: VirtRange) -> Result<(), GuestCostError> {
        self.add(SlotRequest::of_space(at, &self.space, range))
    }

    fn add(&self, request: SlotRequest) -> Result<(), GuestCostError> {
        self.memory.add(request).map(drop).map_err(GuestCostError::Slot)
    }

    fn show_region(&mut self) -> Result<(), GuestCostError> {
        let memory = match self.scene {
            Scene::Minor => {
                let object = Object::new(&SHMEM, self.len());
                write_all(&object, self.len())?;
                Memory::shared(&object)
            }
            _ => Memory::Own(&ANON),
        };
        let region = map(&self.space, self.len(), memory)?;
        self.show(self.region_in_guest().start, region)?;
        self.region = Some(region);
        Ok(())
    }

    fn show_object(&mut self) -> Result<(), GuestCostError> {
        let object = Object::new(&GUEST_MEMFD, self.len());
        if matches!(self.scene, Scene::ExitMinor | Scene::ExceptionCached) {
            write_all(&object, self.len())?;
        }
        let bitmap = Arc::new(Bitmap::new(self.pages).map_err(|_| GuestCostError::OutOfFrames)?);
        bitmap.set_all();
        let userfaults = Userfaults {
            bitmap: Arc::clone(&bitmap),
            delivery: Delivery::Exit,
        };
        let at = self.region_in_guest().start;
        self.add(SlotRequest::of_object(at, &object, Some(userfaults)))?;
        (self.object, self.bitmap) = (Some(object), Some(bitmap));
        Ok(())
    }

    /// Runs on a task of the space.
    fn play(self) -> Result<Samples, GuestCostError> {
        self.furnish()?;
        let console = Box::new(|_: &str| {});
        let delegated = self.scene.delegated(self.region_in_guest());
        let vm = Vm::<V>::new(Arc::clone(&self.memory), delegated, console);
        let mut vcpu = Vcpu::new(&vm, &self.start()).map_err(|_| GuestCostError::OutOfFrames)?;
        let served = match (self.scene.modes(), self.region) {
            (Some(modes), Some(region)) => self.with_monitor(modes, region, || self.run(&mut vcpu))?,
            _ => self.run(&mut vcpu)?,
        };
        let touches = match self.scene {
            Scene::Call | Scene::Present | Scene::Anonymous => 0,
            _ => self.pages,
        };
        let faults = served
            + vm.counters.injected.load(core::sync::atomic::Ordering::Relaxed)
            // Exceptions that the guest has counted.
            + vcpu.registers.r15;
        if faults != touches {
            return Err(GuestCostError::Served { faults, touches });
        }
        self.results()
    }

    /// Puts the guest's code and tables into its memory, and touches all of that, so that no sample holds a fault on it.
    fn furnish(&self) -> Result<(), GuestCostError> {
        let touch = |addr| uaccess::store(addr, 0).map_err(GuestCostError::Touch);
        touch_pages(self.own, touch)?;
        if let (Scene::Present | Scene::Protected, Some(region)) = (self.scene, self.region) {
            touch_pages(region, touch)?;
        }
        let mut code = probe::code().to_vec();
        let spelled: Vec<usize> = code
            .windows(3)
            .enumerate()
            .filter_map(|(at, bytes)| (bytes == VMMCALL).then_some(at))
            .collect();
        for at in spelled {
            code[at..at + 3].copy_from_slice(&V::HYPERCALL);
        }
        self.write(probe::CODE, &code)?;
        for (at, entry) in tables() {
            self.write(at, &entry.to_le_bytes())?;
        }
        for (at, descriptor) in [(8, CODE_SEGMENT), (16, DATA_SEGMENT)] {
            self.write(probe::GDT + at, &descriptor.to_le_bytes())?;
        }
        if let Some(handler) = self.scene.handler() {
            let vector = match handler {
                Handler::Copies => probe::VECTOR.into(),
                Handler::CopiesOnException | Handler::Switches => VIOLATION_EXCEPTION,
            };
            let gate = gate(probe::address_of_handler(handler));
            self.write(probe::IDT + vector * 16, &gate)?;
        }
        // At stage 2 too, which the first look of the guest would do otherwise.
        touch_pages(self.own, |addr| {
            let at = GuestPhysAddr::new(addr - self.own.start);
            match self.memory.touch(at, kernel::mm::fault::Access::Write) {
                hv::userfault::Outcome::Retry => Ok(()),
                why => Err(GuestCostError::Stopped(format!(
                    "the guest's own memory at {at}: {why}"
                ))),
            }
        })
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), GuestCostError> {
        self.memory
            .write(GuestPhysAddr::new(at), bytes)
            .map_err(GuestCostError::Access)
    }

    fn start(&self) -> Image {
        let injects = self.scene == Scene::InjectMissing;
        let registers = Registers {
            rdi: probe::REGION,
            rsi: probe::RESULTS,
            rcx: self.pages,
            rip: probe::address_of(self.scene.entry()),
            rsp: probe::STACK,
            rflags: if injects { OPEN } else { CLOSED },
            ..Registers::default()
        };
        Image {
            registers,
            system: SystemState {
                gdtr: TableRegister {
                    base: probe::GDT,
                    limit: 23,
                },
                idtr: TableRegister {
                    base: probe::IDT,
                    limit: 0xfff,
                },
                ..SystemState::long_mode(probe::TABLES)
            },
            fpu: [0; AREA],
            timer: Timer::default(),
            at_mark: false,
        }
    }

    /// Runs the guest to its end as its owner; comes to how many faults that has served.
    fn run(&self, vcpu: &mut Vcpu<V>) -> Result<u64, GuestCostError> {
        if let Some(handler) = self.scene.handler() {
            declare_monitor(vcpu, handler)?;
        }
        let mut served = 0;
        loop {
            match vcpu.run(u64::MAX) {
                Stop::Mark(_) => {}
                Stop::Exited(_) => return Ok(served),
                Stop::Userfault(fault) => {
                    self.serve(&fault)?;
                    served += 1;
                }
                other => return Err(GuestCostError::Stopped(stopped(other))),
            }
        }
    }

    /// The owner's answer to a fault on a guest_memfd.
    fn serve(&self, fault: &MemoryFault) -> Result<(), GuestCostError> {
        let (Some(object), Some(bitmap)) = (&self.object, &self.bitmap) else {
            return Err(GuestCostError::Stopped("a fault that nobody expects".to_string()));
        };
        if fault.kind == TrapKind::Missing {
            write_page(object, fault.offset)?;
        }
        bitmap.clear(fault.offset / PAGE_SIZE);
        Ok(())
    }

    /// Does `run` while a monitor task serves the region; comes to how many faults that was.
    fn with_monitor(
        &self,
        modes: Modes,
        region: VirtRange,
        run: impl FnOnce() -> Result<u64, GuestCostError>,
    ) -> Result<u64, GuestCostError> {
        let uffd = Arc::new(Uffd::new(&self.space, kernel::uffd::Features::empty()));
        uffd.register(region, modes).map_err(GuestCostError::Register)?;
        if modes == Modes::WP {
            uffd.write_protect(region).map_err(GuestCostError::Protect)?;
        }
        let (scene, channel) = (self.scene, Arc::clone(&uffd));
        let monitor = spawn_returning("monitor", None, move || serve_channel(scene, &channel))
            .map_err(GuestCostError::Spawn)?;
        uffd.attach_monitor(monitor.task());
        // The monitor gets as far as waiting for the first message.
        kernel::task::yield_now();
        let result = run();
        uffd.close();
        let served = monitor
            .join()
            .map_err(|outcome| GuestCostError::Stopped(format!("the monitor ended: {outcome:?}")))?;
        result.and(served)
    }

    fn results(&self) -> Result<Samples, GuestCostError> {
        let mut bytes = vec![0; (self.pages * 8) as usize];
        self.memory
            .read(GuestPhysAddr::new(probe::RESULTS), &mut bytes)
            .map_err(GuestCostError::Access)?;
        let mut samples = Samples::with_capacity(self.pages as usize);
        for word in bytes.as_chunks::<8>().0 {
            samples.record(u64::from_le_bytes(*word));
        }
        Ok(samples)
    }
}

/// What the guest would do first.
fn declare_monitor<V: Vendor>(vcpu: &mut Vcpu<V>, handler: Handler) -> Result<(), GuestCostError> {
    let by_exception = |views| Telling::Exceptions {
        info: GuestPhysAddr::new(probe::INFO),
        views,
    };
    let telling = match handler {
        Handler::Copies => Telling::Injected,
        Handler::CopiesOnException => by_exception(false),
        Handler::Switches => by_exception(true),
    };
    vcpu.declare_monitor_at(GuestPhysAddr::new(probe::RING), probe::VECTOR.into(), telling)
        .map_err(|status| GuestCostError::Stopped(format!("no monitor: {status:?}")))
}

/// The monitor task of a registered region.
fn serve_channel(scene: Scene, uffd: &Uffd) -> Result<u64, GuestCostError> {
    let source = vec![0x5a; PAGE_SIZE as usize];
    let mut served = 0;
    loop {
        match uffd.read_event() {
            Ok(Event::Pagefault { addr, .. }) => {
                let page = VirtRange::page(addr);
                let filled = |outcome| match outcome {
                    Outcome::Done => Ok(()),
                    other => Err(GuestCostError::Fill(other)),
                };
                match scene {
                    Scene::Missing => filled(uffd.copy(addr, &source, PAGE_SIZE, FillMode::empty()))?,
                    Scene::Minor => filled(uffd.cont(page, FillMode::empty()))?,
                    _ => uffd
                        .remove_write_protection(page, FillMode::empty())
                        .map_err(GuestCostError::Protect)?,
                }
                served += 1;
            }
            Err(ReadError::Closed | ReadError::Orphaned | ReadError::Fresh | ReadError::Interrupted) => {
                return Ok(served);
            }
            // The context asked for no other events.
            Ok(_) | Err(ReadError::WouldBlock | ReadError::NotAdmitted) => {}
        }
    }
}

fn stopped(stop: Stop) -> String {
    match stop {
        Stop::Broken(broken) => broken.to_string(),
        other => format!("the guest stopped: {other:?}"),
    }
}

fn map(space: &Arc<Space>, len: u64, memory: Memory) -> Result<VirtRange, GuestCostError> {
    let request = MapRequest {
        at: None,
        len,
        prot: Prot::READ | Prot::WRITE,
        memory,
    };
    space.map(request).map_err(GuestCostError::Map)
}

fn touch_pages(
    range: VirtRange,
    touch: impl Fn(VirtAddr) -> Result<(), GuestCostError>,
) -> Result<(), GuestCostError> {
    let mut at = range.start;
    while at < range.end {
        touch(at)?;
        at = at + PAGE_SIZE;
    }
    Ok(())
}

fn write_all(object: &Object, len: u64) -> Result<(), GuestCostError> {
    let mut offset = 0;
    while offset < len {
        write_page(object, offset)?;
        offset += PAGE_SIZE;
    }
    Ok(())
}

fn write_page(object: &Object, offset: u64) -> Result<(), GuestCostError> {
    static PAGE: [u8; PAGE_SIZE as usize] = [0x5a; PAGE_SIZE as usize];
    object.write(offset, &PAGE).1.map_err(|_| GuestCostError::Write)
}

/// Where which entries of the guest's page tables go: the first 2 GiB, one to one, in pages of 2 MiB.
fn tables() -> Vec<(u64, u64)> {
    let [root, upper, first] = [0, 1, 2].map(|number| probe::TABLES + number * PAGE_SIZE);
    let mut entries = vec![(root, upper | ENTRY)];
    for gib in 0..2 {
        let middle = first + gib * PAGE_SIZE;
        entries.push((upper + gib * 8, middle | ENTRY));
        for number in 0..512 {
            entries.push((middle + number * 8, (gib << 30 | number << 21) | ENTRY | LARGE));
        }
    }
    entries
}

/// An interrupt gate of 64-bit mode to `handler`, with interrupts off in it.
fn gate(handler: u64) -> [u8; 16] {
    let low = handler & 0xffff | 8 << 16 | 0x8e00 << 32 | (handler >> 16 & 0xffff) << 48;
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&low.to_le_bytes());
    bytes[8..].copy_from_slice(&(handler >> 32).to_le_bytes());
    bytes
}
