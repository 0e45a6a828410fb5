//! What the tests share: memory in a space of its own, and tasks there.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kernel::mm::addr::{PAGE_SIZE, VirtAddr};
use kernel::mm::memtype::anon::ANON;
use kernel::mm::pt::Prot;
use kernel::mm::range::VirtRange;
use kernel::mm::space::{MapRequest, Memory, Privilege, Space};
use kernel::task::spawn::{JoinHandle, spawn_returning};

/// What an error says, as a test's own.
pub fn text(error: impl core::fmt::Debug) -> String {
    format!("{error:?}")
}

/// A space with nothing in it.
pub fn empty_space() -> Result<Arc<Space>, String> {
    Space::new(Privilege::Kernel).map_err(text)
}

/// Maps `bytes` of any memory somewhere in `space`, to be read and written.
pub fn map(space: &Arc<Space>, memory: Memory, bytes: u64) -> Result<VirtRange, String> {
    let request = MapRequest {
        at: None,
        len: bytes,
        prot: Prot::READ | Prot::WRITE,
        memory,
    };
    space.map(request).map_err(text)
}

/// Maps `pages` pages of anonymous memory somewhere in `space`.
pub fn map_pages(space: &Arc<Space>, pages: u64) -> Result<VirtRange, String> {
    map(space, Memory::Own(&ANON), pages * PAGE_SIZE)
}

/// A space with `pages` pages of anonymous memory in it.
pub fn mapped(pages: u64) -> Result<(Arc<Space>, VirtRange), String> {
    let space = empty_space()?;
    let region = map_pages(&space, pages)?;
    Ok((space, region))
}

/// The address of a page of `region`.
pub fn page(region: VirtRange, number: u64) -> VirtAddr {
    region.start + number * PAGE_SIZE
}

/// What a monitor of these tests puts into a page: its number, counted from 1, in every byte.
pub fn content(page: u64) -> Vec<u8> {
    let word = (page + 1) * 0x0101_0101_0101_0101;
    word.to_le_bytes().repeat(PAGE_SIZE as usize / 8)
}

/// Starts a task of `space`.
pub fn task<T: Send + 'static>(
    space: &Arc<Space>,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, String> {
    spawn_returning("toucher", Some(Arc::clone(space)), job).map_err(text)
}

/// What a task comes to.
pub fn joined<T>(task: JoinHandle<T>) -> Result<T, String> {
    task.join().map_err(text)
}

/// What a task of `space` comes to.
pub fn run<T: Send + 'static>(
    space: &Arc<Space>,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    joined(task(space, job)?)
}
