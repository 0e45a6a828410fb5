//! Which neighbours are one area: the borders that `/proc/self/maps` shows, and what a fill or a move across one comes to
//! (sections 2 and 5.1).

use guest_tests::child::fork;
use guest_tests::region::*;
use guest_tests::transcript::{check, ok, show};
use guest_tests::uffd::*;

const RWX: i32 = RW | libc::PROT_EXEC;
const FIXED: i32 = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;

pub fn run() {
    rights();
    places();
    forks();
    fills();
}

/// Pages that areas are put into, with nothing around them.
struct Window(Region);

impl Window {
    fn new() -> Self {
        let window = Self(Region::hole("window", 32 * PAGE));
        window.0.unmap().expect("it was mapped");
        window
    }

    fn map(&self, first: usize, pages: usize, prot: i32) {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        mmap(self.0.page(first), pages * PAGE, prot, flags, -1, 0).expect("memory is plenty");
    }

    fn fill(&self, first: usize, pages: usize) {
        self.0.fill(first, first + pages, 1);
    }

    fn protect(&self, first: usize, pages: usize, prot: i32) {
        mprotect(self.0.page(first), pages * PAGE, prot).expect("it is mapped");
    }

    fn remap(&self, first: usize, pages: usize, to: usize, flags: i32) {
        mremap(
            self.0.page(first),
            pages * PAGE,
            pages * PAGE,
            flags,
            self.0.page(to),
        )
        .expect("there is room");
    }

    /// The areas, as first page and the page behind.
    fn areas(&self) -> String {
        let text = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let areas = text.lines().filter_map(|line| {
            let (start, end) = line.split(' ').next()?.split_once('-')?;
            let place = |word| usize::from_str_radix(word, 16).ok()?.checked_sub(self.0.start);
            let (start, end) = (place(start)? / PAGE, place(end)? / PAGE);
            (end <= 32).then(|| format!("{start}..{end}"))
        });
        areas.collect::<Vec<_>>().join(" ")
    }
}

fn rights() {
    let window = Window::new();
    window.map(10, 2, RW);
    window.fill(10, 2);
    window.map(12, 2, libc::PROT_READ);
    window.protect(12, 2, RW);
    check("a filled area and an empty one", window.areas(), "10..14");

    let window = Window::new();
    window.map(10, 2, RW);
    window.map(14, 2, RW);
    window.fill(10, 2);
    window.fill(14, 2);
    window.map(12, 2, RW);
    check("between two filled ones", window.areas(), "10..14 14..16");

    let window = Window::new();
    window.map(10, 2, RW);
    window.map(12, 2, RWX);
    window.fill(10, 4);
    window.protect(12, 2, RW);
    check("filled with other rights", window.areas(), "10..14");

    let window = Window::new();
    window.map(10, 1, RW);
    window.fill(10, 1);
    window.map(11, 1, RWX);
    window.protect(10, 2, libc::PROT_READ);
    check(
        "made read-only, filled and empty",
        window.areas(),
        "10..11 11..12",
    );
}

fn places() {
    let window = Window::new();
    window.map(10, 4, RW);
    window.remap(12, 2, 8, FIXED);
    check("empty, moved beside the rest", window.areas(), "8..12");

    let window = Window::new();
    window.map(10, 4, RW);
    window.fill(10, 4);
    window.remap(12, 2, 8, FIXED);
    check("filled, moved beside the rest", window.areas(), "8..10 10..12");
    window.remap(8, 2, 12, FIXED);
    check("filled, moved back", window.areas(), "10..14");

    let window = Window::new();
    window.map(10, 4, RW);
    window.fill(10, 4);
    window.remap(10, 4, 20, FIXED | libc::MREMAP_DONTUNMAP);
    window.map(14, 2, RW);
    check("left behind, and more", window.areas(), "10..16 20..24");
}

fn forks() {
    let window = Window::new();
    window.map(10, 4, RW);
    window.fill(10, 4);
    window.protect(12, 2, libc::PROT_READ);
    let child = fork(|| {
        window.protect(12, 2, RW);
        check("in a child, parted before", window.areas(), "10..12 12..14");
        window.map(14, 2, RW);
        check(
            "in a child, empty beside a copy",
            window.areas(),
            "10..12 12..14 14..16",
        );
        window.protect(10, 1, libc::PROT_READ);
        window.protect(10, 1, RW);
        check(
            "in a child, parted and alike again",
            window.areas(),
            "10..12 12..14 14..16",
        );
        0
    });
    show("the child", child.wait());
    window.protect(12, 2, RW);
    check("in the parent", window.areas(), "10..14");
}

fn fills() {
    let source = Region::filled("source", 8, 7);
    let window = Window::new();
    let uffd = Uffd::with(0);
    window.map(10, 2, RW);
    window.map(12, 1, libc::PROT_READ);
    let register = |first, pages| ok(uffd.register(window.0.page(first), pages * PAGE, MISSING));
    let copy = |first, pages: usize| uffd.copy(window.0.page(first), source.start, pages * PAGE, 0);
    check("register", register(10, 3), "ok");
    check("COPY across two areas", copy(10, 3), "ENOENT field -ENOENT");
    window.protect(10, 3, libc::PROT_READ);
    show("the border after a COPY that was refused", window.areas());
    show("COPY across it", copy(10, 3));
    show("COPY up to it", copy(10, 2));

    let window = Window::new();
    let uffd = Uffd::with(0);
    window.map(10, 7, RW);
    check(
        "register",
        ok(uffd.register(window.0.page(10), 7 * PAGE, WP)),
        "ok",
    );
    window.remap(14, 1, 9, FIXED);
    show("a part moved beside its registration", window.areas());
    for page in [9, 10, 15] {
        show(
            &format!("WRITEPROTECT of page {page} then"),
            ok(uffd.writeprotect(window.0.page(page), PAGE, 1)),
        );
    }
}
