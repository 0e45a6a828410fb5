//! `memfd_create`: a regular file without a name, that can be sealed.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::body::{Body, Seals};
use super::node::{Kind, TmpFs};
use crate::file::tree::{Entry, Inode};
use crate::file::{OpenFile, OpenFlags};
use crate::mm::memtype::hugetlb::HUGETLB;
use crate::mm::memtype::shmem::SHMEM;
use crate::sync::Once;
use crate::syscall::Error;

/// A file for memory to be shared; in huge pages of the pool if `huge`. It can be sealed if `sealable`, and is not to be
/// executed unless `executable`.
///
/// # Errors
/// ENOMEM.
pub fn memfd(name: &[u8], huge: bool, sealable: bool, executable: bool) -> Result<Arc<OpenFile>, Error> {
    static FILES: Once<Arc<TmpFs>> = Once::new();
    let fs = FILES.call_once(|| TmpFs::new(None));
    let ty = if huge { &HUGETLB } else { &SHMEM };
    let seals = match (sealable, executable) {
        (true, _) if executable => Seals::empty(),
        (_, false) => Seals::EXEC,
        (_, true) => Seals::SEAL,
    };
    let mode = if executable { 0o777 } else { 0o666 };
    let node = fs.node(mode, Kind::Regular(Arc::new(Body::new(ty, None, &[], seals))));
    node.introduce();
    let mut label = Vec::from(&b"/memfd:"[..]);
    label.extend_from_slice(name);
    label.extend_from_slice(b" (deleted)");
    let entry = Entry::unnamed(Arc::clone(&node) as Arc<dyn Inode>, &label);
    let flags = OpenFlags::RDWR | OpenFlags::LARGEFILE;
    // As on Linux the first descriptor does not count among those that write: it can be executed.
    let file = node.open(&entry, OpenFlags::empty())?;
    Ok(OpenFile::named(file, entry, flags))
}
