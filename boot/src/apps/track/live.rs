//! The second part: a writer that never stops, and a copy that follows it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use kernel::lab::digest;
use kernel::lab::page_set::PageSet;
use kernel::lab::rng::SplitMix64;
use kernel::mm::uaccess::{self, AccessError};
use kernel::task;

use super::collect::{Collector, Fault};
use super::options::Options;
use crate::apps::AppError;
use crate::apps::common::{MAX_MISMATCHES, PAGE, Region, buffer, join, progress, run_in, start};

/// What came of the second part.
#[derive(Debug, Default)]
pub struct Live {
    /// Pages collected and copied in each round; the first has all of them, the last those that were left when the writer had
    /// ended.
    pub copied: Vec<u64>,
    /// Stores that the writer made.
    pub stores: u64,
    /// Pages of the copy that are what the region is.
    pub verified: u64,
    /// What was not as it should be.
    pub failures: Vec<String>,
}

/// Follows a writer.
struct Follower {
    region: Region,
    collector: Collector,
    copy: Vec<u8>,
    live: Live,
}

/// Runs it.
///
/// # Errors
/// A task could not be started or ended early.
pub fn run(region: &Region, collector: Collector, options: &Options) -> Result<(Live, Collector), AppError> {
    let follower = Follower {
        region: region.clone(),
        collector,
        copy: buffer(region.pages() * PAGE).map_err(AppError::failed)?,
        live: Live::default(),
    };
    let over = Arc::new(AtomicBool::new(false));
    let writer = {
        let (region, over) = (region.clone(), Arc::clone(&over));
        let (burst, seed) = (options.writes, !options.seed);
        start("writer", Some(&region.space.clone()), move || {
            write(&region, &over, burst, seed)
        })?
    };
    let rounds = options.rounds as usize;
    let follower = run_in(&region.space, "follower", move || follower.follow(rounds))?;
    over.store(true, Ordering::Relaxed);
    let written = join(writer)?;
    let (mut live, collector) = run_in(&region.space, "verify", move || follower.finish())?;
    match written {
        Ok(stores) => live.stores = stores,
        Err((page, error)) => live
            .failures
            .insert(0, format!("page {page} could not be written: {error}")),
    }
    Ok((live, collector))
}

/// Stores to random pages until it is `over`, and gives way after every `burst` stores; how many those were.
fn write(region: &Region, over: &AtomicBool, burst: u64, seed: u64) -> Result<u64, (usize, AccessError)> {
    let mut rng = SplitMix64::new(seed);
    let mut stores = 0;
    while !over.load(Ordering::Relaxed) {
        let page = rng.below(region.pages() as u64) as usize;
        uaccess::store(region.address(page), !stores).map_err(|error| (page, error))?;
        stores += 1;
        if stores % burst == 0 {
            task::yield_now();
        }
    }
    Ok(stores)
}

impl Follower {
    /// Copies the whole region, then what was written meanwhile, and so on.
    fn follow(mut self, rounds: usize) -> Self {
        self.copy_pages(&PageSet::full(self.region.pages()));
        for round in 0..rounds {
            if !self.live.failures.is_empty() {
                break;
            }
            self.collect();
            progress("live rounds", round + 1, rounds);
        }
        self
    }

    /// Copies what is left after the writer has ended, and compares the copy with the region.
    fn finish(mut self) -> (Live, Collector) {
        if self.live.failures.is_empty() {
            self.collect();
            self.verify();
        }
        (self.live, self.collector)
    }

    fn collect(&mut self) {
        match self.collector.collect(Fault::None) {
            Ok(written) => self.copy_pages(&written),
            Err(error) => self.live.failures.push(error.to_string()),
        }
    }

    /// Copies `pages`, which are protected again: whoever stores to one from now on has it collected once more.
    fn copy_pages(&mut self, pages: &PageSet) {
        for page in pages.iter() {
            let copy = &mut self.copy[page * PAGE..][..PAGE];
            if let Err(error) = uaccess::read(self.region.address(page), copy) {
                self.live
                    .failures
                    .push(format!("page {page} could not be copied: {error}"));
                return;
            }
        }
        self.live.copied.push(pages.len() as u64);
        task::yield_now();
    }

    fn verify(&mut self) {
        let mut content = alloc::vec![0; PAGE];
        for (page, copy) in self.copy.chunks(PAGE).enumerate() {
            if let Err(error) = uaccess::read(self.region.address(page), &mut content) {
                self.live
                    .failures
                    .push(format!("page {page} could not be read: {error}"));
                return;
            }
            if content == copy {
                self.live.verified += 1;
            } else {
                let (region, copy) = (digest::of(&content), digest::of(copy));
                self.live.failures.push(format!(
                    "page {page}: a store was lost: the region's digest is {region:032x}, the copy's {copy:032x}"
                ));
            }
            if self.live.failures.len() == MAX_MISMATCHES {
                return;
            }
            progress("verified pages", page + 1, self.region.pages());
        }
    }
}
