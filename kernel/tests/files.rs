//! Files without names: pipes, counters, memory to share; and what reads and writes do when memory fails them.

mod common;

use std::sync::Arc;

use common::{World, anon_frames, eventually, object_world, page, part, returned};
use kernel::abi::errno::Errno;
use kernel::file::eventfd::EventFile;
use kernel::file::pipe::{Pipe, PipeFile};
use kernel::file::socket::{Kind, Message, Receive, Socket, SocketFile};
use kernel::file::tmpfs::{self, RegularFile, Seals};
use kernel::file::{Content, allocate};
use kernel::file::{OpenFile, OpenFlags, Readiness, Segment, Sink, Source, Whence};
use kernel::syscall::Error;
use kernel::task::State;

const PAGE: usize = 4096;

fn read(open: &OpenFile, len: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; len];
    let read = open.read(&mut Sink::kernel(&mut bytes), false)?;
    bytes.truncate(read);
    Ok(bytes)
}

fn write(open: &OpenFile, bytes: &[u8]) -> Result<usize, Error> {
    open.write(&mut Source::kernel(bytes), false)
}

fn errno<T>(errno: Errno) -> Result<T, Error> {
    Err(Error::Errno(errno))
}

fn nonblocking_pipe() -> (Arc<OpenFile>, Arc<OpenFile>) {
    Pipe::pair(OpenFlags::NONBLOCK)
}

#[test]
fn bytes_come_out_of_a_pipe_in_order() {
    let _world = World::new();
    let (reads, writes) = nonblocking_pipe();
    assert_eq!(write(&writes, b"hello "), Ok(6));
    assert_eq!(write(&writes, b"world"), Ok(5));
    assert_eq!(read(&reads, 8), Ok(b"hello wo".to_vec()));
    assert_eq!(read(&reads, 8), Ok(b"rld".to_vec()));
    assert_eq!(read(&reads, 8), errno(Errno::EAGAIN));
    drop(writes);
    assert_eq!(read(&reads, 8), Ok(Vec::new()), "nobody will write any more");
}

#[test]
fn each_end_of_a_pipe_does_one_thing_and_neither_seeks() {
    let _world = World::new();
    let (reads, writes) = nonblocking_pipe();
    assert_eq!(read(&writes, 1), errno(Errno::EBADF));
    assert_eq!(write(&reads, b"x"), errno(Errno::EBADF));
    assert_eq!(reads.seek(0, Whence::Current), Err(Errno::ESPIPE));
    let mut bytes = [0];
    assert_eq!(
        reads.read_at(0, &mut Sink::kernel(&mut bytes), false),
        errno(Errno::ESPIPE)
    );
}

#[test]
fn a_pipe_that_nobody_reads_refuses_bytes_but_not_none() {
    let _world = World::new();
    let (reads, writes) = nonblocking_pipe();
    drop(reads);
    assert_eq!(write(&writes, b"x"), errno(Errno::EPIPE));
    assert_eq!(write(&writes, b""), Ok(0));
    assert_eq!(
        writes.readiness(),
        Readiness::WRITABLE | Readiness::ERR,
        "as on Linux: there is room, and an error"
    );
}

#[test]
fn a_place_is_free_when_its_page_is_read_to_the_end() {
    let _world = World::new();
    let (reads, writes) = nonblocking_pipe();
    assert_eq!(write(&writes, &vec![1; 20 * PAGE]), Ok(16 * PAGE));
    assert_eq!(read(&reads, 1), Ok(vec![1]));
    assert_eq!(write(&writes, b"x"), errno(Errno::EAGAIN));
    assert!(!writes.readiness().contains(Readiness::OUT));
    assert_eq!(read(&reads, PAGE - 1).map(|bytes| bytes.len()), Ok(PAGE - 1));
    assert!(writes.readiness().contains(Readiness::OUT));
    assert_eq!(write(&writes, &[2; PAGE]), Ok(PAGE));
}

#[test]
fn short_writes_share_a_page_and_one_of_a_page_is_whole_or_not_at_all() {
    let _world = World::new();
    let (_reads, writes) = nonblocking_pipe();
    for _ in 0..16 * PAGE {
        assert_eq!(write(&writes, b"x"), Ok(1));
    }
    assert_eq!(write(&writes, b"x"), errno(Errno::EAGAIN));
    let (_reads, writes) = nonblocking_pipe();
    assert_eq!(write(&writes, &vec![0; 15 * PAGE + 1]), Ok(15 * PAGE + 1));
    assert_eq!(write(&writes, &[0; PAGE]), errno(Errno::EAGAIN));
    assert_eq!(write(&writes, &[0; PAGE - 1]), Ok(PAGE - 1));
}

#[test]
fn a_pipe_grows_and_does_not_shrink_below_what_it_holds() {
    let _world = World::new();
    let (reads, writes) = nonblocking_pipe();
    let pipe = writes.as_file::<PipeFile>().unwrap().pipe();
    assert_eq!(pipe.capacity(), 16 * PAGE);
    assert_eq!(pipe.set_capacity(17 * PAGE), Ok(32 * PAGE));
    assert_eq!(write(&writes, &vec![0; 20 * PAGE]), Ok(20 * PAGE));
    assert_eq!(pipe.set_capacity(PAGE), Err(Errno::EBUSY));
    assert_eq!(pipe.set_capacity((1 << 20) + 1), Err(Errno::EPERM));
    assert_eq!(read(&reads, 20 * PAGE).map(|bytes| bytes.len()), Ok(20 * PAGE));
    assert_eq!(pipe.set_capacity(1), Ok(PAGE));
}

#[test]
fn a_reader_waits_for_a_writer_and_a_writer_for_a_reader() {
    let world = World::new();
    let (reads, writes) = Pipe::pair(OpenFlags::empty());
    let sent: Vec<u8> = (0..300_000_u32).map(|i| (i % 251) as u8).collect();
    let copy = sent.clone();
    let writer = world.spawn("writer", move || write(&writes, &copy));
    let reader = world.spawn("reader", move || {
        let mut got = Vec::new();
        loop {
            let piece = read(&reads, 7000)?;
            if piece.is_empty() {
                return Ok::<_, Error>(got);
            }
            got.extend(piece);
        }
    });
    assert_eq!(returned(writer), Ok(sent.len()));
    assert_eq!(returned(reader), Ok(sent));
}

#[test]
fn a_writer_hears_of_room_in_a_page_that_a_reader_gives_back() {
    let world = World::new();
    let (reads, writes) = Pipe::pair(OpenFlags::empty());
    let pipe = Arc::clone(writes.as_file::<PipeFile>().unwrap().pipe());
    assert_eq!(pipe.set_capacity(PAGE), Ok(PAGE));
    assert_eq!(write(&writes, &[1; 100]), Ok(100));
    let mut writer = None;
    let taken = pipe.offer(false, 50, |bytes| {
        // While it is away, nothing can be added to it.
        let spawned = world.spawn("writer", move || write(&writes, &[2; 100]));
        let task = Arc::clone(spawned.task());
        eventually("it waits", || task.state() == State::Parked);
        writer = Some(spawned);
        Ok(bytes.len())
    });
    assert_eq!(taken, Ok(50), "and 50 stay");
    assert_eq!(returned(writer.unwrap()), Ok(100));
    assert_eq!(read(&reads, 150), Ok([vec![1; 50], vec![2; 100]].concat()));
}

#[test]
fn named_pipes_wait_for_both_ends_and_refuse_to_write_to_nobody() {
    let world = World::new();
    let pipe = Pipe::new();
    let writes = OpenFlags::WRONLY | OpenFlags::NONBLOCK;
    assert_eq!(pipe.open(writes).err(), Some(Errno::ENXIO.into()));
    let other = Arc::clone(&pipe);
    let reader = world.spawn("reader", move || {
        let file = other.open(OpenFlags::empty())?;
        read(&OpenFile::new(file, OpenFlags::empty()), 10)
    });
    let file = pipe.open(OpenFlags::WRONLY).expect("the reader comes");
    let open = OpenFile::new(file, OpenFlags::WRONLY);
    assert_eq!(write(&open, b"there"), Ok(5));
    assert_eq!(returned(reader), Ok(b"there".to_vec()));
}

#[test]
fn a_counter_gives_all_or_one_and_takes_up_to_its_largest() {
    let _world = World::new();
    let open = |count, semaphore| {
        OpenFile::new(
            EventFile::new(count, semaphore),
            OpenFlags::RDWR | OpenFlags::NONBLOCK,
        )
    };
    let word = |word: u64| word.to_ne_bytes();
    let counter = open(3, false);
    assert_eq!(read(&counter, 7), errno(Errno::EINVAL));
    assert_eq!(read(&counter, 8), Ok(word(3).to_vec()));
    assert_eq!(read(&counter, 8), errno(Errno::EAGAIN));
    assert_eq!(write(&counter, &word(u64::MAX)), errno(Errno::EINVAL));
    assert_eq!(write(&counter, &word(u64::MAX - 1)), Ok(8));
    assert_eq!(write(&counter, &word(1)), errno(Errno::EAGAIN));
    assert_eq!(counter.readiness(), Readiness::IN);
    let semaphore = open(2, true);
    assert_eq!(read(&semaphore, 100), Ok(word(1).to_vec()));
    assert_eq!(read(&semaphore, 8), Ok(word(1).to_vec()));
    assert_eq!(read(&semaphore, 8), errno(Errno::EAGAIN));
    assert_eq!(semaphore.readiness(), Readiness::OUT);
}

#[test]
fn a_write_from_bad_memory_is_as_long_as_what_could_be_read() {
    let world = World::new();
    let range = world.map(2, common::RW);
    common::populate(&world, range);
    world.space.unmap(part(range, 1, 1)).expect("it is mapped");
    world.run(|| {
        let file = tmpfs::memfd(b"x", false, false, true).expect("memory is plenty");
        let good = page(range, 1).as_u64() - 10;
        let segment = |addr, len| Segment {
            addr: kernel::mm::addr::VirtAddr::new(addr),
            len,
        };
        let from = |parts: &[Segment]| file.write(&mut Source::task(parts), false);
        assert_eq!(from(&[segment(good, 20)]), Ok(10));
        assert_eq!(from(&[segment(good + 10, 1)]), errno(Errno::EFAULT));
        assert_eq!(
            from(&[segment(good, 5), segment(good + 5, 5), segment(8, 1)]),
            Ok(10)
        );
        assert_eq!(file.position(), 20);
        let to = |parts: &[Segment]| file.read_at(0, &mut Sink::task(parts), false);
        assert_eq!(to(&[segment(good, 20)]), Ok(10));
        assert_eq!(to(&[segment(good + 10, 20)]), errno(Errno::EFAULT));
    });
}

fn memfd(huge: bool) -> Arc<OpenFile> {
    tmpfs::memfd(b"test", huge, true, true).expect("memory is plenty")
}

#[test]
fn seals_forbid_what_they_say_and_cannot_be_taken_off() {
    let _world = World::new();
    let file = memfd(false);
    let body = Arc::clone(file.as_file::<RegularFile>().unwrap().body());
    assert_eq!(write(&file, &[1; 100]), Ok(100));
    assert_eq!(body.seal(Seals::GROW, |_| false), Ok(()));
    assert_eq!(file.file().truncate(101), Err(Errno::EPERM));
    assert_eq!(
        file.write_at(90, &mut Source::kernel(&[2; 20]), false),
        errno(Errno::EPERM)
    );
    assert_eq!(file.write_at(90, &mut Source::kernel(&[2; 10]), false), Ok(10));
    assert_eq!(body.seal(Seals::SHRINK, |_| false), Ok(()));
    assert_eq!(file.file().truncate(10), Err(Errno::EPERM));
    assert_eq!(body.seal(Seals::WRITE, |_| true), Err(Errno::EBUSY));
    assert!(file.file().mapping().unwrap().may_share_to_write);
    assert_eq!(body.seal(Seals::WRITE | Seals::SEAL, |_| false), Ok(()));
    assert_eq!(
        file.write_at(0, &mut Source::kernel(b"x"), false),
        errno(Errno::EPERM)
    );
    let punch = allocate::PUNCH_HOLE | allocate::KEEP_SIZE;
    assert_eq!(file.file().allocate(punch, 0, 10), Err(Errno::EPERM));
    assert!(!file.file().mapping().unwrap().may_share_to_write);
    assert_eq!(body.seal(Seals::EXEC, |_| false), Err(Errno::EPERM));
}

#[test]
fn holes_and_data_are_found_page_by_page() {
    let _world = World::new();
    let file = memfd(false);
    file.file().truncate(10 * PAGE as u64).unwrap();
    let page = |page: usize| (page * PAGE) as u64;
    let data = |at: u64| file.seek(at as i64, Whence::Next(Content::Data));
    let hole = |at: u64| file.seek(at as i64, Whence::Next(Content::Hole));
    assert_eq!(data(0), Err(Errno::ENXIO));
    assert_eq!(hole(5), Ok(5));
    file.write_at(page(3) + 7, &mut Source::kernel(b"x"), false)
        .unwrap();
    file.write_at(page(4), &mut Source::kernel(b"x"), false).unwrap();
    assert_eq!(data(1), Ok(page(3)));
    assert_eq!(data(page(3) + 9), Ok(page(3) + 9));
    assert_eq!(hole(page(3)), Ok(page(5)));
    assert_eq!(data(page(5)), Err(Errno::ENXIO));
    file.file().allocate(0, page(7), 1).unwrap();
    assert_eq!(data(page(5)), Err(Errno::ENXIO), "nobody has used it");
    assert_eq!(hole(page(10)), Err(Errno::ENXIO));
    assert_eq!(file.seek(-1, Whence::Start), Err(Errno::EINVAL));
    assert_eq!(file.seek(-1, Whence::End), Ok(page(10) - 1));
}

#[test]
fn files_in_huge_pages_are_not_written_and_have_whole_pages() {
    let world = object_world();
    let before = anon_frames();
    let file = memfd(true);
    assert_eq!(write(&file, b"x"), errno(Errno::EINVAL));
    assert_eq!(file.file().truncate(4096), Err(Errno::EINVAL));
    assert_eq!(file.file().truncate(4 << 20), Ok(()));
    assert_eq!(read(&file, 3), Ok(vec![0; 3]));
    assert_eq!(file.stat().block_size, 2 << 20);
    drop(file);
    assert_eq!(anon_frames(), before);
    drop(world);
}

#[test]
fn fallocate_refuses_modes_that_are_not_there() {
    let _world = World::new();
    let file = memfd(false);
    assert_eq!(
        file.file().allocate(allocate::PUNCH_HOLE, 0, 1),
        Err(Errno::EOPNOTSUPP)
    );
    assert_eq!(file.file().allocate(0x10, 0, 1), Err(Errno::EOPNOTSUPP));
    assert_eq!(file.file().allocate(allocate::KEEP_SIZE, 0, 9000), Ok(()));
    assert_eq!((file.file().end(), file.stat().blocks), (0, 24));
    let (_reads, writes) = nonblocking_pipe();
    assert_eq!(writes.file().allocate(0, 0, 1), Err(Errno::ENODEV));
}

fn sockets(kind: Kind) -> [Arc<OpenFile>; 2] {
    SocketFile::pair(kind, OpenFlags::NONBLOCK)
}

fn socket_of(open: &OpenFile) -> &Arc<Socket> {
    open.as_file::<SocketFile>().expect("a socket").socket()
}

/// A message with this file and nothing else but its bytes.
fn with(file: Arc<OpenFile>) -> Message<'static> {
    Message {
        files: vec![file],
        ..Message::default()
    }
}

#[test]
fn sockets_carry_bytes_both_ways_until_one_is_gone() {
    let _world = World::new();
    let [one, other] = sockets(Kind::Stream);
    assert_eq!(read(&one, 5), errno(Errno::EAGAIN));
    assert_eq!(write(&one, b"ping"), Ok(4));
    assert_eq!(write(&other, b"pong"), Ok(4));
    assert_eq!(read(&other, 2), Ok(b"pi".to_vec()));
    assert_eq!(read(&other, 9), Ok(b"ng".to_vec()));
    assert_eq!(read(&one, 9), Ok(b"pong".to_vec()));
    drop(other);
    assert_eq!(read(&one, 9), Ok(Vec::new()));
    assert_eq!(write(&one, b"x"), errno(Errno::EPIPE));
    assert!(one.readiness().contains(Readiness::HUP | Readiness::IN));
}

#[test]
fn messages_stay_whole_and_lose_what_does_not_fit() {
    let _world = World::new();
    let [one, other] = sockets(Kind::Datagram);
    assert_eq!(write(&one, b"first"), Ok(5));
    assert_eq!(write(&one, b""), Ok(0));
    assert_eq!(write(&one, b"third"), Ok(5));
    assert_eq!(read(&other, 2), Ok(b"fi".to_vec()));
    assert_eq!(read(&other, 9), Ok(Vec::new()));
    assert_eq!(read(&other, 9), Ok(b"third".to_vec()));
    assert_eq!(read(&other, 9), errno(Errno::EAGAIN));
    assert_eq!(write(&one, &vec![0; 1 << 20]), errno(Errno::EMSGSIZE));
    drop(other);
    assert_eq!(write(&one, b"x"), errno(Errno::ECONNREFUSED));
}

#[test]
fn files_end_what_one_read_of_a_stream_gives() {
    let _world = World::new();
    let [one, other] = sockets(Kind::Stream);
    let (reads, writes) = nonblocking_pipe();
    let (sender, receiver) = (socket_of(&one), socket_of(&other));
    assert_eq!(write(&one, b"before"), Ok(6));
    let sent = sender.send(&mut Source::kernel(b"with"), with(writes), true);
    assert_eq!(sent, Ok(4));
    assert_eq!(write(&one, b"after"), Ok(5));
    let mut bytes = [0; 20];
    let mut to = Sink::kernel(&mut bytes);
    let with = receiver.receive(&mut to, Receive::default()).unwrap();
    assert_eq!(
        (to.done(), with.files.len()),
        (10, 1),
        "up to the end of the message with files"
    );
    let mut to = Sink::kernel(&mut bytes);
    let plain = receiver.receive(&mut to, Receive::default()).unwrap();
    assert_eq!((to.done(), plain.files.len()), (5, 0));
    assert_eq!(write(&with.files[0], b"through"), Ok(7));
    drop(with);
    assert_eq!(read(&reads, 9), Ok(b"through".to_vec()));
    assert_eq!(read(&reads, 9), Ok(Vec::new()), "the only writer is closed");
}

#[test]
fn files_that_nobody_receives_are_closed_with_the_sockets() {
    let _world = World::new();
    let [one, other] = sockets(Kind::SeqPacket);
    let (reads, writes) = nonblocking_pipe();
    let sender = socket_of(&one);
    let sent = sender.send(&mut Source::kernel(b"x"), with(writes), true);
    assert_eq!(sent, Ok(1));
    assert_eq!(read(&reads, 1), errno(Errno::EAGAIN));
    drop(other);
    assert_eq!(read(&reads, 1), Ok(Vec::new()));
}
