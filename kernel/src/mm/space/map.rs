//! Mapping memory into a space.

use alloc::sync::{Arc, Weak};

use super::{MAP_BOTTOM, Privilege, Space, UnmapError};
use crate::mm::addr::{PAGE_SIZE, USER_TOP, VirtAddr};
use crate::mm::cache::{NoRoomForView, NotPromised, Object, View};
use crate::mm::memtype::{Granule, MemType, Privately};
use crate::mm::pt::Prot;
use crate::mm::range::VirtRange;
use crate::mm::vma::{AnonVma, Backing, MappedFile, Sharing, TooManyVmas, Vma, VmaFlags, VmaSet};
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

    /// The unit in which it is mapped.
    pub fn granule(&self) -> Granule {
        self.ty().granule()
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

/// How else a mapping is made than where there is room, of memory as it comes.
#[derive(Clone, Debug)]
pub struct MapOptions {
    /// There, if there is room (a hint).
    pub near: Option<VirtAddr>,
    /// Removes whatever is mapped where the request says (Linux: `MAP_FIXED`).
    pub replaces: bool,
    /// The place is a multiple of this, unless it is said or hinted at; a power of two.
    pub align: u64,
    /// Where it may be, unless it is said or hinted at; `None`: anywhere, from below the stack downwards.
    pub window: Option<VirtRange>,
    /// What else there is to know about it.
    pub flags: VmaFlags,
    /// The file that the object belongs to, which the mapping keeps open.
    pub file: Option<MappedFile>,
}

impl Default for MapOptions {
    fn default() -> Self {
        Self {
            near: None,
            replaces: false,
            align: PAGE_SIZE,
            window: None,
            flags: VmaFlags::empty(),
            file: None,
        }
    }
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
    /// The pool has not so many pages that nobody was promised ([`VmaFlags::NO_RESERVE`] does without). With
    /// [`MapOptions::replaces`] what was there is gone.
    NotPromised,
}

impl From<NotPromised> for MapError {
    fn from(_: NotPromised) -> Self {
        Self::NotPromised
    }
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
        self.map_with(request, MapOptions::default())
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
        let options = MapOptions {
            replaces: true,
            ..MapOptions::default()
        };
        self.map_with(request, options)
    }

    /// [`Self::map`] or [`Self::map_over`], with options.
    ///
    /// # Errors
    /// As for those two.
    ///
    /// # Panics
    /// As [`Self::map_over`].
    pub fn map_with(
        self: &Arc<Self>,
        request: MapRequest,
        options: MapOptions,
    ) -> Result<VirtRange, MapError> {
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
        let (mut backing, flags) = Self::backing(request.memory, len, prot)?;
        if let Some(backing) = &mut backing {
            backing.file.clone_from(&options.file);
        }
        let mut flags = flags | options.flags;
        if align == PAGE_SIZE {
            flags |= self.lock_of_future();
        }
        let mut vmas = self.vmas.write();
        let mut changes = Changes::default();
        let range = match request.at {
            None => self.choose(&vmas, len, align, &options).ok_or(MapError::NoRoom)?,
            Some(at) => {
                let range = VirtRange::from_len(at, len).ok_or(MapError::BadAddress)?;
                if !at.is_aligned(align) || !self.may_place(&range) {
                    return Err(MapError::BadAddress);
                }
                if options.replaces {
                    changes = self.take_out(&mut vmas, range)?;
                } else if !vmas.is_free(range) {
                    return Err(MapError::Occupied);
                }
                range
            }
        };
        let mut vma = Vma {
            range,
            prot,
            ty,
            backing,
            flags,
            uffd: None,
            anon: AnonVma::default(),
        };
        let accounted = prot.contains(Prot::WRITE) && vma.is_accountable();
        vma.flags.set(VmaFlags::ACCOUNTED, accounted);
        let placed = vma.reserve().map_err(MapError::from);
        let placed = placed.and_then(|()| self.place(&mut vmas, vma));
        drop(vmas);
        changes.announce(|| Event::Unmap { range });
        placed?;
        Ok(range)
    }

    /// Whether tasks may have something mapped there if they insist. User mode has its first pages too (Linux: with
    /// `CAP_SYS_RAWIO`), which a kernel task's stray null pointers had better not find.
    fn may_place(&self, range: &VirtRange) -> bool {
        match self.privilege {
            Privilege::User => range.end <= USER_TOP,
            Privilege::Kernel => Self::window().covers(range),
        }
    }

    /// Where a mapping goes that is not told.
    fn choose(&self, vmas: &VmaSet, len: u64, align: u64, options: &MapOptions) -> Option<VirtRange> {
        let hinted = options.near.and_then(|at| VirtRange::from_len(at, len));
        let hinted = hinted.filter(|range| {
            range.start.is_aligned(align) && Self::window().covers(range) && vmas.is_clear(*range)
        });
        hinted.or_else(|| match options.window {
            Some(window) => vmas.find_gap(len, align.max(options.align), window),
            None => self.find_gap(vmas, len, align.max(options.align)),
        })
    }

    /// The highest free range below [`Self::set_ceiling`], or else the highest there is.
    pub(super) fn find_gap(&self, vmas: &VmaSet, len: u64, align: u64) -> Option<VirtRange> {
        let below = VirtRange::new(MAP_BOTTOM, self.ceiling());
        let found = vmas.find_gap(len, align, below);
        found.or_else(|| vmas.find_gap(len, align, Self::window()))
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
            file: None,
            promise: None,
        };
        Ok((Some(backing), flags))
    }
}
