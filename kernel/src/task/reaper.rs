//! Gives back the stacks of tasks that have ended.
//!
//! A task cannot free the stack it stands on. The task that runs after it puts it on a list ([`bury`]), with interrupts
//! off and in a few instructions; the reaper, a task like any other, does the rest.

use alloc::sync::Arc;

use intrusive_collections::LinkedList;

use super::link::RunAdapter;
use super::sched::{self, CpuSched, Section};
use super::wait::WaitReason;
use super::{SpawnError, Task, park_on, spawn};
use crate::arch::{Cpu, Machine};
use crate::sync::{IrqLock, Once};

static ENDED: IrqLock<LinkedList<RunAdapter>> = IrqLock::new(LinkedList::new(RunAdapter::NEW));
static REAPER: Once<Arc<Task>> = Once::new();
static REASON: WaitReason = WaitReason::new("tasks that have ended");

pub(super) fn start() -> Result<(), SpawnError> {
    let task = spawn("reaper", None, || -> () {
        loop {
            match next() {
                Some(task) => reap(&task),
                None => park_on(&REASON, 0),
            }
        }
    })?;
    task.set_in_background();
    REAPER.call_once(|| task);
    Ok(())
}

/// Takes the task that this CPU has just left for ever. Interrupts are off.
#[cold]
pub(super) fn bury(cpu: &CpuSched) {
    let Some(task) = cpu.ended.take() else { return };
    ENDED.lock().push_back(task);
    if let Some(woken) = REAPER.get().and_then(|reaper| reaper.wake()) {
        sched::resume_queued(woken);
    }
}

fn next() -> Option<Arc<Task>> {
    ENDED.lock().pop_front()
}

fn reap(task: &Task) {
    drop(task.body.take_stack());
    release_space();
    task.ended.announce();
}

/// Lets go of the loaded address space if its last user is gone.
pub(super) fn release_space() {
    let section = Section::enter();
    Machine::local().sched.loaded.release_if_last();
    section.leave();
}
