//! Write tracking without messages, and PAGEMAP_SCAN (section 4.5).

use guest_tests::attempt::{outcome, read, write, writing};
use guest_tests::proc::{SCAN_CHECK_WPASYNC, SCAN_WP_MATCHING, ScanArgument, category::*, page};
use guest_tests::region::*;
use guest_tests::touch::{peek, poke};
use guest_tests::transcript::{answer, check, ok};
use guest_tests::uffd::*;

pub fn run() {
    tracking();
    both_modes();
    scan();
    scan_arguments();
}

fn tracking() {
    let uffd = Uffd::with(feature::WP_ASYNC);
    let area = Region::anon("area", 6);
    area.fill(0, 3, 0x11);
    uffd.watch(&area, WP);
    check(
        "4.5 protect",
        ok(uffd.writeprotect(area.start, area.len, PROTECT)),
        "ok",
    );
    check("4.5 present", page(area.start), "present wp");
    check(
        "4.5 empty: a marker, though not asked for",
        page(area.page(4)),
        "0x420000000000003f",
    );
    check("4.5 a write", writing(&uffd, area.start), "written");
    check("4.5 a write: the bit is clear", page(area.start), "present");
    check("4.5 a read", peek(area.page(1)), "0x11");
    check("4.5 a read: the bit is set", page(area.page(1)), "present wp");
    check("4.5 a write to a marker", writing(&uffd, area.page(4)), "written");
    check(
        "4.5 a write to a marker: the bit is clear",
        page(area.page(4)),
        "present",
    );
    check("4.5 a read of a marker", peek(area.page(5)), "0x00");
    check(
        "4.5 a read of a marker: the bit is set",
        page(area.page(5)),
        "present wp",
    );
    check("4.5 no message", uffd.now(), "EAGAIN");
    check(
        "4.5 protect again",
        ok(uffd.writeprotect(area.start, area.len, PROTECT)),
        "ok",
    );
    check("4.5 the written page", page(area.start), "present wp");
    let object = memfd(2);
    let shared = Region::shared("shared", object, 2);
    shared.fill(0, 1, 1);
    uffd.watch(&shared, WP);
    uffd.protect(&shared);
    check("4.5 shmem: a write", writing(&uffd, shared.start), "written");
    check("4.5 shmem: the bit is clear", page(shared.start), "present file");
    check(
        "4.5 shmem: a write to a hole",
        writing(&uffd, shared.page(1)),
        "written",
    );
    if want_huge_pages(1) {
        let huge = Region::huge("huge", 1);
        poke(huge.start, 1);
        uffd.watch(&huge, WP);
        uffd.protect(&huge);
        check("4.5 hugetlb: protected", page(huge.start), "present wp");
        check("4.5 hugetlb: a write", writing(&uffd, huge.page(9)), "written");
        check("4.5 hugetlb: the bit is clear", page(huge.start), "present");
    }
}

/// MISSING in the same context still waits.
fn both_modes() {
    let uffd = Uffd::with(feature::WP_ASYNC);
    let area = Region::anon("area", 4);
    area.fill(0, 1, 1);
    uffd.watch(&area, MISSING | WP);
    uffd.protect(&area);
    check(
        "4.5 mode 3: a write to a protected page",
        writing(&uffd, area.start),
        "written",
    );
    let writer = write(area.page(1), 1);
    check(
        "4.5 mode 3: a write to a marker",
        outcome(&uffd, &writer),
        "fault flags 1 at area+0x1000",
    );
    uffd.zeropage(area.page(1), PAGE, 0);
    check(
        "4.5 mode 3: ZEROPAGE over the marker is no fill",
        writer.settle(),
        "blocked",
    );
    let source = Region::filled("source", 1, 0x5c);
    check(
        "4.5 mode 3: COPY",
        uffd.copy(area.page(1), source.start, PAGE, FILL_WP),
        "ok 1p",
    );
    check("4.5 mode 3: the writer", writer.finish(), "written");
    check("4.5 mode 3: its page is dirty", page(area.page(1)), "present");
    check(
        "4.5 mode 3: a read of a marker",
        outcome(&uffd, &read(area.page(2))),
        "fault flags 0 at area+0x2000",
    );
}

/// The runs in words: `area..area+0x2000 WRITTEN`.
fn told(runs: &[[u64; 3]]) -> String {
    const WORDS: [(u64, &str); 6] = [
        (WPALLOWED, "WPALLOWED"),
        (WRITTEN, "WRITTEN"),
        (FILE, "FILE"),
        (PRESENT, "PRESENT"),
        (SWAPPED, "SWAPPED"),
        (PFNZERO, "PFNZERO"),
    ];
    let one = |run: &[u64; 3]| {
        let words: Vec<&str> = WORDS
            .iter()
            .filter(|(bit, _)| run[2] & bit != 0)
            .map(|(_, word)| *word)
            .collect();
        format!(
            "{}..{} {}",
            place(run[0] as usize),
            place(run[1] as usize),
            words.join("+")
        )
    };
    if runs.is_empty() {
        "nothing".into()
    } else {
        runs.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

fn scan() {
    let uffd = Uffd::with(feature::WP_ASYNC);
    let area = Region::anon("area", 8);
    area.fill(0, 4, 0x11);
    uffd.watch(&area, WP);
    let written = |flags: u64| {
        let mut argument = ScanArgument::over(area.start, area.len, WRITTEN);
        argument.flags = flags;
        argument.category_mask = WRITTEN;
        answer(argument.run(16).map(|runs| told(&runs)))
    };
    let both = SCAN_WP_MATCHING | SCAN_CHECK_WPASYNC;
    check(
        "4.5 scan: the first reports everything",
        written(both),
        "area..area+0x8000 WRITTEN",
    );
    check("4.5 scan: the second nothing", written(both), "nothing");
    poke(area.page(1), 1);
    poke(area.page(2), 1);
    poke(area.page(6), 1);
    peek(area.page(3));
    check(
        "4.5 scan: what was written since",
        written(0),
        "area+0x1000..area+0x3000 WRITTEN, area+0x6000..area+0x7000 WRITTEN",
    );
    check(
        "4.5 scan: a look protects nothing",
        written(both),
        "area+0x1000..area+0x3000 WRITTEN, area+0x6000..area+0x7000 WRITTEN",
    );
    check("4.5 scan: a scan with WP_MATCHING does", written(0), "nothing");
    let mut argument = ScanArgument::over(
        area.start,
        area.len,
        WPALLOWED | WRITTEN | FILE | PRESENT | PFNZERO,
    );
    let all = answer(argument.run(16).map(|runs| told(&runs)));
    let want = "area..area+0x4000 WPALLOWED+PRESENT, area+0x4000..area+0x6000 WPALLOWED, area+0x6000..area+0x7000 WPALLOWED+PRESENT, area+0x7000..area+0x8000 WPALLOWED";
    check("4.5 scan: all categories", all, want);
    check(
        "4.5 scan: where it ended",
        place(argument.walk_end as usize),
        "area+0x8000",
    );
    let plain = Region::anon("plain", 4);
    plain.fill(0, 1, 1);
    peek(plain.page(1));
    let mut argument = ScanArgument::over(plain.start, plain.len, WPALLOWED | WRITTEN | PRESENT | PFNZERO);
    let all = answer(argument.run(16).map(|runs| told(&runs)));
    check(
        "4.5 scan: memory that is not tracked",
        all,
        "plain..plain+0x1000 WRITTEN+PRESENT, plain+0x1000..plain+0x2000 WRITTEN+PRESENT+PFNZERO, plain+0x2000..plain+0x4000 WRITTEN",
    );
    let mut argument = ScanArgument::over(plain.start, plain.len, WRITTEN);
    argument.flags = SCAN_WP_MATCHING | SCAN_CHECK_WPASYNC;
    argument.category_mask = WRITTEN;
    check(
        "4.5 scan: CHECK_WPASYNC of memory that is not tracked",
        ok(argument.run(16)),
        "EPERM",
    );
    let synchronous = Uffd::with(0);
    synchronous.watch(&plain, WP);
    check(
        "4.5 scan: CHECK_WPASYNC of memory that is tracked by messages",
        ok(argument.run(16)),
        "EPERM",
    );
}

fn scan_arguments() {
    let area = Region::anon("area", 8);
    for index in [0, 2, 4, 6] {
        area.fill(index, index + 1, 1);
    }
    let base = ScanArgument {
        category_mask: PRESENT,
        ..ScanArgument::over(area.start, area.len, PRESENT)
    };
    let row = |name: &str, room: usize, argument: &mut ScanArgument, want: &str| {
        let got = answer(argument.run(room).map(|runs| told(&runs)));
        check(&format!("4.5 scan: {name}"), got, want);
    };
    let mut argument = base;
    row(
        "room for two",
        2,
        &mut argument,
        "area..area+0x1000 PRESENT, area+0x2000..area+0x3000 PRESENT",
    );
    check(
        "4.5 scan: room for two: where it ended",
        place(argument.walk_end as usize),
        "area+0x4000",
    );
    let mut argument = ScanArgument { max_pages: 3, ..base };
    row(
        "three pages at most",
        16,
        &mut argument,
        "area..area+0x1000 PRESENT, area+0x2000..area+0x3000 PRESENT, area+0x4000..area+0x5000 PRESENT",
    );
    row("size 0", 4, &mut ScanArgument { size: 0, ..base }, "EINVAL");
    row("size 104", 4, &mut ScanArgument { size: 104, ..base }, "EINVAL");
    row(
        "unknown flag",
        4,
        &mut ScanArgument { flags: 4, ..base },
        "EINVAL",
    );
    row(
        "start not aligned",
        4,
        &mut ScanArgument {
            start: base.start + 1,
            ..base
        },
        "EINVAL",
    );
    row(
        "unknown category in the mask",
        4,
        &mut ScanArgument {
            category_mask: 1 << 40,
            ..base
        },
        "EINVAL",
    );
    row(
        "unknown category to return",
        4,
        &mut ScanArgument {
            return_mask: 1 << 40,
            ..base
        },
        "EINVAL",
    );
    row(
        "empty range",
        4,
        &mut ScanArgument {
            end: base.start,
            ..base
        },
        "nothing",
    );
    row(
        "start in the kernel",
        4,
        &mut ScanArgument {
            start: 0xffff_8000_0000_0000,
            end: 0xffff_8000_0000_1000,
            ..base
        },
        "EFAULT",
    );
    row(
        "inverted",
        8,
        &mut ScanArgument {
            category_inverted: PRESENT,
            ..base
        },
        "area+0x1000..area+0x2000 , area+0x3000..area+0x4000 , area+0x5000..area+0x6000 , area+0x7000..area+0x8000 ",
    );
}
