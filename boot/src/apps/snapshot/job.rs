//! What the tasks of a snapshot share.

use alloc::sync::Arc;

use kernel::task::{Completion, WaitReason};

use crate::apps::AppError;
use crate::apps::common::Live;

static READY: WaitReason = WaitReason::new("the writer to have written for a while");
static ARMED: WaitReason = WaitReason::new("the region to be write-protected");

/// The image, and how far things are.
pub struct Job {
    /// The region and its image.
    pub live: Arc<Live>,
    /// The writer waits to go on.
    pub ready: Completion,
    /// The region is protected, and the writer may go on.
    pub armed: Completion,
}

impl Job {
    /// A region of `pages` pages and a blank image.
    ///
    /// # Errors
    /// There is no memory for them.
    pub fn new(pages: u64) -> Result<Self, AppError> {
        Ok(Self {
            live: Arc::new(Live::new(pages)?),
            ready: Completion::new(&READY),
            armed: Completion::new(&ARMED),
        })
    }
}
