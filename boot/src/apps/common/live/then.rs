//! The region at the instant of arming, found without the channel.

use kernel::lab::digest::DigestList;
use kernel::mm::pt::Entry;
use kernel::mm::uaccess::{self, AccessError};

use crate::apps::common::{PAGE, Region, progress};

/// The region at the instant of arming.
#[derive(Clone, Debug)]
pub struct Then {
    /// A digest of every page.
    pub digests: DigestList,
    /// Pages that nobody had touched: they are zeros by definition, and looking at them would touch them.
    pub untouched: usize,
}

/// Takes the digest of every page of the region.
///
/// # Errors
/// A page could not be read.
pub fn digests(region: &Region) -> Result<Then, AccessError> {
    let pages = region.pages();
    let mut then = Then {
        digests: DigestList::with_capacity(pages),
        untouched: 0,
    };
    let (zeros, mut content) = (alloc::vec![0; PAGE], alloc::vec![0; PAGE]);
    for page in 0..pages {
        let addr = region.address(page);
        if let (Entry::Leaf(_), _) = region.space.entry(addr) {
            uaccess::read(addr, &mut content)?;
            then.digests.push(&content);
        } else {
            then.untouched += 1;
            then.digests.push(&zeros);
        }
        progress("digests", page + 1, pages);
    }
    Ok(then)
}
