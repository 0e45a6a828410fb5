//! What `cargo xtask diff` is made of: the same programs and the same random cases on two kernels, line by line.
//!
//! ```text
//!   generate/    random cases from a seed ── script
//!                                              │
//!   side         plays it on the Linux that xtask stands on, and on Faultline
//!                                              │
//!   transcript ── compare ── listed            what differs, and which of it is meant to
//!                                              │
//!   again        whether it was Linux's chance
//!                                              │
//!   shrink       the shortest case that still differs
//!                                              │
//!   report       the table, and the same as JSON
//! ```

pub mod again;
pub mod compare;
pub mod generate;
pub mod listed;
pub mod report;
pub mod script;
pub mod shrink;
pub mod side;
pub mod transcript;
