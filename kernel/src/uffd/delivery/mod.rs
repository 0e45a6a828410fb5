//! Ways of handing a fault to its monitor, a file each.

pub mod queue;
