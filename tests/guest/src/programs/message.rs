//! What a message of a fault holds (sections 1.3 and 4.2).

use guest_tests::attempt::{outcome, read, write};
use guest_tests::region::*;
use guest_tests::transcript::{check, ok};
use guest_tests::uffd::*;

pub fn run() {
    layout();
    addresses();
    threads();
}

/// Whether all that has no meaning is zero.
fn layout() {
    let uffd = Uffd::with(0);
    let area = Region::anon("area", 1);
    uffd.watch(&area, MISSING);
    let waiter = write(area.start + 0x123, 1);
    waiter.settle();
    let Message(words) = uffd.next().expect("a thread waits");
    check(
        "1.3 message: event, and seven zero bytes",
        format!("{:#x}", words[0]),
        "0x12",
    );
    check("1.3 message: flags of a write", format!("{:#x}", words[1]), "0x1");
    check("1.3 message: address", place(words[2] as usize), "area");
    check("1.3 message: thread, not asked for", words[3], "0");
}

fn addresses() {
    for (name, features, small, huge) in [
        (
            "masked",
            0,
            "fault flags 0 at area+0x1000",
            "fault flags 0 at huge",
        ),
        (
            "EXACT_ADDRESS",
            feature::EXACT_ADDRESS,
            "fault flags 0 at area+0x1234",
            "fault flags 0 at huge+0x12345",
        ),
    ] {
        let uffd = Uffd::with(features);
        let area = Region::anon("area", 2);
        uffd.watch(&area, MISSING);
        check(
            &format!("4.2 address: {name}"),
            outcome(&uffd, &read(area.start + 0x1234)),
            small,
        );
        if want_huge_pages(1) {
            let area = Region::huge("huge", 1);
            uffd.watch(&area, MISSING);
            check(
                &format!("4.2 address: {name}, hugetlb"),
                outcome(&uffd, &read(area.start + 0x12345)),
                huge,
            );
        }
    }
}

fn threads() {
    let uffd = Uffd::with(feature::THREAD_ID);
    let area = Region::anon("area", 2);
    uffd.watch(&area, MISSING);
    let first = read(area.start);
    first.settle();
    let message = uffd.next().expect("a thread waits");
    check(
        "4.2 THREAD_ID: the thread that waits",
        message.0[3] == first.tid() as u64,
        true,
    );
    let second = write(area.start + 8, 1);
    second.settle();
    let message = uffd.next().expect("a thread waits");
    check(
        "4.2 THREAD_ID: the second on the same page",
        message.0[3] == second.tid() as u64,
        true,
    );
    check(
        "4.2 one message for each thread",
        message,
        "fault flags 1 at area with thread",
    );
    check("4.2 both wake", uffd.zeropage(area.start, PAGE, 0), "ok 1p");
    check("4.2 the first", first.finish(), "0x00");
    check("4.2 the second", second.finish(), "written");
    // Several at once, unread: as many messages as threads.
    let waiters: Vec<_> = (0..5).map(|_| read(area.page(1))).collect();
    for waiter in &waiters {
        waiter.settle();
    }
    let mut messages = 0;
    while uffd.read().is_ok() {
        messages += 1;
    }
    check("4.2 five threads on one page", messages, "5");
    check("4.2 WAKE for all", ok(uffd.wake(area.page(1), PAGE)), "ok");
    let again = (0..5).filter(|_| uffd.next().is_some()).count();
    check("4.2 woken and unresolved, they fault again", again, "5");
    uffd.zeropage(area.page(1), PAGE, 0);
    let ended = waiters.iter().filter(|waiter| waiter.finish() == "0x00").count();
    check("4.2 all read", ended, "5");
}
