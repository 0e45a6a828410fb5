//! Registering (section 3.2): errors and their order, holes, registering again.

use guest_tests::attempt::{outcome, reading, write, writing};
use guest_tests::proc::{page, uffd_flags};
use guest_tests::region::*;
use guest_tests::sys;
use guest_tests::touch::{peek, poke};
use guest_tests::transcript::{Hex, answer, check, ok};
use guest_tests::uffd::*;

pub fn run() {
    arguments();
    refusals();
    nothing_by_halves();
    holes();
    again();
    present();
    flags();
}

fn mask(answered: sys::Answer<u64>) -> String {
    answer(answered.map(Hex))
}

fn arguments() {
    let uffd = Uffd::with(0);
    let memory = Region::anon("memory", 4);
    let row = |name: &str, start: usize, len: usize, mode: u64, want: &str| {
        check(
            &format!("3.2 {name}"),
            mask(uffd.register(start, len, mode)),
            want,
        );
    };
    check("3.2 unreadable", ok(uffd.ioctl(command::REGISTER, 0)), "EFAULT");
    row("mode 0", memory.start, PAGE, 0, "EINVAL");
    row("mode 8", memory.start, PAGE, 8, "EINVAL");
    row("mode 9", memory.start, PAGE, 9, "EINVAL");
    row("mode bit 63", memory.start, PAGE, 1 << 63 | 1, "EINVAL");
    row("start not aligned", memory.start + 1, PAGE, 1, "EINVAL");
    row("length not aligned", memory.start, PAGE + 1, 1, "EINVAL");
    row("length 0", memory.start, 0, 1, "EINVAL");
    row("start at the end of user space", USER_END, PAGE, 1, "EINVAL");
    row("start in the kernel", 0xffff_8000_0000_0000, PAGE, 1, "EINVAL");
    row("end behind user space", USER_END - PAGE, 2 * PAGE, 1, "EINVAL");
    row("length wraps", memory.start, usize::MAX - PAGE + 1, 1, "EINVAL");
    row(
        "nothing mapped",
        Region::hole("hole", PAGE).start,
        PAGE,
        1,
        "EINVAL",
    );
    row("whole", memory.start, memory.len, 1, "0x13c");
}

fn refusals() {
    let uffd = Uffd::with(0);
    let other = Uffd::with(0);
    let memory = Region::anon("memory", 4);
    other.watch(&memory, MISSING);
    check(
        "3.2 owned by another uffd",
        mask(uffd.register(memory.start, PAGE, MISSING)),
        "EBUSY",
    );
    check(
        "3.2 owned by another uffd, MINOR on anon",
        mask(uffd.register(memory.start, PAGE, MINOR)),
        "EINVAL",
    );
    let object = memfd(4);
    let read_only = reopen_readonly(object).expect("it can be opened again");
    let closed = Region::map(
        "closed",
        4 * PAGE,
        libc::PROT_READ,
        libc::MAP_SHARED,
        read_only,
        0,
    )
    .expect("maps");
    check(
        "3.2 not VM_MAYWRITE",
        mask(uffd.register(closed.start, PAGE, WP)),
        "EPERM",
    );
    let _ = sys::close(object);
    if !want_huge_pages(2) {
        return;
    }
    let huge = Region::huge("huge", 2);
    let row = |name: &str, start: usize, len: usize, want: &str| {
        check(
            &format!("3.2 hugetlb: {name}"),
            mask(uffd.register(start, len, MISSING)),
            want,
        );
    };
    row("start not huge-aligned", huge.start + PAGE, HUGE, "EINVAL");
    row("end not huge-aligned", huge.start, HUGE + PAGE, "EINVAL");
    row("one of two", huge.start, HUGE, "0x10c");
    // The start is tested against the first area alone; a hole in front of it is skipped.
    row("from the hole in front", huge.start - PAGE, PAGE + HUGE, "EINVAL");
}

/// A refusal in the middle leaves the front alone.
fn nothing_by_halves() {
    let uffd = Uffd::with(0);
    let other = Uffd::with(0);
    let memory = Region::anon("memory", 4);
    other.register(memory.page(2), PAGE, MISSING).expect("it is free");
    check(
        "3.2 the third of four pages is owned",
        mask(uffd.register(memory.start, memory.len, MISSING)),
        "EBUSY",
    );
    check(
        "3.2 the first page afterwards",
        uffd.zeropage(memory.start, PAGE, 0),
        "ENOENT field -ENOENT",
    );
    let argument = Region::anon("argument", 2);
    sys::call(libc::SYS_munmap, &[argument.page(1), PAGE]).expect("munmap works");
    let at = argument.page(1) - 24;
    for (index, word) in [memory.start as u64, PAGE as u64, MISSING]
        .into_iter()
        .enumerate()
    {
        for (byte, value) in word.to_le_bytes().into_iter().enumerate() {
            poke(at + index * 8 + byte, value);
        }
    }
    check(
        "3.2 the mask cannot be stored",
        ok(uffd.ioctl(command::REGISTER, at)),
        "EFAULT",
    );
    check(
        "3.2 and yet it is registered",
        reading(&uffd, memory.start),
        "fault flags 0 at memory",
    );
}

fn holes() {
    let uffd = Uffd::with(0);
    let memory = Region::anon("memory", 6);
    for index in [0, 3] {
        sys::call(libc::SYS_munmap, &[memory.page(index), PAGE]).expect("munmap works");
    }
    check(
        "3.2 holes at the start and inside",
        mask(uffd.register(memory.start, memory.len, MISSING)),
        "0x13c",
    );
    check(
        "3.2 behind the first hole",
        reading(&uffd, memory.page(1)),
        "fault flags 0 at memory+0x1000",
    );
    check(
        "3.2 behind the second hole",
        reading(&uffd, memory.page(5)),
        "fault flags 0 at memory+0x5000",
    );
    check(
        "3.2 a mapping made later in a hole",
        ok(mmap(memory.page(3), PAGE, RW, ANON | libc::MAP_FIXED, -1, 0)),
        "ok",
    );
    check("3.2 is not registered", reading(&uffd, memory.page(3)), "0x00");
}

/// Registering what is registered already with this descriptor.
fn again() {
    let trial = |first: u64, second: u64| -> (Uffd, Region) {
        let uffd = Uffd::with(feature::WP_UNPOPULATED);
        let object = memfd(4);
        let memory = Region::shared("memory", object, 4);
        uffd.watch(&memory, first);
        let name = format!("3.2 again: {first} then {second}");
        check(&name, ok(uffd.register(memory.start, memory.len, second)), "ok");
        (uffd, memory)
    };
    // Which modes are there shows in what a write to a protected hole says.
    for (first, second, flags, read, protect) in [
        (1, 1, "um", "fault flags 0 at memory", "ENOENT"),
        (3, 1, "um uw", "fault flags 0 at memory", "ok"),
        (3, 2, "um uw", "fault flags 0 at memory", "ok"),
        (7, 4, "um uw ui", "fault flags 0 at memory", "ok"),
        (1, 2, "uw", "0x00", "ok"),
        (2, 1, "um", "fault flags 0 at memory", "ENOENT"),
        (1, 3, "um uw", "fault flags 0 at memory", "ok"),
        (1, 4, "ui", "0x00", "ENOENT"),
    ] {
        let (uffd, memory) = trial(first, second);
        let name = format!("3.2 again: {first} then {second}");
        check(&format!("{name}: VmFlags"), uffd_flags(memory.start), flags);
        check(
            &format!("{name}: a missing page"),
            reading(&uffd, memory.start),
            read,
        );
        check(
            &format!("{name}: WRITEPROTECT"),
            ok(uffd.writeprotect(memory.page(1), PAGE, PROTECT)),
            protect,
        );
    }
    let uffd = Uffd::with(0);
    let memory = Region::filled("memory", 2, 1);
    uffd.watch(&memory, WP);
    uffd.writeprotect(memory.start, PAGE, PROTECT)
        .expect("it is registered for it");
    uffd.watch(&memory, MISSING);
    check(
        "3.2 again: WP then MISSING, a protected page's entry",
        page(memory.start),
        "present wp",
    );
    check(
        "3.2 again: WP then MISSING, a write to it",
        writing(&uffd, memory.start),
        "written",
    );
    let uffd = Uffd::with(0);
    let memory = Region::anon("memory", 4);
    uffd.watch(&memory, MISSING);
    check(
        "3.2 again: the middle in another mode",
        ok(uffd.register(memory.page(1), 2 * PAGE, WP)),
        "ok",
    );
    check(
        "3.2 again: the front keeps its mode",
        reading(&uffd, memory.start),
        "fault flags 0 at memory",
    );
    check(
        "3.2 again: the middle has its own",
        reading(&uffd, memory.page(1)),
        "0x00",
    );
    check(
        "3.2 again: so has the back",
        reading(&uffd, memory.page(3)),
        "fault flags 0 at memory+0x3000",
    );
}

fn present() {
    let uffd = Uffd::with(0);
    let memory = Region::anon("memory", 2);
    memory.fill(0, 1, 0x11);
    uffd.watch(&memory, MISSING | WP);
    check("3.2 a present page: read", peek(memory.start), "0x11");
    check(
        "3.2 a present page: write",
        writing(&uffd, memory.start),
        "written",
    );
    check(
        "3.2 the missing one next to it",
        outcome(&uffd, &write(memory.page(1), 1)),
        "fault flags 1 at memory+0x1000",
    );
    let object = memfd(2);
    let shared = Region::shared("shared", object, 2);
    shared.fill(0, 1, 0x22);
    uffd.watch(&shared, MISSING | MINOR);
    check("3.2 a present shared page: read", peek(shared.start), "0x22");
    check(
        "3.2 a present shared page: write",
        writing(&uffd, shared.start),
        "written",
    );
}

fn flags() {
    let uffd = Uffd::with(0);
    let object = memfd(2);
    let shared = Region::shared("shared", object, 2);
    check("3.2 VmFlags: none", uffd_flags(shared.start), "none");
    for (mode, want) in [(1, "um"), (2, "uw"), (3, "um uw"), (4, "ui"), (7, "um uw ui")] {
        uffd.watch(&shared, mode);
        check(
            &format!("3.2 VmFlags: mode {mode}"),
            uffd_flags(shared.start),
            want,
        );
        uffd.unregister(shared.start, shared.len)
            .expect("it is registered");
    }
}
