//! Tasks as threads.

mod exit;
mod park;
mod wait;
