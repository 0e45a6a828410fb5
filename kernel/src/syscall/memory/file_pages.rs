//! `remap_file_pages`: another part of a file in place of what is mapped. As on Linux since 4.0, a mapping of its own.

use alloc::sync::Arc;

use super::super::{Call, Result};
use super::space;
use crate::abi::errno::Errno;
use crate::mm::addr::{PAGE_SIZE, USER_TOP, VirtAddr};
use crate::mm::range::VirtRange;
use crate::mm::space::{MapOptions, MapRequest, Memory};
use crate::mm::vma::VmaFlags;

/// `remap_file_pages`.
pub fn remap_file_pages(call: &mut Call<'_>) -> Result {
    let [start, size, prot, page, ..] = *call.args;
    let start = start & !(PAGE_SIZE - 1);
    let size = size & !(PAGE_SIZE - 1);
    let end = start
        .checked_add(size)
        .filter(|end| *end > start && *end <= USER_TOP.as_u64());
    let (Some(end), 0) = (end, prot) else {
        return Err(Errno::EINVAL.into());
    };
    let offset = page.checked_mul(PAGE_SIZE).ok_or(Errno::EINVAL)?;
    let space = space(call);
    let range = VirtRange::new(VirtAddr::new(start), VirtAddr::new(end));
    let area = space
        .query(range.start)
        .filter(|area| area.is_shared() && area.range.end >= range.end);
    let (Some(area), Some(backing)) = (&area, area.as_ref().and_then(|area| area.backing.as_ref())) else {
        return Err(Errno::EINVAL.into());
    };
    let request = MapRequest {
        at: Some(range.start),
        len: size,
        prot: area.prot,
        memory: Memory::Object {
            object: Arc::clone(&backing.object),
            offset,
            sharing: backing.sharing,
            read_only: area.flags.contains(VmaFlags::READ_ONLY),
        },
    };
    let options = MapOptions {
        replaces: true,
        file: backing.file.clone(),
        ..MapOptions::default()
    };
    space.map_with(request, options).map_err(|_| Errno::EINVAL)?;
    Ok(0)
}
