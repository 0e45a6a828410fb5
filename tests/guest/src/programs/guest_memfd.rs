//! guest_memfd of KVM, mapped into a program (section 2).

use guest_tests::region::*;
use guest_tests::sys::{self, Answer, call};
use guest_tests::touch::{peek, poke};
use guest_tests::transcript::{answer, check, ok, show};

const KVM_CREATE_VM: usize = 0xae01;
const KVM_CREATE_GUEST_MEMFD: usize = 0xc040_aed4;
const MMAP: u64 = 1;
const INIT_SHARED: u64 = 2;

pub fn run() {
    let kvm = match sys::open("/dev/kvm", libc::O_RDWR) {
        Ok(fd) => fd,
        Err(errno) => return show("2 guest_memfd: /dev/kvm", errno),
    };
    // A machine type of plain memory first, then the default one.
    let vm = [1usize, 0]
        .into_iter()
        .find_map(|kind| call(libc::SYS_ioctl, &[kvm as usize, KVM_CREATE_VM, kind]).ok());
    let Some(vm) = vm else {
        return show("2 guest_memfd", "no virtual machine can be made");
    };
    let create = |flags: u64| -> Answer<i32> {
        let mut words = [4 * PAGE as u64, flags, 0, 0, 0, 0, 0, 0];
        call(
            libc::SYS_ioctl,
            &[vm, KVM_CREATE_GUEST_MEMFD, words.as_mut_ptr() as usize],
        )
        .map(|fd| fd as i32)
    };
    let (both, mapped) = match (create(MMAP | INIT_SHARED), create(MMAP)) {
        (Ok(both), Ok(mapped)) => (both, mapped),
        (both, _) => return show("2 guest_memfd: cannot be made", ok(both)),
    };
    check(
        "2 guest_memfd: MAP_PRIVATE",
        ok(Region::map("x", PAGE, RW, libc::MAP_PRIVATE, both, 0)),
        "EINVAL",
    );
    let bytes = [1u8; 8];
    check(
        "2 guest_memfd: write(2)",
        answer(sys::write(both, &bytes)),
        "EINVAL",
    );
    let at = bytes.as_ptr() as usize;
    check(
        "2 guest_memfd: pwrite(2)",
        answer(call(libc::SYS_pwrite64, &[both as usize, at, 8, 0])),
        "ESPIPE",
    );
    let map = |name: &str, fd: i32| {
        Region::map(name, 4 * PAGE, RW, libc::MAP_SHARED, fd, 0).expect("it can be mapped")
    };
    let shared = map("shared", both);
    let private = map("private", mapped);
    check(
        "2 guest_memfd with INIT_SHARED: a read",
        peek(shared.start),
        "0x00",
    );
    check(
        "2 guest_memfd with INIT_SHARED: a write",
        poke(shared.start, 1),
        "written",
    );
    check(
        "2 guest_memfd without INIT_SHARED: a read",
        peek(private.start),
        "SIGBUS code 2 at private",
    );
    super::special::rows("guest_memfd", Ok(private), "0x17c");
    super::special::rows("guest_memfd with INIT_SHARED", Ok(shared), "0x17c");
}
