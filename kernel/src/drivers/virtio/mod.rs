//! Virtio devices on PCI, with `virtio-drivers`.
//!
//! | module | what |
//! | --- | --- |
//! | [`hal`] | what the crate asks of a kernel: memory for devices, device memory |
//! | `transport` | the crate's PCI transport, without features that cost more than they give |
//! | [`blk`] | a disk |

pub mod blk;
pub mod hal;
mod transport;
