//! A virtual CPU, and the loop that runs it.
//!
//! ```text
//!   run ─► timer, deadline, kill ─► enter (FPU in, flush if due) ─► CPU ─► Exit ─┬─ handled here: go on
//!    ▲                                                                           ├─ Stop: the owner's business
//!    └───────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! | exit | what becomes of it |
//! | --- | --- |
//! | violation | the memory resolves it, and may sleep for a monitor; or it is delivered: to the guest's monitor, or as [`Stop::Userfault`] |
//! | port, CPUID, MSR, hypercall | emulated; an unknown MSR is #GP in the guest |
//! | HLT | sleeps until the timer; a guest that nothing can wake is [`Broken`] |
//! | interrupt of the host's | delivered to the host; the timer is looked at |
//! | anything else | [`Broken`], with the raw code |
//!
//! A vCPU belongs to the task that runs it. Time is looked at with every exit, and there is one at least with every tick of the
//! host's: that is the resolution of the timer and of deadlines.

use alloc::sync::Arc;
use core::fmt;
use core::time::Duration;

use kernel::abi::guest::{Delivery, FAULT_FETCH, FAULT_MINOR, FAULT_WALK, FAULT_WRITE, RingEntry};
use kernel::arch::{Clock, Machine};
use kernel::mm::addr::GuestPhysAddr;
use kernel::mm::fault::{Access, FaultError};
use kernel::mm::frame::OutOfFrames;
use kernel::mm::space::Pinned;
use kernel::task;
use kernel::uffd::TrapKind;

use crate::cpuid;
use crate::exit::{Exit, PortAccess, Raw, Stopped, Violation};
use crate::fpu::{AREA, Fpu};
use crate::msr;
use crate::ring::{self, RingError};
use crate::state::{Injection, Registers, SystemState};
use crate::userfault::{MemoryFault, Outcome};
use crate::vendor::{Injected, Vendor};
use crate::vm::{Counters, Vm};

/// RFLAGS.IF.
const INTERRUPTS: u64 = 1 << 9;
/// #GP.
const GENERAL_PROTECTION: u8 = 13;

/// A virtual CPU.
pub struct Vcpu<V: Vendor> {
    pub(crate) vm: Arc<Vm<V>>,
    control: V::Vcpu,
    /// The page in which the CPU describes violations that the guest deals with by itself; dropped after `control`.
    diverted: Option<Pinned>,
    /// General registers; the owner may change them between two runs.
    pub registers: Registers,
    fpu: Fpu,
    /// Of the stage-2 tables, when this vCPU last dropped what it had cached.
    generation: u64,
    pub(crate) timer: Timer,
    /// The timer's interrupt could not be taken yet.
    due: bool,
    /// It stands behind a mark that is not answered yet.
    pub(crate) at_mark: bool,
    /// What the guest has asked the owner to resolve, until that is done.
    pub(crate) unresolved: Option<Violation>,
}

impl<V: Vendor> fmt::Debug for Vcpu<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vcpu")
            .field("registers", &self.registers)
            .field("timer", &self.timer)
            .finish_non_exhaustive()
    }
}

/// The timer of a vCPU.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Timer {
    /// Ticks between two interrupts; 0: it is off.
    pub period: u64,
    /// The interrupt's vector.
    pub vector: u64,
    /// When it comes next, in ticks of the TSC.
    pub next: u64,
}

impl Timer {
    /// Every `period` ticks from now on.
    pub fn every(period: u64, vector: u8) -> Self {
        Self {
            period,
            vector: vector.into(),
            next: Machine::ticks().saturating_add(period),
        }
    }
}

/// All that a vCPU is: what a snapshot keeps of it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Image {
    /// General registers.
    pub registers: Registers,
    /// The rest of the CPU's state.
    pub system: SystemState,
    /// x87 and SSE.
    pub fpu: [u8; AREA],
    /// The timer's period and vector; it starts anew.
    pub timer: Timer,
    /// Whether it stands behind a mark that is not answered yet.
    pub at_mark: bool,
}

impl Image {
    /// A vCPU that is about to start with these registers: nothing in its FPU, no timer.
    pub fn starting(registers: Registers, system: SystemState) -> Self {
        Self {
            registers,
            system,
            fpu: *Fpu::default().area(),
            timer: Timer::default(),
            at_mark: false,
        }
    }
}

/// Why a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// The guest is done, and says how it went.
    Exited(u64),
    /// The guest has reached a point. It goes on behind it with the next run.
    Mark(u64),
    /// A delegated access that is the owner's to resolve; with the next run it is made again.
    Userfault(MemoryFault),
    /// The deadline has passed. The guest goes on with the next run.
    Deadline,
    /// The task that runs it is to end.
    Killed,
    /// The guest cannot go on.
    Broken(Broken),
}

/// Why a guest cannot go on, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Broken {
    /// Why.
    pub why: Fatal,
    /// The instruction.
    pub rip: u64,
    /// What the CPU said.
    pub raw: Raw,
}

/// Why a guest cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fatal {
    /// A triple fault.
    Shutdown,
    /// An instruction that is the host's alone; named.
    Privileged(&'static str),
    /// INS or OUTS.
    StringPort(u16),
    /// HLT, and nothing is left that would wake it.
    Halted,
    /// An access that the memory could not resolve.
    Memory {
        /// What was touched.
        addr: GuestPhysAddr,
        /// How.
        access: Access,
        /// Why not.
        why: Outcome,
    },
    /// Its ring of faults is not one.
    Ring(RingError),
    /// Its ring of faults lies where the host cannot write.
    RingGone(GuestPhysAddr),
    /// The CPU refused its state.
    EntryRefused,
    /// A stage-2 entry that no CPU takes: a mistake of the hypervisor's own.
    Misconfigured(GuestPhysAddr),
    /// An exit that nobody here knows.
    Unknown,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.why {
            Fatal::Shutdown => f.write_str("the guest shut down (triple fault)"),
            Fatal::Privileged(name) => {
                write!(f, "the guest executed {name}, which guests do not have here")
            }
            Fatal::StringPort(port) => write!(
                f,
                "the guest accessed port {port:#x} with a string instruction, which is not emulated"
            ),
            Fatal::Halted => f.write_str("the guest halted, and no interrupt will wake it"),
            Fatal::Memory { addr, access, why } => {
                let how = match access {
                    Access::Read => "read",
                    Access::Write => "wrote to",
                    Access::Execute => "fetched an instruction from",
                };
                write!(f, "the guest {how} guest-physical {addr}: {why}")
            }
            Fatal::Ring(error) => write!(f, "the guest broke its contract: {error}"),
            Fatal::RingGone(page) => {
                write!(f, "the guest's ring of faults at {page} cannot be written")
            }
            Fatal::EntryRefused => f.write_str("the CPU refused the guest's state"),
            Fatal::Misconfigured(addr) => {
                write!(
                    f,
                    "the stage-2 entry for {addr} is invalid: a bug of the hypervisor"
                )
            }
            Fatal::Unknown => f.write_str("the guest stopped for a reason that is not known here"),
        }?;
        write!(f, " (at rip {:#x}; {})", self.rip, self.raw)
    }
}

impl<V: Vendor> Vcpu<V> {
    /// A vCPU of `vm`, with its registers and state at `image`.
    ///
    /// # Errors
    /// No frame for its control block.
    pub fn new(vm: &Arc<Vm<V>>, image: &Image) -> Result<Self, OutOfFrames> {
        let mut vcpu = Self {
            control: V::create(vm.memory.root())?,
            diverted: None,
            vm: Arc::clone(vm),
            registers: Registers::default(),
            fpu: Fpu::default(),
            generation: 0,
            timer: Timer::default(),
            due: false,
            at_mark: false,
            unresolved: None,
        };
        vcpu.restore(image);
        Ok(vcpu)
    }

    /// The machine.
    pub fn vm(&self) -> &Arc<Vm<V>> {
        &self.vm
    }

    /// The vendor's control block, for whoever knows the vendor.
    pub fn control(&mut self) -> &mut V::Vcpu {
        &mut self.control
    }

    /// The vendor's control block, and what is held for as long as it may describe violations there.
    pub(crate) fn divertible(&mut self) -> (&mut V::Vcpu, &mut Option<Pinned>) {
        (&mut self.control, &mut self.diverted)
    }

    /// All that it is now.
    pub fn image(&mut self) -> Image {
        Image {
            registers: self.registers,
            system: V::save(&mut self.control),
            fpu: *self.fpu.area(),
            timer: self.timer,
            at_mark: self.at_mark,
        }
    }

    /// Becomes what `image` was. The next interrupt of its timer comes a period from now. All its violations exit, until its
    /// guest asks for them.
    pub fn restore(&mut self, image: &Image) {
        self.end_diversion();
        self.unresolved = None;
        self.registers = image.registers;
        V::load(&mut self.control, &image.system);
        self.fpu = Fpu::with(image.fpu);
        self.timer = Timer {
            next: Machine::ticks().saturating_add(image.timer.period),
            ..image.timer
        };
        self.due = false;
        self.at_mark = image.at_mark;
    }

    /// The state besides the registers.
    pub fn system(&mut self) -> SystemState {
        V::save(&mut self.control)
    }

    /// Runs the guest until something is the owner's business, at most until the TSC reads `deadline`. May sleep: for pages
    /// that a monitor of the host's is asked for, and while the guest is idle.
    pub fn run(&mut self, deadline: u64) -> Stop {
        if core::mem::take(&mut self.at_mark) {
            self.answer_mark();
        }
        if let Some(violation) = self.unresolved.take()
            && let Some(stop) = self.resolve_for_guest(violation)
        {
            return stop;
        }
        if let Some(stop) = self.look_at_time(deadline) {
            return stop;
        }
        loop {
            let stopped = self.enter();
            Counters::count(&self.vm.counters.exits);
            if let Some(stop) = self.handle(&stopped, deadline) {
                return stop;
            }
            // A guest that exits all the time may never be the one that the host's tick interrupts.
            if self.is_time_to_look(deadline)
                && let Some(stop) = self.look_at_time(deadline)
            {
                return stop;
            }
        }
    }

    /// Whether the timer, the deadline or somebody who wants the task to end is waiting.
    #[inline]
    fn is_time_to_look(&self, deadline: u64) -> bool {
        let timer = match self.timer.period {
            0 => u64::MAX,
            _ => self.timer.next,
        };
        Machine::ticks() >= timer.min(deadline) || task::current().is_killed()
    }

    #[inline]
    fn enter(&mut self) -> Stopped {
        let Self {
            vm,
            control,
            registers,
            fpu,
            generation,
            ..
        } = self;
        fpu.during(|| {
            let entered = vm.memory.enter(generation);
            V::run(control, registers, entered.flush)
        })
    }

    fn handle(&mut self, stopped: &Stopped, deadline: u64) -> Option<Stop> {
        let why = match stopped.exit {
            Exit::Violation(violation) => return self.violated(&violation, stopped.raw),
            Exit::HostInterrupt => return None,
            Exit::Hypercall { len, user } => {
                self.advance(len);
                Counters::count(&self.vm.counters.hypercalls);
                return self.hypercall(user);
            }
            Exit::InterruptWindow => {
                self.raise_timer();
                return None;
            }
            Exit::Halt { len } => {
                self.advance(len);
                if self.idle(deadline) {
                    return None;
                }
                Fatal::Halted
            }
            Exit::Io(access) if access.string => Fatal::StringPort(access.port),
            Exit::Io(access) => {
                self.port(access);
                return None;
            }
            Exit::Cpuid { len } => {
                self.cpuid();
                self.advance(len);
                return None;
            }
            Exit::Msr { write, len } => {
                self.msr(write, len);
                return None;
            }
            Exit::Shutdown => Fatal::Shutdown,
            Exit::Privileged(name) => Fatal::Privileged(name),
            Exit::EntryRefused => Fatal::EntryRefused,
            Exit::Misconfigured(addr) => Fatal::Misconfigured(addr),
            Exit::Unknown => Fatal::Unknown,
        };
        Some(self.broken(why, stopped.raw))
    }

    #[cold]
    fn broken(&self, why: Fatal, raw: Raw) -> Stop {
        self.vm.flush_console();
        Stop::Broken(Broken {
            why,
            rip: self.registers.rip,
            raw,
        })
    }

    fn advance(&mut self, len: u8) {
        self.registers.rip = self.registers.rip.wrapping_add(len.into());
    }

    /// Something may be due, or a run begins.
    fn look_at_time(&mut self, deadline: u64) -> Option<Stop> {
        if task::current().is_killed() {
            return Some(Stop::Killed);
        }
        let now = Machine::ticks();
        if self.timer.period != 0 && now >= self.timer.next {
            // Ticks that were missed are not made up for.
            self.timer.next = now.saturating_add(self.timer.period);
            self.due = true;
        }
        if self.due {
            self.raise_timer();
        }
        (now >= deadline).then_some(Stop::Deadline)
    }

    /// Injects the timer's interrupt, or asks to be told when that can be done.
    fn raise_timer(&mut self) {
        if self.due {
            let interrupt = Injection::Interrupt(self.timer.vector as u8);
            self.due = V::inject(&mut self.control, &self.registers, interrupt) == Injected::NotNow;
        }
    }

    /// The guest waits for an interrupt. False when none will come.
    fn idle(&mut self, deadline: u64) -> bool {
        if self.registers.rflags & INTERRUPTS == 0 {
            return false;
        }
        if self.due {
            return true;
        }
        if self.timer.period == 0 {
            return false;
        }
        let wait = self.timer.next.min(deadline).saturating_sub(Machine::ticks());
        task::sleep(duration(wait));
        true
    }

    fn port(&mut self, access: PortAccess) {
        self.advance(access.len);
        let mask = match access.size {
            1 => 0xff,
            2 => 0xffff,
            _ => u64::from(u32::MAX),
        };
        let mut ports = self.vm.ports.lock();
        if access.write {
            ports.write(access, (self.registers.rax & mask) as u32);
            return;
        }
        let value = u64::from(ports.read(access)) & mask;
        // A 32-bit result clears the upper half; smaller ones leave the rest.
        let kept = if access.size == 4 {
            0
        } else {
            self.registers.rax & !mask
        };
        self.registers.rax = kept | value;
    }

    fn cpuid(&mut self) {
        let (leaf, subleaf) = (self.registers.rax as u32, self.registers.rcx as u32);
        let answer = cpuid::filter(leaf, subleaf, cpuid::host(leaf, subleaf));
        self.registers.rax = answer.eax.into();
        self.registers.rbx = answer.ebx.into();
        self.registers.rcx = answer.ecx.into();
        self.registers.rdx = answer.edx.into();
    }

    fn msr(&mut self, write: bool, len: u8) {
        let number = self.registers.rcx as u32;
        let mut state = V::save(&mut self.control);
        let result = if write {
            let value = self.registers.rdx << 32 | self.registers.rax & 0xffff_ffff;
            msr::write(&mut state, number, value).map(|()| V::load(&mut self.control, &state))
        } else {
            msr::read(&state, number, Machine::ticks()).map(|value| {
                self.registers.rax = value & 0xffff_ffff;
                self.registers.rdx = value >> 32;
            })
        };
        match result {
            Ok(()) => self.advance(len),
            Err(msr::Refused) => {
                let fault = Injection::Exception {
                    vector: GENERAL_PROTECTION,
                    code: Some(0),
                };
                let _ = V::inject(&mut self.control, &self.registers, fault);
            }
        }
    }

    #[inline]
    pub(crate) fn violated(&mut self, violation: &Violation, raw: Raw) -> Option<Stop> {
        Counters::count(&self.vm.counters.violations);
        match self.vm.memory.resolve(violation) {
            Outcome::Retry => None,
            outcome => self.unresolved(outcome, violation, raw),
        }
    }

    /// A violation that the memory did not resolve by itself.
    #[inline(never)]
    fn unresolved(&mut self, outcome: Outcome, violation: &Violation, raw: Raw) -> Option<Stop> {
        match outcome {
            Outcome::Delegated(fault) => self.deliver(fault, violation, raw),
            Outcome::Failed(FaultError::Killed) => Some(Stop::Killed),
            why => {
                let Violation { addr, access, .. } = *violation;
                Some(self.broken(Fatal::Memory { addr, access, why }, raw))
            }
        }
    }

    /// Resolves a violation that the guest could have dealt with by itself; again with the next run, if the owner is to.
    pub(crate) fn resolve_for_guest(&mut self, violation: Violation) -> Option<Stop> {
        let stop = self.violated(&violation, Raw::default());
        if let Some(Stop::Userfault(_)) = stop {
            self.unresolved = Some(violation);
        }
        stop
    }

    /// Tells the guest's monitor of a delegated access, or else the owner.
    fn deliver(&mut self, fault: MemoryFault, violation: &Violation, raw: Raw) -> Option<Stop> {
        match self.inject_fault(&fault, violation) {
            Ok(true) => {
                Counters::count(&self.vm.counters.injected);
                None
            }
            Ok(false) => {
                Counters::count(&self.vm.counters.delegated);
                Some(Stop::Userfault(fault))
            }
            Err(why) => Some(self.broken(why, raw)),
        }
    }

    /// Puts a fault into the guest's ring and injects its vector in front of the instruction that faulted. False when the
    /// guest is not to be told of this one, or cannot be told now.
    fn inject_fault(&mut self, fault: &MemoryFault, violation: &Violation) -> Result<bool, Fatal> {
        let Some(monitor) = self.vm.monitor() else {
            return Ok(false);
        };
        // An event that was cut short comes first, and what is injected meanwhile would not come in front of the
        // instruction.
        if monitor.delivery != Delivery::Injected
            || violation.in_delivery
            || !self.vm.is_for_monitor(fault.addr)
            || self.registers.rflags & INTERRUPTS == 0
        {
            return Ok(false);
        }
        let mut ring = monitor.ring;
        let page = ring.page;
        let gone = |_| Fatal::RingGone(page);
        let mut tail = [0; 4];
        self.vm.memory.read(ring.tail_at(), &mut tail).map_err(gone)?;
        let place = ring.next(u32::from_le_bytes(tail)).map_err(Fatal::Ring)?;
        let interrupt = Injection::Interrupt(monitor.vector);
        if V::inject(&mut self.control, &self.registers, interrupt) == Injected::NotNow {
            return Ok(false);
        }
        let entry = RingEntry {
            addr: fault.addr.as_u64(),
            flags: flags_of(fault, violation),
        };
        self.vm
            .memory
            .write(place, &ring::bytes_of(entry))
            .map_err(gone)?;
        let head = ring.advance();
        self.vm
            .memory
            .write(ring.head_at(), &head.to_le_bytes())
            .map_err(gone)?;
        self.vm.put_back_ring(ring);
        Ok(true)
    }
}

fn flags_of(fault: &MemoryFault, violation: &Violation) -> u64 {
    let mut flags = match fault.access {
        Access::Read => 0,
        Access::Write => FAULT_WRITE,
        Access::Execute => FAULT_FETCH,
    };
    if fault.kind == TrapKind::Minor {
        flags |= FAULT_MINOR;
    }
    if violation.walk {
        flags |= FAULT_WALK;
    }
    flags
}

/// Ticks of the clock as time.
fn duration(ticks: u64) -> Duration {
    let nanos = u128::from(ticks) * 1_000_000_000 / u128::from(Machine::frequency().max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
