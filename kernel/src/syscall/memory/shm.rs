//! System V shared memory: segments that are found by a key, attached and detached.
//!
//! An attached area owns its segment ([`MappedFile`]), so a segment is attached as often as it has owners beside the list.
//! One that is removed is forgotten with the last of them.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};

use super::super::{Call, Result, user};
use super::space;
use crate::abi::errno::Errno;
use crate::abi::shm::{
    IPC_CREAT, IPC_EXCL, IPC_PRIVATE, SHM_DEST, SHM_EXEC, SHM_HUGETLB, SHM_RDONLY, SHM_REMAP, SHM_RND,
    SegmentStat, command,
};
use crate::mm::addr::{PAGE_SIZE, USER_TOP, VirtAddr};
use crate::mm::cache::{MAX_SIZE, Object};
use crate::mm::memtype::{hugetlb::HUGETLB, sysv::SYSV};
use crate::mm::pt::Prot;
use crate::mm::space::{MapError, MapOptions, MapRequest, Memory};
use crate::mm::vma::{MappedFile, Sharing, Vma};
use crate::sync::SpinLock;

/// Most segments (Linux: `kernel.shmmni`).
const MAX_SEGMENTS: usize = 4096;

/// A segment.
struct Segment {
    key: i32,
    id: i32,
    /// As asked for; the object is in whole pages.
    size: u64,
    mode: u32,
    creator: u32,
    object: Arc<Object>,
}

/// A segment in the list.
enum Listed {
    Kept(Arc<Segment>),
    /// Removed: it lasts as long as it is attached.
    Removed(Weak<Segment>),
}

impl Listed {
    fn segment(&self) -> Option<Arc<Segment>> {
        match self {
            Self::Kept(segment) => Some(Arc::clone(segment)),
            Self::Removed(segment) => segment.upgrade(),
        }
    }
}

struct Segments {
    next: i32,
    all: BTreeMap<i32, Listed>,
}

static SEGMENTS: SpinLock<Segments> = SpinLock::new(Segments {
    next: 0,
    all: BTreeMap::new(),
});

fn find(id: u64) -> core::result::Result<Arc<Segment>, Errno> {
    let segments = SEGMENTS.lock();
    let listed = segments.all.get(&(id as u32 as i32));
    listed.and_then(Listed::segment).ok_or(Errno::EINVAL)
}

/// `shmget`.
pub fn shmget(call: &mut Call<'_>) -> Result {
    let [key, size, flags, ..] = *call.args;
    let key = key as u32 as i32;
    if key != IPC_PRIVATE {
        let segments = SEGMENTS.lock();
        let mut kept = segments.all.values().filter_map(|listed| match listed {
            Listed::Kept(segment) => Some(segment),
            Listed::Removed(_) => None,
        });
        if let Some(segment) = kept.find(|segment| segment.key == key) {
            return if flags & IPC_CREAT != 0 && flags & IPC_EXCL != 0 {
                Err(Errno::EEXIST.into())
            } else if size > segment.size {
                Err(Errno::EINVAL.into())
            } else {
                Ok(segment.id as u64)
            };
        }
        if flags & IPC_CREAT == 0 {
            return Err(Errno::ENOENT.into());
        }
    }
    let ty = if flags & SHM_HUGETLB == 0 { &SYSV } else { &HUGETLB };
    let whole = size.checked_next_multiple_of(ty.granule().size());
    let whole = whole
        .filter(|whole| (1..=MAX_SIZE).contains(whole))
        .ok_or(Errno::EINVAL)?;
    let object = Object::new(ty, whole);
    let mut segments = SEGMENTS.lock();
    segments.all.retain(|_, listed| listed.segment().is_some());
    if segments.all.len() >= MAX_SEGMENTS {
        return Err(Errno::ENOSPC.into());
    }
    let id = segments.next;
    segments.next = id.wrapping_add(1) & i32::MAX;
    let segment = Segment {
        key,
        id,
        size,
        mode: flags as u32 & 0o777,
        creator: call.thread.process().pid().as_u32(),
        object,
    };
    segments.all.insert(id, Listed::Kept(Arc::new(segment)));
    Ok(id as u64)
}

/// `shmat`.
pub fn shmat(call: &mut Call<'_>) -> Result {
    let [id, addr, flags, ..] = *call.args;
    let remap = flags & SHM_REMAP != 0;
    let within = addr % PAGE_SIZE;
    let addr = match within {
        0 => addr,
        _ if flags & SHM_RND != 0 => addr - within,
        _ => return Err(Errno::EINVAL.into()),
    };
    if addr == 0 && remap {
        return Err(Errno::EINVAL.into());
    }
    let segment = find(id)?;
    let mut prot = Prot::READ | Prot::WRITE;
    prot.set(Prot::WRITE, flags & SHM_RDONLY == 0);
    prot.set(Prot::EXEC, flags & SHM_EXEC != 0);
    let request = MapRequest {
        at: (addr != 0).then(|| VirtAddr::new(addr)),
        len: segment.object.size(),
        prot,
        memory: Memory::Object {
            object: Arc::clone(&segment.object),
            offset: 0,
            sharing: Sharing::Shared,
            read_only: flags & SHM_RDONLY != 0,
        },
    };
    let options = MapOptions {
        replaces: remap,
        file: Some(MappedFile(segment)),
        ..MapOptions::default()
    };
    let range = space(call).map_with(request, options);
    let range = range.map_err(|error| match error {
        MapError::NoRoom | MapError::TooManyAreas | MapError::OutOfMemory | MapError::NotPromised => {
            Errno::ENOMEM
        }
        _ => Errno::EINVAL,
    })?;
    Ok(range.start.as_u64())
}

/// The segment that an area belongs to.
fn segment_of(area: &Vma) -> Option<Arc<Segment>> {
    let file = area.backing.as_ref()?.file.as_ref()?;
    Arc::clone(&file.0).downcast().ok()
}

/// `shmdt`.
pub fn shmdt(call: &mut Call<'_>) -> Result {
    let addr = call.args[0];
    if !addr.is_multiple_of(PAGE_SIZE) || addr >= USER_TOP.as_u64() {
        return Err(Errno::EINVAL.into());
    }
    let space = space(call);
    let at = VirtAddr::new(addr);
    // What is left of it, wherever parts of it were unmapped.
    let belongs =
        |area: &Vma| area.range.start >= at && area.range.start - at == area.offset_of(area.range.start);
    let areas = space.areas();
    let mut attached = areas
        .iter()
        .filter(|area| belongs(area))
        .filter_map(|area| Some((area.range, segment_of(area)?)));
    let (first, segment) = attached.next().ok_or(Errno::EINVAL)?;
    let rest = attached.filter(|(_, other)| Arc::ptr_eq(other, &segment));
    for range in core::iter::once(first).chain(rest.map(|(range, _)| range)) {
        space.unmap(range).map_err(|_| Errno::EINVAL)?;
    }
    Ok(0)
}

/// `shmctl`.
pub fn shmctl(call: &mut Call<'_>) -> Result {
    let [id, command, buffer, ..] = *call.args;
    let segment = find(id)?;
    match command as u32 {
        command::IPC_RMID => {
            let mut segments = SEGMENTS.lock();
            let weak = Arc::downgrade(&segment);
            let removed = segments.all.insert(segment.id, Listed::Removed(weak));
            drop(segments);
            // Without the lock: this may be its end.
            drop(removed);
            Ok(0)
        }
        command::IPC_STAT => {
            let removed = matches!(SEGMENTS.lock().all.get(&segment.id), Some(Listed::Removed(_)));
            // One owner is this call, another the list.
            let others = if removed { 1 } else { 2 };
            let stat = SegmentStat {
                key: segment.key,
                mode: segment.mode | if removed { SHM_DEST } else { 0 },
                size: segment.size,
                creator: segment.creator,
                attached: Arc::strong_count(&segment).saturating_sub(others) as u64,
                ..SegmentStat::default()
            };
            user::write(buffer, &stat.to_bytes())?;
            Ok(0)
        }
        command::IPC_SET => {
            let mut bytes = [0; 48];
            user::read(buffer, &mut bytes)?;
            Ok(0)
        }
        command::SHM_LOCK | command::SHM_UNLOCK => Ok(0),
        _ => Err(Errno::EINVAL.into()),
    }
}
