//! Guests that deal with their violations by themselves: #VE, two views, and what both are told of.
//!
//! The guest is a script. Its handler begins at step [`HANDLER`]; what it read last is in RAX when it halts.

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::{World, bytes, delegated_slot, gpa, page, part, word};
use hv::bitmap::Bitmap;
use hv::memslot::SlotId;
use hv::soft::{Op, Soft, SoftFormat};
use hv::stage2::{DELEGATED, Ept, Npt, View};
use hv::state::{Registers, SystemState};
use hv::userfault::{Delivery, MemoryFault};
use hv::vcpu::{Fatal, Image, Stop, Vcpu};
use hv::vendor::{Features, Vendor};
use hv::vm::Vm;
use kernel::abi::guest::{Call, Delivery as Told, Status, VIEW_CACHED, VIEW_DELEGATING, WITH_VIEWS};
use kernel::mm::addr::{GuestPhysAddr, PAGE_SIZE, Pfn};
use kernel::mm::cache::Object;
use kernel::mm::frame::{Kind, allocator};
use kernel::mm::memtype::guest_memfd::GUEST_MEMFD;
use kernel::mm::pt::{Entry, Marker};
use kernel::mm::range::{GuestRange, VirtRange};

/// Pages of ordinary memory from [`AT`] on, and of delegated memory.
const ORDINARY: u64 = 8;
const PAGES: u64 = 4;
/// Pages of ordinary memory: the ring, the information page, what is copied, something to read.
const RING: u64 = 0;
const INFO: u64 = 1;
const SOURCE: u64 = 2;
const PLAIN: u64 = 3;
/// What a copied page holds, and the owner's.
const COPIED: u8 = 0xc0;
const OWNERS: u8 = 0x0e;
/// Where the handler begins.
const HANDLER: usize = 16;
const BY_EXCEPTION: u64 = Told::VirtualizationException as u64;

fn delegated(page: u64) -> GuestPhysAddr {
    GuestPhysAddr::new((1 << 30) + page * PAGE_SIZE)
}

fn all() -> GuestRange {
    GuestRange::new(delegated(0), delegated(PAGES))
}

/// A guest and its owner. Fields are dropped in this order.
struct Scene<F: SoftFormat> {
    vcpu: Vcpu<Soft<F>>,
    object: Arc<Object>,
    bitmap: Arc<Bitmap>,
    slot: SlotId,
    ordinary: VirtRange,
    world: World<F>,
}

impl<F: SoftFormat> Scene<F> {
    fn with(features: &Features) -> Self {
        let world = World::<F>::with(features);
        let ordinary = world.map(ORDINARY);
        world.show(ordinary);
        let object = Object::new(&GUEST_MEMFD, PAGES * PAGE_SIZE);
        let bitmap = Arc::new(Bitmap::new(PAGES).expect("memory is plenty"));
        bitmap.set_all();
        let request = delegated_slot(delegated(0), &object, &bitmap, Delivery::Exit);
        let slot = world.memory.add(request).expect("nothing is wrong with it");
        let vm = Vm::<Soft<F>>::new(Arc::clone(&world.memory), all(), Box::new(|_: &str| {}));
        let image = Image::starting(Registers::default(), SystemState::default());
        let mut vcpu = Vcpu::new(&vm, &image).expect("it needs no frame");
        vcpu.control().handler = HANDLER as u64;
        let scene = Self {
            vcpu,
            object,
            bitmap,
            slot,
            ordinary,
            world,
        };
        scene.world.run(|| {
            let memory = &scene.world.memory;
            for number in 0..ORDINARY {
                assert_eq!(memory.write(gpa(number), &bytes(0)), Ok(()));
                let touched = memory.touch(gpa(number), kernel::mm::fault::Access::Write);
                assert_eq!(touched, hv::userfault::Outcome::Retry);
            }
            assert_eq!(memory.write(gpa(SOURCE), &bytes(COPIED)), Ok(()));
        });
        scene
    }

    fn new() -> Self {
        Self::with(&Soft::<F>::enable().expect("it is there"))
    }

    fn run(&mut self) -> Stop {
        let vcpu = &mut self.vcpu;
        self.world.run(|| vcpu.run(u64::MAX))
    }

    /// Has the guest do this and halt, with this handler; what is in RAX then.
    fn does(&mut self, ops: &[Op], handler: &[Op]) -> Result<u64, Stop> {
        assert!(ops.len() < HANDLER);
        let control = self.vcpu.control();
        control.script = ops.to_vec();
        control.script.resize(HANDLER, Op::Halt);
        control.script.extend_from_slice(handler);
        self.vcpu.registers.rip = 0;
        self.goes_on()
    }

    /// Has the guest go on to its end.
    fn goes_on(&mut self) -> Result<u64, Stop> {
        match self.run() {
            Stop::Broken(broken) if broken.why == Fatal::Halted => Ok(self.vcpu.registers.rax),
            stop => Err(stop),
        }
    }

    fn call(&mut self, call: Call, args: [u64; 4]) -> Status {
        let [rdi, rsi, rdx, r10] = args;
        let status = self.does(&[Op::Call([call as u64, rdi, rsi, rdx, r10])], &[]);
        Status::from_number(status.expect("the call is answered")).expect("a status")
    }

    fn declare(&mut self, how: u64) -> Status {
        let [ring, info] = [RING, INFO].map(|page| gpa(page).as_u64());
        self.call(Call::Monitor, [ring, 0x51, how, info])
    }

    /// Loads the word at the start of a delegated page.
    fn load(&mut self, page: u64, handler: &[Op]) -> Result<u64, Stop> {
        self.does(&[Op::Load(delegated(page).as_u64())], handler)
    }

    #[track_caller]
    fn expect_fault(&mut self, page: u64, handler: &[Op]) -> MemoryFault {
        match self.load(page, handler) {
            Err(Stop::Userfault(fault)) if fault.addr == delegated(page) => fault,
            other => panic!("{other:?} instead of a fault of the owner's"),
        }
    }

    fn write(&self, page: u64) {
        let written = self.object.write(page * PAGE_SIZE, &bytes(OWNERS));
        assert_eq!(written.1, Ok(()));
    }

    /// Violations that exited.
    fn exits(&self) -> u64 {
        self.vcpu.vm().counters.violations.load(Ordering::Relaxed)
    }

    fn entry(&self, view: View, page: u64) -> Entry {
        self.world.memory.stage2().entry_in(view, delegated(page)).0
    }

    fn info(&self, offset: u64) -> u64 {
        let mut word = [0; 8];
        let read = self
            .world
            .run(|| self.world.memory.read(gpa(INFO) + offset, &mut word));
        assert_eq!(read, Ok(()));
        u64::from_le_bytes(word)
    }
}

/// What is done to a guest.
type Act = dyn Fn(&mut Scene<Ept>);

fn declared(how: u64) -> Scene<Ept> {
    let mut scene = Scene::new();
    assert_eq!(scene.declare(how), Status::Done);
    scene
}

fn with_views() -> Scene<Ept> {
    declared(BY_EXCEPTION | WITH_VIEWS)
}

/// Has the next violation come as #VE again.
fn ready() -> Op {
    Op::Store(gpa(INFO).as_u64(), 0)
}

/// Copies a page, and touches it again.
fn copies(page: u64) -> [Op; 3] {
    let call = Call::Copy as u64;
    [
        Op::Call([call, delegated(page).as_u64(), gpa(SOURCE).as_u64(), PAGE_SIZE, 0]),
        ready(),
        Op::Return,
    ]
}

/// Touches the page again in the other view.
fn looks() -> [Op; 3] {
    [Op::Switch(VIEW_CACHED as u16), ready(), Op::Return]
}

#[test]
fn delegated_page_is_copied_by_the_handler_and_nothing_exits_for_its_violation() {
    let mut scene = declared(BY_EXCEPTION);
    for page in 0..PAGES {
        assert_eq!(scene.entry(View::Delegating, page), Entry::Absent(DELEGATED));
        assert_eq!(scene.load(page, &copies(page)), Ok(word(COPIED)));
        assert_eq!(scene.load(page, &[]), Ok(word(COPIED)));
        assert_eq!(
            [8, 24, 32].map(|offset| scene.info(offset)),
            [1, delegated(page).as_u64(), 0]
        );
    }
    assert_eq!((scene.exits(), scene.bitmap.count()), (0, 0));
}

#[test]
fn while_the_last_is_being_handled_a_violation_is_the_owners() {
    let mut scene = declared(BY_EXCEPTION);
    // The handler does not say that it is ready.
    assert!(scene.load(0, &[Op::Halt]).is_ok());
    scene.expect_fault(0, &[]);
    assert_eq!(scene.exits(), 1);
}

#[test]
fn exempt_pages_are_the_owners_whenever_they_were_exempted() {
    let mut scene = Scene::<Ept>::new();
    let exempt = |page| [delegated(page).as_u64(), PAGE_SIZE, 0, 0];
    assert_eq!(scene.call(Call::Exempt, exempt(1)), Status::Done);
    assert_eq!(scene.declare(BY_EXCEPTION), Status::Done);
    assert_eq!(scene.call(Call::Exempt, exempt(3)), Status::Done);
    for page in [1, 3] {
        assert_eq!(scene.entry(View::Delegating, page), Entry::EMPTY);
        scene.expect_fault(page, &copies(page));
    }
    for page in [0, 2] {
        assert_eq!(scene.load(page, &copies(page)), Ok(word(COPIED)));
    }
    assert_eq!(scene.exits(), 2);
}

#[test]
fn a_page_whose_bit_was_cleared_is_mapped_by_the_call_that_finds_it() {
    for call in [Call::Copy, Call::Continue, Call::Zeropage] {
        let mut scene = declared(BY_EXCEPTION);
        scene.write(2);
        assert!(scene.bitmap.clear(2));
        let at = delegated(2).as_u64();
        let args = match call {
            Call::Copy => [gpa(SOURCE).as_u64(), PAGE_SIZE],
            _ => [PAGE_SIZE, 0],
        };
        let handler = [Op::Call([call as u64, at, args[0], args[1], 0]), Op::Return];
        assert_eq!(scene.load(2, &handler), Ok(word(OWNERS)), "{call:?}");
        assert_eq!(scene.exits(), 0);
    }
}

#[test]
fn what_the_guest_passes_on_is_resolved_as_if_it_had_exited() {
    let mut scene = declared(BY_EXCEPTION);
    let passes_on = |page: u64| {
        let call = Call::Resolve as u64;
        [
            Op::Call([call, delegated(page).as_u64(), 0, 0, 0]),
            ready(),
            Op::Return,
        ]
    };
    scene.expect_fault(1, &passes_on(1));
    // It is asked again as long as nobody has resolved it.
    assert!(matches!(scene.run(), Stop::Userfault(fault) if fault.addr == delegated(1)));
    scene.write(1);
    assert!(scene.bitmap.clear(1));
    assert_eq!(scene.goes_on(), Ok(word(OWNERS)));
    assert_eq!(scene.info(0) >> 32, 0, "there was no second exception");
    scene.write(0);
    assert!(scene.bitmap.clear(0));
    assert_eq!(scene.load(0, &passes_on(0)), Ok(word(OWNERS)));
}

#[test]
fn declarations_that_make_no_sense_are_refused_and_change_nothing() {
    let mut scene = Scene::<Ept>::new();
    let [ring, info] = [RING, INFO].map(|page| gpa(page).as_u64());
    for (args, refusal) in [
        (
            [ring, 0x51, BY_EXCEPTION, delegated(0).as_u64()],
            Status::BadAddress,
        ),
        (
            [ring, 0x51, BY_EXCEPTION, gpa(ORDINARY).as_u64()],
            Status::BadAddress,
        ),
        ([ring, 0x51, BY_EXCEPTION, info + 8], Status::Invalid),
        ([ring, 0x51, BY_EXCEPTION, ring], Status::Invalid),
        ([ring, 0x51, BY_EXCEPTION | 2, info], Status::Invalid),
        ([ring, 0x51, WITH_VIEWS, info], Status::Invalid),
        ([ring, 31, BY_EXCEPTION, info], Status::Invalid),
        (
            [delegated(0).as_u64(), 0x51, BY_EXCEPTION, info],
            Status::BadAddress,
        ),
    ] {
        assert_eq!(scene.call(Call::Monitor, args), refusal, "{args:x?}");
    }
    assert_eq!(scene.vcpu.vm().monitor(), None);
    assert_eq!(scene.entry(View::Delegating, 0), Entry::EMPTY);
    scene.expect_fault(0, &[]);
}

#[test]
fn what_the_cpu_does_not_have_is_refused_by_name() {
    let mut scene = Scene::<Npt>::new();
    assert_eq!(scene.declare(BY_EXCEPTION), Status::NotSupported);
    assert_eq!(scene.declare(BY_EXCEPTION | WITH_VIEWS), Status::NotSupported);
    let features = Features {
        root_switching: false,
        ..Soft::<Ept>::enable().expect("it is there")
    };
    let mut scene = Scene::<Ept>::with(&features);
    assert_eq!(scene.declare(BY_EXCEPTION | WITH_VIEWS), Status::NotSupported);
    assert_eq!(scene.declare(BY_EXCEPTION), Status::Done);
    assert_eq!(scene.load(0, &copies(0)), Ok(word(COPIED)));
}

#[test]
fn it_ends_with_the_monitor_with_another_delivery_and_with_a_restored_state() {
    let withdrawn = |scene: &mut Scene<Ept>| assert_eq!(scene.call(Call::Monitor, [0; 4]), Status::Done);
    let injected = |scene: &mut Scene<Ept>| assert_eq!(scene.declare(Told::Injected as u64), Status::Done);
    let restored = |scene: &mut Scene<Ept>| {
        let image = scene.vcpu.image();
        scene.vcpu.restore(&image);
    };
    let ends: [&Act; 3] = [&withdrawn, &injected, &restored];
    for (number, end) in ends.into_iter().enumerate() {
        let mut scene = declared(BY_EXCEPTION | WITH_VIEWS);
        assert_eq!(scene.load(0, &copies(0)), Ok(word(COPIED)));
        end(&mut scene);
        scene.expect_fault(1, &copies(1));
        let stop = scene.does(&[Op::Switch(1)], &[]);
        let Err(Stop::Broken(broken)) = stop else {
            panic!("it may switch: {stop:?}");
        };
        assert_eq!(broken.why, Fatal::Privileged("VMFUNC"), "{number}");
        // And it can be asked for again.
        assert_eq!(scene.declare(BY_EXCEPTION), Status::Done);
        assert_eq!(scene.load(1, &copies(1)), Ok(word(COPIED)));
    }
}

#[test]
fn the_frame_of_the_information_page_is_kept_as_long_as_the_cpu_may_write_there() {
    let mut scene = declared(BY_EXCEPTION);
    let space = Arc::clone(&scene.world.space);
    let frame_of = |page_number| match space.entry(page(scene.ordinary, page_number)).0 {
        Entry::Leaf(leaf) => leaf.frame,
        entry => panic!("{entry:?}"),
    };
    let (info, other): (Pfn, Pfn) = (frame_of(INFO), frame_of(PLAIN));
    let is_free = |frame| matches!(allocator().meta(frame).kind(), Kind::Free | Kind::Cached);
    for number in [INFO, PLAIN] {
        space.discard(part(scene.ordinary, number, 1)).expect("it can");
    }
    assert!(is_free(other) && !is_free(info));
    // The handler does not find in its page what the CPU has written into the other.
    scene.expect_fault(0, &copies(3));
    assert_eq!(scene.info(24), 0);
    assert!(!is_free(info));
    assert_eq!(scene.call(Call::Monitor, [0; 4]), Status::Done);
    assert!(is_free(info));
    // Another declaration takes the page that is there now; the vCPU's end lets go of it.
    assert_eq!(scene.declare(BY_EXCEPTION), Status::Done);
    assert_eq!(scene.load(0, &copies(0)), Ok(word(COPIED)));
    assert_eq!(scene.info(24), delegated(0).as_u64());
}

#[test]
fn a_page_in_the_cache_is_there_in_the_other_view() {
    let mut scene = Scene::<Ept>::new();
    scene.write(1);
    assert_eq!(scene.declare(BY_EXCEPTION | WITH_VIEWS), Status::Done);
    assert_eq!(scene.load(1, &looks()), Ok(word(OWNERS)));
    assert!(scene.bitmap.is_set(1), "it is as delegated as before");
    // There it is asked for what is not in the cache, and says where.
    assert_eq!(scene.load(2, &copies(2)), Ok(word(COPIED)));
    assert_eq!(scene.info(32), VIEW_CACHED);
    for view in [VIEW_DELEGATING, VIEW_CACHED] {
        let ops = [Op::Switch(view as u16), Op::Load(delegated(2).as_u64())];
        assert_eq!(scene.does(&ops, &[]), Ok(word(COPIED)));
    }
    assert_eq!(scene.exits(), 0);
    let back = [
        Op::Switch(VIEW_DELEGATING as u16),
        Op::Load(delegated(1).as_u64()),
    ];
    let continues = [
        Op::Call([Call::Continue as u64, delegated(1).as_u64(), PAGE_SIZE, 0, 0]),
        Op::Return,
    ];
    assert_eq!(scene.does(&back, &continues), Ok(word(OWNERS)));
    assert_eq!((scene.bitmap.is_set(1), scene.exits()), (false, 0));
}

#[test]
fn a_page_that_comes_into_the_cache_later_is_revealed_or_continued() {
    let mut scene = with_views();
    scene.write(0);
    scene.write(1);
    scene
        .world
        .memory
        .reveal(GuestRange::page(delegated(0)))
        .expect("memory is plenty");
    assert_eq!(scene.load(0, &looks()), Ok(word(OWNERS)));
    assert_eq!(scene.entry(View::Cached, 1), Entry::Absent(DELEGATED));
    let continues = [
        Op::Call([Call::Continue as u64, delegated(1).as_u64(), PAGE_SIZE, 0, 0]),
        ready(),
        Op::Return,
    ];
    assert_eq!(scene.load(1, &continues), Ok(word(OWNERS)));
    assert_eq!(scene.exits(), 0);
}

/// The software CPU fails the test if it uses a translation that is gone, in either view.
#[test]
fn whatever_is_taken_away_is_gone_from_both_views() {
    let punch = |scene: &mut Scene<Ept>| scene.object.punch(0, PAGE_SIZE).expect("it can");
    let delegate = |scene: &mut Scene<Ept>| scene.world.memory.delegate(GuestRange::page(delegated(0)));
    let remove = |scene: &mut Scene<Ept>| scene.world.memory.remove(scene.slot).expect("it is there");
    let poison = |scene: &mut Scene<Ept>| {
        let poisoned = scene
            .world
            .memory
            .fill(GuestRange::page(delegated(1)), hv::fill::Fill::Poison);
        assert_eq!(poisoned.stop, None);
    };
    let discard = |scene: &mut Scene<Ept>| {
        let range = part(scene.ordinary, PLAIN, 1);
        scene.world.space.discard(range).expect("it can");
    };
    let exempt = |scene: &mut Scene<Ept>| scene.vcpu.vm().exempt(all()).expect("there is room");
    // With whether page 0, page 1 and ordinary memory are in the second view afterwards.
    let ways: [(&str, &Act, [bool; 3]); 6] = [
        ("punch", &punch, [false, true, true]),
        ("delegate", &delegate, [true, true, true]),
        ("remove", &remove, [false, false, true]),
        ("poison", &poison, [true, false, true]),
        ("discard", &discard, [true, true, false]),
        ("exempt", &exempt, [true, false, true]),
    ];
    for (name, way, expected) in ways {
        let mut scene = Scene::<Ept>::new();
        scene.write(1);
        assert_eq!(scene.declare(BY_EXCEPTION | WITH_VIEWS), Status::Done);
        // Page 0 is mapped in both; page 1 is in the cache only. The CPU holds translations of both views.
        let plain = gpa(PLAIN).as_u64();
        assert_eq!(scene.does(&[Op::Store(plain, 7)], &[]).map(drop), Ok(()));
        assert_eq!(scene.load(0, &copies(0)), Ok(word(COPIED)));
        let reads = [
            Op::Load(delegated(0).as_u64()),
            Op::Load(plain),
            Op::Switch(VIEW_CACHED as u16),
            Op::Load(delegated(0).as_u64()),
            Op::Load(plain),
            Op::Load(delegated(1).as_u64()),
        ];
        assert_eq!(scene.does(&reads, &[]), Ok(word(OWNERS)));
        assert_eq!(scene.exits(), 0);
        way(&mut scene);
        let there = |view, addr| scene.world.memory.stage2().entry_in(view, addr).0.is_leaf();
        let addrs = [delegated(0), delegated(1), gpa(PLAIN)];
        assert_eq!(addrs.map(|addr| there(View::Cached, addr)), expected, "{name}");
        // It touches all of them again, in both views; the handler gives up.
        for view in [VIEW_CACHED, VIEW_DELEGATING] {
            for addr in addrs {
                let ops = [ready(), Op::Switch(view as u16), Op::Load(addr.as_u64())];
                let _ = scene.does(&ops, &[Op::Halt]);
            }
        }
    }
}

#[test]
fn a_store_in_the_other_view_is_noted_like_any_other() {
    let mut scene = Scene::<Ept>::new();
    scene.write(1);
    assert_eq!(scene.declare(BY_EXCEPTION | WITH_VIEWS), Status::Done);
    let (memory, slot) = (Arc::clone(&scene.world.memory), scene.slot);
    memory.set_logging(slot, true).expect("memory is plenty");
    memory.reveal(all()).expect("memory is plenty");
    let store = [
        Op::Switch(VIEW_CACHED as u16),
        Op::Store(delegated(1).as_u64(), 5),
    ];
    for _ in 0..2 {
        assert!(scene.does(&store, &[]).is_ok());
        assert_eq!(memory.take_dirty(slot), Ok(Some(vec![1 << 1])));
        assert_eq!(memory.take_dirty(slot), Ok(Some(vec![0])));
    }
}

#[test]
fn memory_can_run_out_at_any_point_of_a_declaration() {
    let mut scene = Scene::<Ept>::new();
    scene.write(1);
    let mut refusals = 0;
    loop {
        assert!(refusals < 100, "it never works");
        allocator().flush_cache();
        allocator().inject_failure(refusals);
        let status = scene.declare(BY_EXCEPTION | WITH_VIEWS);
        allocator().stop_injection();
        if status == Status::Done {
            break;
        }
        assert_eq!(status, Status::OutOfMemory);
        assert_eq!(scene.vcpu.vm().monitor(), None);
        for view in [View::Delegating, View::Cached] {
            assert!((0..PAGES).all(|page| scene.entry(view, page) == Entry::Absent(Marker::None)));
        }
        scene.expect_fault(0, &copies(0));
        refusals += 1;
    }
    assert!(refusals >= 4, "{refusals}: a root, and nodes of both views");
    assert_eq!(scene.load(1, &looks()), Ok(word(OWNERS)));
}
