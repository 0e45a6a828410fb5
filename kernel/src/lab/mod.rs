//! The arithmetic of experiments: what the applications compute, free of devices and tasks.
//!
//! | module | what |
//! | --- | --- |
//! | [`order`] | in which order a workload touches its pages |
//! | [`digest`] | whether a page is what it should be |
//! | [`pages`] | which pages are present, why, and whether a prefetch paid |
//! | [`page_set`] | sets of pages |
//! | [`capture`] | an image that is taken while others write |
//! | [`residency`] | which pages are resident when only so many may be |
//! | [`rng`] | random numbers that are the same on every run |
//! | [`samples`] | exact percentiles of what was measured |
//! | [`table`] | a report as text |
//!
//! All of it runs in host tests.

pub mod capture;
pub mod digest;
pub mod order;
pub mod page_set;
pub mod pages;
pub mod residency;
pub mod rng;
pub mod samples;
pub mod table;
