//! What the kernel tells the outside: typed records for the host side.

pub mod record;
