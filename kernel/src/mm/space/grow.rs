//! Stacks: areas that become longer when the address below them is touched (Linux's `MAP_GROWSDOWN`).
//!
//! A touch of an address that is not mapped makes the next area above reach down to it, if that area grows, is not longer
//! than the limit then ([`Space::set_stack_limit`]), and stays [`STACK_GAP`] away from what is mapped below, unless nothing
//! may touch that either.

use super::{MAP_BOTTOM, Space};
use crate::mm::addr::{PAGE_SIZE, VirtAddr};
use crate::mm::vma::{STACK_GAP, VmaFlags, VmaSet};

impl Space {
    /// Makes the area above `addr`, where nothing is mapped, reach down to it. True when something is mapped there now: look
    /// again.
    #[cold]
    #[inline(never)]
    pub(super) fn grow_down_to(&self, addr: VirtAddr) -> bool {
        let page = addr.align_down(PAGE_SIZE);
        let mut vmas = self.vmas.write();
        if vmas.find(page).is_some() {
            return true;
        }
        let Some(end) = self.may_grow(&vmas, page) else {
            return false;
        };
        vmas.extend_down(end, page);
        true
    }

    /// An address of the area that may reach down to `page`.
    fn may_grow(&self, vmas: &VmaSet, page: VirtAddr) -> Option<VirtAddr> {
        let stack = vmas.at_or_above(page)?;
        let grows = stack.flags.contains(VmaFlags::GROWS_DOWN) && stack.backing.is_none();
        let fits = stack.range.end - page <= self.stack_limit();
        if !grows || !fits || page < MAP_BOTTOM {
            return None;
        }
        let clear = vmas.below(page).is_none_or(|below| {
            let reachable = !below.prot.is_empty() && !below.flags.contains(VmaFlags::GROWS_DOWN);
            !reachable || page - below.range.end >= STACK_GAP
        });
        clear.then_some(stack.range.start)
    }
}
