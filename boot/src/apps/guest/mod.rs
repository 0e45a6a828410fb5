//! What the applications with guests share.
//!
//! ```text
//!   guest-physical   0 .......... memory_len     1 GiB .............    2 GiB .............
//!                    ordinary memory             delegated memory       the store: what delegated memory held when
//!                    a range of a space          an object              the guest was saved, read-only
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `cpu` | which vendor's virtualisation the CPU has; what is the same for all of them is run for that one |
//! | `options` | keys that all of the applications understand |
//! | `layout` | where a guest's memory lies |
//! | `machine` | slots, a vCPU |
//! | `console` | what a guest prints, and comparing it |
//! | `drive` | running a guest to a point, to its end |
//! | `origin` | a guest that starts from its ELF |
//! | `reference` | what a guest comes to when nothing interrupts it |
//! | `saved` | a guest that was saved: its vCPU and its memory |
//! | `frames` | frames that were not given back |
//!
//! Everything is generic over the [`Vendor`](hv::vendor::Vendor); only `cpu` names one. A guest is run by the task that owns
//! its vCPU. What it does is its own business, as far as [`kernel::abi::guest`] leaves it that.

mod console;
mod cpu;
mod drive;
mod frames;
mod layout;
mod machine;
mod options;
mod origin;
mod reference;
mod saved;

pub use console::{Console, Printed};
pub use cpu::{Job, on_this_cpu};
pub use drive::{Ended, GuestError, Limit, SavePoint, run_to_end, run_to_point};
pub use frames::Unreturned;
pub use layout::Layout;
pub use machine::{assemble, of_region, resident, vcpu};
pub use options::Guest;
pub use origin::{Origin, load};
pub use reference::{Reference, other_status};
pub use saved::{Saved, digests_of, page_of};
