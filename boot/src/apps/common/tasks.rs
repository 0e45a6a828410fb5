//! Tasks whose result an application needs.

use alloc::format;
use alloc::sync::Arc;

use kernel::mm::space::Space;
use kernel::task::spawn::{JoinHandle, spawn_returning};

use crate::apps::AppError;

/// Starts a task in `space`, if it is to run in one.
///
/// # Errors
/// There is no memory for it.
pub fn start<T: Send + 'static>(
    name: &str,
    space: Option<&Arc<Space>>,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, AppError> {
    spawn_returning(name, space.cloned(), job).map_err(AppError::failed)
}

/// Waits for a task's end; its result.
///
/// # Errors
/// It ended without one.
pub fn join<T>(task: JoinHandle<T>) -> Result<T, AppError> {
    task.join()
        .map_err(|outcome| AppError::Failed(format!("a task of the run ended without a result: {outcome:?}")))
}

/// Runs `job` in a task in `space` and waits for its end.
///
/// # Errors
/// As [`start`] and [`join`].
pub fn run_in<T: Send + 'static>(
    space: &Arc<Space>,
    name: &str,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, AppError> {
    join(start(name, Some(space), job)?)
}
