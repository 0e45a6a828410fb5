//! What image and region should hold, found without the channel; and whether they do.
//!
//! All of it runs in the space, while nobody writes.

use alloc::vec::Vec;

use kernel::lab::digest::{DigestList, Digests, Mismatch};
use kernel::lab::page_set::PageSet;
use kernel::mm::uaccess::{self, AccessError};

use super::job::Job;
use crate::apps::common::{MAX_MISMATCHES, PAGE, progress};

/// What image and region held in the end.
#[derive(Debug, Default)]
pub struct Verified {
    /// Pages of the image that are as they were at the instant of arming.
    pub pages: u64,
    /// Pages of the image that are not.
    pub mismatches: Vec<Mismatch>,
    /// Pages of the region that are not as they were.
    pub changed: u64,
    /// Pages that the writer stored to and that are as they were all the same.
    pub unchanged: Vec<usize>,
    /// Pages that changed although the writer did not store to them.
    pub strange: Vec<usize>,
    /// The page that could not be read, and why.
    pub error: Option<(usize, AccessError)>,
}

impl Verified {
    /// Whether so much is wrong that looking further is not worth it.
    pub fn is_hopeless(&self) -> bool {
        let counts = [self.mismatches.len(), self.unchanged.len(), self.strange.len()];
        counts.contains(&MAX_MISMATCHES)
    }
}

/// Compares the image and the region with the digests of then; `written` is where the writer has stored since.
pub fn verify(job: &Job, then: &DigestList, written: &PageSet) -> Verified {
    let mut verified = Verified::default();
    let mut content = alloc::vec![0; PAGE];
    for page in 0..job.live.region.pages() {
        check_image(job, then.digests(), page, &mut verified);
        if let Err(error) = uaccess::read(job.live.region.address(page), &mut content) {
            verified.error = Some((page, error));
            break;
        }
        let changed = then.digests().check(page as u64, &content).is_err();
        verified.changed += u64::from(changed);
        match (changed, written.contains(page)) {
            (false, true) => verified.unchanged.push(page),
            (true, false) => verified.strange.push(page),
            _ => {}
        }
        if verified.is_hopeless() {
            break;
        }
        progress("verified pages", page + 1, job.live.region.pages());
    }
    verified
}

fn check_image(job: &Job, then: Digests<'_>, page: usize, verified: &mut Verified) {
    match job
        .live
        .image
        .with_page(page, |bytes| then.check(page as u64, bytes))
    {
        // Never saved: the image says so itself.
        None => {}
        Some(Ok(())) => verified.pages += 1,
        Some(Err(mismatch)) => verified.mismatches.push(mismatch),
    }
}
