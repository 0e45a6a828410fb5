//! The measurements, each on a fresh region of the measuring task's own space.

use alloc::sync::Arc;
use alloc::vec;
use core::fmt;

use kernel::arch::{Clock, Machine};
use kernel::lab::samples::Samples;
use kernel::mm::addr::{PAGE_SIZE, VirtAddr};
use kernel::mm::memtype::anon::ANON;
use kernel::mm::pt::Prot;
use kernel::mm::range::VirtRange;
use kernel::mm::space::{MapError, MapRequest, Space};
use kernel::mm::uaccess::{self, AccessError};
use kernel::task::spawn::{JoinHandle, SpawnError, spawn_returning};
use kernel::uffd::{Event, Features, FillMode, Modes, Outcome, ReadError, RegisterError, Uffd};

/// Pages of the largest single call.
const MAX_CALL: usize = 512;

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
    /// The region could not be taken away again.
    Unmap,
    /// The monitor served another number of faults than there were touches.
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
            Self::Unmap => f.write_str("the region could not be unmapped"),
            Self::Served { faults, touches } => write!(f, "{touches} touches, but {faults} faults"),
        }
    }
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
        let source = vec![0x5a; MAX_CALL * PAGE_SIZE as usize].into();
        Self {
            space: Arc::clone(space),
            pages,
            source,
        }
    }

    fn samples(&self) -> Samples {
        Samples::with_capacity(self.pages as usize)
    }

    /// Runs `measure` on a region with nothing in it, which is gone afterwards.
    fn with_region<R>(
        &self,
        measure: impl FnOnce(VirtRange) -> Result<R, CostError>,
    ) -> Result<R, CostError> {
        let len = self.pages * PAGE_SIZE;
        let request = MapRequest {
            at: None,
            len,
            prot: Prot::READ | Prot::WRITE,
            ty: &ANON,
        };
        let region = self.space.map(request).map_err(CostError::Map)?;
        let result = measure(region);
        self.space.unmap(region).map_err(|_| CostError::Unmap)?;
        result
    }

    /// Two reads of the clock with nothing in between.
    pub fn clock(&self) -> Result<Samples, CostError> {
        self.touch_all(
            VirtRange::new(VirtAddr::new(0), VirtAddr::new(self.pages * PAGE_SIZE)),
            |_| Ok(()),
        )
    }

    /// A load from a page that is there.
    pub fn present(&self) -> Result<Samples, CostError> {
        self.with_region(|region| {
            self.touch_all(region, store)?;
            self.touch_all(region, load)
        })
    }

    /// A load from anonymous memory that nobody has touched: the shared zero page is mapped.
    pub fn demand_load(&self) -> Result<Samples, CostError> {
        self.with_region(|region| self.touch_all(region, load))
    }

    /// A store to anonymous memory that nobody has touched: a page is cleared and mapped.
    pub fn demand_store(&self) -> Result<Samples, CostError> {
        self.with_region(|region| self.touch_all(region, store))
    }

    /// A load that a monitor resolves with ZEROPAGE.
    pub fn missing_zeropage(&self) -> Result<Samples, CostError> {
        self.delegated(load, |uffd, _, page| uffd.zeropage(page, FillMode::empty()))
    }

    /// A load that a monitor resolves with COPY.
    pub fn missing_copy_load(&self) -> Result<Samples, CostError> {
        self.delegated(load, copy)
    }

    /// A store that a monitor resolves with COPY.
    pub fn missing_copy_store(&self) -> Result<Samples, CostError> {
        self.delegated(store, copy)
    }

    /// COPY of a whole region that nobody waits for, `per_call` pages a call; samples are per page.
    pub fn bulk_copy(&self, per_call: u64) -> Result<Samples, CostError> {
        self.bulk(per_call, copy)
    }

    /// The same with ZEROPAGE.
    pub fn bulk_zeropage(&self, per_call: u64) -> Result<Samples, CostError> {
        self.bulk(per_call, |uffd, _, range| uffd.zeropage(range, FillMode::empty()))
    }

    #[inline]
    fn touch_all(
        &self,
        region: VirtRange,
        touch: impl Fn(VirtAddr) -> Result<(), AccessError>,
    ) -> Result<Samples, CostError> {
        let mut samples = self.samples();
        let mut page = region.start;
        while page < region.end {
            let before = Machine::ticks();
            let touched = touch(page);
            let after = Machine::ticks();
            touched.map_err(CostError::Access)?;
            samples.record(after - before);
            page = page + PAGE_SIZE;
        }
        Ok(samples)
    }

    fn registered(&self, region: VirtRange) -> Result<Uffd, CostError> {
        let uffd = Uffd::new(&self.space, Features::empty());
        uffd.register(region, Modes::MISSING)
            .map_err(CostError::Register)?;
        Ok(uffd)
    }

    /// Touches a region whose faults a monitor resolves.
    fn delegated(
        &self,
        touch: impl Fn(VirtAddr) -> Result<(), AccessError>,
        resolve: impl Fn(&Uffd, &[u8], VirtRange) -> Outcome + Send + 'static,
    ) -> Result<Samples, CostError> {
        self.with_region(|region| {
            let uffd = Arc::new(self.registered(region)?);
            let monitor = monitor(&uffd, &self.source, resolve).map_err(CostError::Spawn)?;
            uffd.attach_monitor(monitor.task());
            // The monitor gets as far as waiting for the first message.
            kernel::task::yield_now();
            let samples = self.touch_all(region, touch);
            uffd.close();
            match monitor.join() {
                Ok(Ok(faults)) if faults == self.pages => samples,
                Ok(Ok(faults)) => samples.and(Err(CostError::Served {
                    faults,
                    touches: self.pages,
                })),
                Ok(Err(outcome)) => Err(CostError::Fill(outcome)),
                Err(_) => samples.and(Err(CostError::Served {
                    faults: 0,
                    touches: self.pages,
                })),
            }
        })
    }

    fn bulk(
        &self,
        per_call: u64,
        fill: impl Fn(&Uffd, &[u8], VirtRange) -> Outcome,
    ) -> Result<Samples, CostError> {
        self.with_region(|region| {
            let uffd = self.registered(region)?;
            let mut samples = self.samples();
            let mut start = region.start;
            while start < region.end {
                let end = region.end.min(start + per_call * PAGE_SIZE);
                let range = VirtRange::new(start, end);
                let before = Machine::ticks();
                let outcome = fill(&uffd, &self.source, range);
                let after = Machine::ticks();
                if outcome != Outcome::Done {
                    return Err(CostError::Fill(outcome));
                }
                samples.record((after - before) / range.pages());
                start = end;
            }
            Ok(samples)
        })
    }
}

#[inline]
fn copy(uffd: &Uffd, source: &[u8], range: VirtRange) -> Outcome {
    uffd.copy(range.start, source, range.len(), FillMode::empty())
}

/// A task that resolves every fault of `uffd`; comes to how many those were, or to the fill that was not done.
fn monitor(
    uffd: &Arc<Uffd>,
    source: &Arc<[u8]>,
    resolve: impl Fn(&Uffd, &[u8], VirtRange) -> Outcome + Send + 'static,
) -> Result<JoinHandle<Result<u64, Outcome>>, SpawnError> {
    let (uffd, source) = (Arc::clone(uffd), Arc::clone(source));
    spawn_returning("monitor", None, move || {
        let mut faults = 0;
        loop {
            match uffd.read_event() {
                Ok(Event::Pagefault { addr, .. }) => match resolve(&uffd, &source, VirtRange::page(addr)) {
                    Outcome::Done => faults += 1,
                    outcome => return Err(outcome),
                },
                Err(ReadError::Closed | ReadError::Orphaned) => return Ok(faults),
                Err(ReadError::WouldBlock) => {}
            }
        }
    })
}
