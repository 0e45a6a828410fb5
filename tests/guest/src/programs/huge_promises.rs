//! Huge pages that mappings are promised: what the pool's figures say, who is refused, and who is served when it is empty.

use guest_tests::attempt::writing;
use guest_tests::child::fork;
use guest_tests::proc::meminfo;
use guest_tests::region::*;
use guest_tests::sys::{self, Answer, call};
use guest_tests::touch::{peek, poke};
use guest_tests::transcript::{ok, show};
use guest_tests::uffd::{MISSING, Uffd};

const HUGE_ANON: i32 = ANON | libc::MAP_HUGETLB;
const HUGE_SHARED: i32 = SHARED | libc::MAP_HUGETLB;

/// Free pages of the pool, and those that are promised.
#[derive(Clone, Copy)]
struct Pool {
    free: i64,
    promised: i64,
}

fn pool() -> Pool {
    let number = |key| meminfo(key).unwrap_or(0) as i64;
    Pool {
        free: number("HugePages_Free:"),
        promised: number("HugePages_Rsvd:"),
    }
}

impl Pool {
    /// What has changed since.
    fn changes(self) -> String {
        let now = pool();
        format!(
            "free {:+}, promised {:+}",
            now.free - self.free,
            now.promised - self.promised
        )
    }
}

fn map(name: &str, pages: usize, flags: i32) -> Answer<Region> {
    Region::map(name, pages * HUGE, RW, flags, -1, 0)
}

fn of_file(name: &str, fd: i32, first: usize, pages: usize, flags: i32) -> Answer<Region> {
    Region::map(name, pages * HUGE, RW, flags, fd, first * HUGE)
}

fn at(region: &Region, index: usize) -> usize {
    region.start + index * HUGE
}

fn unmap(region: &Region, first: usize, pages: usize) {
    call(libc::SYS_munmap, &[at(region, first), pages * HUGE]).expect("munmap works");
}

pub fn run() {
    if !want_huge_pages(24) {
        return show("there are too few huge pages", "");
    }
    private();
    without();
    shared();
    of_objects();
    forked();
    moved();
    too_many();
    empty();
}

fn private() {
    let before = pool();
    let row = |what: &str| show(&format!("private: {what}"), before.changes());
    let region = map("private", 6, HUGE_ANON).expect("it can be mapped");
    row("mapped");
    poke(at(&region, 0), 1);
    row("one written");
    peek(at(&region, 1));
    row("one read");
    madvise(at(&region, 0), HUGE, libc::MADV_DONTNEED).expect("madvise works");
    row("one discarded");
    poke(at(&region, 0), 1);
    row("written again");
    unmap(&region, 0, 1);
    row("a used one unmapped");
    unmap(&region, 3, 1);
    row("an unused one unmapped, in the middle");
    mprotect(at(&region, 1), HUGE, libc::PROT_READ).expect("mprotect works");
    row("part protected");
    poke(at(&region, 5), 1);
    row("the last written");
    mmap(at(&region, 4), 2 * HUGE, RW, ANON | libc::MAP_FIXED, -1, 0).expect("it can be mapped");
    row("the last two mapped over");
    unmap(&region, 1, 5);
    row("all unmapped");
    let child = fork(|| {
        let region = map("of a child", 3, HUGE_ANON).expect("it can be mapped");
        poke(region.start, 1);
        row("of a child");
        0
    });
    child.wait();
    row("the child has ended");
    let closed = Region::map("closed", 2 * HUGE, libc::PROT_NONE, HUGE_ANON, -1, 0).expect("it can be");
    row("without rights");
    closed.unmap().expect("munmap works");
}

fn without() {
    let before = pool();
    let row = |what: &str| show(&format!("MAP_NORESERVE: {what}"), before.changes());
    let region = map("without", 3, HUGE_ANON | libc::MAP_NORESERVE).expect("it can be mapped");
    row("mapped");
    poke(at(&region, 0), 1);
    row("one written");
    madvise(at(&region, 0), HUGE, libc::MADV_DONTNEED).expect("madvise works");
    row("discarded");
    poke(at(&region, 0), 1);
    region.unmap().expect("munmap works");
    row("unmapped");
    let shared = map("shared", 3, HUGE_SHARED | libc::MAP_NORESERVE).expect("it can be mapped");
    row("shared, mapped");
    poke(at(&shared, 1), 1);
    row("shared, one written");
    shared.unmap().expect("munmap works");
    row("shared, unmapped");
}

fn shared() {
    let before = pool();
    let row = |what: &str| show(&format!("shared: {what}"), before.changes());
    let region = map("shared", 4, HUGE_SHARED).expect("it can be mapped");
    row("mapped");
    poke(at(&region, 1), 1);
    row("one written");
    madvise(at(&region, 1), HUGE, libc::MADV_DONTNEED).expect("madvise works");
    row("discarded");
    poke(at(&region, 1), 1);
    row("written again");
    unmap(&region, 0, 2);
    row("half unmapped");
    madvise(at(&region, 2), HUGE, libc::MADV_REMOVE).expect("madvise works");
    row("an unused one punched");
    poke(at(&region, 2), 1);
    madvise(at(&region, 2), HUGE, libc::MADV_REMOVE).expect("madvise works");
    row("a used one punched");
    poke(at(&region, 2), 1);
    row("written once more");
    unmap(&region, 2, 2);
    row("unmapped");
}

fn of_objects() {
    let before = pool();
    let row = |what: &str| show(&format!("memfd: {what}"), before.changes());
    let fd = huge_memfd(8).expect("it can be made");
    row("made");
    let first = of_file("first", fd, 0, 4, libc::MAP_SHARED).expect("it can be mapped");
    row("four pages mapped");
    let second = of_file("second", fd, 2, 4, libc::MAP_SHARED).expect("it can be mapped");
    row("two of them, and two more");
    poke(at(&first, 3), 1);
    row("one written");
    peek(at(&second, 1));
    row("seen through the other");
    second.unmap().expect("munmap works");
    row("the second unmapped");
    let private = of_file("private", fd, 2, 3, libc::MAP_PRIVATE).expect("it can be mapped");
    row("three pages mapped privately");
    peek(at(&private, 1));
    row("private: one of the object's read");
    poke(at(&private, 1), 2);
    row("private: and written");
    poke(at(&private, 0), 2);
    row("private: one in a hole written");
    private.unmap().expect("munmap works");
    row("private: unmapped");
    let fallocate = |mode: usize, page: usize, pages: usize| {
        ok(call(
            libc::SYS_fallocate,
            &[fd as usize, mode, page * HUGE, pages * HUGE],
        ))
    };
    show("memfd: allocate", fallocate(0, 0, 1));
    row("a promised one allocated");
    show("memfd: allocate", fallocate(0, 7, 1));
    row("one that was not promised");
    let late = of_file("late", fd, 6, 2, libc::MAP_SHARED).expect("it can be mapped");
    row("mapped with another");
    show("memfd: punch", fallocate(3, 7, 1));
    row("punched");
    show("memfd: punch of promised ones", fallocate(3, 4, 2));
    row("punched where nothing was");
    ftruncate(fd, 5 * HUGE).expect("ftruncate works");
    row("truncated to five");
    ftruncate(fd, 8 * HUGE).expect("ftruncate works");
    row("longer again");
    poke(at(&late, 0), 1);
    row("written behind the old end");
    late.unmap().expect("munmap works");
    first.unmap().expect("munmap works");
    row("unmapped");
    let _ = sys::close(fd);
    row("closed");
    let fd = huge_memfd(1).expect("it can be made");
    let long = of_file("long", fd, 0, 3, libc::MAP_SHARED).expect("it can be mapped");
    row("mapped past the end");
    long.unmap().expect("munmap works");
    let _ = sys::close(fd);
    row("closed again");
    let fd = huge_memfd(4).expect("it can be made");
    let readonly = Region::map("readonly", 4 * HUGE, libc::PROT_READ, libc::MAP_SHARED, fd, 0);
    let readonly = readonly.expect("it can be mapped");
    row("mapped for reading");
    readonly.unmap().expect("munmap works");
    let spare = of_file("spare", fd, 0, 2, libc::MAP_SHARED | libc::MAP_NORESERVE).expect("it can be");
    row("with MAP_NORESERVE beside");
    poke(at(&spare, 0), 1);
    row("written through that");
    spare.unmap().expect("munmap works");
    let _ = sys::close(fd);
    row("closed at last");
}

fn forked() {
    let before = pool();
    let row = |what: &str| show(&format!("fork: {what}"), before.changes());
    let region = map("forked", 4, HUGE_ANON).expect("it can be mapped");
    poke(at(&region, 0), 1);
    poke(at(&region, 1), 1);
    row("before");
    let child = fork(|| {
        row("child: begins");
        poke(at(&region, 0), 2);
        row("child: one that was there written");
        poke(at(&region, 2), 2);
        row("child: one that was not");
        madvise(at(&region, 2), HUGE, libc::MADV_DONTNEED).expect("madvise works");
        row("child: discarded");
        unmap(&region, 3, 1);
        row("child: one unmapped");
        0
    });
    child.wait();
    row("the child has ended");
    poke(at(&region, 0), 3);
    row("parent: written");
    poke(at(&region, 2), 3);
    row("parent: one that was not there");
    region.unmap().expect("munmap works");
    row("unmapped");
    let shared = map("shared", 2, HUGE_SHARED).expect("it can be mapped");
    let child = fork(|| {
        poke(at(&shared, 0), 1);
        row("shared, child: written");
        shared.unmap().expect("munmap works");
        row("shared, child: unmapped");
        0
    });
    child.wait();
    row("shared: the child has ended");
    shared.unmap().expect("munmap works");
    row("shared: unmapped");
}

fn moved() {
    const MAY_MOVE: i32 = 1;
    const FIXED: i32 = 2;
    let before = pool();
    let row = |what: &str| show(&format!("mremap: {what}"), before.changes());
    let region = map("moved", 4, HUGE_ANON).expect("it can be mapped");
    poke(at(&region, 0), 1);
    let to = Region::hole("to", 4 * HUGE);
    show(
        "mremap: move",
        ok(mremap(
            region.start,
            4 * HUGE,
            4 * HUGE,
            MAY_MOVE | FIXED,
            to.start,
        )),
    );
    row("moved");
    poke(at(&to, 1), 1);
    row("written there");
    show("mremap: shorter", ok(mremap(to.start, 4 * HUGE, 3 * HUGE, 0, 0)));
    row("shorter");
    let over = map("over", 2, HUGE_ANON).expect("it can be mapped");
    row("another mapped");
    show(
        "mremap: over the other",
        ok(mremap(
            at(&to, 1),
            2 * HUGE,
            2 * HUGE,
            MAY_MOVE | FIXED,
            over.start,
        )),
    );
    row("moved over the other");
    over.unmap().expect("munmap works");
    row("that unmapped");
    unmap(&to, 0, 1);
    row("all unmapped");
}

/// Pages that nobody has, and that are not promised.
fn available() -> usize {
    let now = pool();
    (now.free - now.promised).max(0) as usize
}

fn too_many() {
    let before = pool();
    let row = |what: &str| show(&format!("too many: {what}"), before.changes());
    let count = available();
    show(
        "too many: one more than there are",
        ok(map("more", count + 1, HUGE_ANON)),
    );
    show("too many: shared", ok(map("more", count + 1, HUGE_SHARED)));
    row("refused");
    let vast = map("vast", count + 1, HUGE_ANON | libc::MAP_NORESERVE);
    show("too many: with MAP_NORESERVE", ok(vast));
    let _ = vast.map(|region| region.unmap());
    let fd = huge_memfd(count + 2).expect("it can be made");
    show(
        "too many: of an object, shared",
        ok(of_file("more", fd, 0, count + 1, libc::MAP_SHARED)),
    );
    show(
        "too many: of an object, private",
        ok(of_file("more", fd, 0, count + 1, libc::MAP_PRIVATE)),
    );
    row("refused again");
    let _ = sys::close(fd);
    let old = Region::filled("old", 1, 7);
    let over = mmap(
        old.start,
        (count + 1) * HUGE,
        RW,
        HUGE_ANON | libc::MAP_FIXED,
        -1,
        0,
    );
    show("too many: over another", ok(over));
    show("too many: what was there", peek(old.start));
    row("refused over another");
}

/// All that is free is promised to somebody else.
fn empty() {
    let promised = map("promised", 2, HUGE_ANON).expect("it can be mapped");
    let noreserve = map("without", 4, HUGE_ANON | libc::MAP_NORESERVE).expect("it can be mapped");
    let fd = huge_memfd(6).expect("it can be made");
    let half = of_file("half", fd, 0, 2, libc::MAP_SHARED).expect("it can be mapped");
    let late = of_file("late", fd, 2, 2, libc::MAP_SHARED | libc::MAP_NORESERVE).expect("it can be");
    let source = map("source", 1, HUGE_ANON).expect("it can be mapped");
    poke(source.start, 0x42);
    let uffd = Uffd::with(0);
    let watched = map("watched", 2, HUGE_ANON).expect("it can be mapped");
    uffd.watch(&watched, MISSING);
    let loose = map("loose", 2, HUGE_ANON | libc::MAP_NORESERVE).expect("it can be mapped");
    uffd.watch(&loose, MISSING);
    let rest = map("rest", available(), HUGE_ANON).expect("it can be mapped");
    let before = pool();
    let row = |what: &str| show(&format!("empty: {what}"), before.changes());
    show("empty: available", available());
    show("empty: one more", ok(map("more", 1, HUGE_ANON)));
    show("empty: what was promised", poke(promised.start, 1));
    row("one promised one written");
    show("empty: with MAP_NORESERVE", poke(noreserve.start, 1));
    show("empty: the same, read", peek(noreserve.start));
    row("refused");
    show("empty: of an object, promised", poke(half.start, 1));
    show("empty: of an object, not promised", poke(late.start, 1));
    let fallocate = |page: usize| ok(call(libc::SYS_fallocate, &[fd as usize, 0, page * HUGE, HUGE]));
    show("empty: allocate a promised one", fallocate(1));
    show("empty: allocate one that is not", fallocate(3));
    row("objects");
    show(
        "empty: COPY where it was promised",
        uffd.copy(watched.start, source.start, HUGE, 0),
    );
    show(
        "empty: COPY again",
        uffd.copy(watched.start, source.start, HUGE, 0),
    );
    show(
        "empty: COPY where it was not",
        uffd.copy(loose.start, source.start, HUGE, 0),
    );
    show(
        "empty: COPY from a bad source",
        uffd.copy(at(&watched, 1), Region::hole("hole", HUGE).start, HUGE, 0),
    );
    row("copied");
    show(
        "empty: the other one",
        uffd.copy(at(&watched, 1), source.start, HUGE, 0),
    );
    show("empty: what is read there", peek(at(&watched, 1)));
    show("empty: a touch where it was not", writing(&uffd, at(&loose, 1)));
    row("copied again");
    show(
        "empty: POPULATE_WRITE where it was not",
        ok(madvise(noreserve.start, HUGE, 23)),
    );
    show("empty: read(2) into where it was not", {
        let (from, to) = sys::pipe2(0).expect("a pipe can be made");
        let _ = sys::write(to, b"x");
        ok(call(libc::SYS_read, &[from as usize, noreserve.start, 1]))
    });
    let child = fork(|| {
        show(
            "empty, child: what was promised to the parent",
            poke(at(&promised, 1), 1),
        );
        0
    });
    show("empty: the child", child.wait());
    show("empty: what the child was refused", poke(at(&promised, 1), 1));
    madvise(promised.start, HUGE, libc::MADV_DONTNEED).expect("madvise works");
    show("empty: nobody gets what was discarded", poke(noreserve.start, 1));
    show("empty: but who had it", poke(promised.start, 2));
    row("discarded and back");
    rest.unmap().expect("munmap works");
    show("empty no more: with MAP_NORESERVE", poke(noreserve.start, 1));
    for region in [promised, noreserve, half, late, source, watched, loose] {
        region.unmap().expect("munmap works");
    }
    let _ = sys::close(fd);
}
