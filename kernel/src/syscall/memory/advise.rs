//! `madvise`, `process_madvise`.
//!
//! | advice | here |
//! | --- | --- |
//! | DONTNEED, DONTNEED_LOCKED, FREE, REMOVE, GUARD_INSTALL, GUARD_REMOVE | done |
//! | POPULATE_READ, POPULATE_WRITE | done; may wait for a monitor |
//! | DONTFORK, WIPEONFORK, DONTDUMP, SEQUENTIAL, RANDOM, HUGEPAGE and their opposites | noted with the area |
//! | WILLNEED, COLD, PAGEOUT, MERGEABLE, UNMERGEABLE | checked, and nothing to do: memory is neither swapped nor merged |
//! | COLLAPSE | refused: anonymous memory stays in base pages |

use alloc::sync::Arc;

use super::super::file::transfer::segments;
use super::super::pidfd::with_handle;
use super::super::{Call, Result};
use super::{pages, space};
use crate::abi::errno::Errno;
use crate::abi::mman::advice;
use crate::mm::addr::USER_TOP;
use crate::mm::cache::PunchError;
use crate::mm::fault::Access;
use crate::mm::memtype::{Class, Granule};
use crate::mm::range::VirtRange;
use crate::mm::space::{AdviseError, DiscardError, GuardError, Space};
use crate::mm::vma::{Vma, VmaFlags};
use crate::process::credentials::capability;
use crate::process::insight::{By, may_look_into};
use crate::uffd::linux::{OnBehalf, on_behalf};

/// `madvise`.
pub fn madvise(call: &mut Call<'_>) -> Result {
    let [start, len, advice, ..] = *call.args;
    // An int.
    advise_at(&space(call), start, len, advice & u64::from(u32::MAX))?;
    Ok(0)
}

fn advise_at(space: &Space, start: u64, len: u64, advice: u64) -> Done {
    if !is_known(advice) {
        return Err(Errno::EINVAL);
    }
    let Some(range) = pages(start, len)? else {
        return Ok(());
    };
    // What lies above user space is not mapped, and is said to be so when the rest is done.
    let below = VirtRange::new(range.start.min(USER_TOP), range.end.min(USER_TOP));
    if !below.is_empty() {
        advise(space, below, advice)?;
    }
    if below != range {
        return Err(Errno::ENOMEM);
    }
    Ok(())
}

/// `process_madvise`: a process, a list of parts of its memory, advice, no flags. Answers how many bytes of the list it was said
/// of.
pub fn process_madvise(call: &mut Call<'_>) -> Result {
    let [_, list, count, advice, flags, _] = *call.args;
    if flags as u32 != 0 {
        return Err(Errno::EINVAL.into());
    }
    let parts = segments(list, count)?;
    let process = with_handle(call, 0, |handle| handle.process())?.ok_or(Errno::ESRCH)?;
    if process.thread_count() == 0 {
        return Err(Errno::ESRCH.into());
    }
    if !may_look_into(call.thread, &process, By::Files) {
        return Err(Errno::EACCES.into());
    }
    let space = Arc::clone(process.mm().space());
    let advice = advice & u64::from(u32::MAX);
    if !Arc::ptr_eq(&space, &self::space(call)) {
        if !matches!(
            advice,
            advice::COLD | advice::PAGEOUT | advice::WILLNEED | advice::COLLAPSE
        ) {
            return Err(Errno::EINVAL.into());
        }
        if !call.thread.credentials().can(capability::SYS_NICE) {
            return Err(Errno::EPERM.into());
        }
    }
    let mut done = 0;
    for part in parts {
        match advise_at(&space, part.addr.as_u64(), part.len as u64, advice) {
            Ok(()) => done += part.len as u64,
            Err(error) if done == 0 => return Err(error.into()),
            Err(_) => break,
        }
    }
    Ok(done)
}

fn is_known(advice: u64) -> bool {
    matches!(
        advice,
        advice::NORMAL..=advice::DONTNEED
            | advice::FREE..=advice::DOFORK
            | advice::MERGEABLE..=advice::COLLAPSE
            | advice::GUARD_INSTALL
            | advice::GUARD_REMOVE
    )
}

type Done = core::result::Result<(), Errno>;

fn advise(space: &Space, range: VirtRange, advice: u64) -> Done {
    const NONE: VmaFlags = VmaFlags::empty();
    let note = |set, unset, fit: fn(&Vma) -> bool| space.advise(range, set, unset, fit).map_err(noted);
    let check = |fit: fn(&Vma) -> bool| space.check_each(range, fit).map_err(noted);
    let any = |_: &Vma| true;
    match advice {
        advice::NORMAL => note(NONE, VmaFlags::SEQUENTIAL | VmaFlags::RANDOM, any),
        advice::RANDOM => note(VmaFlags::RANDOM, VmaFlags::SEQUENTIAL, any),
        advice::SEQUENTIAL => note(VmaFlags::SEQUENTIAL, VmaFlags::RANDOM, any),
        advice::DONTFORK => note(VmaFlags::DONT_FORK, NONE, any),
        advice::DOFORK => note(NONE, VmaFlags::DONT_FORK, is_ordinary),
        advice::DONTDUMP => note(VmaFlags::DONT_DUMP, NONE, any),
        advice::DODUMP => note(NONE, VmaFlags::DONT_DUMP, is_ordinary),
        advice::WIPEONFORK => note(VmaFlags::WIPE_ON_FORK, NONE, |vma| {
            vma.backing.is_none() && !vma.ty.ends_before_fills()
        }),
        advice::KEEPONFORK => note(NONE, VmaFlags::WIPE_ON_FORK, is_ordinary),
        advice::HUGEPAGE => note(VmaFlags::LARGE_PAGES, VmaFlags::BASE_PAGES, any),
        advice::NOHUGEPAGE => note(VmaFlags::BASE_PAGES, VmaFlags::LARGE_PAGES, any),
        advice::WILLNEED | advice::MERGEABLE | advice::UNMERGEABLE => check(any),
        advice::COLD | advice::PAGEOUT => {
            check(|vma| !vma.flags.contains(VmaFlags::LOCKED) && vma.ty.granule() == Granule::Base)
        }
        advice::COLLAPSE => check(|_| false),
        advice::DONTNEED => space.discard(range).map_err(discarded),
        advice::DONTNEED_LOCKED => space.discard_locked(range).map_err(discarded),
        advice::FREE => space.discard_lazily(range).map_err(discarded),
        advice::REMOVE => space.punch(range).map_err(discarded),
        advice::GUARD_INSTALL => space.install_guards(range).map_err(guarded),
        advice::GUARD_REMOVE => space.remove_guards(range).map_err(guarded),
        advice::POPULATE_READ => populate(space, range, Access::Read),
        advice::POPULATE_WRITE => populate(space, range, Access::Write),
        _ => Err(Errno::EINVAL),
    }
}

/// Whether an area is none of the special ones.
fn is_ordinary(vma: &Vma) -> bool {
    vma.ty.class != Class::Special
}

fn populate(space: &Space, range: VirtRange, access: Access) -> Done {
    space
        .populate(range, access)
        .map_err(|error| on_behalf(OnBehalf::Populate, error.why))
}

fn noted(error: AdviseError) -> Errno {
    match error {
        AdviseError::BadRange | AdviseError::SplitsPage | AdviseError::Unfit => Errno::EINVAL,
        AdviseError::NotMapped => Errno::ENOMEM,
        AdviseError::TooManyAreas => Errno::EAGAIN,
    }
}

fn discarded(error: DiscardError) -> Errno {
    match error {
        DiscardError::NotMapped => Errno::ENOMEM,
        DiscardError::NotWritable => Errno::EACCES,
        DiscardError::Unpunchable(error) => punched(error),
        DiscardError::BadRange
        | DiscardError::Locked
        | DiscardError::InsidePage
        | DiscardError::NotAnonymous
        | DiscardError::NoObject => Errno::EINVAL,
    }
}

fn punched(error: PunchError) -> Errno {
    match error {
        PunchError::Empty | PunchError::Unaligned => Errno::EINVAL,
        PunchError::TooLarge => Errno::EFBIG,
    }
}

fn guarded(error: GuardError) -> Errno {
    match error {
        GuardError::NotMapped | GuardError::OutOfMemory => Errno::ENOMEM,
        GuardError::BadRange | GuardError::Locked | GuardError::LargePages => Errno::EINVAL,
    }
}
