//! Faultline's hypervisor half.
//!
//! ```text
//!   stage2   entry formats for the kernel's page-table walker: EPT (Intel), NPT (AMD)
//! ```
#![no_std]

#[cfg(test)]
extern crate alloc;

pub mod stage2;
