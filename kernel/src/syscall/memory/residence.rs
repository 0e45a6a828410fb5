//! `mincore` and `msync`: memory and what is behind it.

use super::super::{Call, Result, user};
use super::{pages, space};
use crate::abi::errno::Errno;
use crate::abi::mman::SyncFlags;
use crate::file::OpenFile;
use crate::mm::addr::{PAGE_SIZE, USER_TOP, VirtAddr};
use crate::mm::range::VirtRange;
use crate::mm::space::{AdviseError, Space};
use crate::mm::vma::VmaFlags;

/// Pages whose bytes are stored at a time.
const BATCH: usize = 256;

/// `mincore`: a byte for each page, 1 where a touch would find it.
pub fn mincore(call: &mut Call<'_>) -> Result {
    let [start, len, bytes, ..] = *call.args;
    if !start.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL.into());
    }
    let top = USER_TOP.as_u64();
    if start > top || len > top - start {
        return Err(Errno::ENOMEM.into());
    }
    let count = len.div_ceil(PAGE_SIZE);
    if bytes > top || count > top - bytes {
        return Err(Errno::EFAULT.into());
    }
    let space = space(call);
    let mut done = 0;
    while done < count {
        let mut batch = [0; BATCH];
        let part = (count - done).min(BATCH as u64) as usize;
        let mut found = 0;
        for byte in &mut batch[..part] {
            let addr = VirtAddr::new(start + (done + found as u64) * PAGE_SIZE);
            let Some(resident) = space.is_resident(addr) else {
                break;
            };
            *byte = u8::from(resident);
            found += 1;
        }
        user::write(bytes + done, &batch[..found])?;
        if found < part {
            return Err(Errno::ENOMEM.into());
        }
        done += part as u64;
    }
    Ok(0)
}

/// `msync`. No object here is on a disk, so there is nothing to write.
pub fn msync(call: &mut Call<'_>) -> Result {
    let [start, len, flags, ..] = *call.args;
    let flags = SyncFlags::from_bits(u64::from(flags as u32)).ok_or(Errno::EINVAL)?;
    if !start.is_multiple_of(PAGE_SIZE) || flags.contains(SyncFlags::ASYNC | SyncFlags::SYNC) {
        return Err(Errno::EINVAL.into());
    }
    // A length that wraps is none here.
    let len = len.wrapping_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1);
    let Some(range) = pages(start, len).map_err(|_| Errno::ENOMEM)? else {
        return Ok(0);
    };
    let stale = flags.contains(SyncFlags::INVALIDATE);
    space(call)
        .check_each(range, |vma| !stale || !vma.flags.contains(VmaFlags::LOCKED))
        .map_err(|error| match error {
            AdviseError::Unfit => Errno::EBUSY,
            _ => Errno::ENOMEM,
        })?;
    if flags.contains(SyncFlags::SYNC) {
        sync_files(&space(call), range)?;
    }
    Ok(0)
}

/// Has the files of shared mappings in `range` synchronised, as far as they can be.
fn sync_files(space: &Space, range: VirtRange) -> core::result::Result<(), Errno> {
    let mut next = space.first_from(range.start);
    while let Some(area) = next.filter(|area| area.range.start < range.end) {
        let file = area.backing.as_ref().filter(|_| area.is_shared());
        let file = file.and_then(|backing| backing.file.as_ref());
        if let Some(open) = file.and_then(|file| file.0.downcast_ref::<OpenFile>()) {
            open.file().sync()?;
        }
        next = space.first_from(area.range.end);
    }
    Ok(())
}
