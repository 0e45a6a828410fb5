//! The end of a monitor on the real machine, policy by policy: tasks that are ended inside a page fault, pages that are
//! poisoned by the task that touches them, and a successor that goes on.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::fault::FaultError;
use kernel::mm::range::VirtRange;
use kernel::mm::uaccess;
use kernel::task;
use kernel::task::spawn::{JoinHandle, spawn_returning};
use kernel::uffd::diagnosis::{self, Finding};
use kernel::uffd::{Event, FillMode, MonitorDeath, Outcome, ReadError, Refusal, TrapKind};

use super::common::{content, joined, text};
use super::userfault::{Fixture, fault_of};
use crate::{ensure, kernel_test};

/// A monitor that is attached and ends as soon as it has read one fault.
fn short_lived(fixture: &Fixture) -> Result<JoinHandle<Result<Event, ReadError>>, String> {
    let uffd = Arc::clone(&fixture.uffd);
    let monitor = spawn_returning("monitor", None, move || uffd.read_event()).map_err(text)?;
    fixture.uffd.attach_monitor(monitor.task());
    Ok(monitor)
}

kernel_test!(
    fn poison_reaches_who_waited_and_who_comes_later() -> Result<(), String> {
        let fixture = Fixture::new(2)?;
        fixture.uffd.on_monitor_death(MonitorDeath::Poison);
        let monitor = short_lived(&fixture)?;
        let waiting = fixture.loader(0)?;
        joined(monitor)?.map_err(text)?;
        let faults = [fault_of(joined(waiting)?), fault_of(joined(fixture.loader(1)?)?)];
        ensure!(faults == [Some(FaultError::Poisoned); 2], "{faults:?}");
        fixture.uffd.close();
        let after = fault_of(joined(fixture.loader(0)?)?);
        ensure!(after == Some(FaultError::Poisoned), "after closing: {after:?}");
        Ok(())
    }
);

kernel_test!(
    fn kill_ends_who_waited_and_who_comes_later() -> Result<(), String> {
        let fixture = Fixture::new(3)?;
        fixture.uffd.on_monitor_death(MonitorDeath::Kill);
        let filled = fixture
            .uffd
            .copy(fixture.page(2), &content(2), PAGE_SIZE, FillMode::empty());
        ensure!(filled == Outcome::Done, "{filled:?}");
        let monitor = short_lived(&fixture)?;
        let waiting = fixture.loader(0)?;
        joined(monitor)?.map_err(text)?;
        for (task, page) in [(waiting, 0), (fixture.loader(1)?, 1)] {
            let Err(task::Outcome::Failed(why)) = task.join() else {
                return Err(format!("the task of page {page} went on"));
            };
            ensure!(why.contains(&format!("{}", fixture.page(page))), "{why}");
        }
        let spared = joined(fixture.loader(2)?)?;
        ensure!(spared == Ok(0x0303_0303_0303_0303), "{spared:?}");
        Ok(())
    }
);

kernel_test!(
    fn successor_reads_again_what_the_dead_monitor_had_read() -> Result<(), String> {
        let fixture = Fixture::new(2)?;
        fixture.uffd.on_monitor_death(MonitorDeath::Reattach);
        let monitor = short_lived(&fixture)?;
        let waiting = [fixture.loader(0)?, fixture.loader(1)?];
        joined(monitor)?.map_err(text)?;
        let refused = fixture.uffd.try_read_event();
        ensure!(refused == Err(ReadError::Orphaned), "{refused:?}");
        let uffd = Arc::clone(&fixture.uffd);
        let pages = [fixture.page(0), fixture.page(1)];
        let successor = spawn_returning("successor", None, move || {
            uffd.attach_monitor(&task::current_arc());
            for (page, addr) in (0..).zip(pages) {
                let expected = Event::Pagefault {
                    kind: TrapKind::Missing,
                    write: false,
                    addr,
                    thread: None,
                };
                let event = uffd.read_event().map_err(text)?;
                ensure!(event == expected, "{event:?}");
                let filled = uffd.copy(addr, &content(page), PAGE_SIZE, FillMode::empty());
                ensure!(filled == Outcome::Done, "{filled:?}");
            }
            uffd.detach_monitor();
            Ok(())
        });
        joined(successor.map_err(text)?)??;
        let [first, second] = waiting.map(joined);
        let words = (first?, second?);
        ensure!(
            words == (Ok(0x0101_0101_0101_0101), Ok(0x0202_0202_0202_0202)),
            "{words:x?}"
        );
        Ok(())
    }
);

kernel_test!(
    fn zero_leaves_plain_memory() -> Result<(), String> {
        let fixture = Fixture::new(2)?;
        fixture.uffd.on_monitor_death(MonitorDeath::Zero);
        let monitor = short_lived(&fixture)?;
        let waiting = fixture.loader(0)?;
        joined(monitor)?.map_err(text)?;
        let addr = fixture.page(1);
        let later = joined(fixture.task(move || uaccess::load(addr))?)?;
        let words = (joined(waiting)?, later);
        ensure!(words == (Ok(0), Ok(0)), "{words:?}");
        Ok(())
    }
);

kernel_test!(
    fn lost_wake_is_found_and_mended_by_a_wake() -> Result<(), String> {
        let fixture = Fixture::new(1)?;
        let waiting = fixture.loader(0)?;
        fixture.uffd.read_event().map_err(text)?;
        let findings = |patience| {
            let mut rows = diagnosis::waiting();
            rows.retain(|row| row.ctx == fixture.uffd.ctx().id());
            rows.iter().map(|row| row.finding(patience)).collect::<Vec<_>>()
        };
        let before = findings(Duration::ZERO);
        ensure!(before == [Finding::Unresolved], "{before:?}");
        let copy = |mode| fixture.uffd.copy(fixture.page(0), &content(0), PAGE_SIZE, mode);
        let outcomes = (copy(FillMode::DONTWAKE), copy(FillMode::empty()));
        let expected = (Outcome::Done, Outcome::Refused(Refusal::Exists));
        ensure!(outcomes == expected, "{outcomes:?}");
        let lost = (findings(Duration::ZERO), findings(Duration::MAX));
        ensure!(
            lost == (vec![Finding::LostWake], vec![Finding::Serving]),
            "{lost:?}"
        );
        fixture.uffd.wake(fixture.region).map_err(text)?;
        let word = joined(waiting)?;
        ensure!(word == Ok(0x0101_0101_0101_0101), "{word:?}");
        let after = findings(Duration::ZERO);
        ensure!(after.is_empty(), "{after:?}");
        Ok(())
    }
);

kernel_test!(
    fn reader_that_holds_a_fault_is_told_of_one_that_only_it_could_serve() -> Result<(), String> {
        let fixture = Fixture::new(2)?;
        let waiting = fixture.loader(0)?;
        let (uffd, addr) = (Arc::clone(&fixture.uffd), fixture.page(1));
        let reader = fixture.task(move || {
            uffd.read_event().map_err(text)?;
            let own = uaccess::load(addr);
            let filled = uffd.zeropage(VirtRange::page(addr - PAGE_SIZE), FillMode::empty());
            ensure!(filled == Outcome::Done, "{filled:?}");
            Ok((task::current().id(), own))
        })?;
        let (monitor, own) = joined(reader)??;
        let why = fault_of(own);
        ensure!(why == Some(FaultError::SelfFault { monitor }), "{why:?}");
        let word = joined(waiting)?;
        ensure!(word == Ok(0), "{word:?}");
        Ok(())
    }
);
