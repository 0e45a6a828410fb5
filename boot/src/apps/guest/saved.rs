//! A guest that was saved: its vCPU and its memory, as of one instant between two runs.
//!
//! Memory is saved as it is: a page that nobody had touched is a hole of the object that it is saved in.

use alloc::format;
use alloc::sync::Arc;
use core::ops::Range;

use hv::vcpu::Image;
use kernel::lab::digest::DigestList;
use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::cache::{Lookup, Object};
use kernel::mm::fault::Origin;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::phys;
use kernel::mm::pt::Entry;

use super::Layout;
use crate::apps::AppError;
use crate::apps::common::{PAGE, Region};

/// A saved guest.
pub struct Saved {
    /// Where its memory lies.
    pub layout: Layout,
    /// Its vCPU.
    pub vcpu: Image,
    /// Its ordinary memory.
    pub ordinary: Arc<Object>,
    /// Its delegated memory.
    pub delegated: Arc<Object>,
}

impl Saved {
    /// Pages that are no holes, of ordinary and of delegated memory.
    pub fn resident(&self) -> (u64, u64) {
        let pages = |object: &Object| object.resident() / PAGE_SIZE;
        (pages(&self.ordinary), pages(&self.delegated))
    }

    /// Changes a byte of a delegated page, which nobody should do.
    ///
    /// # Errors
    /// There is no memory for the page.
    pub fn corrupt(&self, page: u64) -> Result<(), AppError> {
        let mut content = alloc::vec![0; PAGE];
        page_of(&self.delegated, page, &mut content);
        content[0] = !content[0];
        put(&self.delegated, page, &content)
    }
}

/// A copy of the pages of `region` that are there.
///
/// # Errors
/// There is no memory for it.
pub fn save_region(region: &Region, pages: Range<usize>) -> Result<Arc<Object>, AppError> {
    let copy = Object::new(&SHMEM, pages.len() as u64 * PAGE_SIZE);
    let mut content = alloc::vec![0; PAGE];
    for (number, page) in pages.enumerate() {
        let addr = region.address(page);
        if let (Entry::Leaf(_), _) = region.space.entry(addr) {
            region
                .space
                .read_bytes(addr, &mut content, Origin::Kernel)
                .map_err(AppError::failed)?;
            put(&copy, number as u64, &content)?;
        }
    }
    Ok(copy)
}

/// A copy of an object, its holes included.
///
/// # Errors
/// There is no memory for it.
pub fn save_object(object: &Object) -> Result<Arc<Object>, AppError> {
    let copy = Object::new(&SHMEM, object.size());
    let mut content = alloc::vec![0; PAGE];
    for page in 0..object.size() / PAGE_SIZE {
        if page_of(object, page, &mut content) {
            put(&copy, page, &content)?;
        }
    }
    Ok(copy)
}

/// Writes a page of an object.
fn put(object: &Object, page: u64, content: &[u8]) -> Result<(), AppError> {
    let (_, written) = object.write(page * PAGE_SIZE, content);
    written.map_err(|error| AppError::Failed(format!("page {page} of a guest could not be saved: {error:?}")))
}

/// Copies a page of an object to `out`, zeros for a hole. Whether it is none.
pub fn page_of(object: &Object, page: u64, out: &mut [u8]) -> bool {
    match object.lookup(page * PAGE_SIZE) {
        Lookup::Present(folio) => {
            phys::peek(&folio, 0, out);
            true
        }
        Lookup::Absent | Lookup::BeyondEnd => {
            out.fill(0);
            false
        }
    }
}

/// The digest of every page of an object.
pub fn digests_of(object: &Object) -> DigestList {
    let pages = object.size() / PAGE_SIZE;
    let mut digests = DigestList::with_capacity(pages as usize);
    let mut content = alloc::vec![0; PAGE];
    for page in 0..pages {
        page_of(object, page, &mut content);
        digests.push(&content);
    }
    digests
}
