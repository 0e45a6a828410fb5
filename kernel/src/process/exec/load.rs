//! Segments, from a file into a space.

use alloc::sync::Arc;
use alloc::vec;

use super::elf::{Headers, Segment, Unfit};
use super::{ExecError, Image};
use crate::mm::addr::{PAGE_SIZE, VirtAddr};
use crate::mm::fault::Origin;
use crate::mm::frame;
use crate::mm::memtype::anon;
use crate::mm::pt::Prot;
use crate::mm::space::{MapRequest, Memory, Space};
use crate::mm::vma::Sharing;

/// Where a file's segments are.
#[derive(Clone, Copy, Debug)]
pub struct Loaded {
    /// What its addresses were moved by.
    pub base: VirtAddr,
    /// Where it begins.
    pub entry: VirtAddr,
    /// The first address behind it.
    pub end: VirtAddr,
    /// Its program headers in memory; 0 when no segment has them.
    pub headers_at: VirtAddr,
}

/// Maps the segments; those that can be put anywhere, at `base` or a little above.
///
/// # Errors
/// A segment cannot be mapped, or its part of the last page cannot be cleared.
pub fn load(space: &Arc<Space>, image: &Image, headers: &Headers, base: u64) -> Result<Loaded, ExecError> {
    let bias = match headers.relocatable {
        true => base
            .next_multiple_of(headers.align)
            .wrapping_sub(headers.start() & !(headers.align - 1)),
        false => 0,
    };
    for segment in &headers.segments {
        map(space, image, segment, bias)?;
    }
    let at = |address: u64| VirtAddr::new(address.wrapping_add(bias));
    let table = headers
        .segments
        .iter()
        .find(|segment| (segment.offset..segment.offset + segment.file_len).contains(&headers.table_offset));
    Ok(Loaded {
        base: VirtAddr::new(bias),
        entry: at(headers.entry),
        end: at(headers.end()),
        headers_at: table.map_or(VirtAddr::new(0), |segment| {
            at(segment.address + (headers.table_offset - segment.offset))
        }),
    })
}

fn map(space: &Arc<Space>, image: &Image, segment: &Segment, bias: u64) -> Result<(), ExecError> {
    // What is linked above where it goes is moved down.
    let address = segment.address.wrapping_add(bias);
    let Some(end) = address.checked_add(segment.memory_len) else {
        return Err(ExecError::Unfit(Unfit::BadSegment));
    };
    // More than there could ever be (Linux refuses by its rules of overcommitment).
    if segment.memory_len / PAGE_SIZE > frame::allocator().stats().managed {
        return Err(ExecError::Unfit(Unfit::BadSegment));
    }
    let start = address & !(PAGE_SIZE - 1);
    let file_end = address + segment.file_len;
    let mapped_end = match segment.file_len {
        0 => start,
        _ => file_end.next_multiple_of(PAGE_SIZE),
    };
    if mapped_end > start {
        let memory = Memory::Object {
            object: Arc::clone(&image.object),
            offset: segment.offset & !(PAGE_SIZE - 1),
            sharing: Sharing::Private,
            read_only: false,
        };
        place(space, start, mapped_end - start, segment.prot, memory)?;
    }
    if end > mapped_end {
        let len = end.next_multiple_of(PAGE_SIZE) - mapped_end;
        place(space, mapped_end, len, segment.prot, Memory::Own(&anon::ANON))?;
    }
    // What the file has behind the segment does not belong to it.
    let tail = mapped_end
        .min(end.next_multiple_of(PAGE_SIZE))
        .saturating_sub(file_end);
    if segment.file_len > 0 && segment.memory_len > segment.file_len && tail > 0 {
        let zeros = vec![0; tail as usize];
        space
            .write_bytes(VirtAddr::new(file_end), &zeros, Origin::Kernel)
            .map_err(|_| ExecError::Unfit(Unfit::BadSegment))?;
    }
    Ok(())
}

fn place(space: &Arc<Space>, at: u64, len: u64, prot: Prot, memory: Memory) -> Result<(), ExecError> {
    let request = MapRequest {
        at: Some(VirtAddr::new(at)),
        len,
        prot,
        memory,
    };
    space.map_over(request).map(drop).map_err(ExecError::Map)
}
