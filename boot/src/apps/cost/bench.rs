//! The measurements, each on a fresh region of the measuring task's own space.

use alloc::sync::Arc;
use alloc::vec;
use core::cell::Cell;
use core::fmt;

use kernel::arch::{Clock, Machine};
use kernel::lab::samples::Samples;
use kernel::mm::addr::{PAGE_SIZE, VirtAddr};
use kernel::mm::memtype::anon::ANON;
use kernel::mm::pt::Prot;
use kernel::mm::range::VirtRange;
use kernel::mm::space::{MapError, MapRequest, Memory, Space};
use kernel::mm::uaccess::{self, AccessError};
use kernel::task::spawn::{JoinHandle, SpawnError, spawn_returning};
use kernel::uffd::{
    Event, Features, FillMode, Modes, MoveMode, Outcome, ReadError, RegisterError, Uffd, WriteProtectError,
};

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
    /// Write protection did not change.
    Protect(WriteProtectError),
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
            Self::Protect(error) => write!(f, "write protection did not change: {error:?}"),
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
            memory: Memory::Own(&ANON),
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
        self.missing(load, zeropage)
    }

    /// A load that a monitor resolves with COPY.
    pub fn missing_copy_load(&self) -> Result<Samples, CostError> {
        self.missing(load, copy)
    }

    /// A store that a monitor resolves with COPY.
    pub fn missing_copy_store(&self) -> Result<Samples, CostError> {
        self.missing(store, copy)
    }

    /// A store to a protected page, whose protection a monitor ends.
    pub fn write_protected(&self) -> Result<Samples, CostError> {
        self.delegated(
            Modes::WP,
            |uffd, region| {
                self.touch_all(region, store)?;
                uffd.write_protect(region).map_err(CostError::Protect)
            },
            store,
            |uffd, _, page| {
                uffd.remove_write_protection(page, FillMode::empty())
                    .map_err(CostError::Protect)
            },
        )
    }

    /// Write protection of a whole region that is there, `per_call` pages a call; samples are per page.
    pub fn bulk_protect(&self, per_call: u64) -> Result<Samples, CostError> {
        self.bulk(
            Modes::WP,
            |_, region| self.touch_all(region, store).map(drop),
            per_call,
            |uffd, _, range| uffd.write_protect(range).map_err(CostError::Protect),
        )
    }

    /// The end of that protection, `per_call` pages a call; samples are per page.
    pub fn bulk_unprotect(&self, per_call: u64) -> Result<Samples, CostError> {
        self.bulk(
            Modes::WP,
            |uffd, region| {
                self.touch_all(region, store)?;
                uffd.write_protect(region).map_err(CostError::Protect)
            },
            per_call,
            |uffd, _, range| {
                uffd.remove_write_protection(range, FillMode::empty())
                    .map_err(CostError::Protect)
            },
        )
    }

    /// COPY of a whole region that nobody waits for, `per_call` pages a call; samples are per page.
    pub fn bulk_copy(&self, per_call: u64) -> Result<Samples, CostError> {
        self.bulk(Modes::MISSING, |_, _| Ok(()), per_call, copy)
    }

    /// The same with ZEROPAGE.
    pub fn bulk_zeropage(&self, per_call: u64) -> Result<Samples, CostError> {
        self.bulk(Modes::MISSING, |_, _| Ok(()), per_call, zeropage)
    }

    /// MOVE of a whole region to one that nobody waits for, `per_call` pages a call; samples are per page.
    pub fn bulk_move(&self, per_call: u64) -> Result<Samples, CostError> {
        self.with_region(|from| {
            self.touch_all(from, store)?;
            let to = Cell::new(from.start);
            let note = |_: &Uffd, region: VirtRange| {
                to.set(region.start);
                Ok(())
            };
            self.bulk(Modes::MISSING, note, per_call, |uffd, _, range| {
                let src = from.start + (range.start - to.get());
                filled(uffd.move_pages(&self.space, range.start, src, range.len(), MoveMode::empty()))
            })
        })
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

    fn registered(&self, region: VirtRange, modes: Modes) -> Result<Uffd, CostError> {
        let uffd = Uffd::new(&self.space, Features::empty());
        uffd.register(region, modes).map_err(CostError::Register)?;
        Ok(uffd)
    }

    /// Touches a region with nothing in it, whose pages a monitor fills.
    fn missing(
        &self,
        touch: impl Fn(VirtAddr) -> Result<(), AccessError>,
        resolve: impl Fn(&Uffd, &[u8], VirtRange) -> Result<(), CostError> + Send + 'static,
    ) -> Result<Samples, CostError> {
        self.delegated(Modes::MISSING, |_, _| Ok(()), touch, resolve)
    }

    /// Touches a region, as `prepare` left it, whose faults a monitor resolves.
    fn delegated(
        &self,
        modes: Modes,
        prepare: impl FnOnce(&Uffd, VirtRange) -> Result<(), CostError>,
        touch: impl Fn(VirtAddr) -> Result<(), AccessError>,
        resolve: impl Fn(&Uffd, &[u8], VirtRange) -> Result<(), CostError> + Send + 'static,
    ) -> Result<Samples, CostError> {
        self.with_region(|region| {
            let uffd = Arc::new(self.registered(region, modes)?);
            prepare(&uffd, region)?;
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
                Ok(Err(error)) => Err(error),
                Err(_) => samples.and(Err(CostError::Served {
                    faults: 0,
                    touches: self.pages,
                })),
            }
        })
    }

    fn bulk(
        &self,
        modes: Modes,
        prepare: impl FnOnce(&Uffd, VirtRange) -> Result<(), CostError>,
        per_call: u64,
        call: impl Fn(&Uffd, &[u8], VirtRange) -> Result<(), CostError>,
    ) -> Result<Samples, CostError> {
        self.with_region(|region| {
            let uffd = self.registered(region, modes)?;
            prepare(&uffd, region)?;
            let mut samples = self.samples();
            let mut start = region.start;
            while start < region.end {
                let end = region.end.min(start + per_call * PAGE_SIZE);
                let range = VirtRange::new(start, end);
                let before = Machine::ticks();
                let called = call(&uffd, &self.source, range);
                let after = Machine::ticks();
                called?;
                samples.record((after - before) / range.pages());
                start = end;
            }
            Ok(samples)
        })
    }
}

#[inline]
fn copy(uffd: &Uffd, source: &[u8], range: VirtRange) -> Result<(), CostError> {
    filled(uffd.copy(range.start, source, range.len(), FillMode::empty()))
}

#[inline]
fn zeropage(uffd: &Uffd, _: &[u8], range: VirtRange) -> Result<(), CostError> {
    filled(uffd.zeropage(range, FillMode::empty()))
}

#[inline]
fn filled(outcome: Outcome) -> Result<(), CostError> {
    match outcome {
        Outcome::Done => Ok(()),
        outcome => Err(CostError::Fill(outcome)),
    }
}

/// A task that resolves every fault of `uffd`; comes to how many those were, or to why one was not.
fn monitor(
    uffd: &Arc<Uffd>,
    source: &Arc<[u8]>,
    resolve: impl Fn(&Uffd, &[u8], VirtRange) -> Result<(), CostError> + Send + 'static,
) -> Result<JoinHandle<Result<u64, CostError>>, SpawnError> {
    let (uffd, source) = (Arc::clone(uffd), Arc::clone(source));
    spawn_returning("monitor", None, move || {
        let mut faults = 0;
        loop {
            match uffd.read_event() {
                Ok(Event::Pagefault { addr, .. }) => {
                    resolve(&uffd, &source, VirtRange::page(addr))?;
                    faults += 1;
                }
                Err(ReadError::Closed | ReadError::Orphaned | ReadError::Fresh) => return Ok(faults),
                // The context asked for no other events.
                Ok(_) | Err(ReadError::WouldBlock | ReadError::NotAdmitted) => {}
            }
        }
    })
}
