//! memfd_create with its seals and sizes, fallocate, and mappings beside read and write.

use guest_tests::region::{self, *};
use guest_tests::sys::{self, Answer, call};
use guest_tests::touch::{peek, poke};
use guest_tests::transcript::{answer, ok, show};

pub fn run() {
    flags();
    seals();
    sizes();
    allocation();
    coherence();
    private();
    huge();
}

fn flags() {
    let row = |name: &str, flags: u32| {
        show(
            &format!("memfd_create: {name}"),
            ok(memfd_flags(flags).map(sys::close)),
        )
    };
    row("0", 0);
    row("CLOEXEC", libc::MFD_CLOEXEC);
    row("ALLOW_SEALING", libc::MFD_ALLOW_SEALING);
    row("NOEXEC_SEAL", 8);
    row("EXEC", 16);
    row("NOEXEC_SEAL and EXEC", 24);
    row("unknown flag", 0x100);
    row("a huge size without HUGETLB", 21 << 26);
    row("HUGETLB", libc::MFD_HUGETLB);
    row("HUGETLB of 64 KiB", libc::MFD_HUGETLB | 16 << 26);
    let create = |name: usize| ok(call(libc::SYS_memfd_create, &[name, 0]));
    show("memfd_create: bad name", create(8));
    let mut name = vec![b'x'; 249];
    name.push(0);
    show(
        "memfd_create: a name of 249 letters",
        create(name.as_ptr() as usize),
    );
    name.insert(0, b'x');
    show(
        "memfd_create: a name of 250 letters",
        create(name.as_ptr() as usize),
    );
    let object = memfd(1);
    let link = std::fs::read_link(format!("/proc/self/fd/{object}"));
    show(
        "memfd_create: its link",
        link.map_or("none".into(), |path| path.display().to_string()),
    );
    show(
        "memfd_create: F_GETFL",
        sys::fcntl(object, libc::F_GETFL, 0).map_or(0, |flags| flags & 0o3),
    );
    show(
        "memfd_create: F_GET_SEALS without sealing",
        answer(sys::fcntl(object, libc::F_GET_SEALS, 0)),
    );
    show(
        "memfd_create: F_ADD_SEALS without sealing",
        ok(sys::fcntl(object, libc::F_ADD_SEALS, libc::F_SEAL_GROW as usize)),
    );
}

fn sealed() -> i32 {
    let fd = memfd_flags(libc::MFD_ALLOW_SEALING).expect("memfd_create works");
    ftruncate(fd, 4 * PAGE).expect("it has no seal yet");
    fd
}

fn seals() {
    let seal = |fd: i32, seals: i32| ok(sys::fcntl(fd, libc::F_ADD_SEALS, seals as usize));
    let get = |fd: i32| answer(sys::fcntl(fd, libc::F_GET_SEALS, 0));
    let fd = sealed();
    show("seals: none", get(fd));
    show("seals: unknown", seal(fd, 0x100));
    show("seals: SHRINK", seal(fd, libc::F_SEAL_SHRINK));
    show("seals: shorter", ok(ftruncate(fd, PAGE)));
    show("seals: longer", ok(ftruncate(fd, 8 * PAGE)));
    show("seals: GROW", seal(fd, libc::F_SEAL_GROW));
    show("seals: longer then", ok(ftruncate(fd, 9 * PAGE)));
    show(
        "seals: write behind the end",
        answer(call(
            libc::SYS_pwrite64,
            &[fd as usize, b"x".as_ptr() as usize, 1, 8 * PAGE],
        )),
    );
    show("seals: write inside", answer(sys::write(fd, b"x")));
    show(
        "seals: fallocate behind the end",
        ok(call(libc::SYS_fallocate, &[fd as usize, 0, 8 * PAGE, PAGE])),
    );
    show("seals: both", get(fd));
    let map = Region::map("map", PAGE, RW, libc::MAP_SHARED, fd, 0).expect("it can be mapped");
    show(
        "seals: WRITE while mapped for writing",
        seal(fd, libc::F_SEAL_WRITE),
    );
    map.unmap().expect("it is mapped");
    show("seals: WRITE", seal(fd, libc::F_SEAL_WRITE));
    show("seals: write(2)", answer(sys::write(fd, b"x")));
    show(
        "seals: map for writing",
        ok(mmap(0, PAGE, RW, libc::MAP_SHARED, fd, 0)),
    );
    let read = Region::map("read", PAGE, libc::PROT_READ, libc::MAP_SHARED, fd, 0);
    show("seals: map for reading", ok(read));
    show(
        "seals: mprotect for writing",
        ok(read.and_then(|read| mprotect(read.start, PAGE, RW))),
    );
    show(
        "seals: map private",
        ok(mmap(0, PAGE, RW, libc::MAP_PRIVATE, fd, 0)),
    );
    let punch = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as usize;
    show(
        "seals: punch a hole",
        ok(call(libc::SYS_fallocate, &[fd as usize, punch, 0, PAGE])),
    );
    show("seals: SEAL", seal(fd, libc::F_SEAL_SEAL));
    show("seals: one more", seal(fd, libc::F_SEAL_SHRINK));
    show("seals: all", get(fd));
    let fd = sealed();
    let old = Region::map("old", PAGE, RW, libc::MAP_SHARED, fd, 0).expect("it can be mapped");
    show("seals: FUTURE_WRITE while mapped for writing", seal(fd, 0x10));
    show("seals: FUTURE_WRITE: the old mapping writes", poke(old.start, 1));
    show("seals: FUTURE_WRITE: write(2)", answer(sys::write(fd, b"x")));
    show(
        "seals: FUTURE_WRITE: a new mapping for writing",
        ok(mmap(0, PAGE, RW, libc::MAP_SHARED, fd, 0)),
    );
    let read_only = reopen_readonly(sealed()).expect("it can be opened again");
    show(
        "seals: by a read-only descriptor",
        seal(read_only, libc::F_SEAL_GROW),
    );
}

fn sizes() {
    let fd = memfd(2);
    let size = |fd: i32| answer(call(libc::SYS_lseek, &[fd as usize, 0, libc::SEEK_END as usize]));
    show("size: of two pages", size(fd));
    show("size: ftruncate to 5000", ok(ftruncate(fd, 5000)));
    show("size: then", size(fd));
    show("size: negative", ok(ftruncate(fd, usize::MAX)));
    show("size: beyond what can be", ok(ftruncate(fd, i64::MAX as usize)));
    show("size: then again", size(fd));
    let area = Region::shared("area", fd, 2);
    area.fill(0, 1, 0x11);
    show("size: the last byte", poke(area.start + 4999, 0x22));
    show("size: behind it, in the same page", poke(area.start + 5001, 0x33));
    ftruncate(fd, 4097).expect("it can be cut");
    show(
        "size: cut inside the page: a byte behind the cut",
        peek(area.start + 4999),
    );
    ftruncate(fd, 4096).expect("it can be cut");
    show("size: cut at the page: an access behind it", peek(area.page(1)));
    ftruncate(fd, 8192).expect("it can grow");
    show("size: grown again: the page", peek(area.page(1)));
    show("size: the page before it", peek(area.start));
}

fn allocation() {
    let fd = memfd(0);
    let allocate = |mode: i32, at: usize, len: usize| {
        ok(call(libc::SYS_fallocate, &[fd as usize, mode as usize, at, len]))
    };
    let state = || {
        let mut about = [0u64; 18];
        call(libc::SYS_fstat, &[fd as usize, about.as_mut_ptr() as usize]).expect("fstat works");
        format!("size {} pages {}", about[6], about[8] / 8)
    };
    let (keep, punch, zero) = (
        libc::FALLOC_FL_KEEP_SIZE,
        libc::FALLOC_FL_PUNCH_HOLE,
        libc::FALLOC_FL_ZERO_RANGE,
    );
    show("fallocate: four pages", allocate(0, 0, 4 * PAGE));
    show("fallocate: then", state());
    show(
        "fallocate: behind the end, KEEP_SIZE",
        allocate(keep, 4 * PAGE, PAGE),
    );
    show("fallocate: KEEP_SIZE: then", state());
    show("fallocate: punch without KEEP_SIZE", allocate(punch, 0, PAGE));
    show("fallocate: punch", allocate(punch | keep, PAGE, 2 * PAGE));
    show("fallocate: punch: then", state());
    show(
        "fallocate: punch a part of a page",
        allocate(punch | keep, 100, 50),
    );
    show("fallocate: punch a part: then", state());
    show("fallocate: length 0", allocate(0, 0, 0));
    show("fallocate: negative", allocate(0, usize::MAX, PAGE));
    show("fallocate: too long", allocate(0, i64::MAX as usize, PAGE));
    show("fallocate: ZERO_RANGE", allocate(zero, 0, PAGE));
    show("fallocate: unknown", allocate(0x1000, 0, PAGE));
    let (from, _to) = sys::pipe2(0).expect("a pipe can be made");
    show(
        "fallocate: of a pipe",
        ok(call(libc::SYS_fallocate, &[from as usize, 0, 0, PAGE])),
    );
    let read_only = reopen_readonly(fd).expect("it can be opened again");
    show(
        "fallocate: read-only",
        ok(call(libc::SYS_fallocate, &[read_only as usize, 0, 0, PAGE])),
    );
    show("ftruncate: read-only", ok(ftruncate(read_only, PAGE)));
    // One page with bytes in it; those that were only allocated count as holes on some kernels.
    let data = memfd(4);
    call(
        libc::SYS_pwrite64,
        &[data as usize, b"x".as_ptr() as usize, 1, 2 * PAGE],
    )
    .expect("a memfd takes bytes");
    let fd = data;
    let seek = |from: usize, whence: usize| answer(call(libc::SYS_lseek, &[fd as usize, from, whence]));
    show("lseek: SEEK_DATA", seek(PAGE, 3));
    show("lseek: SEEK_HOLE", seek(0, 4));
    show("lseek: SEEK_DATA behind the end", seek(100 * PAGE, 3));
    show("lseek: unknown", seek(0, 9));
    show("lseek: negative", seek(usize::MAX, 0));
}

/// A mapping and the calls see one file.
fn coherence() {
    let fd = memfd(2);
    let first = Region::shared("first", fd, 2);
    let second = Region::shared("second", fd, 2);
    sys::write(fd, b"hello").expect("a memfd takes bytes");
    show("coherence: a write is seen", peek(first.start));
    poke(second.start + 1, b'a');
    let mut text = [0u8; 5];
    show(
        "coherence: pread",
        answer(call(
            libc::SYS_pread64,
            &[fd as usize, text.as_mut_ptr() as usize, 5, 0],
        )),
    );
    show("coherence: what it reads", String::from_utf8_lossy(&text));
    show("coherence: the other mapping", peek(first.start + 1));
    let from = [b'z'; 3];
    show(
        "coherence: pwrite across the end",
        answer(call(
            libc::SYS_pwrite64,
            &[fd as usize, from.as_ptr() as usize, 3, 2 * PAGE - 1],
        )),
    );
    show("coherence: the last byte", peek(second.end() - 1));
    show(
        "coherence: read at the end",
        answer(call(
            libc::SYS_pread64,
            &[fd as usize, text.as_mut_ptr() as usize, 5, 2 * PAGE],
        )),
    );
    show(
        "coherence: read behind the end",
        answer(call(
            libc::SYS_pread64,
            &[fd as usize, text.as_mut_ptr() as usize, 5, 9 * PAGE],
        )),
    );
}

fn private() {
    let fd = memfd(2);
    let shared = Region::shared("shared", fd, 2);
    let private = Region::private("private", fd, 2);
    shared.fill(0, 2, 0x11);
    show("private: reads the file", peek(private.start));
    poke(shared.start, 0x12);
    show("private: sees a later write before its own", peek(private.start));
    poke(private.start + 1, 0x99);
    show("private: its own write stays its own", peek(shared.start + 1));
    poke(shared.start, 0x13);
    show("private: after its own write", peek(private.start));
    show(
        "private: MADV_DONTNEED",
        ok(region::madvise(private.start, PAGE, libc::MADV_DONTNEED)),
    );
    show("private: the file again", peek(private.start));
    poke(private.page(1), 0x77);
    ftruncate(fd, PAGE).expect("it can be cut");
    show("private: its own page behind the cut", peek(private.page(1)));
}

fn huge() {
    if !want_huge_pages(2) {
        return show("hugetlb: pool", "cannot be had");
    }
    let fd = huge_memfd(2).expect("huge pages are there");
    show("hugetlb: ftruncate not aligned", ok(ftruncate(fd, PAGE)));
    show("hugetlb: write(2)", answer(sys::write(fd, b"x")));
    let map = |len: usize, offset: usize| -> Answer<Region> {
        Region::map("huge", len, RW, libc::MAP_SHARED, fd, offset)
    };
    show("hugetlb: map a part", ok(map(PAGE, 0)));
    show("hugetlb: offset not aligned", ok(map(HUGE, PAGE)));
    let area = map(2 * HUGE, 0).expect("it can be mapped");
    show("hugetlb: a write", poke(area.start + HUGE + 5, 0x42));
    show(
        "hugetlb: pagemap of its middle",
        guest_tests::proc::page(area.start + HUGE + 9 * PAGE),
    );
    let mut byte = [0u8; 1];
    show(
        "hugetlb: pread",
        answer(call(
            libc::SYS_pread64,
            &[fd as usize, byte.as_mut_ptr() as usize, 1, HUGE + 5],
        )),
    );
    show("hugetlb: what it reads", byte[0]);
    show(
        "hugetlb: mprotect a part",
        ok(mprotect(area.start, PAGE, libc::PROT_READ)),
    );
    show(
        "hugetlb: munmap a part",
        ok(call(libc::SYS_munmap, &[area.start, PAGE])),
    );
    let punch = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as usize;
    show(
        "hugetlb: punch",
        ok(call(libc::SYS_fallocate, &[fd as usize, punch, HUGE, HUGE])),
    );
    show("hugetlb: punched", peek(area.start + HUGE + 5));
    show(
        "hugetlb: fallocate",
        ok(call(libc::SYS_fallocate, &[fd as usize, 0, 0, HUGE])),
    );
    show("hugetlb: ftruncate", ok(ftruncate(fd, HUGE)));
    show("hugetlb: behind the end", peek(area.start + HUGE));
    show(
        "hugetlb: mremap longer",
        ok(mremap(area.start, HUGE, 2 * HUGE, libc::MREMAP_MAYMOVE, 0)),
    );
}
