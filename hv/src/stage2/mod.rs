//! Stage 2: tables from guest-physical to physical addresses.
//!
//! The walker, the cursor and the flush tokens are the kernel's ([`kernel::mm::pt`]); this module supplies the two entry
//! formats. Each is the vendor's, bit for bit, plus what software keeps in bits that the CPU ignores.
//!
//! | | [`Ept`] (Intel) | [`Npt`] (AMD) |
//! | --- | --- | --- |
//! | present | any of read, write, execute | bit 0 |
//! | execute-only | where the CPU has it | no |
//! | user bit | none (without mode-based execute control) | always set: guest accesses count as user accesses |
//! | memory type | in the leaf, combined with the guest's PAT | PWT, PCD, PAT against the host's PAT, likewise |
//! | global | no meaning | no meaning |
//!
//! So a stage-2 leaf has no [`Prot::USER`](kernel::mm::pt::Prot::USER) and no
//! [`AttrFlags::GLOBAL`](kernel::mm::pt::AttrFlags::GLOBAL) in either format, and the code above the formats need not know
//! the vendor. Nor has it [`AttrFlags::FORKED`](kernel::mm::pt::AttrFlags::FORKED): guests do not fork what they run in.

mod caps;
mod ept;
mod leaves;
mod npt;
mod table;

pub use caps::{Caps, caps, set_caps};
pub use ept::Ept;
pub use leaves::Run;
pub use npt::Npt;
pub(crate) use table::Tables;
pub use table::{Entered, Stage2, View};

use kernel::mm::pt::{AttrFlags, Marker};

/// What the entry of an absent page remembers whose violations may be the guest's own business: a convertible one, in the
/// SDM's words (vol. 3C, 26.5.7.1). Nothing is write-protected at stage 2 before it is there, so the marker is free.
pub const DELEGATED: Marker = Marker::UffdWp;

/// Flags that no leaf of stage 2 can have, in either format.
const MEANINGLESS: AttrFlags = AttrFlags::GLOBAL.union(AttrFlags::FORKED);

#[cfg(test)]
mod tests;
