//! Layout changes on the real machine: a task that forks or unmaps sleeps until a monitor has read of it, and the two sides
//! of a fork share pages under real page tables.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kernel::mm::addr::{PAGE_SIZE, VirtAddr};
use kernel::mm::fault::FaultError;
use kernel::mm::frame::{self, Kind};
use kernel::mm::range::VirtRange;
use kernel::mm::space::Space;
use kernel::mm::uaccess;
use kernel::task;
use kernel::task::spawn::spawn_returning;
use kernel::uffd::{Event, Features, FillMode, Modes, Outcome, ReadError, Refusal, TrapKind, Uffd};

use super::common::{mapped, page, run, task, text};
use crate::{ensure, kernel_test};

const NOW: FillMode = FillMode::empty();

/// The words at the start of each page, as a task of `space` sees them.
fn words(space: &Arc<Space>, region: VirtRange) -> Result<Vec<u64>, String> {
    let pages = region.pages();
    run(space, move || {
        (0..pages)
            .map(|number| uaccess::load(page(region, number)).map_err(text))
            .collect()
    })?
}

/// Has a task of `space` store `first`, `first + 1`, ... at the start of each page.
fn number(space: &Arc<Space>, region: VirtRange, first: u64) -> Result<(), String> {
    let pages = region.pages();
    run(space, move || {
        (0..pages).try_for_each(|number| uaccess::store(page(region, number), first + number).map_err(text))
    })?
}

/// Lets others run until `condition` holds.
fn until(condition: impl Fn() -> bool) {
    while !condition() {
        task::yield_now();
    }
}

kernel_test!(
    fn unmapping_sleeps_until_its_event_is_read() -> Result<(), String> {
        let (space, region) = mapped(2)?;
        let uffd = Uffd::new(&space, Features::EVENT_UNMAP);
        uffd.register(region, Modes::MISSING).map_err(text)?;
        let first = VirtRange::page(region.start);
        let its = Arc::clone(&space);
        let unmapper = task(&space, move || its.unmap(first))?;
        until(|| uffd.is_readable());
        ensure!(space.query(first.start).is_none(), "it is unmapped already");
        let rest = VirtRange::page(region.start + PAGE_SIZE);
        let refused = uffd.zeropage(rest, NOW);
        ensure!(refused == Outcome::Refused(Refusal::Changing), "{refused:?}");
        ensure!(unmapper.task().outcome().is_none(), "its task waits");
        let event = uffd.read_event().map_err(text)?;
        ensure!(event == Event::Unmap { range: first }, "{event:?}");
        unmapper.join().map_err(text)?.map_err(text)?;
        let filled = uffd.zeropage(rest, NOW);
        ensure!(filled == Outcome::Done, "{filled:?}");
        Ok(())
    }
);

kernel_test!(
    fn reader_that_sleeps_is_woken_by_an_event() -> Result<(), String> {
        let (space, region) = mapped(1)?;
        let uffd = Arc::new(Uffd::new(&space, Features::EVENT_UNMAP));
        uffd.register(region, Modes::MISSING).map_err(text)?;
        let its = Arc::clone(&uffd);
        let monitor = spawn_returning("monitor", None, move || its.read_event()).map_err(text)?;
        task::yield_now();
        let its = Arc::clone(&space);
        run(&space, move || its.unmap(region))?.map_err(text)?;
        let event = monitor.join().map_err(text)?;
        ensure!(event == Ok(Event::Unmap { range: region }), "{event:?}");
        Ok(())
    }
);

kernel_test!(
    fn forked_spaces_share_pages_until_one_side_stores() -> Result<(), String> {
        const PAGES: u64 = 64;
        let (space, region) = mapped(PAGES)?;
        number(&space, region, 1)?;
        let anon = || frame::allocator().stats().of(Kind::Anon);
        let before = anon();
        // By a task that has the pages' writable translations loaded, and stores again right away.
        let its = Arc::clone(&space);
        let child = run(&space, move || {
            let child = its.fork().map_err(text)?;
            uaccess::store(region.start, 1000).map_err(text)?;
            Ok::<_, String>(child)
        })??;
        ensure!(
            anon() == before + 1,
            "one page is copied: {before}, then {}",
            anon()
        );
        let last = VirtRange::new(region.end - PAGE_SIZE, region.end);
        number(&child, last, 2000)?;
        let (parents, childs) = (words(&space, region)?, words(&child, region)?);
        let shared = 1..PAGES as usize - 1;
        ensure!(parents[shared.clone()] == childs[shared], "the rest is the same");
        ensure!(
            (parents[0], childs[0]) == (1000, 1),
            "{} and {}",
            parents[0],
            childs[0]
        );
        let end = PAGES as usize - 1;
        ensure!((parents[end], childs[end]) == (PAGES, 2000), "each has its own");
        drop(child);
        // The CPU has the child's tables loaded until a task of another space runs.
        ensure!(
            words(&space, region)? == parents,
            "the parent's pages are what they were"
        );
        ensure!(anon() == before, "the child's pages are gone: {}", anon());
        Ok(())
    }
);

kernel_test!(
    fn fork_sleeps_until_its_event_is_read_and_gives_the_child_a_context() -> Result<(), String> {
        let (space, region) = mapped(2)?;
        let uffd = Uffd::new(&space, Features::EVENT_FORK);
        uffd.register(region, Modes::MISSING).map_err(text)?;
        let its = Arc::clone(&space);
        let forker = task(&space, move || its.fork())?;
        let Event::Fork { uffd: childs } = uffd.read_event().map_err(text)? else {
            return Err("another event".into());
        };
        let child = forker.join().map_err(text)?.map_err(text)?;
        let addr = region.start;
        let toucher = task(&child, move || uaccess::load(addr))?;
        let event = childs.read_event().map_err(text)?;
        let expected = Event::Pagefault {
            kind: TrapKind::Missing,
            write: false,
            addr,
            thread: None,
        };
        ensure!(event == expected, "{event:?}");
        ensure!(
            uffd.try_read_event() == Err(ReadError::WouldBlock),
            "the parent's context knows nothing of it"
        );
        let filled = childs.copy(addr, &[7; PAGE_SIZE as usize], PAGE_SIZE, NOW);
        ensure!(filled == Outcome::Done, "{filled:?}");
        let seen = toucher.join().map_err(text)?.map_err(text)?;
        ensure!(seen == 0x0707_0707_0707_0707, "{seen:#x}");
        uffd.close();
        ensure!(words(&space, region)? == [0, 0], "the parent has none of it");
        Ok(())
    }
);

kernel_test!(
    fn poison_is_inherited_by_a_fork() -> Result<(), String> {
        let (space, region) = mapped(1)?;
        let uffd = Uffd::new(&space, Features::empty());
        uffd.register(region, Modes::MISSING).map_err(text)?;
        let poisoned = uffd.poison(region, NOW);
        ensure!(poisoned == Outcome::Done, "{poisoned:?}");
        let child = space.fork().map_err(text)?;
        let start: VirtAddr = region.start;
        let seen = run(&child, move || uaccess::load(start))?.map_err(|error| error.why);
        ensure!(seen == Err(FaultError::Poisoned), "{seen:?}");
        Ok(())
    }
);
