//! `/proc/PID/maps`, `smaps` and `smaps_rollup`: the areas of a process.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::memory::Counts;
use crate::abi::errno::Errno;
use crate::abi::stat::DeviceNumber;
use crate::file::tree::Entry;
use crate::file::{OpenFile, tmpfs};
use crate::mm::addr::PAGE_SIZE;
use crate::mm::memtype::{Granule, Modes};
use crate::mm::pt::Prot;
use crate::mm::reserve::reserve;
use crate::mm::vma::{Vma, VmaFlags};
use crate::process::Mm;

/// `AT_SYSINFO_EHDR`: where the vDSO is.
const AT_SYSINFO_EHDR: u64 = 33;
/// The column at which names begin.
const NAME_COLUMN: usize = 73;

/// What an area is called.
struct Named {
    dev: DeviceNumber,
    ino: u64,
    name: Vec<u8>,
}

impl Named {
    fn plain(name: &[u8]) -> Self {
        Self {
            dev: DeviceNumber::default(),
            ino: 0,
            name: name.to_vec(),
        }
    }
}

fn name_of(area: &Vma, mm: &Mm, root: &Arc<Entry>) -> Named {
    let Some(backing) = &area.backing else {
        return Named::plain(role_of(area, mm));
    };
    let file = backing.file.as_ref();
    if let Some(open) = file.and_then(|file| file.0.downcast_ref::<OpenFile>()) {
        let stat = open.stat();
        return Named {
            dev: stat.dev,
            ino: stat.ino,
            name: open.shown(root),
        };
    }
    if let Some(naming) = tmpfs::name_of(&backing.object) {
        let (dev, ino, name) = naming.show();
        return Named { dev, ino, name };
    }
    if area.prot.contains(Prot::EXEC) && is_vdso(area, mm) {
        return Named::plain(b"[vdso]");
    }
    let name: &[u8] = match backing.object.ty().granule() {
        Granule::Base => b"/dev/zero (deleted)",
        Granule::Huge => b"/anon_hugepage (deleted)",
    };
    Named {
        dev: DeviceNumber::new(0, 1),
        // As good as any: the same for every area of the object.
        ino: (Arc::as_ptr(&backing.object).addr() as u64 >> 6) & 0xf_ffff,
        name: name.to_vec(),
    }
}

fn is_vdso(area: &Vma, mm: &Mm) -> bool {
    let mut pairs = mm.layout().auxv.chunks_exact(2);
    let at = pairs.find(|pair| pair[0] == AT_SYSINFO_EHDR).map(|pair| pair[1]);
    at.is_some_and(|at| area.range.start.as_u64() <= at && at < area.range.end.as_u64())
}

/// What an area without an object is for.
fn role_of(area: &Vma, mm: &Mm) -> &'static [u8] {
    let (heap, stack) = (mm.heap(), mm.layout().stack);
    if area.range.start < heap.end && area.range.end > heap.start {
        b"[heap]"
    } else if area.range.start < stack.end && area.range.end >= stack.end {
        b"[stack]"
    } else if is_vdso(area, mm) {
        b"[vdso]"
    } else {
        b""
    }
}

fn line(area: &Vma, mm: &Mm, root: &Arc<Entry>) -> Vec<u8> {
    let named = name_of(area, mm, root);
    let right = |right, letter| if area.prot.contains(right) { letter } else { '-' };
    let mut line = format!(
        "{:08x}-{:08x} {}{}{}{} {:08x} {:02x}:{:02x} {} ",
        area.range.start.as_u64(),
        area.range.end.as_u64(),
        right(Prot::READ, 'r'),
        right(Prot::WRITE, 'w'),
        right(Prot::EXEC, 'x'),
        if area.is_shared() { 's' } else { 'p' },
        area.offset_of(area.range.start),
        named.dev.major,
        named.dev.minor,
        named.ino,
    )
    .into_bytes();
    if !named.name.is_empty() {
        line.resize(line.len().max(NAME_COLUMN), b' ');
        line.extend_from_slice(&named.name);
    }
    line.push(b'\n');
    line
}

/// Appends to a text whose length the process chooses.
fn append(text: &mut Vec<u8>, more: &[u8]) -> Result<(), Errno> {
    reserve(text, more.len()).map_err(|_| Errno::ENOMEM)?;
    text.extend_from_slice(more);
    Ok(())
}

/// The lines of `maps`.
///
/// # Errors
/// ENOMEM.
pub(super) fn maps(mm: &Mm, root: &Arc<Entry>) -> Result<Vec<u8>, Errno> {
    let mut text = Vec::new();
    for area in mm.space().each_area() {
        append(&mut text, &line(&area, mm, root))?;
    }
    Ok(text)
}

/// The paragraphs of `smaps`.
///
/// # Errors
/// ENOMEM.
pub(super) fn smaps(mm: &Mm, root: &Arc<Entry>) -> Result<Vec<u8>, Errno> {
    let mut text = Vec::new();
    for area in mm.space().each_area() {
        append(&mut text, &line(&area, mm, root))?;
        let kb = area.ty.granule().size() / 1024;
        let counts = Counts::of(mm.space(), &area);
        let size = area.range.len() / 1024;
        let head = [("Size", size), ("KernelPageSize", kb), ("MMUPageSize", kb)];
        append(&mut text, rows(&head).as_bytes())?;
        append(&mut text, counted(&counts, &area).as_bytes())?;
        append(&mut text, b"THPeligible:           0\n")?;
        append(&mut text, format!("VmFlags: {}\n", letters(&area)).as_bytes())?;
    }
    Ok(text)
}

/// The sums of all areas.
pub(super) fn rollup(mm: &Mm) -> Vec<u8> {
    let mut sum = Counts::default();
    let count = |area: Vma| {
        sum.add(&Counts::of(mm.space(), &area));
        area
    };
    let mut areas = mm.space().each_area().map(count);
    let Some(first) = areas.next() else {
        return Vec::new();
    };
    let last = areas.last().unwrap_or_else(|| first.clone());
    let mut text = format!(
        "{:08x}-{:08x} ---p 00000000 00:00 0 ",
        first.range.start.as_u64(),
        last.range.end.as_u64()
    )
    .into_bytes();
    text.resize(NAME_COLUMN, b' ');
    text.extend(b"[rollup]\n");
    text.extend(counted(&sum, &first).into_bytes());
    text
}

fn counted(counts: &Counts, area: &Vma) -> String {
    let kb = |pages: u64| pages * (PAGE_SIZE / 1024);
    let locked = area.flags.contains(VmaFlags::LOCKED);
    rows(&[
        ("Rss", kb(counts.resident())),
        ("Pss", counts.proportional / 1024),
        ("Pss_Dirty", counts.proportional_dirty / 1024),
        ("Shared_Clean", kb(counts.shared_clean)),
        ("Shared_Dirty", kb(counts.shared_dirty)),
        ("Private_Clean", kb(counts.private_clean)),
        ("Private_Dirty", kb(counts.private_dirty)),
        ("Referenced", kb(counts.referenced)),
        ("Anonymous", kb(counts.anonymous)),
        ("KSM", 0),
        ("LazyFree", 0),
        ("AnonHugePages", kb(counts.anonymous_huge)),
        ("ShmemPmdMapped", 0),
        ("FilePmdMapped", 0),
        ("Shared_Hugetlb", kb(counts.shared_pool)),
        ("Private_Hugetlb", kb(counts.private_pool)),
        ("Swap", 0),
        ("SwapPss", 0),
        ("Locked", if locked { counts.proportional / 1024 } else { 0 }),
    ])
}

fn rows(rows: &[(&str, u64)]) -> String {
    rows.iter()
        .map(|(name, kb)| format!("{:<16}{kb:>8} kB\n", format!("{name}:")))
        .collect()
}

/// The pairs of letters of an area, in the order of Linux's bits.
fn letters(area: &Vma) -> String {
    let (prot, flags) = (area.prot, area.flags);
    let shared = area.is_shared();
    let may_write = !shared || !flags.contains(VmaFlags::READ_ONLY);
    let registered = |modes| area.uffd.as_ref().is_some_and(|it| it.modes.intersects(modes));
    let pairs = [
        (prot.contains(Prot::READ), "rd"),
        (prot.contains(Prot::WRITE), "wr"),
        (prot.contains(Prot::EXEC), "ex"),
        (shared, "sh"),
        (true, "mr"),
        (may_write, "mw"),
        (!area.ty.is_secret(), "me"),
        (shared, "ms"),
        (flags.contains(VmaFlags::GROWS_DOWN), "gd"),
        (registered(Modes::MISSING), "um"),
        (registered(Modes::WP), "uw"),
        (flags.contains(VmaFlags::LOCKED), "lo"),
        (flags.contains(VmaFlags::SEQUENTIAL), "sr"),
        (flags.contains(VmaFlags::RANDOM), "rr"),
        (flags.contains(VmaFlags::DONT_FORK), "dc"),
        (flags.contains(VmaFlags::LOCKED_ON_FAULT), "lf"),
        (flags.contains(VmaFlags::ACCOUNTED), "ac"),
        (flags.contains(VmaFlags::NO_RESERVE), "nr"),
        (area.ty.granule() == Granule::Huge, "ht"),
        (flags.contains(VmaFlags::WIPE_ON_FORK), "wf"),
        (flags.contains(VmaFlags::DONT_DUMP), "dd"),
        (flags.contains(VmaFlags::LARGE_PAGES), "hg"),
        (flags.contains(VmaFlags::BASE_PAGES), "nh"),
        (registered(Modes::MINOR), "ui"),
    ];
    let mut text = String::new();
    for (_, letters) in pairs.iter().filter(|(is, _)| *is) {
        text += letters;
        text.push(' ');
    }
    text
}
