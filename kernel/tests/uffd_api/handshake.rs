//! The handshake, and what a fresh context refuses.

use std::sync::Arc;

use kernel::mm::cache::Object;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::range::VirtRange;
use kernel::mm::space::Memory;
use kernel::uffd::linux::{self, Poll};
use kernel::uffd::{
    ApiError, Features, FillMode, Handshake, Ioctls, Modes, MoveMode, Outcome, ReadError, Refusal,
    RegisterError, Release, Uffd, Unavailable, UnregisterError, WakeError, WriteProtectError,
};

use super::{NOTHING, NOW, P, fresh, ready, wanting};
use crate::common::{
    RW, World, answer, missing, object_world, page, part, returned, source, until_it_waits, was_woken,
    write_protected,
};

/// Everything that a context can be asked for on `range` says this of why it is unavailable.
#[track_caller]
fn assert_all_unavailable(world: &World, uffd: &Uffd, range: VirtRange, why: Unavailable) {
    let refused = Outcome::Refused(Refusal::Unavailable(why));
    let outcomes = [
        uffd.copy(range.start, &source(1, 1), P, NOW),
        uffd.zeropage(range, NOW),
        uffd.cont(range, NOW),
        uffd.poison(range, NOW),
        uffd.move_pages(&world.space, range.start, range.start, P, MoveMode::empty()),
    ];
    for outcome in outcomes {
        assert_eq!((outcome, answer(outcome, P)), (refused, (Some(22), None)));
    }
    assert_eq!(
        uffd.register(range, Modes::MISSING),
        Err(RegisterError::Unavailable(why))
    );
    assert_eq!(uffd.unregister(range), Err(UnregisterError::Unavailable(why)));
    assert_eq!(uffd.wake(range), Err(WakeError::Unavailable(why)));
    let unavailable = Err(WriteProtectError::Unavailable(why));
    assert_eq!(uffd.write_protect(range), unavailable);
    assert_eq!(uffd.remove_write_protection(range, NOW), unavailable);
}

#[test]
fn a_fresh_context_refuses_everything_with_einval_and_polls_as_an_error() {
    let world = World::new();
    let range = world.map(1, RW);
    let uffd = fresh(&world, &Release::ALL);
    assert_all_unavailable(&world, &uffd, range, Unavailable::Fresh);
    assert_eq!(uffd.try_read_event(), Err(ReadError::Fresh));
    assert_eq!(
        uffd.read_event(),
        Err(ReadError::Fresh),
        "it does not wait either"
    );
    assert_eq!(
        linux::read(ReadError::Fresh).map(|errno| errno.number()),
        Some(22)
    );
    assert_eq!(
        linux::poll(uffd.ctx().is_ready(), true, uffd.is_readable()),
        Poll::Error
    );
}

#[test]
fn a_fresh_context_refuses_bad_arguments_for_being_fresh() {
    let world = World::new();
    let uffd = fresh(&world, &Release::ALL);
    let end = kernel::mm::addr::USER_TOP;
    assert_eq!(
        uffd.copy(end + 1, &[], u64::MAX, FillMode::from_bits_retain(1 << 9)),
        Outcome::Refused(Refusal::Unavailable(Unavailable::Fresh))
    );
}

#[test]
fn a_context_that_was_never_asked_is_closed_without_ado() {
    let world = World::new();
    let uffd = fresh(&world, &Release::ALL);
    uffd.close();
    assert_eq!(uffd.try_read_event(), Err(ReadError::Closed));
    drop(fresh(&world, &Release::ALL));
}

#[test]
fn after_the_handshake_the_context_works() {
    let world = World::new();
    let range = world.map(1, RW);
    let uffd = fresh(&world, &Release::V6_18);
    let agreement = uffd
        .api(wanting(Features::EXACT_ADDRESS))
        .expect("it is on offer");
    assert_eq!(agreement.offered.bits(), 0x1_ffff);
    assert_eq!(agreement.ioctls, Ioctls::OF_HANDSHAKE);
    assert!(uffd.register(range, Modes::MISSING).is_ok());
    let task = world.spawn_load(range.start + 0x238);
    until_it_waits(task.task());
    assert_eq!(uffd.try_read_event(), missing(range.start + 0x238, false));
    assert_eq!(uffd.zeropage(range, NOW), Outcome::Done);
    assert_eq!(returned(task), Ok(0));
    assert_eq!(
        linux::poll(uffd.ctx().is_ready(), true, uffd.is_readable()),
        Poll::Nothing
    );
}

#[test]
fn a_second_handshake_is_einval_and_changes_nothing() {
    let world = World::new();
    let uffd = fresh(&world, &Release::ALL);
    assert!(uffd.api(wanting(Features::THREAD_ID)).is_ok());
    for again in [Features::THREAD_ID, Features::SIGBUS] {
        assert_eq!(uffd.api(wanting(again)), Err(ApiError::NotFresh));
    }
    assert_eq!(uffd.ctx().features(), Features::THREAD_ID);
    let kernels = Uffd::new(&world.space, Features::empty());
    assert_eq!(kernels.api(wanting(Features::empty())), Err(ApiError::NotFresh));
}

#[test]
fn a_handshake_that_fails_leaves_the_context_fresh_and_usable() {
    let world = World::new();
    let range = world.map(1, RW);
    let uffd = fresh(&world, &Release::V6_18);
    let failures = [
        (
            Handshake {
                api: 0xab,
                ..wanting(Features::empty())
            },
            ApiError::UnknownVersion,
        ),
        (wanting(Features::EVENT_FORK), ApiError::NotPermitted),
        (
            wanting(Features::from_bits_retain(1 << 17)),
            ApiError::UnknownFeature,
        ),
        (
            wanting(Features::from_bits_retain(1 << 63)),
            ApiError::UnknownFeature,
        ),
    ];
    for (wanted, why) in failures {
        assert_eq!(uffd.api(wanted), Err(why));
        assert_eq!(linux::api(Err(why)).argument, [0; 3]);
        assert_eq!(uffd.try_read_event(), Err(ReadError::Fresh));
    }
    assert!(uffd.api(wanting(Features::empty())).is_ok());
    assert!(uffd.register(range, Modes::MISSING).is_ok());
}

#[test]
fn an_agreement_that_was_not_concluded_is_not_in_force() {
    let world = World::new();
    let uffd = fresh(&world, &Release::V6_18);
    let agreement = Release::V6_18
        .negotiate(wanting(Features::SIGBUS))
        .expect("it is on offer");
    assert!(!uffd.ctx().is_ready());
    let other = Release::V6_18
        .negotiate(wanting(Features::THREAD_ID))
        .expect("it is on offer");
    assert_eq!(uffd.conclude(&other), Ok(()));
    assert_eq!(uffd.conclude(&agreement), Err(ApiError::NotFresh));
    assert_eq!(uffd.ctx().features(), Features::THREAD_ID);
}

#[test]
fn of_two_handshakes_at_once_one_is_made() {
    for _ in 0..50 {
        let world = World::new();
        let uffd = Arc::new(fresh(&world, &Release::ALL));
        let tasks = [Features::THREAD_ID, Features::EXACT_ADDRESS].map(|features| {
            let uffd = Arc::clone(&uffd);
            world.spawn("monitor", move || uffd.api(wanting(features)).is_ok())
        });
        let made = tasks.map(returned);
        assert!(made[0] != made[1]);
        let in_force = if made[0] {
            Features::THREAD_ID
        } else {
            Features::EXACT_ADDRESS
        };
        assert_eq!(uffd.ctx().features(), in_force);
    }
}

#[test]
fn features_that_were_not_asked_for_are_not_in_force_although_offered() {
    let world = World::new();
    let range = world.map(2, RW);
    let uffd = ready(&world, &Release::V6_18);
    assert!(uffd.register(range, Modes::MISSING | Modes::WP).is_ok());
    let waiter = world.stuck_at(range.start + 0x10);
    assert_eq!(
        uffd.try_read_event(),
        missing(range.start, false),
        "masked, and without a thread"
    );
    assert_eq!(
        uffd.copy(range.start, &source(1, 1), P, FillMode::WP),
        Outcome::Done
    );
    assert!(was_woken(&waiter));
    let waiter = world.stuck_storing_at(range.start);
    assert_eq!(uffd.try_read_event(), write_protected(range.start), "not noted");
    assert_eq!(uffd.remove_write_protection(range, NOW), Ok(()));
    assert!(was_woken(&waiter));
}

#[test]
fn probed_operations_work_although_their_feature_was_not_asked_for() {
    let world = object_world();
    let uffd = ready(&world, &Release::V6_18);
    let object = Object::new(&SHMEM, 2 * P);
    let shared = world.map_memory(Memory::shared(&object), None, 2, RW);
    let anon = world.map(2, RW);
    assert!(uffd.register(shared, Modes::all()).is_ok());
    assert!(uffd.register(anon, Modes::MISSING | Modes::WP).is_ok());
    assert_eq!(uffd.poison(part(anon, 0, 1), NOW), Outcome::Done);
    assert_eq!(uffd.write_protect(shared), Ok(()));
    let moved = uffd.move_pages(
        &world.space,
        page(anon, 1),
        page(anon, 1) - P,
        P,
        MoveMode::empty(),
    );
    assert_eq!(
        moved,
        Outcome::Refused(Refusal::BadSource),
        "it exists: poison cannot move"
    );
}

#[test]
fn a_context_in_the_kernel_is_ready_at_once_with_what_was_asked_and_what_that_implies() {
    let world = World::new();
    let uffd = Uffd::new(&world.space, Features::WP_ASYNC);
    assert!(uffd.ctx().is_ready());
    assert_eq!(
        uffd.ctx().features(),
        Features::WP_ASYNC | Features::WP_UNPOPULATED
    );
    assert_eq!(uffd.try_read_event(), NOTHING);
}
