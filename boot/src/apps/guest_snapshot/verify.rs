//! What the image holds, and what the guests' memory holds in the end.

use alloc::vec::Vec;

use kernel::lab::digest::{DigestList, Mismatch};
use kernel::mm::fault::Origin;

use crate::apps::AppError;
use crate::apps::common::{Live, MAX_MISMATCHES, PAGE, Region};

/// What the image holds.
#[derive(Debug, Default)]
pub struct Verified {
    /// Pages that are as they were at the instant of arming.
    pub pages: u64,
    /// Pages that are not.
    pub mismatches: Vec<Mismatch>,
}

/// Compares the image with the digests of the instant of arming.
pub fn image(live: &Live, then: &DigestList) -> Verified {
    let mut verified = Verified::default();
    for page in 0..live.region.pages() {
        let check = |bytes: &[u8]| then.digests().check(page as u64, bytes);
        match live.image.with_page(page, check) {
            // Never saved: the image says so itself.
            None => {}
            Some(Ok(())) => verified.pages += 1,
            Some(Err(mismatch)) => verified.mismatches.push(mismatch),
        }
        if verified.mismatches.len() == MAX_MISMATCHES {
            break;
        }
    }
    verified
}

/// The digests of the pages of `region` from `first` on.
///
/// # Errors
/// One could not be read.
pub fn digests_from(region: &Region, first: usize) -> Result<DigestList, AppError> {
    let mut digests = DigestList::with_capacity(region.pages() - first);
    let mut content = alloc::vec![0; PAGE];
    for page in first..region.pages() {
        region
            .space
            .read_bytes(region.address(page), &mut content, Origin::Kernel)
            .map_err(AppError::failed)?;
        digests.push(&content);
    }
    Ok(digests)
}
