//! Which word is meant: by memory object and offset, or by address space and address.

use alloc::sync::Arc;

use crate::abi::errno::Errno;
use crate::mm::addr::{USER_TOP, VirtAddr};
use crate::mm::cache::Object;
use crate::mm::fault::{Access, FaultError};
use crate::mm::range::VirtRange;
use crate::mm::space::Space;

/// Who may mean the same word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Threads of the space alone (`FUTEX_PRIVATE_FLAG`).
    Private,
    /// Whoever maps the same memory.
    Shared,
}

/// A word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Key {
    /// The address of the space or of the object, which is alive while somebody waits.
    pub(super) owner: usize,
    /// The address in the space, or the offset in the object.
    pub(super) at: u64,
}

/// A word, and the object that it is a word of; `None`: of the space that was asked about.
#[derive(Clone, Debug)]
pub(super) struct Word {
    pub key: Key,
    pub object: Option<Arc<Object>>,
}

impl Word {
    /// The word at `addr` of `space`. A shared word is touched as by a store, or by a load where nobody may store; that may
    /// sleep.
    ///
    /// # Errors
    /// EINVAL: not aligned. EFAULT: not the program's, or nothing is there.
    #[inline(always)]
    pub fn of(space: &Arc<Space>, addr: VirtAddr, scope: Scope) -> Result<Self, Errno> {
        if !addr.is_aligned(4) {
            return Err(Errno::EINVAL);
        }
        if addr >= USER_TOP {
            return Err(Errno::EFAULT);
        }
        match scope {
            Scope::Private => Ok(Self::of_space(space, addr)),
            Scope::Shared => Self::shared(space, addr),
        }
    }

    #[inline(always)]
    fn of_space(space: &Arc<Space>, addr: VirtAddr) -> Self {
        Self {
            key: Key {
                owner: Arc::as_ptr(space).addr(),
                at: addr.as_u64(),
            },
            object: None,
        }
    }

    #[inline(never)]
    fn shared(space: &Arc<Space>, addr: VirtAddr) -> Result<Self, Errno> {
        touch(space, addr)?;
        let vma = space.query(addr).ok_or(Errno::EFAULT)?;
        Ok(match &vma.backing {
            Some(backing) if vma.is_shared() => Self {
                key: Key {
                    owner: Arc::as_ptr(&backing.object).addr(),
                    at: vma.offset_of(addr),
                },
                object: Some(Arc::clone(&backing.object)),
            },
            _ => Self::of_space(space, addr),
        })
    }
}

impl Key {
    /// A number to spread keys by.
    #[inline]
    pub fn hash(&self) -> usize {
        let mixed = (self.owner as u64 >> 4 ^ self.at >> 2).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 32) as usize
    }
}

fn touch(space: &Arc<Space>, addr: VirtAddr) -> Result<(), Errno> {
    let range = VirtRange::new(addr, addr + 4);
    match space.populate(range, Access::Write) {
        Err(error) if error.why == FaultError::Forbidden => {
            space.populate(range, Access::Read).map_err(|_| Errno::EFAULT)
        }
        done => done.map_err(|_| Errno::EFAULT),
    }
}
