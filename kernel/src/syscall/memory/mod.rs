//! Memory: what a process has mapped.
//!
//! | file | calls |
//! | --- | --- |
//! | `map` | mmap, munmap |
//! | `protect` | mprotect, pkey_mprotect and what else there is of keys |
//! | `remap` | mremap |
//! | `heap` | brk |
//! | `file_pages` | remap_file_pages |
//! | `shm` | shmget, shmat, shmdt, shmctl |
//! | `advise` | madvise, process_madvise |
//! | `lock` | mlock, mlock2, munlock, mlockall, munlockall |
//! | `residence` | mincore, msync |
//! | `across` | process_vm_readv, process_vm_writev |
//! | `policy` | mbind, set_mempolicy, get_mempolicy |

mod across;
mod advise;
mod file_pages;
mod heap;
mod lock;
mod map;
mod policy;
mod protect;
mod remap;
mod residence;
mod shm;

pub use across::{process_vm_readv, process_vm_writev};
pub use advise::{madvise, process_madvise};
pub use file_pages::remap_file_pages;
pub use heap::brk;
pub use lock::{mlock, mlock2, mlockall, munlock, munlockall};
pub use map::{mmap, munmap};
pub use policy::{get_mempolicy, mbind, set_mempolicy};
pub use protect::{mprotect, pkey_alloc, pkey_free, pkey_mprotect};
pub use remap::mremap;
pub use residence::{mincore, msync};
pub use shm::{shmat, shmctl, shmdt, shmget};

use alloc::sync::Arc;

use super::Call;
use crate::abi::errno::Errno;
use crate::abi::mman::Protection;
use crate::mm::addr::{PAGE_SIZE, VirtAddr};
use crate::mm::pt::Prot;
use crate::mm::range::VirtRange;
use crate::mm::space::Space;

/// The caller's space.
fn space(call: &Call<'_>) -> Arc<Space> {
    Arc::clone(call.thread.process().mm().space())
}

/// A length in whole pages; `None` when that wraps.
fn in_pages(len: u64) -> Option<u64> {
    len.checked_next_multiple_of(PAGE_SIZE)
}

/// The pages from `start` on that `len` bytes have a part in; `None` for those that are none.
///
/// # Errors
/// EINVAL: the start is in the middle of a page, or the end cannot be told.
fn pages(start: u64, len: u64) -> Result<Option<VirtRange>, Errno> {
    if !start.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    let len = in_pages(len).ok_or(Errno::EINVAL)?;
    let end = start.checked_add(len).ok_or(Errno::EINVAL)?;
    Ok((len > 0).then(|| VirtRange::new(VirtAddr::new(start), VirtAddr::new(end))))
}

/// Rights, from the bits that mean one.
fn rights(protection: u64) -> Prot {
    let wanted = Protection::from_bits_truncate(protection);
    let mut prot = Prot::empty();
    prot.set(Prot::READ, wanted.contains(Protection::READ));
    prot.set(Prot::WRITE, wanted.contains(Protection::WRITE));
    prot.set(Prot::EXEC, wanted.contains(Protection::EXEC));
    prot
}
