//! The writer: stores to page after page, without a word to those who take the snapshot.
//!
//! Runs in the space. The time from a store to the next instruction is two reads of the clock around it. No two stores
//! write the same value, so every store changes its page.

use alloc::sync::Arc;
use alloc::vec::Vec;

use kernel::arch::{Clock, Machine};
use kernel::lab::page_set::PageSet;
use kernel::lab::rng::SplitMix64;
use kernel::lab::samples::Samples;
use kernel::mm::uaccess::{self, AccessError};
use kernel::task;

use super::job::Job;
use super::options::Options;
use crate::apps::common::PAGE;

/// Most stores before the snapshot is armed.
const WARM_UP: usize = 1024;
const WORDS: u64 = PAGE as u64 / 8;

/// What the writer did.
#[derive(Debug)]
pub struct Written {
    /// Times of the stores before the region was protected.
    pub before: Samples,
    /// Times of those to pages that were not saved yet.
    pub protected: Samples,
    /// Times of those to pages that were saved, while others were not.
    pub saved: Samples,
    /// The pages stored to since the region was protected.
    pub pages: PageSet,
    /// The page that could not be written, and why. The writer ended there.
    pub error: Option<(usize, AccessError)>,
}

/// The task that writes.
pub struct Writer {
    job: Arc<Job>,
    order: Vec<u32>,
    burst: u64,
    rng: SplitMix64,
    stores: u64,
    written: Written,
}

impl Writer {
    /// A writer that stores to the pages of `order` over and over.
    pub fn new(job: &Arc<Job>, order: Vec<u32>, options: &Options) -> Self {
        let pages = job.live.region.pages();
        // As many stores as the sweep takes turns for, and the same again for time slices that end in between.
        let turns = pages.div_ceil(options.image.batch) * options.burst as usize;
        Self {
            job: Arc::clone(job),
            order,
            burst: options.burst,
            rng: SplitMix64::new(!options.seed),
            stores: 0,
            written: Written {
                before: Samples::with_capacity(WARM_UP),
                protected: Samples::with_capacity(pages),
                saved: Samples::with_capacity(turns.min(1 << 20)),
                pages: PageSet::new(pages),
                error: None,
            },
        }
    }

    /// Writes for a while, waits for the region to be protected, and writes on until the image is whole.
    pub fn run(mut self) -> Written {
        let result = self.warm_up();
        self.job.ready.complete();
        self.job.armed.wait();
        let result = result.and_then(|()| self.write_on());
        self.written.error = result.err();
        self.written
    }

    fn warm_up(&mut self) -> Result<(), (usize, AccessError)> {
        for _ in 0..WARM_UP.min(self.order.len()) {
            let ticks = self.store(self.next_page())?;
            self.written.before.record(ticks);
        }
        Ok(())
    }

    fn write_on(&mut self) -> Result<(), (usize, AccessError)> {
        let mut burst = 0;
        while !self.job.live.is_over() {
            let page = self.next_page();
            let saved = self.job.live.image.is_saved(page);
            let ticks = self.store(page)?;
            match saved {
                true => self.written.saved.record(ticks),
                false => self.written.protected.record(ticks),
            }
            self.written.pages.insert(page);
            burst += 1;
            if burst == self.burst {
                burst = 0;
                task::yield_now();
            }
        }
        Ok(())
    }

    fn next_page(&self) -> usize {
        self.order[self.stores as usize % self.order.len()] as usize
    }

    /// Stores a new value to some word of `page`; the ticks that took.
    #[inline]
    fn store(&mut self, page: usize) -> Result<u64, (usize, AccessError)> {
        self.stores += 1;
        let word = self.rng.below(WORDS);
        let addr = self.job.live.region.address(page) + word * 8;
        let before = Machine::ticks();
        let stored = uaccess::store(addr, self.stores);
        let after = Machine::ticks();
        stored.map_err(|error| (page, error))?;
        Ok(after - before)
    }
}
