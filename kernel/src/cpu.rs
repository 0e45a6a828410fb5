//! Per-CPU data.

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
    pub fn id(&self) -> usize {
        self.id
    }
}
