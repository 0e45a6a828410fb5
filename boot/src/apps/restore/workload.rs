//! The workload: touches pages and checks what it reads.
//!
//! Runs in the space that is restored. The time from a touch to the next instruction is two reads of the clock around
//! one load.

use alloc::vec::Vec;

use kernel::arch::{Clock, Machine};
use kernel::lab::digest::Mismatch;
use kernel::lab::samples::Samples;
use kernel::mm::uaccess::{self, AccessError};

use super::job::Job;
use crate::apps::common::{MAX_MISMATCHES, PAGE, progress};

/// What the workload saw.
#[derive(Debug)]
pub struct Work {
    /// Touches, a page of a list that stands twice counted twice.
    pub touches: u64,
    /// Touch to next instruction, of the touches that found nothing.
    pub latency: Samples,
    /// Ticks from the start of the run until the first page was there.
    pub first_page: Option<u64>,
    /// Pages that are not what they should be.
    pub mismatches: Vec<Mismatch>,
    /// The page that could not be touched, and why. The workload ended there.
    pub error: Option<(usize, AccessError)>,
}

/// What a look at the whole region gave.
#[derive(Debug, Default)]
pub struct Verified {
    /// Pages that are what they should be.
    pub pages: u64,
    /// Pages that are not.
    pub mismatches: Vec<Mismatch>,
    /// The page that could not be read, and why.
    pub error: Option<(usize, AccessError)>,
}

/// Touches the pages of `order`; `start` is when the run began.
pub fn touch(job: &Job, order: &[u32], start: u64) -> Work {
    let mut work = Work {
        touches: 0,
        latency: Samples::with_capacity(order.len()),
        first_page: None,
        mismatches: Vec::with_capacity(MAX_MISMATCHES),
        error: None,
    };
    let mut content = alloc::vec![0; PAGE];
    for (index, &page) in order.iter().enumerate() {
        let page = page as usize;
        if let Err(error) = touch_one(job, page, &mut work, &mut content) {
            work.error = Some((page, error));
            break;
        }
        if index == 0 {
            work.first_page = Some(Machine::ticks() - start);
        }
        if work.mismatches.len() == MAX_MISMATCHES {
            break;
        }
        progress("touched pages", index + 1, order.len());
    }
    work
}

#[inline]
fn touch_one(job: &Job, page: usize, work: &mut Work, content: &mut [u8]) -> Result<(), AccessError> {
    let addr = job.region.address(page);
    let absent = job.pages.is_absent(page);
    let before = Machine::ticks();
    uaccess::load(addr)?;
    let after = Machine::ticks();
    work.touches += 1;
    if absent {
        work.latency.record(after - before);
    } else {
        job.pages.touched(page);
    }
    uaccess::read(addr, content)?;
    work.mismatches
        .extend(job.snapshot.digests.check(page as u64, content).err());
    Ok(())
}

/// Reads the whole region and checks every page.
pub fn verify(job: &Job) -> Verified {
    let mut verified = Verified::default();
    let mut content = alloc::vec![0; PAGE];
    for page in 0..job.pages.len() {
        if let Err(error) = uaccess::read(job.region.address(page), &mut content) {
            verified.error = Some((page, error));
            break;
        }
        match job.snapshot.digests.check(page as u64, &content) {
            Ok(()) => verified.pages += 1,
            Err(mismatch) => verified.mismatches.push(mismatch),
        }
        if verified.mismatches.len() == MAX_MISMATCHES {
            break;
        }
        progress("verified pages", page + 1, job.pages.len());
    }
    verified
}
