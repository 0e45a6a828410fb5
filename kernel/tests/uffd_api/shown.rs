//! What contexts show of themselves and of faults: addresses, threads, and the lines of `fdinfo`.

use kernel::mm::cache::Object;
use kernel::mm::memtype::hugetlb::HUGETLB;
use kernel::mm::range::VirtRange;
use kernel::mm::space::Memory;
use kernel::uffd::{Event, Features, Modes, Release, TrapKind, Uffd};

use super::{HUGE, P, fresh, wanting};
use crate::common::{RW, World, object_world, page, was_woken};

#[test]
fn fdinfo_shows_faults_and_features_as_they_are() {
    let world = World::new();
    let range = world.map(3, RW);
    let uffd = fresh(&world, &Release::V6_18);
    let shown = |uffd: &Uffd| uffd.fd_info().to_string();
    assert_eq!(
        shown(&uffd),
        "pending:\t0\ntotal:\t0\nAPI:\taa:0:80000000000001ff\n"
    );
    assert!(uffd.api(wanting(Features::EVENT_UNMAP)).is_ok());
    assert!(uffd.register(range, Modes::MISSING).is_ok());
    let waiters = [0, 1, 2].map(|i| world.stuck_at(page(range, i)));
    assert!(uffd.try_read_event().is_ok());
    assert_eq!(
        shown(&uffd),
        "pending:\t2\ntotal:\t3\nAPI:\taa:80000040:80000000000001ff\n"
    );
    assert_eq!(uffd.wake(range), Ok(()));
    assert!(waiters.iter().all(|waiter| was_woken(waiter)));
    assert!(shown(&uffd).starts_with("pending:\t0\ntotal:\t0\n"));
}

#[test]
fn the_address_is_masked_to_the_huge_page_unless_the_exact_one_was_asked_for() {
    for (features, offset) in [
        (Features::empty(), 0),
        (Features::THREAD_ID, 0),
        (Features::EXACT_ADDRESS, 0x5_1238),
    ] {
        let world = object_world();
        let huge = Object::new(&HUGETLB, 2 * HUGE * P);
        let range = world.map_memory(Memory::shared(&huge), None, 2 * HUGE, RW);
        let uffd = Uffd::new(&world.space, features);
        assert!(uffd.register(range, Modes::MISSING).is_ok());
        let second = page(range, HUGE);
        let task = world.stuck_at(second + 0x5_1238);
        let thread = features.contains(Features::THREAD_ID).then(|| task.id());
        assert_eq!(
            uffd.try_read_event(),
            Ok(Event::Pagefault {
                kind: TrapKind::Missing,
                write: false,
                addr: second + offset,
                thread,
            })
        );
        // Waking goes by the address in the message.
        let page_of_it = VirtRange::page((second + 0x5_1238).align_down(P));
        assert_eq!(uffd.wake(page_of_it), Ok(()));
        assert_eq!(was_woken(&task), offset != 0);
        uffd.close();
    }
}

#[test]
fn each_waiting_thread_has_a_message_that_names_it_when_asked() {
    let world = World::new();
    let range = world.map(1, RW);
    let uffd = Uffd::new(&world.space, Features::THREAD_ID);
    assert!(uffd.register(range, Modes::MISSING).is_ok());
    let tasks = [world.stuck_at(range.start), world.stuck_at(range.start)];
    for task in &tasks {
        let Ok(Event::Pagefault { thread, .. }) = uffd.try_read_event() else {
            panic!("a message each");
        };
        assert_eq!(thread, Some(task.id()));
    }
    assert_eq!(uffd.wake(range), Ok(()));
    assert!(tasks.iter().all(|task| was_woken(task)));
}
