//! Address spaces as tasks see them: what appears on a touch, what disappears, and what the translation caches are told.

mod common;

use common::{RW, World, anon_frames, bad_ranges, page, part, returned};
use kernel::arch::host::{Config, Mode, SoftMachine, task_memory};
use kernel::mm::addr::{PAGE_SIZE, USER_TOP, VirtAddr};
use kernel::mm::fault::FaultError;
use kernel::mm::frame::{Kind, allocator};
use kernel::mm::kernel as mm;
use kernel::mm::memtype::anon::ANON;
use kernel::mm::pt::{Entry, Prot};
use kernel::mm::space::{DiscardError, MapError, MapRequest, Memory, Privilege, ProtectError, UnmapError};
use kernel::mm::uaccess::{self, AccessError};

fn frame_of(world: &World, addr: VirtAddr) -> Option<kernel::mm::addr::Pfn> {
    match world.space.entry(addr).0 {
        Entry::Leaf(leaf) => Some(leaf.frame),
        _ => None,
    }
}

fn refused(addr: VirtAddr, why: FaultError) -> AccessError {
    AccessError { addr, why }
}

#[test]
fn mapping_memory_takes_no_frames() {
    let world = World::new();
    let range = world.map(1000, RW);
    assert_eq!((range.pages(), anon_frames()), (1000, 0));
}

#[test]
fn untouched_memory_reads_as_zeros_from_one_shared_page() {
    let world = World::new();
    let range = world.map(8, RW);
    world.run(|| {
        for i in 0..8 {
            assert_eq!(uaccess::load(page(range, i) + 8 * i), Ok(0));
        }
    });
    let zero = Some(mm::get().zero_frame());
    assert!((0..8).all(|i| frame_of(&world, page(range, i)) == zero));
    assert_eq!(anon_frames(), 0);
}

#[test]
fn the_first_store_gets_a_page_of_its_own_full_of_zeros() {
    let world = World::new();
    let range = world.map(2, RW);
    world.run(|| {
        assert_eq!(uaccess::store(range.start + 16, 7), Ok(()));
        let words = [0, 8, 16, 24].map(|offset| uaccess::load(range.start + offset));
        assert_eq!(words, [Ok(0), Ok(0), Ok(7), Ok(0)]);
    });
    assert_eq!(anon_frames(), 1);
}

#[test]
fn a_store_after_a_load_leaves_the_shared_page_zero() {
    let world = World::new();
    let range = world.map(2, RW);
    world.run(|| {
        assert_eq!(uaccess::load(range.start), Ok(0));
        assert_eq!(uaccess::store(range.start, 5), Ok(()));
        assert_eq!(
            (uaccess::load(range.start), uaccess::load(page(range, 1))),
            (Ok(5), Ok(0))
        );
    });
    assert_ne!(frame_of(&world, range.start), Some(mm::get().zero_frame()));
}

#[test]
fn copies_cross_page_boundaries() {
    let world = World::new();
    let range = world.map(3, RW);
    let text: Vec<u8> = (0..PAGE_SIZE as usize + 100).map(|i| (i * 7) as u8).collect();
    let at = range.start + (PAGE_SIZE - 50);
    world.run(|| {
        assert_eq!(uaccess::write(at, &text), Ok(()));
        let mut back = vec![0; text.len()];
        assert_eq!(uaccess::read(at, &mut back), Ok(()));
        assert_eq!(back, text);
    });
}

#[test]
fn unmapped_memory_is_gone_and_its_frames_are_free() {
    let world = World::new();
    let range = world.map(200, RW);
    let tables = allocator().stats().of(Kind::Table);
    world.run(|| {
        (0..200).for_each(|i| uaccess::store(page(range, i), i).expect("mapped"));
        assert_eq!(anon_frames(), 200);
        assert_eq!(world.space.unmap(range), Ok(()));
        assert_eq!(
            uaccess::load(range.start),
            Err(refused(range.start, FaultError::Unmapped))
        );
    });
    assert_eq!((anon_frames(), world.space.areas().len()), (0, 0));
    assert!(
        allocator().stats().of(Kind::Table) <= tables + 1,
        "only the node below the root may stay"
    );
}

#[test]
fn small_areas_that_come_and_go_leave_no_nodes() {
    let world = World::new();
    let nodes = || allocator().stats().of(Kind::Table);
    let neighbour = world.map_at(Some(VirtAddr::new(0x10_0000_0000)), 1, RW);
    world.run(|| {
        uaccess::store(neighbour.start, 1).expect("mapped");
        let before = nodes();
        for i in 1..20 {
            // In the neighbour's 1 GiB, each in a 2 MiB of its own, and one beside the neighbour itself.
            for at in [neighbour.start + i * (2 << 20), neighbour.start + PAGE_SIZE] {
                let area = world.map_at(Some(at), 1, RW);
                uaccess::store(area.start, i).expect("mapped");
                assert_eq!(world.space.unmap(area), Ok(()));
                assert_eq!(nodes(), before);
            }
        }
        assert_eq!(uaccess::load(neighbour.start), Ok(1));
    });
}

#[test]
fn unmapping_the_middle_leaves_both_ends() {
    let world = World::new();
    let range = world.map(5, RW);
    world.run(|| {
        (0..5).for_each(|i| uaccess::store(page(range, i), i).expect("mapped"));
        assert_eq!(world.space.unmap(part(range, 1, 3)), Ok(()));
        let loads: Vec<_> = (0..5).map(|i| uaccess::load(page(range, i)).ok()).collect();
        assert_eq!(loads, [Some(0), None, None, None, Some(4)]);
    });
    assert_eq!(world.space.areas().len(), 2);
}

#[test]
fn unmapping_holes_is_fine() {
    let world = World::new();
    let range = world.map(8, RW);
    assert_eq!(world.space.unmap(part(range, 2, 2)), Ok(()));
    assert_eq!(world.space.unmap(range), Ok(()));
    assert_eq!(world.space.unmap(range), Ok(()));
}

#[test]
fn bad_ranges_are_refused() {
    let world = World::new();
    let range = world.map(4, RW);
    for bad in bad_ranges(range) {
        assert_eq!(world.space.unmap(bad), Err(UnmapError::BadRange), "{bad:?}");
        assert_eq!(world.space.discard(bad), Err(DiscardError::BadRange), "{bad:?}");
        assert_eq!(
            world.space.protect(bad, RW),
            Err(ProtectError::BadRange),
            "{bad:?}"
        );
    }
}

#[test]
fn discarded_pages_read_as_zeros_again() {
    let world = World::new();
    let range = world.map(100, RW);
    world.run(|| {
        (0..100).for_each(|i| uaccess::store(page(range, i), 9).expect("mapped"));
        assert_eq!(world.space.discard(part(range, 10, 80)), Ok(()));
        assert_eq!(anon_frames(), 20);
        let nines = (0..100)
            .filter(|i| uaccess::load(page(range, *i)) == Ok(9))
            .count();
        assert_eq!(nines, 20);
    });
}

#[test]
fn discarding_around_a_hole_drops_both_sides_and_reports_it() {
    let world = World::new();
    let range = world.map(4, RW);
    world.run(|| {
        (0..4).for_each(|i| uaccess::store(page(range, i), 9).expect("mapped"));
        world.space.unmap(part(range, 2, 1)).expect("mapped");
        assert_eq!(world.space.discard(range), Err(DiscardError::NotMapped));
        assert_eq!(anon_frames(), 0);
        assert_eq!(uaccess::load(page(range, 3)), Ok(0));
    });
}

#[test]
fn taking_the_right_to_write_away_and_giving_it_back_keeps_contents() {
    let world = World::new();
    let range = world.map(2, RW);
    world.run(|| {
        assert_eq!(uaccess::store(range.start, 3), Ok(()));
        assert_eq!(world.space.protect(range, Prot::READ), Ok(()));
        assert_eq!(uaccess::load(range.start), Ok(3));
        assert_eq!(
            uaccess::store(range.start, 4),
            Err(refused(range.start, FaultError::Forbidden))
        );
        assert_eq!(world.space.protect(range, Prot::empty()), Ok(()));
        assert_eq!(
            uaccess::load(range.start),
            Err(refused(range.start, FaultError::Forbidden))
        );
        assert_eq!(world.space.protect(range, RW), Ok(()));
        assert_eq!(uaccess::load(range.start), Ok(3));
        assert_eq!(uaccess::store(range.start, 5), Ok(()));
        assert_eq!(uaccess::load(range.start), Ok(5));
    });
    assert_eq!(anon_frames(), 1, "the page was not copied: nobody else had it");
}

#[test]
fn protecting_part_of_an_area_splits_it_and_the_same_rights_merge_it_again() {
    let world = World::new();
    let range = world.map(6, RW);
    world
        .space
        .protect(part(range, 2, 2), Prot::READ)
        .expect("mapped");
    assert_eq!(world.space.areas().len(), 3);
    world.space.protect(part(range, 2, 2), RW).expect("mapped");
    assert_eq!(world.space.areas().len(), 1);
}

#[test]
fn protecting_a_hole_changes_nothing() {
    let world = World::new();
    let range = world.map(4, RW);
    world.space.unmap(part(range, 2, 1)).expect("mapped");
    assert_eq!(
        world.space.protect(range, Prot::READ),
        Err(ProtectError::NotMapped)
    );
    assert!(world.space.areas().iter().all(|area| area.prot == RW));
}

#[test]
fn what_cannot_be_executed_is_not() {
    let world = World::new();
    let (data, code) = (world.map(1, RW), world.map(1, Prot::READ | Prot::EXEC));
    world.run(|| {
        assert!(!task_memory::fetch(data.start, Mode::Supervisor));
        assert!(task_memory::fetch(code.start, Mode::Supervisor));
        assert_eq!(
            uaccess::store(code.start, 1),
            Err(refused(code.start, FaultError::Forbidden))
        );
    });
}

#[test]
fn what_may_be_written_or_executed_may_be_read() {
    let world = World::new();
    let (data, code) = (world.map(1, Prot::WRITE), world.map(1, RW));
    world.space.protect(code, Prot::EXEC).expect("mapped");
    world.run(|| {
        assert_eq!(uaccess::load(data.start), Ok(0));
        assert_eq!(uaccess::store(data.start, 1), Ok(()));
        assert_eq!(uaccess::load(code.start), Ok(0));
        assert!(task_memory::fetch(code.start, Mode::Supervisor));
    });
}

#[test]
fn pages_of_kernel_tasks_are_not_for_user_mode_and_those_of_processes_are() {
    for (privilege, reachable) in [(Privilege::Kernel, false), (Privilege::User, true)] {
        let world = World::with(Config::default(), privilege);
        let range = world.map(1, RW);
        world.run(|| {
            assert_eq!(uaccess::store(range.start, 1), Ok(()));
            let reached =
                SoftMachine::current().probe(range.start, kernel::mm::fault::Access::Read, Mode::User);
            assert_eq!(reached.is_ok(), reachable, "{privilege:?}");
        });
    }
}

#[test]
fn mapping_is_refused_where_it_makes_no_sense() {
    let world = World::new();
    let map = |at: Option<u64>, len| {
        world.space.map(MapRequest {
            at: at.map(VirtAddr::new),
            len,
            prot: RW,
            memory: Memory::Own(&ANON),
        })
    };
    assert_eq!(map(None, 0), Err(MapError::BadLength));
    assert_eq!(map(None, u64::MAX), Err(MapError::BadLength));
    assert_eq!(map(None, USER_TOP.as_u64() + PAGE_SIZE), Err(MapError::BadLength));
    assert_eq!(map(Some(0x20_0001), PAGE_SIZE), Err(MapError::BadAddress));
    assert_eq!(map(Some(0), PAGE_SIZE), Err(MapError::BadAddress));
    assert_eq!(
        map(Some(USER_TOP.as_u64() - PAGE_SIZE), 2 * PAGE_SIZE),
        Err(MapError::BadAddress)
    );
    assert_eq!(map(Some(!0xfff), PAGE_SIZE), Err(MapError::BadAddress));
    assert_eq!(
        map(Some(USER_TOP.as_u64() - PAGE_SIZE), PAGE_SIZE).map(|range| range.end),
        Ok(USER_TOP)
    );
    assert_eq!(
        map(Some(USER_TOP.as_u64() - PAGE_SIZE), 1),
        Err(MapError::Occupied)
    );
}

#[test]
fn a_length_that_is_no_multiple_of_the_page_size_is_rounded_up() {
    let world = World::new();
    let range = world.space.map(MapRequest {
        at: None,
        len: 5000,
        prot: RW,
        memory: Memory::Own(&ANON),
    });
    assert_eq!(range.map(|range| range.len()), Ok(2 * PAGE_SIZE));
}

#[test]
fn areas_mapped_side_by_side_become_one() {
    let world = World::new();
    let first = world.map(2, RW);
    world.map_at(Some(first.end - 4 * PAGE_SIZE), 2, RW);
    assert_eq!(world.space.areas().len(), 1);
}

#[test]
fn addresses_above_the_tasks_half_are_refused_before_they_are_touched() {
    let world = World::new();
    world.run(|| {
        for addr in [USER_TOP.as_u64(), 0xffff_8000_0000_0000, u64::MAX - 7] {
            let addr = VirtAddr::new(addr & !7);
            assert_eq!(uaccess::load(addr), Err(refused(addr, FaultError::Unmapped)));
            assert_eq!(uaccess::store(addr, 0), Err(refused(addr, FaultError::Unmapped)));
        }
    });
    assert_eq!(world.space.fault_count(), 0);
}

#[test]
fn a_task_without_a_space_reaches_nothing() {
    let _machine = SoftMachine::start(Config::default());
    let addr = VirtAddr::new(0x1234_5000);
    assert_eq!(uaccess::load(addr), Err(refused(addr, FaultError::Unmapped)));
}

#[test]
fn running_out_of_frames_is_an_error_of_the_access() {
    let world = World::new();
    let range = world.map(64, RW);
    world.run(|| {
        assert_eq!(uaccess::store(range.start, 1), Ok(()));
        allocator().inject_failure(0);
        let next = page(range, 1);
        assert_eq!(
            uaccess::store(next, 1),
            Err(refused(next, FaultError::OutOfMemory))
        );
        assert_eq!(uaccess::load(range.start), Ok(1));
        allocator().stop_injection();
        assert_eq!(uaccess::store(next, 1), Ok(()));
    });
}

#[test]
fn every_failure_on_the_way_of_a_fault_leaves_no_trace() {
    // The first touch of a fresh space needs three nodes and a page.
    for successes in 0..4 {
        let world = World::new();
        let range = world.map(1, RW);
        world.run(|| {
            allocator().inject_failure(successes);
            assert_eq!(
                uaccess::store(range.start, 1),
                Err(refused(range.start, FaultError::OutOfMemory))
            );
            allocator().stop_injection();
            assert_eq!((uaccess::load(range.start), anon_frames()), (Ok(0), 0));
        });
    }
}

#[test]
fn two_tasks_of_a_space_see_each_others_stores() {
    let world = World::new();
    let range = world.map(1, RW);
    assert_eq!(returned(world.spawn_store(range.start, 11)), Ok(()));
    assert_eq!(returned(world.spawn_load(range.start)), Ok(11));
}

#[test]
fn spaces_do_not_see_each_other() {
    let world = World::new();
    let other = kernel::mm::space::Space::new(Privilege::Kernel).expect("RAM is plenty");
    let range = world.map(1, RW);
    assert_eq!(returned(world.spawn_store(range.start, 11)), Ok(()));
    let task =
        kernel::task::spawn::spawn_returning("stranger", Some(other), move || uaccess::load(range.start));
    let result = returned(task.expect("the host has threads"));
    assert_eq!(result, Err(refused(range.start, FaultError::Unmapped)));
}

#[test]
fn many_tasks_touching_the_same_fresh_pages_agree_on_them() {
    let world = World::new();
    let range = world.map(16, RW);
    let tasks: Vec<_> = (0..6u64)
        .map(|n| {
            world.spawn("toucher", move || {
                for i in 0..16 {
                    uaccess::store(page(range, i) + 8 * n, n + 1).expect("mapped");
                    uaccess::load(page(range, i)).expect("mapped");
                }
            })
        })
        .collect();
    tasks.into_iter().for_each(|task| returned(task));
    assert_eq!(anon_frames(), 16, "one frame for each page");
    world.run(|| {
        for (i, n) in (0..16).flat_map(|i| (0..6).map(move |n| (i, n))) {
            assert_eq!(uaccess::load(page(range, i) + 8 * n), Ok(n + 1));
        }
    });
}
