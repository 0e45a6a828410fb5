//! Accesses that the kernel makes on a task's behalf, row by row as Linux has them (checked there on 6.18): which become
//! messages, and which fail. Each test is named after what it claims.

mod common;

use std::sync::Arc;

use common::{
    RW, World, anon_frames, eventually, missing, object_world, page, part, populate, registered_with,
    returned, source, until_it_waits, word, write_protected,
};
use kernel::arch::host::{Config, Mode, task_memory};
use kernel::mm::addr::{PAGE_SIZE, USER_TOP, VirtAddr};
use kernel::mm::cache::Object;
use kernel::mm::fault::{Access, BusError, FaultError, Origin};
use kernel::mm::frame::{Kind, allocator};
use kernel::mm::memtype::hugetlb::HUGETLB;
use kernel::mm::memtype::secret::SECRET;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::pt::Prot;
use kernel::mm::range::VirtRange;
use kernel::mm::space::{Memory, Privilege, Space};
use kernel::mm::uaccess::{self, AccessError};
use kernel::task::spawn::{JoinHandle, spawn_returning};
use kernel::uffd::linux::{OnBehalf, on_behalf};
use kernel::uffd::{Event, Features, FillMode, Flags, Modes, Outcome, ReadError, Uffd};

const P: u64 = PAGE_SIZE;
const NOW: FillMode = FillMode::empty();
const BOTH: Modes = Modes::MISSING.union(Modes::WP);
const NOTHING: Result<Event, ReadError> = Err(ReadError::WouldBlock);
const KERNEL: FaultError = FaultError::BusError(BusError::KernelAccess);
const NO_RETRY: FaultError = FaultError::BusError(BusError::NoRetry);

/// What the kernel does for a task, by the system call that does it.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Call {
    /// read(2) into the page, or any result that is stored there.
    ReadInto,
    /// write(2) from the page.
    WriteFrom,
    PopulateRead,
    PopulateWrite,
    Mlock,
    /// Also vmsplice.
    ProcessVmReadv,
    /// Also an O_DIRECT read.
    ProcessVmWritev,
    FutexWait,
    ProcMemPread,
}

const CALLS: [Call; 9] = [
    Call::ReadInto,
    Call::WriteFrom,
    Call::PopulateRead,
    Call::PopulateWrite,
    Call::Mlock,
    Call::ProcessVmReadv,
    Call::ProcessVmWritev,
    Call::FutexWait,
    Call::ProcMemPread,
];

impl Call {
    fn make(self, space: &Space, addr: VirtAddr) -> Result<(), AccessError> {
        let word = VirtRange::new(addr, addr + 8);
        match self {
            Self::ReadInto => uaccess::on_behalf(|| uaccess::write(addr, &[7; 8])),
            Self::WriteFrom => uaccess::on_behalf(|| uaccess::read(addr, &mut [0; 8])),
            Self::PopulateRead => space.populate(word, Access::Read),
            Self::PopulateWrite | Self::FutexWait => space.populate(word, Access::Write),
            Self::Mlock => space.populate_to_lock(word),
            Self::ProcessVmReadv => space.read_bytes(addr, &mut [0; 8], Origin::Kernel),
            Self::ProcessVmWritev => space.write_bytes(addr, &[7; 8], Origin::Kernel),
            Self::ProcMemPread => space.read_bytes(addr, &mut [0; 8], Origin::Debugger),
        }
    }

    /// Whether it asks for the page as for a store.
    fn writes(self) -> bool {
        !matches!(
            self,
            Self::WriteFrom | Self::PopulateRead | Self::ProcessVmReadv | Self::ProcMemPread
        )
    }

    fn kind(self) -> OnBehalf {
        match self {
            Self::PopulateRead | Self::PopulateWrite => OnBehalf::Populate,
            Self::Mlock => OnBehalf::Lock,
            Self::ProcMemPread => OnBehalf::ProcMem,
            _ => OnBehalf::Copy,
        }
    }

    /// In a task of the space.
    fn spawn(self, world: &World, addr: VirtAddr) -> JoinHandle<Result<(), AccessError>> {
        let space = Arc::clone(&world.space);
        world.spawn("caller", move || self.make(&space, addr))
    }

    fn waits(self) -> bool {
        self != Self::ProcMemPread
    }
}

fn opened(world: &World, range: VirtRange, flags: Flags, features: Features, modes: Modes) -> Uffd {
    let uffd = Uffd::with_flags(&world.space, flags, features);
    uffd.register(range, modes).expect("it can");
    uffd
}

/// Adds one page to a world, missing, of a context for user mode only.
fn user_mode_only(world: World) -> (World, Uffd, VirtRange) {
    let range = world.map(1, RW);
    let uffd = opened(
        &world,
        range,
        Flags::USER_MODE_ONLY,
        Features::empty(),
        Modes::MISSING,
    );
    (world, uffd, range)
}

/// A world with one page that holds the word 1 and is protected.
fn protected(flags: Flags) -> (World, Uffd, VirtRange) {
    let world = World::new();
    let range = world.map(1, RW);
    populate(&world, range);
    let uffd = opened(&world, range, flags, Features::empty(), Modes::WP);
    assert_eq!(uffd.write_protect(range), Ok(()));
    (world, uffd, range)
}

/// The calls that can wait for a page.
fn waiting() -> impl Iterator<Item = Call> {
    CALLS.into_iter().filter(|call| call.waits())
}

#[test]
fn a_missing_page_is_a_message_and_the_caller_waits_until_it_is_there() {
    for call in waiting() {
        let (world, uffd, range) = registered_with(1, Modes::MISSING, Features::empty());
        let task = call.spawn(&world, range.start + 0x10);
        until_it_waits(task.task());
        assert_eq!(
            uffd.try_read_event(),
            missing(range.start, call.writes()),
            "{call:?}"
        );
        assert_eq!(uffd.copy(range.start, &source(5, 1), P, NOW), Outcome::Done);
        assert_eq!(returned(task), Ok(()), "{call:?}");
        assert_eq!(uffd.try_read_event(), NOTHING);
    }
}

#[test]
fn a_context_for_user_mode_only_is_not_asked_and_the_call_fails() {
    for call in waiting() {
        let (world, uffd, range) = user_mode_only(World::new());
        let at = range.start + 0x10;
        let error = AccessError {
            addr: at,
            why: KERNEL,
        };
        assert_eq!(returned(call.spawn(&world, at)), Err(error), "{call:?}");
        let errno = if call == Call::Mlock { 12 } else { 14 };
        assert_eq!(on_behalf(call.kind(), KERNEL).number(), errno, "{call:?}");
        assert_eq!(uffd.try_read_event(), NOTHING);
        let task = world.spawn_load(at);
        until_it_waits(task.task());
        assert_eq!(
            uffd.try_read_event(),
            missing(range.start, false),
            "its own accesses are messages"
        );
        assert_eq!(uffd.zeropage(range, NOW), Outcome::Done);
        assert_eq!(returned(task), Ok(0));
    }
}

#[test]
fn with_sigbus_the_call_fails_the_same() {
    for call in CALLS {
        let (world, uffd, range) = registered_with(1, Modes::MISSING, Features::SIGBUS);
        let error = AccessError {
            addr: range.start,
            why: FaultError::BusError(BusError::Wanted),
        };
        assert_eq!(returned(call.spawn(&world, range.start)), Err(error), "{call:?}");
        assert_eq!(uffd.try_read_event(), NOTHING);
    }
}

#[test]
fn a_protected_page_is_a_message_for_what_stores_and_fine_for_what_loads() {
    for call in CALLS {
        let (world, uffd, range) = protected(Flags::empty());
        let task = call.spawn(&world, range.start + 0x10);
        if call.writes() {
            until_it_waits(task.task());
            assert_eq!(uffd.try_read_event(), write_protected(range.start), "{call:?}");
            assert_eq!(uffd.remove_write_protection(range, NOW), Ok(()));
        }
        assert_eq!(returned(task), Ok(()), "{call:?}");
        assert_eq!(uffd.try_read_event(), NOTHING);
        assert_eq!(world.load(range.start), Ok(1));
    }
}

#[test]
fn a_protected_page_of_a_context_for_user_mode_only_fails_what_stores() {
    for call in CALLS {
        let (world, uffd, range) = protected(Flags::USER_MODE_ONLY);
        let result = returned(call.spawn(&world, range.start)).map_err(|error| error.why);
        let expected = if call.writes() { Err(KERNEL) } else { Ok(()) };
        assert_eq!(result, expected, "{call:?}");
        assert_eq!(uffd.try_read_event(), NOTHING);
    }
}

#[test]
fn who_cannot_wait_fails_without_a_message_and_reads_protected_pages() {
    let world = World::new();
    let range = world.map(2, RW);
    populate(&world, part(range, 0, 1));
    let uffd = opened(&world, range, Flags::empty(), Features::empty(), BOTH);
    assert_eq!(uffd.write_protect(part(range, 0, 1)), Ok(()));
    let mut bytes = [0; 8];
    assert_eq!(
        world.space.read_bytes(range.start, &mut bytes, Origin::NoRetry),
        Ok(())
    );
    assert_eq!(u64::from_ne_bytes(bytes), 1);
    let failed = |why, addr| Err(AccessError { addr, why });
    assert_eq!(
        world.space.write_bytes(range.start, &bytes, Origin::NoRetry),
        failed(NO_RETRY, range.start)
    );
    let mut across = [0; 16];
    assert_eq!(
        world
            .space
            .read_bytes(page(range, 1) - 8, &mut across, Origin::NoRetry),
        failed(NO_RETRY, page(range, 1))
    );
    assert_eq!(on_behalf(OnBehalf::ProcMem, NO_RETRY).number(), 5);
    assert_eq!(
        failed(NO_RETRY, page(range, 1)),
        world.run(|| uaccess::without_waiting(|| uaccess::read(page(range, 1), &mut bytes)))
    );
    assert_eq!(uffd.try_read_event(), NOTHING);
    assert!(uffd.ctx().outstanding_faults().is_empty());
}

#[test]
fn who_cannot_wait_gets_what_no_monitor_has_to_be_asked_for() {
    let (world, uffd, range) = registered_with(2, Modes::WP, Features::empty());
    let mut bytes = [1; 8];
    assert_eq!(
        world.space.read_bytes(range.start, &mut bytes, Origin::NoRetry),
        Ok(())
    );
    assert_eq!(bytes, [0; 8]);
    assert_eq!(
        world.space.write_bytes(page(range, 1), &[3; 8], Origin::NoRetry),
        Ok(())
    );
    assert_eq!(world.load(page(range, 1)), Ok(word(3)));
    assert_eq!(uffd.try_read_event(), NOTHING);
}

#[test]
fn a_debugger_writes_to_private_memory_that_may_not_be_written_and_leaves_the_rights_as_they_are() {
    let world = World::new();
    let before = anon_frames();
    let range = world.map(3, RW);
    populate(&world, part(range, 0, 1));
    world.space.protect(range, Prot::READ).expect("it can");
    assert_eq!(world.load(page(range, 1)), Ok(0), "the page of zeros is mapped");
    for index in 0..3 {
        let to = page(range, index);
        assert_eq!(world.space.write_bytes(to, &[9; 8], Origin::Debugger), Ok(()));
        assert_eq!(world.load(to), Ok(word(9)), "page {index}");
        assert!(
            world.store(to, 1).is_err(),
            "page {index} may still not be written"
        );
    }
    let unreadable = world.map(1, RW);
    populate(&world, unreadable);
    world.space.protect(unreadable, Prot::empty()).expect("it can");
    let mut bytes = [0; 8];
    let read = world
        .space
        .read_bytes(unreadable.start, &mut bytes, Origin::Debugger);
    assert_eq!((read, u64::from_ne_bytes(bytes)), (Ok(()), 1));
    let refused = world
        .space
        .read_bytes(unreadable.start, &mut bytes, Origin::NoRetry);
    assert_eq!(refused.map_err(|error| error.why), Err(FaultError::Forbidden));
    world.space.unmap(range).expect("it can");
    world.space.unmap(unreadable).expect("it can");
    assert_eq!(anon_frames(), before);
}

#[test]
fn what_a_debugger_writes_is_not_seen_through_the_object_nor_by_a_fork() {
    let world = object_world();
    let object = Object::new(&SHMEM, P);
    let range = world.map_memory(Memory::private(&object), None, 1, RW);
    object.write(0, &[5; 8]).1.expect("there is room");
    world.space.protect(range, Prot::READ).expect("it can");
    assert_eq!(world.load(range.start), Ok(word(5)));
    assert_eq!(
        world.space.write_bytes(range.start, &[6; 8], Origin::Debugger),
        Ok(())
    );
    let child = world.space.fork().expect("there is memory");
    assert_eq!(
        world.space.write_bytes(range.start, &[7; 8], Origin::Debugger),
        Ok(())
    );
    let mut bytes = [0; 8];
    assert_eq!(child.read_bytes(range.start, &mut bytes, Origin::Kernel), Ok(()));
    assert_eq!(bytes, [6; 8]);
    assert_eq!(world.load(range.start), Ok(word(7)));
    assert_eq!(object.read(0, &mut bytes), 8);
    assert_eq!(bytes, [5; 8]);
    let shared = world.map_memory(Memory::shared(&object), None, 1, Prot::READ);
    let refused = world.space.write_bytes(shared.start, &[8; 8], Origin::Debugger);
    assert_eq!(refused.map_err(|error| error.why), Err(FaultError::Forbidden));
}

#[test]
fn secret_memory_is_reached_by_the_mappings_of_tasks_alone() {
    let world = World::new();
    let object = Object::new(&SECRET, P);
    let range = world.map_memory(Memory::shared(&object), None, 1, RW);
    assert_eq!(world.store(range.start, 5), Ok(()));
    assert_eq!(world.load(range.start), Ok(5));
    let mut bytes = [0; 8];
    let copied = world.run(|| uaccess::on_behalf(|| uaccess::read(range.start, &mut bytes)));
    assert_eq!((copied, u64::from_ne_bytes(bytes)), (Ok(()), 5));
    let refused = Err(FaultError::Forbidden);
    for origin in [Origin::Kernel, Origin::NoRetry, Origin::Debugger] {
        let space = &world.space;
        let read = space.read_bytes(range.start, &mut bytes, origin);
        assert_eq!(read.map_err(|error| error.why), refused);
        let written = space.write_bytes(range.start, &bytes, origin);
        assert_eq!(written.map_err(|error| error.why), refused);
    }
    let populated = world.space.populate(range, Access::Write);
    assert_eq!(populated.map_err(|error| error.why), refused);
}

#[test]
fn a_debugger_writes_through_protection_that_a_registration_left_behind() {
    let (world, uffd, range) = registered_with(1, Modes::WP, Features::empty());
    populate(&world, range);
    assert_eq!(uffd.write_protect(range), Ok(()));
    uffd.register(range, Modes::MISSING).expect("replaces the mode");
    world.space.protect(range, Prot::READ).expect("mapped");
    let written = world.run(|| world.space.write_bytes(range.start, &[7; 8], Origin::Debugger));
    assert_eq!(written, Ok(()));
    assert_eq!(world.load(range.start), Ok(word(7)));
}

#[test]
fn populating_ends_with_the_task() {
    let world = World::new();
    let range = world.map(4, RW);
    let populated = world.run(|| {
        kernel::task::current().kill();
        world.space.populate(range, Access::Write)
    });
    let killed = AccessError {
        addr: page(range, 1),
        why: FaultError::Killed,
    };
    assert_eq!(populated, Err(killed));
    assert_eq!(world.space.mapped_pages(), 1);
}

#[test]
fn poison_fails_every_call_and_populating_says_which() {
    for call in CALLS {
        let (world, uffd, range) = registered_with(1, Modes::MISSING, Features::empty());
        assert_eq!(uffd.poison(range, NOW), Outcome::Done);
        let error = returned(call.spawn(&world, range.start + 8)).expect_err("poisoned");
        assert_eq!(
            (error.addr, error.why),
            (range.start + 8, FaultError::Poisoned),
            "{call:?}"
        );
        let errno = match call.kind() {
            OnBehalf::Copy => 14,
            OnBehalf::Populate => 133,
            OnBehalf::Lock => 12,
            OnBehalf::ProcMem => 5,
        };
        assert_eq!(on_behalf(call.kind(), error.why).number(), errno);
    }
}

#[test]
fn guards_fail_every_call() {
    for call in CALLS {
        let world = World::new();
        let range = world.map(1, RW);
        world.space.install_guards(range).expect("anonymous memory can");
        let error = returned(call.spawn(&world, range.start)).expect_err("a guard");
        assert_eq!(error.why, FaultError::Guard, "{call:?}");
    }
}

#[test]
fn rights_and_holes_are_found_before_any_monitor_is_asked() {
    let world = World::new();
    let range = world.map(3, Prot::READ);
    world.space.unmap(part(range, 2, 1)).expect("mapped");
    let uffd = opened(
        &world,
        part(range, 0, 2),
        Flags::empty(),
        Features::empty(),
        Modes::MISSING,
    );
    for call in [
        Call::ReadInto,
        Call::PopulateWrite,
        Call::ProcessVmWritev,
        Call::FutexWait,
    ] {
        let error = returned(call.spawn(&world, range.start)).expect_err("read-only");
        assert_eq!(error.why, FaultError::Forbidden, "{call:?}");
    }
    // Whoever locks has looked for holes before.
    let calls = CALLS.into_iter().filter(|call| !matches!(call, Call::Mlock));
    for call in calls {
        let error = returned(call.spawn(&world, page(range, 2))).expect_err("a hole");
        assert_eq!(error.why, FaultError::Unmapped, "{call:?}");
        let error = returned(call.spawn(&world, USER_TOP)).expect_err("the kernel's");
        assert_eq!(error.why, FaultError::Unmapped, "{call:?}");
    }
    assert_eq!(uffd.try_read_event(), NOTHING);
}

#[test]
fn faults_of_another_space_are_its_own_contexts_and_block_the_caller() {
    for call in [Call::ProcessVmReadv, Call::ProcessVmWritev] {
        let (world, uffd, range) = registered_with(1, Modes::MISSING, Features::THREAD_ID);
        let elsewhere = Space::new(Privilege::Kernel).expect("RAM is plenty");
        let target = Arc::clone(&world.space);
        let task = spawn_returning("caller", Some(elsewhere), move || {
            call.make(&target, range.start + 0x10)
        })
        .expect("the host has threads");
        until_it_waits(task.task());
        let Ok(Event::Pagefault {
            addr, write, thread, ..
        }) = uffd.try_read_event()
        else {
            panic!("a message");
        };
        assert_eq!((addr, write), (range.start, call.writes()));
        assert_eq!(thread, Some(task.task().id()), "the caller's thread");
        assert_eq!(uffd.copy(range.start, &source(5, 1), P, NOW), Outcome::Done);
        assert_eq!(returned(task), Ok(()));
        let expected = if call.writes() { word(7) } else { word(5) };
        assert_eq!(world.load(range.start + 0x10), Ok(expected));
    }
}

#[test]
fn a_task_without_a_space_can_reach_anothers() {
    let (world, uffd, range) = registered_with(1, Modes::MISSING, Features::empty());
    let target = Arc::clone(&world.space);
    let task = spawn_returning("caller", None, move || {
        let mut bytes = [0; 4];
        target
            .read_bytes(range.start, &mut bytes, Origin::Kernel)
            .map(|()| bytes)
    })
    .expect("the host has threads");
    until_it_waits(task.task());
    assert_eq!(uffd.copy(range.start, &source(9, 1), P, NOW), Outcome::Done);
    assert_eq!(returned(task), Ok([9; 4]));
}

#[test]
fn closing_lets_a_waiting_caller_go_on_with_plain_memory() {
    for call in waiting() {
        let (world, uffd, range) = registered_with(1, Modes::MISSING, Features::empty());
        let task = call.spawn(&world, range.start);
        until_it_waits(task.task());
        drop(uffd);
        assert_eq!(returned(task), Ok(()), "{call:?}");
    }
}

#[test]
fn a_caller_that_is_woken_without_a_page_asks_again() {
    let (world, uffd, range) = registered_with(1, Modes::MISSING, Features::empty());
    let task = Call::ProcessVmReadv.spawn(&world, range.start);
    until_it_waits(task.task());
    assert_eq!(uffd.try_read_event(), missing(range.start, false));
    assert_eq!(uffd.wake(range), Ok(()));
    let mut again = NOTHING;
    eventually("the message comes again", || {
        again = uffd.try_read_event();
        again.is_ok()
    });
    assert_eq!(again, missing(range.start, false));
    assert_eq!(uffd.zeropage(range, NOW), Outcome::Done);
    assert_eq!(returned(task), Ok(()));
}

#[test]
fn user_mode_is_on_its_own_account_also_while_the_kernel_works_for_the_task() {
    let user = World::with(Config::default(), Privilege::User);
    let (world, uffd, range) = user_mode_only(user);
    let task = world.spawn("user", move || {
        uaccess::on_behalf(|| task_memory::load_word(range.start, Mode::User))
    });
    until_it_waits(task.task());
    assert_eq!(uffd.try_read_event(), missing(range.start, false));
    assert_eq!(uffd.zeropage(range, NOW), Outcome::Done);
    assert_eq!(returned(task), Some(0));
}

#[test]
fn work_on_behalf_ends_where_it_ends_also_when_nested() {
    let (world, _uffd, range) = user_mode_only(World::new());
    let read = move || uaccess::read(range.start, &mut [0; 8]).map_err(|error| error.why);
    let (inner, outer) = world.run(|| {
        uaccess::on_behalf(|| {
            let inner = uaccess::without_waiting(read);
            (inner, read())
        })
    });
    assert_eq!((inner, outer), (Err(KERNEL), Err(KERNEL)));
    let task = world.spawn("later", move || {
        let _ = uaccess::on_behalf(read);
        read()
    });
    until_it_waits(task.task());
    drop(_uffd);
    assert_eq!(returned(task), Ok(()));
}

#[test]
fn a_copys_source_is_read_on_behalf_of_its_caller() {
    let world = World::new();
    let (to, from) = (world.map(1, RW), world.map(1, RW));
    let filler = opened(&world, to, Flags::empty(), Features::empty(), Modes::MISSING);
    let owner = opened(
        &world,
        from,
        Flags::USER_MODE_ONLY,
        Features::empty(),
        Modes::MISSING,
    );
    let outcome = returned(world.spawn("copier", move || {
        filler.copy_from_task(to.start, from.start, P, NOW)
    }));
    assert_eq!(outcome, Outcome::Refused(kernel::uffd::Refusal::BadSource));
    assert_eq!(owner.try_read_event(), NOTHING);
}

#[test]
fn bytes_are_copied_across_pages_and_what_precedes_a_failure_is_done() {
    let world = World::new();
    let range = world.map(3, RW);
    let bytes: Vec<u8> = (0..2 * P as usize).map(|i| (i % 251) as u8).collect();
    let at = range.start + 100;
    assert_eq!(world.space.write_bytes(at, &bytes, Origin::Kernel), Ok(()));
    let mut back = vec![0; bytes.len()];
    assert_eq!(world.space.read_bytes(at, &mut back, Origin::Kernel), Ok(()));
    assert_eq!(back, bytes);
    let mut seen = vec![0; bytes.len()];
    world.run(|| uaccess::read(at, &mut seen)).expect("mapped");
    assert_eq!(seen, bytes, "the task sees the same");

    world.space.unmap(part(range, 2, 1)).expect("mapped");
    let mut tail = vec![0xee; 2 * P as usize];
    let error = world.space.read_bytes(at + P, &mut tail, Origin::Kernel);
    assert_eq!(
        error,
        Err(AccessError {
            addr: page(range, 2),
            why: FaultError::Unmapped
        })
    );
    let done = (P - 100) as usize;
    assert_eq!(tail[..done], bytes[P as usize..P as usize + done]);
    assert_eq!(tail[done..], vec![0xee; tail.len() - done]);
    assert_eq!(
        world
            .space
            .read_bytes(USER_TOP - 4, &mut [0; 8], Origin::Kernel)
            .map_err(|error| error.why),
        Err(FaultError::Unmapped)
    );
    assert_eq!(world.space.read_bytes(range.end, &mut [], Origin::Kernel), Ok(()));
}

#[test]
fn reading_untouched_memory_takes_no_page_and_writing_it_takes_one() {
    let world = World::new();
    let range = world.map(2, RW);
    let mut bytes = [1; 16];
    assert_eq!(
        world
            .space
            .read_bytes(page(range, 1) - 8, &mut bytes, Origin::Kernel),
        Ok(())
    );
    assert_eq!(bytes, [0; 16]);
    assert_eq!(allocator().stats().of(Kind::Anon), 0);
    assert_eq!(world.space.write_bytes(range.start, &[1], Origin::Kernel), Ok(()));
    assert_eq!(allocator().stats().of(Kind::Anon), 1);
    assert_eq!(world.load(page(range, 1)), Ok(0), "zeros are still zeros");
}

#[test]
fn a_page_of_a_fork_is_copied_before_it_is_written() {
    let world = World::new();
    let range = world.map(1, RW);
    populate(&world, range);
    let child = world.space.fork().expect("RAM is plenty");
    assert_eq!(
        world.space.write_bytes(range.start, &[9; 8], Origin::Kernel),
        Ok(())
    );
    assert_eq!(world.load(range.start), Ok(word(9)));
    let mut childs = [0; 8];
    assert_eq!(child.read_bytes(range.start, &mut childs, Origin::Kernel), Ok(()));
    assert_eq!(u64::from_ne_bytes(childs), 1);
}

#[test]
fn objects_are_reached_through_every_mapping_and_copied_in_private_ones() {
    for ty in [&SHMEM, &HUGETLB] {
        let world = object_world();
        let size = ty.granule().size();
        let object = Object::new(ty, size);
        let shared = world.map_memory(Memory::shared(&object), None, size / P, RW);
        let private = world.map_memory(Memory::private(&object), None, size / P, RW);
        let last = size - 8;
        let write = |at, byte| world.space.write_bytes(at, &[byte; 8], Origin::Kernel);
        assert_eq!(write(shared.start + last, 3), Ok(()));
        assert_eq!(world.load(private.start + last), Ok(word(3)));
        assert_eq!(write(private.start + last, 4), Ok(()));
        assert_eq!(world.load(shared.start + last), Ok(word(3)));
        assert_eq!(world.load(private.start + last), Ok(word(4)));
    }
}

#[test]
fn populating_brings_every_page_of_the_range_and_locking_breaks_private_sharing() {
    let world = object_world();
    let anon = world.map(3, RW);
    assert_eq!(world.space.populate(anon, Access::Read), Ok(()));
    assert_eq!(allocator().stats().of(Kind::Anon), 0, "the page of zeros");
    assert_eq!(world.space.populate(anon, Access::Write), Ok(()));
    assert_eq!(allocator().stats().of(Kind::Anon), 3);
    let faults = world.space.fault_count();
    assert_eq!(world.store(page(anon, 2), 1), Ok(()));
    assert_eq!(world.space.fault_count(), faults);

    let object = Object::new(&SHMEM, 2 * P);
    let shared = world.map_memory(Memory::shared(&object), None, 2, RW);
    let private = world.map_memory(Memory::private(&object), None, 2, RW);
    let readable = world.map_memory(Memory::private(&object), None, 2, Prot::READ);
    for range in [shared, private, readable] {
        assert_eq!(world.space.populate_to_lock(range), Ok(()));
    }
    assert_eq!(
        allocator().stats().of(Kind::Anon),
        3 + 2 + 2,
        "the object's, and the copies of the one that may be written"
    );
}

#[test]
fn populating_stops_at_a_hole_with_what_precedes_it_done() {
    let world = World::new();
    let range = world.map(4, RW);
    world.space.unmap(part(range, 1, 1)).expect("mapped");
    let error = world.space.populate(range, Access::Write).expect_err("a hole");
    assert_eq!((error.addr, error.why), (page(range, 1), FaultError::Unmapped));
    assert_eq!(on_behalf(OnBehalf::Populate, error.why).number(), 12);
    assert_eq!(allocator().stats().of(Kind::Anon), 1);
}

#[test]
fn populating_what_was_locked_passes_over_holes() {
    let world = World::new();
    let range = world.map(4, RW);
    world.space.unmap(part(range, 1, 1)).expect("mapped");
    assert_eq!(world.space.populate_to_lock(range), Ok(()));
    assert_eq!(allocator().stats().of(Kind::Anon), 3);
}

#[test]
fn populating_what_was_locked_passes_over_what_is_unmapped_while_it_waits() {
    let world = World::new();
    let range = world.map(3, RW);
    let uffd = opened(
        &world,
        part(range, 1, 1),
        Flags::empty(),
        Features::empty(),
        Modes::MISSING,
    );
    let space = Arc::clone(&world.space);
    let task = world.spawn("locker", move || {
        assert_eq!(space.populate_to_lock(range), Ok(()));
    });
    assert!(uffd.read_event().is_ok(), "the second page is waited for");
    world.space.unmap(part(range, 1, 1)).expect("mapped");
    uffd.wake(part(range, 1, 1)).expect("any range can be woken");
    assert_eq!(task.join(), Ok(()));
    assert_eq!(allocator().stats().of(Kind::Anon), 2);
}

#[test]
fn accesses_to_another_space_are_told_by_their_page() {
    let world = World::new();
    let range = world.map(1, RW);
    let uffd = opened(
        &world,
        range,
        Flags::empty(),
        Features::EXACT_ADDRESS,
        Modes::MISSING,
    );
    let space = Arc::clone(&world.space);
    let at = range.start + 100;
    let task = world.spawn("writer", move || {
        assert_eq!(space.write_bytes(at, &[7; 8], Origin::Kernel), Ok(()));
    });
    let event = uffd.read_event().expect("the page is missing");
    assert!(
        matches!(event, Event::Pagefault { addr, .. } if addr == range.start),
        "{event:?}"
    );
    assert_eq!(uffd.zeropage(range, FillMode::empty()), Outcome::Done);
    assert_eq!(task.join(), Ok(()));
}

#[test]
fn stores_of_the_kernel_and_of_tasks_to_one_page_both_stay() {
    let world = World::new();
    let range = world.map(1, RW);
    populate(&world, range);
    let uffd = opened(&world, range, Flags::empty(), Features::WP_ASYNC, Modes::WP);
    let task = world.spawn("storer", move || {
        for value in 1..=2000u64 {
            uaccess::store(range.start + 8, value).expect("mapped");
        }
    });
    for value in 1..=2000u64 {
        let bytes = value.to_ne_bytes();
        assert_eq!(
            world.space.write_bytes(range.start, &bytes, Origin::Kernel),
            Ok(())
        );
        if value % 50 == 0 {
            assert_eq!(uffd.write_protect(range), Ok(()));
        }
    }
    returned(task);
    assert_eq!(
        (world.load(range.start), world.load(range.start + 8)),
        (Ok(2000), Ok(2000))
    );
}
