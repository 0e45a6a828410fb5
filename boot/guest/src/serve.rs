//! The guest's own monitor: a task that serves delegated memory from the store.
//!
//! The store holds what delegated memory held when the guest was saved, page by page. How well the monitor does its job can be
//! chosen, to see what becomes of a guest whose monitor does not.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use kernel::abi::guest::{BootInfo, Delivery};
use kernel::guest::calls;
use kernel::guest::monitor::Monitor;
use kernel::mm::addr::{GuestPhysAddr, PAGE_SIZE, PhysAddr};
use kernel::mm::range::GuestRange;
use kernel::task;
use kernel::uffd::{Event, FillMode, Outcome, Refusal, Stage2};

use crate::commands::Failure;
use crate::delegated::Window;

/// How a monitor serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// As it should.
    Right,
    /// Half of the time it fills the page behind the one that is asked for, and wakes whoever asked.
    Wrong,
    /// It fills each page twice.
    Twice,
    /// It takes its time.
    Late,
    /// It ends after a few pages.
    Dies,
    /// It touches what delegated memory begins with, which it is to serve unless it is exempt.
    Touches,
}

impl Manner {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Right,
        Self::Wrong,
        Self::Twice,
        Self::Late,
        Self::Dies,
        Self::Touches,
    ];
    /// Their words on the command line.
    pub const WORDS: &[&str] = &["right", "wrong", "twice", "late", "dies", "touches"];
}

/// Faults that a monitor which dies still serves.
const LIFETIME: u64 = 3;
/// What a monitor that is late waits.
const DELAY: Duration = Duration::from_millis(15);

/// The monitor, seen from outside its task.
pub struct Server {
    monitor: &'static Monitor,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    messages: AtomicU64,
    filled: AtomicU64,
    existed: AtomicU64,
}

/// What a monitor is to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How well.
    pub manner: Manner,
    /// The first pages of delegated memory that stay the owner's.
    pub exempt: u64,
    /// Whether it is told, by #VE, of pages only that are not in the cache.
    pub views: bool,
}

/// Starts the monitor; faults are its business when this returns.
///
/// # Errors
/// It cannot be had on this machine.
pub fn start(given: &'static BootInfo, delivery: Delivery, plan: Plan) -> Result<Server, Failure> {
    let Plan {
        manner,
        exempt,
        views,
    } = plan;
    if exempt > 0 {
        let start = PhysAddr::new(given.delegated_start);
        calls::exempt(start, exempt * PAGE_SIZE).map_err(Failure::failed)?;
    }
    let memory = Window::delegated(given)?;
    let store = Window::map("store", given.store_start, given.store_len)?;
    let monitor = Monitor::start(delivery, views).map_err(Failure::failed)?;
    let counts = Arc::new(Counts::default());
    let serving = Serving {
        monitor,
        memory,
        store: store.contents(),
        start: GuestPhysAddr::new(given.delegated_start),
        manner,
        counts: Arc::clone(&counts),
    };
    let task = task::spawn("monitor", None, move || serving.serve()).map_err(Failure::failed)?;
    monitor.uffd().attach_monitor(&task);
    Ok(Server { monitor, counts })
}

impl Server {
    /// What it has done, in a line.
    pub fn summary(&self) -> String {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (told, own) = (&self.monitor.counters, &self.counts);
        format!(
            "monitor injected={} exceptions={} switched={} left={} spurious={} messages={} filled={} existed={}",
            get(&told.injected),
            get(&told.exceptions),
            get(&told.switched),
            get(&told.left),
            get(&told.spurious),
            get(&own.messages),
            get(&own.filled),
            get(&own.existed),
        )
    }
}

/// What the monitor's task has.
struct Serving {
    monitor: &'static Monitor,
    memory: Window,
    store: &'static [u8],
    start: GuestPhysAddr,
    manner: Manner,
    counts: Arc<Counts>,
}

impl Serving {
    /// Serves until nobody needs it any more.
    fn serve(&self) -> Result<(), String> {
        let uffd = self.monitor.uffd();
        let stage2 = uffd.stage2().ok_or("the context is not a guest's")?;
        loop {
            let addr = match uffd.read_event() {
                Ok(Event::GuestFault { addr, .. }) => addr,
                other => return Err(format!("the monitor read {other:?}")),
            };
            let messages = self.counts.messages.fetch_add(1, Ordering::Relaxed);
            match self.manner {
                Manner::Dies if messages == LIFETIME => return Ok(()),
                Manner::Wrong if messages.is_multiple_of(2) => self.serve_other(&stage2, addr)?,
                Manner::Twice => {
                    self.serve_page(&stage2, addr)?;
                    self.serve_page(&stage2, addr)?;
                }
                Manner::Late => {
                    task::sleep(DELAY);
                    self.serve_page(&stage2, addr)?;
                }
                Manner::Touches => {
                    self.memory.load(0, 0);
                    self.serve_page(&stage2, addr)?;
                }
                _ => self.serve_page(&stage2, addr)?,
            }
        }
    }

    /// Fills the page at `addr` from the store.
    fn serve_page(&self, stage2: &Stage2<'_>, addr: GuestPhysAddr) -> Result<(), String> {
        let offset = (addr - self.start) as usize;
        let page = self
            .store
            .get(offset..offset + PAGE_SIZE as usize)
            .ok_or_else(|| format!("the store has nothing for {addr}"))?;
        match stage2.copy(addr, page, FillMode::empty()) {
            Outcome::Done => {
                self.counts.filled.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            // Filled already: by the owner, or for another task. Whether it is mapped is another question.
            Outcome::Refused(Refusal::Exists) => {
                self.counts.existed.fetch_add(1, Ordering::Relaxed);
                self.let_in(stage2, addr)
            }
            other => Err(format!("the page at {addr} cannot be filled: {other:?}")),
        }
    }

    /// Maps a page that is in the cache, and has whoever waits for it look again.
    fn let_in(&self, stage2: &Stage2<'_>, addr: GuestPhysAddr) -> Result<(), String> {
        let range = GuestRange::page(addr);
        match stage2.cont(range, FillMode::empty()) {
            Outcome::Done => Ok(()),
            Outcome::Refused(Refusal::Exists) => stage2.wake(range).map_err(|why| format!("{why:?}")),
            other => Err(format!(
                "the page at {addr} exists and cannot be mapped: {other:?}"
            )),
        }
    }

    /// Fills the page behind the one at `addr`, if there is one, and wakes whoever waits for the latter.
    fn serve_other(&self, stage2: &Stage2<'_>, addr: GuestPhysAddr) -> Result<(), String> {
        let next = addr + PAGE_SIZE;
        if next - self.start < self.store.len() as u64 {
            self.serve_page(stage2, next)?;
        }
        stage2
            .wake(GuestRange::page(addr))
            .map_err(|why| format!("{why:?}"))
    }
}
