//! Locks in memory whose owner ends (`set_robust_list`): they are marked, and somebody who waits is woken.

use alloc::sync::Arc;

use super::{Thread, futex};
use crate::mm::addr::VirtAddr;
use crate::mm::uaccess::{self, on_behalf};

/// The word says that somebody waits.
const WAITERS: u32 = 1 << 31;
/// The word says that the owner died.
const OWNER_DIED: u32 = 1 << 30;
/// The owner's number.
const OWNER: u32 = OWNER_DIED - 1;
/// Most locks that are looked at (`ROBUST_LIST_LIMIT`).
const LIMIT: usize = 2048;
/// Locks with priority inheritance have this bit in the pointer to them.
const PI: u64 = 1;

fn read_u64(at: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    on_behalf(|| uaccess::read(VirtAddr::new(at), &mut bytes)).ok()?;
    Some(u64::from_le_bytes(bytes))
}

/// Marks every lock on the list of `thread`, the current one, which ends. A list that cannot be read ends there.
pub(super) fn release_all(thread: &Arc<Thread>) {
    let (head, _) = core::mem::take(&mut *thread.robust_list.lock());
    if head.as_u64() != 0 {
        let _ = walk(thread, head.as_u64());
    }
}

fn walk(thread: &Thread, head: u64) -> Option<()> {
    let offset = read_u64(head + 8)?;
    let pending = read_u64(head + 16)?;
    let mut entry = read_u64(head)?;
    for _ in 0..LIMIT {
        if entry & !PI == head {
            break;
        }
        // Before the lock is let go of: its memory may be used for something else then.
        let next = read_u64(entry & !PI);
        if entry & !PI != pending & !PI {
            release(thread, (entry & !PI).wrapping_add(offset))?;
        }
        entry = next?;
    }
    if pending & !PI != 0 {
        release(thread, (pending & !PI).wrapping_add(offset))?;
    }
    Some(())
}

/// Marks one lock if the thread owns it.
fn release(thread: &Thread, at: u64) -> Option<()> {
    if !at.is_multiple_of(4) {
        return None;
    }
    let word = VirtAddr::new(at);
    loop {
        let value = futex::load(word)?;
        if value & OWNER != thread.tid().as_u32() {
            return Some(());
        }
        let marked = value & WAITERS | OWNER_DIED;
        if futex::exchange_if(word, value, marked)? {
            if value & WAITERS != 0 {
                futex::wake_in(thread.process().mm().space(), word, 1);
            }
            return Some(());
        }
    }
}
