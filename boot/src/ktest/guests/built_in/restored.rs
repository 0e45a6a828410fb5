//! Guests that were saved and go on in another machine with nothing of their delegated memory there.

use alloc::format;
use alloc::string::String;
use core::sync::atomic::Ordering;

use hv::fill::{Fill, Filled};
use hv::userfault::MemoryFault;
use hv::vcpu::Stop;
use hv::vendor::Vendor;
use kernel::abi::guest::Resumed;
use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::range::GuestRange;

use super::super::super::common::text;
use super::super::guest_test;
use super::{DELEGATED, Machine, STORE};
use crate::ensure;

const WORK: &str = "workload seed=3 tasks=3 counts=1";
const PAGES: u64 = 48;

/// The result of the guest that nobody has interrupted.
fn undisturbed<V: Vendor>() -> Result<String, String> {
    let mut guest = Machine::<V>::new(WORK, PAGES)?;
    guest.finish()?;
    guest.result()
}

/// A guest that was saved at its mark and is about to go on behind it.
fn resumed<V: Vendor>(cmdline: &str, how: Resumed) -> Result<Machine<V>, String> {
    let saved = Machine::<V>::new(cmdline, PAGES)?.saved_at_mark()?;
    let guest = Machine::<V>::restored(&saved)?;
    guest.vcpu.vm().resume_as(how);
    Ok(guest)
}

/// Runs a guest to its end, while the owner brings the pages that are its business; how it ended, and how many those were.
fn run_and_serve<V: Vendor>(guest: &mut Machine<V>) -> Result<(Stop, u64), String> {
    let mut served = 0;
    loop {
        match guest.run() {
            Stop::Userfault(fault) => {
                bring(guest, &fault)?;
                served += 1;
            }
            stop => return Ok((stop, served)),
        }
    }
}

fn bring<V: Vendor>(guest: &Machine<V>, fault: &MemoryFault) -> Result<(), String> {
    let from = STORE + (fault.addr - DELEGATED);
    let filled = guest
        .vcpu
        .vm()
        .memory
        .fill(GuestRange::page(fault.addr), Fill::Copy { from });
    let all = Filled {
        bytes: PAGE_SIZE,
        stop: None,
    };
    ensure!(filled == all, "{filled:?} at {}", fault.addr);
    Ok(())
}

/// What the guest's monitor says it has done: the number behind `key=`.
fn count<V: Vendor>(guest: &Machine<V>, key: &str) -> Result<u64, String> {
    let printed = guest.printed();
    let line = printed.lines().find(|line| line.starts_with("monitor "));
    let found = line.and_then(|line| {
        let mut pairs = line.split(' ').filter_map(|word| word.split_once('='));
        pairs.find(|(name, _)| *name == key)
    });
    let number = found.and_then(|(_, number)| number.parse().ok());
    number.ok_or_else(|| format!("no number of {key} in:\n{printed}"))
}

guest_test!(
    fn guest_goes_on_elsewhere_while_its_owner_brings_its_pages<V>() -> Result<(), String> {
        let expected = undisturbed::<V>()?;
        let mut guest = resumed::<V>(WORK, Resumed::Restored)?;
        let (stop, served) = run_and_serve(&mut guest)?;
        ensure!(stop == Stop::Exited(0), "{stop:?}; printed:\n{}", guest.printed());
        ensure!(served == PAGES, "{served} faults for {PAGES} pages");
        let found = guest.result()?;
        ensure!(found == expected, "{found} instead of {expected}");
        Ok(())
    }
);

guest_test!(
    fn guest_serves_itself_when_it_is_told_by_injection<V>() -> Result<(), String> {
        let expected = undisturbed::<V>()?;
        let mut guest = resumed::<V>(WORK, Resumed::ToServeInjected)?;
        let (stop, served) = run_and_serve(&mut guest)?;
        ensure!(stop == Stop::Exited(0), "{stop:?}; printed:\n{}", guest.printed());
        let found = guest.result()?;
        ensure!(found == expected, "{found} instead of {expected}");
        // Another interrupt may be on its way when a page is touched: then the owner is asked.
        let injected = guest.vcpu.vm().counters.injected.load(Ordering::Relaxed);
        ensure!(
            injected + served == PAGES && injected > served,
            "{injected} injected, {served} left to the owner"
        );
        for (key, number) in [
            ("injected", injected),
            ("filled", injected),
            ("existed", 0),
            ("spurious", 0),
        ] {
            let said = count(&guest, key)?;
            ensure!(
                said == number,
                "{said} {key} instead of {number}:\n{}",
                guest.printed()
            );
        }
        Ok(())
    }
);

guest_test!(
    fn pages_come_right_in_the_end_however_clumsy_the_monitor<V>() -> Result<(), String> {
        let expected = undisturbed::<V>()?;
        for manner in ["wrong", "twice", "late"] {
            let cmdline = format!("{WORK} monitor={manner}");
            let mut guest = resumed::<V>(&cmdline, Resumed::ToServeInjected)?;
            let (stop, _) = run_and_serve(&mut guest)?;
            ensure!(
                stop == Stop::Exited(0),
                "{manner}: {stop:?}; printed:\n{}",
                guest.printed()
            );
            let found = guest.result()?;
            ensure!(found == expected, "{manner}: {found} instead of {expected}");
            let (filled, existed) = (count(&guest, "filled")?, count(&guest, "existed")?);
            let (messages, injected) = (count(&guest, "messages")?, count(&guest, "injected")?);
            ensure!(
                messages == injected,
                "{manner}: {messages} messages of {injected} faults"
            );
            match manner {
                "twice" => ensure!(
                    existed == filled,
                    "{existed} pages existed of {filled} filled twice"
                ),
                "wrong" => ensure!(messages > filled, "{messages} messages for {filled} pages"),
                _ => ensure!(existed == 0, "{existed} pages existed"),
            }
        }
        Ok(())
    }
);

guest_test!(
    fn guest_whose_monitor_ends_fails_and_says_so<V>() -> Result<(), String> {
        let cmdline = format!("{WORK} monitor=dies");
        let mut guest = resumed::<V>(&cmdline, Resumed::ToServeInjected)?;
        let (stop, _) = run_and_serve(&mut guest)?;
        let printed = guest.printed();
        ensure!(stop == Stop::Exited(1), "{stop:?}; printed:\n{printed}");
        ensure!(
            printed.contains("its monitor is gone and never served the fault"),
            "{printed}"
        );
        Ok(())
    }
);

guest_test!(
    fn monitor_that_touches_what_it_serves_ends_its_guest_with_a_status_of_its_own<V>() -> Result<(), String>
    {
        let cmdline = format!("{WORK} monitor=touches");
        let mut guest = resumed::<V>(&cmdline, Resumed::ToServeInjected)?;
        let (stop, _) = run_and_serve(&mut guest)?;
        let printed = guest.printed();
        ensure!(stop == Stop::Exited(5), "{stop:?}; printed:\n{printed}");
        ensure!(
            printed.contains("touched memory that it has to serve itself"),
            "{printed}"
        );
        Ok(())
    }
);

guest_test!(
    fn what_is_touched_where_nobody_may_sleep_is_the_owners_business<V>() -> Result<(), String> {
        let expected = undisturbed::<V>()?;
        // With a lock held the guest is told, and hands it on; with interrupts off it is not even told.
        for (held, told) in [("lock", true), ("interrupts", false)] {
            let cmdline = format!("{WORK} held={held}");
            let mut guest = resumed::<V>(&cmdline, Resumed::ToServeInjected)?;
            let (stop, served) = run_and_serve(&mut guest)?;
            ensure!(
                stop == Stop::Exited(0),
                "{held}: {stop:?}; printed:\n{}",
                guest.printed()
            );
            let found = guest.result()?;
            ensure!(found == expected, "{held}: {found} instead of {expected}");
            ensure!(served == PAGES, "{held}: {served} pages by the owner");
            let (left, messages) = (count(&guest, "left")?, count(&guest, "messages")?);
            ensure!(
                messages == 0 && (left > 0) == told,
                "{held}: {left} faults handed on, {messages} messages"
            );
        }
        Ok(())
    }
);

guest_test!(
    fn exempt_pages_stay_the_owners_and_the_monitor_may_touch_them<V>() -> Result<(), String> {
        const EXEMPT: u64 = 5;
        let expected = undisturbed::<V>()?;
        let cmdline = format!("{WORK} exempt={EXEMPT} monitor=touches");
        let mut guest = resumed::<V>(&cmdline, Resumed::ToServeInjected)?;
        let (stop, served) = run_and_serve(&mut guest)?;
        ensure!(stop == Stop::Exited(0), "{stop:?}; printed:\n{}", guest.printed());
        let found = guest.result()?;
        ensure!(found == expected, "{found} instead of {expected}");
        let filled = count(&guest, "filled")?;
        ensure!(
            served >= EXEMPT && served + filled == PAGES && filled > 0,
            "{served} pages by the owner, {filled} by the guest"
        );
        Ok(())
    }
);

guest_test!(
    fn guest_serves_itself_when_the_cpu_tells_it_where_that_can<V>() -> Result<(), String> {
        let expected = undisturbed::<V>()?;
        let mut guest = resumed::<V>(WORK, Resumed::ToServeExceptions)?;
        let (stop, served) = run_and_serve(&mut guest)?;
        let printed = guest.printed();
        if !V::enable().map_err(text)?.violation_exceptions {
            ensure!(stop == Stop::Exited(1), "{stop:?}; printed:\n{printed}");
            ensure!(printed.contains("this CPU cannot do it"), "{printed}");
            return Ok(());
        }
        ensure!(stop == Stop::Exited(0), "{stop:?}; printed:\n{printed}");
        let found = guest.result()?;
        ensure!(found == expected, "{found} instead of {expected}");
        // What is touched while an interrupt is being delivered comes as an exit.
        let told = count(&guest, "exceptions")?;
        ensure!(
            told + served >= PAGES && told > served,
            "{told} told, {served} left to the owner"
        );
        let injected = count(&guest, "injected")?;
        ensure!(injected == 0, "{injected} injected");
        Ok(())
    }
);

guest_test!(
    fn pages_that_are_in_the_cache_come_from_another_view_without_a_message<V>() -> Result<(), String> {
        const CACHED: u64 = 20;
        if !V::enable().map_err(text)?.root_switching {
            return Ok(());
        }
        let expected = undisturbed::<V>()?;
        let cmdline = format!("{WORK} views=1");
        let saved = Machine::<V>::new(&cmdline, PAGES)?.saved_at_mark()?;
        let mut guest = Machine::<V>::restored(&saved)?;
        let cached = &saved.delegated[..(CACHED * PAGE_SIZE) as usize];
        guest.delegated.write(0, cached).1.map_err(text)?;
        guest.vcpu.vm().resume_as(Resumed::ToServeExceptions);
        let (stop, served) = run_and_serve(&mut guest)?;
        ensure!(stop == Stop::Exited(0), "{stop:?}; printed:\n{}", guest.printed());
        let found = guest.result()?;
        ensure!(found == expected, "{found} instead of {expected}");
        let (messages, filled) = (count(&guest, "messages")?, count(&guest, "filled")?);
        ensure!(
            filled + served == PAGES - CACHED && messages == filled && filled > served,
            "{messages} messages, {filled} pages filled, {served} left to the owner:\n{}",
            guest.printed()
        );
        ensure!(count(&guest, "switched")? > 0, "no view was switched");
        Ok(())
    }
);
