//! Bus errors instead of messages (`UFFD_FEATURE_SIGBUS`), row by row as Linux has it (checked there on 6.18). Each test is
//! named after what it claims.

mod common;

use std::sync::Arc;

use common::{
    RW, World, eventually, object_world, page, part, populate, registered_with, returned, source, word,
};
use kernel::mm::addr::{PAGE_SIZE, VirtAddr};
use kernel::mm::cache::Object;
use kernel::mm::fault::{self, BusError, FaultError};
use kernel::mm::memtype::hugetlb::HUGETLB;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::pt::Prot;
use kernel::mm::range::VirtRange;
use kernel::mm::space::Memory;
use kernel::mm::uaccess;
use kernel::task::spawn::spawn_returning;
use kernel::uffd::linux::{OnBehalf, Signal, on_behalf, signal};
use kernel::uffd::{Event, Features, FillMode, Flags, Modes, Outcome, ReadError, Uffd};

const P: u64 = PAGE_SIZE;
const NOW: FillMode = FillMode::empty();
const BOTH: Modes = Modes::MISSING.union(Modes::WP);
const NOTHING: Result<Event, ReadError> = Err(ReadError::WouldBlock);
const BUS: FaultError = FaultError::BusError(BusError::Wanted);

fn registered(pages: u64, modes: Modes) -> (World, Uffd, VirtRange) {
    registered_with(pages, modes, Features::SIGBUS)
}

/// Where and why a task's access failed, as the kernel keeps it for the signal.
fn failure(world: &World, at: VirtAddr, write: bool) -> Option<(VirtAddr, FaultError)> {
    returned(world.spawn("toucher", move || {
        let failed = if write {
            uaccess::store(at, 1).is_err()
        } else {
            uaccess::load(at).is_err()
        };
        failed.then(fault::last_error).flatten()
    }))
}

#[test]
fn a_missing_page_is_sigbus_adrerr_at_the_exact_address_and_never_a_message() {
    let (world, uffd, range) = registered(2, Modes::MISSING);
    for (at, write) in [(range.start + 0x238, false), (page(range, 1) + 0x10, true)] {
        assert_eq!(failure(&world, at, write), Some((at, BUS)));
    }
    assert_eq!(signal(BUS), Signal { number: 7, code: 2 });
    assert_eq!(uffd.try_read_event(), NOTHING);
    assert!(uffd.ctx().outstanding_faults().is_empty());
}

#[test]
fn minor_faults_are_bus_errors_too() {
    for ty in [&SHMEM, &HUGETLB] {
        let world = object_world();
        let pages = ty.granule().size() / P;
        let object = Object::new(ty, pages * P);
        let [range, alias] = [(); 2].map(|()| world.map_memory(Memory::shared(&object), None, pages, RW));
        assert_eq!(world.store(alias.start, 5), Ok(()));
        let uffd = Uffd::new(&world.space, Features::SIGBUS);
        assert!(uffd.register(range, Modes::MINOR).is_ok());
        for write in [false, true] {
            let at = range.start + 0x718;
            assert_eq!(failure(&world, at, write), Some((at, BUS)));
        }
        assert_eq!(uffd.cont(range, NOW), Outcome::Done);
        assert_eq!(world.load(range.start), Ok(5));
        assert_eq!(uffd.try_read_event(), NOTHING);
    }
}

#[test]
fn a_store_to_a_protected_page_is_a_bus_error_and_a_load_is_fine() {
    let (world, uffd, range) = registered(1, BOTH);
    assert_eq!(
        uffd.copy(range.start, &source(5, 1), P, FillMode::WP),
        Outcome::Done
    );
    assert_eq!(world.load(range.start), Ok(word(5)));
    let at = range.start + 0x40;
    assert_eq!(failure(&world, at, true), Some((at, BUS)));
    assert_eq!(uffd.remove_write_protection(range, NOW), Ok(()));
    assert_eq!(world.store(at, 1), Ok(()));
    assert_eq!(uffd.try_read_event(), NOTHING);
}

#[test]
fn a_store_to_a_protected_page_that_is_not_there_is_a_bus_error_too() {
    let features = Features::SIGBUS | Features::WP_UNPOPULATED;
    let (world, uffd, range) = registered_with(1, Modes::WP, features);
    assert_eq!(uffd.write_protect(range), Ok(()));
    assert_eq!(world.store(range.start, 1), Err(BUS));
    assert_eq!(world.load(range.start), Ok(0));
    assert_eq!(world.store(range.start, 1), Err(BUS));
}

#[test]
fn resolving_works_and_the_access_can_then_be_made() {
    let (world, uffd, range) = registered(3, Modes::MISSING);
    for i in 0..3 {
        assert_eq!(world.load(page(range, i)), Err(BUS));
    }
    assert_eq!(uffd.copy(range.start, &source(7, 1), P, NOW), Outcome::Done);
    assert_eq!(uffd.zeropage(part(range, 1, 1), NOW), Outcome::Done);
    assert_eq!(uffd.poison(part(range, 2, 1), NOW), Outcome::Done);
    assert_eq!(world.load(range.start), Ok(word(7)));
    assert_eq!(world.store(page(range, 1), 3), Ok(()));
    assert_eq!(world.load(page(range, 2)), Err(FaultError::Poisoned));
}

#[test]
fn accesses_by_the_kernel_fail_as_with_a_bad_pointer() {
    for flags in [Flags::empty(), Flags::USER_MODE_ONLY] {
        let world = World::new();
        let range = world.map(1, RW);
        let uffd = Uffd::with_flags(&world.space, flags, Features::SIGBUS);
        assert!(uffd.register(range, Modes::MISSING).is_ok());
        let errors = world.run(|| {
            uaccess::on_behalf(|| {
                [
                    uaccess::read(range.start, &mut [0; 8]).map_err(|error| error.why),
                    uaccess::write(range.start, &[0; 8]).map_err(|error| error.why),
                ]
            })
        });
        assert_eq!(errors, [Err(BUS); 2]);
        assert_eq!(on_behalf(OnBehalf::Copy, BUS).number(), 14);
        assert_eq!(uffd.try_read_event(), NOTHING);
    }
}

#[test]
fn forbidden_and_unmapped_accesses_are_not_bus_errors() {
    let (world, uffd, range) = registered(2, Modes::MISSING);
    world
        .space
        .protect(part(range, 0, 1), Prot::READ)
        .expect("mapped");
    assert_eq!(world.store(range.start, 1), Err(FaultError::Forbidden));
    assert_eq!(world.load(range.start), Err(BUS));
    world.space.unmap(part(range, 1, 1)).expect("mapped");
    assert_eq!(world.load(page(range, 1)), Err(FaultError::Unmapped));
    drop(uffd);
}

#[test]
fn pages_that_are_there_are_not_affected_and_discarding_arms_them_again() {
    let world = World::new();
    let range = world.map(2, RW);
    populate(&world, range);
    let uffd = Uffd::new(&world.space, Features::SIGBUS);
    assert!(uffd.register(range, BOTH).is_ok());
    assert_eq!(world.store(range.start, 9), Ok(()));
    world.space.discard(part(range, 0, 1)).expect("mapped");
    assert_eq!(world.load(range.start), Err(BUS));
    assert_eq!(world.load(page(range, 1)), Ok(2));
}

#[test]
fn after_close_the_memory_is_ordinary_again() {
    let (world, uffd, range) = registered(2, BOTH);
    assert_eq!(world.store(range.start, 1), Err(BUS));
    assert_eq!(
        uffd.copy(page(range, 1), &source(5, 1), P, FillMode::WP),
        Outcome::Done
    );
    drop(uffd);
    assert_eq!(world.load(range.start), Ok(0));
    assert_eq!(world.store(range.start, 1), Ok(()));
    assert_eq!(world.store(page(range, 1), 1), Ok(()));
}

#[test]
fn the_monitor_gets_the_same_bus_error_instead_of_an_error_about_itself() {
    let (world, uffd, range) = registered(1, Modes::MISSING);
    let uffd = Arc::new(uffd);
    let its = Arc::clone(&uffd);
    let touched = returned(world.spawn("monitor", move || {
        its.attach_monitor(&kernel::task::current());
        let touched = uaccess::load(range.start).map_err(|error| error.why);
        its.detach_monitor();
        touched
    }));
    assert_eq!(touched, Err(BUS));
}

#[test]
fn with_noted_stores_write_protection_is_silent_and_missing_pages_are_bus_errors() {
    let (world, uffd, range) = registered_with(2, BOTH, Features::SIGBUS | Features::WP_ASYNC);
    assert_eq!(
        uffd.copy(range.start, &source(5, 1), P, FillMode::WP),
        Outcome::Done
    );
    assert_eq!(world.store(range.start, 1), Ok(()));
    assert_eq!(world.store(page(range, 1), 1), Err(BUS));
    assert_eq!(uffd.try_read_event(), NOTHING);
}

#[test]
fn the_child_of_a_fork_that_is_told_gets_bus_errors_of_its_own_and_no_messages() {
    let (world, uffd, range) = registered_with(2, BOTH, Features::SIGBUS | Features::EVENT_FORK);
    assert_eq!(
        uffd.copy(range.start, &source(5, 1), P, FillMode::WP),
        Outcome::Done
    );
    let parent = Arc::clone(&world.space);
    let task = world.spawn("forker", move || parent.fork());
    eventually("the fork is told", || uffd.is_readable());
    let Ok(Event::Fork { uffd: childs }) = uffd.try_read_event() else {
        panic!("a fork");
    };
    let child = returned(task).expect("RAM is plenty");
    let touch = |at, write| {
        let touched = spawn_returning("toucher", Some(Arc::clone(&child)), move || {
            let result = if write {
                uaccess::store(at, 1)
            } else {
                uaccess::load(at).map(drop)
            };
            result.map_err(|error| error.why)
        });
        returned(touched.expect("the host has threads"))
    };
    assert_eq!(touch(range.start, false), Ok(()));
    assert_eq!(touch(range.start, true), Err(BUS), "the protection was inherited");
    assert_eq!(touch(page(range, 1), false), Err(BUS));
    assert_eq!(childs.zeropage(part(range, 1, 1), NOW), Outcome::Done);
    assert_eq!(touch(page(range, 1), false), Ok(()));
    assert_eq!(
        world.load(page(range, 1)),
        Err(BUS),
        "the parent's is still missing"
    );
    for uffd in [&uffd, &childs] {
        assert_eq!(uffd.try_read_event(), NOTHING);
    }
}
