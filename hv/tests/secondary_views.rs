//! What the host takes away, the guest loses before the frame is used again: however it is taken.
//!
//! In every test the guest reads the page first, so that its CPU holds the translation, and the frame is then used again by
//! somebody else. The software CPU fails the test if it ever uses a translation that the tables no longer hold.

mod common;

use std::sync::Arc;

use common::{
    AT, Guest, RW, World, bytes, eventually, gpa, page, pagefault, part, returned, slot_of, slot_of_object,
    until_it_waits, word,
};
use hv::soft::{Op, SoftFormat};
use hv::userfault::Outcome;
use kernel::mm::addr::{GuestPhysAddr, PAGE_SIZE, Pfn, VirtAddr};
use kernel::mm::cache::Object;
use kernel::mm::fault::{FaultError, Origin};
use kernel::mm::frame::{Kind, allocator};
use kernel::mm::memtype::anon::ANON;
use kernel::mm::memtype::hugetlb::HUGETLB;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::pt::{Entry, Level, Prot};
use kernel::mm::range::VirtRange;
use kernel::mm::space::{MapRequest, Memory, PageRun, Privilege, RemapRequest, RemapTo, ScanRequest, Space};
use kernel::mm::uaccess;
use kernel::uffd::{Features, FillMode, Modes, MoveMode, Outcome as Filled, TrapKind, Uffd};

for_both! {
    discard
    lazy_discard
    unmap
    map_over
    remap
    remap_that_leaves_the_area
    move_by_a_context
    guards
    truncate
    truncate_under_a_private_copy
    punch
    copy_on_write_after_a_fork_by_the_host
    copy_on_write_after_a_fork_by_the_guest
    first_store_over_the_page_of_zeros
    protection
    write_protection_by_a_context
    noted_stores
    a_large_page
    a_large_page_where_the_slot_is_not_congruent
    an_object_behind_the_slot
    an_object_behind_the_slot_that_becomes_shorter
    two_guests_of_one_space_lose_the_same_page
    a_guest_that_keeps_reading_sees_no_page_of_somebody_else
}

/// A guest that has read all pages of a slot, which hold 1, 2, ...
struct Scene<F: SoftFormat> {
    guest: Guest<F>,
    stranger: Stranger,
    world: World<F>,
    range: VirtRange,
}

impl<F: SoftFormat> Scene<F> {
    fn of(memory: Memory, pages: u64) -> Self {
        let world = World::<F>::new();
        let range = world.map_memory(memory, pages);
        world.populate(range);
        world.show(range);
        let guest = world.guest();
        let mut scene = Self {
            guest,
            stranger: Stranger::new(),
            world,
            range,
        };
        for i in 0..pages {
            assert_eq!(scene.guest.load(i), Ok(i + 1));
        }
        scene
    }

    fn anonymous(pages: u64) -> Self {
        Self::of(Memory::Own(&ANON), pages)
    }

    fn shared(pages: u64) -> (Self, Arc<Object>) {
        let object = Object::new(&SHMEM, pages * PAGE_SIZE);
        (Self::of(Memory::shared(&object), pages), object)
    }

    fn space(&self) -> &Arc<Space> {
        &self.world.space
    }

    fn frame(&self, at: u64) -> Pfn {
        frame(self.space(), page(self.range, at))
    }
}

fn frame(space: &Space, at: VirtAddr) -> Pfn {
    match space.entry(at).0 {
        Entry::Leaf(leaf) => leaf.frame,
        entry => panic!("no page at {at}: {entry:?}"),
    }
}

/// Somebody else, who uses what is free.
struct Stranger {
    space: Arc<Space>,
    range: VirtRange,
    next: u64,
}

impl Stranger {
    /// One whose tables are made, so that it takes frames for pages only.
    fn new() -> Self {
        let space = Space::new(Privilege::Kernel).expect("RAM is plenty");
        let request = MapRequest {
            at: Some(VirtAddr::new(1 << 30)),
            len: 4096 * PAGE_SIZE,
            prot: RW,
            memory: Memory::Own(&ANON),
        };
        let range = space.map(request).expect("there is room");
        (0..8).for_each(|i| store_foreign(&space, range.start + i * Level::MID.size()));
        let next = 1;
        Self { space, range, next }
    }

    /// Stores to pages of its own until `frames`, which must be free, are among them.
    #[track_caller]
    fn reuse(&mut self, frames: &[Pfn]) {
        let is_free = |frame: &Pfn| matches!(allocator().meta(*frame).kind(), Kind::Free | Kind::Cached);
        assert!(frames.iter().all(is_free), "they are still used");
        while frames.iter().any(is_free) {
            store_foreign(&self.space, page(self.range, self.next));
            self.next += 1;
        }
    }
}

fn store_foreign(space: &Space, at: VirtAddr) {
    let foreign = 0xf0_f0_f0_f0u64.to_le_bytes();
    space
        .write_bytes(at, &foreign, Origin::Kernel)
        .expect("RAM is plenty");
}

fn failed(why: FaultError) -> Outcome {
    Outcome::Failed(why)
}

fn discard<F: SoftFormat>() {
    let mut scene = Scene::<F>::anonymous(2);
    let old = scene.frame(0);
    scene
        .space()
        .discard(part(scene.range, 0, 1))
        .expect("it is mapped");
    scene.stranger.reuse(&[old]);
    assert_eq!((scene.guest.load(0), scene.guest.load(1)), (Ok(0), Ok(2)));
}

fn lazy_discard<F: SoftFormat>() {
    let mut scene = Scene::<F>::anonymous(1);
    assert_eq!(scene.guest.store(0, 5), Ok(()));
    scene
        .space()
        .discard_lazily(scene.range)
        .expect("it is anonymous");
    let seen = scene.guest.load(0).expect("it is mapped");
    assert!(
        seen == 0 || seen == 5,
        "gone or still there, nothing else: {seen}"
    );
    assert_eq!(scene.guest.store(0, 6), Ok(()));
    assert_eq!(scene.guest.load(0), Ok(6), "a store keeps the page");
}

fn unmap<F: SoftFormat>() {
    let mut scene = Scene::<F>::anonymous(2);
    let old = scene.frame(0);
    scene
        .space()
        .unmap(part(scene.range, 0, 1))
        .expect("it is mapped");
    scene.stranger.reuse(&[old]);
    assert_eq!(scene.guest.load(0), Err(failed(FaultError::Unmapped)));
    assert_eq!(scene.guest.load(1), Ok(2));
}

fn map_over<F: SoftFormat>() {
    let mut scene = Scene::<F>::anonymous(2);
    let old = [scene.frame(0), scene.frame(1)];
    let request = MapRequest {
        at: Some(scene.range.start),
        len: scene.range.len(),
        prot: RW,
        memory: Memory::Own(&ANON),
    };
    scene.space().map_over(request).expect("it is mapped");
    scene.stranger.reuse(&old);
    assert_eq!((scene.guest.load(0), scene.guest.load(1)), (Ok(0), Ok(0)));
}

fn remap<F: SoftFormat>() {
    let mut scene = Scene::<F>::anonymous(2);
    let request = RemapRequest {
        old: part(scene.range, 0, 1),
        len: PAGE_SIZE,
        to: RemapTo::At(page(scene.range, 1)),
        leave_mapped: false,
    };
    let old = scene.frame(1);
    scene.space().remap(request).expect("it is mapped");
    scene.stranger.reuse(&[old]);
    assert_eq!(scene.guest.load(0), Err(failed(FaultError::Unmapped)));
    assert_eq!(scene.guest.load(1), Ok(1), "what is there now");
    assert_eq!(scene.guest.store(1, 3), Ok(()));
    assert_eq!(scene.guest.load(1), Ok(3));
}

fn remap_that_leaves_the_area<F: SoftFormat>() {
    let mut scene = Scene::<F>::anonymous(1);
    let request = RemapRequest {
        old: scene.range,
        len: PAGE_SIZE,
        to: RemapTo::Anywhere,
        leave_mapped: true,
    };
    let moved = scene.space().remap(request).expect("it is mapped");
    assert_eq!(scene.guest.load(0), Ok(0));
    assert_eq!(scene.guest.store(0, 9), Ok(()));
    let kept = scene.world.run(|| uaccess::load(moved.start));
    assert_eq!(kept, Ok(1), "the page that moved is not the guest's any more");
}

fn move_by_a_context<F: SoftFormat>() {
    let mut scene = Scene::<F>::anonymous(2);
    let spare = scene.world.map(1);
    scene.world.populate(spare);
    let uffd = Uffd::new(scene.space(), Features::MOVE);
    uffd.register(scene.range, Modes::MISSING)
        .expect("anonymous memory can");
    scene
        .space()
        .discard(part(scene.range, 1, 1))
        .expect("it is mapped");
    // From the slot to the slot.
    let (from, to) = (page(scene.range, 0), page(scene.range, 1));
    let moved = scene
        .world
        .run(|| uffd.move_pages(scene.space(), to, from, PAGE_SIZE, MoveMode::empty()));
    assert_eq!(moved, Filled::Done);
    assert_eq!(scene.guest.load(1), Ok(1), "it has arrived");
    let vcpu = scene.world.guest().spawn_load(0);
    until_it_waits(vcpu.task());
    assert_eq!(uffd.try_read_event(), pagefault(TrapKind::Missing, from, false));
    // From beside it into it.
    let moved = scene
        .world
        .run(|| uffd.move_pages(scene.space(), from, spare.start, PAGE_SIZE, MoveMode::empty()));
    assert_eq!(moved, Filled::Done);
    assert_eq!(returned(vcpu), Ok(1));
    assert_eq!(scene.guest.store(0, 8), Ok(()));
    assert_eq!(scene.guest.load(1), Ok(1));
}

fn guards<F: SoftFormat>() {
    let mut scene = Scene::<F>::anonymous(1);
    let old = scene.frame(0);
    scene
        .space()
        .install_guards(scene.range)
        .expect("it is anonymous");
    scene.stranger.reuse(&[old]);
    assert_eq!(scene.guest.load(0), Err(failed(FaultError::Guard)));
    scene.space().remove_guards(scene.range).expect("it is anonymous");
    assert_eq!(scene.guest.load(0), Ok(0));
}

fn truncate<F: SoftFormat>() {
    let (mut scene, object) = Scene::<F>::shared(2);
    let old = scene.frame(1);
    object.truncate(PAGE_SIZE).expect("it can");
    scene.stranger.reuse(&[old]);
    assert_eq!(scene.guest.load(0), Ok(1));
    assert_eq!(scene.guest.load(1), Err(failed(FaultError::BeyondEnd)));
    object.truncate(2 * PAGE_SIZE).expect("it can");
    assert_eq!(scene.guest.load(1), Ok(0));
}

fn truncate_under_a_private_copy<F: SoftFormat>() {
    let object = Object::new(&SHMEM, PAGE_SIZE);
    let mut scene = Scene::<F>::of(Memory::private(&object), 1);
    let copy = scene.frame(0);
    object.truncate(0).expect("it can");
    scene.stranger.reuse(&[copy]);
    assert_eq!(scene.guest.load(0), Err(failed(FaultError::BeyondEnd)));
}

fn punch<F: SoftFormat>() {
    let (mut scene, object) = Scene::<F>::shared(2);
    let old = scene.frame(0);
    object.punch(0, PAGE_SIZE).expect("it can");
    scene.stranger.reuse(&[old]);
    assert_eq!((scene.guest.load(0), scene.guest.load(1)), (Ok(0), Ok(2)));
    let old = scene.frame(1);
    scene
        .space()
        .punch(part(scene.range, 1, 1))
        .expect("it is shared");
    scene.stranger.reuse(&[old]);
    assert_eq!(scene.guest.load(1), Ok(0));
}

fn copy_on_write_after_a_fork_by_the_host<F: SoftFormat>() {
    let mut scene = Scene::<F>::anonymous(1);
    assert_eq!(scene.guest.store(0, 5), Ok(()), "the guest may write it");
    let child = scene.space().fork().expect("RAM is plenty");
    let old = scene.frame(0);
    scene
        .world
        .run(|| assert_eq!(uaccess::store(scene.range.start, 6), Ok(())));
    assert_eq!(scene.guest.load(0), Ok(6), "the host's page, not the child's");
    drop(child);
    scene.stranger.reuse(&[old]);
    assert_eq!(scene.guest.load(0), Ok(6));
}

fn copy_on_write_after_a_fork_by_the_guest<F: SoftFormat>() {
    let mut scene = Scene::<F>::anonymous(1);
    assert_eq!(scene.guest.store(0, 5), Ok(()), "the guest may write it");
    let child = scene.space().fork().expect("RAM is plenty");
    assert_eq!(scene.guest.store(0, 7), Ok(()));
    let mut word = [0; 8];
    child
        .read_bytes(scene.range.start, &mut word, Origin::Kernel)
        .expect("it is mapped");
    assert_eq!(u64::from_ne_bytes(word), 5, "the child keeps what was there");
    assert_eq!(scene.guest.load(0), Ok(7));
    scene
        .world
        .run(|| assert_eq!(uaccess::load(scene.range.start), Ok(7)));
}

fn first_store_over_the_page_of_zeros<F: SoftFormat>() {
    let world = World::<F>::new();
    let range = world.map(1);
    world.show(range);
    let mut guest = world.guest();
    assert_eq!(guest.load(0), Ok(0), "the page of zeros, for everybody");
    world.run(|| assert_eq!(uaccess::store(range.start, 4), Ok(())));
    assert_eq!(guest.load(0), Ok(4));
    assert_eq!(guest.store(0, 5), Ok(()));
    let zeros = world.map(1);
    world.run(|| assert_eq!(uaccess::load(zeros.start), Ok(0), "nobody has written to it"));
}

fn protection<F: SoftFormat>() {
    let mut scene = Scene::<F>::anonymous(1);
    assert_eq!(scene.guest.store(0, 2), Ok(()));
    let protect = |scene: &Scene<F>, prot| scene.space().protect(scene.range, prot).expect("it is mapped");
    protect(&scene, Prot::READ);
    assert_eq!(scene.guest.store(0, 3), Err(failed(FaultError::Forbidden)));
    assert_eq!(scene.guest.load(0), Ok(2));
    protect(&scene, Prot::empty());
    assert_eq!(scene.guest.load(0), Err(failed(FaultError::Forbidden)));
    let fetch = Op::Fetch(gpa(0).as_u64());
    assert_eq!(scene.guest.execute(fetch), Err(failed(FaultError::Forbidden)));
    protect(&scene, RW);
    assert_eq!(
        scene.guest.execute(fetch),
        Ok(2),
        "what the host may read, the guest may execute"
    );
    assert_eq!(scene.guest.store(0, 3), Ok(()));
}

fn write_protection_by_a_context<F: SoftFormat>() {
    let mut scene = Scene::<F>::anonymous(2);
    assert_eq!(scene.guest.store(0, 2), Ok(()));
    let uffd = Uffd::new(scene.space(), Features::PAGEFAULT_FLAG_WP);
    uffd.register(scene.range, Modes::WP)
        .expect("anonymous memory can");
    uffd.write_protect(scene.range).expect("it is registered");
    assert_eq!(scene.guest.load(0), Ok(2), "loads go on");
    let vcpu = scene.world.guest().spawn_store(0, 3);
    until_it_waits(vcpu.task());
    let at = page(scene.range, 0);
    assert_eq!(uffd.try_read_event(), pagefault(TrapKind::WriteProtect, at, true));
    scene
        .world
        .run(|| assert_eq!(uaccess::load(at), Ok(2), "the store has not happened"));
    uffd.remove_write_protection(part(scene.range, 0, 1), FillMode::empty())
        .expect("it is registered");
    assert_eq!(returned(vcpu).map(drop), Ok(()));
    assert_eq!(scene.guest.load(0), Ok(3));
}

fn noted_stores<F: SoftFormat>() {
    let mut scene = Scene::<F>::anonymous(3);
    (0..3).for_each(|i| assert_eq!(scene.guest.store(i, 9), Ok(())));
    let uffd = Uffd::new(scene.space(), Features::WP_ASYNC);
    uffd.register(scene.range, Modes::WP)
        .expect("anonymous memory can");
    uffd.write_protect(scene.range).expect("it is registered");
    let mut runs = [PageRun::EMPTY; 4];
    let mut written = |scene: &Scene<F>| {
        let request = ScanRequest {
            protect: true,
            ..ScanRequest::written(scene.range)
        };
        let scanned = scene.space().scan(&request, &mut runs).expect("it is a range");
        runs[..scanned.runs]
            .iter()
            .map(|run| run.range.pages())
            .sum::<u64>()
    };
    assert_eq!(written(&scene), 0);
    for round in 0..2 {
        assert_eq!(scene.guest.store(1, round), Ok(()));
        assert_eq!(written(&scene), 1, "the guest's store is noted, every time");
        assert_eq!(written(&scene), 0);
    }
}

/// The world, the huge page's range, and its slot at `at`.
fn large<F: SoftFormat>(at: GuestPhysAddr) -> (World<F>, VirtRange) {
    let world = World::<F>::new();
    allocator().reserve_huge(1).expect("RAM is plenty");
    let range = world.map_memory(Memory::Own(&HUGETLB), 512);
    world.run(|| {
        (0..512).for_each(|i| assert_eq!(uaccess::store(page(range, i), i + 1), Ok(())));
    });
    let mut request = slot_of(&world.space, range);
    request.at = at;
    world.memory.add(request).expect("nothing is wrong with it");
    (world, range)
}

fn a_large_page<F: SoftFormat>() {
    let at = GuestPhysAddr::new(4 << 20);
    let (world, range) = large::<F>(at);
    let mut guest = world.guest();
    let word = |i: u64| Op::Load((at + i * PAGE_SIZE).as_u64());
    assert_eq!(guest.execute(word(511)), Ok(512));
    assert_eq!(world.memory.stage2().entry(at).1, Level::MID);
    assert_eq!(guest.execute(word(0)), Ok(1));
    assert_eq!(guest.violations, 1, "one leaf for all of it");
    world.space.unmap(range).expect("it is mapped");
    assert_eq!(allocator().huge_pages().free, 1);
    for i in [0, 511] {
        assert_eq!(guest.execute(word(i)), Err(failed(FaultError::Unmapped)));
    }
}

fn a_large_page_where_the_slot_is_not_congruent<F: SoftFormat>() {
    let (world, range) = large::<F>(AT);
    let mut guest = world.guest();
    assert_eq!((guest.load(0), guest.load(300)), (Ok(1), Ok(301)));
    assert_eq!(world.memory.stage2().entry(gpa(300)).1, Level::PAGE);
    world.space.unmap(range).expect("it is mapped");
    assert_eq!(guest.load(300), Err(failed(FaultError::Unmapped)));
}

fn an_object_behind_the_slot<F: SoftFormat>() {
    let world = World::<F>::new();
    let object = Object::new(&SHMEM, 2 * PAGE_SIZE);
    assert_eq!(object.write(0, &[bytes(1), bytes(2)].concat()).1, Ok(()));
    world
        .memory
        .add(slot_of_object(&object, None))
        .expect("nothing is wrong with it");
    let mut guest = world.guest();
    let mut stranger = Stranger::new();
    assert_eq!((guest.load(0), guest.load(1)), (Ok(word(1)), Ok(word(2))));
    let Entry::Leaf(leaf) = world.memory.stage2().entry(gpa(0)).0 else {
        panic!("it was read");
    };
    object.punch(0, PAGE_SIZE).expect("it can");
    stranger.reuse(&[leaf.frame]);
    assert_eq!((guest.load(0), guest.load(1)), (Ok(0), Ok(word(2))));
}

fn an_object_behind_the_slot_that_becomes_shorter<F: SoftFormat>() {
    let world = World::<F>::new();
    let object = Object::new(&SHMEM, 2 * PAGE_SIZE);
    world
        .memory
        .add(slot_of_object(&object, None))
        .expect("nothing is wrong with it");
    let mut guest = world.guest();
    assert_eq!(guest.store(1, 3), Ok(()));
    object.truncate(PAGE_SIZE).expect("it can");
    assert_eq!(guest.load(1), Err(failed(FaultError::BeyondEnd)));
    assert_eq!(guest.load(0), Ok(0));
    // A view that was asked and is a view still.
    assert_eq!(object.views(), 1);
}

fn two_guests_of_one_space_lose_the_same_page<F: SoftFormat>() {
    let mut scene = Scene::<F>::anonymous(1);
    let second = hv::memory::GuestMemory::<F>::new(&hv::vendor::Features {
        physical_bits: 40,
        ..Default::default()
    })
    .expect("RAM is plenty");
    second
        .add(slot_of(scene.space(), scene.range))
        .expect("nothing is wrong with it");
    let mut other = Guest::of(&second);
    assert_eq!(other.load(0), Ok(1));
    let old = scene.frame(0);
    scene.space().discard(scene.range).expect("it is mapped");
    scene.stranger.reuse(&[old]);
    assert_eq!((scene.guest.load(0), other.load(0)), (Ok(0), Ok(0)));
}

/// The guest reads without a pause while another CPU discards its page, has the frame used by somebody else, and stores
/// there again.
fn a_guest_that_keeps_reading_sees_no_page_of_somebody_else<F: SoftFormat>() {
    use std::sync::atomic::{AtomicBool, Ordering};
    const FOREIGN: u64 = 0xf0_f0_f0_f0;
    let world = World::<F>::new();
    let (range, foreign) = (world.map(1), world.map(8));
    world.populate(range);
    world.show(range);
    let done = Arc::new(AtomicBool::new(false));
    let mut guest = world.guest();
    // The tables change under it.
    guest.vcpu.strict = false;
    let until = Arc::clone(&done);
    let reader = kernel::task::spawn::spawn_returning("vcpu", None, move || {
        let mut reads = 0u64;
        while !until.load(Ordering::Acquire) {
            let seen = guest.load(0).expect("it is mapped");
            assert!(seen < 1000, "a page of somebody else: {seen:#x}");
            reads += 1;
        }
        reads
    })
    .expect("the host has threads");
    eventually("the guest runs", || {
        world.memory.stage2().entry(gpa(0)).0.is_leaf()
    });
    world.run(|| {
        for round in 1..300 {
            assert_eq!(uaccess::store(range.start, round), Ok(()));
            std::thread::yield_now();
            world.space.discard(range).expect("it is mapped");
            for i in 0..8 {
                assert_eq!(uaccess::store(page(foreign, i), FOREIGN), Ok(()));
            }
            world.space.discard(foreign).expect("it is mapped");
        }
    });
    done.store(true, Ordering::Release);
    assert!(returned(reader) > 0);
}
