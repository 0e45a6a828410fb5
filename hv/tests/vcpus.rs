//! The loop that runs a vCPU, against a CPU that stops for whatever reason the test says.

mod common;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use common::{AT, World, delegated_slot, gpa, gpages};
use hv::bitmap::Bitmap;
use hv::exit::{Exit, PortAccess, Raw, Stopped, Violation};
use hv::fpu::AREA;
use hv::memory::GuestMemory;
use hv::ring::RingError;
use hv::stage2::Npt;
use hv::state::{Injection, Registers, SystemState};
use hv::userfault::{Delivery, Outcome};
use hv::vcpu::{Fatal, Image, Stop, Timer, Vcpu};
use hv::vendor::{Features, Injected, Unavailable, Vendor};
use hv::vm::Vm;
use kernel::abi::guest::{Call, RING_ENTRIES, Resumed, RingEntry, Status};
use kernel::arch::{Clock, Machine};
use kernel::mm::addr::{GuestPhysAddr, PAGE_SIZE, Pfn};
use kernel::mm::cache::{Lookup, Object};
use kernel::mm::fault::Access;
use kernel::mm::frame::OutOfFrames;
use kernel::mm::memtype::guest_memfd::GUEST_MEMFD;
use kernel::mm::range::GuestRange;

/// RFLAGS with and without interrupts.
const OPEN: u64 = 0x202;
const CLOSED: u64 = 0x2;
const VECTOR: u8 = 0x51;
/// Where delegated memory begins in these tests, and how much there is.
const DELEGATED: u64 = 1 << 30;
const DELEGATED_PAGES: u64 = 4;
/// Ordinary memory, in pages from [`AT`] on.
const PAGES: u64 = 8;

/// What the CPU does in one run.
type Act = Box<dyn FnOnce(&mut Registers) -> Exit + Send>;

#[derive(Default)]
struct Cpu {
    acts: VecDeque<Act>,
    state: SystemState,
    injected: Vec<Injection>,
    /// How often an interrupt cannot be taken yet.
    refuses: usize,
}

impl std::fmt::Debug for Cpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cpu")
    }
}

#[derive(Debug)]
struct Scripted;

impl Vendor for Scripted {
    type Format = Npt;
    type Vcpu = Cpu;
    const NAME: &'static str = "scripted";
    const HYPERCALL: [u8; 3] = [0x0f, 0x01, 0xd9];

    fn enable() -> Result<Features, Unavailable> {
        Ok(Features {
            physical_bits: 46,
            ..Features::default()
        })
    }

    fn create(_: Pfn) -> Result<Cpu, OutOfFrames> {
        Ok(Cpu::default())
    }

    fn save(vcpu: &mut Cpu) -> SystemState {
        vcpu.state
    }

    fn load(vcpu: &mut Cpu, state: &SystemState) {
        vcpu.state = *state;
        vcpu.injected.clear();
    }

    fn run(vcpu: &mut Cpu, registers: &mut Registers, _: bool) -> Stopped {
        let act = vcpu.acts.pop_front().expect("the test says what comes");
        Stopped {
            exit: act(registers),
            raw: Raw::default(),
        }
    }

    fn inject(vcpu: &mut Cpu, registers: &Registers, what: Injection) -> Injected {
        let closed = registers.rflags & 0x200 == 0;
        if matches!(what, Injection::Interrupt(_)) && (closed || vcpu.refuses > 0) {
            vcpu.refuses = vcpu.refuses.saturating_sub(1);
            return Injected::NotNow;
        }
        vcpu.injected.push(what);
        Injected::Queued
    }
}

/// A guest with ordinary memory of [`PAGES`] at [`AT`], and delegated memory.
struct Guest {
    vcpu: Vcpu<Scripted>,
    bitmap: Arc<Bitmap>,
    object: Arc<Object>,
    lines: Arc<Mutex<Vec<String>>>,
    world: World<Npt>,
}

fn delegated(page: u64) -> GuestPhysAddr {
    GuestPhysAddr::new(DELEGATED + page * PAGE_SIZE)
}

fn guest() -> Guest {
    let world = World::<Npt>::with(&Scripted::enable().expect("it is there"));
    let ordinary = world.map(PAGES);
    world.show(ordinary);
    let object = Object::new(&GUEST_MEMFD, DELEGATED_PAGES * PAGE_SIZE);
    let bitmap = Arc::new(Bitmap::new(DELEGATED_PAGES).expect("memory is plenty"));
    bitmap.set_all();
    add_delegated(&world.memory, &object, &bitmap);
    let range = GuestRange::new(delegated(0), delegated(DELEGATED_PAGES));
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&lines);
    let console = Box::new(move |line: &str| sink.lock().expect("nobody panics").push(line.to_owned()));
    let vm = Vm::<Scripted>::new(Arc::clone(&world.memory), range, console);
    let image = Image {
        registers: Registers {
            rflags: OPEN,
            ..Registers::default()
        },
        system: SystemState::long_mode(0x1000),
        fpu: [0; AREA],
        timer: Timer::default(),
        at_mark: false,
    };
    Guest {
        vcpu: Vcpu::new(&vm, &image).expect("it needs no frame"),
        bitmap,
        object,
        lines,
        world,
    }
}

fn add_delegated(memory: &Arc<GuestMemory<Npt>>, object: &Arc<Object>, bitmap: &Arc<Bitmap>) {
    let request = delegated_slot(delegated(0), object, bitmap, Delivery::Exit);
    memory.add(request).expect("nothing is wrong with it");
}

impl Guest {
    fn will(&mut self, act: impl FnOnce(&mut Registers) -> Exit + Send + 'static) -> &mut Self {
        self.vcpu.control().acts.push_back(Box::new(act));
        self
    }

    /// The guest makes a hypercall and then exits with what it was answered in RAX.
    fn call(&mut self, number: u64, args: [u64; 4]) -> (u64, u64) {
        self.will(move |registers| {
            registers.rax = number;
            [registers.rdi, registers.rsi, registers.rdx, registers.r10] = args;
            Exit::Hypercall { user: false, len: 3 }
        });
        let before = self.vcpu.registers.rip;
        self.will(|_| Exit::HostInterrupt);
        self.will(|_| Exit::Shutdown);
        assert_eq!(self.broken(), Fatal::Shutdown);
        assert_eq!(self.vcpu.registers.rip, before + 3);
        (self.vcpu.registers.rax, self.vcpu.registers.rdx)
    }

    fn status(&mut self, call: Call, args: [u64; 4]) -> Status {
        Status::from_number(self.call(call as u64, args).0).expect("a status")
    }

    fn run(&mut self) -> Stop {
        let vcpu = &mut self.vcpu;
        self.world.run(|| vcpu.run(u64::MAX))
    }

    fn broken(&mut self) -> Fatal {
        match self.run() {
            Stop::Broken(broken) => broken.why,
            other => panic!("it should be broken: {other:?}"),
        }
    }

    fn injected(&mut self) -> Vec<Injection> {
        std::mem::take(&mut self.vcpu.control().injected)
    }

    fn touches(&mut self, addr: GuestPhysAddr, access: Access) -> &mut Self {
        self.will(move |_| violation(addr, access))
    }

    /// Declares a monitor with its ring at page `page` of ordinary memory.
    fn declare(&mut self, page: u64) -> Status {
        self.status(Call::Monitor, [gpa(page).as_u64(), VECTOR.into(), 0, 0])
    }

    fn word(&self, addr: GuestPhysAddr) -> u32 {
        let mut word = [0; 4];
        let read = self.world.run(|| self.world.memory.read(addr, &mut word));
        assert_eq!(read, Ok(()));
        u32::from_le_bytes(word)
    }

    fn set_word(&self, addr: GuestPhysAddr, value: u32) {
        let bytes = value.to_le_bytes();
        assert_eq!(self.world.run(|| self.world.memory.write(addr, &bytes)), Ok(()));
    }
}

fn violation(addr: GuestPhysAddr, access: Access) -> Exit {
    Exit::Violation(Violation {
        addr,
        access,
        linear: None,
        walk: false,
        present: false,
        root: 0,
        in_delivery: false,
    })
}

fn out(port: u16, string: bool) -> Exit {
    Exit::Io(PortAccess {
        port,
        size: 1,
        write: true,
        string,
        len: 1,
    })
}

#[test]
fn what_a_guest_prints_comes_out_by_lines() {
    let mut guest = guest();
    for byte in *b"hi\nrest" {
        guest.will(move |registers| {
            registers.rax = 0xaa00 | u64::from(byte);
            out(0xe9, false)
        });
    }
    guest.will(|registers| {
        (registers.rax, registers.rdi) = (Call::Exit as u64, 7);
        Exit::Hypercall { user: false, len: 3 }
    });
    assert_eq!(guest.run(), Stop::Exited(7));
    assert_eq!(*guest.lines.lock().expect("nobody panics"), ["hi", "rest"]);
}

#[test]
fn a_port_that_nobody_has_reads_as_ones_of_its_width() {
    let mut guest = guest();
    for (size, expected) in [
        (1u8, 0x1122_3344_5566_77ffu64),
        (2, 0x1122_3344_5566_ffff),
        (4, 0xffff_ffff),
    ] {
        guest
            .will(move |registers| {
                registers.rax = 0x1122_3344_5566_7788;
                Exit::Io(PortAccess {
                    port: 0x70,
                    size,
                    write: false,
                    string: false,
                    len: 2,
                })
            })
            .will(|_| Exit::Shutdown);
        assert_eq!(guest.broken(), Fatal::Shutdown);
        assert_eq!(guest.vcpu.registers.rax, expected);
    }
}

#[test]
fn what_nobody_emulates_ends_the_guest_by_name() {
    let mut guest = guest();
    for (exit, why) in [
        (Exit::Shutdown, Fatal::Shutdown),
        (Exit::Privileged("VMRUN"), Fatal::Privileged("VMRUN")),
        (out(0x1f0, true), Fatal::StringPort(0x1f0)),
        (Exit::EntryRefused, Fatal::EntryRefused),
        (Exit::Misconfigured(AT), Fatal::Misconfigured(AT)),
        (Exit::Unknown, Fatal::Unknown),
    ] {
        guest.will(move |registers| {
            registers.rip = 0x1234;
            exit
        });
        let Stop::Broken(broken) = guest.run() else {
            panic!("{exit:?} should end it");
        };
        assert_eq!(broken.why, why);
        let sentence = broken.to_string();
        assert!(
            sentence.contains("rip 0x1234") && sentence.contains("exit code 0x0"),
            "{sentence}"
        );
    }
}

#[test]
fn an_unknown_register_is_a_fault_of_the_guest() {
    let mut guest = guest();
    guest
        .will(|registers| {
            registers.rcx = 0x1b;
            Exit::Msr { write: false, len: 2 }
        })
        .will(|_| Exit::Shutdown);
    let rip = guest.vcpu.registers.rip;
    assert_eq!(guest.broken(), Fatal::Shutdown);
    assert_eq!(
        guest.vcpu.registers.rip, rip,
        "the fault is in front of the instruction"
    );
    let fault = Injection::Exception {
        vector: 13,
        code: Some(0),
    };
    assert_eq!(guest.injected(), [fault]);
}

#[test]
fn a_register_of_the_guests_state_is_written_and_read() {
    let mut guest = guest();
    guest
        .will(|registers| {
            (registers.rcx, registers.rdx, registers.rax) = (0xc000_0100, 0x7f, 0x1000);
            Exit::Msr { write: true, len: 2 }
        })
        .will(|registers| {
            (registers.rdx, registers.rax) = (u64::MAX, u64::MAX);
            Exit::Msr { write: false, len: 2 }
        })
        .will(|_| Exit::Shutdown);
    assert_eq!(guest.broken(), Fatal::Shutdown);
    assert_eq!(guest.vcpu.system().fs.base, 0x7f_0000_1000);
    assert_eq!(
        (guest.vcpu.registers.rdx, guest.vcpu.registers.rax),
        (0x7f, 0x1000)
    );
}

#[test]
fn a_halted_guest_that_nothing_wakes_is_told() {
    let mut guest = guest();
    guest.will(|_| Exit::Halt { len: 1 });
    assert_eq!(guest.broken(), Fatal::Halted);
    assert_eq!(
        guest.status(Call::Timer, [1000, VECTOR.into(), 0, 0]),
        Status::Done
    );
    guest.will(|registers| {
        registers.rflags = CLOSED;
        Exit::Halt { len: 1 }
    });
    assert_eq!(guest.broken(), Fatal::Halted, "with interrupts off");
}

#[test]
fn the_timer_comes_when_the_guest_can_take_it() {
    let mut guest = guest();
    guest.vcpu.control().refuses = 100;
    assert_eq!(guest.status(Call::Timer, [1, VECTOR.into(), 0, 0]), Status::Done);
    assert_eq!(guest.injected(), [], "it cannot take any yet");
    guest.vcpu.control().refuses = 0;
    guest.will(|_| Exit::InterruptWindow).will(|_| Exit::Shutdown);
    assert_eq!(guest.broken(), Fatal::Shutdown);
    assert!(guest.injected().contains(&Injection::Interrupt(VECTOR)));
    assert_eq!(guest.status(Call::Timer, [0, 0, 0, 0]), Status::Done);
    guest.injected();
    guest.will(|_| Exit::HostInterrupt).will(|_| Exit::Shutdown);
    assert_eq!(guest.broken(), Fatal::Shutdown);
    assert_eq!(guest.injected(), [], "it is off");
}

#[test]
fn a_deadline_ends_a_guest_that_loops() {
    let mut guest = guest();
    guest.will(|_| Exit::HostInterrupt);
    let vcpu = &mut guest.vcpu;
    assert_eq!(guest.world.run(|| vcpu.run(0)), Stop::Deadline);
    assert_eq!(guest.vcpu.control().acts.len(), 1, "it did not even begin");
}

#[test]
fn a_guest_that_exits_all_the_time_is_stopped_too() {
    let mut guest = guest();
    let deadline = Machine::ticks() + 1000;
    guest.will(move |_| {
        while Machine::ticks() < deadline {
            std::hint::spin_loop();
        }
        out(0x80, false)
    });
    let vcpu = &mut guest.vcpu;
    assert_eq!(guest.world.run(|| vcpu.run(deadline)), Stop::Deadline);
    // Its timer comes as well.
    let timer = guest.vcpu.image().timer;
    assert_eq!(timer.period, 0);
    assert_eq!(guest.status(Call::Timer, [1, VECTOR.into(), 0, 0]), Status::Done);
    guest.injected();
    guest.will(|_| out(0x80, false)).will(|_| Exit::Shutdown);
    assert_eq!(guest.broken(), Fatal::Shutdown);
    assert!(guest.injected().contains(&Injection::Interrupt(VECTOR)));
}

#[test]
fn unknown_calls_and_calls_from_user_mode_are_refused() {
    let mut guest = guest();
    for number in [0, Call::Exit as u64 - 1, Call::Resolve as u64 + 1, u64::MAX] {
        assert_eq!(guest.call(number, [0; 4]).0, Status::NoSuchCall as u64);
    }
    guest
        .will(|registers| {
            registers.rax = Call::Exit as u64;
            Exit::Hypercall { user: true, len: 3 }
        })
        .will(|_| Exit::Shutdown);
    assert_eq!(guest.broken(), Fatal::Shutdown);
    assert_eq!(guest.vcpu.registers.rax, Status::NoSuchCall as u64);
}

#[test]
fn calls_with_impossible_arguments_are_refused() {
    let mut guest = guest();
    let page = gpa(1).as_u64();
    for (call, args, status) in [
        (Call::Timer, [1000, 31, 0, 0], Status::Invalid),
        (Call::Timer, [1000, 256, 0, 0], Status::Invalid),
        (Call::Monitor, [page + 1, 0x51, 0, 0], Status::Invalid),
        (Call::Monitor, [page, 8, 0, 0], Status::Invalid),
        (Call::Monitor, [page, 0x51, 2, 0], Status::Invalid),
        (Call::Monitor, [DELEGATED, 0x51, 0, 0], Status::BadAddress),
        (Call::Monitor, [0x7000_0000, 0x51, 0, 0], Status::BadAddress),
        (Call::Exempt, [DELEGATED, 0, 0, 0], Status::Invalid),
        (Call::Exempt, [page, PAGE_SIZE, 0, 0], Status::BadAddress),
        (
            Call::Exempt,
            [DELEGATED, (DELEGATED_PAGES + 1) * PAGE_SIZE, 0, 0],
            Status::BadAddress,
        ),
        (Call::Copy, [DELEGATED, page, 100, 0], Status::Invalid),
        (Call::Copy, [u64::MAX - 4095, page, 8192, 0], Status::Invalid),
        (Call::Copy, [page, page, PAGE_SIZE, 0], Status::BadAddress),
        (
            Call::Copy,
            [DELEGATED, DELEGATED + PAGE_SIZE, PAGE_SIZE, 0],
            Status::BadAddress,
        ),
        (
            Call::Copy,
            [DELEGATED, 0x7000_0000, PAGE_SIZE, 0],
            Status::BadAddress,
        ),
        (Call::Continue, [page, PAGE_SIZE, 0, 0], Status::BadAddress),
        (Call::Continue, [DELEGATED, PAGE_SIZE, 0, 0], Status::Absent),
        (Call::Zeropage, [DELEGATED + 8, PAGE_SIZE, 0, 0], Status::Invalid),
        (Call::Resolve, [0x7000_0000, 0, 0, 0], Status::BadAddress),
        (Call::Resolve, [page, 3, 0, 0], Status::Invalid),
    ] {
        assert_eq!(guest.status(call, args), status, "{call:?} {args:x?}");
    }
    assert_eq!(guest.object.resident(), 0);
    assert_eq!(guest.bitmap.count(), DELEGATED_PAGES);
    assert!(guest.vcpu.vm().monitor().is_none());
}

#[test]
fn a_delegated_access_goes_to_the_owner_until_there_is_a_monitor() {
    let mut guest = guest();
    guest.touches(delegated(1), Access::Write);
    let Stop::Userfault(fault) = guest.run() else {
        panic!("it is the owner's business");
    };
    assert_eq!((fault.addr, fault.access), (delegated(1), Access::Write));
    assert_eq!(guest.declare(2), Status::Done);
    guest
        .touches(delegated(1) + 0x123, Access::Write)
        .will(|_| Exit::Shutdown);
    assert_eq!(guest.broken(), Fatal::Shutdown);
    assert_eq!(guest.injected(), [Injection::Interrupt(VECTOR)]);
    assert_eq!(guest.word(gpa(2)), 1, "the head");
    let mut entry = [0; size_of::<RingEntry>()];
    let read = guest
        .world
        .run(|| guest.world.memory.read(gpa(2) + 32, &mut entry));
    assert_eq!(read, Ok(()));
    let expected = [delegated(1).as_u64().to_le_bytes(), 1u64.to_le_bytes()].concat();
    assert_eq!(entry[..], expected[..], "address and flags");
    // Back to the owner.
    assert_eq!(guest.status(Call::Monitor, [0; 4]), Status::Done);
    guest.touches(delegated(1), Access::Read);
    assert!(matches!(guest.run(), Stop::Userfault(_)));
}

#[test]
fn what_the_monitor_cannot_be_told_is_the_owners() {
    let mut guest = guest();
    assert_eq!(guest.declare(2), Status::Done);
    guest.will(|registers| {
        registers.rflags = CLOSED;
        violation(delegated(0), Access::Read)
    });
    assert!(matches!(guest.run(), Stop::Userfault(_)), "interrupts are off");
    guest.vcpu.registers.rflags = OPEN;
    guest.will(|_| {
        let Exit::Violation(violation) = violation(delegated(0), Access::Read) else {
            unreachable!()
        };
        Exit::Violation(Violation {
            in_delivery: true,
            ..violation
        })
    });
    assert!(
        matches!(guest.run(), Stop::Userfault(_)),
        "an event was on its way"
    );
    guest.vcpu.control().refuses = 1;
    guest.touches(delegated(0), Access::Read);
    assert!(
        matches!(guest.run(), Stop::Userfault(_)),
        "the CPU cannot take it"
    );
    let exempt = guest.status(Call::Exempt, [delegated(0).as_u64(), PAGE_SIZE, 0, 0]);
    assert_eq!(exempt, Status::Done);
    guest.touches(delegated(0), Access::Read);
    assert!(matches!(guest.run(), Stop::Userfault(_)), "it is exempt");
    assert_eq!(guest.word(gpa(2)), 0, "nothing was put into the ring");
    assert_eq!(guest.injected(), []);
}

#[test]
fn a_guest_that_lies_in_its_ring_is_ended() {
    let mut guest = guest();
    assert_eq!(guest.declare(2), Status::Done);
    guest.set_word(gpa(2) + 4, 5);
    guest.touches(delegated(0), Access::Read);
    assert_eq!(guest.broken(), Fatal::Ring(RingError::Lie { head: 0, tail: 5 }));
}

#[test]
fn a_guest_that_never_empties_its_ring_is_ended() {
    let mut guest = guest();
    assert_eq!(guest.declare(2), Status::Done);
    for _ in 0..=RING_ENTRIES {
        guest.touches(delegated(0), Access::Read);
    }
    assert_eq!(guest.broken(), Fatal::Ring(RingError::Full));
    assert_eq!(guest.injected().len(), RING_ENTRIES as usize);
}

#[test]
fn a_ring_whose_memory_has_gone_ends_the_guest() {
    let mut guest = guest();
    assert_eq!(guest.declare(2), Status::Done);
    let slot = guest.world.memory.slots()[0].id;
    assert_eq!(guest.world.memory.remove(slot), Ok(()));
    guest.touches(delegated(0), Access::Read);
    assert_eq!(guest.broken(), Fatal::RingGone(gpa(2)));
}

#[test]
fn a_guest_fills_its_own_delegated_memory() {
    let mut guest = guest();
    guest.set_word(gpa(4), 0xabcd);
    let (to, from) = (delegated(0).as_u64(), gpa(4).as_u64());
    assert_eq!(
        guest.call(Call::Copy as u64, [to, from, 2 * PAGE_SIZE, 0]),
        (0, 2 * PAGE_SIZE)
    );
    assert!(!guest.bitmap.is_set(0) && !guest.bitmap.is_set(1) && guest.bitmap.is_set(2));
    assert_eq!(guest.word(delegated(0)), 0xabcd);
    // Half of this one is there.
    assert_eq!(
        guest.call(Call::Copy as u64, [to + PAGE_SIZE, from, 2 * PAGE_SIZE, 0]),
        (Status::Exists as u64, 0)
    );
    assert_eq!(
        guest.call(Call::Zeropage as u64, [to + 2 * PAGE_SIZE, PAGE_SIZE, 0, 0]),
        (0, PAGE_SIZE)
    );
    // The host has filled the last one, and left it delegated.
    let written = guest.object.write(3 * PAGE_SIZE, &[7; PAGE_SIZE as usize]);
    assert_eq!(written.1, Ok(()));
    let last = to + 3 * PAGE_SIZE;
    assert_eq!(
        guest.status(Call::Copy, [last, from, PAGE_SIZE, 0]),
        Status::Exists
    );
    assert_eq!(
        guest.call(Call::Continue as u64, [last, PAGE_SIZE, 0, 0]),
        (0, PAGE_SIZE)
    );
    assert_eq!(
        guest.status(Call::Continue, [last, PAGE_SIZE, 0, 0]),
        Status::Exists
    );
    assert_eq!(guest.word(delegated(3)), 0x0707_0707);
    assert_eq!(guest.bitmap.count(), 0);
    assert!(matches!(guest.object.lookup(0), Lookup::Present(_)));
}

#[test]
fn a_mark_is_answered_when_the_guest_goes_on() {
    let mut guest = guest();
    let mark = |registers: &mut Registers| {
        (registers.rax, registers.rdi) = (Call::Mark as u64, 3);
        Exit::Hypercall { user: false, len: 3 }
    };
    guest.will(mark);
    assert_eq!(guest.run(), Stop::Mark(3));
    let image = guest.vcpu.image();
    guest.will(|_| Exit::Shutdown);
    assert_eq!(guest.broken(), Fatal::Shutdown);
    assert_eq!(
        guest.vcpu.registers.rdx,
        Resumed::AsBefore as u64,
        "in the machine that was saved"
    );
    guest.vcpu.vm().resume_as(Resumed::ToServeInjected);
    guest.vcpu.restore(&image);
    guest.will(|_| Exit::Shutdown);
    assert_eq!(guest.broken(), Fatal::Shutdown);
    assert_eq!(
        guest.vcpu.registers.rdx,
        Resumed::ToServeInjected as u64,
        "in another"
    );
    assert_eq!(guest.vcpu.registers.rax, Status::Done as u64);
}

#[test]
fn an_access_that_cannot_be_resolved_ends_the_guest_with_its_address() {
    let mut guest = guest();
    guest.touches(GuestPhysAddr::new(0x9_0000_0000), Access::Execute);
    assert_eq!(
        guest.broken(),
        Fatal::Memory {
            addr: GuestPhysAddr::new(0x9_0000_0000),
            access: Access::Execute,
            why: Outcome::Unbacked,
        }
    );
    let slot = guest.world.memory.slots()[0].id;
    assert_eq!(guest.world.memory.set_read_only(slot, true), Ok(()));
    guest.touches(gpages(0, 1).start, Access::Write);
    let Fatal::Memory { why, .. } = guest.broken() else {
        panic!("the slot is read-only");
    };
    assert_eq!(why, Outcome::ReadOnly);
}
