//! What the applications with guests share: `cpu` says which vendor's virtualisation the CPU has, and runs for that one what is the
//! same for all of them.

mod cpu;

pub use cpu::{Job, on_this_cpu};
