//! What a guest comes to when nothing interrupts it, and what it was when it could have been.

use hv::vendor::{Features, Vendor};
use kernel::lab::digest::DigestList;

use super::{
    Console, Ended, Guest, GuestError, Origin, Printed, Saved, digests_of, run_to_end, run_to_point,
};
use crate::apps::AppError;

/// A guest that was saved at its point, and went on to its end.
pub struct Reference {
    /// What was saved.
    pub saved: Saved,
    /// How it ended.
    pub ended: Ended,
    /// What it printed from the point on.
    pub printed: Printed,
    /// What its delegated memory held in the end.
    pub delegated: DigestList,
}

impl Reference {
    /// Runs the guest to where it is saved, and on to its end.
    ///
    /// # Errors
    /// It does not come to either, or there is no memory for it.
    pub fn of<V: Vendor>(features: &Features, guest: &Guest) -> Result<Self, AppError> {
        let console = Console::new("guest");
        let mut origin = Origin::<V>::new(features, guest, &console)?;
        run_to_point(&mut origin.vcpu, guest.point, guest.limit).map_err(AppError::failed)?;
        let saved = origin.save(guest)?;
        console.take();
        let unserved = |fault: hv::userfault::MemoryFault| Err(GuestError::Unserved(fault.addr));
        let ended = run_to_end(&mut origin.vcpu, guest.limit, unserved).map_err(AppError::failed)?;
        Ok(Self {
            saved,
            ended,
            printed: console.take(),
            delegated: digests_of(&origin.delegated),
        })
    }
}

/// What is to be said of a guest that ended with `status`, and without an interruption with `expected`.
pub fn other_status(status: u64, expected: u64) -> Option<alloc::string::String> {
    match (status, expected) {
        (0, 0) => None,
        (status, expected) if status != expected => Some(alloc::format!(
            "it ended with status {status}, and without an interruption with {expected}"
        )),
        _ => Some(alloc::format!(
            "it ended with status {status}, as without an interruption: it says itself that it failed"
        )),
    }
}
