//! Memory that the host takes away while a guest keeps reading it: with the real tables, and a CPU that caches them.
//!
//! Each test has the guest read the page often enough for its translation to be cached, takes the page away, has somebody else
//! use the frame, and looks at what the guest reads next.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

use hv::state::Registers;
use hv::vcpu::{Fatal, Stop, Vcpu};
use hv::vendor::Vendor;
use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::cache::Object;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::range::VirtRange;
use kernel::mm::space::{Memory, Space};
use kernel::mm::uaccess;
use kernel::uffd::{Event, Features, FillMode, Modes, MoveMode, Outcome, TrapKind, Uffd};

use super::super::guest_test;
use super::{Host, REGION, next_mark, reads_for_ever, run, stores};
use crate::ensure;
use crate::ktest::common::{map, map_pages, task, text};

/// What the guest's page holds at first.
const OURS: u64 = 0x0a11_ce00;
/// What the frames hold that others have taken.
const OTHERS: u64 = 0x0bad_0bad;

/// A guest that reads the first word of `region`, which holds [`OURS`].
fn reader<V: Vendor>(host: &Host<V>, region: VirtRange) -> Result<Vcpu<V>, String> {
    host.show(REGION, region)?;
    poke(&host.space, region, OURS)?;
    let mut vcpu = host.vcpu(Registers {
        rbx: REGION,
        ..Registers::default()
    })?;
    for _ in 0..3 {
        let found = next_mark(&mut vcpu)?;
        ensure!(found == OURS, "the guest begins with {found:#x}");
    }
    Ok(vcpu)
}

/// Stores a word at the start of `range`, as the host.
fn poke(space: &Arc<Space>, range: VirtRange, word: u64) -> Result<(), String> {
    crate::ktest::common::run(space, move || uaccess::store(range.start, word))?.map_err(text)
}

/// Has somebody else use frames that were free a moment ago; they stay in use until the mapping is dropped with its space.
fn reuse_frames() -> Result<Arc<Space>, String> {
    let (space, region) = crate::ktest::common::mapped(64)?;
    crate::ktest::common::run(&space, move || {
        (0..64).try_for_each(|page| uaccess::store(region.start + page * PAGE_SIZE, OTHERS))
    })?
    .map_err(text)?;
    Ok(space)
}

/// The guest reads `expected` now, and goes on to.
fn reads<V: Vendor>(vcpu: &mut Vcpu<V>, expected: u64) -> Result<(), String> {
    let others = reuse_frames()?;
    for _ in 0..3 {
        let found = next_mark(vcpu)?;
        ensure!(
            found == expected,
            "the guest reads {found:#x} instead of {expected:#x}"
        );
    }
    drop(others);
    Ok(())
}

guest_test!(
    fn discarded_page_reads_as_zeros<V>() -> Result<(), String> {
        let host = Host::<V>::new(reads_for_ever())?;
        let region = map_pages(&host.space, 1)?;
        let mut vcpu = reader(&host, region)?;
        host.space.discard(region).map_err(text)?;
        reads(&mut vcpu, 0)?;
        poke(&host.space, region, 5)?;
        reads(&mut vcpu, 5)
    }
);

guest_test!(
    fn unmapped_page_ends_the_guest<V>() -> Result<(), String> {
        let host = Host::<V>::new(reads_for_ever())?;
        let region = map_pages(&host.space, 1)?;
        let mut vcpu = reader(&host, region)?;
        host.space.unmap(region).map_err(text)?;
        let others = reuse_frames()?;
        let stop = run(&mut vcpu);
        drop(others);
        match stop {
            Stop::Broken(broken) if matches!(broken.why, Fatal::Memory { .. }) => Ok(()),
            stop => Err(format!("{stop:?}")),
        }
    }
);

guest_test!(
    fn copy_that_a_store_makes_is_what_the_guest_reads<V>() -> Result<(), String> {
        let host = Host::<V>::new(reads_for_ever())?;
        let region = map_pages(&host.space, 1)?;
        let mut vcpu = reader(&host, region)?;
        let child = host.space.fork().map_err(text)?;
        reads(&mut vcpu, OURS)?;
        // The space gets a copy; the old page is the child's alone.
        poke(&host.space, region, 6)?;
        reads(&mut vcpu, 6)?;
        poke(&child, region, 7)?;
        reads(&mut vcpu, 6)?;
        drop(child);
        reads(&mut vcpu, 6)
    }
);

guest_test!(
    fn page_of_an_object_goes_with_a_hole_and_with_its_end<V>() -> Result<(), String> {
        let host = Host::<V>::new(reads_for_ever())?;
        let object = Object::new(&SHMEM, PAGE_SIZE);
        let region = map(&host.space, Memory::shared(&object), PAGE_SIZE)?;
        let mut vcpu = reader(&host, region)?;
        object.punch(0, PAGE_SIZE).map_err(text)?;
        reads(&mut vcpu, 0)?;
        let (_, written) = object.write(0, &8u64.to_le_bytes());
        written.map_err(text)?;
        reads(&mut vcpu, 8)?;
        object.truncate(0).map_err(text)?;
        match run(&mut vcpu) {
            Stop::Broken(broken) if matches!(broken.why, Fatal::Memory { .. }) => Ok(()),
            stop => Err(format!("{stop:?} behind the object's end")),
        }
    }
);

guest_test!(
    fn moved_page_is_found_where_it_was_moved<V>() -> Result<(), String> {
        let host = Host::<V>::new(reads_for_ever())?;
        let region = map_pages(&host.space, 1)?;
        let mut vcpu = reader(&host, region)?;
        let target = map_pages(&host.space, 1)?;
        let uffd = Uffd::new(&host.space, Features::empty());
        uffd.register(target, Modes::MISSING).map_err(text)?;
        let space = Arc::clone(&host.space);
        let moved = task(&host.space, move || {
            let outcome = uffd.move_pages(&space, target.start, region.start, PAGE_SIZE, MoveMode::empty());
            (outcome, uaccess::load(target.start))
        })?;
        let (outcome, found) = crate::ktest::common::joined(moved)?;
        ensure!(outcome == Outcome::Done, "{outcome:?}");
        ensure!(found == Ok(OURS), "{found:?} where it was moved");
        reads(&mut vcpu, 0)
    }
);

guest_test!(
    fn store_to_a_protected_page_waits_for_the_monitor<V>() -> Result<(), String> {
        let host = Host::<V>::new(stores())?;
        let region = map_pages(&host.space, 1)?;
        host.show(REGION, region)?;
        let mut vcpu = host.vcpu(Registers {
            rbx: REGION,
            rcx: 1,
            ..Registers::default()
        })?;
        ensure!(next_mark(&mut vcpu)? == 1, "the first store");
        ensure!(
            next_mark(&mut vcpu)? == 2,
            "the second store, by a cached translation"
        );
        let uffd = Arc::new(Uffd::new(&host.space, Features::empty()));
        uffd.register(region, Modes::WP).map_err(text)?;
        uffd.write_protect(region).map_err(text)?;
        let channel = Arc::clone(&uffd);
        let monitor = task(&host.space, move || {
            let event = channel.read_event().map_err(text)?;
            // What the guest has not stored yet.
            let before = uaccess::load(region.start).map_err(text)?;
            channel
                .remove_write_protection(region, FillMode::empty())
                .map_err(text)?;
            Ok::<_, String>((event, before))
        })?;
        ensure!(next_mark(&mut vcpu)? == 3, "the third store");
        let (event, before) = crate::ktest::common::joined(monitor)??;
        let told = matches!(
            event,
            Event::Pagefault { kind: TrapKind::WriteProtect, write: true, addr, .. } if addr == region.start
        );
        ensure!(told, "{event:?}");
        ensure!(before == 2, "the page held {before} when the monitor looked");
        Ok(())
    }
);
