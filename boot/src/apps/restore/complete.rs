//! The rest of the region, once the workload has what it wanted: filled in ranges, without faults.

use kernel::lab::pages::Page;

use super::job::{FillError, Job};
use crate::apps::common::{PAGE, buffer, progress};

/// Pages that are read and filled at once.
const RANGE: usize = 64;

/// Fills every page that is still absent.
///
/// # Errors
/// The first page that could not be filled.
pub fn fill_rest(job: &Job) -> Result<(), FillError> {
    // Without room for ranges it goes page by page.
    let mut buffer = buffer(RANGE * PAGE).unwrap_or_default();
    let range = (buffer.capacity() / PAGE).max(1);
    let mut next = 0;
    while let Some(pages) = job.pages.next_absent(next, range) {
        job.fill(pages.clone(), &mut buffer)?;
        job.pages.filled(pages.clone(), Page::Rest);
        for page in pages.clone() {
            progress("filled pages", page + 1, job.pages.len());
        }
        next = pages.end;
    }
    Ok(())
}
