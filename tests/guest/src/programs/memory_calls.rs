//! mmap, munmap, mprotect, mremap, madvise, mincore, mlock, brk: what they accept and refuse.

use guest_tests::errno::Errno;
use guest_tests::region::*;
use guest_tests::sys::{Answer, call};
use guest_tests::touch::{peek, poke};
use guest_tests::transcript::{answer, ok, show};

const FIXED_NOREPLACE: i32 = 0x10_0000;
const SHARED_VALIDATE: i32 = 3;

pub fn run() {
    mapping();
    placing();
    unmapping();
    protecting();
    remapping();
    advising();
    residency();
    locking();
    the_break();
    growing_down();
}

/// Where a mapping came, told relative to where it was wanted.
fn at(wanted: usize, got: Answer) -> String {
    match got {
        Ok(address) if address == wanted => "where wanted".into(),
        Ok(_) => "elsewhere".into(),
        Err(errno) => errno.to_string(),
    }
}

fn mapping() {
    let row = |name: &str, got: Answer| show(&format!("mmap: {name}"), ok(got));
    row("length 0", mmap(0, 0, RW, ANON, -1, 0));
    row("one byte", mmap(0, 1, RW, ANON, -1, 0));
    row(
        "neither shared nor private",
        mmap(0, PAGE, RW, libc::MAP_ANONYMOUS, -1, 0),
    );
    row("offset not aligned", mmap(0, PAGE, RW, ANON, -1, 1));
    row("bad descriptor", mmap(0, PAGE, RW, libc::MAP_PRIVATE, 99, 0));
    row("descriptor ignored", mmap(0, PAGE, RW, ANON, 99, 0));
    row("huge length", mmap(0, 1 << 60, RW, ANON, -1, 0));
    row("length that wraps", mmap(0, usize::MAX, RW, ANON, -1, 0));
    row(
        "all of user space",
        mmap(0, USER_END, RW, ANON | libc::MAP_NORESERVE, -1, 0),
    );
    row(
        "validate, no file",
        mmap(0, PAGE, RW, SHARED_VALIDATE | libc::MAP_ANONYMOUS, -1, 0),
    );
    let object = memfd(2);
    row("validate, a file", mmap(0, PAGE, RW, SHARED_VALIDATE, object, 0));
    row(
        "validate, unknown flag",
        mmap(0, PAGE, RW, SHARED_VALIDATE | 1 << 27, object, 0),
    );
    row(
        "private, unknown flag",
        mmap(0, PAGE, RW, libc::MAP_PRIVATE | 1 << 27, object, 0),
    );
    row(
        "behind the end of the file",
        mmap(0, PAGE, RW, libc::MAP_SHARED, object, 16 * PAGE),
    );
    row(
        "offset overflows",
        mmap(0, PAGE, RW, libc::MAP_SHARED, object, usize::MAX - PAGE + 1),
    );
    let read_only = reopen_readonly(object).expect("a memfd can be opened again");
    row(
        "read-only descriptor, shared for writing",
        mmap(0, PAGE, RW, libc::MAP_SHARED, read_only, 0),
    );
    row(
        "read-only descriptor, shared for reading",
        mmap(0, PAGE, libc::PROT_READ, libc::MAP_SHARED, read_only, 0),
    );
    row(
        "read-only descriptor, private for writing",
        mmap(0, PAGE, RW, libc::MAP_PRIVATE, read_only, 0),
    );
    let (from, _to) = guest_tests::sys::pipe2(0).expect("a pipe can be made");
    row("a pipe", mmap(0, PAGE, RW, libc::MAP_PRIVATE, from, 0));
    row("NORESERVE", mmap(0, PAGE, RW, ANON | libc::MAP_NORESERVE, -1, 0));
    row("STACK", mmap(0, PAGE, RW, ANON | libc::MAP_STACK, -1, 0));
    row("GROWSDOWN", mmap(0, PAGE, RW, ANON | libc::MAP_GROWSDOWN, -1, 0));
    row("LOCKED", mmap(0, PAGE, RW, ANON | libc::MAP_LOCKED, -1, 0));
    row("POPULATE", mmap(0, PAGE, RW, ANON | libc::MAP_POPULATE, -1, 0));
    row(
        "hugetlb length not aligned, anonymous",
        mmap(0, PAGE, RW, ANON | libc::MAP_HUGETLB | libc::MAP_NORESERVE, -1, 0),
    );
    row(
        "hugetlb of a size that is not there",
        mmap(0, HUGE, RW, ANON | libc::MAP_HUGETLB | 16 << 26, -1, 0),
    );
    let populated =
        Region::map("populated", 2 * PAGE, RW, ANON | libc::MAP_POPULATE, -1, 0).expect("it can be mapped");
    show(
        "mmap: POPULATE populates",
        guest_tests::proc::page(populated.page(1)),
    );
}

fn placing() {
    let hole = Region::hole("hole", 4 * PAGE);
    show(
        "mmap: a hint",
        at(hole.start, mmap(hole.start, PAGE, RW, ANON, -1, 0)),
    );
    show(
        "mmap: a hint that is taken",
        at(hole.start, mmap(hole.start, PAGE, RW, ANON, -1, 0)),
    );
    show(
        "mmap: a hint that is not aligned",
        at(hole.page(1), mmap(hole.page(1) + 5, PAGE, RW, ANON, -1, 0)),
    );
    let fixed = ANON | libc::MAP_FIXED;
    show(
        "mmap: FIXED over it",
        at(hole.start, mmap(hole.start, PAGE, RW, fixed, -1, 0)),
    );
    show(
        "mmap: FIXED, not aligned",
        at(0, mmap(hole.start + 1, PAGE, RW, fixed, -1, 0)),
    );
    show(
        "mmap: FIXED at the end of user space",
        at(0, mmap(USER_END, PAGE, RW, fixed, -1, 0)),
    );
    show(
        "mmap: FIXED across the end",
        at(0, mmap(USER_END - PAGE, 2 * PAGE, RW, fixed, -1, 0)),
    );
    show(
        "mmap: FIXED in the kernel",
        at(0, mmap(0xffff_8000_0000_0000, PAGE, RW, fixed, -1, 0)),
    );
    let noreplace = ANON | FIXED_NOREPLACE;
    show(
        "mmap: NOREPLACE over it",
        at(hole.start, mmap(hole.start, PAGE, RW, noreplace, -1, 0)),
    );
    show(
        "mmap: NOREPLACE beside it",
        at(hole.page(2), mmap(hole.page(2), PAGE, RW, noreplace, -1, 0)),
    );
    show(
        "mmap: NOREPLACE across it",
        at(hole.page(1), mmap(hole.page(1), 3 * PAGE, RW, noreplace, -1, 0)),
    );
}

fn unmapping() {
    let region = Region::anon("region", 4);
    let munmap = |start: usize, len: usize| ok(call(libc::SYS_munmap, &[start, len]));
    show("munmap: length 0", munmap(region.start, 0));
    show("munmap: not aligned", munmap(region.start + 1, PAGE));
    show("munmap: one byte", munmap(region.page(1), 1));
    show("munmap: the page of that byte", peek(region.page(1)));
    show("munmap: nothing there", munmap(region.page(1), PAGE));
    show("munmap: across holes", munmap(region.start, 8 * PAGE));
    show("munmap: behind user space", munmap(USER_END, PAGE));
    show("munmap: length wraps", munmap(region.start, usize::MAX));
}

fn protecting() {
    let region = Region::filled("region", 4, 0x11);
    let row = |name: &str, start: usize, len: usize, prot: i32| {
        show(&format!("mprotect: {name}"), ok(mprotect(start, len, prot)))
    };
    row("length 0", region.start, 0, RW);
    row("not aligned", region.start + 1, PAGE, RW);
    row("unknown protection", region.start, PAGE, 0x40);
    row("read", region.start, PAGE, libc::PROT_READ);
    show("mprotect: a write then", poke(region.start, 1));
    show("mprotect: a read then", peek(region.start));
    row("none", region.page(1), PAGE, libc::PROT_NONE);
    show("mprotect: a read of that", peek(region.page(1)));
    row("write alone", region.page(1), PAGE, libc::PROT_WRITE);
    show("mprotect: a read of what is for writing", peek(region.page(1)));
    row("back", region.start, region.len, RW);
    show("mprotect: what was kept", peek(region.page(1)));
    call(libc::SYS_munmap, &[region.page(2), PAGE]).expect("munmap works");
    row("across a hole", region.start, region.len, libc::PROT_READ);
    show("mprotect: before the hole", poke(region.start, 1));
    show("mprotect: behind the hole", poke(region.page(3), 1));
    row("from a hole", region.page(2), PAGE, RW);
    row("length wraps", region.start, usize::MAX - 100, RW);
    row(
        "GROWSDOWN of what does not",
        region.start,
        PAGE,
        RW | libc::PROT_GROWSDOWN,
    );
    let object = memfd(1);
    let read_only = reopen_readonly(object).expect("a memfd can be opened again");
    let shared = Region::map("shared", PAGE, libc::PROT_READ, libc::MAP_SHARED, read_only, 0)
        .expect("it can be mapped");
    row("for writing, of a read-only descriptor", shared.start, PAGE, RW);
    row(
        "executable",
        region.start,
        PAGE,
        libc::PROT_READ | libc::PROT_EXEC,
    );
}

fn remapping() {
    let (may, fixed, dontunmap) = (libc::MREMAP_MAYMOVE, libc::MREMAP_FIXED, libc::MREMAP_DONTUNMAP);
    let region = Region::filled("region", 8, 0x22);
    let to = Region::hole("to", 16 * PAGE);
    let row = |name: &str, start: usize, old: usize, new: usize, flags: i32, to: usize| {
        show(&format!("mremap: {name}"), ok(mremap(start, old, new, flags, to)));
    };
    row("not aligned", region.start + 1, PAGE, PAGE, 0, 0);
    row("unknown flag", region.start, PAGE, PAGE, 8, 0);
    row("FIXED without MAYMOVE", region.start, PAGE, PAGE, fixed, to.start);
    row("new length 0", region.start, PAGE, 0, 0, 0);
    row(
        "DONTUNMAP without MAYMOVE",
        region.start,
        PAGE,
        PAGE,
        dontunmap,
        0,
    );
    row(
        "DONTUNMAP with another length",
        region.start,
        PAGE,
        2 * PAGE,
        may | dontunmap,
        0,
    );
    row(
        "destination not aligned",
        region.start,
        PAGE,
        PAGE,
        may | fixed,
        to.start + 1,
    );
    row(
        "destination overlaps",
        region.start,
        4 * PAGE,
        4 * PAGE,
        may | fixed,
        region.page(2),
    );
    row(
        "destination behind user space",
        region.start,
        PAGE,
        PAGE,
        may | fixed,
        USER_END,
    );
    row("nothing mapped", to.start, PAGE, PAGE, may, 0);
    row("old length 0 of private memory", region.start, 0, PAGE, may, 0);
    row(
        "behind the end of the mapping",
        region.page(7),
        2 * PAGE,
        4 * PAGE,
        may,
        0,
    );
    row("the same", region.start, 8 * PAGE, 8 * PAGE, 0, 0);
    row("shorter", region.start, 8 * PAGE, 6 * PAGE, 0, 0);
    show("mremap: the tail then", peek(region.page(6)));
    row("longer, in place", region.start, 6 * PAGE, 8 * PAGE, 0, 0);
    show("mremap: the new part", peek(region.page(7)));
    mmap(region.end(), PAGE, libc::PROT_NONE, ANON | libc::MAP_FIXED, -1, 0).expect("it is free");
    row(
        "longer, something in the way",
        region.start,
        8 * PAGE,
        12 * PAGE,
        0,
        0,
    );
    row(
        "one page of it to another place",
        region.page(2),
        PAGE,
        PAGE,
        may | fixed,
        to.page(1),
    );
    show("mremap: it is there", peek(to.page(1)));
    show("mremap: it is gone", peek(region.page(2)));
    row(
        "across the hole that it left",
        region.page(1),
        3 * PAGE,
        4 * PAGE,
        may,
        0,
    );
    row(
        "DONTUNMAP",
        region.page(3),
        PAGE,
        PAGE,
        may | fixed | dontunmap,
        to.page(4),
    );
    show("mremap: DONTUNMAP: it is there", peek(to.page(4)));
    show("mremap: DONTUNMAP: the old place is empty", peek(region.page(3)));
    let object = memfd(4);
    let shared = Region::shared("shared", object, 4);
    shared.fill(0, 4, 0x33);
    row(
        "old length 0 of shared memory: a second mapping",
        shared.start,
        0,
        2 * PAGE,
        may | fixed,
        to.page(8),
    );
    show("mremap: the second mapping", peek(to.page(9)));
    row("longer than the file", shared.start, 4 * PAGE, 6 * PAGE, may, 0);
}

fn advising() {
    let region = Region::filled("region", 8, 0x44);
    let row = |name: &str, start: usize, len: usize, advice: i32| {
        show(&format!("madvise: {name}"), ok(madvise(start, len, advice)))
    };
    row("not aligned", region.start + 1, PAGE, libc::MADV_DONTNEED);
    row("length 0", region.start, 0, libc::MADV_DONTNEED);
    row("unknown advice", region.start, PAGE, 99);
    row("unknown advice, length 0", region.start, 0, 99);
    row(
        "length wraps",
        region.start,
        usize::MAX - 100,
        libc::MADV_DONTNEED,
    );
    for (name, advice) in [
        ("NORMAL", 0),
        ("RANDOM", 1),
        ("SEQUENTIAL", 2),
        ("WILLNEED", 3),
        ("DONTNEED", 4),
        ("FREE", 8),
        ("REMOVE", 9),
        ("DONTFORK", 10),
        ("DOFORK", 11),
        ("NOHUGEPAGE", 15),
        ("HUGEPAGE", 14),
        ("DONTDUMP", 16),
        ("DODUMP", 17),
        ("WIPEONFORK", 18),
        ("KEEPONFORK", 19),
        ("COLD", 20),
        ("PAGEOUT", 21),
        ("POPULATE_READ", 22),
        ("POPULATE_WRITE", 23),
    ] {
        row(&format!("{name} of anon"), region.start, PAGE, advice);
    }
    show("madvise: DONTNEED gives zeros", peek(region.start));
    region.fill(0, 8, 0x44);
    call(libc::SYS_munmap, &[region.page(2), PAGE]).expect("munmap works");
    row(
        "DONTNEED across a hole",
        region.page(1),
        3 * PAGE,
        libc::MADV_DONTNEED,
    );
    show("madvise: DONTNEED across a hole: behind it", peek(region.page(3)));
    row("POPULATE_READ across a hole", region.page(1), 3 * PAGE, 22);
    row("POPULATE_WRITE of read-only memory", readonly(), PAGE, 23);
    row("POPULATE_READ of PROT_NONE", closed(), PAGE, 22);
    let object = memfd(4);
    let shared = Region::shared("shared", object, 4);
    shared.fill(0, 4, 0x55);
    row("DONTNEED of shmem", shared.start, PAGE, libc::MADV_DONTNEED);
    show(
        "madvise: DONTNEED of shmem: what the file has",
        peek(shared.start),
    );
    row("REMOVE of shmem", shared.start, PAGE, libc::MADV_REMOVE);
    show("madvise: REMOVE of shmem", peek(shared.start));
    row("FREE of shmem", shared.start, PAGE, libc::MADV_FREE);
    row("WIPEONFORK of shmem", shared.start, PAGE, 18);
    row(
        "POPULATE_READ behind the file",
        Region::shared("long", object, 8).page(5),
        PAGE,
        22,
    );
    if want_huge_pages(1) {
        let huge = Region::huge("huge", 1);
        row(
            "DONTNEED of a part of a huge page",
            huge.start,
            PAGE,
            libc::MADV_DONTNEED,
        );
        row(
            "DONTNEED not huge-aligned",
            huge.start + PAGE,
            PAGE,
            libc::MADV_DONTNEED,
        );
        row("FREE of hugetlb", huge.start, HUGE, libc::MADV_FREE);
    }
}

fn readonly() -> usize {
    Region::map("read-only", PAGE, libc::PROT_READ, ANON, -1, 0)
        .expect("it can be mapped")
        .start
}

fn closed() -> usize {
    Region::map("closed", PAGE, libc::PROT_NONE, ANON, -1, 0)
        .expect("it can be mapped")
        .start
}

fn residency() {
    let region = Region::anon("region", 4);
    region.fill(1, 3, 1);
    let mincore = |start: usize, len: usize| -> Result<String, Errno> {
        let mut pages = [0x80u8; 8];
        call(libc::SYS_mincore, &[start, len, pages.as_mut_ptr() as usize])?;
        Ok(format!(
            "{:?}",
            pages
                .iter()
                .filter(|page| **page != 0x80)
                .map(|page| page & 1)
                .collect::<Vec<_>>()
        ))
    };
    show("mincore: two of four", answer(mincore(region.start, region.len)));
    show("mincore: not aligned", answer(mincore(region.start + 1, PAGE)));
    show("mincore: length 0", answer(mincore(region.start, 0)));
    show("mincore: a hole", answer(mincore(region.page(3), 2 * PAGE)));
    show(
        "mincore: bad vector",
        ok(call(libc::SYS_mincore, &[region.start, PAGE, 8])),
    );
    show("mincore: behind user space", answer(mincore(USER_END, PAGE)));
    let object = memfd(2);
    Region::shared("alias", object, 2).fill(0, 1, 1);
    show(
        "mincore: what the file has",
        answer(mincore(Region::shared("shared", object, 2).start, 2 * PAGE)),
    );
}

fn locking() {
    let region = Region::anon("region", 4);
    let row =
        |name: &str, number: i64, args: &[usize]| show(&format!("mlock: {name}"), ok(call(number, args)));
    row("one page", libc::SYS_mlock, &[region.start, PAGE]);
    show("mlock: it is there", guest_tests::proc::page(region.start));
    row("not aligned", libc::SYS_mlock, &[region.page(1) + 5, 10]);
    show(
        "mlock: not aligned: it is there",
        guest_tests::proc::page(region.page(1)),
    );
    row("a hole", libc::SYS_mlock, &[region.page(3), 2 * PAGE]);
    row("length 0", libc::SYS_mlock, &[region.start, 0]);
    row("munlock", libc::SYS_munlock, &[region.start, PAGE]);
    row("munlock of a hole", libc::SYS_munlock, &[region.end(), PAGE]);
    let later = Region::anon("later", 2);
    row("mlock2 on fault", libc::SYS_mlock2, &[later.start, later.len, 1]);
    show("mlock: on fault: not there", guest_tests::proc::page(later.start));
    row(
        "mlock2 unknown flag",
        libc::SYS_mlock2,
        &[later.start, later.len, 2],
    );
    row(
        "MADV_DONTNEED of locked memory",
        libc::SYS_madvise,
        &[later.start, PAGE, 4],
    );
    row("mlockall 0", libc::SYS_mlockall, &[0]);
    row("mlockall unknown", libc::SYS_mlockall, &[8]);
    row("munlockall", libc::SYS_munlockall, &[]);
    row(
        "msync",
        libc::SYS_msync,
        &[region.start, PAGE, libc::MS_SYNC as usize],
    );
    row(
        "msync both",
        libc::SYS_msync,
        &[region.start, PAGE, (libc::MS_SYNC | libc::MS_ASYNC) as usize],
    );
    row(
        "msync of a hole",
        libc::SYS_msync,
        &[region.start, 8 * PAGE, libc::MS_ASYNC as usize],
    );
    row(
        "msync not aligned",
        libc::SYS_msync,
        &[region.start + 1, PAGE, libc::MS_ASYNC as usize],
    );
}

fn the_break() {
    let brk = |at: usize| call(libc::SYS_brk, &[at]).unwrap_or(0);
    let start = brk(0);
    let page = start.next_multiple_of(PAGE);
    show("brk: a query changes nothing", brk(0) == start);
    show("brk: up by three pages", brk(page + 3 * PAGE) == page + 3 * PAGE);
    show("brk: the new memory", peek(page + 2 * PAGE).to_string());
    show("brk: it can be written", poke(page + 2 * PAGE, 1));
    show(
        "brk: to a place inside a page",
        brk(page + PAGE + 5) == page + PAGE + 5,
    );
    show("brk: below its start", brk(PAGE) == page + PAGE + 5);
    show("brk: into the kernel", brk(1 << 63) == page + PAGE + 5);
    show("brk: down", brk(page) == page);
    show("brk: up again", brk(page + 3 * PAGE) == page + 3 * PAGE);
    show("brk: the memory is new", peek(page + 2 * PAGE).to_string());
}

/// A mapping that grows towards lower addresses when it is touched there.
fn growing_down() {
    let hole = Region::hole("hole", 512 * PAGE);
    let top = hole.page(400);
    mmap(top, PAGE, RW, ANON | libc::MAP_GROWSDOWN | libc::MAP_FIXED, -1, 0).expect("it is free");
    show("GROWSDOWN: its page", poke(top, 1));
    show("GROWSDOWN: the page below", poke(top - 8, 1));
    show("GROWSDOWN: ten pages below", poke(top - 10 * PAGE, 1));
    show("GROWSDOWN: between", peek(top - 5 * PAGE));
    mmap(hole.page(300), PAGE, RW, ANON | libc::MAP_FIXED, -1, 0).expect("it is free");
    show("GROWSDOWN: right above another mapping", poke(hole.page(301), 1));
}
