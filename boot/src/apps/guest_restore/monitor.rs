//! The monitor of the restored guest's ordinary memory: a task of the host's, which fills what was saved.

use alloc::sync::Arc;
use core::fmt;

use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::cache::Object;
use kernel::mm::range::VirtRange;
use kernel::uffd::{FillMode, Outcome, Uffd};

use crate::apps::common::{Fault, PAGE, Region, next_fault};
use crate::apps::guest::page_of;

/// What a monitor has done when it ends.
#[derive(Debug, Default)]
pub struct Served {
    /// Pages that it filled with what was saved.
    pub copied: u64,
    /// Pages that it filled with zeros: nobody had touched them when the guest was saved.
    pub zeros: u64,
    /// Why it ended before the channel was closed.
    pub error: Option<MonitorError>,
}

/// Why a monitor gave up.
#[derive(Debug)]
pub enum MonitorError {
    /// A page that the guest waits for could not be filled.
    Fill(usize, Outcome),
    /// It was told to end (`kill-monitor-after`).
    Killed,
}

impl fmt::Display for MonitorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fill(page, outcome) => write!(
                f,
                "the monitor gave up: page {page} of ordinary memory could not be filled: {outcome:?}"
            ),
            Self::Killed => f.write_str("the monitor of ordinary memory was killed"),
        }
    }
}

/// The monitor.
pub struct Monitor {
    /// Ordinary memory.
    pub region: Region,
    /// Its end of the channel.
    pub uffd: Arc<Uffd>,
    /// What was saved.
    pub saved: Arc<Object>,
    /// When it ends for no reason.
    pub kill_after: Option<u64>,
}

impl Served {
    /// Faults that were served.
    pub fn faults(&self) -> u64 {
        self.copied + self.zeros
    }
}

impl Monitor {
    /// Serves faults until the channel is closed or something is wrong.
    pub fn run(self) -> Served {
        let mut served = Served::default();
        served.error = self.serve_all(&mut served).err();
        served
    }

    fn serve_all(&self, served: &mut Served) -> Result<(), MonitorError> {
        let mut content = alloc::vec![0; PAGE];
        while self.kill_after != Some(served.faults()) {
            let Some(Fault { addr, .. }) = next_fault(&self.uffd) else {
                return Ok(());
            };
            self.serve(self.region.page(addr), &mut content, served)?;
        }
        Err(MonitorError::Killed)
    }

    #[inline]
    fn serve(&self, page: usize, content: &mut [u8], served: &mut Served) -> Result<(), MonitorError> {
        let addr = self.region.address(page);
        let outcome = if page_of(&self.saved, page as u64, content) {
            served.copied += 1;
            self.uffd.copy(addr, content, PAGE_SIZE, FillMode::empty())
        } else {
            served.zeros += 1;
            self.uffd.zeropage(VirtRange::page(addr), FillMode::empty())
        };
        match outcome {
            Outcome::Done => Ok(()),
            outcome => Err(MonitorError::Fill(page, outcome)),
        }
    }
}
