//! The arithmetic of experiments: what the applications compute, free of devices and tasks.
//!
//! | module | what |
//! | --- | --- |
//! | [`order`] | in which order a workload touches its pages |
//! | [`digest`] | whether a page is what it should be |
//! | [`pages`] | which pages are present, why, and whether a prefetch paid |
//! | [`samples`] | exact percentiles of what was measured |
//! | [`table`] | a report as text |
//!
//! All of it runs in host tests.

pub mod digest;
pub mod order;
pub mod pages;
pub mod samples;
pub mod table;
