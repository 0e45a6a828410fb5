//! Waiting for several files: poll and epoll.

mod common;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use common::{World, eventually, returned};
use kernel::abi::errno::Errno;
use kernel::file::epoll::{EpollFile, Event, How};
use kernel::file::eventfd::EventFile;
use kernel::file::pipe::{Pipe, PipeFile};
use kernel::file::poll::{self, Watched};
use kernel::file::readiness::Listener;
use kernel::file::{File, Notifier, OpenFile, OpenFlags, Readiness, Sink, Source};
use kernel::syscall::Error;
use kernel::task::spawn::{JoinHandle, spawn_returning};
use kernel::task::{State, WaitReason};

fn pipe() -> (Arc<OpenFile>, Arc<OpenFile>) {
    Pipe::pair(OpenFlags::NONBLOCK)
}

fn put(open: &OpenFile) {
    assert_eq!(open.write(&mut Source::kernel(b"x"), false), Ok(1));
}

fn take(open: &OpenFile) {
    assert_eq!(open.read(&mut Sink::kernel(&mut [0]), false), Ok(1));
}

fn watched(files: &[(&Arc<OpenFile>, Readiness)]) -> Vec<Watched> {
    files
        .iter()
        .map(|(file, wanted)| Watched {
            file: Some(Arc::clone(file)),
            wanted: *wanted,
            found: Readiness::empty(),
        })
        .collect()
}

const NOW: Option<Duration> = Some(Duration::ZERO);

#[test]
fn polling_finds_what_is_wanted_and_no_more() {
    let _world = World::new();
    let (reads, writes) = pipe();
    let mut all = watched(&[(&reads, Readiness::IN), (&writes, Readiness::OUT)]);
    assert_eq!(poll::wait(&mut all, NOW), Ok(1));
    assert_eq!((all[0].found, all[1].found), (Readiness::empty(), Readiness::OUT));
    put(&writes);
    assert_eq!(poll::wait(&mut all, NOW), Ok(2));
    let mut nothing = watched(&[(&writes, Readiness::IN)]);
    assert_eq!(poll::wait(&mut nothing, Some(Duration::from_millis(1))), Ok(0));
}

#[test]
fn a_poll_waits_for_any_of_its_files_again_and_again() {
    let world = World::new();
    let (first, first_in) = pipe();
    let (second, second_in) = pipe();
    let poller = world.spawn("poller", move || {
        let mut taken = 0;
        while taken < 400 {
            let mut all = watched(&[(&first, Readiness::IN), (&second, Readiness::IN)]);
            assert_ne!(poll::wait(&mut all, None), Ok(0));
            for (one, file) in all.iter().zip([&first, &second]) {
                if one.found.contains(Readiness::IN) {
                    take(file);
                    taken += 1;
                }
            }
        }
    });
    let writers: Vec<_> = [first_in, second_in]
        .into_iter()
        .map(|file| {
            world.spawn("writer", move || {
                for _ in 0..200 {
                    put(&file);
                    kernel::task::yield_now();
                }
            })
        })
        .collect();
    returned(poller);
    writers.into_iter().for_each(returned);
}

#[test]
fn a_poll_is_woken_by_the_end_of_the_other_side() {
    let world = World::new();
    let (reads, writes) = pipe();
    let poller = world.spawn("poller", move || {
        let mut all = watched(&[(&reads, Readiness::IN | Readiness::UNASKED)]);
        poll::wait(&mut all, None).map(|ready| (ready, all[0].found))
    });
    let task = Arc::clone(poller.task());
    eventually("it waits", || task.state() == State::Parked);
    drop(writes);
    assert_eq!(returned(poller), Ok((1, Readiness::HUP)));
}

#[test]
fn a_poll_of_a_task_that_is_killed_ends() {
    let world = World::new();
    let (reads, _writes) = pipe();
    let poller = world.spawn("poller", move || {
        poll::wait(&mut watched(&[(&reads, Readiness::IN)]), None)
    });
    let task = Arc::clone(poller.task());
    eventually("it waits", || task.state() == State::Parked);
    task.kill();
    assert!(matches!(returned(poller), Err(Error::Restart(_))));
}

#[test]
fn a_reader_that_finds_another_one_waits_for_what_that_leaves() {
    let world = World::new();
    let (reads, writes) = Pipe::pair(OpenFlags::empty());
    assert_eq!(writes.write(&mut Source::kernel(b"xy"), false), Ok(2));
    let first = reads.as_file::<PipeFile>().expect("an end of a pipe").pipe();
    let mut second = None;
    let taken = first.offer(false, 1, |bytes| {
        assert_eq!(bytes, b"x");
        let reads = Arc::clone(&reads);
        let reader = world.spawn("second", move || {
            let mut bytes = [0; 2];
            let read = reads.read(&mut Sink::kernel(&mut bytes), false);
            (read, bytes[0])
        });
        let task = Arc::clone(reader.task());
        eventually("it waits", || task.state() == State::Parked);
        second = Some(reader);
        Ok(1)
    });
    assert_eq!(taken, Ok(1));
    assert_eq!(returned(second.expect("it was started")), (Ok(1), b'y'));
}

/// An epoll, and what it reports.
struct Epoll(Arc<EpollFile>);

impl Epoll {
    fn new() -> Self {
        Self(EpollFile::new())
    }

    fn add(&self, fd: u64, file: &Arc<OpenFile>, events: u32) -> Result<(), Errno> {
        self.0.add(fd, file, Event { events, data: fd })
    }

    fn wait(&self) -> Vec<(u64, u32)> {
        let found = std::cell::RefCell::new(Vec::new());
        let waited = self.0.wait(10, NOW, |events| {
            found
                .borrow_mut()
                .extend(events.iter().map(|event| (event.data, event.events)));
            Ok(())
        });
        assert_eq!(waited, Ok(found.borrow().len()));
        found.into_inner()
    }
}

const IN: u32 = Readiness::IN.bits();
const OUT: u32 = Readiness::OUT.bits();
const HUP: u32 = Readiness::HUP.bits();

#[test]
fn level_lasts_edge_comes_once_and_one_shot_until_it_is_changed() {
    let _world = World::new();
    let (reads, writes) = pipe();
    let epoll = Epoll::new();
    epoll.add(1, &reads, IN).unwrap();
    assert_eq!(epoll.wait(), []);
    put(&writes);
    assert_eq!(epoll.wait(), [(1, IN)]);
    assert_eq!(epoll.wait(), [(1, IN)]);
    let change = |how: How| {
        let events = IN | how.bits();
        epoll.0.modify(1, &reads, Event { events, data: 1 }).unwrap();
    };
    change(How::EDGE);
    assert_eq!(
        epoll.wait(),
        [(1, IN)],
        "what is so when it is changed is reported"
    );
    assert_eq!(epoll.wait(), []);
    put(&writes);
    assert_eq!(epoll.wait(), [(1, IN)]);
    take(&reads);
    assert_eq!(epoll.wait(), []);
    change(How::ONE_SHOT);
    assert_eq!(epoll.wait(), [(1, IN)]);
    put(&writes);
    assert_eq!(epoll.wait(), []);
    change(How::ONE_SHOT);
    assert_eq!(epoll.wait(), [(1, IN)]);
}

#[test]
fn everybody_in_the_line_gets_a_turn() {
    let _world = World::new();
    let epoll = Epoll::new();
    let pipes = [pipe(), pipe(), pipe()];
    for (fd, (reads, writes)) in (1..).zip(&pipes) {
        epoll.add(fd, reads, IN).unwrap();
        put(writes);
    }
    let first = |epoll: &Epoll| {
        let found = std::cell::Cell::new(0);
        let take = |events: &[Event]| {
            found.set(events[0].data);
            Ok(())
        };
        assert_eq!(epoll.0.wait(1, NOW, take), Ok(1));
        found.get()
    };
    assert_eq!(
        [first(&epoll), first(&epoll), first(&epoll), first(&epoll)],
        [1, 2, 3, 1]
    );
}

#[test]
fn a_file_that_is_closed_for_good_leaves_and_its_copies_keep_it() {
    let _world = World::new();
    let (reads, writes) = pipe();
    let epoll = Epoll::new();
    epoll.add(1, &reads, IN).unwrap();
    put(&writes);
    let copy = Arc::clone(&reads);
    drop(reads);
    assert_eq!(epoll.wait(), [(1, IN)]);
    drop(copy);
    assert_eq!(epoll.wait(), []);
}

#[test]
fn an_epoll_of_an_epoll_is_ready_when_that_is_and_a_ring_is_refused() {
    let _world = World::new();
    let (reads, writes) = pipe();
    let (inner, outer) = (Epoll::new(), Epoll::new());
    let inner_open = OpenFile::new(Arc::clone(&inner.0) as Arc<_>, OpenFlags::RDWR);
    let outer_open = OpenFile::new(Arc::clone(&outer.0) as Arc<_>, OpenFlags::RDWR);
    inner.add(1, &reads, IN).unwrap();
    outer.add(2, &inner_open, IN).unwrap();
    assert_eq!(outer.wait(), []);
    put(&writes);
    assert_eq!(outer.wait(), [(2, IN)]);
    assert_eq!(inner.add(3, &outer_open, IN), Err(Errno::ELOOP));
    take(&reads);
    assert_eq!(outer.wait(), []);
}

#[test]
fn an_epoll_refuses_what_it_cannot_watch() {
    let _world = World::new();
    let epoll = Epoll::new();
    let (reads, writes) = pipe();
    epoll.add(1, &reads, IN).unwrap();
    assert_eq!(epoll.add(1, &reads, IN), Err(Errno::EEXIST));
    assert_eq!(
        epoll.add(2, &reads, IN),
        Ok(()),
        "another number for the same file"
    );
    assert_eq!(epoll.0.remove(1, &writes), Err(Errno::ENOENT));
    assert_eq!(epoll.0.remove(1, &reads), Ok(()));
    assert_eq!(epoll.0.remove(1, &reads), Err(Errno::ENOENT));
    let regular = kernel::file::tmpfs::memfd(b"x", false, false, true).unwrap();
    assert_eq!(epoll.add(3, &regular, IN), Err(Errno::EPERM));
}

#[test]
fn errors_and_ends_are_reported_unasked() {
    let _world = World::new();
    let (reads, writes) = pipe();
    let epoll = Epoll::new();
    epoll.add(1, &reads, 0).unwrap();
    drop(writes);
    assert_eq!(epoll.wait(), [(1, HUP)]);
}

#[test]
fn a_wait_is_ended_by_an_event_and_events_that_could_not_be_given_stay() {
    let world = World::new();
    let counter = OpenFile::new(EventFile::new(0, false), OpenFlags::RDWR);
    let epoll = Epoll::new();
    epoll.add(1, &counter, IN | How::EDGE.bits()).unwrap();
    let waits = Arc::clone(&epoll.0);
    let waiter = world.spawn("waiter", move || {
        waits.wait(1, None, |_| Err(Error::Errno(Errno::EFAULT)))
    });
    let task = Arc::clone(waiter.task());
    eventually("it waits", || task.state() == State::Parked);
    assert_eq!(
        counter.write(&mut Source::kernel(&1_u64.to_ne_bytes()), false),
        Ok(8)
    );
    assert_eq!(returned(waiter), Err(Error::Errno(Errno::EFAULT)));
    assert_eq!(epoll.wait(), [(1, IN)], "it is ready still");
    assert_eq!(epoll.wait(), []);
    let both = Epoll::new();
    both.add(2, &counter, IN | OUT).unwrap();
    assert_eq!(both.wait(), [(2, IN | OUT)]);
}

static NOTHING: WaitReason = WaitReason::new("nothing");

type Job = Box<dyn FnOnce() + Send>;

/// A file that is always readable. The next time that somebody looks, something else happens first.
struct Interrupted {
    notifier: Notifier,
    first: Mutex<Option<Job>>,
}

impl Interrupted {
    fn new() -> (Arc<Self>, Arc<OpenFile>) {
        let file = Arc::new(Self {
            notifier: Notifier::new(&NOTHING),
            first: Mutex::new(None),
        });
        (Arc::clone(&file), OpenFile::new(file, OpenFlags::RDWR))
    }

    /// Has a task do something while somebody looks, who goes on when it has ended or waits.
    fn do_meanwhile<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Arc<Mutex<Option<JoinHandle<T>>>> {
        let started = Arc::new(Mutex::new(None));
        let its = Arc::clone(&started);
        *self.first.lock().unwrap() = Some(Box::new(move || {
            *its.lock().unwrap() = Some(meanwhile(job));
        }));
        started
    }
}

impl File for Interrupted {
    fn label(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        f.write_str("interrupted")
    }

    fn readiness(&self, _status: OpenFlags) -> Readiness {
        let first = self.first.lock().unwrap().take();
        if let Some(first) = first {
            first();
        }
        Readiness::IN
    }

    fn notifier(&self) -> Option<&Notifier> {
        Some(&self.notifier)
    }
}

/// A task that has done something when this returns, or waits for the caller.
fn meanwhile<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let task = spawn_returning("meanwhile", None, job).expect("the host has threads");
    eventually("it has done it or waits", || {
        task.task().state() != State::Runnable
    });
    task
}

fn result<T>(started: &Mutex<Option<JoinHandle<T>>>) -> T {
    returned(started.lock().unwrap().take().expect("somebody looked"))
}

#[test]
fn what_lasts_is_found_by_all_who_wait_also_while_one_looks_at_it() {
    let _world = World::new();
    let (file, open) = Interrupted::new();
    let epoll = Epoll::new();
    epoll.add(1, &open, IN).unwrap();
    let waits = Arc::clone(&epoll.0);
    let other = file.do_meanwhile(move || waits.wait(1, None, |_| Ok(())));
    assert_eq!(epoll.wait(), [(1, IN)]);
    assert_eq!(result(&other), Ok(1));
}

#[test]
fn what_lasts_is_ready_for_an_outer_epoll_also_while_somebody_looks_at_it() {
    let _world = World::new();
    let (file, open) = Interrupted::new();
    let (inner, outer) = (Epoll::new(), Epoll::new());
    let inner_open = OpenFile::new(Arc::clone(&inner.0) as Arc<_>, OpenFlags::RDWR);
    inner.add(1, &open, IN).unwrap();
    outer.add(2, &inner_open, IN).unwrap();
    let looked = file.do_meanwhile(move || outer.wait());
    assert_eq!(inner.wait(), [(1, IN)]);
    assert_eq!(result(&looked), [(2, IN)]);
}

#[test]
fn an_event_that_could_not_be_given_goes_to_another_who_waits() {
    let _world = World::new();
    let (_, open) = Interrupted::new();
    let epoll = Epoll::new();
    epoll.add(1, &open, IN | How::EDGE.bits()).unwrap();
    let other = Mutex::new(None);
    let refused = epoll.0.wait(1, None, |_| {
        let waits = Arc::clone(&epoll.0);
        *other.lock().unwrap() = Some(meanwhile(move || waits.wait(1, None, |_| Ok(()))));
        Err(Error::Errno(Errno::EFAULT))
    });
    assert_eq!(refused, Err(Error::Errno(Errno::EFAULT)));
    assert_eq!(result(&other), Ok(1));
}

#[test]
fn one_shot_that_is_wanted_again_while_it_is_reported_comes_again() {
    let _world = World::new();
    let (file, open) = Interrupted::new();
    let epoll = Epoll::new();
    let events = IN | How::ONE_SHOT.bits();
    epoll.add(1, &open, events).unwrap();
    let (changes, its) = (Arc::clone(&epoll.0), Arc::clone(&open));
    let modified = file.do_meanwhile(move || changes.modify(1, &its, Event { events, data: 2 }));
    let mut found = epoll.wait();
    assert_eq!(result(&modified), Ok(()));
    found.extend(epoll.wait());
    assert_eq!(found.last(), Some(&(2, IN)), "all of {found:?}");
}

/// Told by an epoll; goes on once nobody has that but perhaps who tells.
struct UntilClosed {
    epoll: Weak<EpollFile>,
    told: AtomicBool,
}

impl Listener for UntilClosed {
    fn notify(&self, _changed: Readiness) {
        self.told.store(true, Ordering::Release);
        while self.epoll.strong_count() > 1 {
            std::thread::yield_now();
        }
    }
}

#[test]
fn an_epoll_may_be_closed_while_a_file_tells_it() {
    let world = World::new();
    let counter = OpenFile::new(EventFile::new(0, false), OpenFlags::RDWR);
    let epoll = Epoll::new();
    epoll.add(1, &counter, IN).unwrap();
    let listener = Arc::new(UntilClosed {
        epoll: Arc::downgrade(&epoll.0),
        told: AtomicBool::new(false),
    });
    let notifier = epoll.0.notifier().expect("an epoll changes");
    notifier.add(Arc::clone(&listener) as Arc<_>).unwrap();
    let teller = world.spawn("teller", move || {
        counter.write(&mut Source::kernel(&1_u64.to_ne_bytes()), false)
    });
    eventually("the epoll is told", || listener.told.load(Ordering::Acquire));
    drop(epoll);
    assert_eq!(returned(teller), Ok(8));
}
