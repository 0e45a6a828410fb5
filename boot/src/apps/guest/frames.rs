//! Frames that were not given back.
//!
//! Counted are the kinds that guests take: memory, tables, control blocks. The kernel keeps what it takes for its heap and its
//! stacks, and the tables that map them: those of the heap follow from its size; those of stacks are there from the beginning,
//! because as many tasks as will be needed have run before anything is counted.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use kernel::mm::frame::{self, Kind};
use kernel::task;

use crate::apps::AppError;
use crate::apps::common::{join, start};

/// Pages that a table maps.
const PER_TABLE: u64 = 512;
/// How often it is seen to that nobody but the guests could hold frames.
const LOOKS: usize = 4;

/// How many frames of each kind were in use at some moment.
#[derive(Clone, Copy, Debug)]
pub struct Unreturned([(Kind, u64); 3]);

impl Unreturned {
    /// Counts from now on; `tasks` tasks will run at once.
    ///
    /// # Errors
    /// There is no memory for so many.
    pub fn since_now(tasks: usize) -> Result<Self, AppError> {
        let started: Result<Vec<_>, _> = (0..tasks).map(|_| start("stack", None, || ())).collect();
        started?.into_iter().try_for_each(join)?;
        Ok(Self::now())
    }

    fn now() -> Self {
        let stats = frame::allocator().stats();
        let heap = stats.of(Kind::Heap);
        let heap_tables = heap.div_ceil(PER_TABLE) + heap.div_ceil(PER_TABLE * PER_TABLE);
        Self([
            (Kind::Anon, stats.of(Kind::Anon)),
            (Kind::Table, stats.of(Kind::Table) - heap_tables),
            (Kind::KernelData, stats.of(Kind::KernelData)),
        ])
    }

    /// How many more there are now, by kind.
    fn more(&self) -> Vec<(Kind, u64)> {
        let both = Self::now().0.into_iter().zip(self.0);
        let more = both.map(|((kind, now), (_, before))| (kind, now.saturating_sub(before)));
        more.filter(|(_, more)| *more > 0).collect()
    }

    /// A sentence for each kind of which there are more by now.
    pub fn failures(&self) -> Vec<String> {
        // A CPU keeps the space that it has loaded until it is the last to, which it sees when a task has ended.
        for _ in 0..LOOKS {
            if self.more().is_empty() {
                break;
            }
            // Whether that could be done shows in the frames.
            let _ = start("look", None, task::yield_now).and_then(join);
        }
        let sentence =
            |(kind, more): (Kind, u64)| format!("{more} frames ({}) were not given back", kind.name());
        self.more().into_iter().map(sentence).collect()
    }
}
