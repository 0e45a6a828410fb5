//! Tasks.

/// Called at each tick of the timer, with interrupts off and preemption disabled.
pub fn on_tick() {}

/// Called where the running task may be left because a reschedule is due: preemption is on; interrupts may be on (the
/// end of a critical section) or off (the way out of an interrupt), and are left as they were.
pub fn preempt() {}

/// The running task's name, for reports; never fails and takes no lock.
pub fn current_name() -> &'static str {
    "boot"
}
