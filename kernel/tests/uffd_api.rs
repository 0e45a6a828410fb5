//! The handshake, what a fresh context refuses, and what contexts offer that look like older releases of Linux. What is said
//! of 6.18 was checked there. Each test is named after what it claims.

mod common;

use std::sync::Arc;

use common::kinds::FILE;
use common::{
    RW, World, answer, missing, object_world, page, part, returned, source, until_it_waits, was_woken,
    write_protected,
};
use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::cache::Object;
use kernel::mm::memtype::anon::ANON;
use kernel::mm::memtype::guest_memfd::GUEST_MEMFD;
use kernel::mm::memtype::hugetlb::HUGETLB;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::range::VirtRange;
use kernel::mm::space::{Memory, PageRun, ScanRequest};
use kernel::uffd::api::API_VERSION;
use kernel::uffd::linux::{self, Poll};
use kernel::uffd::release::RELEASES;
use kernel::uffd::{
    ApiError, Event, Features, FillMode, Flags, Handshake, Ioctls, Modes, MoveMode, OpSet, Outcome,
    ReadError, Refusal, RegisterError, Release, Uffd, Unavailable, UnknownFlag, UnregisterError, WakeError,
    WriteProtectError,
};

const P: u64 = PAGE_SIZE;
const NOW: FillMode = FillMode::empty();
const HUGE: u64 = 512;
const NOTHING: Result<Event, ReadError> = Err(ReadError::WouldBlock);

fn wanting(features: Features) -> Handshake {
    Handshake {
        api: API_VERSION,
        features,
        may_trace: false,
    }
}

fn fresh(world: &World, release: &'static Release) -> Uffd {
    Uffd::open(&world.space, Flags::empty(), release).expect("no flags")
}

/// A context that looks like `release`, ready and with no features.
fn ready(world: &World, release: &'static Release) -> Uffd {
    let uffd = fresh(world, release);
    assert!(uffd.api(wanting(Features::empty())).is_ok());
    uffd
}

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
fn the_flag_for_user_mode_is_einval_before_5_11() {
    let world = World::new();
    for release in RELEASES {
        let opened = Uffd::open(&world.space, Flags::USER_MODE_ONLY, release);
        let old = ["4.11", "5.7"].contains(&release.name);
        assert_eq!(opened.is_ok(), !old, "{}", release.name);
        if let Err(error) = opened {
            assert_eq!(error, UnknownFlag);
        }
        let odd = Flags::from_bits_retain(1 << 5);
        assert!(Uffd::open(&world.space, odd, release).is_err());
    }
}

#[test]
fn releases_are_found_by_name() {
    for release in RELEASES {
        assert_eq!(Release::named(release.name), Some(release));
    }
    assert_eq!(Release::named("6.5"), None);
}

/// What registering `pages` of `memory` in each mode from 1 to 7 answers: the ioctls that Linux names, or the error.
fn rows(
    world: &World,
    release: &'static Release,
    memory: &Memory,
    pages: u64,
) -> [Result<u64, RegisterError>; 7] {
    core::array::from_fn(|i| {
        let modes = Modes::from_bits_truncate(i as u8 + 1);
        let range = world.map_memory(memory.clone(), None, pages, RW);
        let uffd = ready(world, release);
        let answer = uffd.register_areas(range, modes);
        drop(uffd);
        world.space.unmap(range).expect("mapped");
        answer.map(|found| linux::register_ioctls(release, modes, found.basic).bits())
    })
}

const NO: Result<u64, RegisterError> = Err(RegisterError::Unsupported);

#[test]
fn modes_and_ioctls_of_every_memory_are_those_of_6_18() {
    let world = object_world();
    let shmem = Object::new(&SHMEM, P);
    let huge = Object::new(&HUGETLB, HUGE * P);
    let base = [0x13c, 0x17c, 0x17c].map(Ok);
    let full = [0x13c, 0x17c, 0x17c, 0x1bc, 0x1bc, 0x1fc, 0x1fc].map(Ok);
    let basic = [0x10c, 0x14c, 0x14c, 0x18c, 0x18c, 0x1cc, 0x1cc].map(Ok);
    let anon = [base[0], base[1], base[2], NO, NO, NO, NO];
    let table = [
        (Memory::Own(&ANON), 1, anon),
        (Memory::shared(&shmem), 1, full),
        (Memory::private(&shmem), 1, full),
        (Memory::shared(&huge), HUGE, basic),
        (Memory::private(&huge), HUGE, basic),
        (Memory::Own(&FILE), 1, [NO; 7]),
        (Memory::shared(&Object::new(&GUEST_MEMFD, P)), 1, [NO; 7]),
    ];
    for (memory, pages, expected) in table {
        assert_eq!(
            rows(&world, &Release::V6_18, &memory, pages),
            expected,
            "{memory:?}"
        );
    }
}

#[test]
fn files_whose_stores_are_noted_are_said_to_have_every_ioctl() {
    let world = object_world();
    let uffd = fresh(&world, &Release::V6_18);
    assert!(uffd.api(wanting(Features::WP_ASYNC)).is_ok());
    let guest = Object::new(&GUEST_MEMFD, P);
    for memory in [Memory::Own(&FILE), Memory::shared(&guest)] {
        let range = world.map_memory(memory, None, 1, RW);
        let found = uffd.register_areas(range, Modes::WP).expect("for WP alone");
        assert_eq!(found.ops, OpSet::WRITEPROTECT);
        let named = linux::register_ioctls(&Release::V6_18, Modes::WP, found.basic);
        assert_eq!(named.bits(), 0x17c);
    }
}

#[test]
fn mixed_ranges_register_what_all_of_them_can_and_name_the_ioctls_of_the_poorest() {
    let world = object_world();
    let shmem = Object::new(&SHMEM, P);
    let huge = Object::new(&HUGETLB, HUGE * P);
    let top = world.map_memory(Memory::shared(&huge), None, HUGE, RW);
    let anon = world.map_at(Some(top.start - P), 1, RW);
    let shared = world.map_memory(Memory::shared(&shmem), Some(anon.start - P), 1, RW);
    let ask = |range, modes| {
        let uffd = ready(&world, &Release::V6_18);
        let found = uffd.register_areas(range, modes)?;
        Ok(linux::register_ioctls(&Release::V6_18, modes, found.basic).bits())
    };
    let base = VirtRange::new(shared.start, anon.end);
    assert_eq!(ask(base, Modes::MISSING), Ok(0x13c));
    assert_eq!(ask(base, Modes::MISSING | Modes::MINOR), NO);
    let with_huge = VirtRange::new(anon.start, top.end);
    assert_eq!(ask(with_huge, Modes::MISSING | Modes::WP), Ok(0x14c));
}

#[test]
fn a_range_that_cuts_a_huge_page_is_einval_also_in_a_hole_before_it() {
    let world = object_world();
    let huge = Object::new(&HUGETLB, 2 * HUGE * P);
    let range = world.map_memory(Memory::shared(&huge), None, 2 * HUGE, RW);
    let uffd = Uffd::new(&world.space, Features::empty());
    let bad = [
        VirtRange::new(range.start + P, range.end),
        VirtRange::new(range.start, range.end - P),
        VirtRange::new(range.start, range.start + P),
        VirtRange::new(range.start - P, range.end),
    ];
    for bad in bad {
        assert_eq!(
            uffd.register(bad, Modes::MISSING),
            Err(RegisterError::Misaligned),
            "{bad:?}"
        );
    }
    let half = VirtRange::new(range.start, range.start + HUGE * P);
    assert!(uffd.register(half, Modes::MISSING).is_ok());
    let past = VirtRange::new(range.start, range.end + 5 * P);
    assert!(
        uffd.register(past, Modes::MISSING).is_ok(),
        "its end lies in a hole"
    );
    for bad in bad {
        assert_eq!(uffd.unregister(bad), Err(UnregisterError::Misaligned), "{bad:?}");
    }
    assert_eq!(uffd.unregister(half), Ok(()));
}

#[test]
fn a_shared_mapping_that_can_never_be_written_is_eperm_and_a_type_that_refuses_einval_before_that() {
    let world = object_world();
    let shmem = Object::new(&SHMEM, P);
    let memory = |object: &Arc<Object>| Memory::Object {
        object: Arc::clone(object),
        offset: 0,
        sharing: kernel::mm::vma::Sharing::Shared,
        read_only: true,
    };
    let range = world.map_memory(memory(&shmem), None, 1, kernel::mm::pt::Prot::READ);
    let uffd = Uffd::new(&world.space, Features::empty());
    for modes in (1..8).map(Modes::from_bits_truncate) {
        let error = uffd.register(range, modes).expect_err("it can never be written");
        assert_eq!(error, RegisterError::ReadOnly, "{modes:?}");
        assert_eq!(linux::register(error).number(), 1);
    }
    let guest = Object::new(&GUEST_MEMFD, P);
    let range = world.map_memory(memory(&guest), None, 1, kernel::mm::pt::Prot::READ);
    assert_eq!(uffd.register(range, Modes::WP), Err(RegisterError::Unsupported));
}

#[test]
fn modes_that_mean_nothing_are_einval_before_the_range_is_looked_at() {
    let world = World::new();
    let bad = VirtRange {
        start: kernel::mm::addr::VirtAddr::new(1),
        end: kernel::mm::addr::VirtAddr::new(1),
    };
    let uffd = Uffd::new(&world.space, Features::empty());
    for modes in [8, 9, 0x80] {
        assert_eq!(
            uffd.register(bad, Modes::from_bits_retain(modes)),
            Err(RegisterError::UnknownMode)
        );
    }
    let unknown = [("4.11", 4), ("5.7", 4)];
    for (name, modes) in unknown {
        let uffd = ready(&world, Release::named(name).expect("listed"));
        assert_eq!(
            uffd.register(bad, Modes::from_bits_retain(modes)),
            Err(RegisterError::UnknownMode),
            "{name}"
        );
    }
}

/// Modes of 1 to 7 that each memory could be registered with: anonymous, shared, huge.
fn accepted(world: &World, release: &'static Release) -> [Vec<u8>; 3] {
    let shmem = Object::new(&SHMEM, P);
    let huge = Object::new(&HUGETLB, HUGE * P);
    let memories = [
        (Memory::Own(&ANON), 1),
        (Memory::shared(&shmem), 1),
        (Memory::shared(&huge), HUGE),
    ];
    memories.map(|(memory, pages)| {
        let rows = rows(world, release, &memory, pages);
        (1..8).filter(|modes| rows[*modes as usize - 1].is_ok()).collect()
    })
}

#[test]
fn each_release_registers_the_modes_that_it_had_on_the_memory_that_it_had_them_for() {
    let world = object_world();
    let all = || (1..8).collect::<Vec<u8>>();
    let table = [
        ("4.11", [vec![1], vec![1], vec![1]]),
        ("5.7", [vec![1, 2, 3], vec![1], vec![1]]),
        ("5.13", [vec![1, 2, 3], vec![1], vec![1, 4, 5]]),
        ("6.6", [vec![1, 2, 3], all(), all()]),
        ("6.8", [vec![1, 2, 3], all(), all()]),
        ("6.18", [vec![1, 2, 3], all(), all()]),
        ("all", [vec![1, 2, 3], all(), all()]),
    ];
    for (name, expected) in table {
        let release = Release::named(name).expect("listed");
        assert_eq!(accepted(&world, release), expected, "{name}");
    }
}

#[test]
fn only_a_context_that_looks_like_no_linux_registers_guest_memory() {
    let world = object_world();
    let guest = Object::new(&GUEST_MEMFD, P);
    for release in RELEASES {
        let range = world.map_memory(Memory::shared(&guest), None, 1, RW);
        let uffd = ready(&world, release);
        assert_eq!(
            uffd.register(range, Modes::MISSING | Modes::MINOR).is_ok(),
            release.name == "all",
            "{}",
            release.name
        );
    }
}

#[test]
fn commands_that_a_release_did_not_have_are_einval_whatever_their_arguments() {
    let newer = [
        ("4.11", &[6, 7, 8, 5][..]),
        ("5.7", &[7, 8, 5]),
        ("5.13", &[8, 5]),
        ("6.6", &[5]),
        ("6.8", &[]),
        ("6.18", &[]),
        ("all", &[]),
    ];
    let world = World::new();
    let range = world.map(2, RW);
    let one = part(range, 0, 1);
    let refused = |outcome| {
        outcome == Outcome::Refused(Refusal::Unavailable(Unavailable::NotOffered))
            && answer(outcome, P) == (Some(22), None)
    };
    for (name, lacking) in newer {
        let uffd = ready(&world, Release::named(name).expect("listed"));
        assert!(uffd.register(range, Modes::MISSING).is_ok());
        let there: Vec<(u32, bool)> = vec![
            (3, !refused(uffd.copy(range.end, &[], P, NOW))),
            (4, !refused(uffd.zeropage(VirtRange::page(range.end), NOW))),
            (
                5,
                !refused(uffd.move_pages(&world.space, range.end, one.start, P, MoveMode::empty())),
            ),
            (
                6,
                uffd.write_protect(one) != Err(WriteProtectError::Unavailable(Unavailable::NotOffered)),
            ),
            (7, !refused(uffd.cont(one, NOW))),
            (8, !refused(uffd.poison(VirtRange::page(range.end), NOW))),
        ];
        for (number, there) in there {
            assert_eq!(there, !lacking.contains(&number), "command {number} of {name}");
        }
        assert_eq!(uffd.wake(range), Ok(()));
        assert_eq!(uffd.unregister(range), Ok(()));
    }
}

#[test]
fn filling_with_protection_came_with_5_7_and_for_continue_with_6_4() {
    let world = object_world();
    let object = Object::new(&SHMEM, P);
    let unknown = Outcome::Refused(Refusal::UnknownMode);
    for release in RELEASES {
        let uffd = ready(&world, release);
        let anon = world.map(1, RW);
        assert!(uffd.register(anon, Modes::MISSING).is_ok());
        let outcome = uffd.copy(anon.start, &source(1, 1), P, FillMode::WP);
        assert_eq!(outcome == unknown, release.name == "4.11", "{}", release.name);
        let shared = world.map_memory(Memory::shared(&object), None, 1, RW);
        assert!(uffd.register(shared, Modes::MISSING).is_ok());
        if release.ioctls.contains(Ioctls::CONTINUE) {
            let outcome = uffd.cont(shared, FillMode::WP);
            assert_eq!(outcome == unknown, release.name == "5.13", "{}", release.name);
        }
    }
}

#[test]
fn zeropage_of_shared_memory_came_with_4_14() {
    let world = object_world();
    for release in RELEASES {
        let object = Object::new(&SHMEM, P);
        let range = world.map_memory(Memory::shared(&object), None, 1, RW);
        let uffd = ready(&world, release);
        let found = uffd.register_areas(range, Modes::MISSING).expect("it had that");
        let named = linux::register_ioctls(release, Modes::MISSING, found.basic);
        let outcome = uffd.zeropage(range, NOW);
        if release.name == "4.11" {
            assert_eq!(outcome, Outcome::Refused(Refusal::Unsupported));
            assert_eq!(answer(outcome, P), (Some(22), Some(-22)));
            assert!(!named.contains(Ioctls::ZEROPAGE) && !found.ops.contains(OpSet::ZEROPAGE));
        } else {
            assert_eq!(outcome, Outcome::Done, "{}", release.name);
            assert!(named.contains(Ioctls::ZEROPAGE));
        }
    }
}

#[test]
fn noting_stores_came_with_6_7_and_files_could_be_registered_for_it_then() {
    let world = World::new();
    let range = world.map_type(&FILE, None, 1, RW);
    for release in RELEASES {
        let uffd = fresh(&world, release);
        let noted = uffd.api(wanting(Features::WP_ASYNC)).is_ok();
        let since = ["6.8", "6.18", "all"].contains(&release.name);
        assert_eq!(noted, since, "{}", release.name);
        if noted {
            assert!(uffd.register(range, Modes::WP).is_ok());
            let request = ScanRequest::collect_written(range);
            assert!(world.space.scan(&request, &mut [PageRun::EMPTY]).is_ok());
        }
    }
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
                kind: kernel::uffd::TrapKind::Missing,
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
