//! memfd_secret(2): memory that tasks reach by their own mappings alone.

use guest_tests::child::fork;
use guest_tests::region::*;
use guest_tests::sys::{self, Answer, call};
use guest_tests::touch::{peek, poke};
use guest_tests::transcript::{answer, ok, show};

fn make(flags: usize) -> Answer<i32> {
    call(libc::SYS_memfd_secret, &[flags]).map(|fd| fd as i32)
}

pub fn run() {
    for (name, flags) in [
        ("no flags", 0),
        ("O_CLOEXEC", libc::O_CLOEXEC as usize),
        ("O_NONBLOCK", libc::O_NONBLOCK as usize),
        ("1", 1),
        ("the sign bit", 1 << 31),
    ] {
        let fd = make(flags);
        show(&format!("memfd_secret: {name}"), ok(fd));
        if let Ok(fd) = fd {
            show(
                &format!("memfd_secret: {name}: F_GETFD"),
                answer(sys::fcntl(fd, libc::F_GETFD, 0)),
            );
            let _ = sys::close(fd);
        }
    }
    let Ok(fd) = make(0) else { return };
    descriptor(fd);
    let area = mappings(fd);
    contents(area);
    kernel(area, fd);
}

fn descriptor(fd: i32) {
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}"));
    show(
        "link",
        link.map_or(String::new(), |path| path.display().to_string()),
    );
    let mut bytes = [0u8; 8];
    let at = bytes.as_mut_ptr() as usize;
    show("read", answer(sys::read(fd, &mut [0; 8])));
    show("write", answer(sys::write(fd, &[1; 8])));
    show("pread", answer(call(libc::SYS_pread64, &[fd as usize, at, 8, 0])));
    show("lseek", answer(call(libc::SYS_lseek, &[fd as usize, 0, 0])));
    show(
        "fallocate",
        ok(call(libc::SYS_fallocate, &[fd as usize, 0, 0, PAGE])),
    );
    show("F_ADD_SEALS", ok(sys::fcntl(fd, 1033, 1)));
    show("fsync", ok(call(libc::SYS_fsync, &[fd as usize])));
    show("ftruncate: to nothing", ok(ftruncate(fd, 0)));
    show("ftruncate", ok(ftruncate(fd, 4 * PAGE)));
    show("ftruncate: longer", ok(ftruncate(fd, 8 * PAGE)));
    show("ftruncate: shorter", ok(ftruncate(fd, PAGE)));
    show("ftruncate: the same", ok(ftruncate(fd, 4 * PAGE)));
    let mut stat = [0u64; 18];
    let _ = call(libc::SYS_fstat, &[fd as usize, stat.as_mut_ptr() as usize]);
    show("fstat: size", stat[6]);
    show("fstat: mode", format!("{:#o}", stat[3] as u32));
}

fn mappings(fd: i32) -> Region {
    let try_map = |prot, flags| ok(Region::map("secret", 4 * PAGE, prot, flags, fd, 0));
    show("mmap: private", try_map(RW, libc::MAP_PRIVATE));
    show("mmap: for reading", try_map(libc::PROT_READ, libc::MAP_SHARED));
    show(
        "mmap: to be executed",
        try_map(libc::PROT_READ | libc::PROT_EXEC, libc::MAP_SHARED),
    );
    show(
        "mmap: populated",
        try_map(RW, libc::MAP_SHARED | libc::MAP_POPULATE),
    );
    let area = Region::map("secret", 4 * PAGE, RW, libc::MAP_SHARED, fd, 0).expect("it can be mapped");
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    let mut lines = smaps
        .lines()
        .skip_while(|line| !line.starts_with(&format!("{:x}-", area.start)));
    let name = lines.next().unwrap_or("").split_whitespace().skip(5);
    show("maps: name", name.collect::<Vec<_>>().join(" "));
    show(
        "smaps: flags",
        lines.find(|line| line.starts_with("VmFlags:")).unwrap_or(""),
    );
    area
}

fn contents(area: Region) {
    show("a load", peek(area.start));
    show("a store", poke(area.page(1), 7));
    show("what was stored", peek(area.page(1)));
    let child = fork(|| {
        show("child: reads", peek(area.page(1)));
        poke(area.page(2), 9);
        0
    });
    show("child: its end", child.wait());
    show("what the child stored", peek(area.page(2)));
    for (name, advice) in [
        ("DONTNEED", libc::MADV_DONTNEED),
        ("REMOVE", libc::MADV_REMOVE),
        ("FREE", libc::MADV_FREE),
        ("WILLNEED", libc::MADV_WILLNEED),
        ("DONTNEED_LOCKED", 24),
        ("POPULATE_READ", 22),
        ("POPULATE_WRITE", 23),
        ("COLD", 20),
        ("DODUMP", libc::MADV_DODUMP),
    ] {
        show(
            &format!("madvise: {name}"),
            ok(madvise(area.page(1), PAGE, advice)),
        );
    }
    show("afterwards", peek(area.page(1)));
    show("mlock", ok(call(libc::SYS_mlock, &[area.start, PAGE])));
    show("msync", ok(call(libc::SYS_msync, &[area.start, PAGE, 4])));
    show("mprotect", ok(mprotect(area.page(3), PAGE, libc::PROT_READ)));
    show(
        "mprotect: to be executed",
        ok(mprotect(area.page(3), PAGE, libc::PROT_READ | libc::PROT_EXEC)),
    );
    show("a store where only reading is allowed", poke(area.page(3), 1));
}

/// What the kernel does on behalf of somebody.
fn kernel(area: Region, fd: i32) {
    let (from, to) = sys::pipe2(0).expect("a pipe can be made");
    let _ = sys::write(to, b"hello");
    show(
        "read(2) into it",
        answer(call(libc::SYS_read, &[from as usize, area.start, 5])),
    );
    show("what was read", peek(area.start));
    show(
        "write(2) from it",
        answer(call(libc::SYS_write, &[to as usize, area.start, 5])),
    );
    let mut bytes = [0u8; 8];
    let local = [bytes.as_mut_ptr() as usize, 8];
    let remote = [area.start, 8];
    let own = std::process::id() as usize;
    for (name, number) in [
        ("process_vm_readv", libc::SYS_process_vm_readv),
        ("process_vm_writev", libc::SYS_process_vm_writev),
    ] {
        let got = call(
            number,
            &[own, local.as_ptr() as usize, 1, remote.as_ptr() as usize, 1, 0],
        );
        show(name, answer(got));
        // The other way round it is the caller's own memory that is copied to or from.
        let got = call(
            number,
            &[own, remote.as_ptr() as usize, 1, local.as_ptr() as usize, 1, 0],
        );
        show(&format!("{name}, as the caller's own"), answer(got));
    }
    let memory = sys::open("/proc/self/mem", libc::O_RDWR).expect("it is there");
    let at = bytes.as_mut_ptr() as usize;
    show(
        "/proc/self/mem: read",
        answer(call(libc::SYS_pread64, &[memory as usize, at, 1, area.start])),
    );
    show(
        "/proc/self/mem: write",
        answer(call(libc::SYS_pwrite64, &[memory as usize, at, 1, area.start])),
    );
    show("a load at last", peek(area.start));
    let moved = Region::hole("moved", 4 * PAGE);
    show("mremap", ok(mremap(area.start, PAGE, PAGE, 3, moved.start)));
    show("moved", peek(moved.start));
    let beyond = Region::map("beyond", 8 * PAGE, RW, libc::MAP_SHARED, fd, 0).expect("it can be mapped");
    show("past the end", peek(beyond.page(5)));
    let _ = sys::close(fd);
    show("closed: it is there still", peek(beyond.start));
}
