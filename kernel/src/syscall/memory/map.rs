//! `mmap` and `munmap`.
//!
//! The checks stand in Linux's order, since a call that is wrong twice answers with the first: file, length, offset, place,
//! kind, rights of the file, seals.

use alloc::sync::Arc;

use super::super::{Call, Result};
use super::{in_pages, rights, space};
use crate::abi::errno::Errno;
use crate::abi::mman::{
    LEGACY_MAP_MASK, MAP_DROPPABLE, MAP_HUGE_MASK, MAP_HUGE_SHIFT, MAP_PRIVATE, MAP_SHARED,
    MAP_SHARED_VALIDATE, MAP_TYPE, MapFlags,
};
use crate::file::{Mapped, Mapping, OpenFile};
use crate::mm::addr::{PAGE_SIZE, USER_TOP, VirtAddr};
use crate::mm::cache::Object;
use crate::mm::frame;
use crate::mm::memtype::{
    Granule, anon::ANON, droppable::DROPPABLE, hugetlb::HUGETLB, shmem::SHMEM, zero::ZERO,
};
use crate::mm::pt::Prot;
use crate::mm::range::VirtRange;
use crate::mm::space::{MAP_BOTTOM, MapError, MapOptions, MapRequest, Memory, UnmapError};
use crate::mm::vma::{MappedFile, Sharing, VmaFlags};

/// Where `MAP_32BIT` puts things.
const LOW_WINDOW: VirtRange = VirtRange {
    start: VirtAddr::new(0x4000_0000),
    end: VirtAddr::new(0x8000_0000),
};

/// `mmap`.
pub fn mmap(call: &mut Call<'_>) -> Result {
    let [addr, len, protection, flags, fd, offset] = *call.args;
    if !offset.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL.into());
    }
    let wanted = Wanted {
        addr,
        len,
        prot: rights(protection),
        flags,
        known: MapFlags::from_bits_truncate(flags),
        offset,
    };
    let source = if wanted.has(MapFlags::ANONYMOUS) {
        wanted.check_huge_size()?;
        Source::Nothing
    } else {
        let open = call.files.get(fd)?;
        let mapping = open.file().mapping();
        if wanted.has(MapFlags::HUGETLB) && !is_huge(&mapping) {
            return Err(Errno::EINVAL.into());
        }
        Source::File { open, mapping }
    };
    let granule = source.granule(&wanted);
    let len = wanted.check(granule)?;
    let (memory, file) = source.memory(&wanted, len)?;
    wanted.check_amount(len, granule, &memory)?;
    let options = wanted.options(len, &memory, file);
    let request = MapRequest {
        at: wanted.is_fixed().then(|| VirtAddr::new(addr)),
        len,
        prot: wanted.prot,
        memory,
    };
    let space = space(call);
    let range = space.map_with(request, options).map_err(errno)?;
    let populate = wanted.known & (MapFlags::POPULATE | MapFlags::NONBLOCK) == MapFlags::POPULATE;
    let locks = wanted.has(MapFlags::LOCKED) || space.lock_of_future() == VmaFlags::LOCKED;
    if (populate || locks) && !wanted.prot.is_empty() {
        // What cannot be populated is left to the first touch.
        let _ = space.populate_to_lock(range);
    }
    Ok(range.start.as_u64())
}

type Checked<T> = core::result::Result<T, Errno>;

fn is_huge(mapping: &Checked<Mapping>) -> bool {
    matches!(mapping, Ok(Mapping { memory: Mapped::Object(object), .. }) if object.ty().granule() == Granule::Huge)
}

/// What is to be mapped.
enum Source {
    /// Memory without a file.
    Nothing,
    /// That of a file, if it can be mapped.
    File {
        open: Arc<OpenFile>,
        mapping: Checked<Mapping>,
    },
}

impl Source {
    /// The bytes that lengths and places are multiples of.
    fn granule(&self, wanted: &Wanted) -> u64 {
        let huge = match self {
            Self::Nothing => wanted.has(MapFlags::HUGETLB),
            Self::File { mapping, .. } => is_huge(mapping),
        };
        if huge { Granule::Huge.size() } else { PAGE_SIZE }
    }

    /// The memory, and the file that it keeps open.
    fn memory(self, wanted: &Wanted, len: u64) -> Checked<(Memory, Option<MappedFile>)> {
        match self {
            Self::Nothing => Ok((wanted.own_memory(len)?, None)),
            Self::File { open, mapping } => {
                let memory = wanted.memory_of(&open, mapping, len)?;
                let file = matches!(memory, Memory::Object { .. }).then(|| MappedFile(open));
                Ok((memory, file))
            }
        }
    }
}

/// A mapping as asked for.
struct Wanted {
    addr: u64,
    len: u64,
    prot: Prot,
    flags: u64,
    known: MapFlags,
    offset: u64,
}

impl Wanted {
    fn has(&self, flag: MapFlags) -> bool {
        self.known.contains(flag)
    }

    fn kind(&self) -> u64 {
        self.flags & MAP_TYPE
    }

    fn is_fixed(&self) -> bool {
        self.known.intersects(MapFlags::FIXED | MapFlags::FIXED_NOREPLACE)
    }

    /// Whether the size that the flags give huge pages is one.
    fn check_huge_size(&self) -> Checked<()> {
        if !self.has(MapFlags::HUGETLB) {
            return Ok(());
        }
        match self.flags >> MAP_HUGE_SHIFT & MAP_HUGE_MASK {
            0 | 21 => Ok(()),
            // There are such pages; none is set aside.
            30 => Err(Errno::ENOMEM),
            _ => Err(Errno::EINVAL),
        }
    }

    /// The length in whole granules, if length, offset and place make sense.
    fn check(&self, granule: u64) -> Checked<u64> {
        if self.len == 0 {
            return Err(Errno::EINVAL);
        }
        let len = self.len.checked_next_multiple_of(granule).ok_or(Errno::ENOMEM)?;
        let last = (self.offset / PAGE_SIZE).checked_add(len / PAGE_SIZE);
        if last.is_none_or(|last| last > u64::MAX / PAGE_SIZE + 1) {
            return Err(Errno::EOVERFLOW);
        }
        if len > USER_TOP.as_u64() || self.is_fixed() && self.addr > USER_TOP.as_u64() - len {
            return Err(Errno::ENOMEM);
        }
        if self.is_fixed() && !self.addr.is_multiple_of(granule) {
            return Err(Errno::EINVAL);
        }
        Ok(len)
    }

    /// Memory without a file.
    fn own_memory(&self, len: u64) -> Checked<Memory> {
        let (grows, huge) = (self.has(MapFlags::GROWSDOWN), self.has(MapFlags::HUGETLB));
        match self.kind() {
            MAP_SHARED if grows => Err(Errno::EINVAL),
            MAP_SHARED => {
                let ty = if huge { &HUGETLB } else { &SHMEM };
                Ok(Memory::shared(&Object::new(ty, len)))
            }
            MAP_DROPPABLE if grows || huge || self.has(MapFlags::LOCKED) => Err(Errno::EINVAL),
            MAP_DROPPABLE => Ok(Memory::Own(&DROPPABLE)),
            MAP_PRIVATE if huge && grows => Err(Errno::EINVAL),
            MAP_PRIVATE if huge => Ok(Memory::Own(&HUGETLB)),
            MAP_PRIVATE => Ok(Memory::Own(&ANON)),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Memory of a file, if it may be mapped like this.
    fn memory_of(&self, open: &OpenFile, mapping: Checked<Mapping>, len: u64) -> Checked<Memory> {
        let status = open.status();
        let shared = match self.kind() {
            MAP_SHARED | MAP_SHARED_VALIDATE => true,
            MAP_PRIVATE => false,
            _ => return Err(Errno::EINVAL),
        };
        if self.kind() == MAP_SHARED_VALIDATE && self.flags & !LEGACY_MAP_MASK != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let writes = self.prot.contains(Prot::WRITE);
        if shared && writes && !status.writes() || !status.reads() {
            return Err(Errno::EACCES);
        }
        let mapping = mapping?;
        if self.has(MapFlags::GROWSDOWN) {
            return Err(Errno::EINVAL);
        }
        let writable = status.writes() && mapping.may_share_to_write;
        if shared && writes && !mapping.may_share_to_write {
            return Err(Errno::EPERM);
        }
        if matches!(&mapping.memory, Mapped::Object(object) if object.ty().is_secret())
            && self.prot.contains(Prot::EXEC)
        {
            return Err(Errno::EPERM);
        }
        Ok(match mapping.memory {
            Mapped::Anonymous if shared => Memory::shared(&Object::new(&SHMEM, len)),
            Mapped::Anonymous => Memory::Own(&ZERO),
            Mapped::Object(object) => {
                let end = self.offset.checked_add(len).ok_or(Errno::EOVERFLOW)?;
                if end > i64::MAX as u64 {
                    return Err(Errno::EOVERFLOW);
                }
                if object.ty().granule() == Granule::Huge && writes && object.size() < end {
                    // As on Linux, where such a mapping makes the file longer.
                    object.truncate(end).map_err(|_| Errno::ENOMEM)?;
                }
                Memory::Object {
                    object,
                    offset: self.offset,
                    sharing: if shared { Sharing::Shared } else { Sharing::Private },
                    read_only: !writable,
                }
            }
        })
    }

    /// Whether there can be so much memory, as Linux guesses: not more than there is at all.
    fn check_amount(&self, len: u64, granule: u64, memory: &Memory) -> Checked<()> {
        if self.has(MapFlags::NORESERVE) || self.kind() == MAP_DROPPABLE {
            return Ok(());
        }
        // Huge pages are promised when they are mapped.
        let is_counted = match memory {
            Memory::Own(_) => self.prot.contains(Prot::WRITE),
            Memory::Object { .. } => self.has(MapFlags::ANONYMOUS),
        };
        if granule == PAGE_SIZE && is_counted && len / PAGE_SIZE > frame::allocator().managed() {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }

    fn options(&self, len: u64, memory: &Memory, file: Option<MappedFile>) -> MapOptions {
        let mut flags = VmaFlags::empty();
        let large = Granule::Huge.size();
        let in_base_pages = memory.granule() == Granule::Base;
        flags.set(VmaFlags::GROWS_DOWN, self.has(MapFlags::GROWSDOWN));
        flags.set(VmaFlags::LOCKED, self.has(MapFlags::LOCKED) && in_base_pages);
        flags.set(VmaFlags::NO_RESERVE, self.has(MapFlags::NORESERVE));
        if self.kind() == MAP_DROPPABLE {
            flags |= VmaFlags::NO_RESERVE | VmaFlags::WIPE_ON_FORK | VmaFlags::DONT_DUMP;
        }
        if matches!(memory, Memory::Object { object, .. } if object.ty().is_secret()) {
            flags |= VmaFlags::LOCKED | VmaFlags::DONT_DUMP;
        }
        let hint = self.addr & !(PAGE_SIZE - 1);
        // As Linux, which hopes to put large pages there.
        let aligned = hint == 0 && file.is_none() && len.is_multiple_of(large);
        MapOptions {
            near: (hint != 0).then(|| VirtAddr::new(hint.max(MAP_BOTTOM.as_u64()))),
            replaces: self.has(MapFlags::FIXED) && !self.has(MapFlags::FIXED_NOREPLACE),
            align: if aligned { large } else { PAGE_SIZE },
            window: self.has(MapFlags::BITS32).then_some(LOW_WINDOW),
            flags,
            file,
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
        | MapError::NotPromised
        | MapError::BadAddress => Errno::ENOMEM,
        MapError::Occupied => Errno::EEXIST,
        MapError::SplitsPage | MapError::BadOffset | MapError::NotPrivately => Errno::EINVAL,
        MapError::ReadOnly => Errno::EACCES,
    }
}

/// `munmap`.
pub fn munmap(call: &mut Call<'_>) -> Result {
    let [addr, len, ..] = *call.args;
    let top = USER_TOP.as_u64();
    if !addr.is_multiple_of(PAGE_SIZE) || addr > top || len > top - addr {
        return Err(Errno::EINVAL.into());
    }
    let len = in_pages(len).filter(|len| *len > 0).ok_or(Errno::EINVAL)?;
    let start = VirtAddr::new(addr);
    space(call)
        .unmap(VirtRange::new(start, start + len))
        .map_err(unmapped)?;
    Ok(0)
}

fn unmapped(error: UnmapError) -> Errno {
    match error {
        UnmapError::BadRange | UnmapError::SplitsPage => Errno::EINVAL,
        UnmapError::TooManyAreas | UnmapError::OutOfMemory => Errno::ENOMEM,
    }
}
