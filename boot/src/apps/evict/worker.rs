//! A worker: touches its pages in ever another order, checks what it reads, and changes some.
//!
//! Runs in the space. Pages are dealt out to the workers in turn, so each page has one worker, who knows what it should hold. The
//! page may go at any time: every access may fault again.

use alloc::sync::Arc;
use alloc::vec::Vec;

use kernel::arch::{Clock, Machine};
use kernel::lab::digest::{self, Mismatch};
use kernel::lab::order::Order;
use kernel::lab::rng::SplitMix64;
use kernel::lab::samples::Samples;
use kernel::mm::uaccess::{self, AccessError};
use kernel::task;

use super::job::{Job, Source};
use super::options::Options;
use crate::apps::common::{MAX_MISMATCHES, PAGE, progress};

const WORDS: u64 = PAGE as u64 / 8;
/// Samples of each kind that need no allocation while others are measured.
const SAMPLES: usize = 1 << 14;

/// Touches that a worker makes before it gives way to the others.
const TURN: usize = 8;

/// What a worker saw.
#[derive(Debug)]
pub struct Worked {
    /// Times from a touch to the next instruction, by what it took.
    pub latency: [Samples; Source::ALL.len()],
    /// Pages that it changed.
    pub changes: u64,
    /// Pages that held what they should when everything was over.
    pub verified: u64,
    /// Pages that did not, at any time.
    pub mismatches: Vec<Mismatch>,
    /// The page that could not be reached, and why. The worker ended there.
    pub error: Option<(usize, AccessError)>,
}

/// One of the tasks that work.
pub struct Worker {
    job: Arc<Job>,
    number: usize,
    tasks: usize,
    rounds: u64,
    writes: u64,
    seed: u64,
    rng: SplitMix64,
    /// What its pages should hold, in their order.
    expected: Vec<u128>,
    content: Vec<u8>,
    worked: Worked,
}

impl Worker {
    /// Worker `number` of as many as the options say.
    pub fn new(job: &Arc<Job>, number: usize, options: &Options) -> Self {
        let seed = options.seed ^ ((number as u64 + 1) << 48);
        let content = alloc::vec![0; PAGE];
        let pages = (job.region.pages() - number).div_ceil(options.tasks);
        let touches = (pages as u64 * options.rounds).min(SAMPLES as u64) as usize;
        Self {
            job: Arc::clone(job),
            number,
            tasks: options.tasks,
            rounds: options.rounds,
            writes: options.writes,
            seed,
            rng: SplitMix64::new(seed),
            expected: alloc::vec![digest::of(&content); pages],
            content,
            worked: Worked {
                latency: Source::ALL.map(|_| Samples::with_capacity(touches)),
                changes: 0,
                verified: 0,
                mismatches: Vec::with_capacity(MAX_MISMATCHES),
                error: None,
            },
        }
    }

    /// Works for as many rounds as it was told, and looks at every page once more.
    pub fn run(mut self) -> Worked {
        self.worked.error = self.work().err();
        self.worked
    }

    fn work(&mut self) -> Result<(), (usize, AccessError)> {
        let pages = self.expected.len() as u32;
        for round in 0..self.rounds {
            let order = Order::Random {
                seed: self.seed.wrapping_add(round),
            };
            let order = order.pages(pages, usize::MAX).unwrap_or_default();
            for (index, own) in order.into_iter().enumerate() {
                self.visit(own as usize)?;
                if (index + 1).is_multiple_of(TURN) {
                    task::yield_now();
                }
                if self.worked.mismatches.len() == MAX_MISMATCHES {
                    return Ok(());
                }
            }
            if self.number == 0 {
                progress("rounds", round as usize + 1, self.rounds as usize);
            }
        }
        for own in 0..self.expected.len() {
            let page = self.page(own) as u64;
            let was_right = self.worked.mismatches.iter().all(|wrong| wrong.page != page);
            self.worked.verified += u64::from(self.check(own)? && was_right);
            if self.worked.mismatches.len() == MAX_MISMATCHES {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Touches, checks and perhaps changes one of its pages.
    fn visit(&mut self, own: usize) -> Result<(), (usize, AccessError)> {
        let page = self.page(own);
        let addr = self.job.region.address(page);
        self.job.came(page);
        let before = Machine::ticks();
        let touched = uaccess::load(addr);
        let ticks = Machine::ticks() - before;
        touched.map_err(|error| (page, error))?;
        let came = self.job.came(page);
        self.worked.latency[came as usize].record(ticks);
        if self.check(own)? && self.rng.below(100) < self.writes {
            self.change(own)?;
        }
        self.job.frames.look();
        Ok(())
    }

    /// Reads a page and compares it with what it should hold; leaves it in `content`.
    fn check(&mut self, own: usize) -> Result<bool, (usize, AccessError)> {
        let page = self.page(own);
        uaccess::read(self.job.region.address(page), &mut self.content).map_err(|error| (page, error))?;
        let (expected, found) = (self.expected[own], digest::of(&self.content));
        if found != expected {
            self.worked.mismatches.push(Mismatch {
                page: page as u64,
                expected,
                found,
            });
            // Told once; what becomes of it from here on is looked at again.
            self.expected[own] = found;
        }
        Ok(found == expected)
    }

    /// Changes a word of the page that was just read.
    fn change(&mut self, own: usize) -> Result<(), (usize, AccessError)> {
        let page = self.page(own);
        let (word, value) = (self.rng.below(WORDS) as usize, self.rng.draw());
        let addr = self.job.region.address(page) + word as u64 * 8;
        uaccess::store(addr, value).map_err(|error| (page, error))?;
        self.content[word * 8..][..8].copy_from_slice(&value.to_ne_bytes());
        self.expected[own] = digest::of(&self.content);
        self.worked.changes += 1;
        Ok(())
    }

    fn page(&self, own: usize) -> usize {
        own * self.tasks + self.number
    }
}
