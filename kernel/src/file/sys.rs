//! `/sys`: what programs look for there about memory and CPUs.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use super::pseudo::{Fixed, PseudoFs, Text};
use super::tree::Inode;
use crate::abi::errno::Errno;
use crate::mm::frame::allocator;

/// Linux's number for the kind of file system.
const MAGIC: u64 = 0x6265_6572;

/// The tree of `/sys`.
pub fn tree() -> Arc<dyn Inode> {
    let fs = PseudoFs::new(MAGIC);
    let constant = |text: &'static str| Text::readable(&fs, move || Ok(text.into()));
    let dir = |names| Fixed::with(&fs, names);
    let mm = dir(vec![
        ("transparent_hugepage", huge_pages_by_themselves(&fs)),
        ("hugepages", dir(vec![("hugepages-2048kB", pool(&fs))])),
    ]);
    let cpus = dir(vec![
        ("online", constant("0\n")),
        ("possible", constant("0\n")),
        ("present", constant("0\n")),
        ("kernel_max", constant("63\n")),
        ("cpu0", dir(vec![])),
    ]);
    let node0 = dir(vec![
        ("cpulist", constant("0\n")),
        ("cpumap", constant("1\n")),
        ("hugepages", dir(vec![("hugepages-2048kB", pool(&fs))])),
    ]);
    let nodes = dir(vec![
        ("online", constant("0\n")),
        ("possible", constant("0\n")),
        ("has_memory", constant("0\n")),
        ("has_cpu", constant("0\n")),
        ("node0", node0),
    ]);
    dir(vec![
        ("kernel", dir(vec![("mm", mm)])),
        (
            "devices",
            dir(vec![("system", dir(vec![("cpu", cpus), ("node", nodes)]))]),
        ),
    ])
}

/// `transparent_hugepage`: pages become huge by themselves nowhere; programs only look for the size.
fn huge_pages_by_themselves(fs: &Arc<PseudoFs>) -> Arc<dyn Inode> {
    let constant = |text: &'static str| Text::readable(fs, move || Ok(text.into()));
    Fixed::with(
        fs,
        vec![
            ("enabled", constant("always madvise [never]\n")),
            ("defrag", constant("always defer defer+madvise madvise [never]\n")),
            (
                "shmem_enabled",
                constant("always within_size advise [never] deny force\n"),
            ),
            ("hpage_pmd_size", constant("2097152\n")),
            ("use_zero_page", constant("0\n")),
        ],
    )
}

/// The counters of the pool of huge pages; `nr_hugepages` can be set.
fn pool(fs: &Arc<PseudoFs>) -> Arc<dyn Inode> {
    let number = |read: fn() -> u64| Text::readable(fs, move || Ok(line(read())));
    Fixed::with(
        fs,
        vec![
            (
                "nr_hugepages",
                Text::writable(fs, || Ok(line(allocator().huge_pages().total)), set_pool),
            ),
            (
                "nr_hugepages_mempolicy",
                Text::writable(fs, || Ok(line(allocator().huge_pages().total)), set_pool),
            ),
            ("free_hugepages", number(|| allocator().huge_pages().free)),
            ("resv_hugepages", number(|| allocator().huge_pages().promised)),
            ("surplus_hugepages", number(|| 0)),
            (
                "nr_overcommit_hugepages",
                Text::writable(fs, || Ok(line(0)), |_| Ok(())),
            ),
        ],
    )
}

/// Sets so many huge pages aside, or as many as there is memory for; gives back those above that nobody uses.
pub(super) fn set_pool(bytes: &[u8]) -> Result<(), Errno> {
    let wanted = parse(bytes)?;
    let frames = allocator();
    let total = frames.huge_pages().total;
    if wanted < total {
        frames.release_huge(total - wanted);
    }
    for _ in total..wanted {
        if frames.reserve_huge(1).is_err() {
            break;
        }
    }
    Ok(())
}

fn line(number: u64) -> Vec<u8> {
    (number.to_string() + "\n").into_bytes()
}

/// A number that was written.
///
/// # Errors
/// EINVAL.
pub(super) fn parse(bytes: &[u8]) -> Result<u64, Errno> {
    let text = String::from_utf8_lossy(bytes);
    text.trim().parse().map_err(|_| Errno::EINVAL)
}
