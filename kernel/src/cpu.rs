//! Per-CPU data.
