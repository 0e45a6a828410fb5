//! What a thread says about itself.

use super::{Call, Result, UserMode, user};
use crate::abi::errno::Errno;
use crate::mm::addr::{USER_TOP, VirtAddr};
use crate::process::credentials::capability::{LAST, SYS_PTRACE};
use crate::process::{Pid, Rseq, table, with_tree};

/// Bytes of `struct robust_list_head`.
const ROBUST_LIST_HEAD: u64 = 24;

/// `gettid`.
pub fn gettid(call: &mut Call<'_>) -> Result {
    Ok(call.thread.tid().as_u32().into())
}

/// `set_tid_address`.
pub fn set_tid_address(call: &mut Call<'_>) -> Result {
    let word = call.args[0];
    call.thread
        .set_clear_at_end((word != 0).then_some(VirtAddr::new(word)));
    gettid(call)
}

/// `set_robust_list`.
pub fn set_robust_list(call: &mut Call<'_>) -> Result {
    let [head, len, ..] = *call.args;
    if len != ROBUST_LIST_HEAD {
        return Err(Errno::EINVAL.into());
    }
    call.thread.set_robust_list(VirtAddr::new(head), len);
    Ok(0)
}

/// `get_robust_list`: thread, pointer to the list, its length.
pub fn get_robust_list(call: &mut Call<'_>) -> Result {
    let [tid, head_at, len_at, ..] = *call.args;
    let head = match tid as u32 {
        0 => call.thread.robust_list().0,
        tid => {
            let thread = table::thread(Pid::new(tid)).ok_or(Errno::ESRCH)?;
            let is_own = thread.process().pid() == call.thread.process().pid();
            if !is_own && !call.thread.credentials().can(SYS_PTRACE) {
                return Err(Errno::EPERM.into());
            }
            thread.robust_list().0
        }
    };
    user::write_u64(len_at, ROBUST_LIST_HEAD)?;
    user::write_u64(head_at, head.as_u64())?;
    Ok(0)
}

/// `rseq`: area, length, flags, signature.
pub fn rseq(call: &mut Call<'_>) -> Result {
    /// `RSEQ_FLAG_UNREGISTER`.
    const UNREGISTER: u32 = 1;
    /// The area as it was first.
    const LEAST: u32 = 32;
    let [at, len, flags, signature, ..] = *call.args;
    let (len, flags, signature) = (len as u32, flags as u32, signature as u32);
    let area = Rseq {
        at: VirtAddr::new(at),
        len,
        signature,
    };
    let registered = call.thread.rseq.get();
    if flags & UNREGISTER != 0 {
        let Some(present) = registered else {
            return Err(Errno::EINVAL.into());
        };
        if flags != UNREGISTER || present.at != area.at || present.len != len {
            return Err(Errno::EINVAL.into());
        }
        if present.signature != signature {
            return Err(Errno::EPERM.into());
        }
        call.thread.rseq.set(None);
        // No CPU: the area is not kept any more.
        user::write_u32(at, 0)?;
        user::write_u32(at + 4, u32::MAX)?;
        return Ok(0);
    }
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    if let Some(present) = registered {
        return Err(if present.at != area.at || present.len != len {
            Errno::EINVAL
        } else if present.signature != signature {
            Errno::EPERM
        } else {
            Errno::EBUSY
        }
        .into());
    }
    if len < LEAST || !at.is_multiple_of(32) {
        return Err(Errno::EINVAL.into());
    }
    if at >= USER_TOP.as_u64() {
        return Err(Errno::EFAULT.into());
    }
    call.thread.rseq.set(Some(area));
    // cpu_id_start, cpu_id, rseq_cs, flags, node_id, mm_cid: all of the one CPU.
    user::write(at, &[0; LEAST as usize])?;
    Ok(0)
}

/// `arch_prctl`.
pub fn arch_prctl(call: &mut Call<'_>, user_mode: &mut UserMode<'_>) -> Result {
    const SET_GS: u64 = 0x1001;
    const SET_FS: u64 = 0x1002;
    const GET_FS: u64 = 0x1003;
    const GET_GS: u64 = 0x1004;
    let [what, address, ..] = *call.args;
    let base = VirtAddr::new(address);
    match what {
        SET_FS | SET_GS if base >= USER_TOP => Err(Errno::EPERM.into()),
        SET_FS => {
            user_mode.extra.set_fs_base(base);
            Ok(0)
        }
        SET_GS => {
            user_mode.extra.set_gs_base(base);
            Ok(0)
        }
        GET_FS => user::write_u64(address, user_mode.extra.fs_base()).map(|()| 0),
        GET_GS => user::write_u64(address, user_mode.extra.gs_base()).map(|()| 0),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// `prctl`.
pub fn prctl(call: &mut Call<'_>) -> Result {
    use core::sync::atomic::Ordering;
    const SET_PDEATHSIG: u32 = 1;
    const GET_PDEATHSIG: u32 = 2;
    const GET_DUMPABLE: u32 = 3;
    const SET_DUMPABLE: u32 = 4;
    const GET_KEEPCAPS: u32 = 7;
    const SET_KEEPCAPS: u32 = 8;
    const SET_NAME: u32 = 15;
    const GET_NAME: u32 = 16;
    const CAPBSET_READ: u32 = 23;
    const CAPBSET_DROP: u32 = 24;
    const SET_TIMERSLACK: u32 = 29;
    const GET_TIMERSLACK: u32 = 30;
    const SET_CHILD_SUBREAPER: u32 = 36;
    const GET_CHILD_SUBREAPER: u32 = 37;
    const SET_NO_NEW_PRIVS: u32 = 38;
    const GET_NO_NEW_PRIVS: u32 = 39;
    const SET_THP_DISABLE: u32 = 41;
    const GET_THP_DISABLE: u32 = 42;
    /// What Linux gives unless told otherwise, in nanoseconds.
    const TIMER_SLACK: u64 = 50_000;
    let [what, a, b, c, d, _] = *call.args;
    let thread = call.thread;
    let rest_is_zero = b == 0 && c == 0 && d == 0;
    match what as u32 {
        SET_PDEATHSIG if a > 64 => Err(Errno::EINVAL.into()),
        SET_PDEATHSIG => {
            thread.parent_death_signal.store(a as u32, Ordering::Relaxed);
            Ok(0)
        }
        GET_PDEATHSIG => user::write_u32(a, thread.parent_death_signal.load(Ordering::Relaxed)).map(|()| 0),
        GET_DUMPABLE => Ok(thread.process().is_dumpable().into()),
        SET_DUMPABLE if a > 1 => Err(Errno::EINVAL.into()),
        SET_DUMPABLE => {
            thread.process().set_dumpable(a == 1);
            Ok(0)
        }
        GET_KEEPCAPS => Ok(thread.credentials().keeps_capabilities.into()),
        SET_KEEPCAPS if a > 1 => Err(Errno::EINVAL.into()),
        SET_KEEPCAPS => {
            thread.change_credentials(|who| who.keeps_capabilities = a == 1);
            Ok(0)
        }
        SET_NAME => {
            thread.set_name(&read_name(a)?);
            Ok(0)
        }
        GET_NAME => {
            let mut name = [0; 16];
            let bytes = thread.name_bytes();
            name[..bytes.len()].copy_from_slice(&bytes);
            user::write(a, &name).map(|()| 0)
        }
        CAPBSET_READ if a > LAST.into() => Err(Errno::EINVAL.into()),
        CAPBSET_READ => Ok(thread.credentials().capabilities.bounding >> a & 1),
        CAPBSET_DROP if a > LAST.into() => Err(Errno::EINVAL.into()),
        CAPBSET_DROP => thread.change_credentials(|who| {
            if !who.can(crate::process::credentials::capability::SETPCAP) {
                return Err(Errno::EPERM.into());
            }
            who.capabilities.bounding &= !(1 << a);
            Ok(0)
        }),
        SET_TIMERSLACK => Ok(0),
        GET_TIMERSLACK => Ok(TIMER_SLACK),
        SET_CHILD_SUBREAPER => {
            with_tree(|tree| tree.set_subreaper(thread.process().pid(), a != 0));
            Ok(0)
        }
        GET_CHILD_SUBREAPER => {
            let is_subreaper = with_tree(|tree| tree.is_subreaper(thread.process().pid()));
            user::write_u32(a, is_subreaper.into()).map(|()| 0)
        }
        SET_NO_NEW_PRIVS if a != 1 || !rest_is_zero => Err(Errno::EINVAL.into()),
        SET_NO_NEW_PRIVS => {
            thread.change_credentials(|who| who.no_new_privileges = true);
            Ok(0)
        }
        GET_NO_NEW_PRIVS if a != 0 || !rest_is_zero => Err(Errno::EINVAL.into()),
        GET_NO_NEW_PRIVS => Ok(thread.credentials().no_new_privileges.into()),
        // Small pages are all that programs get unless they ask.
        SET_THP_DISABLE if rest_is_zero => Ok(0),
        GET_THP_DISABLE if a == 0 && rest_is_zero => Ok(0),
        // PR_SET_VMA and names of memory among them: as a Linux that is built without.
        _ => Err(Errno::EINVAL.into()),
    }
}

/// A name of at most 16 bytes, which need not be followed by anything that can be read.
fn read_name(at: u64) -> core::result::Result<[u8; 16], super::Error> {
    let mut name = [0; 16];
    for (n, byte) in (0..).zip(name.iter_mut()) {
        user::read(at + n, core::slice::from_mut(byte))?;
        if *byte == 0 {
            break;
        }
    }
    Ok(name)
}

/// `personality`: there is one.
pub fn personality(call: &mut Call<'_>) -> Result {
    const QUERY: u32 = u32::MAX;
    match call.args[0] as u32 {
        QUERY | 0 => Ok(0),
        _ => Err(Errno::EINVAL.into()),
    }
}
