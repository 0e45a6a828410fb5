//! Mapping memory into a space.

use alloc::sync::{Arc, Weak};

use super::{Space, UnmapError};
use crate::mm::addr::VirtAddr;
use crate::mm::cache::{NoRoomForView, Object, View};
use crate::mm::memtype::{MemType, Privately};
use crate::mm::pt::Prot;
use crate::mm::range::VirtRange;
use crate::mm::vma::{Backing, Sharing, TooManyVmas, Vma, VmaFlags, VmaSet};
use crate::uffd::{Changes, Event};

/// The memory behind a mapping.
#[derive(Clone, Debug)]
pub enum Memory {
    /// Memory of this type that only the space has. Where the type's pages are those of objects, that is a private mapping
    /// of an object that nobody else knows (Linux: `MAP_ANONYMOUS` with `MAP_HUGETLB`).
    Own(&'static MemType),
    /// Part of a memory object.
    Object {
        /// The object.
        object: Arc<Object>,
        /// Its first byte that is mapped; a multiple of the type's granule.
        offset: u64,
        /// Whether stores reach the object.
        sharing: Sharing,
        /// Whether the object was opened for reading only: a shared mapping of it can never be written.
        read_only: bool,
    },
}

impl Memory {
    /// A shared mapping of an object from its first byte on.
    pub fn shared(object: &Arc<Object>) -> Self {
        Self::Object {
            object: Arc::clone(object),
            offset: 0,
            sharing: Sharing::Shared,
            read_only: false,
        }
    }

    /// A private mapping of an object from its first byte on.
    pub fn private(object: &Arc<Object>) -> Self {
        Self::Object {
            object: Arc::clone(object),
            offset: 0,
            sharing: Sharing::Private,
            read_only: false,
        }
    }

    fn ty(&self) -> &'static MemType {
        match self {
            Self::Own(ty) => ty,
            Self::Object { object, .. } => object.ty(),
        }
    }
}

/// What to map.
#[derive(Clone, Debug)]
pub struct MapRequest {
    /// Where exactly; `None`: wherever there is room.
    pub at: Option<VirtAddr>,
    /// Bytes; rounded up to the granule of the memory type.
    pub len: u64,
    /// Rights.
    pub prot: Prot,
    /// What is mapped.
    pub memory: Memory,
}

/// Why nothing was mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapError {
    /// A length of zero, or one that does not fit the address space.
    BadLength,
    /// The wanted address is not page-aligned or outside what tasks may map.
    BadAddress,
    /// Something is mapped there already.
    Occupied,
    /// An end of what is to be replaced lies inside a large page.
    SplitsPage,
    /// No free range is large enough.
    NoRoom,
    /// The space has too many areas, or the kernel has no memory for one more.
    TooManyAreas,
    /// No kernel memory to note who is to be told of what is replaced.
    OutOfMemory,
    /// The offset in the object is not a multiple of its type's granule, or the mapping's end in it is past 2^63.
    BadOffset,
    /// The memory type cannot be mapped privately.
    NotPrivately,
    /// Stores are wanted, and the object may only be read.
    ReadOnly,
}

impl From<NoRoomForView> for MapError {
    fn from(_: NoRoomForView) -> Self {
        Self::TooManyAreas
    }
}

impl From<TooManyVmas> for MapError {
    fn from(_: TooManyVmas) -> Self {
        Self::TooManyAreas
    }
}

impl From<UnmapError> for MapError {
    fn from(error: UnmapError) -> Self {
        match error {
            UnmapError::BadRange => Self::BadAddress,
            UnmapError::SplitsPage => Self::SplitsPage,
            UnmapError::TooManyAreas => Self::TooManyAreas,
            UnmapError::OutOfMemory => Self::OutOfMemory,
        }
    }
}

impl Space {
    /// Maps memory without touching any of it; pages appear when they are touched, or when a monitor fills or maps them.
    ///
    /// # Errors
    /// See [`MapError`]; nothing changed then.
    pub fn map(self: &Arc<Self>, request: MapRequest) -> Result<VirtRange, MapError> {
        self.map_as(request, false)
    }

    /// [`Self::map`] that removes whatever is mapped where the request says (Linux: `MAP_FIXED`).
    ///
    /// Returns when every context with [`Features::EVENT_UNMAP`](crate::uffd::Features::EVENT_UNMAP) that had memory
    /// registered there has been told, once and about the whole range; the new mapping is in place by then.
    ///
    /// # Errors
    /// See [`MapError`]. With [`MapError::TooManyAreas`] what was there may be gone.
    ///
    /// # Panics
    /// There is somebody to tell, and a lock is held.
    pub fn map_over(self: &Arc<Self>, request: MapRequest) -> Result<VirtRange, MapError> {
        self.map_as(request, true)
    }

    fn map_as(self: &Arc<Self>, request: MapRequest, replaces: bool) -> Result<VirtRange, MapError> {
        let ty = request.memory.ty();
        let align = ty.granule().size();
        let len = request
            .len
            .checked_next_multiple_of(align)
            .ok_or(MapError::BadLength)?;
        if len == 0 || len > Self::window().len() {
            return Err(MapError::BadLength);
        }
        let prot = super::possible(request.prot);
        let (backing, flags) = Self::backing(request.memory, len, prot)?;
        let mut vmas = self.vmas.write();
        let mut changes = Changes::default();
        let range = match request.at {
            None => vmas
                .find_gap(len, align, Self::window())
                .ok_or(MapError::NoRoom)?,
            Some(at) => {
                let range = VirtRange::from_len(at, len).ok_or(MapError::BadAddress)?;
                if !at.is_aligned(align) || !Self::window().covers(&range) {
                    return Err(MapError::BadAddress);
                }
                if replaces {
                    changes = self.take_out(&mut vmas, range)?;
                } else if !vmas.is_free(range) {
                    return Err(MapError::Occupied);
                }
                range
            }
        };
        let placed = self.place(
            &mut vmas,
            Vma {
                range,
                prot,
                ty,
                backing,
                flags,
                uffd: None,
            },
        );
        drop(vmas);
        changes.announce(|| Event::Unmap { range });
        placed?;
        Ok(range)
    }

    /// Puts an area where there is none.
    fn place(self: &Arc<Self>, vmas: &mut VmaSet, vma: Vma) -> Result<(), MapError> {
        if let Some(backing) = &vma.backing {
            // Under the lock that keeps `take_away` out: it finds the area, or did not ask this space.
            let space: Weak<Self> = Arc::downgrade(self);
            let view: Weak<dyn View> = space;
            backing.object.attach(view)?;
        }
        Ok(vmas.insert(vma)?)
    }

    /// How an area of `len` bytes with rights `prot` refers to what it maps.
    fn backing(memory: Memory, len: u64, prot: Prot) -> Result<(Option<Backing>, VmaFlags), MapError> {
        let memory = match memory {
            Memory::Own(ty) if ty.lives_in_objects() => Memory::private(&Object::new(ty, len)),
            memory => memory,
        };
        let Memory::Object {
            object,
            offset,
            sharing,
            read_only,
        } = memory
        else {
            return Ok((None, VmaFlags::empty()));
        };
        let ends = offset.checked_add(len).is_some_and(|end| end <= i64::MAX as u64);
        if !ends || !offset.is_multiple_of(object.ty().granule().size()) {
            return Err(MapError::BadOffset);
        }
        let flags = match sharing {
            Sharing::Private if object.ty().privately == Privately::Never => {
                return Err(MapError::NotPrivately);
            }
            Sharing::Shared if read_only && prot.contains(Prot::WRITE) => return Err(MapError::ReadOnly),
            Sharing::Shared if read_only => VmaFlags::READ_ONLY,
            _ => VmaFlags::empty(),
        };
        let backing = Backing {
            object,
            offset,
            sharing,
        };
        Ok((Some(backing), flags))
    }
}
