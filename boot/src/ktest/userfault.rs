//! The userfault channel on the real machine: real page faults, real switches between a faulting task and its monitor.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use kernel::mm::addr::{PAGE_SIZE, VirtAddr};
use kernel::mm::fault::FaultError;
use kernel::mm::frame;
use kernel::mm::range::VirtRange;
use kernel::mm::space::Space;
use kernel::mm::uaccess::{self, AccessError};
use kernel::sync::SpinLock;
use kernel::task;
use kernel::task::spawn::{JoinHandle, spawn_returning};
use kernel::uffd::{
    Delivery, Event, Features, FillMode, Handled, Modes, Outcome, ReadError, Refusal, TrapKind, Uffd, Upcall,
};

use super::common::{content, empty_space, joined, map_pages, mapped, page, run, task, text};
use crate::{ensure, kernel_test};

/// A space with a registered region.
pub(super) struct Fixture {
    pub space: Arc<Space>,
    pub region: VirtRange,
    pub uffd: Arc<Uffd>,
}

impl Fixture {
    pub fn new(pages: u64) -> Result<Self, String> {
        Self::with(pages, Modes::MISSING)
    }

    fn with(pages: u64, modes: Modes) -> Result<Self, String> {
        let (space, region) = mapped(pages)?;
        let uffd = Arc::new(Uffd::new(&space, Features::empty()));
        uffd.register(region, modes).map_err(text)?;
        Ok(Self { space, region, uffd })
    }

    pub fn page(&self, number: u64) -> VirtAddr {
        page(self.region, number)
    }

    /// A task in the space.
    pub fn task<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>, String> {
        task(&self.space, job)
    }

    /// A task that loads the first word of a page.
    pub fn loader(&self, page: u64) -> Result<JoinHandle<Result<u64, AccessError>>, String> {
        let addr = self.page(page);
        self.task(move || uaccess::load(addr))
    }

    /// A monitor that is attached, and fills each page with its number until the channel is closed; comes to the
    /// pages it was asked for.
    fn monitor(&self) -> Result<JoinHandle<Vec<u64>>, String> {
        let (uffd, start) = (Arc::clone(&self.uffd), self.region.start);
        let monitor = spawn_returning("monitor", None, move || {
            let mut asked = Vec::new();
            while let Ok(Event::Pagefault { addr, .. }) = uffd.read_event() {
                let page = (addr - start) / PAGE_SIZE;
                asked.push(page);
                // A page that another fault has filled meanwhile only needs the wake-up.
                if uffd.copy(addr, &content(page), PAGE_SIZE, FillMode::empty()) != Outcome::Done {
                    let _ = uffd.wake(VirtRange::page(addr));
                }
            }
            asked
        })
        .map_err(text)?;
        self.uffd.attach_monitor(monitor.task());
        Ok(monitor)
    }
}

pub(super) fn fault_of(result: Result<u64, AccessError>) -> Option<FaultError> {
    result.err().map(|error| error.why)
}

kernel_test!(
    fn read_at_once_asks_nobody_and_a_copy_waits_for_what_it_did_not_find() -> Result<(), String> {
        let fixture = Fixture::new(2)?;
        let (uffd, from, to) = (Arc::clone(&fixture.uffd), fixture.page(0), fixture.page(1));
        let copier = fixture.task(move || {
            let lock = SpinLock::new(vec![0; PAGE_SIZE as usize]);
            let at_once = || uaccess::read_at_once(from, &mut lock.lock());
            let before = at_once();
            let copied = uffd.copy_from_task(to, from, PAGE_SIZE, FillMode::empty());
            (before, copied, at_once(), lock.into_inner(), uaccess::load(to))
        })?;
        // The copy's own access is the first that anybody is asked about.
        let asked = fixture.uffd.read_event();
        let filled = fixture.uffd.copy(from, &content(0), PAGE_SIZE, FillMode::empty());
        let (before, copied, after, bytes, word) = joined(copier)?;
        ensure!(
            matches!(asked, Ok(Event::Pagefault { addr, .. }) if addr == from) && filled == Outcome::Done,
            "{asked:?}, {filled:?}"
        );
        ensure!(!before && after, "{before} before it was there, {after} after");
        ensure!(copied == Outcome::Done, "{copied:?}");
        ensure!(bytes == content(0), "it read something else");
        ensure!(word == Ok(0x0101_0101_0101_0101), "{word:?} was copied");
        Ok(())
    }
);

kernel_test!(
    fn touched_pages_hold_what_the_monitor_copied() -> Result<(), String> {
        let fixture = Fixture::new(64)?;
        let monitor = fixture.monitor()?;
        let region = fixture.region;
        let workload = fixture.task(move || {
            for page in (0..64).rev() {
                let mut buffer = vec![0; PAGE_SIZE as usize];
                uaccess::read(region.start + page * PAGE_SIZE, &mut buffer).map_err(text)?;
                ensure!(buffer == content(page), "page {page} holds something else");
            }
            Ok(())
        })?;
        joined(workload)??;
        fixture.uffd.close();
        let asked = joined(monitor)?;
        ensure!(
            asked == (0..64).rev().collect::<Vec<_>>(),
            "the monitor was asked for {asked:?}"
        );
        Ok(())
    }
);

kernel_test!(
    fn message_names_page_and_access() -> Result<(), String> {
        let fixture = Fixture::new(2)?;
        let addr = fixture.page(1) + 16;
        let writer = fixture.task(move || uaccess::store(addr, 7))?;
        let event = fixture.uffd.read_event().map_err(text)?;
        let expected = Event::Pagefault {
            kind: TrapKind::Missing,
            write: true,
            addr: fixture.page(1),
            thread: None,
        };
        ensure!(event == expected, "{event:?}");
        let faults = fixture.uffd.ctx().outstanding_faults();
        ensure!(
            faults.len() == 1 && faults[0].addr == addr && faults[0].task.id() == writer.task().id(),
            "{faults:?}"
        );
        let filled = fixture
            .uffd
            .zeropage(VirtRange::page(fixture.page(1)), FillMode::empty());
        ensure!(filled == Outcome::Done, "{filled:?}");
        joined(writer)?.map_err(text)?;
        let stored = joined(fixture.task(move || uaccess::load(addr))?)?;
        ensure!(stored == Ok(7), "{stored:?}");
        Ok(())
    }
);

kernel_test!(
    fn pages_filled_ahead_do_not_fault() -> Result<(), String> {
        let fixture = Fixture::new(16)?;
        let source: Vec<u8> = (0..16).flat_map(content).collect();
        let len = fixture.region.len();
        let filled = fixture
            .uffd
            .copy(fixture.region.start, &source, len, FillMode::empty());
        ensure!(filled == Outcome::Done, "{filled:?}");
        let region = fixture.region;
        let reader = fixture.task(move || {
            let mut buffer = vec![0; region.len() as usize];
            uaccess::read(region.start, &mut buffer).map(|()| buffer)
        })?;
        ensure!(
            joined(reader)?.map_err(text)? == source,
            "the region holds something else"
        );
        let unread = fixture.uffd.try_read_event();
        ensure!(unread == Err(ReadError::WouldBlock), "{unread:?}");
        ensure!(
            fixture.space.fault_count() == 0,
            "{} faults",
            fixture.space.fault_count()
        );
        Ok(())
    }
);

kernel_test!(
    fn many_tasks_on_the_same_pages_are_all_served() -> Result<(), String> {
        let fixture = Fixture::new(32)?;
        let monitor = fixture.monitor()?;
        let mut tasks = Vec::new();
        for offset in 0..8 {
            let region = fixture.region;
            tasks.push(fixture.task(move || {
                for step in 0..32 {
                    let page = (step * 5 + offset) % 32;
                    let word = uaccess::load(region.start + page * PAGE_SIZE).map_err(text)?;
                    ensure!(
                        word == (page + 1) * 0x0101_0101_0101_0101,
                        "page {page}: {word:#x}"
                    );
                    task::yield_now();
                }
                Ok(())
            })?);
        }
        for task in tasks {
            joined(task)??;
        }
        fixture.uffd.close();
        joined(monitor).map(drop)
    }
);

kernel_test!(
    fn copy_onto_a_page_that_is_there_is_refused_and_changes_nothing() -> Result<(), String> {
        let fixture = Fixture::new(1)?;
        let copy = |page| {
            let source = content(page);
            fixture
                .uffd
                .copy(fixture.region.start, &source, PAGE_SIZE, FillMode::empty())
        };
        let (first, second) = (copy(0), copy(1));
        ensure!(first == Outcome::Done, "{first:?}");
        ensure!(second == Outcome::Refused(Refusal::Exists), "{second:?}");
        let word = joined(fixture.loader(0)?)?;
        ensure!(word == Ok(0x0101_0101_0101_0101), "{word:?}");
        Ok(())
    }
);

kernel_test!(
    fn fault_without_frames_waits_until_the_monitor_can_serve_it() -> Result<(), String> {
        let fixture = Fixture::new(1)?;
        let reader = fixture.loader(0)?;
        fixture.uffd.read_event().map_err(text)?;
        let source = content(0);
        let copy = || {
            fixture
                .uffd
                .copy(fixture.region.start, &source, PAGE_SIZE, FillMode::empty())
        };
        frame::allocator().inject_failure(0);
        let starved = copy();
        frame::allocator().stop_injection();
        ensure!(starved == Outcome::Refused(Refusal::OutOfMemory), "{starved:?}");
        let waiting = fixture.uffd.ctx().outstanding_faults().len();
        ensure!(waiting == 1, "{waiting} tasks wait after a COPY that did nothing");
        let fed = copy();
        ensure!(fed == Outcome::Done, "{fed:?}");
        let word = joined(reader)?;
        ensure!(word == Ok(0x0101_0101_0101_0101), "{word:?}");
        Ok(())
    }
);

kernel_test!(
    fn death_of_the_monitor_fails_waiting_and_later_touches() -> Result<(), String> {
        let fixture = Fixture::new(2)?;
        let uffd = Arc::clone(&fixture.uffd);
        let monitor = spawn_returning("monitor", None, move || uffd.read_event()).map_err(text)?;
        fixture.uffd.attach_monitor(monitor.task());
        let waiting = fixture.loader(0)?;
        joined(monitor)?.map_err(text)?;
        let waiting = fault_of(joined(waiting)?);
        ensure!(
            waiting == Some(FaultError::MonitorGone),
            "the one who waited: {waiting:?}"
        );
        let later = fault_of(joined(fixture.loader(1)?)?);
        ensure!(
            later == Some(FaultError::MonitorGone),
            "one who came later: {later:?}"
        );
        ensure!(fixture.uffd.ctx().is_orphaned(), "the context does not know");
        Ok(())
    }
);

kernel_test!(
    fn monitor_that_touches_what_it_serves_is_refused_by_name() -> Result<(), String> {
        let fixture = Fixture::new(1)?;
        let (uffd, addr) = (Arc::clone(&fixture.uffd), fixture.page(0));
        let monitor = fixture.task(move || {
            uffd.attach_monitor(&task::current_arc());
            let result = uaccess::load(addr);
            uffd.detach_monitor();
            (task::current().id(), result)
        })?;
        let (monitor, result) = joined(monitor)?;
        let expected = AccessError {
            addr,
            why: FaultError::SelfFault { monitor },
        };
        ensure!(result == Err(expected), "{result:?}");
        ensure!(
            expected.to_string().contains(&monitor.to_string()),
            "`{expected}` does not name task {monitor}"
        );
        Ok(())
    }
);

kernel_test!(
    fn closing_wakes_who_waits_and_leaves_plain_memory() -> Result<(), String> {
        let fixture = Fixture::new(2)?;
        let waiting = fixture.loader(0)?;
        fixture.uffd.read_event().map_err(text)?;
        fixture.uffd.close();
        let word = joined(waiting)?;
        ensure!(word == Ok(0), "the one who waited: {word:?}");
        let word = joined(fixture.loader(1)?)?;
        ensure!(word == Ok(0), "one who came later: {word:?}");
        let read = fixture.uffd.read_event();
        ensure!(read == Err(ReadError::Closed), "{read:?}");
        Ok(())
    }
);

kernel_test!(
    fn unregistering_wakes_who_waits() -> Result<(), String> {
        let fixture = Fixture::new(1)?;
        let waiting = fixture.loader(0)?;
        fixture.uffd.read_event().map_err(text)?;
        fixture.uffd.unregister(fixture.region).map_err(text)?;
        let word = joined(waiting)?;
        ensure!(word == Ok(0), "{word:?}");
        Ok(())
    }
);

kernel_test!(
    fn store_to_a_protected_page_waits_until_the_protection_ends() -> Result<(), String> {
        let fixture = Fixture::with(600, Modes::WP)?;
        let region = fixture.region;
        joined(fixture.task(move || {
            (0..600).try_for_each(|page| uaccess::store(region.start + page * PAGE_SIZE, page).map_err(text))
        })?)??;
        fixture.uffd.write_protect(region).map_err(text)?;
        let addr = fixture.page(555);
        let writer = fixture.task(move || {
            // Loads go on; the store stops.
            let before = uaccess::load(addr).map_err(text)?;
            uaccess::store(addr, 7).map_err(text)?;
            Ok::<_, String>((before, uaccess::load(addr).map_err(text)?))
        })?;
        let event = fixture.uffd.read_event().map_err(text)?;
        let expected = Event::Pagefault {
            kind: TrapKind::WriteProtect,
            write: true,
            addr,
            thread: None,
        };
        ensure!(event == expected, "{event:?}");
        fixture
            .uffd
            .remove_write_protection(VirtRange::page(addr), FillMode::empty())
            .map_err(text)?;
        let (before, after) = joined(writer)??;
        ensure!((before, after) == (555, 7), "read {before}, then {after}");
        Ok(())
    }
);

kernel_test!(
    fn page_copied_in_protected_stops_its_writer_a_second_time() -> Result<(), String> {
        let fixture = Fixture::with(1, Modes::MISSING | Modes::WP)?;
        let addr = fixture.page(0);
        let writer = fixture.task(move || uaccess::store(addr, 7))?;
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let event = fixture.uffd.read_event().map_err(text)?;
            let Event::Pagefault { kind, .. } = event else {
                return Err(text(event));
            };
            kinds.push(kind);
            if kind == TrapKind::Missing {
                let outcome = fixture.uffd.copy(addr, &content(0), PAGE_SIZE, FillMode::WP);
                ensure!(outcome == Outcome::Done, "{outcome:?}");
            } else {
                fixture
                    .uffd
                    .remove_write_protection(fixture.region, FillMode::empty())
                    .map_err(text)?;
            }
        }
        joined(writer)?.map_err(text)?;
        ensure!(kinds == [TrapKind::Missing, TrapKind::WriteProtect], "{kinds:?}");
        Ok(())
    }
);

kernel_test!(
    fn poisoned_page_fails_who_waited_and_who_comes_later() -> Result<(), String> {
        let fixture = Fixture::new(1)?;
        let waiting = fixture.loader(0)?;
        let event = fixture.uffd.read_event().map_err(text)?;
        ensure!(matches!(event, Event::Pagefault { .. }), "{event:?}");
        let outcome = fixture.uffd.poison(fixture.region, FillMode::empty());
        ensure!(outcome == Outcome::Done, "{outcome:?}");
        let first = fault_of(joined(waiting)?);
        fixture.uffd.close();
        let later = fault_of(joined(fixture.loader(0)?)?);
        let poisoned = Some(FaultError::Poisoned);
        ensure!(
            (first, later) == (poisoned, poisoned),
            "{first:?}, then {later:?}"
        );
        Ok(())
    }
);

kernel_test!(
    fn handler_resolves_on_the_faulting_task_and_another_contexts_monitor_serves_it() -> Result<(), String> {
        let served = Fixture::new(1)?;
        let monitor = served.monitor()?;
        let from = served.page(0);
        let handler = move |fault: &Upcall<'_>| {
            // Itself a fault, which sleeps until the other context's monitor has filled the page.
            let word = match uaccess::load(from) {
                Ok(word) => word,
                Err(_) => return Handled::Failed,
            };
            let source = word.to_le_bytes().repeat(PAGE_SIZE as usize / 8);
            match fault.copy(
                fault.addr().align_down(PAGE_SIZE),
                &source,
                PAGE_SIZE,
                FillMode::empty(),
            ) {
                Outcome::Done => Handled::Resolved,
                _ => Handled::Failed,
            }
        };
        let uffd = Uffd::with_delivery(&served.space, Features::empty(), Delivery::upcall(handler));
        let region = map_pages(&served.space, 16)?;
        uffd.register(region, Modes::MISSING).map_err(text)?;
        let words = joined(served.task(move || {
            (0..16)
                .map(|page| uaccess::load(region.start + page * PAGE_SIZE))
                .collect::<Vec<_>>()
        })?)?;
        served.uffd.close();
        let asked = joined(monitor)?;
        ensure!(words == [Ok(0x0101_0101_0101_0101); 16], "{words:?}");
        ensure!(asked == [0], "the monitor was asked for {asked:?}");
        let unread = uffd.try_read_event();
        ensure!(unread == Err(ReadError::WouldBlock), "{unread:?}");
        Ok(())
    }
);

kernel_test!(
    fn handler_that_touches_what_it_serves_is_refused_by_name() -> Result<(), String> {
        let space = empty_space()?;
        let handler = |fault: &Upcall<'_>| match uaccess::load(fault.addr() + PAGE_SIZE) {
            Err(AccessError {
                why: FaultError::SelfFault { monitor },
                ..
            }) if monitor == fault.task().id() => Handled::Failed,
            _ => Handled::Resolved,
        };
        let uffd = Uffd::with_delivery(&space, Features::empty(), Delivery::upcall(handler));
        let region = map_pages(&space, 2)?;
        uffd.register(region, Modes::MISSING).map_err(text)?;
        let why = fault_of(run(&space, move || uaccess::load(region.start))?);
        ensure!(why == Some(FaultError::HandlerFailed), "{why:?}");
        Ok(())
    }
);
