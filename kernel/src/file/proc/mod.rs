//! `/proc`.
//!
//! | file | what |
//! | --- | --- |
//! | `system` | what is said about the machine: meminfo, cpuinfo, sys/ ... |

mod system;

use alloc::sync::Arc;

use super::pseudo::PseudoFs;
use super::tree::Inode;

/// Linux's number for the kind of file system.
const MAGIC: u64 = 0x9fa0;

/// The tree of `/proc`.
pub fn tree() -> Arc<dyn Inode> {
    let fs = PseudoFs::new(MAGIC);
    super::pseudo::Fixed::new(&fs, system::files(&fs))
}
