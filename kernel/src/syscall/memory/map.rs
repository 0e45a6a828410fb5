//! `mmap` and `munmap`.
//!
//! The checks stand in Linux's order, since a call that is wrong twice answers with the first: file, length, offset, place,
//! kind.

use super::super::{Call, Result};
use super::{in_pages, rights, space};
use crate::abi::errno::Errno;
use crate::abi::mman::{
    MAP_DROPPABLE, MAP_HUGE_MASK, MAP_HUGE_SHIFT, MAP_PRIVATE, MAP_SHARED, MAP_TYPE, MapFlags,
};
use crate::mm::addr::{PAGE_SIZE, USER_TOP, VirtAddr};
use crate::mm::cache::Object;
use crate::mm::fault::Access;
use crate::mm::frame;
use crate::mm::memtype::Granule;
use crate::mm::memtype::{anon::ANON, droppable::DROPPABLE, hugetlb::HUGETLB, shmem::SHMEM};
use crate::mm::pt::Prot;
use crate::mm::range::VirtRange;
use crate::mm::space::{MAP_BOTTOM, MapError, MapOptions, MapRequest, Memory, UnmapError};
use crate::mm::vma::VmaFlags;

/// Where `MAP_32BIT` puts things.
const LOW_WINDOW: VirtRange = VirtRange {
    start: VirtAddr::new(0x4000_0000),
    end: VirtAddr::new(0x8000_0000),
};

/// `mmap`.
pub fn mmap(call: &mut Call<'_>) -> Result {
    let [addr, len, protection, flags, _fd, offset] = call.args;
    if !offset.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL.into());
    }
    let known = MapFlags::from_bits_truncate(flags);
    if !known.contains(MapFlags::ANONYMOUS) {
        return Err(Errno::EBADF.into());
    }
    let huge = known.contains(MapFlags::HUGETLB);
    if huge {
        huge_size(flags)?;
    }
    let wanted = Wanted {
        addr,
        len,
        prot: rights(protection),
        flags,
        known,
        offset,
        huge,
    };
    let request = wanted.check()?;
    let options = wanted.options(&request);
    let space = space(call);
    let prot = request.prot;
    let range = space.map_with(request, options).map_err(errno)?;
    let populate = known & (MapFlags::POPULATE | MapFlags::NONBLOCK) == MapFlags::POPULATE;
    if populate || known.contains(MapFlags::LOCKED) {
        // What cannot be populated is left to the first touch.
        let access = if prot.contains(Prot::WRITE) {
            Access::Write
        } else {
            Access::Read
        };
        if !prot.is_empty() {
            let _ = space.populate(range, access);
        }
    }
    Ok(range.start.as_u64())
}

/// The size that the flags say huge pages have.
fn huge_size(flags: u64) -> core::result::Result<(), Errno> {
    match flags >> MAP_HUGE_SHIFT & MAP_HUGE_MASK {
        0 | 21 => Ok(()),
        // There are such pages; none is set aside.
        30 => Err(Errno::ENOMEM),
        _ => Err(Errno::EINVAL),
    }
}

/// A mapping without a file, as asked for.
struct Wanted {
    addr: u64,
    len: u64,
    prot: Prot,
    flags: u64,
    known: MapFlags,
    offset: u64,
    huge: bool,
}

impl Wanted {
    fn is_fixed(&self) -> bool {
        self.known.intersects(MapFlags::FIXED | MapFlags::FIXED_NOREPLACE)
    }

    fn check(&self) -> core::result::Result<MapRequest, Errno> {
        let granule = if self.huge {
            Granule::Huge.size()
        } else {
            PAGE_SIZE
        };
        if self.len == 0 {
            return Err(Errno::EINVAL);
        }
        let len = self.len.checked_next_multiple_of(granule).ok_or(Errno::ENOMEM)?;
        let last = (self.offset / PAGE_SIZE).checked_add(len / PAGE_SIZE);
        if last.is_none_or(|last| last > u64::MAX / PAGE_SIZE + 1) {
            return Err(Errno::EOVERFLOW);
        }
        if len > USER_TOP.as_u64() {
            return Err(Errno::ENOMEM);
        }
        if self.is_fixed() {
            if self.addr > USER_TOP.as_u64() - len {
                return Err(Errno::ENOMEM);
            }
            if !self.addr.is_multiple_of(granule) {
                return Err(Errno::EINVAL);
            }
        }
        let memory = self.memory(len)?;
        // As Linux guesses: more than there is at all is too much.
        let counts = self.flags & MAP_TYPE == MAP_SHARED || self.prot.contains(Prot::WRITE);
        let reserved = counts && !self.known.contains(MapFlags::NORESERVE) && !self.droppable();
        if self.huge {
            let free = frame::allocator().huge_pages().free;
            if !self.known.contains(MapFlags::NORESERVE) && len / granule > free {
                return Err(Errno::ENOMEM);
            }
        } else if reserved && len / PAGE_SIZE > frame::allocator().managed() {
            return Err(Errno::ENOMEM);
        }
        Ok(MapRequest {
            at: self.is_fixed().then(|| VirtAddr::new(self.addr)),
            len,
            prot: self.prot,
            memory,
        })
    }

    fn droppable(&self) -> bool {
        self.flags & MAP_TYPE == MAP_DROPPABLE
    }

    fn memory(&self, len: u64) -> core::result::Result<Memory, Errno> {
        let grows = self.known.contains(MapFlags::GROWSDOWN);
        match self.flags & MAP_TYPE {
            MAP_SHARED if grows => Err(Errno::EINVAL),
            MAP_SHARED => {
                let ty = if self.huge { &HUGETLB } else { &SHMEM };
                Ok(Memory::shared(&Object::new(ty, len)))
            }
            MAP_DROPPABLE if grows || self.known.intersects(MapFlags::LOCKED.union(MapFlags::HUGETLB)) => {
                Err(Errno::EINVAL)
            }
            MAP_DROPPABLE => Ok(Memory::Own(&DROPPABLE)),
            MAP_PRIVATE if self.huge && grows => Err(Errno::EINVAL),
            MAP_PRIVATE if self.huge => Ok(Memory::Own(&HUGETLB)),
            MAP_PRIVATE => Ok(Memory::Own(&ANON)),
            _ => Err(Errno::EINVAL),
        }
    }

    fn options(&self, request: &MapRequest) -> MapOptions {
        let mut flags = VmaFlags::empty();
        flags.set(VmaFlags::GROWS_DOWN, self.known.contains(MapFlags::GROWSDOWN));
        flags.set(
            VmaFlags::LOCKED,
            self.known.contains(MapFlags::LOCKED) && !self.huge,
        );
        flags.set(VmaFlags::NO_RESERVE, self.known.contains(MapFlags::NORESERVE));
        if self.droppable() {
            flags |= VmaFlags::NO_RESERVE | VmaFlags::WIPE_ON_FORK | VmaFlags::DONT_DUMP;
        }
        let hint = self.addr & !(PAGE_SIZE - 1);
        let large = Granule::Huge.size();
        MapOptions {
            near: (hint != 0).then(|| VirtAddr::new(hint.max(MAP_BOTTOM.as_u64()))),
            replaces: self.known.contains(MapFlags::FIXED) && !self.known.contains(MapFlags::FIXED_NOREPLACE),
            // As Linux, which hopes to put large pages there.
            align: if hint == 0 && request.len.is_multiple_of(large) {
                large
            } else {
                PAGE_SIZE
            },
            window: self.known.contains(MapFlags::BITS32).then_some(LOW_WINDOW),
            flags,
        }
    }
}

/// What `mmap` answers when nothing was mapped.
fn errno(error: MapError) -> Errno {
    match error {
        MapError::BadLength
        | MapError::NoRoom
        | MapError::TooManyAreas
        | MapError::OutOfMemory
        | MapError::BadAddress => Errno::ENOMEM,
        MapError::Occupied => Errno::EEXIST,
        MapError::SplitsPage | MapError::BadOffset | MapError::NotPrivately => Errno::EINVAL,
        MapError::ReadOnly => Errno::EACCES,
    }
}

/// `munmap`.
pub fn munmap(call: &mut Call<'_>) -> Result {
    let [addr, len, ..] = call.args;
    let top = USER_TOP.as_u64();
    if !addr.is_multiple_of(PAGE_SIZE) || addr > top || len > top - addr {
        return Err(Errno::EINVAL.into());
    }
    let len = in_pages(len).filter(|len| *len > 0).ok_or(Errno::EINVAL)?;
    let start = VirtAddr::new(addr);
    space(call)
        .unmap(VirtRange::new(start, start + len))
        .map_err(|error| match error {
            UnmapError::BadRange | UnmapError::SplitsPage => Errno::EINVAL,
            UnmapError::TooManyAreas | UnmapError::OutOfMemory => Errno::ENOMEM,
        })?;
    Ok(0)
}
