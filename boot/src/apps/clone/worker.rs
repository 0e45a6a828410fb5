//! The worker of a clone: touches pages, changes some, and knows what each should hold.
//!
//! Runs in the clone's space.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kernel::arch::{Clock, Machine};
use kernel::lab::digest::{self, Mismatch};
use kernel::lab::order::Order;
use kernel::lab::page_set::PageSet;
use kernel::lab::rng::SplitMix64;
use kernel::lab::samples::Samples;
use kernel::mm::uaccess::{self, AccessError};

use super::instance::{Came, Instance};
use super::job::Job;
use super::options::Options;
use crate::apps::AppError;
use crate::apps::common::{MAX_MISMATCHES, PAGE, progress};

const WORDS: u64 = PAGE as u64 / 8;
/// Samples of each kind that need no allocation while others are measured.
const SAMPLES: usize = 1 << 12;

/// What a worker saw.
#[derive(Debug, Default)]
pub struct Worked {
    /// Which clone.
    pub number: u64,
    /// Times from a touch to the next instruction, by what it took.
    pub touches: [Samples; Came::ALL.len()],
    /// Times of the first store to a page.
    pub stores: Samples,
    /// Ticks from the beginning of the clone until the first page was there.
    pub first_page: Option<u64>,
    /// Pages that it has.
    pub held: u64,
    /// Digests of the pages that it changed.
    pub private: BTreeMap<usize, u128>,
    /// Pages that held what they should in the end.
    pub verified: u64,
    /// Pages that did not, at any time.
    pub mismatches: Vec<Mismatch>,
    /// The page that could not be reached, and why. The worker ended there.
    pub error: Option<(usize, AccessError)>,
}

/// The task that works.
pub struct Worker {
    job: Arc<Job>,
    instance: Arc<Instance>,
    order: Vec<u32>,
    writes: u64,
    rng: SplitMix64,
    since: u64,
    held: PageSet,
    content: Vec<u8>,
    worked: Worked,
}

impl Worker {
    /// The worker of clone `number`, which began at `since`.
    ///
    /// # Errors
    /// The order names a page that the snapshot does not have.
    pub fn new(
        job: &Arc<Job>,
        instance: &Arc<Instance>,
        options: &Options,
        number: u64,
        since: u64,
    ) -> Result<Self, AppError> {
        let pages = instance.region.pages();
        let seed = options.seed.wrapping_add(number);
        let order = match options.order {
            Order::Random { .. } => Order::Random { seed },
            order => order,
        };
        let order = order
            .pages(pages as u32, options.touch)
            .map_err(AppError::usage)?;
        Ok(Self {
            job: Arc::clone(job),
            instance: Arc::clone(instance),
            writes: options.writes,
            rng: SplitMix64::new(!seed),
            since,
            held: PageSet::new(pages),
            content: alloc::vec![0; PAGE],
            worked: Worked {
                number,
                touches: Came::ALL.map(|_| Samples::with_capacity(order.len().min(SAMPLES))),
                stores: Samples::with_capacity((options.writes as usize).min(SAMPLES)),
                ..Worked::default()
            },
            order,
        })
    }

    /// Touches the pages of its order, then changes some.
    pub fn run(mut self) -> Worked {
        self.worked.error = self.work().err();
        self.worked.held = self.held.len() as u64;
        self.worked
    }

    fn work(&mut self) -> Result<(), (usize, AccessError)> {
        for index in 0..self.order.len() {
            self.touch(self.order[index] as usize)?;
            if index == 0 {
                self.worked.first_page = Some(Machine::ticks() - self.since);
            }
            if self.worked.mismatches.len() == MAX_MISMATCHES {
                return Ok(());
            }
            if self.worked.number == 0 {
                progress("touched pages of the first clone", index + 1, self.order.len());
            }
        }
        for _ in 0..self.writes {
            self.change()?;
        }
        Ok(())
    }

    /// Touches a page and leaves what it holds in `content`, checked.
    fn touch(&mut self, page: usize) -> Result<(), (usize, AccessError)> {
        let addr = self.instance.region.address(page);
        let before = Machine::ticks();
        let touched = uaccess::load(addr);
        let ticks = Machine::ticks() - before;
        touched.map_err(|error| (page, error))?;
        self.worked.touches[self.instance.came(page) as usize].record(ticks);
        self.held.insert(page);
        uaccess::read(addr, &mut self.content).map_err(|error| (page, error))?;
        self.worked
            .mismatches
            .extend(self.worked.check(&self.job, page, &self.content).err());
        Ok(())
    }

    /// Stores to a word of some page.
    fn change(&mut self) -> Result<(), (usize, AccessError)> {
        let page = self.rng.below(self.instance.region.pages() as u64) as usize;
        let (word, value) = (self.rng.below(WORDS) as usize, self.rng.draw());
        self.touch(page)?;
        let addr = self.instance.region.address(page) + word as u64 * 8;
        let before = Machine::ticks();
        let stored = uaccess::store(addr, value);
        let ticks = Machine::ticks() - before;
        stored.map_err(|error| (page, error))?;
        self.content[word * 8..][..8].copy_from_slice(&value.to_ne_bytes());
        if self
            .worked
            .private
            .insert(page, digest::of(&self.content))
            .is_none()
        {
            self.worked.stores.record(ticks);
        }
        Ok(())
    }
}

impl Worked {
    /// Checks the content of a page: as this clone has left it, or as it is in the snapshot.
    fn check(&self, job: &Job, page: usize, content: &[u8]) -> Result<(), Mismatch> {
        let Some(&expected) = self.private.get(&page) else {
            return job.snapshot.digests.check(page as u64, content);
        };
        let found = digest::of(content);
        if found == expected {
            return Ok(());
        }
        Err(Mismatch {
            page: page as u64,
            expected,
            found,
        })
    }

    /// Looks at every page of the clone, in its space.
    pub fn verify(mut self, job: &Job, instance: &Instance) -> Self {
        let mut content = alloc::vec![0; PAGE];
        for page in 0..instance.region.pages() {
            if self.mismatches.len() == MAX_MISMATCHES {
                break;
            }
            if let Err(error) = uaccess::read(instance.region.address(page), &mut content) {
                self.error = Some((page, error));
                break;
            }
            match self.check(job, page, &content) {
                Ok(()) => self.verified += 1,
                Err(mismatch) => self.mismatches.push(mismatch),
            }
        }
        self
    }
}
