//! Per-CPU data.
//!
//! Each CPU has one [`Local`]; [`Cpu::local`](crate::arch::Cpu::local) finds the caller's. What has to be reached by a
//! single instruction (the preemption count, the running task) is kept by `arch` beside the pointer to it.

use crate::arch::MAX_CPUS;

/// What the kernel keeps for each CPU. A cache line of its own, so that CPUs do not disturb each other.
#[derive(Debug)]
#[repr(align(64))]
pub struct Local {
    id: usize,
    /// The scheduler's part.
    #[cfg(target_os = "none")]
    pub(crate) sched: crate::task::CpuSched,
}

impl Local {
    /// The record of CPU `id`.
    pub const fn new(id: usize) -> Self {
        Self {
            id,
            #[cfg(target_os = "none")]
            sched: crate::task::CpuSched::new(),
        }
    }

    /// Number of the CPU.
    pub const fn id(&self) -> usize {
        self.id
    }
}

static LOCALS: [Local; MAX_CPUS] = {
    let mut locals = [const { Local::new(0) }; MAX_CPUS];
    let mut id = 0;
    while id < MAX_CPUS {
        locals[id].id = id;
        id += 1;
    }
    locals
};

/// The record of CPU `id`, below [`MAX_CPUS`]. (Software machines have records of their own.)
pub fn of(id: usize) -> &'static Local {
    &LOCALS[id]
}
