//! The userfault channel.

/// The fault a task waits for; part of every task, so that delivering a fault allocates nothing.
#[derive(Default, Debug)]
pub struct FaultSlot {}
