//! The handshake (sections 1.2, 1.4, 3.0 and 3.1): features, errors, and commands before it.

use guest_tests::child::fork;
use guest_tests::region::{PAGE, Region};
use guest_tests::sys::call;
use guest_tests::transcript::{answer, check, ok};
use guest_tests::uffd::{Uffd, command, feature};

use super::open::become_nobody;

pub fn run() {
    before();
    features();
    refusals();
    numbers();
}

fn fresh() -> Uffd {
    Uffd::open(libc::O_NONBLOCK | libc::O_CLOEXEC).expect("userfaultfd works")
}

fn before() {
    let uffd = fresh();
    let page = Region::anon("page", 1);
    check("3.0 uninitialised: read", uffd.now(), "EINVAL");
    check(
        "3.0 uninitialised: poll",
        answer(uffd.poll(0)),
        libc::POLLERR.to_string(),
    );
    check(
        "3.0 uninitialised: REGISTER",
        ok(uffd.register(page.start, PAGE, 1)),
        "EINVAL",
    );
    check(
        "3.0 uninitialised: UNREGISTER",
        ok(uffd.unregister(page.start, PAGE)),
        "EINVAL",
    );
    check(
        "3.0 uninitialised: WAKE",
        ok(uffd.wake(page.start, PAGE)),
        "EINVAL",
    );
    check(
        "3.0 uninitialised: COPY",
        uffd.copy(page.start, page.start, PAGE, 0),
        "EINVAL field untouched",
    );
    check(
        "3.0 uninitialised: ZEROPAGE",
        uffd.zeropage(page.start, PAGE, 0),
        "EINVAL field untouched",
    );
    check(
        "3.0 uninitialised: CONTINUE",
        uffd.cont(page.start, PAGE, 0),
        "EINVAL field untouched",
    );
    check(
        "3.0 uninitialised: POISON",
        uffd.poison(page.start, PAGE, 0),
        "EINVAL field untouched",
    );
    check(
        "3.0 uninitialised: MOVE",
        uffd.move_pages(page.start, page.start, PAGE, 0),
        "EINVAL field untouched",
    );
    check(
        "3.0 uninitialised: WRITEPROTECT",
        ok(uffd.writeprotect(page.start, PAGE, 0)),
        "EINVAL",
    );
    check(
        "1.2 unknown command, uninitialised",
        ok(uffd.ioctl(0xc018_aa20, 0)),
        "EINVAL",
    );
    check(
        "1.2 NULL argument, uninitialised REGISTER",
        ok(uffd.ioctl(command::REGISTER, 0)),
        "EINVAL",
    );
}

fn features() {
    check(
        "1.4 API with no feature",
        offer(0),
        "features 0x1ffff ioctls 0x8000000000000003",
    );
    for bit in 0..17 {
        check(
            &format!("1.4 API with bit {bit}"),
            offer(1 << bit),
            "features 0x1ffff ioctls 0x8000000000000003",
        );
    }
    check(
        "1.4 API with all",
        offer(feature::ALL),
        "features 0x1ffff ioctls 0x8000000000000003",
    );
    for bit in [17, 18, 19, 31, 32, 62, 63] {
        check(&format!("1.4 API with bit {bit}"), offer(1 << bit), "EINVAL");
    }
}

/// What API answers to a request on a new descriptor.
fn offer(features: u64) -> String {
    answer(
        fresh()
            .api(features)
            .map(|(features, ioctls)| format!("features {features:#x} ioctls {ioctls:#x}")),
    )
}

fn refusals() {
    let uffd = fresh();
    check("3.1 API: unreadable", ok(uffd.ioctl(command::API, 0)), "EFAULT");
    let mut words = [0xab, 0, 7];
    check(
        "3.1 API: wrong version",
        ok(uffd.words(command::API, &mut words)),
        "EINVAL",
    );
    check(
        "3.1 API: the structure after it",
        format!("{words:x?}"),
        "[0, 0, 0]",
    );
    let mut words = [0xaa, 1 << 40, 7];
    check(
        "3.1 API: unknown feature",
        ok(uffd.words(command::API, &mut words)),
        "EINVAL",
    );
    check(
        "3.1 API: the structure after it (feature)",
        format!("{words:x?}"),
        "[0, 0, 0]",
    );
    check("3.1 API: usable after refusals", ok(uffd.api(0)), "ok");
    let mut words = [0xaa, 0, 7];
    check(
        "3.1 API: a second time",
        ok(uffd.words(command::API, &mut words)),
        "EINVAL",
    );
    check(
        "3.1 API: the structure after the second time",
        format!("{words:x?}"),
        "[0, 0, 0]",
    );
    // Readable, not writable: the answer cannot be given back.
    let page = Region::anon("argument", 1);
    guest_tests::touch::poke(page.start, 0xaa);
    guest_tests::region::mprotect(page.start, PAGE, libc::PROT_READ).expect("mprotect works");
    let uffd = fresh();
    check(
        "3.1 API: cannot write back",
        ok(uffd.ioctl(command::API, page.start)),
        "EFAULT",
    );
    fork(|| {
        become_nobody();
        let uffd = Uffd::open(1 | libc::O_NONBLOCK).expect("anybody may open for user mode");
        let mut words = [0xaa, feature::EVENT_FORK, 7];
        check(
            "3.1 API: EVENT_FORK without rights",
            ok(uffd.words(command::API, &mut words)),
            "EPERM",
        );
        check(
            "3.1 API: the structure after it (rights)",
            format!("{words:x?}"),
            "[0, 0, 0]",
        );
        let both = feature::EVENT_FORK | 1 << 40;
        check(
            "3.1 API: EVENT_FORK without rights, and an unknown feature",
            ok(uffd.api(both)),
            "EPERM",
        );
        check(
            "3.1 API: other features without rights",
            ok(uffd.api(feature::ALL & !feature::EVENT_FORK)),
            "ok",
        );
        0
    })
    .wait();
}

fn numbers() {
    let uffd = fresh();
    uffd.api(0).expect("the handshake works");
    for (name, number) in [
        ("RWPROTECT of 7.3", 0xc018_aa09),
        ("SET_MODE of 7.3", 0x4010_aa0a),
        ("nr 0x3e", 0xc018_aa3e),
        ("COPY with another size", 0xc020_aa03),
        ("COPY with another direction", 0x8028_aa03),
        ("COPY of another type", 0xc028_ab03),
        ("TCGETS", 0x5401),
    ] {
        check(
            &format!("1.2 unknown command: {name}"),
            ok(uffd.ioctl(number, 0)),
            "EINVAL",
        );
    }
    // How many bytes of an argument are read: one that ends at the end of a mapping is whole.
    for (name, command, read, size) in [
        ("REGISTER", command::REGISTER, 24, 32),
        ("UNREGISTER", command::UNREGISTER, 16, 16),
        ("WAKE", command::WAKE, 16, 16),
        ("COPY", command::COPY, 32, 40),
        ("ZEROPAGE", command::ZEROPAGE, 24, 32),
        ("MOVE", command::MOVE, 32, 40),
        ("WRITEPROTECT", command::WRITEPROTECT, 24, 24),
        ("CONTINUE", command::CONTINUE, 24, 32),
        ("POISON", command::POISON, 24, 32),
    ] {
        let page = Region::anon(name, 1);
        // All zeros: read in full, it is refused for its empty range; short of a byte, it cannot be read.
        check(
            &format!("1.2 {name}: the bytes that it reads"),
            ok(uffd.ioctl(command, page.end() - read)),
            "EINVAL",
        );
        check(
            &format!("1.2 {name}: one byte short"),
            ok(uffd.ioctl(command, page.end() - read + 1)),
            "EFAULT",
        );
        check(&format!("1.2 {name}: NULL"), ok(uffd.ioctl(command, 0)), "EFAULT");
        check(
            &format!("1.2 {name}: a kernel address"),
            ok(uffd.ioctl(command, 0xffff_8000_0000_0000)),
            "EFAULT",
        );
        let whole = [0u64; 5];
        let copy = whole;
        let _ = call(
            libc::SYS_ioctl,
            &[uffd.fd as usize, command, whole.as_ptr() as usize],
        );
        check(
            &format!("1.2 {name}: of {size} bytes, none changes on a refusal"),
            whole == copy,
            true,
        );
    }
}
