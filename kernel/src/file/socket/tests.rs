use alloc::vec::Vec;

use super::*;
use crate::arch::host::{Config, Running, SoftMachine};
use crate::drivers::ramdisk::Ramdisk;
use crate::file::Mounts;

fn machine() -> Running {
    SoftMachine::start(Config { memory: 1 << 20 })
}

fn socket_of(open: &OpenFile) -> &Arc<Socket> {
    open.as_file::<SocketFile>().expect("a socket").socket()
}

fn send(socket: &OpenFile, files: Vec<Arc<OpenFile>>) -> Result<usize, Error> {
    let message = Message {
        files,
        ..Message::default()
    };
    socket_of(socket).send(&mut Source::kernel(b""), message, true)
}

#[test]
fn a_line_of_empty_messages_has_an_end() {
    let _machine = machine();
    let [one, other] = SocketFile::pair(Kind::Datagram, OpenFlags::empty());
    let sent = (0..10_000).take_while(|_| send(&one, Vec::new()).is_ok()).count();
    assert_eq!(sent, ROOM.div_ceil(OVERHEAD));
    assert!(!one.readiness().contains(Readiness::OUT));
    drop(other);
}

#[test]
fn pairs_in_each_others_messages_are_closed_without_a_deep_stack() {
    let _machine = machine();
    let [mut inner, first] = SocketFile::pair(Kind::Datagram, OpenFlags::empty());
    let watched = Arc::downgrade(&first);
    assert!(send(&inner, Vec::new()).is_ok());
    drop(core::mem::replace(&mut inner, first));
    for _ in 0..100_000 {
        let [from, to] = SocketFile::pair(Kind::Datagram, OpenFlags::empty());
        assert_eq!(send(&from, alloc::vec![inner]), Ok(0));
        inner = to;
    }
    drop(inner);
    // Somebody else may be closing them.
    while watched.strong_count() > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn rings_of_pairs_are_not_made() {
    let _machine = machine();
    let too_many = Err(Error::Errno(Errno::ETOOMANYREFS));
    let [a, a_end] = SocketFile::pair(Kind::Datagram, OpenFlags::empty());
    let [b, b_end] = SocketFile::pair(Kind::Datagram, OpenFlags::empty());
    assert_eq!(send(&a, alloc::vec![Arc::clone(&a_end)]), too_many);
    assert_eq!(send(&a, alloc::vec![Arc::clone(&b_end)]), Ok(0));
    assert_eq!(send(&b, alloc::vec![Arc::clone(&a_end)]), too_many);
    let receiver = socket_of(&a_end);
    let mut bytes = [0; 1];
    let how = Receive::default();
    let received = receiver.receive(&mut Sink::kernel(&mut bytes), how);
    assert!(received.is_ok_and(|received| received.files.len() == 1));
    assert_eq!(
        send(&b, alloc::vec![a_end]),
        Ok(0),
        "it is not on its way any more"
    );
    drop(b_end);
}

/// Where nothing is found.
fn place() -> Arc<crate::file::Place> {
    crate::file::Place::new(&Mounts::new(&Ramdisk::EMPTY).expect("there is memory"))
}

/// A socket that listens under this abstract name, and one that is connected to it and not accepted yet.
fn waiting(name: &[u8]) -> (Arc<OpenFile>, Arc<OpenFile>) {
    let place = place();
    let name = Address::Abstract(name.into());
    let [listener, client] = [(); 2].map(|()| SocketFile::open(Kind::Stream, OpenFlags::empty()));
    assert_eq!(socket_of(&listener).bind(&name, &place), Ok(()));
    assert_eq!(socket_of(&listener).listen(0), Ok(()));
    assert_eq!(socket_of(&client).connect(Some(&name), &place, true), Ok(()));
    (listener, client)
}

fn send_byte(socket: &OpenFile, file: &Arc<OpenFile>) -> Result<usize, Error> {
    let message = Message {
        files: alloc::vec![Arc::clone(file)],
        ..Message::default()
    };
    socket_of(socket).send(&mut Source::kernel(b"x"), message, true)
}

#[test]
fn what_comes_to_a_connection_that_waits_belongs_to_the_listener() {
    let _machine = machine();
    let too_many = Err(Error::Errno(Errno::ETOOMANYREFS));
    let (listener, client) = waiting(b"rings");
    let [a, a_end] = SocketFile::pair(Kind::Stream, OpenFlags::empty());
    assert_eq!(send_byte(&client, &listener), too_many, "it would hold itself");
    assert_eq!(send_byte(&client, &a), Ok(1));
    assert_eq!(
        send_byte(&a, &listener),
        Ok(1),
        "no ring: it is not read by way of itself"
    );
    assert_eq!(
        send_byte(&client, &a_end),
        too_many,
        "the listener is on its way there"
    );
    let watched = Arc::downgrade(socket_of(&listener));
    drop((listener, client, a));
    drop(a_end);
    // Somebody else may be closing them.
    while watched.strong_count() > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn a_listener_that_is_closed_resets_those_who_wait() {
    let _machine = machine();
    let (listener, client) = waiting(b"resets");
    drop(listener);
    assert!(client.readiness().contains(Readiness::ERR | Readiness::HUP));
    assert_eq!(socket_of(&client).take_error(), Some(Errno::ECONNRESET));
    let place = place();
    let again = SocketFile::open(Kind::Stream, OpenFlags::empty());
    let name = Address::Abstract(b"resets".into());
    let refused = Err(Error::Errno(Errno::ECONNREFUSED));
    assert_eq!(socket_of(&again).connect(Some(&name), &place, true), refused);
}
