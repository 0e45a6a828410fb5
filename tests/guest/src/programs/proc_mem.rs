//! /proc/PID/mem reads and writes what the rights of an area forbid, as far as the pages are, or become, the process's own.

use guest_tests::child::fork;
use guest_tests::proc::page;
use guest_tests::region::*;
use guest_tests::sys::{self, call};
use guest_tests::touch::{bytes, peek, poke};
use guest_tests::transcript::{answer, ok, show};
use guest_tests::uffd::{MISSING, PROTECT, Uffd, WP};

/// The memory of a process, opened like a file.
struct Memory(i32);

impl Memory {
    fn own() -> Self {
        Self(sys::open("/proc/self/mem", libc::O_RDWR).expect("it is there"))
    }

    fn write(&self, address: usize, value: &[u8]) -> String {
        let at = value.as_ptr() as usize;
        answer(call(
            libc::SYS_pwrite64,
            &[self.0 as usize, at, value.len(), address],
        ))
    }

    fn read(&self, address: usize) -> String {
        let mut byte = 0u8;
        let at = &raw mut byte as usize;
        match call(libc::SYS_pread64, &[self.0 as usize, at, 1, address]) {
            Ok(1) => format!("{byte:#04x}"),
            Ok(count) => format!("{count} bytes"),
            Err(errno) => errno.to_string(),
        }
    }
}

pub fn run() {
    anonymous();
    objects();
    huge();
    forked();
    registered();
    program();
}

/// Rights that anonymous memory has, what was done to its page before, and what a write does.
fn anonymous() {
    let memory = Memory::own();
    for (rights, prot) in [
        ("read", libc::PROT_READ),
        ("none", libc::PROT_NONE),
        ("execute", libc::PROT_READ | libc::PROT_EXEC),
    ] {
        let area = Region::anon("area", 3);
        poke(area.start, 0x11);
        peek(area.page(1));
        mprotect(area.start, area.len, prot).expect("mprotect works");
        for (index, state) in ["written before", "read before", "never touched"]
            .iter()
            .enumerate()
        {
            let row = |what: &str| format!("{rights}, {state}: {what}");
            let at = area.page(index);
            show(&row("read"), memory.read(at));
            show(&row("write"), memory.write(at, &[0x22]));
            show(&row("reads by itself"), peek(at));
            show(&row("writes by itself"), poke(at, 0x33));
            show(&row("read again"), memory.read(at));
            show(&row("the page"), page(at));
        }
        show(
            &format!("{rights}: across two pages"),
            memory.write(area.page(1) - 2, &[5; 4]),
        );
        mprotect(area.start, area.len, RW).expect("mprotect works");
        for index in 0..3 {
            show(
                &format!("{rights}: page {index} afterwards"),
                peek(area.page(index)),
            );
            show(
                &format!("{rights}: page {index} is written"),
                poke(area.page(index), 0x44),
            );
        }
    }
    let shared = Region::map("shared", PAGE, libc::PROT_READ, SHARED, -1, 0).expect("it can be mapped");
    show(
        "shared anonymous, read only: write",
        memory.write(shared.start, &[1]),
    );
    let none = Region::map("closed", PAGE, libc::PROT_NONE, SHARED, -1, 0).expect("it can be mapped");
    show("shared anonymous, no rights: read", memory.read(none.start));
    show(
        "shared anonymous, no rights: write",
        memory.write(none.start, &[1]),
    );
    show("the vdso: write", {
        let text = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let line = text.lines().find(|line| line.ends_with("[vdso]"));
        let start = line.and_then(|line| usize::from_str_radix(line.split('-').next()?, 16).ok());
        // The last byte: nothing is there but padding.
        start.map_or("no vdso".into(), |start| memory.write(start + PAGE - 1, &[0]))
    });
}

/// Memory of files: the private mapping gets a page of its own, the file stays.
fn objects() {
    let memory = Memory::own();
    let fd = memfd(2);
    sys::write(fd, &[0x55; 16]).expect("a memfd takes bytes");
    for touched in [false, true] {
        let row = |what: &str| {
            let before = if touched { "read before" } else { "never touched" };
            format!("private file, {before}: {what}")
        };
        let private = Region::private("private", fd, 2);
        mprotect(private.start, private.len, libc::PROT_READ).expect("mprotect works");
        if touched {
            peek(private.start);
            peek(private.page(1));
        }
        show(&row("write"), memory.write(private.start, &[0x66]));
        show(&row("write to a hole"), memory.write(private.page(1), &[0x77]));
        show(&row("bytes"), format!("{:x?}", bytes(private.start, 2)));
        show(&row("a store"), poke(private.start, 1));
        let file = Region::shared("file", fd, 2);
        show(&row("the file"), peek(file.start));
        show(&row("the file's hole"), peek(file.page(1)));
    }
    let shared = Region::map("shared", PAGE, libc::PROT_READ, libc::MAP_SHARED, fd, 0).expect("it can be");
    show("shared file, read only: read", memory.read(shared.start));
    show("shared file, read only: write", memory.write(shared.start, &[1]));
    let readonly = reopen_readonly(fd).expect("it can be opened again");
    let shared = Region::map("shared", PAGE, libc::PROT_READ, libc::MAP_SHARED, readonly, 0).expect("it can");
    show(
        "shared file, opened for reading: write",
        memory.write(shared.start, &[1]),
    );
    let private = Region::map("own", PAGE, libc::PROT_READ, libc::MAP_PRIVATE, readonly, 0).expect("it can");
    show(
        "private file, opened for reading: write",
        memory.write(private.start, &[1]),
    );
    show("private file, opened for reading: reads", peek(private.start));
    let beyond = Region::private("beyond", fd, 4);
    show("past the end of the file: read", memory.read(beyond.page(3)));
    show(
        "past the end of the file: write",
        memory.write(beyond.page(3), &[1]),
    );
}

/// Huge pages, like any.
fn huge() {
    if !want_huge_pages(1) {
        return show("huge: there are no huge pages", "");
    }
    let memory = Memory::own();
    let flags = ANON | libc::MAP_HUGETLB;
    let area = Region::map("huge", HUGE, RW, flags, -1, 0).expect("it can be mapped");
    poke(area.start, 0x11);
    show("huge: write", memory.write(area.start + 1, &[0x12]));
    mprotect(area.start, HUGE, libc::PROT_READ).expect("mprotect works");
    show("huge, read only: read", memory.read(area.start));
    show("huge, read only: write", memory.write(area.start, &[0x22]));
    mprotect(area.start, HUGE, libc::PROT_NONE).expect("mprotect works");
    show("huge, no rights: read", memory.read(area.start));
    show("huge, no rights: write", memory.write(area.start, &[0x22]));
    let _ = area.unmap();
    let area = Region::map("huge", HUGE, libc::PROT_READ, flags, -1, 0).expect("it can be mapped");
    show("huge, never touched: write", memory.write(area.start, &[0x33]));
    show("huge, never touched: reads", peek(area.start));
    show("huge, never touched: a store", poke(area.start, 1));
    let _ = area.unmap();
}

/// What one of two has written is not the other's.
fn forked() {
    let area = Region::anon("area", 1);
    poke(area.start, 0x11);
    mprotect(area.start, PAGE, libc::PROT_READ).expect("mprotect works");
    let child = fork(|| {
        show("fork, child: write", Memory::own().write(area.start, &[0x22]));
        show("fork, child: reads", peek(area.start));
        0
    });
    show("fork: the child", child.wait());
    show("fork, parent: reads", peek(area.start));
    show("fork, parent: write", Memory::own().write(area.start, &[0x33]));
    show("fork, parent: reads then", peek(area.start));
}

/// A page that somebody would have to be asked about.
fn registered() {
    let memory = Memory::own();
    let area = Region::anon("area", 2);
    poke(area.start, 0x11);
    let uffd = Uffd::with(0);
    uffd.watch(&area, MISSING | WP);
    show(
        "registered: protect",
        ok(uffd.writeprotect(area.start, PAGE, PROTECT)),
    );
    mprotect(area.start, area.len, libc::PROT_READ).expect("mprotect works");
    show("registered: read of a protected page", memory.read(area.start));
    show(
        "registered: write to a protected page",
        memory.write(area.start, &[1]),
    );
    show("registered: read of a missing page", memory.read(area.page(1)));
    show(
        "registered: write to a missing page",
        memory.write(area.page(1), &[1]),
    );
    show("registered: nobody is told", uffd.now());
    show(
        "registered: unprotect",
        ok(uffd.writeprotect(area.start, PAGE, 0)),
    );
    show("registered: write then", memory.write(area.start, &[0x22]));
    show("registered: reads", peek(area.start));
}

/// The program's own code, as a debugger puts a breakpoint there.
fn program() {
    extern "C" fn never_called() -> i32 {
        std::hint::black_box(7)
    }
    let function = std::hint::black_box(never_called as extern "C" fn() -> i32);
    let memory = Memory::own();
    show("code: write", memory.write(function as usize, &[0xcc]));
    show("code: reads", peek(function as usize));
    let child = fork(|| function());
    show("code: called", child.wait());
}
