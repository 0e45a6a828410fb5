//! Which modes each type of memory accepts, and the mask that comes back (section 2).

use guest_tests::region::*;
use guest_tests::sys::{self, call};
use guest_tests::transcript::{Hex, answer, check};
use guest_tests::uffd::{Uffd, feature};

/// The masks of anonymous memory, modes 1 to 7.
const ANONYMOUS: [&str; 7] = ["0x13c", "0x17c", "0x17c", "EINVAL", "EINVAL", "EINVAL", "EINVAL"];
/// Of shared memory.
const SHMEM: [&str; 7] = ["0x13c", "0x17c", "0x17c", "0x1bc", "0x1bc", "0x1fc", "0x1fc"];
/// Of huge pages.
const HUGETLB: [&str; 7] = ["0x10c", "0x14c", "0x14c", "0x18c", "0x18c", "0x1cc", "0x1cc"];
/// Of what the descriptor does not allow to be written.
const READ_ONLY: [&str; 7] = ["EPERM"; 7];

pub fn run() {
    let uffd = Uffd::with(0);
    for (name, region, want) in small() {
        row(&uffd, name, &region, &want);
    }
    for (name, region) in huge() {
        row(&uffd, name, &region, &HUGETLB);
    }
    mixed(&uffd);
    let asynchronous = Uffd::with(feature::WP_ASYNC);
    for (name, region, want) in small() {
        row(&asynchronous, &format!("async: {name}"), &region, &want);
    }
}

/// Registers in every mode, one after the other.
fn row(uffd: &Uffd, name: &str, region: &Region, want: &[&str; 7]) {
    for mode in 1..8 {
        let got = uffd.register(region.start, region.len, mode);
        check(
            &format!("2 {name}: mode {mode}"),
            answer(got.map(Hex)),
            want[mode as usize - 1],
        );
        if got.is_ok() {
            uffd.unregister(region.start, region.len)
                .expect("what was registered can be unregistered");
        }
    }
}

fn small() -> Vec<(&'static str, Region, [&'static str; 7])> {
    let zero = sys::open("/dev/zero", libc::O_RDWR).expect("/dev/zero is there");
    let object = memfd(4);
    let file = tmpfs_file(4);
    let read_only = reopen_readonly(object).expect("a memfd can be opened again");
    let sealed = memfd_flags(libc::MFD_ALLOW_SEALING).expect("memfd_create works");
    ftruncate(sealed, 4 * PAGE).expect("it has no seal yet");
    sys::fcntl(sealed, libc::F_ADD_SEALS, libc::F_SEAL_FUTURE_WRITE as usize).expect("it can be sealed");
    let (private, shared) = (libc::MAP_PRIVATE, libc::MAP_SHARED);
    let map = |name: &str, prot: i32, flags: i32, fd: i32| {
        Region::map(name, 4 * PAGE, prot, flags, fd, 0).expect("memory can be mapped")
    };
    vec![
        ("anon private", map("a", RW, ANON, -1), ANONYMOUS),
        (
            "anon private PROT_READ",
            map("b", libc::PROT_READ, ANON, -1),
            ANONYMOUS,
        ),
        (
            "anon private PROT_NONE",
            map("c", libc::PROT_NONE, ANON, -1),
            ANONYMOUS,
        ),
        (
            "anon private GROWSDOWN",
            map("d", RW, ANON | libc::MAP_GROWSDOWN, -1),
            ANONYMOUS,
        ),
        ("/dev/zero private", map("e", RW, private, zero), ANONYMOUS),
        ("anon shared", map("f", RW, SHARED, -1), SHMEM),
        (
            "anon shared PROT_NONE",
            map("f", libc::PROT_NONE, SHARED, -1),
            SHMEM,
        ),
        ("memfd shared", map("g", RW, shared, object), SHMEM),
        ("tmpfs file shared", map("h", RW, shared, file), SHMEM),
        ("/dev/zero shared", map("i", RW, shared, zero), SHMEM),
        ("memfd private", map("j", RW, private, object), SHMEM),
        ("tmpfs file private", map("k", RW, private, file), SHMEM),
        (
            "memfd private, opened O_RDONLY",
            map("l", RW, private, read_only),
            SHMEM,
        ),
        (
            "memfd shared, opened O_RDONLY",
            map("m", libc::PROT_READ, shared, read_only),
            READ_ONLY,
        ),
        (
            "memfd shared, sealed FUTURE_WRITE",
            map("n", libc::PROT_READ, shared, sealed),
            READ_ONLY,
        ),
        (
            "memfd private, sealed FUTURE_WRITE",
            map("o", RW, private, sealed),
            SHMEM,
        ),
    ]
}

fn huge() -> Vec<(&'static str, Region)> {
    if !want_huge_pages(4) {
        return Vec::new();
    }
    let object = huge_memfd(2).expect("huge pages are there");
    let map = |name: &str, flags: i32, fd: i32| {
        Region::map(name, 2 * HUGE, RW, flags, fd, 0).expect("huge pages can be mapped")
    };
    vec![
        ("hugetlb shared", map("p", libc::MAP_SHARED, object)),
        (
            "hugetlb private",
            map("q", libc::MAP_PRIVATE | libc::MAP_NORESERVE, object),
        ),
        (
            "hugetlb anonymous private",
            map("r", ANON | libc::MAP_HUGETLB, -1),
        ),
        (
            "hugetlb anonymous shared",
            map("s", SHARED | libc::MAP_HUGETLB | libc::MAP_NORESERVE, -1),
        ),
    ]
}

/// Ranges of several types.
fn mixed(uffd: &Uffd) {
    let object = memfd(1);
    let both = Region::anon("anon and shmem", 2);
    mmap(
        both.page(1),
        PAGE,
        RW,
        libc::MAP_SHARED | libc::MAP_FIXED,
        object,
        0,
    )
    .expect("it can be mapped");
    row(uffd, "anon and shmem", &both, &ANONYMOUS);
    if !want_huge_pages(1) {
        return;
    }
    let both = Region::hole("anon and hugetlb", 2 * HUGE);
    mmap(both.start, HUGE, RW, ANON | libc::MAP_FIXED, -1, 0).expect("it can be mapped");
    mmap(
        both.start + HUGE,
        HUGE,
        RW,
        ANON | libc::MAP_HUGETLB | libc::MAP_FIXED,
        -1,
        0,
    )
    .expect("it can be mapped");
    let want = ["0x10c", "0x14c", "0x14c", "EINVAL", "EINVAL", "EINVAL", "EINVAL"];
    row(uffd, "anon and hugetlb", &both, &want);
    let _ = call(libc::SYS_close, &[object as usize]);
}
