//! The sweep: saves the pages that nobody stores to, from the first to the last.

use core::ops::Range;
use core::sync::atomic::Ordering;

use kernel::lab::capture::{Claim, Saver};
use kernel::task;

use super::job::{Job, SaveError};
use crate::apps::common::progress;

/// What the sweep has done when it ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct Swept {
    /// Calls that ended protection.
    pub calls: u64,
    /// Why it ended before the last page.
    pub error: Option<SaveError>,
}

/// Saves what is not saved, `batch` pages at most between two turns of the others.
pub fn run(job: &Job, batch: usize) -> Swept {
    let mut swept = Swept::default();
    swept.error = sweep(job, batch, &mut swept.calls).err();
    if swept.error.is_some() {
        // It had claimed that page.
        job.given_up.store(true, Ordering::Relaxed);
    }
    swept
}

fn sweep(job: &Job, batch: usize, calls: &mut u64) -> Result<(), SaveError> {
    let pages = job.region.pages();
    let mut next = 0;
    while next < pages {
        let run = save_run(job, next, batch)?;
        if !run.is_empty() {
            job.release(run.clone())?;
            *calls += 1;
        }
        (next + 1..=run.end).for_each(|done| progress("swept pages", done, pages));
        next = run.end;
        task::yield_now();
    }
    Ok(())
}

/// Saves the first run of pages from `first` on that nobody else has, at most `batch` of them. Only they lose their
/// protection in one call: one beside them may be somebody else's who has not read it yet.
fn save_run(job: &Job, first: usize, batch: usize) -> Result<Range<usize>, SaveError> {
    let pages = job.region.pages();
    let mut run = first..first;
    while run.end < pages && run.len() < batch {
        match job.image.claim(run.end) {
            Claim::Ours(blank) => job.save(blank, Saver::Sweep)?,
            _ if run.is_empty() => {
                run = run.end + 1..run.end + 1;
                continue;
            }
            _ => break,
        }
        run.end += 1;
    }
    Ok(run)
}
