//! The sweep: saves the pages that nobody stores to, from the first to the last.

use core::ops::Range;
use core::sync::atomic::Ordering;

use kernel::lab::capture::{Claim, Saver};
use kernel::task;

use super::{Live, SaveError};
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
pub fn sweep(live: &Live, batch: usize) -> Swept {
    let mut swept = Swept::default();
    swept.error = sweep_all(live, batch, &mut swept.calls).err();
    if swept.error.is_some() {
        // It had claimed that page.
        live.given_up.store(true, Ordering::Relaxed);
    }
    swept
}

fn sweep_all(live: &Live, batch: usize, calls: &mut u64) -> Result<(), SaveError> {
    let pages = live.region.pages();
    let mut next = 0;
    while next < pages {
        let run = save_run(live, next, batch)?;
        if !run.is_empty() {
            live.release(run.clone())?;
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
fn save_run(live: &Live, first: usize, batch: usize) -> Result<Range<usize>, SaveError> {
    let pages = live.region.pages();
    let mut run = first..first;
    while run.end < pages && run.len() < batch {
        match live.image.claim(run.end) {
            Claim::Ours(blank) => live.save(blank, Saver::Sweep)?,
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
