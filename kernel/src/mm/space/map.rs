//! Mapping memory into a space.

use super::Space;
use crate::mm::addr::{PAGE_SIZE, VirtAddr};
use crate::mm::memtype::MemType;
use crate::mm::pt::Prot;
use crate::mm::range::VirtRange;
use crate::mm::vma::{TooManyVmas, Vma};

/// What to map.
#[derive(Clone, Copy, Debug)]
pub struct MapRequest {
    /// Where exactly; `None`: wherever there is room.
    pub at: Option<VirtAddr>,
    /// Bytes; rounded up to whole pages.
    pub len: u64,
    /// Rights.
    pub prot: Prot,
    /// Memory type.
    pub ty: &'static MemType,
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
    /// No free range is large enough.
    NoRoom,
    /// The space has too many areas.
    TooManyAreas,
}

impl From<TooManyVmas> for MapError {
    fn from(_: TooManyVmas) -> Self {
        Self::TooManyAreas
    }
}

impl Space {
    /// Maps memory with nothing in it; pages appear when they are touched, or when a monitor fills them.
    ///
    /// # Errors
    /// See [`MapError`]; nothing changed then.
    pub fn map(&self, request: MapRequest) -> Result<VirtRange, MapError> {
        let len = request
            .len
            .checked_next_multiple_of(PAGE_SIZE)
            .ok_or(MapError::BadLength)?;
        if len == 0 || len > Self::window().len() {
            return Err(MapError::BadLength);
        }
        let align = request.ty.uffd.map_or(PAGE_SIZE, |ops| ops.granule.size());
        let mut vmas = self.vmas.write();
        let range = match request.at {
            None => vmas
                .find_gap(len, align, Self::window())
                .ok_or(MapError::NoRoom)?,
            Some(at) => {
                let range = VirtRange::from_len(at, len).ok_or(MapError::BadAddress)?;
                if !at.is_aligned(align) || !Self::window().covers(&range) {
                    return Err(MapError::BadAddress);
                }
                if !vmas.is_free(range) {
                    return Err(MapError::Occupied);
                }
                range
            }
        };
        vmas.insert(Vma {
            range,
            prot: super::possible(request.prot),
            ty: request.ty,
            uffd: None,
        })?;
        Ok(range)
    }
}
