//! Files in memory: tmpfs, and the files without names that `memfd_create` makes.
//!
//! | file | what |
//! | --- | --- |
//! | `node` | a file of whatever kind, and the file system that it belongs to |
//! | `children` | the names of a directory |
//! | `body` | a regular file: a memory object, with seals |
//! | `regular` | a regular file that is open |
//! | `naming` | what mappings of a memory object are called |
//! | `archive` | a tree from a cpio archive |
//!
//! The contents of a regular file are a memory object ([`crate::mm::cache::Object`]), so that reads, writes and mappings of
//! the file share its pages. Files of the initial archive get theirs when they are first used.

mod archive;
mod body;
mod children;
mod memfd;
mod naming;
mod node;
mod regular;
mod writers;

pub use archive::{fill, guest_path};
pub use body::{Body, Seals};
pub use memfd::memfd;
pub use naming::{Naming, name_of};
pub(crate) use node::next_device;
pub use node::{Kind, Node, TmpFs, unnamed};
pub use regular::RegularFile;
