//! Contexts that look like older releases of Linux.

use kernel::mm::cache::Object;
use kernel::mm::memtype::anon::ANON;
use kernel::mm::memtype::guest_memfd::GUEST_MEMFD;
use kernel::mm::memtype::hugetlb::HUGETLB;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::range::VirtRange;
use kernel::mm::space::{Memory, PageRun, ScanRequest};
use kernel::uffd::linux;
use kernel::uffd::release::RELEASES;
use kernel::uffd::{
    Features, FillMode, Flags, Ioctls, Modes, MoveMode, OpSet, Outcome, Refusal, Release, Uffd, Unavailable,
    UnknownFlag, WriteProtectError,
};

use super::{HUGE, NOW, P, fresh, ready, rows, wanting};
use crate::common::kinds::FILE;
use crate::common::{RW, World, answer, object_world, part, source};

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
