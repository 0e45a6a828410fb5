//! A space as a view of the memory objects that it maps.

use super::Space;
use super::zap::Zap;
use crate::mm::cache::{Object, ObjectRange, Taken, View};
use crate::mm::range::VirtRange;
use crate::mm::vma::Vma;

impl View for Space {
    fn take_away(&self, object: &Object, range: ObjectRange, what: Taken) -> bool {
        let vmas = self.vmas.read();
        let mut maps = false;
        for vma in vmas.iter() {
            let Some(part) = part_of(vma, object, range) else {
                continue;
            };
            maps = true;
            if !part.is_empty() {
                self.zap(vma, part, Zap::taken_from(vma, what));
            }
        }
        maps
    }
}

/// Where the area has `range` of the object; empty where it maps other parts of it, `None` where it maps something else.
fn part_of(vma: &Vma, object: &Object, range: ObjectRange) -> Option<VirtRange> {
    let backing = vma.backing.as_ref()?;
    if !core::ptr::eq(&raw const *backing.object, object) {
        return None;
    }
    let len = vma.range.len();
    let from = range.start.saturating_sub(backing.offset).min(len);
    let to = range.end.saturating_sub(backing.offset).min(len);
    Some(VirtRange::new(vma.range.start + from, vma.range.start + to))
}
