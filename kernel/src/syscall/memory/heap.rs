//! `brk`: the heap, which follows the program's data.

use super::super::{Call, Result};
use super::space;
use crate::mm::addr::{PAGE_SIZE, USER_TOP, VirtAddr};
use crate::mm::memtype::anon::ANON;
use crate::mm::pt::Prot;
use crate::mm::range::VirtRange;
use crate::mm::space::{MapRequest, Memory};

/// `brk`. Answers where the heap ends afterwards: where it did, if it cannot end there.
pub fn brk(call: &mut Call<'_>) -> Result {
    let wanted = VirtAddr::new(call.args[0]);
    let mm = call.thread.process().mm();
    let heap = mm.heap();
    let unchanged = Ok(heap.end.as_u64());
    if wanted < heap.start || wanted > USER_TOP {
        return unchanged;
    }
    let (Some(old), Some(new)) = (heap.end.align_up(PAGE_SIZE), wanted.align_up(PAGE_SIZE)) else {
        return unchanged;
    };
    let space = space(call);
    let moved = if new > old {
        let more = MapRequest {
            at: Some(old),
            len: new - old,
            prot: Prot::READ | Prot::WRITE,
            memory: Memory::Own(&ANON),
        };
        let next = space.first_from(old);
        next.is_none_or(|vma| vma.guarded_start() >= new) && space.map(more).is_ok()
    } else {
        new == old || space.unmap(VirtRange::new(new, old)).is_ok()
    };
    if moved {
        mm.set_heap_end(wanted);
        Ok(wanted.as_u64())
    } else {
        unchanged
    }
}
