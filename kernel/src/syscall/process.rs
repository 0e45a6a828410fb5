//! A process's and a thread's beginning and end.

use super::{Call, Result, user};
use crate::abi::errno::Errno;
use crate::mm::addr::{USER_TOP, VirtAddr};
use crate::process::Ending;

/// `exit`: the thread ends.
pub fn exit(call: &mut Call<'_>) -> Result {
    call.thread.process().end(Ending::Exited(call.args[0] as u8));
    Ok(0)
}

/// `exit_group`: the process ends.
pub fn exit_group(call: &mut Call<'_>) -> Result {
    call.thread.process().end(Ending::Exited(call.args[0] as u8));
    Ok(0)
}

/// `set_tid_address`.
pub fn set_tid_address(call: &mut Call<'_>) -> Result {
    call.thread.set_clear_at_end(Some(VirtAddr::new(call.args[0])));
    Ok(call.thread.tid().as_u32().into())
}

/// `arch_prctl`.
pub fn arch_prctl(call: &mut Call<'_>) -> Result {
    const SET_GS: u64 = 0x1001;
    const SET_FS: u64 = 0x1002;
    const GET_FS: u64 = 0x1003;
    const GET_GS: u64 = 0x1004;
    let [what, address, ..] = call.args;
    let base = VirtAddr::new(address);
    match what {
        SET_FS | SET_GS if base >= USER_TOP => Err(Errno::EPERM.into()),
        SET_FS => {
            call.extra.set_fs_base(base);
            Ok(0)
        }
        SET_GS => {
            call.extra.set_gs_base(base);
            Ok(0)
        }
        GET_FS => user::write(address, &call.extra.fs_base().to_le_bytes()).map(|()| 0),
        GET_GS => user::write(address, &call.extra.gs_base().to_le_bytes()).map(|()| 0),
        _ => Err(Errno::EINVAL.into()),
    }
}
