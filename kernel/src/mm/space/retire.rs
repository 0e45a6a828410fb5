//! The end of a space that somebody still knows: a descriptor of `/proc`, a reader of its memory, the CPU that ran its last
//! task.

use core::sync::atomic::Ordering;

use super::Space;
use crate::mm::addr::{USER_TOP, VirtAddr};
use crate::mm::range::VirtRange;

impl Space {
    /// Gives back everything that is mapped; nobody is told of it (Linux: the last thread of a process exits). To userfault
    /// contexts that serve the space it is gone from now on.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        let everything = VirtRange::new(VirtAddr::new(0), USER_TOP);
        let mut vmas = self.vmas.write();
        let taken = self.take_down(&mut vmas, everything);
        taken.expect("no area reaches over the ends of everything");
    }

    /// Whether [`Self::retire`] was called.
    #[inline]
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }
}
