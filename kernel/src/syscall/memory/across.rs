//! `process_vm_readv` and `process_vm_writev`: memory of another process, or one's own.
//!
//! The other's memory is looked up page by page, and that may wait for its monitor, like any access of its own; the caller's
//! is copied to or from in between.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::super::{Call, Error, Result, user};
use crate::abi::errno::Errno;
use crate::file::{Segment, Sink, Source};
use crate::mm::addr::{PAGE_SIZE, VirtAddr};
use crate::mm::fault::Origin;
use crate::mm::space::Space;
use crate::process::insight::{By, may_look_into};
use crate::process::table::{self, Pid};
use crate::syscall::file::transfer::segments;

/// `process_vm_readv`.
pub fn process_vm_readv(call: &mut Call<'_>) -> Result {
    let Some((local, remote, space)) = parts(call)? else {
        return Ok(0);
    };
    let mut sink = Sink::task(&local);
    let mut page = [0; PAGE_SIZE as usize];
    let ended = each_page(&remote, sink.left(), |addr, len| {
        let read = space.read_pinned(addr, &mut page[..len]);
        read.map_err(|_| Errno::EFAULT)?;
        sink.put(&page[..len])
    });
    let read = sink.outcome(ended.map_err(Error::from))?;
    Ok(read as u64)
}

/// `process_vm_writev`.
pub fn process_vm_writev(call: &mut Call<'_>) -> Result {
    let Some((local, remote, space)) = parts(call)? else {
        return Ok(0);
    };
    let mut source = Source::task(&local);
    let mut page = [0; PAGE_SIZE as usize];
    let ended = each_page(&remote, source.left(), |addr, len| {
        let (taken, read) = source.take(&mut page[..len]);
        if let Err(error) = space.write_bytes(addr, &page[..taken], Origin::Kernel) {
            let done = error.addr.as_u64().saturating_sub(addr.as_u64()) as usize;
            source.give_back(taken - done.min(taken));
            return Err(Errno::EFAULT);
        }
        read
    });
    let written = source.outcome(ended.map_err(Error::from))?;
    Ok(written as u64)
}

type Parts = Option<(Vec<Segment>, Vec<Segment>, Arc<Space>)>;

/// The two lists and the other space; `None` when there is nothing to copy.
fn parts(call: &Call<'_>) -> core::result::Result<Parts, Error> {
    let [pid, local, locals, remote, remotes, flags] = *call.args;
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let local = segments(local, locals)?;
    if local.iter().all(|part| part.len == 0) {
        return Ok(None);
    }
    let remote = remote_parts(remote, remotes)?;
    if remote.iter().all(|part| part.len == 0) {
        return Ok(None);
    }
    let thread = table::thread(Pid::new(pid as u32)).ok_or(Errno::ESRCH)?;
    if !may_look_into(call.thread, thread.process(), By::Real) {
        return Err(Errno::EPERM.into());
    }
    let space = Arc::clone(thread.process().mm().space());
    Ok(Some((local, remote, space)))
}

/// A list of parts of another space: addresses are found out to be bad when they are used.
fn remote_parts(array: u64, count: u64) -> core::result::Result<Vec<Segment>, Error> {
    const MAX: u64 = 1024;
    if count > MAX {
        return Err(Errno::EINVAL.into());
    }
    let bytes = user::read_vec(array, count as usize * 16)?;
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    let mut parts = Vec::new();
    for part in bytes.chunks_exact(16) {
        let (addr, len) = (word(&part[..8]), word(&part[8..]));
        if i64::try_from(len).is_err() {
            return Err(Errno::EINVAL.into());
        }
        parts.push(Segment {
            addr: VirtAddr::new(addr),
            len: len as usize,
        });
    }
    Ok(parts)
}

/// Calls `copy` for what lies on each page of the first `left` bytes of `parts`.
fn each_page(
    parts: &[Segment],
    mut left: usize,
    mut copy: impl FnMut(VirtAddr, usize) -> core::result::Result<(), Errno>,
) -> core::result::Result<(), Errno> {
    for part in parts {
        let mut done = 0;
        while done < part.len {
            let addr = part.addr.checked_add(done as u64).ok_or(Errno::EFAULT)?;
            let on_page = (PAGE_SIZE - addr.page_offset()) as usize;
            let len = on_page.min(part.len - done).min(left);
            if len == 0 {
                return Ok(());
            }
            copy(addr, len)?;
            done += len;
            left -= len;
        }
    }
    Ok(())
}
