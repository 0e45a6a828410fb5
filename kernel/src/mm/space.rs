//! Address spaces.

/// An address space.
#[derive(Debug)]
pub struct Space {}

impl Space {
    /// Makes this the space of this CPU. Interrupts are off.
    pub fn activate(&self) {}
}
