//! A fork bomb and a memory hog: the offender is ended, the rest lives. For a machine of its own.

use guest_tests::child::fork;
use guest_tests::region::*;
use guest_tests::sys::{self, call};
use guest_tests::touch::poke;
use guest_tests::transcript::{check, say};

pub fn run() {
    fork_bomb();
    memory_hog("private memory", hog_private);
    kernel_hog("read(2)", |zero, at, len| {
        call(libc::SYS_read, &[zero as usize, at, len])
    });
    kernel_hog("mlock(2)", |_, at, len| {
        call(libc::SYS_mlock, &[at, len]).map(|_| len)
    });
    kernel_hog("MADV_POPULATE_WRITE", |_, at, len| {
        call(libc::SYS_madvise, &[at, len, 23]).map(|_| len)
    });
    memory_hog("shared memory", hog_shared);
    memory_hog("descriptors", hog_descriptors);
    memory_hog("mappings", hog_mappings);
    memory_hog("threads", hog_threads);
    super::wild_pointers::sane();
}

/// Forks until it cannot, in a process group that is ended together.
fn fork_bomb() {
    let (from, to) = sys::pipe2(libc::O_CLOEXEC).expect("a pipe can be made");
    let bomb = fork(|| {
        let _ = call(libc::SYS_setpgid, &[0, 0]);
        let mut refused = 0u32;
        while refused < 100 {
            match call(libc::SYS_fork, &[]) {
                Ok(0) => loop {
                    // Each child goes on for a while and stays then.
                    if call(libc::SYS_fork, &[]).is_err() {
                        let _ = call(libc::SYS_pause, &[]);
                    }
                },
                Ok(_) => (),
                Err(_) => refused += 1,
            }
        }
        0
    });
    // It ends when it has been refused often enough, or is ended after a while.
    let _ = bomb.wait();
    for _ in 0..50 {
        let _ = call(libc::SYS_kill, &[-bomb.pid as usize, libc::SIGKILL as usize]);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let _ = sys::close(to);
    check(
        "fork bomb: all of it is gone",
        sys::read(from, &mut [0; 1]).unwrap_or(9),
        "0",
    );
    check("fork bomb: a child can be made", fork(|| 5).wait(), "exit 5");
}

/// Runs a hog in a child; it is refused memory, or ended.
fn memory_hog(name: &str, hog: fn()) {
    let child = fork(|| {
        hog();
        0
    });
    let end = child.wait();
    say(format_args!(
        "hog of {name} -> {}",
        if end.starts_with("exit 0") {
            "refused"
        } else {
            "ended"
        }
    ));
    check(
        &format!("hog of {name}: a child can be made"),
        fork(|| 6).wait(),
        "exit 6",
    );
    let area = Region::filled("area", 64, 1);
    check(
        &format!("hog of {name}: memory can be had"),
        guest_tests::touch::peek(area.page(63)),
        "0x01",
    );
    let _ = area.unmap();
}

/// A hog whose memory is touched by the kernel alone: it is ended like any, and told nothing.
fn kernel_hog(name: &str, touch: fn(i32, usize, usize) -> sys::Answer) {
    const PIECE: usize = 16 << 20;
    let child = fork(|| {
        let zero = sys::open("/dev/zero", 0).expect("it is there");
        while let Ok(at) = mmap(0, PIECE, RW, ANON | libc::MAP_NORESERVE, -1, 0) {
            if touch(zero, at, PIECE) != Ok(PIECE) {
                return 3;
            }
        }
        4
    });
    check(
        &format!("hog by {name}: how it ends"),
        child.wait(),
        "signal SIGKILL",
    );
    check(
        &format!("hog by {name}: a child can be made"),
        fork(|| 6).wait(),
        "exit 6",
    );
}

fn hog_private() {
    while let Ok(at) = mmap(0, 64 << 20, RW, ANON | libc::MAP_NORESERVE, -1, 0) {
        for page in (0..64 << 20).step_by(PAGE) {
            poke(at + page, 1);
        }
    }
}

fn hog_shared() {
    let Ok(fd) = memfd_flags(0) else { return };
    let block = [1u8; 65536];
    while sys::write(fd, &block).is_ok_and(|count| count > 0) {}
}

fn hog_descriptors() {
    let _ = call(
        libc::SYS_prlimit64,
        &[
            0,
            libc::RLIMIT_NOFILE as usize,
            [1u64 << 20, 1 << 20].as_ptr() as usize,
            0,
        ],
    );
    while let Ok((_, to)) = sys::pipe2(libc::O_NONBLOCK) {
        let _ = sys::write(to, &[1; 65536]);
    }
}

fn hog_mappings() {
    let hole = Region::hole("hole", 1 << 36);
    for index in 0..1 << 22 {
        // Neighbours of another protection, so that no two merge.
        let prot = if index % 2 == 0 { libc::PROT_READ } else { RW };
        if mmap(hole.page(index), PAGE, prot, ANON | libc::MAP_FIXED, -1, 0).is_err() {
            break;
        }
    }
}

fn hog_threads() {
    while std::thread::Builder::new()
        .stack_size(65536)
        .spawn(|| call(libc::SYS_pause, &[]).is_ok())
        .is_ok()
    {}
}
