//! Kernel stacks with a guard page below.

/// The stack of a kernel task.
#[derive(Debug)]
pub struct KernelStack {}

/// No frame was left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfFrames;

impl KernelStack {
    /// A fresh stack.
    ///
    /// # Errors
    /// No memory.
    pub fn new() -> Result<Self, OutOfFrames> {
        Err(OutOfFrames)
    }

    /// The address just past the stack, 16-aligned.
    pub fn top(&self) -> *mut u8 {
        core::ptr::null_mut()
    }
}
