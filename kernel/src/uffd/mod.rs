//! The userfault channel: faults of one address space, delegated to a monitor.
//!
//! ```text
//!   faulting task                          monitor
//!   ─────────────                          ───────
//!   Space::step: classify, enqueue
//!   hand over ───── wakes a reader ──────► Uffd::read_event
//!   sleeps in its FaultSlot                Uffd::copy / zeropage
//!   runs again  ◄─── wakes the range ───── (default of every fill), or Uffd::wake
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | [`api`], [`release`] | the handshake; what a context offers, also what older releases of Linux did |
//! | [`ctx`] | the context, [`Uffd`], the monitor's handle to it, and [`Resolver`], who has the operations |
//! | [`register`] | registering and unregistering ranges |
//! | [`classify`](mod@classify) | which fault is a trap: a pure function |
//! | [`admit`](mod@admit) | which traps become messages: a pure function |
//! | [`slot`], [`queue`], `waiters`, `readers` | the fault a task waits for; who waits, and who reads |
//! | [`event`] | what a monitor reads |
//! | [`guest`] | faults of a guest's memory: stage 2 |
//! | [`layout`], `fork` | changes of the space that it is told about: fork, mremap, madvise, munmap |
//! | [`ops`] | what a monitor does |
//! | [`delivery`] | ways of handing a fault over |
//! | [`diagnosis`] | who is stuck on which page, and why |
//! | `self_fault` | whether a fault would wait for the very task that faults |
//! | [`policy`] | who the monitor is, and what follows when it ends |
//! | [`linux`] | what Linux answers for each outcome, and how it lays things out |
//!
//! Semantics are those of Linux's userfaultfd (checked against 6.18) unless a doc comment says otherwise. Outcomes are
//! enums: "n bytes done", "refused, and why" never share an integer.
//!
//! **Order.** Faults are read oldest first, then events, oldest first. A fault is read by one reader, once. A fault that
//! is resolved or woken before it is read disappears. Whoever is woken executes its access again and, if the page is still
//! missing, queues a new message.
//!
//! **When the monitor goes.** Closing the last handle drops the registrations and wakes everybody: the memory is plain
//! from then on, as on Linux. A monitor *task* that ends while it is attached ([`Uffd::attach_monitor`]) and the context
//! still open is lost, also when the last handle goes with it; what follows is a declared [`policy`], and by default every
//! waiting and every later missing touch fails with [`FaultError::MonitorGone`](crate::mm::fault::FaultError::MonitorGone): no
//! silent zeros, no hang.
//!
//! **Locks.** A context's queue is locked after the space's areas and table, never before. A task is woken with no lock of
//! this module's held except the queue's.

pub mod admit;
pub mod api;
pub mod classify;
pub mod ctx;
pub mod delivery;
pub mod diagnosis;
pub mod event;
mod fork;
pub mod guest;
pub mod layout;
pub mod linux;
#[cfg(all(test, loom))]
mod loom_tests;
pub mod ops;
pub mod policy;
pub mod queue;
mod readers;
pub mod register;
pub mod release;
mod self_fault;
pub mod slot;
mod waiters;

pub use admit::{Admission, admit};
pub use api::{Agreement, ApiError, Features, Flags, Handshake, Ioctls, Unavailable};
pub use classify::{CacheState, EntryState, Trap, TrapKind, classify};
pub use ctx::{Ctx, CtxId, Resolver, Uffd, UnknownFlag};
pub use delivery::{Delivery, FaultHandler, Handled, Upcall};
pub use event::{Event, ReadError};
pub(crate) use fork::Forks;
pub use guest::{GuestBacking, GuestFault, Stage, Stage2};
pub use layout::EventSlot;
pub(crate) use layout::{Change, Changes};
pub use ops::{FillMode, MoveMode, Outcome, RangeError, Refusal, WakeError, WriteProtectError};
pub use policy::MonitorDeath;
pub use readers::Watcher;
pub use register::{RegisterError, Registered, UnregisterError};
pub use release::Release;
pub(crate) use slot::OriginBefore;
pub use slot::{Fault, FaultSlot};

pub use crate::mm::memtype::{Modes, OpSet};
