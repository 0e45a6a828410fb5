//! From a page-fault exception to a verdict.

use super::addr::VirtAddr;

/// What the access wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Execute,
}

/// A page fault as the CPU reports it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultInfo {
    /// The address that was touched.
    pub addr: VirtAddr,
    /// How it was touched.
    pub access: Access,
    /// Whether user mode touched it; `false` for kernel tasks and for the kernel on a task's behalf.
    pub from_user: bool,
}

/// Why an access cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultError {
    /// Nothing is mapped there.
    Unmapped,
}

/// Handles a fault of the current task; may sleep. `Ok` means: execute the access again.
///
/// # Errors
/// The access is impossible; the error is also kept for [`last_error`].
pub fn handle(_info: &FaultInfo) -> Result<(), FaultError> {
    Err(FaultError::Unmapped)
}

/// Why the current task's last failed access failed.
pub fn last_error() -> Option<(VirtAddr, FaultError)> {
    None
}
