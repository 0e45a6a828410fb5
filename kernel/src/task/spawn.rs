//! The beginning of a task.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;

use super::exit::{Ending, Outcome};
use super::{Task, engine};
use crate::mm::space::Space;
use crate::process::Thread;
use crate::sync::SpinLock;

/// What a task is to do.
pub(super) type Job = Box<dyn FnOnce() -> Outcome + Send>;

/// Why a task could not be started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpawnError {
    /// No memory for its stack.
    NoStack,
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoStack => f.write_str("no memory for the task's stack"),
        }
    }
}

impl core::error::Error for SpawnError {}

/// Starts a task that runs `job` in `space` and ends when it returns.
///
/// It takes its turn at the end of this CPU's run queue. Names longer than [`super::NAME_LEN`] bytes are cut.
///
/// # Errors
/// No memory for its stack.
pub fn spawn<E: Ending>(
    name: &str,
    space: Option<Arc<Space>>,
    job: impl FnOnce() -> E + Send + 'static,
) -> Result<Arc<Task>, SpawnError> {
    let task = prepare(name, space, job)?;
    engine::start(Arc::clone(&task))?;
    Ok(task)
}

/// [`spawn`] for a task that runs a thread of a process.
///
/// # Errors
/// No memory for its stack.
pub fn spawn_thread<E: Ending>(
    name: &str,
    space: Arc<Space>,
    thread: Arc<Thread>,
    job: impl FnOnce() -> E + Send + 'static,
) -> Result<Arc<Task>, SpawnError> {
    let task = prepare(name, Some(space), job)?;
    task.set_thread(thread);
    engine::start(Arc::clone(&task))?;
    Ok(task)
}

fn prepare<E: Ending>(
    name: &str,
    space: Option<Arc<Space>>,
    job: impl FnOnce() -> E + Send + 'static,
) -> Result<Arc<Task>, SpawnError> {
    let body = engine::Body::new(Box::new(move || job().outcome()))?;
    Ok(Task::new(name, space, body))
}

/// A task whose result somebody waits for.
#[derive(Debug)]
pub struct JoinHandle<T> {
    task: Arc<Task>,
    result: Arc<SpinLock<Option<T>>>,
}

impl<T> JoinHandle<T> {
    /// The task.
    pub fn task(&self) -> &Arc<Task> {
        &self.task
    }

    /// Waits for the task's end; its result.
    ///
    /// # Errors
    /// The task ended without one.
    #[track_caller]
    pub fn join(self) -> Result<T, Outcome> {
        let outcome = self.task.join();
        self.result.lock().take().ok_or(outcome)
    }
}

/// [`spawn`] for a job whose result is wanted.
///
/// # Errors
/// No memory for its stack.
pub fn spawn_returning<T: Send + 'static>(
    name: &str,
    space: Option<Arc<Space>>,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, SpawnError> {
    let result = Arc::new(SpinLock::new(None));
    let slot = Arc::clone(&result);
    let task = spawn(name, space, move || *slot.lock() = Some(job()))?;
    Ok(JoinHandle { task, result })
}
