//! The monitors of a restore: one, and under the policy `reattach` another whenever one has ended too early.

use alloc::sync::Arc;

use kernel::task::spawn::JoinHandle;
use kernel::uffd::MonitorDeath;

use super::job::Job;
use super::monitor::{Monitor, MonitorError, Served};
use super::options::Options;
use crate::apps::AppError;
use crate::apps::common::{self, join};

/// Starts and attaches the first monitor, and a task that looks after it and comes to what all of them did.
///
/// # Errors
/// There is no memory for a task.
pub fn start(job: &Arc<Job>, options: &Options) -> Result<JoinHandle<Result<Served, AppError>>, AppError> {
    let in_space = options.monitor_touches_own_region.then_some(&job.region.space);
    let monitor = Monitor::new(job, options);
    let first = common::start("monitor", in_space, move || monitor.run())?;
    job.uffd.attach_monitor(first.task());
    let (job, prefetch) = (Arc::clone(job), options.prefetch);
    let replaces = options.on_monitor_death == MonitorDeath::Reattach;
    common::start("monitors", None, move || {
        let mut served = join(first)?;
        while replaces && matches!(served.error, Some(MonitorError::Killed)) {
            let monitor = Monitor::successor(&job, prefetch, served);
            let next = common::start("monitor", None, move || monitor.run())?;
            job.uffd.attach_monitor(next.task());
            served = join(next)?;
        }
        Ok(served)
    })
}
