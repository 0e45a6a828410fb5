//! The library half of xtask.
