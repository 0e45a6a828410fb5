//! flock(2) and fcntl(2)'s record locks: who excludes whom, for how long, and who waits.

use guest_tests::child::fork;
use guest_tests::job;
use guest_tests::locker::{Deed, FILE, Peer, end, flock, lock, peers, structure};
use guest_tests::region::{in_memory_directory, memfd_flags};
use guest_tests::sys::{self, call};
use guest_tests::transcript::{answer, ok, show};
use libc::{F_GETLK, F_RDLCK, F_SETLK, F_SETLKW, F_UNLCK, F_WRLCK};
use libc::{F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW, LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN};

pub fn run() {
    let removed = in_memory_directory(|| {
        let _ = sys::write(open(FILE, libc::O_CREAT), &[0; 100]);
        refusals();
        ranges();
        pieces();
        descriptors();
        descriptions();
        whole();
        names();
        other_files();
        program();
        in_line();
        readers();
        conversions();
        circles();
        signals();
        threads();
        shown();
    });
    show("the end: everything can be removed", removed);
}

fn open(path: &str, flags: i32) -> i32 {
    sys::open(path, libc::O_RDWR | flags).expect("it can be opened")
}

/// Who is in the way; `ours` is how the caller calls processes.
fn get(fd: i32, command: i32, mut lock: libc::flock, ours: &[(&str, i32)]) -> String {
    match sys::fcntl(fd, command, &raw mut lock as usize) {
        Err(errno) => errno.to_string(),
        Ok(_) => {
            let who = ours.iter().find(|(_, pid)| *pid == lock.l_pid);
            let who = who.map_or_else(|| lock.l_pid.to_string(), |(name, _)| (*name).into());
            format!(
                "type {} whence {} start {} len {} of {who}",
                lock.l_type, lock.l_whence, lock.l_start, lock.l_len
            )
        }
    }
}

/// The locks of a descriptor of this process, as fdinfo tells them.
fn listed(fd: i32) -> String {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.strip_prefix("lock:\t"));
    let words = lines.map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        format!("{} {} {} {}-{}", words[0], words[1], words[3], words[6], words[7])
    });
    words.collect::<Vec<_>>().join(", ")
}

fn refusals() {
    let fd = open(FILE, 0);
    let read = sys::open(FILE, libc::O_RDONLY).expect("it can be opened");
    let write = sys::open(FILE, libc::O_WRONLY).expect("it can be opened");
    let path = sys::open(FILE, libc::O_PATH).expect("it can be opened");
    let row = |name: &str, fd: i32, kind: i32, pid: i32| {
        let commands = [F_SETLK, F_OFD_SETLK, F_GETLK, F_OFD_GETLK];
        let answers = commands.map(|command| {
            let mut lock = structure(kind, 0, 0, 0);
            lock.l_pid = pid;
            ok(sys::fcntl(fd, command, &raw mut lock as usize))
        });
        show(name, answers.join(" "));
    };
    row("a bad type", fd, 7, 0);
    row("a negative type", fd, -1, 0);
    row("no lock", fd, F_UNLCK, 0);
    row("a process", read, F_RDLCK, 5);
    row("a process, and not open for it", read, F_WRLCK, 5);
    row("writing: read", read, F_WRLCK, 0);
    row("reading: write", write, F_RDLCK, 0);
    row("O_PATH", path, F_RDLCK, 0);
    row("O_PATH: a bad type", path, 7, 0);
    row("bad descriptor", 99, F_RDLCK, 0);
    let _ = sys::close(read);
    let _ = sys::close(write);
    for (name, command) in [
        ("F_SETLK", F_SETLK),
        ("F_GETLK", F_GETLK),
        ("F_OFD_SETLKW", F_OFD_SETLKW),
    ] {
        show(&format!("{name}: bad pointer"), ok(sys::fcntl(fd, command, 8)));
    }
    let read = sys::open(FILE, libc::O_RDONLY).expect("it can be opened");
    for how in [
        0,
        LOCK_NB,
        3,
        LOCK_EX | LOCK_UN,
        128 | LOCK_EX,
        LOCK_UN | LOCK_NB,
        32,
        99,
    ] {
        show(
            &format!("flock {how}"),
            [fd, path, 99].map(|fd| ok(flock(fd, how))).join(" "),
        );
    }
    show("flock: exclusive, open to read", ok(flock(read, LOCK_EX)));
    let upper = call(libc::SYS_flock, &[read as usize, 1 << 32 | LOCK_EX as usize]);
    show("flock: the upper half", ok(upper));
    for fd in [fd, read, path] {
        let _ = sys::close(fd);
    }
}

fn ranges() {
    let fd = open(FILE, 0);
    let _ = call(libc::SYS_lseek, &[fd as usize, 30, 0]);
    let (max, min) = (i64::MAX, i64::MIN);
    let cases = [
        (0, max, 1),
        (0, max, 2),
        (1, max, 1),
        (2, max, 1),
        (0, -1, 2),
        (0, -1, max),
        (0, 5, -5),
        (0, 5, -6),
        (0, 0, -1),
        (0, 0, min),
        (0, max, min),
        (0, min, -1),
        (1, -30, 10),
        (1, -31, 10),
        (1, 0, -30),
        (2, 0, 0),
        (2, -100, 0),
        (2, -101, 0),
        (2, 0, -100),
        (3, 0, 0),
        (9, max, 2),
    ];
    for (whence, start, len) in cases {
        let mut lock = structure(F_WRLCK, whence, start, len);
        let set = ok(sys::fcntl(fd, F_SETLK, &raw mut lock as usize));
        show(
            &format!("{whence} {start} {len}"),
            format!("{set} {}", listed(fd)),
        );
        let mut all = structure(F_UNLCK, 0, 0, 0);
        let _ = sys::fcntl(fd, F_SETLK, &raw mut all as usize);
    }
    let mut bad = structure(7, 1, max, 2);
    show(
        "too far, and a bad type",
        ok(sys::fcntl(fd, F_SETLK, &raw mut bad as usize)),
    );
    let _ = sys::close(fd);
}

fn pieces() {
    let fd = open(FILE, 0);
    let steps = [
        (F_RDLCK, 10, 10),
        (F_RDLCK, 30, 10),
        (F_RDLCK, 20, 10),
        (F_WRLCK, 15, 5),
        (F_WRLCK, 0, 5),
        (F_UNLCK, 17, 1),
        (F_WRLCK, 17, 1),
        (F_RDLCK, 12, 100),
        (F_UNLCK, 0, 3),
        (F_WRLCK, 50, 0),
        (F_UNLCK, 60, 0),
        (F_UNLCK, 200, 10),
        (F_WRLCK, 0, 0),
        (F_RDLCK, 5, 1),
        (F_WRLCK, 5, 1),
        (F_UNLCK, 0, 0),
    ];
    for command in [F_SETLK, F_OFD_SETLK] {
        for (kind, start, len) in steps {
            let done = ok(lock(fd, command, kind, start, len));
            show(&format!("{kind} {start} {len}"), format!("{done} {}", listed(fd)));
        }
    }
    let _ = sys::close(fd);
}

/// Locks of a process.
fn descriptors() {
    let (first, second) = (open(FILE, 0), open(FILE, 0));
    let us = [("us", std::process::id() as i32)];
    show("ours", ok(lock(first, F_SETLK, F_WRLCK, 10, 10)));
    show(
        "by another descriptor",
        ok(lock(second, F_SETLK, F_WRLCK, 15, 10)),
    );
    show(
        "nobody is in our way",
        get(second, F_GETLK, structure(F_WRLCK, 1, 5, 6), &us),
    );
    let peer = Peer::new();
    let own = peer.opens();
    for (name, fd) in [("inherited", first), ("its own", own)] {
        let row = |what: &str, deed: Deed| show(&format!("child, {name}: {what}"), peer.does(deed));
        row("the same", Deed::Lock(fd, F_SETLK, F_RDLCK, 12, 1));
        row("elsewhere", Deed::Lock(fd, F_SETLK, F_WRLCK, 30, 5));
        row("no lock", Deed::Lock(fd, F_SETLK, F_UNLCK, 0, 0));
    }
    let child = fork(|| {
        for (kind, whence, start, len) in [
            (F_RDLCK, 0, 0, 0),
            (F_WRLCK, 1, 12, 1),
            (F_RDLCK, 0, 25, 0),
            (F_RDLCK, 2, -75, -1),
        ] {
            let got = get(first, F_GETLK, structure(kind, whence, start, len), &us);
            show(&format!("F_GETLK in a child: {kind} {start} {len}"), got);
        }
        0
    });
    show("the child", child.wait());
    peer.does(Deed::Lock(own, F_SETLK, F_RDLCK, 50, 10));
    let copy = call(libc::SYS_dup, &[first as usize]).expect("dup works") as i32;
    show("close of a copy", ok(sys::close(copy)));
    show("then we have", listed(first));
    show("ours again", ok(lock(first, F_SETLK, F_RDLCK, 0, 0)));
    let path = sys::open(FILE, libc::O_PATH).expect("it can be opened");
    let _ = sys::close(path);
    show("after a close of a name", listed(first));
    show(
        "dup2 over the other",
        answer(call(libc::SYS_dup2, &[0, second as usize])) == second.to_string(),
    );
    show("then", listed(first));
    show("ours once more", ok(lock(first, F_SETLK, F_RDLCK, 0, 0)));
    peer.does(Deed::Close(own));
    peer.does(Deed::Close(first));
    show("after closes of another process", listed(first));
    let fresh = open(FILE, 0);
    let range = [fresh as usize, fresh as usize, 0];
    show("close_range", ok(call(libc::SYS_close_range, &range)));
    show("then", listed(first));
    peer.ends();
    for fd in [first, second] {
        let _ = sys::close(fd);
    }
}

/// Locks of an open file description.
fn descriptions() {
    let (first, second) = (open(FILE, 0), open(FILE, 0));
    show("OFD", ok(lock(first, F_OFD_SETLK, F_WRLCK, 0, 10)));
    show("by another", ok(lock(second, F_OFD_SETLK, F_RDLCK, 5, 1)));
    show("the process", ok(lock(second, F_SETLK, F_RDLCK, 5, 1)));
    show("the process by the same", ok(lock(first, F_SETLK, F_RDLCK, 5, 1)));
    show("F_GETLK", get(first, F_GETLK, structure(F_WRLCK, 1, 0, 0), &[]));
    let ask = |fd: i32, kind: i32| get(fd, F_OFD_GETLK, structure(kind, 1, 0, 0), &[]);
    show("F_OFD_GETLK by the same", ask(first, F_WRLCK));
    show("F_OFD_GETLK by another", ask(second, F_RDLCK));
    show("F_OFD_GETLK of its own", ask(first, F_UNLCK));
    show("F_OFD_GETLK of another's own", ask(second, F_UNLCK));
    let peer = Peer::new();
    show(
        "a child, inherited",
        peer.does(Deed::Lock(first, F_OFD_SETLK, F_RDLCK, 0, 5)),
    );
    show("then", listed(first));
    let copy = call(libc::SYS_dup, &[first as usize]).expect("dup works") as i32;
    let _ = sys::close(first);
    let _ = sys::close(copy);
    show("closed here", ok(lock(second, F_OFD_SETLK, F_WRLCK, 7, 1)));
    peer.does(Deed::Close(first));
    show("closed everywhere", ok(lock(second, F_OFD_SETLK, F_WRLCK, 7, 1)));
    peer.ends();
    let _ = sys::close(second);
}

/// flock(2).
fn whole() {
    let (first, second) = (open(FILE, 0), open(FILE, 0));
    let both = LOCK_SH | LOCK_NB;
    let alone = LOCK_EX | LOCK_NB;
    show("flock", ok(flock(first, alone)));
    show("flock: again", ok(flock(first, alone)));
    show("flock: another", ok(flock(second, both)));
    show(
        "a record lock beside it",
        ok(lock(second, F_OFD_SETLK, F_WRLCK, 0, 0)),
    );
    show("what there is", format!("{}; {}", listed(first), listed(second)));
    show("flock: shared", ok(flock(first, both)));
    show("flock: another, shared", ok(flock(second, both)));
    show("flock: exclusive now", ok(flock(first, alone)));
    show("flock: the other has it for itself", ok(flock(second, alone)));
    show("flock: nothing is left of the first", listed(first));
    show("flock: unlock", ok(flock(second, LOCK_UN | LOCK_NB)));
    show("flock: unlock again", ok(flock(second, LOCK_UN)));
    let peer = Peer::new();
    show("a child, inherited", peer.does(Deed::Flock(first, alone)));
    show("we, by the same", ok(flock(first, both)));
    peer.does(Deed::Close(first));
    show("the child closed it", ok(flock(second, alone)));
    let _ = sys::close(first);
    show("and so did we", ok(flock(second, alone)));
    peer.ends();
    let _ = sys::close(second);
}

/// One file, by whatever name.
fn names() {
    let linked = sys::with_paths(libc::SYS_link, FILE, "link");
    show("a link", ok(linked));
    let first = open(FILE, 0);
    let again = format!("/proc/self/fd/{first}");
    for path in ["link", &again] {
        let name = if path == "link" { "a link" } else { "opened again" };
        let second = open(path, 0);
        show(
            &format!("{name}: OFD"),
            ok(lock(first, F_OFD_SETLK, F_WRLCK, 0, 0)),
        );
        show(
            &format!("{name}: it"),
            ok(lock(second, F_OFD_SETLK, F_RDLCK, 0, 0)),
        );
        show(&format!("{name}: flock"), ok(flock(first, LOCK_EX)));
        show(&format!("{name}: it"), ok(flock(second, LOCK_SH | LOCK_NB)));
        let _ = sys::close(second);
        let _ = flock(first, LOCK_UN);
    }
    let _ = sys::with_path(libc::SYS_unlink, "link", &[]);
    let other = open("other", libc::O_CREAT);
    show("another file", ok(lock(other, F_OFD_SETLK, F_WRLCK, 0, 0)));
    let _ = sys::with_path(libc::SYS_unlink, "other", &[]);
    show("its name is gone", listed(other));
    for fd in [first, other] {
        let _ = sys::close(fd);
    }
}

/// Files of other kinds.
fn other_files() {
    let (from, to) = sys::pipe2(0).expect("a pipe can be made");
    show("pipe: flock", ok(flock(from, LOCK_EX | LOCK_NB)));
    show("pipe: the other end", ok(flock(to, LOCK_EX | LOCK_NB)));
    show(
        "pipe: written by its reader",
        ok(lock(from, F_SETLK, F_WRLCK, 0, 0)),
    );
    show("pipe: record", ok(lock(from, F_SETLK, F_RDLCK, 5, 5)));
    show("pipe: listed", listed(from));
    let memory = memfd_flags(0).expect("memfd_create works");
    let again = open(&format!("/proc/self/fd/{memory}"), 0);
    show("memfd: flock", ok(flock(memory, LOCK_EX | LOCK_NB)));
    show("memfd: opened again", ok(flock(again, LOCK_EX | LOCK_NB)));
    let directory = sys::open(".", libc::O_RDONLY).expect("it is there");
    show("directory: flock", ok(flock(directory, LOCK_EX | LOCK_NB)));
    show("directory: record", ok(lock(directory, F_SETLK, F_RDLCK, 0, 0)));
    show("directory: to write", ok(lock(directory, F_SETLK, F_WRLCK, 0, 0)));
    let event = call(libc::SYS_eventfd2, &[0, 0]).expect("eventfd works") as i32;
    show("eventfd: flock", ok(flock(event, LOCK_EX | LOCK_NB)));
    show("eventfd: record", ok(lock(event, F_SETLK, F_WRLCK, 0, 0)));
    for fd in [from, to, memory, again, directory, event] {
        let _ = sys::close(fd);
    }
}

/// What becomes of locks at exec and at the end.
fn program() {
    let fd = open(FILE, 0);
    let (input, keep) = sys::pipe2(libc::O_CLOEXEC).expect("a pipe can be made");
    let (begun, begins) = sys::pipe2(libc::O_CLOEXEC).expect("a pipe can be made");
    let child = fork(|| {
        let _ = lock(fd, F_SETLK, F_WRLCK, 3, 4);
        let marked = sys::open(FILE, libc::O_RDONLY | libc::O_CLOEXEC);
        // A close of it would take the lock.
        let gone = sys::open("gone", libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC).unwrap_or(99);
        let _ = marked.map(|marked| call(libc::SYS_dup3, &[gone as usize, marked as usize, 0]));
        let _ = lock(fd, F_SETLK, F_WRLCK, 3, 4);
        let _ = call(libc::SYS_dup2, &[input as usize, 0]);
        let words = [c"guest-tests", c"role", c"wait"].map(|word| word.as_ptr() as usize);
        let all = [words[0], words[1], words[2], 0];
        let nothing = [0usize];
        let _ = sys::with_path(
            libc::SYS_execve,
            "/proc/self/exe",
            &[all.as_ptr() as usize, nothing.as_ptr() as usize],
        );
        1
    });
    let _ = sys::close(begins);
    let _ = sys::close(input);
    show("exec", answer(sys::read(begun, &mut [0; 1])));
    let them = [("the child", child.pid)];
    show(
        "exec: its locks stay",
        get(fd, F_GETLK, structure(F_RDLCK, 0, 0, 0), &them),
    );
    let _ = sys::close(keep);
    show("exec: the end", child.wait());
    show(
        "the end takes them",
        get(fd, F_GETLK, structure(F_RDLCK, 0, 0, 0), &them),
    );
    let _ = sys::with_path(libc::SYS_unlink, "gone", &[]);
    let _ = sys::close(begun);
    let _ = sys::close(fd);
}

/// Who waits gets the lock in turn.
fn in_line() {
    for (name, deed) in [
        ("POSIX", Deed::Lock(0, F_SETLKW, F_WRLCK, 0, 10)),
        ("OFD", Deed::Lock(0, F_OFD_SETLKW, F_WRLCK, 0, 10)),
        ("flock", Deed::Flock(0, LOCK_EX)),
    ] {
        let fd = open(FILE, 0);
        show(&format!("{name}: ours"), ok(lock(fd, F_OFD_SETLK, F_WRLCK, 5, 1)));
        show(&format!("{name}: ours"), ok(flock(fd, LOCK_EX)));
        let peers = peers::<3>();
        let opened = peers.each_ref().map(|peer| {
            peer.does(Deed::Close(fd));
            peer.opens()
        });
        let aimed = |fd: i32| match deed {
            Deed::Lock(_, command, kind, start, len) => Deed::Lock(fd, command, kind, start, len),
            _ => Deed::Flock(fd, LOCK_EX),
        };
        for (peer, fd) in peers.iter().zip(opened) {
            show(&format!("{name}: a peer"), peer.does(aimed(fd)));
        }
        let _ = sys::close(fd);
        for (turn, peer) in peers.iter().enumerate() {
            show(&format!("{name}: number {turn}"), peer.comes_to());
            let rest = peers[turn + 1..].iter().map(Peer::answers);
            show(&format!("{name}: the others"), rest.collect::<Vec<_>>().join(" "));
            peer.does(Deed::Close(opened[turn]));
        }
        end(peers);
    }
}

/// Readers pass those who wait to write.
fn readers() {
    let fd = open(FILE, 0);
    show("read", ok(lock(fd, F_SETLK, F_RDLCK, 0, 10)));
    let peers = peers::<4>();
    let [writer, reader, late, ranger] = &peers;
    let opened = peers.each_ref().map(Peer::opens);
    let wants = |kind: i32, fd: i32| Deed::Lock(fd, F_SETLKW, kind, 0, 10);
    show("a writer", writer.does(wants(F_WRLCK, opened[0])));
    show("a reader", reader.does(wants(F_RDLCK, opened[1])));
    show(
        "one beside them",
        ranger.does(Deed::Lock(opened[3], F_SETLKW, F_WRLCK, 10, 10)),
    );
    show("we are through", ok(lock(fd, F_SETLK, F_UNLCK, 0, 0)));
    show("the writer", writer.answers());
    show("another writer", late.does(wants(F_WRLCK, opened[2])));
    show(
        "the reader is through",
        reader.does(Deed::Lock(opened[1], F_SETLK, F_UNLCK, 0, 0)),
    );
    show("the writer", writer.comes_to());
    show("the other writer", late.answers());
    show(
        "the writer reads",
        writer.does(Deed::Lock(opened[0], F_SETLK, F_RDLCK, 0, 10)),
    );
    show("the other writer", late.answers());
    show("the writer closes", writer.does(Deed::Close(opened[0])));
    show("the other writer", late.comes_to());
    end(peers);
    let _ = sys::close(fd);
}

/// Who wants another kind gives up the one it has.
fn conversions() {
    let peers = peers::<2>();
    let [first, second] = &peers;
    let (one, two) = (first.opens(), second.opens());
    show("flock: the first", first.does(Deed::Flock(one, LOCK_SH)));
    show("flock: the second", second.does(Deed::Flock(two, LOCK_SH)));
    show(
        "flock: the first, exclusive",
        first.does(Deed::Flock(one, LOCK_EX)),
    );
    show(
        "flock: the second, exclusive",
        second.does(Deed::Flock(two, LOCK_EX | LOCK_NB)),
    );
    show("flock: the first waits", first.answers());
    show(
        "flock: the second is through",
        second.does(Deed::Flock(two, LOCK_UN)),
    );
    show("flock: the first has it", first.comes_to());
    // Records are kept.
    first.does(Deed::Lock(one, F_SETLK, F_RDLCK, 0, 1));
    second.does(Deed::Lock(two, F_SETLK, F_RDLCK, 0, 1));
    show(
        "record: the first, to write",
        first.does(Deed::Lock(one, F_SETLKW, F_WRLCK, 0, 1)),
    );
    show(
        "record: the second, to write",
        second.does(Deed::Lock(two, F_SETLK, F_WRLCK, 0, 1)),
    );
    show(
        "record: the second, to write, waiting",
        second.does(Deed::Lock(two, F_SETLKW, F_WRLCK, 0, 1)),
    );
    show(
        "record: the second gives up",
        second.does(Deed::Lock(two, F_SETLK, F_UNLCK, 0, 1)),
    );
    show("record: the first has it", first.comes_to());
    end(peers);
}

/// Who would wait for itself.
fn circles() {
    for size in [2, 3, 10, 12] {
        let peers: Vec<Peer> = (0..size).map(|_| Peer::new()).collect();
        let opened: Vec<i32> = peers.iter().map(Peer::opens).collect();
        let wants = |who: usize, at: i64, command: i32| {
            peers[who].does(Deed::Lock(opened[who], command, F_WRLCK, at, 1))
        };
        (0..size).for_each(|who| drop(wants(who, who as i64, F_SETLK)));
        let waits = (0..size - 1).map(|who| wants(who, who as i64 + 1, F_SETLKW));
        let waits: Vec<String> = waits.collect();
        show(
            &format!("a circle of {size}: wait"),
            waits.iter().filter(|is| *is == "waits").count(),
        );
        show(
            &format!("a circle of {size}: does not wait"),
            wants(size - 1, 0, F_SETLK),
        );
        show(
            &format!("a circle of {size}: closed"),
            wants(size - 1, 0, F_SETLKW),
        );
        show(
            &format!("a circle of {size}: undone"),
            peers[size - 1].does(Deed::Close(opened[size - 1])),
        );
        for who in (0..size - 1).rev() {
            let came = peers[who].comes_to();
            peers[who].does(Deed::Close(opened[who]));
            if came != "0" {
                show(&format!("a circle of {size}: {who}"), came);
            }
        }
        end(peers);
    }
    let peers = peers::<2>();
    let opened = peers.each_ref().map(Peer::opens);
    let wants =
        |who: usize, at: i64, command: i32| peers[who].does(Deed::Lock(opened[who], command, F_WRLCK, at, 1));
    wants(0, 0, F_OFD_SETLK);
    wants(1, 1, F_SETLK);
    show("with an OFD lock: one waits", wants(1, 0, F_SETLKW));
    show("with an OFD lock: both wait", wants(0, 1, F_SETLKW));
    show("killed", ok(peers[0].child.kill(libc::SIGKILL)));
    show("the other", peers[1].comes_to());
    end(peers);
}

/// What signals do to those who wait.
fn signals() {
    let fd = open(FILE, 0);
    show("ours", ok(lock(fd, F_SETLK, F_WRLCK, 0, 0)));
    show("ours", ok(flock(fd, LOCK_EX)));
    for (name, flags) in [("handler", 0), ("SA_RESTART", libc::SA_RESTART)] {
        for (what, record) in [("fcntl", true), ("flock", false)] {
            let peer = Peer::new();
            let own = peer.opens();
            peer.does(Deed::Close(fd));
            peer.does(Deed::Catch(flags));
            let deed = if record {
                Deed::Lock(own, F_SETLKW, F_RDLCK, 0, 0)
            } else {
                Deed::Flock(own, LOCK_SH)
            };
            show(&format!("{name}: {what}"), peer.does(deed));
            let _ = peer.child.kill(libc::SIGUSR1);
            // With SA_RESTART it sleeps again, or still: both are waits.
            let came = if flags == 0 {
                peer.comes_to()
            } else {
                peer.answers()
            };
            show(&format!("{name}: {what}: then"), came);
            if flags != 0 {
                let _ = peer.child.kill(libc::SIGKILL);
            }
            show(&format!("{name}: {what}: its end"), peer.ends());
        }
    }
    show("nobody waits any more", ok(lock(fd, F_SETLK, F_UNLCK, 0, 0)));
    show("nobody waits any more", ok(flock(fd, LOCK_UN)));
    show("all is free", {
        let fresh = open(FILE, 0);
        let got = format!(
            "{} {}",
            ok(lock(fresh, F_OFD_SETLK, F_WRLCK, 0, 0)),
            ok(flock(fresh, LOCK_EX | LOCK_NB))
        );
        let _ = sys::close(fresh);
        got
    });
    let _ = sys::close(fd);
}

/// Threads are one owner, and one of them can close what another waits by.
fn threads() {
    let fd = open(FILE, 0);
    show("ours", ok(lock(fd, F_SETLK, F_WRLCK, 0, 10)));
    let thread = job::start(move || ok(lock(fd, F_SETLKW, F_WRLCK, 5, 10)));
    show("a thread", thread.finish());
    let peer = Peer::new();
    let own = peer.opens();
    peer.does(Deed::Lock(own, F_SETLK, F_WRLCK, 50, 1));
    let second = open(FILE, 0);
    let thread = job::start(move || ok(lock(second, F_SETLKW, F_WRLCK, 50, 1)));
    show("a thread", thread.settle());
    show("its descriptor is closed", ok(sys::close(second)));
    show("it still waits", thread.settle());
    peer.does(Deed::Close(own));
    show("it has it no more", thread.finish());
    show("nor others", listed(fd));
    peer.ends();
    let _ = sys::close(fd);
}

/// Waits as /proc/locks shows them.
fn shown() {
    let fd = open(FILE, 0);
    let _ = lock(fd, F_SETLK, F_WRLCK, 10, 10);
    let _ = flock(fd, LOCK_SH);
    let peers = peers::<2>();
    let [one, two] = &peers;
    let (first, second) = (one.opens(), two.opens());
    show(
        "a wait",
        one.does(Deed::Lock(first, F_OFD_SETLKW, F_RDLCK, 0, 15)),
    );
    show("a wait", two.does(Deed::Flock(second, LOCK_EX)));
    let about = std::fs::metadata(format!("/proc/self/fd/{fd}"));
    let ino = about.map_or(0, |about| std::os::unix::fs::MetadataExt::ino(&about));
    let text = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let mine = text.lines().filter(|line| line.contains(&format!(":{ino} ")));
    let names = [
        (std::process::id() as i32, "us"),
        (one.child.pid, "one"),
        (two.child.pid, "two"),
    ];
    let mut lines: Vec<String> = mine
        .filter_map(|line| {
            let (_, line) = line.split_once(": ")?;
            let (arrow, line) = match line.strip_prefix("-> ") {
                Some(line) => ("-> ", line),
                None => ("", line),
            };
            let words: Vec<&str> = line.split(' ').collect();
            let words = words.into_iter().map(|word| match word.parse::<i32>() {
                Ok(pid) => names
                    .iter()
                    .find(|(known, _)| *known == pid)
                    .map_or(word, |(_, name)| name),
                Err(_) if word.contains(':') => "file",
                Err(_) => word,
            });
            Some(format!("{arrow}{}", words.collect::<Vec<_>>().join(" ")))
        })
        .collect();
    lines.sort();
    for line in lines {
        show("/proc/locks", line);
    }
    let _ = sys::close(fd);
    show("then", format!("{} {}", one.comes_to(), two.comes_to()));
    end(peers);
}
