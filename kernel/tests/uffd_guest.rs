//! The channel at stage 2 without a hypervisor: any memory of a guest can be served, as the kernel inside a guest does.

mod common;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use common::{eventually, returned, until_it_waits};
use kernel::arch::host::{Config, SoftMachine};
use kernel::mm::addr::{GuestPhysAddr, PAGE_SIZE};
use kernel::mm::fault::{Access, BusError, FaultError, Origin};
use kernel::mm::range::GuestRange;
use kernel::task::spawn::{JoinHandle, spawn_returning};
use kernel::task::{self, TaskId};
use kernel::uffd::diagnosis::{self, Page};
use kernel::uffd::linux::message::{PAGEFAULT_FLAG_GUEST, encode};
use kernel::uffd::{
    CacheState, Delivery, Event, Features, FillMode, Flags, GuestBacking, GuestFault, Outcome, ReadError,
    Refusal, Stage, TrapKind, Uffd,
};

const AT: GuestPhysAddr = GuestPhysAddr::new(0x20_0000);

/// Memory whose pages are delegated until they are filled; `calls` counts what was asked of it.
#[derive(Default)]
struct Fake {
    filled: Mutex<BTreeSet<u64>>,
    calls: AtomicU64,
}

impl Fake {
    fn fill(&self, range: GuestRange) -> (u64, Result<(), Refusal>) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mut at = range.start;
        while at < range.end {
            if !self.filled.lock().expect("nobody panics").insert(at.as_u64()) {
                return (at - range.start, Err(Refusal::Exists));
            }
            at = at + PAGE_SIZE;
        }
        (range.len(), Ok(()))
    }
}

impl GuestBacking for Fake {
    fn delegates(&self, addr: GuestPhysAddr) -> bool {
        let page = addr.align_down(PAGE_SIZE).as_u64();
        !self.filled.lock().expect("nobody panics").contains(&page)
    }

    fn copy(&self, to: GuestPhysAddr, source: &[u8]) -> (u64, Result<(), Refusal>) {
        self.fill(GuestRange::new(to, to + source.len() as u64))
    }

    fn zeropage(&self, range: GuestRange) -> (u64, Result<(), Refusal>) {
        self.fill(range)
    }

    fn cont(&self, range: GuestRange) -> (u64, Result<(), Refusal>) {
        self.fill(range)
    }

    fn poison(&self, range: GuestRange) -> (u64, Result<(), Refusal>) {
        self.fill(range)
    }
}

fn context(fake: &Arc<Fake>, flags: Flags, features: Features) -> Arc<Uffd> {
    let weak: Weak<Fake> = Arc::downgrade(fake);
    Arc::new(Uffd::for_guest(weak, flags, features, Delivery::Queue))
}

fn page(number: u64) -> GuestPhysAddr {
    AT + number * PAGE_SIZE
}

fn pages(first: u64, count: u64) -> GuestRange {
    GuestRange::new(page(first), page(first + count))
}

/// An access by a task of its own, until its page is not delegated any more.
fn touch(
    fake: &Arc<Fake>,
    uffd: &Arc<Uffd>,
    addr: GuestPhysAddr,
    access: Access,
    origin: Origin,
) -> JoinHandle<Result<(), FaultError>> {
    let (fake, ctx) = (Arc::clone(fake), Arc::clone(uffd.ctx()));
    let work = move || {
        let fault = GuestFault {
            addr,
            access,
            cache: CacheState::Absent,
            origin,
        };
        while fake.delegates(addr) {
            ctx.guest_fault(&fault, &task::current(), || fake.delegates(addr))?;
        }
        Ok(())
    };
    spawn_returning("guest", None, work).expect("the host has threads")
}

fn load(fake: &Arc<Fake>, uffd: &Arc<Uffd>, number: u64) -> JoinHandle<Result<(), FaultError>> {
    touch(fake, uffd, page(number), Access::Read, Origin::Kernel)
}

fn message(addr: GuestPhysAddr, write: bool, thread: Option<TaskId>) -> Result<Event, ReadError> {
    Ok(Event::GuestFault {
        kind: TrapKind::Missing,
        write,
        addr,
        thread,
    })
}

#[test]
fn a_fault_is_told_once_and_an_operation_on_its_page_ends_the_wait() {
    let _machine = SoftMachine::start(Config::default());
    let fake = Arc::new(Fake::default());
    let uffd = context(&fake, Flags::empty(), Features::empty());
    let stage2 = uffd.stage2().expect("it serves a guest");
    let (first, second) = (load(&fake, &uffd, 1), load(&fake, &uffd, 2));
    until_it_waits(first.task());
    until_it_waits(second.task());
    let mut told = [uffd.try_read_event(), uffd.try_read_event()];
    told.sort_by_key(|event| match event {
        Ok(Event::GuestFault { addr, .. }) => addr.as_u64(),
        event => panic!("{event:?}"),
    });
    assert_eq!(
        told,
        [message(page(1), false, None), message(page(2), false, None)]
    );
    assert_eq!(uffd.try_read_event(), Err(ReadError::WouldBlock));
    assert_eq!(stage2.zeropage(pages(1, 1), FillMode::empty()), Outcome::Done);
    assert_eq!(returned(first), Ok(()));
    assert!(second.task().fault.is_waiting(), "another page");
    let partial = Outcome::Partial {
        bytes: PAGE_SIZE,
        why: Refusal::Exists,
    };
    assert_eq!(stage2.cont(pages(0, 2), FillMode::empty()), partial);
    assert_eq!(stage2.cont(pages(2, 1), FillMode::DONTWAKE), Outcome::Done);
    assert!(second.task().fault.is_waiting());
    assert_eq!(stage2.wake(pages(2, 1)), Ok(()));
    assert_eq!(returned(second), Ok(()));
}

#[test]
fn a_bit_that_is_cleared_before_the_fault_is_queued_loses_no_wake_up() {
    let _machine = SoftMachine::start(Config::default());
    let fake = Arc::new(Fake::default());
    let uffd = context(&fake, Flags::empty(), Features::empty());
    let fault = GuestFault {
        addr: page(0),
        access: Access::Read,
        cache: CacheState::Absent,
        origin: Origin::Kernel,
    };
    let ctx = Arc::clone(uffd.ctx());
    // Whoever fills and wakes does so when the fault is queued already, or just before: either way the task goes on.
    let answered = spawn_returning("guest", None, move || {
        ctx.guest_fault(&fault, &task::current(), || false)
    });
    assert_eq!(returned(answered.expect("the host has threads")), Ok(()));
    assert_eq!(uffd.ctx().outstanding_faults().len(), 0);
    assert_eq!(
        uffd.try_read_event(),
        Err(ReadError::WouldBlock),
        "its message is gone"
    );
}

#[test]
fn addresses_and_threads_are_told_as_the_features_say() {
    let _machine = SoftMachine::start(Config::default());
    let fake = Arc::new(Fake::default());
    let uffd = context(
        &fake,
        Flags::empty(),
        Features::EXACT_ADDRESS | Features::THREAD_ID,
    );
    let vcpu = touch(&fake, &uffd, page(3) + 0x123, Access::Write, Origin::Kernel);
    until_it_waits(vcpu.task());
    let id = vcpu.task().id();
    let told = uffd.try_read_event();
    assert_eq!(told, message(page(3) + 0x123, true, Some(id)));
    let bytes = encode(&told.expect("it is a message"), |_| unreachable!("no fork"));
    let word = |i: usize| u64::from_le_bytes(bytes[i * 8..][..8].try_into().expect("8 bytes"));
    assert_eq!(
        [word(0), word(1), word(2), word(3)],
        [
            0x12,
            PAGEFAULT_FLAG_GUEST | 1,
            page(3).as_u64() + 0x123,
            id.as_u64()
        ]
    );
    let stage2 = uffd.stage2().expect("it serves a guest");
    assert_eq!(stage2.copy(page(3), &[0; 4096], FillMode::empty()), Outcome::Done);
    assert_eq!(returned(vcpu), Ok(()));
}

#[test]
fn a_context_that_answers_with_bus_errors_asks_nobody() {
    let _machine = SoftMachine::start(Config::default());
    let fake = Arc::new(Fake::default());
    let wanting = context(&fake, Flags::empty(), Features::SIGBUS);
    let wanted = Err(FaultError::BusError(BusError::Wanted));
    assert_eq!(returned(load(&fake, &wanting, 0)), wanted);
    let narrow = context(&fake, Flags::USER_MODE_ONLY, Features::empty());
    let refused = Err(FaultError::BusError(BusError::KernelAccess));
    assert_eq!(returned(load(&fake, &narrow, 0)), refused);
    let own = touch(&fake, &narrow, page(0), Access::Read, Origin::Task);
    until_it_waits(own.task());
    assert_eq!(narrow.try_read_event(), message(page(0), false, None));
    narrow.close();
    assert_eq!(
        returned(own),
        Err(FaultError::MonitorGone),
        "there is no plain memory behind it"
    );
}

#[test]
fn a_killed_waiter_goes_and_its_message_with_it() {
    let _machine = SoftMachine::start(Config::default());
    let fake = Arc::new(Fake::default());
    let uffd = context(&fake, Flags::empty(), Features::empty());
    let vcpu = load(&fake, &uffd, 0);
    until_it_waits(vcpu.task());
    vcpu.task().kill();
    eventually("it has ended", || vcpu.task().state() == task::State::Ended);
    assert_eq!(uffd.try_read_event(), Err(ReadError::WouldBlock));
    assert_eq!(uffd.ctx().outstanding_faults().len(), 0);
    drop(vcpu.join());
}

#[test]
fn who_waits_is_listed_with_a_guest_physical_address() {
    let _machine = SoftMachine::start(Config::default());
    let fake = Arc::new(Fake::default());
    let uffd = context(&fake, Flags::empty(), Features::empty());
    let vcpu = load(&fake, &uffd, 7);
    until_it_waits(vcpu.task());
    let row = |page| {
        let rows = diagnosis::waiting();
        let row = rows
            .iter()
            .find(|row| row.ctx == uffd.ctx().id())
            .expect("it waits");
        assert_eq!((row.stage, row.page), (Stage::Two, page));
        row.to_string()
    };
    let line = row(Page::Unresolved);
    assert!(line.contains("waits at guest-physical 0x207000"), "{line}");
    // Filled behind the context's back: the diagnosis says what was forgotten.
    let _ = fake.fill(pages(7, 1));
    row(Page::Resolved);
    let stage2 = uffd.stage2().expect("it serves a guest");
    assert_eq!(stage2.wake(pages(7, 1)), Ok(()));
    assert_eq!(returned(vcpu), Ok(()));
}

#[test]
fn requests_that_make_no_sense_never_reach_the_memory() {
    let _machine = SoftMachine::start(Config::default());
    let fake = Arc::new(Fake::default());
    let uffd = context(&fake, Flags::empty(), Features::empty());
    let stage2 = uffd.stage2().expect("it serves a guest");
    let none = FillMode::empty();
    assert!(matches!(
        stage2.copy(page(0), &[0; 100], none),
        Outcome::Refused(Refusal::Range(_))
    ));
    for odd in [pages(0, 0), GuestRange::new(page(0) + 8, page(1))] {
        for outcome in [
            stage2.zeropage(odd, none),
            stage2.cont(odd, none),
            stage2.poison(odd, none),
        ] {
            assert!(
                matches!(outcome, Outcome::Refused(Refusal::Range(_))),
                "{outcome:?}"
            );
        }
        assert!(stage2.wake(odd).is_err());
    }
    let refused = Outcome::Refused(Refusal::UnknownMode);
    assert_eq!(stage2.cont(pages(0, 1), FillMode::WP), refused);
    assert_eq!(fake.calls.load(Ordering::Relaxed), 0);
    drop(fake);
    let gone = Outcome::Refused(Refusal::SpaceGone);
    assert_eq!(stage2.zeropage(pages(0, 1), none), gone);
}
