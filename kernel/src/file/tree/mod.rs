//! The tree of files: names, paths, and what changes them.
//!
//! | file | what |
//! | --- | --- |
//! | `inode` | what file systems implement |
//! | `entry` | a file under one of its names; mounts |
//! | `walk` | from a path to an entry |
//! | `change` | making, linking, moving and taking away |
//! | `place` | where a process stands: root, working directory, umask |
//!
//! **Locks**, in this order: a tree's `changing` (a lock to sleep on, held while names are looked up in a file system, made,
//! moved or taken away), an entry's `children`, an entry's `at`, a file system's own.

mod change;
mod entry;
mod inode;
mod place;
#[cfg(test)]
mod tests;
mod walk;

pub use change::{link, make, remove, rename};
pub use entry::Entry;
pub use inode::{Change, Directory, Inode, New, Replace, Target};
pub use place::{Executable, Place, program_of};
pub use walk::{Found, Last, NAME_MAX, Name, PATH_MAX};
