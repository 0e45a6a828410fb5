//! The machine as a whole: RAM, CPUs, a clock, and the account of what went wrong.
//!
//! ```text
//! let machine = SoftMachine::start(Config::default());   // this thread is CPU 0
//! std::thread::scope(|s| { s.spawn(|| { let _cpu = machine.enter(); .. }); });   // that one is CPU 1
//! drop(machine);                                         // checks, then gives the RAM back
//! ```
//!
//! Every test has a machine of its own, found through a thread-local, so tests run in parallel. Leaving it checks that all
//! other CPUs have left, that no [`MissedFlush`] stands unread and that every frame is back.

use core::ops::Deref;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::boxed::Box;
use std::string::String;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;
use std::vec::Vec;
use std::{format, println};

use super::arena::Arena;
use super::mmu::{self, Mapping, WalkError};
use super::processor::{self, Processor, lock};
use super::tlb::{self, MissedFlush, MmuFault, Mode, Report};
use crate::arch::MAX_CPUS;
use crate::mm::addr::{PAGE_SIZE, Pfn, PhysAddr, USER_TOP, VirtAddr};
use crate::mm::fault::Access;
use crate::mm::frame::{FrameMeta, Kind};
use crate::mm::kernel::KernelMm;
use crate::mm::pt::PageTable;

/// How long the last CPU waits for the others to leave.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(30);

/// What a machine is made of.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Bytes of RAM.
    pub memory: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { memory: 16 << 20 }
    }
}

/// A flush that the kernel asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlushCall {
    /// One page.
    Page {
        /// On which CPU.
        cpu: usize,
        /// Its address.
        addr: VirtAddr,
    },
    /// A range, asked for by another CPU.
    Range {
        /// On which CPU.
        cpu: usize,
        /// First address.
        start: VirtAddr,
        /// First address past it.
        end: VirtAddr,
    },
    /// All that is not global.
    All {
        /// On which CPU.
        cpu: usize,
    },
    /// A new root, which implies `All`.
    Root {
        /// On which CPU.
        cpu: usize,
        /// The root.
        root: Pfn,
    },
}

/// A software machine. Lives for ever (tests are short), its RAM does not.
#[derive(Debug)]
pub struct SoftMachine {
    arena: Arena,
    cpus: Mutex<[Option<&'static Processor>; MAX_CPUS]>,
    entered: AtomicUsize,
    /// Notified with `cpus` when a CPU has left.
    left: Condvar,
    clock: AtomicU64,
    missed: Mutex<Vec<MissedFlush>>,
    flushes: Mutex<Vec<FlushCall>>,
    swallow: AtomicUsize,
    mm: KernelMm,
}

/// Every machine there was, kept reachable for leak checkers.
static MACHINES: Mutex<Vec<&'static SoftMachine>> = Mutex::new(Vec::new());

/// A started machine; the thread that holds it is CPU 0. Dropping it leaves and checks the machine.
#[derive(Debug)]
pub struct Running {
    machine: &'static SoftMachine,
    cpu: Option<Entered>,
}

/// The calling thread as a CPU of a machine, until dropped.
#[derive(Debug)]
pub struct Entered {
    processor: &'static Processor,
    before: Option<&'static Processor>,
    /// A thread-local was set: the guard has to be dropped where it was made.
    _not_send: core::marker::PhantomData<*const ()>,
}

impl SoftMachine {
    /// Starts a machine; the calling thread becomes its CPU 0.
    #[must_use = "the machine is left when the guard is dropped"]
    pub fn start(config: Config) -> Running {
        let machine: &'static Self = Box::leak(Box::new(Self {
            arena: Arena::new(config.memory),
            cpus: Mutex::new([None; MAX_CPUS]),
            entered: AtomicUsize::new(0),
            left: Condvar::new(),
            clock: AtomicU64::new(0),
            missed: Mutex::default(),
            flushes: Mutex::default(),
            swallow: AtomicUsize::new(0),
            mm: KernelMm::new(),
        }));
        lock(&MACHINES).push(machine);
        let running = Running {
            machine,
            cpu: Some(machine.enter()),
        };
        machine.give_ram_to_kernel();
        let table = PageTable::new().expect("RAM is plenty");
        machine.mm.start(table).expect("RAM is plenty");
        processor::current().set_root(machine.mm.root().as_u64());
        running
    }

    /// What boot code does on bare metal: the frame metadata goes to the start of RAM, the rest to the allocator.
    fn give_ram_to_kernel(&self) {
        let (start, end) = self.ram();
        let frames = Pfn::containing(end).as_u64() as usize;
        let table_bytes = (frames * size_of::<FrameMeta>()) as u64;
        let first = start
            .checked_add(table_bytes)
            .and_then(|addr| addr.align_up(PAGE_SIZE));
        let first = first
            .filter(|first| *first < end)
            .expect("RAM is larger than its metadata");
        let table = self
            .arena
            .pointer(start, table_bytes)
            .expect("inside RAM, as checked");
        // SAFETY: the table lies in RAM that is not donated, at page alignment; this is the first use of the allocator.
        unsafe { self.mm.frames.install(table.cast(), frames) };
        // SAFETY: the rest of RAM is used by nobody.
        unsafe {
            self.mm
                .frames
                .donate(Pfn::containing(first), Pfn::containing(end))
        };
    }

    /// The memory manager's state.
    pub fn mm(&self) -> &KernelMm {
        &self.mm
    }

    /// Makes the calling thread one more CPU of this machine: the lowest number that is free.
    ///
    /// # Panics
    /// All of [`MAX_CPUS`] are taken, or the thread holds a lock.
    #[must_use = "the machine is left when the guard is dropped"]
    pub fn enter(&'static self) -> Entered {
        processor::current().assert_may_sleep("entering a machine");
        let mut cpus = lock(&self.cpus);
        let id = cpus
            .iter()
            .position(Option::is_none)
            .expect("a machine has MAX_CPUS CPUs");
        let processor = Processor::new(id, Some(self));
        processor.set_root(self.mm.root().as_u64());
        cpus[id] = Some(processor);
        self.entered.fetch_add(1, Relaxed);
        let before = processor::become_processor(Some(processor));
        Entered {
            processor,
            before,
            _not_send: core::marker::PhantomData,
        }
    }

    /// The machine that the calling thread is a CPU of.
    ///
    /// # Panics
    /// It is none.
    pub fn current() -> &'static Self {
        processor::current()
            .machine
            .expect("the test entered a software machine (arch::host::SoftMachine::start)")
    }

    /// First and past-the-end address of RAM.
    pub fn ram(&self) -> (PhysAddr, PhysAddr) {
        (super::arena::RAM_START, self.arena.end())
    }

    pub(super) fn arena(&self) -> &Arena {
        &self.arena
    }

    /// The word at `addr`, for a device or another kind of CPU; `None` outside of RAM.
    pub fn word(&self, addr: PhysAddr) -> Option<&AtomicU64> {
        self.arena.word(addr)
    }

    /// The word at `addr` as it is now; `None` outside of RAM.
    pub fn peek(&self, addr: PhysAddr) -> Option<u64> {
        Some(self.arena.word(addr)?.load(Relaxed))
    }

    /// What the CPU's page walk from `root` finds at `addr`, without marking anything as used; `None` for a page fault.
    ///
    /// # Panics
    /// The tables hold what no kernel may write.
    pub fn walk(&self, root: Pfn, addr: VirtAddr) -> Option<Mapping> {
        match mmu::walk(&self.arena, root.start(), addr) {
            Ok(walk) => Some(walk.mapping),
            Err(WalkError::NotPresent { .. }) => None,
            Err(broken) => panic!("the page tables are broken at {addr:?}: {broken:x?}"),
        }
    }

    /// Advances the clock by `ticks` and returns what it shows then.
    pub fn advance(&self, ticks: u64) -> u64 {
        self.clock.fetch_add(ticks, Relaxed) + ticks
    }

    /// What this CPU makes of an access, cached translations included, without asking the kernel about a fault.
    ///
    /// # Errors
    /// The fault that the access would raise.
    pub fn probe(&self, addr: VirtAddr, access: Access, mode: Mode) -> Result<PhysAddr, MmuFault> {
        self.with_translation(processor::current(), addr, access, mode, |physical| physical)
    }

    /// Translates for `processor` and, while its translation cache is held, runs `then` on the physical address.
    pub(super) fn with_translation<R>(
        &self,
        processor: &Processor,
        addr: VirtAddr,
        access: Access,
        mode: Mode,
        then: impl FnOnce(PhysAddr) -> R,
    ) -> Result<R, MmuFault> {
        let concurrent = self.entered.load(Relaxed) > 1;
        let mut record = |stale| lock(&self.missed).push(MissedFlush::Used(stale));
        let mut report = Report {
            cpu: processor.id,
            concurrent,
            record: &mut record,
            filled: None,
        };
        let root = Pfn::new(processor.root());
        let result = processor
            .tlb()
            .translate(&self.arena, root, addr, access, mode, &mut report)
            .map(then);
        if let Some(mapping) = report.filled.filter(|_| addr < USER_TOP) {
            self.note_reached(root, addr, &mapping);
        }
        result
    }

    /// A CPU has just cached `mapping` for `addr`. If the frame is memory of tasks and has one owner, the entry there is it,
    /// so that no CPU may still reach the page at an address where it was before. Entries that own nothing, like those of
    /// the shared page of zeros, may be anywhere.
    fn note_reached(&self, root: Pfn, addr: VirtAddr, mapping: &Mapping) {
        let is_its_only_place = || {
            let pfn = Pfn::containing(mapping.base);
            pfn.as_u64() < self.mm.frames.span()
                && self.mm.frames.meta(pfn).kind() == Kind::Anon
                && self.mm.frames.owners(pfn) == 1
                && tlb::leads_to(&self.arena, root, addr, mapping)
        };
        if !is_its_only_place() {
            return;
        }
        for processor in lock(&self.cpus).iter().flatten() {
            // Held to the end: nothing is flushed on that CPU meanwhile, so that the order of events is certain.
            let tlb = processor.tlb();
            let stale = tlb.stale_way_to(&self.arena, Pfn::new(processor.root()), mapping);
            if let Some((from, cached)) = stale
                && is_its_only_place()
            {
                lock(&self.missed).push(MissedFlush::Moved {
                    cpu: processor.id,
                    from,
                    to: addr,
                    cached,
                });
            }
        }
    }

    /// Carries out a flush on a CPU, unless it is to be lost.
    pub(super) fn flush(&self, call: FlushCall) {
        lock(&self.flushes).push(call);
        let may_be_lost = !matches!(call, FlushCall::Root { .. });
        let lost = may_be_lost
            && self
                .swallow
                .try_update(Relaxed, Relaxed, |n| n.checked_sub(1))
                .is_ok();
        let (FlushCall::Page { cpu, .. }
        | FlushCall::Range { cpu, .. }
        | FlushCall::All { cpu }
        | FlushCall::Root { cpu, .. }) = call;
        let Some(processor) = lock(&self.cpus)[cpu] else {
            return;
        };
        let mut tlb = processor.tlb();
        match call {
            FlushCall::Page { addr, .. } if !lost => tlb.flush_page(addr),
            FlushCall::Range { start, end, .. } if !lost => tlb.flush_range(start, end),
            FlushCall::All { .. } if !lost => tlb.flush_all(),
            FlushCall::Root { root, .. } => {
                processor.set_root(root.as_u64());
                tlb.flush_all();
            }
            _ => {}
        }
    }

    /// Loses the next `count` flushes of pages or of everything (loads of a root are not lost): what a kernel with a
    /// flush missing would do. For tests that show that such a kernel is caught.
    pub fn lose_flushes(&self, count: usize) {
        self.swallow.store(count, Relaxed);
    }

    /// Flushes asked for since the last call.
    pub fn take_flushes(&self) -> Vec<FlushCall> {
        core::mem::take(&mut lock(&self.flushes))
    }

    /// Flushes found missing since the last call; whoever takes them answers for them.
    pub fn take_missed_flushes(&self) -> Vec<MissedFlush> {
        let mut missed = core::mem::take(&mut *lock(&self.missed));
        for processor in lock(&self.cpus).iter().flatten() {
            missed.extend(processor.tlb().suspects().map(MissedFlush::Used));
        }
        missed
    }

    /// The block of 2^`order` frames at `first` goes back to the allocator: no CPU may still reach it.
    pub(super) fn note_freed(&self, first: Pfn, order: u8) {
        let (start, end) = (first.start(), first.offset(1 << order).start());
        for processor in lock(&self.cpus).iter().flatten() {
            if let Some(cached) = processor.tlb().reference_to(start, end) {
                lock(&self.missed).push(MissedFlush::Freed {
                    cpu: processor.id,
                    frame: first,
                    cached,
                });
            }
        }
    }

    fn cpus_in_use(&self) -> usize {
        lock(&self.cpus).iter().flatten().count()
    }

    /// Waits until the caller's CPU is the only one: the thread of a task is on its way out for a moment after the task has
    /// been joined.
    fn wait_for_others(&self) {
        let in_use = |cpus: &mut [Option<&Processor>; MAX_CPUS]| cpus.iter().flatten().count() > 1;
        let waited = self
            .left
            .wait_timeout_while(lock(&self.cpus), LEAVE_TIMEOUT, in_use);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// What has to be in order when the machine is left.
    fn complaints(&self) -> Vec<String> {
        let mut complaints: Vec<String> = self
            .take_missed_flushes()
            .iter()
            .map(|missed| format!("a flush is missing: {missed:x?}"))
            .collect();
        let stats = self.mm.frames.stats();
        for kind in Kind::ALL.iter().filter(|kind| stats.of(**kind) > 0) {
            complaints.push(format!(
                "{} frame(s) of kind {} were not given back",
                stats.of(*kind),
                kind.name()
            ));
        }
        let others = self.cpus_in_use();
        if others > 0 {
            complaints.push(format!(
                "{others} CPU(s) are still in the machine: was every task joined?"
            ));
        }
        complaints
    }
}

impl Running {
    /// The machine, for other threads to enter.
    pub fn machine(&self) -> &'static SoftMachine {
        self.machine
    }
}

impl Deref for Running {
    type Target = SoftMachine;
    fn deref(&self) -> &SoftMachine {
        self.machine
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.machine.wait_for_others();
        self.machine.mm.stop();
        drop(self.cpu.take());
        let complaints = self.machine.complaints();
        if self.machine.cpus_in_use() == 0 {
            // SAFETY: no thread is a CPU of the machine, so no kernel code runs on it, and what kernel objects remain
            // are leaked or forgotten; the arena itself panics on later accesses.
            unsafe { self.machine.arena.release() };
        }
        if !complaints.is_empty() {
            let text = complaints.join("\n");
            if std::thread::panicking() {
                println!("also, when the machine was left:\n{text}");
            } else {
                panic!("when the machine was left:\n{text}");
            }
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.processor.assert_may_sleep("leaving a machine");
        }
        processor::become_processor(self.before);
        let machine = self
            .processor
            .machine
            .expect("entered processors belong to a machine");
        lock(&machine.missed).extend(self.processor.tlb().suspects().map(MissedFlush::Used));
        lock(&machine.cpus)[self.processor.id] = None;
        machine.entered.fetch_sub(1, Relaxed);
        machine.left.notify_all();
    }
}
