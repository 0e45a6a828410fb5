//! Faults on delegated memory, told to the guest itself: from the hypervisor's word to a message of the guest's own channel.
//!
//! ```text
//!   task touches an absent page                        monitor task
//!        │ violation                                        │
//!        ▼                                                  │
//!   hypervisor: entry into the ring, vector injected        │     (inject)
//!   CPU: page described, #VE raised                         │     (ve)
//!        ▼                                                  │
//!   handler, on the task: Monitor::fault ── queue ────────► Uffd::read_event
//!   sleeps; the scheduler runs somebody else                Uffd::stage2: copy, ... ── hypercall ──► page filled, mapped
//!   touches the page again ◄────────────── wakes ──────────
//! ```
//!
//! The handler may sleep where a page fault's may: with interrupts on and no lock held. Elsewhere the hypervisor is asked to
//! have the machine's owner resolve the access ([`calls::resolve`]).
//!
//! With #VE a CPU may also switch views. Then the first answer to a violation is the view in which every page is there that
//! the cache holds: a page that is needs no message and no exit. What is absent in that view as well is asked for, in the
//! other one, where it will be there.
//!
//! ```text
//!   VIEW_DELEGATING ── violation: VMFUNC, touch it again ──► VIEW_CACHED
//!          ◄──────────── violation: VMFUNC, then a message ──────┘
//! ```
//!
//! Between the violation and the queue another task may have been served the same page. Nothing is lost then: the monitor
//! reads the message, is told that the page exists, and wakes the range.

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::{Arc, Weak};
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use super::answer::CallError;
use super::backing::Hypercalls;
use super::calls::{self, Telling};
use super::pages::{self, Shared};
use super::ring::RingPage;
use super::violation::ViolationPage;
use crate::abi::guest::{
    Delivery, ExitCode, FAULT_FETCH, FAULT_MINOR, FAULT_WRITE, RingEntry, VIEW_CACHED, VIEW_DELEGATING,
};
use crate::arch::GUEST_FAULT;
use crate::mm::addr::{GuestPhysAddr, PhysAddr};
use crate::mm::fault::{Access, FaultError, Origin};
use crate::mm::frame::OutOfFrames;
use crate::println;
use crate::sync::Published;
use crate::task::{self, Outcome};
use crate::trace;
use crate::trace::record::ExitStatus;
use crate::uffd::{self, CacheState, Features, Flags, GuestFault, Uffd};

/// Who is told of violations.
static CURRENT: Published<Monitor> = Published::new();

/// The one who is told, once one was declared.
pub(crate) fn current() -> Option<&'static Monitor> {
    CURRENT.get()
}

/// Why a guest cannot serve itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartError {
    /// No frame for the pages that are shared with the hypervisor.
    OutOfFrames,
    /// The hypervisor does not want it.
    Refused(CallError),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfFrames => f.write_str("no memory for the pages shared with the hypervisor"),
            Self::Refused(why) => why.fmt(f),
        }
    }
}

impl From<OutOfFrames> for StartError {
    fn from(_: OutOfFrames) -> Self {
        Self::OutOfFrames
    }
}

/// How often what happened.
#[derive(Debug, Default)]
pub struct Counters {
    /// Faults that were injected.
    pub injected: AtomicU64,
    /// Faults that came as #VE.
    pub exceptions: AtomicU64,
    /// Of the latter, those that were answered by the other view, at first.
    pub switched: AtomicU64,
    /// Of all, those that were left to the machine's owner.
    pub left: AtomicU64,
    /// Interrupts that came with nothing in the ring.
    pub spurious: AtomicU64,
}

/// What a #VE comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Violated {
    /// The access is made again in the other view.
    InOtherView,
    /// The page is not there.
    Fault(RingEntry),
}

/// The guest's end of the deliveries, and its channel.
#[derive(Debug)]
pub struct Monitor {
    uffd: Uffd,
    /// Keeps what the context's operations ask.
    _backing: Arc<Hypercalls>,
    ring: Shared<RingPage>,
    violations: Option<Shared<ViolationPage>>,
    views: bool,
    /// Which view the CPU is in: nobody else switches.
    view: AtomicU64,
    /// What it has done.
    pub counters: Counters,
}

impl Monitor {
    /// Faults on delegated memory become messages of the context that this returns with itself, for good. They are told in
    /// the way `delivery`; with `views`, which take #VE, only those on pages that the cache does not hold. Whoever reads them attaches itself first, with [`Uffd::attach_monitor`], so that nobody waits for
    /// a reader that is not there: a fault that comes before is read later.
    ///
    /// # Errors
    /// See [`StartError`]; nothing changed but some memory, which is lost.
    pub fn start(delivery: Delivery, views: bool) -> Result<&'static Self, StartError> {
        let backing = Arc::new(Hypercalls);
        let weak: Weak<Hypercalls> = Arc::downgrade(&backing);
        let violations = match delivery {
            Delivery::Injected => None,
            Delivery::VirtualizationException => Some(Shared::new()?),
        };
        // Its pages are the hypervisor's once that knows them, so it lives for ever.
        let monitor = &*Box::leak(Box::new(Self {
            uffd: Uffd::for_guest(weak, Flags::empty(), Features::empty(), uffd::Delivery::Queue),
            _backing: backing,
            ring: Shared::new()?,
            violations,
            views,
            view: AtomicU64::new(VIEW_DELEGATING),
            counters: Counters::default(),
        }));
        let telling = match &monitor.violations {
            None => Telling::Injected,
            Some(page) => Telling::Exceptions {
                info: page.at(),
                views,
            },
        };
        // Before anybody is told of anything.
        CURRENT.set(monitor);
        calls::declare(monitor.ring.at(), GUEST_FAULT, telling).map_err(StartError::Refused)?;
        Ok(monitor)
    }

    /// The context.
    pub fn uffd(&self) -> &Uffd {
        &self.uffd
    }

    /// The fault that an injected interrupt is about: the youngest, should the hypervisor have put in several; the same task
    /// has made them, one after the other.
    pub(crate) fn injected(&self) -> Option<RingEntry> {
        let youngest = core::iter::from_fn(|| self.ring.take()).last();
        let counter = match youngest {
            Some(_) => &self.counters.injected,
            None => &self.counters.spurious,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        youngest
    }

    /// What a #VE is about; `None` when nobody asked for such. Interrupts are off.
    pub(crate) fn violated(&self) -> Option<Violated> {
        let page = self.violations.as_ref()?;
        self.counters.exceptions.fetch_add(1, Ordering::Relaxed);
        let entry = page.take();
        if !self.views {
            return Some(Violated::Fault(entry));
        }
        if self.view.load(Ordering::Relaxed) == VIEW_DELEGATING {
            self.counters.switched.fetch_add(1, Ordering::Relaxed);
            self.switch_view(VIEW_CACHED);
            return Some(Violated::InOtherView);
        }
        self.switch_view(VIEW_DELEGATING);
        Some(Violated::Fault(entry))
    }

    fn switch_view(&self, view: u64) {
        pages::switch_view(view);
        self.view.store(view, Ordering::Relaxed);
    }

    /// The current task has touched what `entry` says; returns when it is to touch it again. May sleep.
    pub(crate) fn fault(&self, entry: RingEntry) {
        let fault = GuestFault {
            addr: GuestPhysAddr::new(entry.addr),
            access: access(entry.flags),
            cache: if entry.flags & FAULT_MINOR == 0 {
                CacheState::Absent
            } else {
                CacheState::Present
            },
            origin: Origin::Task,
        };
        let task = task::current_arc();
        if let Err(error) = self.uffd.ctx().guest_fault(&fault, &task, || true) {
            give_up(fault.addr, error);
        }
    }

    /// The same where nobody may sleep.
    pub(crate) fn leave_to_owner(&self, entry: RingEntry) {
        self.counters.left.fetch_add(1, Ordering::Relaxed);
        if let Err(why) = calls::resolve(PhysAddr::new(entry.addr), entry.flags) {
            panic!(
                "delegated memory at {:#x} was touched where nobody may sleep, and nobody resolves it: {why}",
                entry.addr
            );
        }
    }
}

fn access(flags: u64) -> Access {
    match flags & (FAULT_WRITE | FAULT_FETCH) {
        0 => Access::Read,
        FAULT_FETCH => Access::Execute,
        _ => Access::Write,
    }
}

/// The access cannot be made: the task cannot go on, and unless it was killed, nor can the guest.
#[cold]
fn give_up(addr: GuestPhysAddr, error: FaultError) -> ! {
    let message = format!(
        "task {} touched delegated memory at {addr}: {error}",
        task::current_name()
    );
    match error {
        FaultError::Killed => task::exit(Outcome::Failed(message)),
        FaultError::SelfFault { .. } => {
            println!("{message}");
            calls::exit(ExitCode::SelfFault)
        }
        _ => trace::end(ExitStatus::Failed, &message),
    }
}
