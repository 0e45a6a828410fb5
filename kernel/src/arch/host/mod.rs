//! A software machine, so that the kernel's logic runs under `cargo test`.
