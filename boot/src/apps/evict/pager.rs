//! The pager: has every page come that somebody waits for, and others go so that there is room.

use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use kernel::lab::residency::{Place, Residency};
use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::range::VirtRange;
use kernel::mm::space::DiscardError;
use kernel::mm::uaccess::{self, AccessError};
use kernel::uffd::{FillMode, MoveMode, Outcome};

use super::job::{Job, Source};
use super::options::Options;
use crate::apps::common::{Fault, PAGE, buffer, next_fault};

/// What a pager has done when it ends.
#[derive(Debug, Default)]
pub struct Paged {
    /// Faults that it read.
    pub faults: u64,
    /// Pages that came, by how.
    pub came: [u64; Source::ALL.len()],
    /// Pages that it moved out.
    pub moved_out: u64,
    /// Pages that it wrote to the store.
    pub written: u64,
    /// Pages that it holds to be resident in the end.
    pub resident: u64,
    /// Why it ended before the channel was closed.
    pub error: Option<PagerError>,
}

/// Why a pager gave up.
#[derive(Debug)]
pub enum PagerError {
    /// A page could not be filled.
    Copy(usize, Outcome),
    /// A page could not be moved back.
    MoveBack(usize, Outcome),
    /// A page could not be moved out.
    MoveOut(usize, Outcome),
    /// A staged page could not be read.
    Read(usize, AccessError),
    /// Staged pages could not be discarded.
    Discard(DiscardError),
    /// It was told to end (`kill-monitor-after`).
    Killed,
}

impl fmt::Display for PagerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copy(page, outcome) => {
                write!(
                    f,
                    "the pager gave up: page {page} could not be filled: {outcome:?}"
                )
            }
            Self::MoveBack(page, outcome) => {
                write!(
                    f,
                    "the pager gave up: page {page} could not be moved back: {outcome:?}"
                )
            }
            Self::MoveOut(page, outcome) => {
                write!(
                    f,
                    "the pager gave up: page {page} could not be moved out: {outcome:?}"
                )
            }
            Self::Read(page, error) => {
                write!(
                    f,
                    "the pager gave up: page {page} could not be written to the store: {error}"
                )
            }
            Self::Discard(error) => {
                write!(
                    f,
                    "the pager gave up: staged pages could not be discarded: {error:?}"
                )
            }
            Self::Killed => f.write_str("the pager was killed"),
        }
    }
}

/// The pager of one run.
pub struct Pager {
    job: Arc<Job>,
    residency: Residency,
    /// What is not resident, at its page's place.
    store: Vec<u8>,
    zeros: Vec<u8>,
    /// A page on its way to the store.
    content: Vec<u8>,
    batch: usize,
    kill_after: Option<u64>,
    lose_write: Option<u64>,
    skip_room: Option<u64>,
    paged: Paged,
}

impl Pager {
    /// A pager for `job` with an empty store.
    ///
    /// # Errors
    /// There is no memory for the store.
    pub fn new(job: &Arc<Job>, options: &Options) -> Result<Self, TryReserveError> {
        Ok(Self {
            job: Arc::clone(job),
            residency: Residency::new(
                job.region.pages(),
                options.budget as usize,
                options.staging as usize,
            ),
            store: buffer(job.region.pages() * PAGE)?,
            zeros: buffer(PAGE)?,
            content: buffer(PAGE)?,
            batch: options.batch,
            kill_after: options.kill_monitor_after,
            lose_write: options.lose_write,
            skip_room: options.skip_room,
            paged: Paged::default(),
        })
    }

    /// Serves faults until the channel is closed or something is wrong.
    pub fn run(mut self) -> Paged {
        self.paged.error = self.serve_all().err();
        self.paged.resident = self.residency.resident() as u64;
        self.paged
    }

    fn serve_all(&mut self) -> Result<(), PagerError> {
        while self.kill_after != Some(self.paged.faults) {
            let Some(Fault { addr, .. }) = next_fault(&self.job.uffd) else {
                return Ok(());
            };
            self.paged.faults += 1;
            self.serve(self.job.region.page(addr))?;
        }
        Err(PagerError::Killed)
    }

    fn serve(&mut self, page: usize) -> Result<(), PagerError> {
        let from = match self.residency.place(page) {
            Place::Staged(_) => Source::Staged,
            Place::Stored => Source::Stored,
            Place::Absent => Source::Zeros,
            Place::Mapped => {
                // It came between the touch and now: the waiter only has to look again. The range is one page of the region.
                let _ = self.job.uffd.wake(VirtRange::page(self.job.region.address(page)));
                return Ok(());
            }
        };
        // Written down first: the worker runs as soon as it is woken.
        self.job.brought(page, from);
        self.paged.came[from as usize] += 1;
        match from {
            Source::Staged => self.move_back(page),
            _ => {
                self.make_room()?;
                self.fill(page, from)
            }
        }
    }

    /// Takes a page back that was moved out and not written yet.
    fn move_back(&mut self, page: usize) -> Result<(), PagerError> {
        let Some(slot) = self.residency.rescue(page) else {
            return Ok(());
        };
        let (region, staging) = (&self.job.region, &self.job.staging);
        let outcome = self.job.uffd.move_pages(
            &region.space,
            region.address(page),
            staging.address(slot),
            PAGE_SIZE,
            MoveMode::empty(),
        );
        done(outcome, |outcome| PagerError::MoveBack(page, outcome))
    }

    fn fill(&mut self, page: usize, from: Source) -> Result<(), PagerError> {
        // Not ZEROPAGE, not even for zeros: the store that ends sharing the zero page would take a frame unasked.
        let content = match from {
            Source::Stored => &self.store[page * PAGE..][..PAGE],
            _ => &self.zeros,
        };
        let addr = self.job.region.address(page);
        let outcome = self.job.uffd.copy(addr, content, PAGE_SIZE, FillMode::empty());
        self.job.frames.look();
        done(outcome, |outcome| PagerError::Copy(page, outcome))?;
        self.residency.fill(page);
        Ok(())
    }

    /// Has pages go if one more would be too many.
    fn make_room(&mut self) -> Result<(), PagerError> {
        if self.residency.has_room() {
            return Ok(());
        }
        if self.skip_room.is_some_and(|fault| fault <= self.paged.faults) {
            self.skip_room = None;
            return Ok(());
        }
        self.move_out()?;
        self.write_out()
    }

    /// Moves the oldest pages out until the staging area is full.
    fn move_out(&mut self) -> Result<(), PagerError> {
        while let Some((page, slot)) = self.residency.stage() {
            let (region, staging) = (&self.job.region, &self.job.staging);
            let outcome = self.job.uffd.move_pages(
                &region.space,
                staging.address(slot),
                region.address(page),
                PAGE_SIZE,
                // Nobody waits for a slot.
                MoveMode::DONTWAKE,
            );
            done(outcome, |outcome| PagerError::MoveOut(page, outcome))?;
            self.paged.moved_out += 1;
        }
        Ok(())
    }

    /// Writes the pages that were staged first to the store, and gives their memory back.
    fn write_out(&mut self) -> Result<(), PagerError> {
        for _ in 0..self.batch {
            let Some((page, slot)) = self.residency.store() else {
                break;
            };
            let slot = self.job.staging.part(slot..slot + 1);
            uaccess::read(slot.start, &mut self.content).map_err(|error| PagerError::Read(page, error))?;
            self.paged.written += 1;
            let stored = &mut self.store[page * PAGE..][..PAGE];
            if self.lose_write.is_some_and(|write| write <= self.paged.written) && stored != self.content {
                self.lose_write = None;
            } else {
                stored.copy_from_slice(&self.content);
            }
            let discarded = self.job.region.space.discard(slot);
            discarded.map_err(PagerError::Discard)?;
        }
        Ok(())
    }
}

fn done(outcome: Outcome, error: impl FnOnce(Outcome) -> PagerError) -> Result<(), PagerError> {
    match outcome {
        Outcome::Done => Ok(()),
        outcome => Err(error(outcome)),
    }
}
