//! fork, vfork, clone, exit and the ways to wait.

use guest_tests::child::{ended, fork};
use guest_tests::job::{self, until};
use guest_tests::proc::process_state;
use guest_tests::region::*;
use guest_tests::sys::{self, Answer, call};
use guest_tests::touch::{peek, poke, until_byte};
use guest_tests::transcript::{answer, ok, show};

pub fn run() {
    statuses();
    refusals();
    stops();
    waitid();
    memory();
    orphans();
    groups();
    clone_flags();
    threads_and_exit();
    identity();
}

/// wait4 of one child; its answer is told as "the child" when it is that.
fn wait(pid: i32, flags: i32) -> String {
    let mut status = 0i32;
    match call(
        libc::SYS_wait4,
        &[pid as usize, &raw mut status as usize, flags as usize, 0],
    ) {
        Ok(0) => "nothing yet".into(),
        Ok(_) => ended(status),
        Err(errno) => errno.to_string(),
    }
}

fn statuses() {
    for status in [0, 1, 42, 255, 256, 511] {
        show(&format!("exit({status})"), fork(|| status).wait());
    }
    let sleeper = fork(|| {
        let _ = call(libc::SYS_pause, &[]);
        0
    });
    show("wait4: WNOHANG, it runs", wait(sleeper.pid, libc::WNOHANG));
    let _ = sleeper.kill(libc::SIGTERM);
    show("wait4: ended by TERM", wait(sleeper.pid, 0));
    show("wait4: a second time", wait(sleeper.pid, 0));
    let first = fork(|| 3);
    show("wait4: any child", wait(-1, 0));
    show("wait4: no child left", wait(-1, 0));
    show("wait4: that one", wait(first.pid, 0));
    let mut usage = [0u64; 18];
    let child = fork(|| 0);
    let got = call(
        libc::SYS_wait4,
        &[child.pid as usize, 0, 0, usage.as_mut_ptr() as usize],
    );
    show("wait4: with usage", got.map(|pid| pid as i32) == Ok(child.pid));
}

fn refusals() {
    show("wait4: not a child", wait(1, 0));
    show("wait4: unknown flag", wait(-1, 0x10));
    show("wait4: no such group", wait(-0x3fff_fff0, 0));
    let child = fork(|| 5);
    until(|| guest_tests::proc::process_state(child.pid) == Some('Z'));
    show(
        "a child that has ended",
        guest_tests::proc::process_state(child.pid).unwrap_or('?'),
    );
    show("kill of a child that has ended", ok(child.kill(0)));
    show(
        "wait4: bad pointer",
        ok(call(libc::SYS_wait4, &[child.pid as usize, 8, 0, 0])),
    );
    show("wait4: after the bad pointer", wait(child.pid, 0));
    show(
        "clone: SIGHAND without VM",
        ok(call(libc::SYS_clone, &[0x800, 0, 0, 0, 0])),
    );
    show(
        "clone: THREAD without SIGHAND",
        ok(call(libc::SYS_clone, &[0x10000 | 0x100, 0, 0, 0, 0])),
    );
    show("clone3: size 0", ok(call(libc::SYS_clone3, &[0, 0])));
    show("clone3: bad pointer", ok(call(libc::SYS_clone3, &[8, 64])));
    let arguments = [0xffu64, 0, 0, 0, 0, 0, 0, 0];
    show(
        "clone3: a signal in the flags",
        ok(call(libc::SYS_clone3, &[arguments.as_ptr() as usize, 64])),
    );
    let arguments = [0u64, 0, 0, 0, 99, 0, 0, 0];
    show(
        "clone3: unknown signal",
        ok(call(libc::SYS_clone3, &[arguments.as_ptr() as usize, 64])),
    );
}

fn stops() {
    let child = fork(|| {
        loop {
            let _ = call(libc::SYS_pause, &[]);
        }
    });
    let _ = child.kill(libc::SIGSTOP);
    show("stop: WUNTRACED", wait(child.pid, libc::WUNTRACED));
    show(
        "stop: its state",
        guest_tests::proc::process_state(child.pid).unwrap_or('?'),
    );
    show(
        "stop: told once",
        wait(child.pid, libc::WUNTRACED | libc::WNOHANG),
    );
    let _ = child.kill(libc::SIGTERM);
    show("stop: TERM waits", wait(child.pid, libc::WNOHANG));
    let _ = child.kill(libc::SIGCONT);
    show("continue: then it ends", wait(child.pid, 0));
    let child = fork(|| {
        loop {
            let _ = call(libc::SYS_pause, &[]);
        }
    });
    let _ = child.kill(libc::SIGSTOP);
    show("stop: again", wait(child.pid, libc::WUNTRACED));
    let _ = child.kill(libc::SIGCONT);
    show("continue: WCONTINUED", wait(child.pid, libc::WCONTINUED));
    let _ = child.kill(libc::SIGSTOP);
    show("stop: a third time", wait(child.pid, libc::WUNTRACED));
    let _ = child.kill(libc::SIGKILL);
    show("stop: KILL ends it", wait(child.pid, 0));
}

fn waitid() {
    let wait = |kind: usize, id: i32, options: i32| {
        let mut info = [0u32; 32];
        let got = call(
            libc::SYS_waitid,
            &[kind, id as usize, info.as_mut_ptr() as usize, options as usize, 0],
        );
        answer(got.map(|_| {
            format!(
                "signal {} code {} status {} pid {}",
                info[0],
                info[2],
                info[6],
                if info[4] == 0 { "0" } else { "its" }
            )
        }))
    };
    let child = fork(|| 9);
    let (pid, exited) = (1, libc::WEXITED);
    show("waitid: no event asked for", wait(pid, child.pid, 0));
    show("waitid: unknown kind", wait(9, child.pid, exited));
    show("waitid: NOWAIT", wait(pid, child.pid, exited | libc::WNOWAIT));
    show("waitid: exited", wait(pid, child.pid, exited));
    show("waitid: again", wait(pid, child.pid, exited));
    let child = fork(|| {
        let _ = call(libc::SYS_pause, &[]);
        0
    });
    show(
        "waitid: WNOHANG, it runs",
        wait(pid, child.pid, exited | libc::WNOHANG),
    );
    let _ = child.kill(libc::SIGKILL);
    show("waitid: killed", wait(pid, child.pid, exited));
    let _ = fork(|| 1);
    show("waitid: any", wait(0, 0, exited));
}

fn memory() {
    let private = Region::anon("private", 2);
    private.fill(0, 1, 0x11);
    let shared = Region::common("shared");
    let gone = Region::anon("gone", 1);
    let wiped = Region::anon("wiped", 1);
    gone.fill(0, 1, 1);
    wiped.fill(0, 1, 1);
    gone.advise(libc::MADV_DONTFORK).expect("madvise works");
    wiped.advise(18).expect("madvise works");
    let child = fork(|| {
        show("fork, child: private memory", peek(private.start));
        poke(private.start, 0x22);
        poke(private.page(1), 0x33);
        poke(shared.start, 0x44);
        show("fork, child: DONTFORK", peek(gone.start));
        show("fork, child: WIPEONFORK", peek(wiped.start));
        0
    });
    show("fork: the child", child.wait());
    show("fork, parent: private memory", peek(private.start));
    show("fork, parent: what the child filled", peek(private.page(1)));
    show("fork, parent: shared memory", peek(shared.start));
    show("fork, parent: DONTFORK", peek(gone.start));
    let maker = std::process::id() as i32;
    let flags = (libc::CLONE_VFORK | libc::SIGCHLD) as usize;
    let child = match call(libc::SYS_clone, &[flags, 0, 0, 0, 0]) {
        Ok(0) => {
            let waits = until(|| process_state(maker) == Some('D'));
            let _ = call(libc::SYS_exit_group, &[usize::from(waits)]);
            unreachable!("exit_group does not return");
        }
        made => made.expect("clone works"),
    };
    show(
        "clone with VFORK: the maker waits in state D",
        wait(child as i32, 0),
    );
    show(
        "vfork and exec: status",
        crate::roles::spawn_and_wait(&["exit", "17"]),
    );
}

/// Children of a parent that has ended.
fn orphans() {
    const SUBREAPER: usize = 36;
    show("subreaper", ok(call(libc::SYS_prctl, &[SUBREAPER, 1, 0, 0, 0])));
    let flag = Region::common("flag");
    let child = fork(|| {
        let parent = std::process::id();
        fork(|| {
            until(|| call(libc::SYS_getppid, &[]).is_ok_and(|now| now != parent as usize));
            poke(flag.start, 1);
            23
        });
        0
    });
    show("orphan: its parent ends", child.wait());
    show("orphan: it has another parent", until_byte(flag.start, 1));
    show("orphan: its end is told to the reaper", wait(-1, 0));
    show("orphan: no child left", wait(-1, 0));
    let _ = call(libc::SYS_prctl, &[SUBREAPER, 0, 0, 0, 0]);
    // A child that is to be ended with its parent.
    let (from, to) = sys::pipe2(libc::O_CLOEXEC).expect("a pipe can be made");
    let child = fork(|| {
        fork(|| {
            let _ = call(
                libc::SYS_prctl,
                &[libc::PR_SET_PDEATHSIG as usize, libc::SIGKILL as usize, 0, 0, 0],
            );
            poke(flag.start, 2);
            loop {
                let _ = call(libc::SYS_pause, &[]);
            }
        });
        until_byte(flag.start, 2);
        0
    });
    let _ = sys::close(to);
    show("PDEATHSIG: the parent ends", child.wait());
    show(
        "PDEATHSIG: so does the child",
        answer(sys::read(from, &mut [0; 1])),
    );
}

fn groups() {
    let group = |pid: i32| call(libc::SYS_getpgid, &[pid as usize]);
    let own = std::process::id() as usize;
    show("group: its own", group(0) == Ok(own));
    let child = fork(|| {
        let before = group(0) == Ok(own);
        let _ = call(libc::SYS_setpgid, &[0, 0]);
        let after = group(0) == Ok(std::process::id() as usize);
        show(
            "group, child: the parent's, then its own",
            format!("{before} {after}"),
        );
        show(
            "group, child: setsid as a leader",
            ok(call(libc::SYS_setsid, &[])),
        );
        let grandchild = fork(|| {
            let session = call(libc::SYS_setsid, &[]);
            i32::from(session != Ok(std::process::id() as usize))
        });
        show("group, grandchild: setsid", grandchild.wait());
        0
    });
    show("group: the child", child.wait());
    show(
        "setpgid: no such process",
        ok(call(libc::SYS_setpgid, &[0x3fff_fff0, 0])),
    );
    show("setpgid: negative", ok(call(libc::SYS_setpgid, &[0, usize::MAX])));
    show("getpgid: no such process", ok(group(0x3fff_fff0)));
    show(
        "getsid: no such process",
        ok(call(libc::SYS_getsid, &[0x3fff_fff0])),
    );
}

/// clone with stores of its identifier.
fn clone_flags() {
    let region = Region::common("words");
    const PARENT_SETTID: usize = 0x10_0000;
    const CHILD_SETTID: usize = 0x100_0000;
    const CHILD_CLEARTID: usize = 0x20_0000;
    let flags = PARENT_SETTID | CHILD_SETTID | CHILD_CLEARTID | libc::SIGCHLD as usize;
    let word = |at: usize| {
        let bytes = guest_tests::touch::bytes(at, 4);
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize
    };
    let answer = call(libc::SYS_clone, &[flags, 0, region.start, region.start + 64, 0]);
    if answer == Ok(0) {
        let own = call(libc::SYS_gettid, &[]).unwrap_or(0);
        let status = usize::from(word(region.start + 64) != own);
        let _ = call(libc::SYS_exit_group, &[status]);
    }
    let pid = answer.unwrap_or(0);
    show("clone: the parent's word", word(region.start) == pid);
    show("clone: the child's word, as it says", wait(pid as i32, 0));
    // The word is cleared only for a space that somebody else uses still: a process's own is not.
    show(
        "clone: the child's word in shared memory afterwards",
        word(region.start + 64) == pid,
    );
    let answer = call(libc::SYS_clone, &[0, 0, 0, 0, 0]);
    if answer == Ok(0) {
        let _ = call(libc::SYS_exit_group, &[4]);
    }
    let pid = answer.unwrap_or(0) as i32;
    show("clone: without a signal, plain wait", wait(pid, 0));
    show("clone: without a signal, __WALL", wait(pid, libc::__WALL));
    const PARENT: usize = 0x8000;
    // Its maker has a group of its own, and the signal that is asked for is not the one that counts.
    let child = fork(|| {
        let _ = call(libc::SYS_setpgid, &[0, 0]);
        let group = call(libc::SYS_getpgrp, &[]);
        let answer = call(libc::SYS_clone, &[PARENT, 0, 0, 0, 0]);
        if answer == Ok(0) {
            let status = if call(libc::SYS_getpgrp, &[]) == group {
                6
            } else {
                7
            };
            let _ = call(libc::SYS_exit_group, &[status]);
        }
        i32::from(answer.is_err())
    });
    show("CLONE_PARENT: the maker", child.wait());
    show("CLONE_PARENT: its sibling, in its group", wait(-1, 0));
}

/// Which thread's exit ends what.
fn threads_and_exit() {
    let child = fork(|| {
        std::thread::spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let _ = call(libc::SYS_exit_group, &[33]);
        });
        // The first thread goes; the process stays.
        let _ = call(libc::SYS_exit, &[11]);
        0
    });
    show("exit of the first thread, exit_group of another", child.wait());
    let child = fork(|| {
        std::thread::spawn(|| {
            let _ = call(libc::SYS_exit, &[12]);
        });
        std::thread::sleep(std::time::Duration::from_millis(20));
        13
    });
    show("exit of another thread", child.wait());
    let child = fork(|| {
        let sleeper = job::start(|| ok(call(libc::SYS_pause, &[])));
        sleeper.settle();
        14
    });
    show("exit_group while another thread sleeps", child.wait());
    let child = fork(|| {
        std::thread::spawn(|| {
            let _ = guest_tests::signal::tgkill(guest_tests::signal::gettid(), libc::SIGKILL);
        });
        loop {
            let _ = call(libc::SYS_pause, &[]);
        }
    });
    show("KILL to one thread", child.wait());
}

fn identity() {
    let own = std::process::id() as usize;
    show(
        "getpid is the first thread's",
        call(libc::SYS_gettid, &[]) == Ok(own),
    );
    let other = job::start(|| {
        let (pid, tid) = (call(libc::SYS_getpid, &[]), call(libc::SYS_gettid, &[]));
        format!("{} {}", pid == Ok(std::process::id() as usize), pid == tid)
    });
    show("another thread: getpid, and gettid is it", other.finish());
    let ids = |number: i64| -> Answer { call(number, &[]) };
    for (name, number) in [
        ("getuid", libc::SYS_getuid),
        ("geteuid", libc::SYS_geteuid),
        ("getgid", libc::SYS_getgid),
        ("getegid", libc::SYS_getegid),
    ] {
        show(name, answer(ids(number)));
    }
    let child = fork(|| {
        super::open::become_nobody();
        show("as nobody: getuid", answer(ids(libc::SYS_getuid)));
        show("as nobody: setuid 0", ok(call(libc::SYS_setuid, &[0])));
        let parent = call(libc::SYS_getppid, &[]).unwrap_or(0);
        show(
            "as nobody: kill of the parent",
            ok(call(libc::SYS_kill, &[parent, 0])),
        );
        0
    });
    show("as nobody: the child", child.wait());
    let name = [0u8; 16];
    show(
        "PR_SET_NAME",
        ok(call(
            libc::SYS_prctl,
            &[15, c"a name that is too long".as_ptr() as usize],
        )),
    );
    show(
        "PR_GET_NAME",
        ok(call(libc::SYS_prctl, &[16, name.as_ptr() as usize])),
    );
    show(
        "the name",
        std::fs::read_to_string("/proc/self/comm")
            .unwrap_or_default()
            .trim_end(),
    );
    let mut old = [0u8; 390];
    show("uname", ok(call(libc::SYS_uname, &[old.as_mut_ptr() as usize])));
    show(
        "uname: system",
        old.split(|byte| *byte == 0)
            .next()
            .map_or(String::new(), |name| String::from_utf8_lossy(name).into()),
    );
    show("uname: bad pointer", ok(call(libc::SYS_uname, &[8])));
    show("umask: before", call(libc::SYS_umask, &[0o22]).is_ok());
    show("umask", answer(call(libc::SYS_umask, &[0o27])));
    show("umask: then", answer(call(libc::SYS_umask, &[0o22])));
}
