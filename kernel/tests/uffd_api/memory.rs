//! Which memory can be registered for what, and the ioctls that are named for it.

use std::sync::Arc;

use kernel::mm::cache::Object;
use kernel::mm::memtype::anon::ANON;
use kernel::mm::memtype::guest_memfd::GUEST_MEMFD;
use kernel::mm::memtype::hugetlb::HUGETLB;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::range::VirtRange;
use kernel::mm::space::Memory;
use kernel::uffd::linux;
use kernel::uffd::{Features, Modes, OpSet, RegisterError, Release, Uffd, UnregisterError};

use super::{HUGE, P, fresh, ready, rows, wanting};
use crate::common::kinds::FILE;
use crate::common::{RW, World, object_world};

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
        // What lies before the page that is cut may have gone.
        assert!(uffd.register(range, Modes::MISSING).is_ok());
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
