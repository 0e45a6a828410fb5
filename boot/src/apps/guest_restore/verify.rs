//! Whether the delegated memory of the restored guest is in the end what that of the uninterrupted one was, and every page
//! is accounted for.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use hv::bitmap::Bitmap;
use kernel::lab::digest::{DigestList, Mismatch};
use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::cache::Object;

use crate::apps::common::{MAX_MISMATCHES, PAGE, looks_no_further};
use crate::apps::guest::page_of;

/// What delegated memory held in the end.
#[derive(Debug, Default)]
pub struct Verified {
    /// Pages that are what they should be.
    pub pages: u64,
    /// Pages that are not.
    pub mismatches: Vec<Mismatch>,
    /// Pages that the guest never touched: they are delegated still, and what was saved is what they hold.
    pub untouched: u64,
    /// Pages that are in the object and delegated, or neither.
    pub unaccounted: Vec<u64>,
}

/// Compares delegated memory with the digests of what it should be.
pub fn verify(object: &Object, bitmap: &Bitmap, saved: &Object, expected: &DigestList) -> Verified {
    let mut verified = Verified::default();
    let mut content = alloc::vec![0; PAGE];
    for page in 0..object.size() / PAGE_SIZE {
        let is_there = page_of(object, page, &mut content);
        let is_delegated = bitmap.is_set(page);
        if is_there == is_delegated {
            verified.unaccounted.push(page);
        }
        if is_delegated {
            verified.untouched += 1;
            page_of(saved, page, &mut content);
        }
        match expected.digests().check(page, &content) {
            Ok(()) => verified.pages += 1,
            Err(mismatch) => verified.mismatches.push(mismatch),
        }
        if verified.is_hopeless() {
            break;
        }
    }
    verified
}

impl Verified {
    /// Whether so much is wrong that looking further is not worth it.
    pub fn is_hopeless(&self) -> bool {
        self.mismatches.len().max(self.unaccounted.len()) >= MAX_MISMATCHES
    }

    /// What is wrong, in sentences.
    pub fn failures(&self) -> Vec<String> {
        let wrong = |mismatch: &Mismatch| {
            format!("delegated memory is not what it was without the interruption: {mismatch}")
        };
        let lost =
            |page: &u64| format!("delegated page {page} is neither absent and delegated nor filled and not");
        let mut failures: Vec<String> = self.mismatches.iter().map(wrong).collect();
        failures.extend(self.unaccounted.iter().map(lost));
        if self.is_hopeless() {
            failures.push(looks_no_further("the run"));
        }
        failures
    }
}
