//! Scanning: which pages of a range are what, in runs, and protecting again what is reported.
//!
//! This is Linux's `PAGEMAP_SCAN`, checked against 6.18. With [`Features::WP_ASYNC`](crate::uffd::Features::WP_ASYNC) a store
//! to a protected page ends its protection and nothing else happens, so the pages that are not protected are those that
//! were written: [`Category::WRITTEN`]. A scan with [`ScanRequest::protect`] reports them and protects them again in one
//! step, under the table's lock, so that no store falls between two scans.
//!
//! | entry | categories |
//! | --- | --- |
//! | page | `PRESENT`; `WRITTEN` unless protected; `FILE` if an object's; `PFNZERO` if the shared zero page; `HUGE` if large |
//! | write-protect marker | `SWAPPED` |
//! | poison | `SWAPPED`, `WRITTEN` |
//! | guard | `SWAPPED`, `WRITTEN`, `GUARD` |
//! | empty, of base pages | `WRITTEN`; without a table above it only in areas that are registered for WP |
//! | empty, of huge pages | none |
//!
//! Poison and guards stay `WRITTEN` however often they are scanned: there is no second bit in their entries for "reported",
//! which Linux sets in the first scan that protects.
//!
//! In addition all pages of areas whose stores are noted are `WPALLOWED`, and those of huge-page memory `HUGE`.

use bitflags::bitflags;

use super::Space;
use crate::arch::Stage1;
use crate::mm::addr::{PAGE_SIZE, USER_TOP, VirtAddr};
use crate::mm::frame::{OutOfFrames, allocator};
use crate::mm::kernel;
use crate::mm::memtype::{Granule, Modes};
use crate::mm::pressure::{self, MAX_RELIEFS};
use crate::mm::pt::{Attr, AttrFlags, Cursor, Entry, Flush, Leaf, Level, Marker, Prot};
use crate::mm::range::VirtRange;
use crate::mm::vma::Vma;

bitflags! {
    /// What a page can be said to be. The values are Linux's `PAGE_IS_*`.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct Category: u64 {
        /// Stores to it are noted when it is protected.
        const WPALLOWED = 1;
        /// It is not protected: written since it was, or never protected.
        const WRITTEN = 1 << 1;
        /// It is a page of a memory object, not somebody's own.
        const FILE = 1 << 2;
        /// It is mapped.
        const PRESENT = 1 << 3;
        /// It is not mapped, and something is remembered about it: a marker.
        const SWAPPED = 1 << 4;
        /// It is the shared zero page.
        const PFNZERO = 1 << 5;
        /// It is part of a huge page.
        const HUGE = 1 << 6;
        /// Written since Linux's older tracker was last cleared, which does not exist here: never reported.
        const SOFT_DIRTY = 1 << 7;
        /// It is a guard page.
        const GUARD = 1 << 8;
    }
}

/// Nodes that the way to one page takes at most.
const NODES: u64 = 3;

/// What to look for, and what to do with it.
#[derive(Clone, Copy, Debug)]
pub struct ScanRequest {
    /// Where; holes are skipped.
    pub range: VirtRange,
    /// Categories that count as their opposite in `all_of` and `any_of`.
    pub inverted: Category,
    /// A page matches when it has all of these ...
    pub all_of: Category,
    /// ... and one of these, if there are any.
    pub any_of: Category,
    /// Which of its categories a matching page is reported with: neighbours that do not differ in these are one run.
    pub report: Category,
    /// Most pages to be reported.
    pub max_pages: Option<u64>,
    /// Protect again, in the same step, what is reported as written. Areas whose stores are not noted are skipped.
    pub protect: bool,
    /// Fail at the first area whose stores are not noted.
    pub require_tracking: bool,
}

impl ScanRequest {
    /// The pages of `range` that were written since they were last protected.
    pub const fn written(range: VirtRange) -> Self {
        Self {
            range,
            inverted: Category::empty(),
            all_of: Category::WRITTEN,
            any_of: Category::empty(),
            report: Category::WRITTEN,
            max_pages: None,
            protect: false,
            require_tracking: false,
        }
    }

    /// The same pages, which are protected again as they are reported. Fails where stores are not noted.
    pub const fn collect_written(range: VirtRange) -> Self {
        Self {
            protect: true,
            require_tracking: true,
            ..Self::written(range)
        }
    }

    fn matches(&self, categories: Category) -> bool {
        let categories = categories ^ self.inverted;
        categories.contains(self.all_of) && (self.any_of.is_empty() || categories.intersects(self.any_of))
    }

    /// Whether pages of an area can match at all, given the categories that they all have.
    fn wants_area(&self, categories: Category) -> bool {
        let required = self.all_of & Category::WPALLOWED;
        (categories ^ self.inverted).contains(required)
    }
}

/// Neighbouring pages with the same categories.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageRun {
    /// The pages.
    pub range: VirtRange,
    /// What each of them is, as far as that was asked for.
    pub categories: Category,
}

impl PageRun {
    /// No pages: what a buffer for reports is filled with.
    pub const EMPTY: Self = Self {
        range: VirtRange {
            start: VirtAddr::new(0),
            end: VirtAddr::new(0),
        },
        categories: Category::empty(),
    };
}

/// How far a scan came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scanned {
    /// Runs that were reported.
    pub runs: usize,
    /// The end of the range, or the page that did not fit into the report any more: where to go on.
    pub end: VirtAddr,
}

/// Why a scan failed. Pages before that may be protected already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScanError {
    /// The range does not start at a page (Linux: EINVAL).
    Unaligned,
    /// It leaves the tasks' half of the address space, or ends before it starts (EFAULT).
    BeyondTop,
    /// Stores to an area are not noted, and that was required (EPERM).
    NotTracked,
    /// No frame for the tables that remember the protection of absent pages (ENOMEM).
    OutOfMemory,
}

impl Space {
    /// Reports the pages that match `request` into `out`, in runs, by address. It ends where `out` or
    /// [`ScanRequest::max_pages`] ends.
    ///
    /// With an empty `out` nothing is counted; with [`ScanRequest::protect`] whatever is written is then protected, matching
    /// or not (as on Linux).
    ///
    /// No lock may be held: when there is no frame for a node, everything is let go of, and the areas are looked up again
    /// from there on.
    ///
    /// # Errors
    /// See [`ScanError`].
    pub fn scan(&self, request: &ScanRequest, out: &mut [PageRun]) -> Result<Scanned, ScanError> {
        let range = pages_of(request.range)?;
        let mut report = Report {
            request,
            out,
            runs: 0,
            pages: 0,
        };
        if range.is_empty() {
            return Ok(report.up_to(range.end));
        }
        let (mut from, mut reliefs) = (range.start, 0);
        loop {
            match self.scan_areas(VirtRange::new(from, range.end), &mut report)? {
                Pause::Ended(at) => return Ok(report.up_to(at)),
                Pause::Short(at) if reliefs < MAX_RELIEFS && pressure::relieve(NODES) => {
                    (from, reliefs) = (at, reliefs + 1);
                }
                Pause::Short(_) => return Err(ScanError::OutOfMemory),
            }
        }
    }

    /// Scans `range` to its end, to where the report ends, or to where there is no frame for a node.
    fn scan_areas(&self, range: VirtRange, report: &mut Report<'_>) -> Result<Pause, ScanError> {
        let request = report.request;
        let vmas = self.vmas.read();
        for vma in vmas.overlapping(range) {
            let tracked = is_tracked(vma);
            if !tracked && request.require_tracking {
                return Err(ScanError::NotTracked);
            }
            let of_area = if tracked {
                Category::WPALLOWED
            } else {
                Category::empty()
            };
            let skipped = (!tracked && request.protect) || !request.wants_area(of_area);
            if let (Some(part), false) = (vma.range.intersect(&range), skipped)
                && let Some(stop) = self.scan_area(vma, part, of_area, report)
            {
                return Ok(stop);
            }
        }
        Ok(Pause::Ended(range.end))
    }

    /// Scans a part of an area; says where it stopped if it did not get to the end.
    fn scan_area(
        &self,
        vma: &Vma,
        part: VirtRange,
        of_area: Category,
        report: &mut Report<'_>,
    ) -> Option<Pause> {
        let mut start = part.start;
        while start < part.end {
            // A node at a time: the table is not locked for longer.
            let next = (start.align_down(Level::MID.size()) + Level::MID.size()).min(part.end);
            let node = VirtRange::new(start, next);
            let stop = self.change(node, |cursor, flush| {
                scan_node(vma, cursor, of_area, report, flush)
            });
            if stop.is_some() {
                return stop;
            }
            start = next;
        }
        None
    }
}

/// The whole pages that `range` touches.
fn pages_of(range: VirtRange) -> Result<VirtRange, ScanError> {
    if !range.start.is_aligned(PAGE_SIZE) {
        return Err(ScanError::Unaligned);
    }
    if range.start > range.end || range.end > USER_TOP {
        return Err(ScanError::BeyondTop);
    }
    let end = range.end.align_up(PAGE_SIZE).ok_or(ScanError::BeyondTop)?;
    Ok(VirtRange::new(range.start, end))
}

/// Whether stores to protected pages of the area are noted.
fn is_tracked(vma: &Vma) -> bool {
    vma.uffd.as_ref().is_some_and(|registration| {
        registration.modes.contains(Modes::WP) && registration.ctx.tracks_stores()
    })
}

/// Scans what a cursor covers, at most the pages of one node; says where it stopped if it did not get to the end.
fn scan_node(
    vma: &Vma,
    cursor: &mut Cursor<'_, Stage1>,
    of_area: Category,
    report: &mut Report<'_>,
    flush: &mut Flush<VirtAddr>,
) -> Option<Pause> {
    while !cursor.is_done() {
        let at = cursor.addr();
        let (entry, level) = cursor.entry();
        cursor.advance(level);
        let span = VirtRange::new(at, cursor.addr());
        let categories = of_area | categories(vma, &entry, level);
        if !report.takes(categories) {
            continue;
        }
        let taken = report.push(span, categories);
        if report.request.protect && categories.contains(Category::WRITTEN) && taken > at {
            if entry.is_leaf() && taken - at != level.size() {
                // Part of a huge page cannot be protected.
                report.take_back(VirtRange::new(at, taken));
                return Some(Pause::Ended(at));
            }
            if protect(cursor, VirtRange::new(at, taken), entry, flush).is_err() {
                // The node that is missing is that of the first of these pages: none is protected.
                report.take_back(VirtRange::new(at, taken));
                return Some(Pause::Short(at));
            }
        }
        if taken < span.end {
            return Some(Pause::Ended(taken));
        }
    }
    None
}

/// What the pages behind an entry are.
fn categories(vma: &Vma, entry: &Entry, level: Level) -> Category {
    let huge = match vma.ty.granule() {
        Granule::Huge => Category::HUGE,
        Granule::Base => Category::empty(),
    };
    huge | match entry {
        Entry::Leaf(leaf) => categories_of_page(leaf, level),
        Entry::Absent(Marker::UffdWp) => Category::SWAPPED,
        Entry::Absent(Marker::Poison) => Category::SWAPPED | Category::WRITTEN,
        Entry::Absent(Marker::Guard) => Category::SWAPPED | Category::WRITTEN | Category::GUARD,
        Entry::Absent(Marker::None) | Entry::Table(_) if !huge.is_empty() => Category::empty(),
        Entry::Absent(Marker::None) | Entry::Table(_) => {
            let registered = matches!(&vma.uffd, Some(old) if old.modes.contains(Modes::WP));
            if registered || level == Level::PAGE {
                Category::WRITTEN
            } else {
                Category::empty()
            }
        }
    }
}

fn categories_of_page(leaf: &Leaf, level: Level) -> Category {
    let borrowed = leaf.attr.is_borrowed();
    let mut categories = Category::PRESENT;
    categories.set(Category::WRITTEN, !leaf.attr.flags.contains(AttrFlags::UFFD_WP));
    categories.set(Category::FILE, !borrowed && allocator().is_cached(leaf.frame));
    categories.set(
        Category::PFNZERO,
        borrowed && leaf.frame == kernel::get().zero_frame(),
    );
    categories.set(Category::HUGE, level > Level::PAGE);
    categories
}

/// Protects the pages of `range`, all behind the one entry that was found there; the cursor ends up behind them.
fn protect(
    cursor: &mut Cursor<'_, Stage1>,
    range: VirtRange,
    entry: Entry,
    flush: &mut Flush<VirtAddr>,
) -> Result<(), OutOfFrames> {
    cursor.seek(range.start);
    match entry {
        Entry::Leaf(leaf) => {
            let flags = leaf.attr.flags | AttrFlags::UFFD_WP;
            cursor.rewrite(leaf.prot - Prot::WRITE, Attr { flags, ..leaf.attr }, flush);
        }
        Entry::Absent(Marker::None) => {
            while cursor.addr() < range.end {
                cursor.mark(Level::PAGE, Marker::UffdWp)?;
                cursor.advance(Level::PAGE);
            }
        }
        // Every access fails anyway.
        Entry::Absent(_) | Entry::Table(_) => {}
    }
    cursor.seek(range.end);
    Ok(())
}

/// Where a scan stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pause {
    /// For good: at the end of the range, or of the report.
    Ended(VirtAddr),
    /// There is no frame for the node of this page.
    Short(VirtAddr),
}

/// What is reported so far.
struct Report<'a> {
    request: &'a ScanRequest,
    out: &'a mut [PageRun],
    runs: usize,
    pages: u64,
}

impl Report<'_> {
    /// Whether something is done about pages with these categories.
    fn takes(&self, categories: Category) -> bool {
        self.protects_only() || self.request.matches(categories)
    }

    fn protects_only(&self) -> bool {
        self.request.protect && self.out.is_empty()
    }

    /// Reports as many pages of `span` as fit; says where it stopped.
    fn push(&mut self, span: VirtRange, categories: Category) -> VirtAddr {
        if self.out.is_empty() {
            return span.end;
        }
        let room = self.request.max_pages.unwrap_or(u64::MAX) - self.pages;
        let pages = span.pages().min(room);
        if pages == 0 {
            return span.start;
        }
        let end = span.start + pages * PAGE_SIZE;
        let categories = categories & self.request.report;
        let (done, free) = self.out.split_at_mut(self.runs);
        match (done.last_mut(), free.first_mut()) {
            (Some(last), _) if last.range.end == span.start && last.categories == categories => {
                last.range.end = end;
            }
            (_, Some(next)) => {
                *next = PageRun {
                    range: VirtRange::new(span.start, end),
                    categories,
                };
                self.runs += 1;
            }
            (_, None) => return span.start,
        }
        self.pages += pages;
        end
    }

    /// Takes back what was reported last.
    fn take_back(&mut self, range: VirtRange) {
        let Some(last) = self.out[..self.runs].last_mut() else {
            return;
        };
        self.pages -= range.pages();
        last.range.end = range.start;
        if last.range.is_empty() {
            self.runs -= 1;
        }
    }

    fn up_to(&self, end: VirtAddr) -> Scanned {
        Scanned { runs: self.runs, end }
    }
}
