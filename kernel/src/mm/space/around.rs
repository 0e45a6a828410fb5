//! Pages beside the one that is loaded from, which an object's cache has already: they are mapped with it, as on Linux
//! (`do_fault_around`), so that reading on does not fault.
//!
//! | | |
//! | --- | --- |
//! | where | loads from mappings of objects in base pages that are not registered for minor or write-protect faults |
//! | what | of the 16 pages around it those that are in the cache and in use, where the entry has never held anything |
//! | when | before anybody is asked about the page itself, which may be missing |

use core::sync::atomic::{AtomicU64, Ordering};

use super::Space;
use crate::arch::Stage1;
use crate::mm::addr::{PAGE_SIZE, VirtAddr};
use crate::mm::fault::Access;
use crate::mm::memtype::{Class, Modes};
use crate::mm::pt::{Attr, AttrFlags, Entry, InstallError, Level, Marker, PageTable, Prot};
use crate::mm::range::VirtRange;
use crate::mm::vma::{Sharing, Vma};

/// Pages that are looked at.
static PAGES: AtomicU64 = AtomicU64::new(16);

/// Sets how many pages are looked at around one: a power of two; 1 for that page alone. For all spaces (Linux:
/// `fault_around_bytes`).
pub fn set_pages_around(pages: u64) {
    assert!(pages.is_power_of_two(), "windows are aligned");
    PAGES.store(pages, Ordering::Relaxed);
}

impl Vma {
    /// Whether a load maps the pages beside it, too.
    #[inline]
    pub(super) fn is_mapped_around(&self, access: Access) -> bool {
        access != Access::Write
            && self.ty.class == Class::Shmem
            && self
                .uffd
                .as_ref()
                .is_none_or(|registration| !registration.modes.intersects(Modes::MINOR | Modes::WP))
    }

    /// The pages around `page`: 16 from a multiple of that on, or from the area's start; all in one node.
    fn around(&self, page: VirtAddr) -> VirtRange {
        let bytes = PAGES.load(Ordering::Relaxed) * PAGE_SIZE;
        let node = page.align_down(Level::MID.size());
        let start = page.align_down(bytes).max(self.range.start).max(node);
        let end = (start + bytes).min(self.range.end);
        VirtRange::new(start, end.min(node + Level::MID.size()))
    }
}

impl Space {
    /// Maps what the cache has of the pages around `page`, of an area of which [`Vma::is_mapped_around`] says so, if the entry
    /// of the page itself has never held anything. Returns whether the page is mapped now.
    #[cold]
    pub(super) fn map_around(&self, vma: &Vma, page: VirtAddr, table: &mut PageTable<Stage1>) -> bool {
        let Some(backing) = &vma.backing else { return false };
        if !matches!(table.lookup(page).0, Entry::Absent(Marker::None)) {
            return false;
        }
        let prot = match backing.sharing {
            Sharing::Shared => vma.prot,
            // It asks again before it writes.
            Sharing::Private => vma.prot - Prot::WRITE,
        };
        let window = vma.around(page);
        let (first, end) = (vma.offset_of(window.start), vma.offset_of(window.end));
        let mut mapped = false;
        let mut offset = first;
        while let Some((found, folio)) = backing.object.next_in_use(offset, end) {
            let at = window.start + (found - first);
            let mut cursor = table.cursor_at(at);
            if cursor.is_vacant() || matches!(cursor.entry().0, Entry::Absent(Marker::None)) {
                let attr = Attr::flags(AttrFlags::empty());
                match cursor.install(Level::PAGE, folio, self.leaf_prot(prot), attr) {
                    Ok(_) => mapped |= at == page,
                    Err(InstallError::Occupied(_)) => {}
                    // Without a node for the page itself the fault says so.
                    Err(InstallError::OutOfFrames(_)) => break,
                }
            }
            offset = found + PAGE_SIZE;
        }
        mapped
    }
}
