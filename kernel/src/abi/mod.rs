//! Linux's application interface, as data: numbers and layouts, no behaviour.

pub mod clone;
pub mod errno;
pub mod guest;
pub mod lock;
pub mod mman;
pub mod shm;
pub mod signal;
pub mod stat;
pub mod uffd;
pub mod wait;
