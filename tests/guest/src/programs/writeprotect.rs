//! WRITEPROTECT (section 3.7).

use guest_tests::attempt::{outcome, read, reading, write, writing};
use guest_tests::job;
use guest_tests::proc::page;
use guest_tests::region::*;
use guest_tests::sys::call;
use guest_tests::touch::peek;
use guest_tests::transcript::{check, ok};
use guest_tests::uffd::*;

pub fn run() {
    arguments();
    areas();
    entries();
    waiters();
    outstanding();
    huge();
}

fn arguments() {
    let uffd = Uffd::with(0);
    let memory = Region::filled("memory", 4, 1);
    uffd.watch(&memory, WP);
    let row = |name: &str, start: usize, len: usize, mode: u64, want: &str| {
        check(
            &format!("3.7 {name}"),
            ok(uffd.writeprotect(start, len, mode)),
            want,
        );
    };
    check(
        "3.7 unreadable",
        ok(uffd.ioctl(command::WRITEPROTECT, 0)),
        "EFAULT",
    );
    row("start not aligned", memory.start + 1, PAGE, 1, "EINVAL");
    row("length not aligned", memory.start, 1, 1, "EINVAL");
    row("length 0", memory.start, 0, 1, "EINVAL");
    row("start at the end of user space", USER_END, PAGE, 1, "EINVAL");
    row("end behind user space", USER_END - PAGE, 2 * PAGE, 1, "EINVAL");
    row("length wraps", memory.start, usize::MAX - PAGE + 1, 1, "EINVAL");
    row("mode 4", memory.start, PAGE, 4, "EINVAL");
    row("mode bit 63", memory.start, PAGE, 1 << 63, "EINVAL");
    row("WP with DONTWAKE", memory.start, PAGE, 3, "EINVAL");
    row(
        "nothing mapped",
        Region::hole("hole", PAGE).start,
        PAGE,
        1,
        "ENOENT",
    );
    row("page 0", 0, PAGE, 1, "ENOENT");
    row("protect", memory.start, memory.len, 1, "ok");
    row("protect again", memory.start, memory.len, 1, "ok");
    row("unprotect", memory.start, memory.len, 0, "ok");
    row("unprotect again", memory.start, memory.len, 0, "ok");
    row("unprotect, DONTWAKE", memory.start, memory.len, 2, "ok");
}

fn areas() {
    let uffd = Uffd::with(0);
    let memory = Region::filled("memory", 8, 1);
    uffd.register(memory.start, 2 * PAGE, WP).expect("it is free");
    uffd.register(memory.page(2), 2 * PAGE, MISSING)
        .expect("it is free");
    uffd.register(memory.page(6), 2 * PAGE, WP).expect("it is free");
    check(
        "3.7 not registered",
        ok(uffd.writeprotect(memory.page(4), PAGE, 1)),
        "ENOENT",
    );
    check(
        "3.7 registered MISSING alone",
        ok(uffd.writeprotect(memory.page(2), PAGE, 1)),
        "ENOENT",
    );
    check(
        "3.7 the second area is not for it",
        ok(uffd.writeprotect(memory.start, 4 * PAGE, 1)),
        "ENOENT",
    );
    check(
        "3.7 and yet the first is changed",
        page(memory.start),
        "present wp",
    );
    check("3.7 the second is not", page(memory.page(2)), "present");
    call(libc::SYS_munmap, &[memory.page(2), 4 * PAGE]).expect("munmap works");
    check(
        "3.7 across a hole",
        ok(uffd.writeprotect(memory.start, memory.len, 1)),
        "ok",
    );
    check(
        "3.7 across a hole: the first area",
        page(memory.page(1)),
        "present wp",
    );
    check("3.7 across a hole: the last", page(memory.page(7)), "present wp");
    check(
        "3.7 from a hole on",
        ok(uffd.writeprotect(memory.page(3), 5 * PAGE, 0)),
        "ok",
    );
    check(
        "3.7 from a hole on: the area behind it",
        page(memory.page(7)),
        "present",
    );
}

/// Which entries are protected.
fn entries() {
    for (name, features) in [("", 0), ("WP_UNPOPULATED, ", feature::WP_UNPOPULATED)] {
        let uffd = Uffd::with(features);
        let memory = Region::anon("memory", 4);
        memory.fill(0, 1, 0x11);
        check("3.7 anon: a page of zeros", peek(memory.page(1)), "0x00");
        uffd.watch(&memory, WP);
        uffd.protect(&memory);
        check(
            &format!("3.7 anon, {name}present"),
            page(memory.start),
            "present wp",
        );
        check(
            &format!("3.7 anon, {name}zero page"),
            page(memory.page(1)),
            "present wp",
        );
        let empty = if features == 0 {
            "empty"
        } else {
            "0x420000000000003f"
        };
        check(&format!("3.7 anon, {name}empty"), page(memory.page(2)), empty);
        check(
            &format!("3.7 anon, {name}a write to the page"),
            writing(&uffd, memory.start),
            "fault flags 3 at memory",
        );
        check(
            &format!("3.7 anon, {name}a write to zeros"),
            writing(&uffd, memory.page(1)),
            "fault flags 3 at memory+0x1000",
        );
        let write = if features == 0 {
            "written"
        } else {
            "fault flags 3 at memory+0x2000"
        };
        check(
            &format!("3.7 anon, {name}a write to an empty entry"),
            writing(&uffd, memory.page(2)),
            write,
        );
        check(
            &format!("3.7 anon, {name}a read of an empty entry"),
            reading(&uffd, memory.page(3)),
            "0x00",
        );
        let after = if features == 0 { "present" } else { "present wp" };
        check(
            &format!("3.7 anon, {name}after that read"),
            page(memory.page(3)),
            after,
        );
    }
    let object = memfd(4);
    for (name, memory) in [
        ("shared", Region::shared("shared", object, 4)),
        ("private", Region::private("private", object, 4)),
    ] {
        let uffd = Uffd::with(0);
        uffd.watch(&memory, WP);
        uffd.protect(&memory);
        check(
            &format!("3.7 shmem {name}: empty"),
            page(memory.start),
            "0x420000000000003f",
        );
        let want = format!("fault flags 3 at {name}");
        check(
            &format!("3.7 shmem {name}: a write"),
            writing(&uffd, memory.start),
            want,
        );
        uffd.writeprotect(memory.start, memory.len, 0)
            .expect("it is registered");
        check(
            &format!("3.7 shmem {name}: unprotected"),
            page(memory.page(1)),
            "empty",
        );
    }
}

fn waiters() {
    let uffd = Uffd::with(0);
    let memory = Region::filled("memory", 4, 0x11);
    uffd.watch(&memory, WP);
    uffd.protect(&memory);
    let waiter = write(memory.start, 0x22);
    check("3.7 a writer", outcome(&uffd, &waiter), "fault flags 3 at memory");
    check("3.7 a reader does not trap", reading(&uffd, memory.start), "0x11");
    check(
        "3.7 protect wakes nobody",
        ok(uffd.writeprotect(memory.start, PAGE, PROTECT)),
        "ok",
    );
    check("3.7 the writer after protect", waiter.settle(), "blocked");
    check(
        "3.7 unprotect, DONTWAKE",
        ok(uffd.writeprotect(memory.start, PAGE, PROTECT_DONTWAKE)),
        "ok",
    );
    check("3.7 the writer after it", waiter.settle(), "blocked");
    check("3.7 the page after it", page(memory.start), "present");
    check(
        "3.7 unprotect wakes",
        ok(uffd.writeprotect(memory.start, PAGE, 0)),
        "ok",
    );
    check("3.7 the writer at last", waiter.finish(), "written");
    check("3.7 no second message", uffd.now(), "EAGAIN");
    check(
        "3.7 the next page is protected still",
        outcome(&uffd, &write(memory.page(1), 1)),
        "fault flags 3 at memory+0x1000",
    );
    // Unprotecting wakes readers of missing pages as well: it wakes the range.
    let both = Region::anon("both", 1);
    uffd.watch(&both, MISSING | WP);
    let waiter = read(both.start);
    check(
        "3.7 a reader of a missing page",
        outcome(&uffd, &waiter),
        "fault flags 0 at both",
    );
    check(
        "3.7 unprotect there",
        ok(uffd.writeprotect(both.start, PAGE, 0)),
        "ok",
    );
    check(
        "3.7 the reader faults again",
        uffd.told(),
        "fault flags 0 at both",
    );
}

fn outstanding() {
    let uffd = Uffd::with(feature::EVENT_REMOVE);
    let memory = Region::filled("memory", 2, 1);
    uffd.watch(&memory, MISSING | WP);
    let other = Region::anon("other", 1);
    uffd.watch(&other, MISSING);
    let waiter = job::start(move || ok(other.advise(libc::MADV_DONTNEED)));
    check("3.7 event outstanding: its cause", waiter.settle(), "blocked (D)");
    check(
        "3.7 event outstanding: good argument",
        ok(uffd.writeprotect(memory.start, PAGE, 1)),
        "EAGAIN",
    );
    check(
        "3.7 event outstanding: bad argument",
        ok(uffd.writeprotect(1, 1, 9)),
        "EAGAIN",
    );
    check(
        "3.7 event outstanding: NULL",
        ok(uffd.ioctl(command::WRITEPROTECT, 0)),
        "EAGAIN",
    );
    check(
        "3.7 event outstanding: the message",
        uffd.told(),
        "remove other to other+0x1000",
    );
    check("3.7 event outstanding: its cause goes on", waiter.finish(), "ok");
    check(
        "3.7 afterwards",
        ok(uffd.writeprotect(memory.start, PAGE, 1)),
        "ok",
    );
}

fn huge() {
    if !want_huge_pages(2) {
        return;
    }
    let uffd = Uffd::with(0);
    let memory = Region::huge("huge", 2);
    memory.fill(0, 1, 1);
    uffd.watch(&memory, WP);
    check(
        "3.7 hugetlb: start not aligned",
        ok(uffd.writeprotect(memory.start + PAGE, HUGE, 1)),
        "EINVAL",
    );
    check(
        "3.7 hugetlb: length not aligned",
        ok(uffd.writeprotect(memory.start, PAGE, 1)),
        "EINVAL",
    );
    check(
        "3.7 hugetlb: both",
        ok(uffd.writeprotect(memory.start, 2 * HUGE, 1)),
        "ok",
    );
    check("3.7 hugetlb: present", page(memory.start), "present wp");
    check(
        "3.7 hugetlb: empty",
        page(memory.start + HUGE),
        "0x200000000000000",
    );
    check(
        "3.7 hugetlb: a write",
        writing(&uffd, memory.start + 3 * PAGE + 1),
        "fault flags 3 at huge",
    );
    check(
        "3.7 hugetlb: a write to the empty one",
        writing(&uffd, memory.start + HUGE),
        "fault flags 3 at huge+0x200000",
    );
}
