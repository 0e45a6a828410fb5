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
    owner: usize,
    /// The address in the space, or the offset in the object.
    at: u64,
}

/// What a key's first part is the address of.
#[derive(Clone, Debug)]
#[expect(dead_code, reason = "owned for as long as somebody waits, not looked at")]
pub(super) enum Owner {
    Space(Arc<Space>),
    Object(Arc<Object>),
}

impl Key {
    /// The word at `addr` of `space`. A shared word is touched as by a store, or by a load where nobody may store; that may
    /// sleep.
    ///
    /// # Errors
    /// EINVAL: not aligned. EFAULT: not the program's, or nothing is there.
    pub fn of(space: &Arc<Space>, addr: VirtAddr, scope: Scope) -> Result<(Self, Owner), Errno> {
        if !addr.is_aligned(4) {
            return Err(Errno::EINVAL);
        }
        if addr >= USER_TOP {
            return Err(Errno::EFAULT);
        }
        let of_space = || {
            let key = Self {
                owner: Arc::as_ptr(space).addr(),
                at: addr.as_u64(),
            };
            (key, Owner::Space(Arc::clone(space)))
        };
        if scope == Scope::Private {
            return Ok(of_space());
        }
        touch(space, addr)?;
        let vma = space.query(addr).ok_or(Errno::EFAULT)?;
        Ok(match &vma.backing {
            Some(backing) if vma.is_shared() => {
                let key = Self {
                    owner: Arc::as_ptr(&backing.object).addr(),
                    at: vma.offset_of(addr),
                };
                (key, Owner::Object(Arc::clone(&backing.object)))
            }
            _ => of_space(),
        })
    }

    /// A number to spread keys by.
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
