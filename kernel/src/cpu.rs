//! Per-CPU data.

use crate::arch::MAX_CPUS;

/// What the kernel keeps for each CPU.
#[derive(Debug)]
pub struct Local {
    id: usize,
}

impl Local {
    /// The record of CPU `id`.
    pub const fn new(id: usize) -> Self {
        Self { id }
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
