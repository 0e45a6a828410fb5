//! Memory policies, on a machine with one node: every policy comes to the same.

use super::super::{Call, Result, user};
use super::{pages, space};
use crate::abi::errno::Errno;
use crate::mm::addr::VirtAddr;
use crate::mm::space::AdviseError;

/// The highest policy (`MPOL_WEIGHTED_INTERLEAVE`).
const MAX_POLICY: u64 = 6;
/// Flags that go with a policy.
const POLICY_FLAGS: u64 = 0xe000;
/// Bits of a set of nodes that are looked at.
const NODES: u64 = 1024;

/// Of `get_mempolicy`.
mod get {
    pub const NODE: u64 = 1;
    pub const ADDR: u64 = 2;
    pub const MEMS_ALLOWED: u64 = 4;
}

/// Reads a set of nodes; whether node 0 is in it, and it is not empty.
fn nodes(mask: u64, max: u64) -> core::result::Result<u64, super::super::Error> {
    let bits = max.saturating_sub(1);
    if mask == 0 || bits == 0 {
        return Ok(0);
    }
    if bits > NODES * 64 {
        return Err(Errno::EINVAL.into());
    }
    let first = user::read_u64(mask)?;
    Ok(if bits < 64 {
        first & ((1 << bits) - 1)
    } else {
        first
    })
}

/// Whether a policy makes sense with these nodes.
fn check(policy: u64, mask: u64, max: u64) -> core::result::Result<(), super::super::Error> {
    let mode = policy & !POLICY_FLAGS;
    if mode > MAX_POLICY {
        return Err(Errno::EINVAL.into());
    }
    let nodes = nodes(mask, max)?;
    let takes_nodes = matches!(mode, 2 | 3 | 5 | 6);
    let refuses_nodes = matches!(mode, 0 | 4);
    if takes_nodes && nodes & 1 == 0 || refuses_nodes && nodes != 0 || nodes > 1 {
        return Err(Errno::EINVAL.into());
    }
    Ok(())
}

/// `set_mempolicy`.
pub fn set_mempolicy(call: &mut Call<'_>) -> Result {
    let [policy, mask, max, ..] = *call.args;
    check(u64::from(policy as u32), mask, max)?;
    Ok(0)
}

/// `mbind`.
pub fn mbind(call: &mut Call<'_>) -> Result {
    let [start, len, policy, mask, max, flags] = *call.args;
    if flags & !7 != 0 {
        return Err(Errno::EINVAL.into());
    }
    check(policy, mask, max)?;
    let Some(range) = pages(start, len)? else {
        return Ok(0);
    };
    match space(call).check_each(range, |_| true) {
        Ok(()) => Ok(0),
        Err(AdviseError::NotMapped) => Err(Errno::EFAULT.into()),
        Err(_) => Err(Errno::EINVAL.into()),
    }
}

/// `get_mempolicy`.
pub fn get_mempolicy(call: &mut Call<'_>) -> Result {
    let [policy, mask, max, addr, flags, _] = *call.args;
    if flags & !(get::NODE | get::ADDR | get::MEMS_ALLOWED) != 0 || mask != 0 && max < 1 {
        return Err(Errno::EINVAL.into());
    }
    let allowed = flags & get::MEMS_ALLOWED != 0;
    if allowed && flags != get::MEMS_ALLOWED {
        return Err(Errno::EINVAL.into());
    }
    if flags & get::ADDR != 0 {
        if space(call).query(VirtAddr::new(addr)).is_none() {
            return Err(Errno::EFAULT.into());
        }
    } else if addr != 0 {
        return Err(Errno::EINVAL.into());
    }
    if flags == get::NODE {
        // Only of policies that interleave.
        return Err(Errno::EINVAL.into());
    }
    if policy != 0 {
        // The default policy, or node 0: the same number.
        user::write(policy, &0_u32.to_le_bytes())?;
    }
    if mask != 0 {
        let words = max.div_ceil(64).min(NODES / 64);
        for word in 0..words {
            let nodes = u64::from(allowed && word == 0);
            user::write(mask + 8 * word, &nodes.to_le_bytes())?;
        }
    }
    Ok(0)
}
