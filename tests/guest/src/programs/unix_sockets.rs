//! Sockets with names: bind, listen, connect, accept, and what they refuse.

use guest_tests::child::fork;
use guest_tests::job;
use guest_tests::region::{PAGE, Region, in_memory_directory};
use guest_tests::signal;
use guest_tests::sys::{self, Answer, call};
use guest_tests::transcript::{answer, ok, show};
use guest_tests::uffd::{MISSING, Uffd};

const STREAM: i32 = libc::SOCK_STREAM;
const DATAGRAM: i32 = libc::SOCK_DGRAM;
const SEQPACKET: i32 = libc::SOCK_SEQPACKET;
const NONBLOCK: i32 = libc::SOCK_NONBLOCK;

pub fn run() {
    in_memory_directory(|| {
        making();
        binding();
        abstract_names();
        listening();
        connecting();
        for kind in [STREAM, SEQPACKET] {
            connections(kind);
            resets(kind);
        }
        backlog();
        interrupted();
        datagrams();
        options();
        credentials();
        rights();
        passing();
        inherited();
        delegated();
    });
}

fn socket(kind: i32) -> i32 {
    made(kind).expect("a socket can be made")
}

fn made(kind: i32) -> Answer<i32> {
    call(libc::SYS_socket, &[libc::AF_UNIX as usize, kind as usize, 0]).map(|fd| fd as i32)
}

/// An address: the family, and these bytes.
fn address(name: &[u8]) -> Vec<u8> {
    [&(libc::AF_UNIX as u16).to_ne_bytes()[..], name].concat()
}

fn with_address(number: i64, fd: i32, address: &[u8]) -> Answer {
    call(number, &[fd as usize, address.as_ptr() as usize, address.len()])
}

fn bind(fd: i32, name: &str) -> Answer {
    with_address(libc::SYS_bind, fd, &address(name.as_bytes()))
}

fn connect(fd: i32, name: &str) -> Answer {
    with_address(libc::SYS_connect, fd, &address(name.as_bytes()))
}

fn listen(fd: i32, backlog: i32) -> Answer {
    call(libc::SYS_listen, &[fd as usize, backlog as usize])
}

fn accept(fd: i32, flags: i32) -> Answer<i32> {
    call(libc::SYS_accept4, &[fd as usize, 0, 0, flags as usize]).map(|fd| fd as i32)
}

fn shutdown(fd: i32, how: i32) -> String {
    ok(call(libc::SYS_shutdown, &[fd as usize, how as usize]))
}

/// A socket of this kind that listens under this name.
fn listener(kind: i32, name: &str, backlog: i32) -> i32 {
    let fd = socket(kind);
    bind(fd, name).expect("the name is free");
    listen(fd, backlog).expect("it can listen");
    fd
}

fn closed(fds: &[i32]) {
    for fd in fds {
        let _ = sys::close(*fd);
    }
}

/// What getsockname or getpeername says.
fn name_of(number: i64, fd: i32) -> String {
    let mut bytes = [0xffu8; 128];
    let mut len = 128u32;
    let args = [fd as usize, bytes.as_mut_ptr() as usize, &raw mut len as usize];
    match call(number, &args) {
        Ok(_) => format!("{len} bytes, {}", bytes[2..len.max(2) as usize].escape_ascii()),
        Err(errno) => errno.to_string(),
    }
}

fn own_name(fd: i32) -> String {
    name_of(libc::SYS_getsockname, fd)
}

fn peer_name(fd: i32) -> String {
    name_of(libc::SYS_getpeername, fd)
}

fn poll(fd: i32) -> String {
    let all = libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP | libc::POLLPRI;
    sys::poll(fd, all, 0).map_or_else(|errno| errno.to_string(), |events| format!("{events:#x}"))
}

fn get(fd: i32, level: i32, option: i32, room: i32) -> String {
    let mut bytes = [0u8; 64];
    let mut len = room;
    let at = [bytes.as_mut_ptr() as usize, &raw mut len as usize];
    let args = [fd as usize, level as usize, option as usize, at[0], at[1]];
    match call(libc::SYS_getsockopt, &args) {
        Ok(_) => format!("{:?}", &bytes[..len as usize]),
        Err(errno) => errno.to_string(),
    }
}

fn set(fd: i32, option: i32, value: &[u8]) -> String {
    let at = value.as_ptr() as usize;
    let level = libc::SOL_SOCKET as usize;
    ok(call(
        libc::SYS_setsockopt,
        &[fd as usize, level, option as usize, at, value.len()],
    ))
}

fn send(fd: i32, bytes: &[u8], to: Option<&str>) -> String {
    let to = to.map(|name| address(name.as_bytes()));
    let (at, len) = to.as_ref().map_or((0, 0), |to| (to.as_ptr() as usize, to.len()));
    let flags = (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as usize;
    let args = [fd as usize, bytes.as_ptr() as usize, bytes.len(), flags, at, len];
    answer(call(libc::SYS_sendto, &args))
}

/// Up to eight bytes, and who sent them.
fn receive(fd: i32) -> String {
    let (mut bytes, mut from, mut len) = ([0u8; 8], [0xffu8; 128], 128u32);
    let at = [from.as_mut_ptr() as usize, &raw mut len as usize];
    let flags = libc::MSG_DONTWAIT as usize;
    let args = [fd as usize, bytes.as_mut_ptr() as usize, 8, flags, at[0], at[1]];
    match call(libc::SYS_recvfrom, &args) {
        Ok(count) => {
            let name = from.get(2..len as usize).unwrap_or(&[]).escape_ascii();
            format!("{} from {len} bytes {name}", bytes[..count].escape_ascii())
        }
        Err(errno) => errno.to_string(),
    }
}

fn mode(path: &str) -> String {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path).map_or_else(|_| "none".into(), |file| format!("{:o}", file.mode()))
}

fn making() {
    let make = |family: i32, kind: i32, protocol: i32| {
        ok(call(
            libc::SYS_socket,
            &[family as usize, kind as usize, protocol as usize],
        ))
    };
    show("socket: stream", make(1, STREAM, 0));
    show("socket: raw", make(1, libc::SOCK_RAW, 0));
    show("socket: protocol of its family", make(1, SEQPACKET, 1));
    show("socket: another protocol", make(1, STREAM, 2));
    show("socket: no such type", make(1, 9, 0));
    show("socket: no such family", make(99, STREAM, 0));
    show("socket: bad flags", make(1, STREAM | 0x100, 0));
    let fd = socket(STREAM | NONBLOCK | libc::SOCK_CLOEXEC);
    show("socket: flags", answer(sys::fcntl(fd, libc::F_GETFD, 0)));
    show("socket: status", answer(sys::fcntl(fd, libc::F_GETFL, 0)));
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    show("socket: shown", link.to_string_lossy().starts_with("socket:["));
    for (name, kind) in [
        ("stream", STREAM),
        ("datagram", DATAGRAM),
        ("seqpacket", SEQPACKET),
    ] {
        let fd = socket(kind | NONBLOCK);
        show(&format!("alone: {name}: poll"), poll(fd));
        show(&format!("alone: {name}: name"), own_name(fd));
        show(&format!("alone: {name}: peer"), peer_name(fd));
        show(
            &format!("alone: {name}: read"),
            answer(sys::read(fd, &mut [0; 4])),
        );
        show(&format!("alone: {name}: write"), send(fd, b"ab", None));
        show(
            &format!("alone: {name}: to nobody"),
            send(fd, b"ab", Some("nobody")),
        );
        show(&format!("alone: {name}: accept"), ok(accept(fd, 0)));
        show(&format!("alone: {name}: listen"), ok(listen(fd, 1)));
        show(&format!("alone: {name}: shutdown"), shutdown(fd, 2));
        show(&format!("alone: {name}: poll then"), poll(fd));
        show(&format!("alone: {name}: bad shutdown"), shutdown(fd, 3));
        closed(&[fd]);
    }
    closed(&[fd]);
}

fn binding() {
    let fd = socket(STREAM);
    let at = |bytes: &[u8]| ok(with_address(libc::SYS_bind, fd, bytes));
    show("bind: no address", at(&[]));
    show("bind: half a family", at(&[1]));
    show("bind: another family", at(&[2, 0, b'x']));
    show("bind: too long", at(&address(&[b'x'; 109])));
    show("bind: longer than any", at(&address(&[b'x'; 127])));
    show(
        "bind: bad pointer",
        ok(call(libc::SYS_bind, &[fd as usize, 8, 10])),
    );
    show("bind: no socket", ok(bind(1, "x")));
    show("bind: nothing", ok(bind(99, "x")));
    show("bind: no directory", ok(bind(fd, "nowhere/x")));
    let _ = std::fs::write("file", b"");
    show("bind: below a file", ok(bind(fd, "file/x")));
    show("bind: a file", ok(bind(fd, "file")));
    show("bind: a slash behind", ok(bind(fd, "slash/")));
    show("bind: its name", own_name(fd));
    show("bind", ok(bind(fd, "name\0behind")));
    show("bind: its name then", own_name(fd));
    show("bind: its file", mode("name"));
    show("bind: again, the same", ok(bind(fd, "name")));
    show("bind: again, another", ok(bind(fd, "other")));
    show("bind: the other's file", mode("other"));
    show("bind: another socket", ok(bind(socket(DATAGRAM), "name")));
    show("bind: open of the file", ok(sys::open("name", libc::O_RDWR)));
    show("bind: unlink", ok(sys::with_path(libc::SYS_unlink, "name", &[])));
    show("bind: its name after unlink", own_name(fd));
    let second = socket(STREAM);
    show("bind: the name again", ok(bind(second, "name")));
    closed(&[fd]);
    show("bind: the file after close", mode("name"));
    closed(&[second]);
    show("bind: the file stays", mode("name"));
    show("bind: and is in the way", ok(bind(socket(STREAM), "name")));
    let old = call(libc::SYS_umask, &[0o27]).unwrap_or(0);
    let masked = socket(DATAGRAM);
    show("bind: with a umask", ok(bind(masked, "masked")));
    show("bind: its mode", mode("masked"));
    let _ = call(libc::SYS_umask, &[old]);
    let full = "f".repeat(108);
    let longest = socket(STREAM);
    show("bind: the longest", ok(bind(longest, &full)));
    show("bind: its longest name", own_name(longest).len());
    closed(&[masked, longest]);
}

fn abstract_names() {
    let (first, second, third) = (socket(STREAM), socket(STREAM), socket(DATAGRAM));
    show("abstract: bind", ok(bind(first, "\0faultline\0x")));
    show("abstract: its name", own_name(first));
    show("abstract: taken", ok(bind(second, "\0faultline\0x")));
    show("abstract: of another type", ok(bind(third, "\0faultline\0x")));
    show("abstract: a longer one", ok(bind(second, "\0faultline\0x\0")));
    show("abstract: again", ok(bind(first, "\0faultline\0y")));
    show(
        "abstract: without listening",
        ok(connect(socket(STREAM), "\0faultline\0x")),
    );
    show(
        "abstract: of the wrong type",
        ok(connect(socket(SEQPACKET), "\0faultline\0x")),
    );
    closed(&[first]);
    let fourth = socket(STREAM);
    show("abstract: free again", ok(bind(fourth, "\0faultline\0x")));
    let (automatic, other) = (socket(STREAM), socket(STREAM));
    show(
        "automatic: bind",
        ok(with_address(libc::SYS_bind, automatic, &address(b""))),
    );
    let name = own_name(automatic);
    show(
        "automatic: its name",
        (name.starts_with("8 bytes, \\x00"), name.len()).1,
    );
    show(
        "automatic: again",
        ok(with_address(libc::SYS_bind, automatic, &address(b""))),
    );
    show("automatic: stays", own_name(automatic) == name);
    let _ = with_address(libc::SYS_bind, other, &address(b""));
    show("automatic: another", own_name(other) != name);
    closed(&[second, third, fourth, automatic, other]);
}

fn listening() {
    let fd = socket(STREAM | NONBLOCK);
    show("listen: unbound", ok(listen(fd, 1)));
    let _ = bind(fd, "listens");
    show("listen: before: connect", ok(connect(socket(STREAM), "listens")));
    show("listen: accept before", ok(accept(fd, 0)));
    show("listen", ok(listen(fd, 1)));
    show("listen: again", ok(listen(fd, -1)));
    show("listen: poll", poll(fd));
    show("listen: read", answer(sys::read(fd, &mut [0; 4])));
    show("listen: write", send(fd, b"a", None));
    show("listen: accept", ok(accept(fd, 0)));
    show("listen: accept with bad flags", ok(accept(fd, 1)));
    show("listen: its peer", peer_name(fd));
    show("listen: connect of itself", ok(connect(fd, "listens")));
    let from = socket(STREAM);
    show("listen: connect", ok(connect(from, "listens")));
    show("listen: poll with one", poll(fd));
    let mut waiting = 0u32;
    let args = [fd as usize, libc::FIONREAD as usize, &raw mut waiting as usize];
    show("listen: FIONREAD", ok(call(libc::SYS_ioctl, &args)));
    show("listen: shutdown", shutdown(fd, 0));
    show("listen: connect then", ok(connect(socket(STREAM), "listens")));
    show("listen: accept of the first", ok(accept(fd, 0)));
    show("listen: accept of none", ok(accept(fd, 0)));
    show("listen: poll then", poll(fd));
    closed(&[fd, from]);
}

fn connecting() {
    let fd = socket(STREAM);
    let at = |bytes: &[u8]| ok(with_address(libc::SYS_connect, fd, bytes));
    show("connect: no address", at(&[]));
    show("connect: no name", at(&address(b"")));
    show("connect: no family", at(&[0, 0]));
    show("connect: another family", at(&[2, 0, b'x']));
    show("connect: no file", ok(connect(fd, "none")));
    show("connect: a regular file", ok(connect(fd, "file")));
    show("connect: a directory", ok(connect(fd, ".")));
    show("connect: a name left behind", ok(connect(fd, "listens")));
    show("connect: no such abstract name", ok(connect(fd, "\0none")));
    let _ = sys::with_path(libc::SYS_mknod, "node", &[(libc::S_IFSOCK | 0o600) as usize, 0]);
    show("connect: a node of mknod", ok(connect(fd, "node")));
    let packets = listener(SEQPACKET, "packets", 1);
    show("connect: another type", ok(connect(fd, "packets")));
    let bytes = listener(STREAM, "bytes", 5);
    let _ = sys::with_paths(libc::SYS_symlink, "bytes", "symlink");
    let _ = sys::with_paths(libc::SYS_link, "bytes", "hardlink");
    let _ = sys::with_paths(libc::SYS_rename, "bytes", "renamed");
    show("connect: by its old name", ok(connect(fd, "bytes")));
    show("connect: by a symbolic link to that", ok(connect(fd, "symlink")));
    show("connect: by another name", ok(connect(fd, "hardlink")));
    show("connect: twice", ok(connect(fd, "hardlink")));
    show("connect: twice, to nobody", ok(connect(fd, "none")));
    show("connect: its peer's name", peer_name(fd));
    show("connect: connected: listen", ok(listen(fd, 1)));
    show("connect: connected: bind", ok(bind(fd, "late")));
    show("connect: connected: then listen", ok(listen(fd, 1)));
    let taken = accept(bytes, NONBLOCK).expect("one waits");
    show("connect: the other's peer", peer_name(taken));
    show("connect: the other's own", own_name(taken));
    show("connect: accept from it", ok(accept(taken, 0)));
    closed(&[packets, bytes, fd, taken]);
}

fn connections(kind: i32) {
    let name = if kind == STREAM { "stream" } else { "seqpacket" };
    let row = |what: &str, got: String| show(&format!("{name}: {what}"), got);
    let at = listener(kind, &format!("{name}-server"), 5);
    let from = socket(kind);
    let _ = bind(from, &format!("{name}-client"));
    row("connect", ok(connect(from, &format!("{name}-server"))));
    row("poll before accept", poll(from));
    row("write before accept", send(from, b"early", None));
    let mut address = [0u8; 64];
    let mut len = 64u32;
    let args = [at as usize, address.as_mut_ptr() as usize, &raw mut len as usize];
    let taken = call(libc::SYS_accept, &args).expect("one waits") as i32;
    row(
        "accept: name",
        format!("{len} {}", address[2..len as usize].escape_ascii()),
    );
    row("read", receive(taken));
    row("poll", poll(taken));
    row("with an address", send(taken, b"x", Some("anybody")));
    row("write back", send(taken, b"back", None));
    row("read back", receive(from));
    row("nothing more", receive(from));
    row("two writes", send(from, b"one", None) + &send(from, b"two", None));
    row("two reads", receive(taken) + ", " + &receive(taken));
    row("half shut", shutdown(from, 1));
    row("poll half shut", poll(from) + " " + &poll(taken));
    row("write when shut", send(from, b"x", None));
    row("read when shut", receive(taken));
    row("the other way", send(taken, b"still", None));
    row("and read", receive(from));
    row("close", ok(sys::close(from)));
    row("poll of the rest", poll(taken));
    row("read of the rest", receive(taken));
    row("write to nobody", send(taken, b"x", None));
    row("the peer's name", peer_name(taken));
    row("error", get(taken, 1, libc::SO_ERROR, 4));
    closed(&[at, taken]);
    row(
        "connect to what is closed",
        ok(connect(socket(kind), &format!("{name}-server"))),
    );
}

fn resets(kind: i32) {
    let name = format!("resets-{kind}");
    let row = |what: &str, got: String| show(&format!("{name}: {what}"), got);
    let at = listener(kind, &name, 5);
    let pair = || {
        let from = socket(kind);
        connect(from, &name).expect("it listens");
        (from, accept(at, 0).expect("one waits"))
    };
    let (from, to) = pair();
    row("unread", send(from, b"x", None) + &send(to, b"kept", None));
    closed(&[to]);
    row("poll", poll(from));
    row("first read", receive(from));
    row("second read", receive(from));
    row("third read", receive(from));
    row("write", send(from, b"x", None));
    row("poll then", poll(from));
    let (other, to) = pair();
    row("error", send(other, b"x", None));
    closed(&[to]);
    row("error: told", get(other, 1, libc::SO_ERROR, 4));
    row("error: once", get(other, 1, libc::SO_ERROR, 4));
    let waiting = socket(kind);
    row("never accepted", ok(connect(waiting, &name)));
    closed(&[at]);
    row("never accepted: poll", poll(waiting));
    row("never accepted: read", receive(waiting));
    row("never accepted: read again", receive(waiting));
    closed(&[from, other, waiting]);
}

fn backlog() {
    let at = listener(STREAM, "backlog", 1);
    let fds = [(); 4].map(|()| socket(STREAM | NONBLOCK));
    for fd in fds {
        show("backlog: connect", ok(connect(fd, "backlog")));
    }
    show("backlog: poll of one that was refused", poll(fds[3]));
    show("backlog: a larger one", ok(listen(at, 2)));
    show("backlog: has room", ok(connect(fds[2], "backlog")));
    let waits = socket(STREAM);
    let job = job::start(move || ok(connect(waits, "backlog")));
    show("backlog: connect that waits", job.settle());
    show("backlog: accept", ok(accept(at, 0)));
    show("backlog: connect is through", job.finish());
    let waits = socket(STREAM);
    let job = job::start(move || ok(connect(waits, "backlog")));
    show("backlog: another", job.settle());
    closed(&[at]);
    show("backlog: closed meanwhile", job.finish());
    let at = listener(STREAM, "backlog-2", 0);
    let job = job::start(move || ok(accept(at, 0)));
    show("accept: waits", job.settle());
    show("accept: connect", ok(connect(socket(STREAM), "backlog-2")));
    show("accept: is through", job.finish());
    let job = job::start(move || ok(accept(at, 0)));
    show("accept: waits again", job.settle());
    show("accept: shutdown", shutdown(at, 0));
    show("accept: ended", job.finish());
    closed(&fds);
    closed(&[at]);
}

fn interrupted() {
    let at = listener(STREAM, "interrupted", 0);
    signal::catch(libc::SIGUSR1, 0, &[]);
    let job = job::start(move || ok(accept(at, 0)));
    show("signal: accept waits", job.settle());
    let _ = signal::tgkill(job.tid(), libc::SIGUSR1);
    show("signal: accept", job.finish());
    show("signal: fills", ok(connect(socket(STREAM), "interrupted")));
    let job = job::start(move || ok(connect(socket(STREAM), "interrupted")));
    show("signal: connect waits", job.settle());
    let _ = signal::tgkill(job.tid(), libc::SIGUSR1);
    show("signal: connect", job.finish());
    signal::catch(libc::SIGUSR1, libc::SA_RESTART, &[]);
    let job = job::start(move || ok(connect(socket(STREAM), "interrupted")));
    show("signal: restarted: waits", job.settle());
    let _ = signal::tgkill(job.tid(), libc::SIGUSR1);
    show("signal: restarted: waits still", job.settle());
    let _ = accept(at, 0);
    show("signal: restarted", job.finish());
    let time = [0u64.to_ne_bytes(), 20_000u64.to_ne_bytes()].concat();
    let late = socket(STREAM);
    show(
        "time-out: set",
        set(late, libc::SO_SNDTIMEO, &time) + &set(at, libc::SO_RCVTIMEO, &time),
    );
    show("time-out: get", get(late, 1, libc::SO_SNDTIMEO, 16));
    show("time-out: connect", ok(connect(late, "interrupted")));
    let _ = accept(at, 0);
    show("time-out: accept", ok(accept(at, 0)));
    let bad = [0u64.to_ne_bytes(), 1_000_000u64.to_ne_bytes()].concat();
    show(
        "time-out: too many microseconds",
        set(late, libc::SO_SNDTIMEO, &bad),
    );
    show("time-out: half of one", set(late, libc::SO_SNDTIMEO, &bad[..8]));
    closed(&[at, late]);
}

fn datagrams() {
    let (server, client, third) = (socket(DATAGRAM), socket(DATAGRAM), socket(DATAGRAM));
    let _ = bind(server, "datagrams");
    let _ = bind(third, "third");
    show("datagram: listen", ok(listen(server, 1)));
    show("datagram: to a name", send(client, b"hello", Some("datagrams")));
    show("datagram: from nobody", receive(server));
    let _ = bind(client, "client");
    show("datagram: empty", send(client, b"", Some("datagrams")));
    show("datagram: from somebody", receive(server));
    show(
        "datagram: too long",
        send(client, &vec![0; 1 << 20], Some("datagrams")),
    );
    show("datagram: to a stream", send(client, b"x", Some("listens")));
    show(
        "datagram: to no name",
        ok(with_address(libc::SYS_connect, client, &address(b""))),
    );
    show("datagram: connect", ok(connect(client, "datagrams")));
    show("datagram: connect by another", ok(connect(third, "datagrams")));
    show("datagram: send", send(client, b"one", None));
    show("datagram: send by another", send(third, b"two", None));
    show("datagram: both come", receive(server) + ", " + &receive(server));
    show("datagram: the server connects", ok(connect(server, "client")));
    show("datagram: the other one sends", send(third, b"x", None));
    show("datagram: and to the name", send(third, b"x", Some("datagrams")));
    show("datagram: and connects", ok(connect(third, "datagrams")));
    show(
        "datagram: back",
        send(server, b"back", None) + ", " + &receive(client),
    );
    show("datagram: kept", send(client, b"lost", None));
    show(
        "datagram: disconnect",
        ok(with_address(libc::SYS_connect, server, &[0, 0])),
    );
    show("datagram: lost", receive(server));
    show("datagram: told", get(client, 1, libc::SO_ERROR, 4));
    show("datagram: peer", peer_name(server) + ", " + &peer_name(client));
    let mut sent = 0;
    while send(client, b"x", None) == "1" {
        sent += 1;
    }
    show("datagram: some fit", sent > 0);
    show("datagram: full", send(client, b"x", None));
    show("datagram: full: poll", poll(client) + ", " + &poll(third));
    show("datagram: one is read", receive(server));
    show("datagram: room: poll", poll(client));
    let _ = send(client, b"y", None);
    let job = job::start(move || answer(sys::write(client, b"z")));
    show("datagram: a write waits", job.settle());
    show("datagram: another is read", receive(server));
    show("datagram: it is through", job.finish());
    show(
        "datagram: itself",
        ok(connect(third, "third")) + &send(third, b"me", None) + &receive(third),
    );
    closed(&[server]);
    show("datagram: closed: poll", poll(client));
    show("datagram: closed: send", send(client, b"x", None));
    show("datagram: closed: send again", send(client, b"x", None));
    show("datagram: closed: connect", ok(connect(client, "datagrams")));
    show(
        "datagram: shut",
        shutdown(third, 2) + &send(third, b"x", None) + &receive(third) + &poll(third),
    );
    closed(&[client, third]);
}

fn options() {
    let fd = listener(SEQPACKET, "options", 1);
    for (name, option) in [
        ("type", libc::SO_TYPE),
        ("domain", libc::SO_DOMAIN),
        ("protocol", libc::SO_PROTOCOL),
        ("error", libc::SO_ERROR),
        ("listens", libc::SO_ACCEPTCONN),
        ("reuse", libc::SO_REUSEADDR),
        ("alive", libc::SO_KEEPALIVE),
        ("credentials", libc::SO_PASSCRED),
        ("time", libc::SO_RCVTIMEO),
        ("unknown", 999),
    ] {
        show(&format!("option: {name}"), get(fd, 1, option, 64));
    }
    show("option: short", get(fd, 1, libc::SO_TYPE, 1));
    show("option: negative", get(fd, 1, libc::SO_TYPE, -1));
    show("option: level", get(fd, 0, libc::SO_TYPE, 4));
    show("option: set reuse", set(fd, libc::SO_REUSEADDR, &[5, 0, 0, 0]));
    show("option: reuse then", get(fd, 1, libc::SO_REUSEADDR, 4));
    show("option: set short", set(fd, libc::SO_REUSEADDR, &[1, 0]));
    show("option: set what is said", set(fd, libc::SO_TYPE, &[1, 0, 0, 0]));
    show("option: set unknown", set(fd, 999, &[1, 0, 0, 0]));
    for room in [1u32, 100_000, 1 << 20] {
        let value = room.to_ne_bytes();
        show(
            "option: rooms",
            set(fd, libc::SO_SNDBUF, &value) + &set(fd, libc::SO_RCVBUF, &value),
        );
        show("option: room to send", get(fd, 1, libc::SO_SNDBUF, 4));
        show("option: room to receive", get(fd, 1, libc::SO_RCVBUF, 4));
    }
    closed(&[fd]);
}

/// What SO_PEERCRED says, with this process's number as 1.
fn peer(fd: i32, ours: u32) -> String {
    let mut words = [0u32; 3];
    let mut len = 12u32;
    let at = [words.as_mut_ptr() as usize, &raw mut len as usize];
    let args = [fd as usize, 1, libc::SO_PEERCRED as usize, at[0], at[1]];
    match call(libc::SYS_getsockopt, &args) {
        Ok(_) => format!("{} {} {}", words[0] == ours, words[1] as i32, words[2] as i32),
        Err(errno) => errno.to_string(),
    }
}

fn credentials() {
    let ours = std::process::id();
    let at = listener(STREAM, "credentials", 2);
    show("credentials: listener", peer(at, ours));
    show("credentials: alone", peer(socket(STREAM), ours));
    let child = fork(|| {
        let fd = socket(STREAM);
        let _ = connect(fd, "credentials");
        show("credentials: of the listener", peer(fd, ours));
        let _ = sys::write(fd, b"x");
        let _ = sys::read(fd, &mut [0; 1]);
        0
    });
    let taken = accept(at, 0).expect("the child connects");
    let _ = sys::read(taken, &mut [0; 1]);
    show("credentials: of the child", peer(taken, child.pid as u32));
    closed(&[taken]);
    show("credentials: the child", child.wait());
    let _ = set(at, libc::SO_PASSCRED, &[1, 0, 0, 0]);
    let from = socket(STREAM);
    let _ = connect(from, "credentials");
    let taken = accept(at, 0).expect("one waits");
    show("credentials: inherited", get(taken, 1, libc::SO_PASSCRED, 4));
    for (name, who) in [
        ("none", None),
        ("own", Some([ours, 0, 0])),
        ("another user", Some([ours, 7, 8])),
        ("no process", Some([0x3f_ffff, 0, 0])),
    ] {
        let sent = message(
            libc::SYS_sendmsg,
            from,
            who.map(|who| (libc::SCM_CREDENTIALS, who.to_vec())),
            32,
        );
        show(&format!("credentials: {name}: sent"), sent.0);
    }
    for _ in 0..3 {
        let (answer, flags, control) = message(libc::SYS_recvmsg, taken, None, 32);
        let own = control.get(4) == Some(&ours);
        let rest = control.get(..4).map(<[u32]>::to_vec);
        show(
            "credentials: received",
            format!("{answer} {flags} {rest:?} {own} {:?}", control.get(5..7)),
        );
    }
    let _ = message(libc::SYS_sendmsg, from, None, 0);
    let (answer, flags, _) = message(libc::SYS_recvmsg, taken, None, 0);
    show("credentials: without room", format!("{answer} {flags}"));
    closed(&[at, from, taken]);
}

/// sendmsg of a byte with a control message, or recvmsg with this much room for one: the answer, flags, and words.
fn message(number: i64, fd: i32, with: Option<(i32, Vec<u32>)>, room: usize) -> (String, u32, Vec<u32>) {
    let mut control = vec![0u32; 16];
    let mut len = if number == libc::SYS_recvmsg { room } else { 0 };
    if let Some((kind, words)) = with {
        len = 16 + 4 * words.len();
        control[0] = len as u32;
        control[2] = libc::SOL_SOCKET as u32;
        control[3] = kind as u32;
        control[4..4 + words.len()].copy_from_slice(&words);
    }
    let mut bytes = [b'm'; 1];
    let part = [bytes.as_mut_ptr() as usize, 1];
    let at = control.as_mut_ptr() as usize;
    let mut header = [0, 0, part.as_ptr() as usize, 1, at, len, 0];
    let flags = libc::MSG_DONTWAIT as usize;
    let got = call(number, &[fd as usize, header.as_mut_ptr() as usize, flags]);
    control.truncate(header[5] / 4);
    (answer(got), header[6] as u32, control)
}

fn rights() {
    let at = listener(STREAM, "rights", 2);
    let set_mode = |mode: usize| sys::with_path(libc::SYS_chmod, "rights", &[mode]);
    let as_nobody = || {
        fork(|| {
            let _ = call(libc::SYS_setresuid, &[1, 1, 1]);
            show("rights: connect", ok(connect(socket(STREAM), "rights")));
            show("rights: bind", ok(bind(socket(STREAM), "not-here")));
            0
        })
        .wait()
    };
    show("rights: mode 755", ok(set_mode(0o755)));
    show("rights: nobody", as_nobody());
    show("rights: mode 722", ok(set_mode(0o722)));
    show("rights: nobody then", as_nobody());
    closed(&[at]);
}

fn passing() {
    let at = listener(STREAM, "passing", 2);
    let from = socket(STREAM);
    let _ = connect(from, "passing");
    let (reads, writes) = sys::pipe2(0).expect("a pipe can be made");
    let fd = vec![writes as u32];
    show(
        "passing: sent before accept",
        message(libc::SYS_sendmsg, from, Some((libc::SCM_RIGHTS, fd)), 0).0,
    );
    closed(&[writes]);
    let taken = accept(at, 0).expect("one waits");
    let (got, flags, control) = message(libc::SYS_recvmsg, taken, None, 64);
    show(
        "passing: received",
        format!("{got} {flags} {:?}", control.get(..4)),
    );
    let passed = control.get(4).map_or(-1, |fd| *fd as i32);
    show("passing: it works", answer(sys::write(passed, b"through")));
    closed(&[passed]);
    show("passing: read", answer(sys::read(reads, &mut [0; 16])));
    show("passing: it was the last", answer(sys::read(reads, &mut [0; 16])));
    let (reads, writes) = sys::pipe2(0).expect("a pipe can be made");
    let waiting = socket(STREAM);
    let _ = connect(waiting, "passing");
    let _ = message(
        libc::SYS_sendmsg,
        waiting,
        Some((libc::SCM_RIGHTS, vec![writes as u32])),
        0,
    );
    closed(&[writes, at]);
    show("passing: never accepted", answer(sys::read(reads, &mut [0; 16])));
    closed(&[from, taken, waiting, reads]);
}

fn inherited() {
    let at = listener(STREAM, "inherited", 2);
    let child = fork(move || {
        let taken = accept(at, 0).expect("the parent connects");
        show("inherited: the child reads", {
            let mut bytes = [0; 8];
            let count = sys::read(taken, &mut bytes).unwrap_or(0);
            bytes[..count].escape_ascii().to_string()
        });
        i32::from(sys::write(taken, b"answer").is_err())
    });
    closed(&[at]);
    let fd = socket(STREAM);
    let connected = ok(connect(fd, "inherited"));
    let written = answer(sys::write(fd, b"question"));
    let read = answer(sys::read(fd, &mut [0; 16]));
    // The child has said what it had to say.
    show(
        "inherited: connect, write, read",
        format!("{connected} {written} {read}"),
    );
    show("inherited: the child", child.wait());
    show("inherited: at its end", answer(sys::read(fd, &mut [0; 16])));
    show(
        "inherited: nobody listens",
        ok(connect(socket(STREAM), "inherited")),
    );
    closed(&[fd]);
}

/// A process has its faults handled by another, which it finds by name.
fn delegated() {
    let at = listener(STREAM, "handler", 2);
    let region = Region::anon("delegated", 2);
    let child = fork(|| {
        let uffd = Uffd::with(0);
        uffd.watch(&region, MISSING);
        let fd = socket(STREAM);
        let _ = connect(fd, "handler");
        let (sent, ..) = message(
            libc::SYS_sendmsg,
            fd,
            Some((libc::SCM_RIGHTS, vec![uffd.fd as u32])),
            0,
        );
        closed(&[uffd.fd]);
        // The handler alone prints: it is not known who of the two would be first.
        let [first, second] = [0, 1].map(|page| guest_tests::touch::bytes(region.page(page), 1)[0]);
        if sent == "1" { i32::from(first + second) } else { 1 }
    });
    let taken = accept(at, 0).expect("the child connects");
    let _ = sys::poll(taken, libc::POLLIN, 5000);
    let (got, _, control) = message(libc::SYS_recvmsg, taken, None, 64);
    show("delegated: received", got);
    let uffd = Uffd {
        fd: control.get(4).map_or(-1, |fd| *fd as i32),
    };
    let source = Region::filled("source", 1, 7);
    for page in 0..2 {
        show("delegated: message", uffd.told());
        show(
            "delegated: fill",
            uffd.copy(region.page(page), source.start, PAGE, 0),
        );
    }
    show("delegated: the child", child.wait());
    closed(&[at, taken]);
}
