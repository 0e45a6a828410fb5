//! The first part: rounds of known writes, each followed by a collection that must find exactly them.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kernel::arch::{Clock, Machine};
use kernel::lab::page_set::PageSet;
use kernel::lab::rng::SplitMix64;
use kernel::lab::samples::Samples;
use kernel::mm::uaccess::{self, AccessError};

use super::collect::{Collector, Fault};
use super::options::Options;
use crate::apps::AppError;
use crate::apps::common::{MAX_MISMATCHES, Region, progress, run_in};

/// What came of the first part.
#[derive(Debug, Default)]
pub struct Known {
    /// Pages written and pages reported, of each round.
    pub rounds: Vec<[u64; 2]>,
    /// What was not as it should be.
    pub failures: Vec<String>,
    /// Times of the stores.
    pub times: Times,
}

/// How long touches took.
#[derive(Debug, Default)]
pub struct Times {
    /// Stores to pages that are protected.
    pub first: Samples,
    /// Stores to pages that were stored to since.
    pub again: Samples,
    /// Loads.
    pub loads: Samples,
}

/// Runs it.
///
/// # Errors
/// A task could not be started or ended early.
pub fn run(region: &Region, collector: &mut Collector, options: &Options) -> Result<Known, AppError> {
    let mut known = Known::default();
    // Nothing was ever protected: all of it counts as written.
    if !known.collect(0, &PageSet::full(region.pages()), collector, Fault::None) {
        return Ok(known);
    }
    for round in 1..=options.rounds {
        let (of, writes, seed) = (region.clone(), options.writes, options.seed ^ (round << 32));
        let touched = run_in(&region.space, "writer", move || touch(&of, writes, seed))?;
        let (written, times) = match touched {
            Ok(touched) => touched,
            Err((page, error)) => {
                known.failures.push(format!(
                    "round {round}: page {page} could not be touched: {error}"
                ));
                return Ok(known);
            }
        };
        known.times.add(times);
        let fault = match Some(round) {
            round if round == options.skip_protect => Fault::SkipProtect,
            round if round == options.protect_early => Fault::ProtectEarly,
            _ => Fault::None,
        };
        if !known.collect(round, &written, collector, fault) {
            return Ok(known);
        }
        progress("rounds", round as usize, options.rounds as usize);
    }
    Ok(known)
}

/// Stores to `writes` pages and loads from as many others, one after the other; the pages stored to.
fn touch(region: &Region, writes: u64, seed: u64) -> Result<(PageSet, Times), (usize, AccessError)> {
    let mut rng = SplitMix64::new(seed);
    let mut written = PageSet::new(region.pages());
    let mut times = Times::default();
    for value in 0..writes {
        let page = rng.below(region.pages() as u64) as usize;
        let (ticks, stored) = timed(|| uaccess::store(region.address(page), value));
        stored.map_err(|error| (page, error))?;
        match written.insert(page) {
            true => times.first.record(ticks),
            false => times.again.record(ticks),
        }
        let page = rng.below(region.pages() as u64) as usize;
        let (ticks, loaded) = timed(|| uaccess::load(region.address(page)).map(drop));
        loaded.map_err(|error| (page, error))?;
        times.loads.record(ticks);
    }
    Ok((written, times))
}

#[inline]
fn timed(touch: impl FnOnce() -> Result<(), AccessError>) -> (u64, Result<(), AccessError>) {
    let before = Machine::ticks();
    let result = touch();
    (Machine::ticks() - before, result)
}

impl Times {
    fn add(&mut self, other: Self) {
        self.first.append(other.first);
        self.again.append(other.again);
        self.loads.append(other.loads);
    }
}

impl Known {
    /// Collects, and compares with what was written. False when going on makes no sense.
    fn collect(&mut self, round: u64, written: &PageSet, collector: &mut Collector, fault: Fault) -> bool {
        let reported = match collector.collect(fault) {
            Ok(reported) => reported,
            Err(error) => {
                self.failures.push(error.to_string());
                return false;
            }
        };
        self.rounds.push([written.len() as u64, reported.len() as u64]);
        let missed = |page| format!("round {round}: page {page} was written and is not reported");
        let stray = |page| format!("round {round}: page {page} is reported and was not written");
        let wrong = written.minus(&reported).map(missed);
        let wrong = wrong.chain(reported.minus(written).map(stray));
        self.failures.extend(wrong.take(MAX_MISMATCHES));
        self.failures.is_empty()
    }
}
