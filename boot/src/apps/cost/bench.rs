//! The measurements, each on a fresh region of the measuring task's own space.

use alloc::sync::Arc;
use alloc::vec;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use kernel::arch::{Clock, Machine};
use kernel::lab::samples::Samples;
use kernel::mm::addr::{PAGE_SIZE, VirtAddr};
use kernel::mm::cache::Object;
use kernel::mm::memtype::{Granule, MemType};
use kernel::mm::pt::Prot;
use kernel::mm::range::VirtRange;
use kernel::mm::space::{MapError, MapRequest, Memory, Space};
use kernel::mm::uaccess::{self, AccessError};
use kernel::mm::vma::Sharing;
use kernel::task::spawn::{JoinHandle, SpawnError, spawn_returning};
use kernel::uffd::delivery::{Delivery, Handled, Upcall};
use kernel::uffd::{Event, Features, Modes, Outcome, ReadError, RegisterError, Uffd, WriteProtectError};

use super::operation::{Means, Operation, State};

/// Base pages of the largest single call.
const MAX_CALL: u64 = 512;
/// Huge pages of a region.
pub const HUGE_PAGES: u64 = 8;

/// Why something could not be measured.
#[derive(Debug)]
pub enum CostError {
    /// No region.
    Map(MapError),
    /// The channel refused the region.
    Register(RegisterError),
    /// No monitor.
    Spawn(SpawnError),
    /// A touch failed.
    Access(AccessError),
    /// A fill was not done.
    Fill(Outcome),
    /// Write protection did not change.
    Protect(WriteProtectError),
    /// The region could not be taken away again.
    Unmap,
    /// Another number of faults was served than there were touches.
    Served {
        /// Faults.
        faults: u64,
        /// Touches.
        touches: u64,
    },
}

impl fmt::Display for CostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map(error) => write!(f, "no region: {error:?}"),
            Self::Register(error) => write!(f, "the region could not be registered: {error:?}"),
            Self::Spawn(error) => write!(f, "no monitor: {error}"),
            Self::Access(error) => write!(f, "{error}"),
            Self::Fill(outcome) => write!(f, "a fill was not done: {outcome:?}"),
            Self::Protect(error) => write!(f, "write protection did not change: {error:?}"),
            Self::Unmap => f.write_str("the region could not be unmapped"),
            Self::Served { faults, touches } => write!(f, "{touches} touches, but {faults} faults"),
        }
    }
}

/// What a region is made of.
#[derive(Clone, Copy)]
pub struct Kind {
    /// For the names of rows.
    pub name: &'static str,
    /// The memory type.
    pub ty: &'static MemType,
    /// How an object is mapped; `None` for memory without one.
    pub object: Option<Sharing>,
}

/// The touch that is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// A load.
    Load,
    /// A store.
    Store,
}

/// How faults get to whoever resolves them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A monitor task reads messages.
    Queue,
    /// A handler runs on the faulting task.
    Upcall,
}

/// Where measurements are made.
pub struct Bench {
    space: Arc<Space>,
    pages: u64,
    /// What COPY copies: no page of zeros.
    source: Arc<[u8]>,
}

#[inline]
fn load(addr: VirtAddr) -> Result<(), AccessError> {
    uaccess::load(addr).map(drop)
}

#[inline]
fn store(addr: VirtAddr) -> Result<(), AccessError> {
    uaccess::store(addr, 1)
}

impl Bench {
    /// Measurements of `pages` pages each in `space`, which the measuring task runs in.
    pub fn new(space: &Arc<Space>, pages: u64) -> Self {
        let source = vec![0x5a; (MAX_CALL * PAGE_SIZE) as usize].into();
        Self {
            space: Arc::clone(space),
            pages,
            source,
        }
    }

    /// Bytes of a region.
    fn len(&self, kind: Kind) -> u64 {
        match kind.ty.granule() {
            Granule::Base => self.pages * PAGE_SIZE,
            Granule::Huge => self.pages.min(HUGE_PAGES) * Granule::Huge.size(),
        }
    }

    fn map(&self, len: u64, memory: Memory) -> Result<VirtRange, CostError> {
        let request = MapRequest {
            at: None,
            len,
            prot: Prot::READ | Prot::WRITE,
            memory,
        };
        self.space.map(request).map_err(CostError::Map)
    }

    fn unmap(&self, region: VirtRange) -> Result<(), CostError> {
        self.space.unmap(region).map_err(|_| CostError::Unmap)
    }

    /// Runs `measure` on a region with nothing in it, which is gone afterwards.
    fn with_region<R>(
        &self,
        kind: Kind,
        cached: bool,
        measure: impl FnOnce(VirtRange) -> Result<R, CostError>,
    ) -> Result<R, CostError> {
        let len = self.len(kind);
        let memory = match kind.object {
            None => Memory::Own(kind.ty),
            Some(sharing) => {
                let object = Object::new(kind.ty, len);
                if cached {
                    let other = self.map(len, Memory::shared(&object))?;
                    self.touch_all(kind, other, store)?;
                    self.unmap(other)?;
                }
                match sharing {
                    Sharing::Shared => Memory::shared(&object),
                    Sharing::Private => Memory::private(&object),
                }
            }
        };
        let region = self.map(len, memory)?;
        let result = measure(region);
        self.unmap(region)?;
        result
    }

    /// Two reads of the clock with nothing in between.
    pub fn clock(&self, kind: Kind) -> Result<Samples, CostError> {
        let nowhere = VirtRange::new(VirtAddr::new(0), VirtAddr::new(self.len(kind)));
        self.touch_all(kind, nowhere, |_| Ok(()))
    }

    /// A load from a page that is there.
    pub fn present(&self, kind: Kind) -> Result<Samples, CostError> {
        self.with_region(kind, false, |region| {
            self.touch_all(kind, region, store)?;
            self.touch_all(kind, region, load)
        })
    }

    /// A touch of memory that nobody has touched, and that no context traps.
    pub fn demand(&self, kind: Kind, touch: Touch) -> Result<Samples, CostError> {
        self.with_region(kind, false, |region| self.touch_each(kind, region, touch))
    }

    /// A store to a protected page whose context only wants to know later that there was one.
    pub fn noted(&self, kind: Kind) -> Result<Samples, CostError> {
        self.with_region(kind, false, |region| {
            self.touch_all(kind, region, store)?;
            let uffd = Uffd::new(&self.space, Features::WP_ASYNC);
            uffd.register(region, Modes::WP).map_err(CostError::Register)?;
            uffd.write_protect(region).map_err(CostError::Protect)?;
            self.touch_all(kind, region, store)
        })
    }

    /// A touch whose fault is resolved by the operation.
    pub fn fault<O: Operation>(&self, kind: Kind, touch: Touch, way: Way) -> Result<Samples, CostError> {
        self.with_start::<O, _>(kind, |region, means| {
            let calls = Arc::new(AtomicU64::new(0));
            let delivery = match way {
                Way::Queue => Delivery::Queue,
                Way::Upcall => handler::<O>(kind, &means, &calls),
            };
            let uffd = Arc::new(Uffd::with_delivery(&self.space, Features::empty(), delivery));
            self.begin::<O>(kind, &uffd, region)?;
            if way == Way::Upcall {
                let samples = self.touch_each(kind, region, touch);
                return self.served(kind, samples, calls.load(Ordering::Relaxed));
            }
            let monitor = monitor::<O>(kind, &uffd, means).map_err(CostError::Spawn)?;
            uffd.attach_monitor(monitor.task());
            // The monitor gets as far as waiting for the first message.
            kernel::task::yield_now();
            let samples = self.touch_each(kind, region, touch);
            uffd.close();
            match monitor.join() {
                Ok(Ok(faults)) => self.served(kind, samples, faults),
                Ok(Err(error)) => Err(error),
                Err(_) => self.served(kind, samples, 0),
            }
        })
    }

    /// The operation on a whole region that nobody waits for, `per_call` granules a call; samples are per granule.
    pub fn bulk<O: Operation>(&self, kind: Kind, per_call: u64) -> Result<Samples, CostError> {
        self.with_start::<O, _>(kind, |region, means| {
            let uffd = Uffd::new(&self.space, Features::empty());
            self.begin::<O>(kind, &uffd, region)?;
            let granule = kind.ty.granule().size();
            let mut samples = Samples::with_capacity(self.pages as usize);
            let mut start = region.start;
            while start < region.end {
                let end = region.end.min(start + per_call * granule);
                let range = VirtRange::new(start, end);
                let before = Machine::ticks();
                let called = O::call(&uffd, &means, range);
                let after = Machine::ticks();
                called?;
                samples.record((after - before) / (range.len() / granule));
                start = end;
            }
            Ok(samples)
        })
    }

    /// Runs `measure` on a region as the operation finds it, but not registered yet.
    fn with_start<O: Operation, R>(
        &self,
        kind: Kind,
        measure: impl FnOnce(VirtRange, Means) -> Result<R, CostError>,
    ) -> Result<R, CostError> {
        self.with_region(kind, O::START == State::Cached, |region| {
            let staging = if O::STAGED {
                let staging = self.map(region.len(), Memory::Own(kind.ty))?;
                self.touch_all(kind, staging, store)?;
                Some(staging)
            } else {
                None
            };
            let means = Means {
                space: Arc::clone(&self.space),
                source: Arc::clone(&self.source),
                region: region.start,
                staging: staging.map_or(region.start, |staging| staging.start),
            };
            let result = measure(region, means);
            staging.map_or(Ok(()), |staging| self.unmap(staging))?;
            result
        })
    }

    /// Registers the region for the operation and brings it into the state that it finds.
    fn begin<O: Operation>(&self, kind: Kind, uffd: &Uffd, region: VirtRange) -> Result<(), CostError> {
        if matches!(O::START, State::Present | State::Protected) {
            self.touch_all(kind, region, store)?;
        }
        uffd.register(region, O::MODES).map_err(CostError::Register)?;
        if O::START == State::Protected {
            uffd.write_protect(region).map_err(CostError::Protect)?;
        }
        Ok(())
    }

    /// The samples, if as many faults were served as there were touches.
    fn served(
        &self,
        kind: Kind,
        samples: Result<Samples, CostError>,
        faults: u64,
    ) -> Result<Samples, CostError> {
        let touches = self.len(kind) / kind.ty.granule().size();
        if faults == touches {
            return samples;
        }
        samples.and(Err(CostError::Served { faults, touches }))
    }

    fn touch_each(&self, kind: Kind, region: VirtRange, touch: Touch) -> Result<Samples, CostError> {
        match touch {
            Touch::Load => self.touch_all(kind, region, load),
            Touch::Store => self.touch_all(kind, region, store),
        }
    }

    #[inline]
    fn touch_all(
        &self,
        kind: Kind,
        region: VirtRange,
        touch: impl Fn(VirtAddr) -> Result<(), AccessError>,
    ) -> Result<Samples, CostError> {
        let mut samples = Samples::with_capacity(self.pages as usize);
        let mut page = region.start;
        while page < region.end {
            let before = Machine::ticks();
            let touched = touch(page);
            let after = Machine::ticks();
            touched.map_err(CostError::Access)?;
            samples.record(after - before);
            page = page + kind.ty.granule().size();
        }
        Ok(samples)
    }
}

/// The granule at an address that a message names.
#[inline]
fn granule(kind: Kind, addr: VirtAddr) -> VirtRange {
    VirtRange::new(addr, addr + kind.ty.granule().size())
}

/// Resolves every fault on the task that has it.
fn handler<O: Operation>(kind: Kind, means: &Means, calls: &Arc<AtomicU64>) -> Delivery {
    let (means, calls) = (means.clone(), Arc::clone(calls));
    Delivery::upcall(move |fault: &Upcall<'_>| {
        calls.fetch_add(1, Ordering::Relaxed);
        let start = fault.addr().align_down(kind.ty.granule().size());
        match O::call(fault, &means, granule(kind, start)) {
            Ok(()) => Handled::Resolved,
            Err(_) => Handled::Failed,
        }
    })
}

/// A task that resolves every fault of `uffd`; comes to how many those were, or to why one was not.
fn monitor<O: Operation>(
    kind: Kind,
    uffd: &Arc<Uffd>,
    means: Means,
) -> Result<JoinHandle<Result<u64, CostError>>, SpawnError> {
    let uffd = Arc::clone(uffd);
    spawn_returning("monitor", None, move || {
        let mut faults = 0;
        loop {
            match uffd.read_event() {
                Ok(Event::Pagefault { addr, .. }) => {
                    O::call(&uffd, &means, granule(kind, addr))?;
                    faults += 1;
                }
                Err(ReadError::Closed | ReadError::Orphaned | ReadError::Fresh | ReadError::Interrupted) => {
                    return Ok(faults);
                }
                // The context asked for no other events.
                Ok(_) | Err(ReadError::WouldBlock | ReadError::NotAdmitted) => {}
            }
        }
    })
}
