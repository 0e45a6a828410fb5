//! What more than one application is told.

use alloc::format;

use kernel::lab::order::Order;
use kernel::mm::frame;
use kernel::trace::cmdline::Cmdline;

use crate::apps::{AppError, System};

/// Largest region, in pages: page numbers have 32 bits.
pub const MAX_PAGES: u64 = u32::MAX as u64;
/// Pages of a region whose size nobody has said.
const PAGES: u64 = 2048;
const ORDERS: &[&str] = &["sequential", "random", "reverse", "file"];

/// The order of touches, from the keys `order` (`sequential`, `random`, `reverse`, or `file`: the ramdisk's entry
/// `order`) and `seed`; `default` if there is no `order`.
///
/// # Errors
/// A value that makes no sense, or an entry that is not there.
pub fn order(
    cmdline: &Cmdline<'static>,
    system: &'static System,
    default: Order<'static>,
) -> Result<Order<'static>, AppError> {
    let seed = seed(cmdline)?;
    Ok(match cmdline.choice("order", ORDERS)? {
        None => default,
        Some(0) => Order::Sequential,
        Some(1) => Order::Random { seed },
        Some(2) => Order::Reverse,
        Some(_) => Order::List(entry(system, "order")?),
    })
}

/// The key `seed`; 1 if it is not there.
///
/// # Errors
/// It is no number.
pub fn seed(cmdline: &Cmdline<'static>) -> Result<u64, AppError> {
    Ok(cmdline.number("seed", 0, u64::MAX)?.unwrap_or(1))
}

/// The keys `pages`, the size of a region (2048), and `populate`, how many pages of it are filled first (all).
///
/// # Errors
/// One is no number, or more are to be filled than there are.
pub fn pages(cmdline: &Cmdline<'static>) -> Result<(u64, usize), AppError> {
    let pages = cmdline.number("pages", 1, MAX_PAGES)?.unwrap_or(PAGES);
    let populate = cmdline.number("populate", 0, pages)?.unwrap_or(pages);
    Ok((pages, populate as usize))
}

/// An entry of the ramdisk.
///
/// # Errors
/// It is not there.
pub fn entry(system: &'static System, name: &str) -> Result<&'static [u8], AppError> {
    let missing = || AppError::Failed(format!("the ramdisk has no entry `{name}`"));
    system.ramdisk.file(name).ok_or_else(missing)
}

/// Refuses what the machine's memory cannot hold: `pages` pages for `what`.
///
/// # Errors
/// That many are not free.
pub fn check_memory(what: &str, pages: u64) -> Result<(), AppError> {
    let free = frame::allocator().stats().free;
    // Tables, stacks and the heap's small blocks.
    let needed = pages + pages / 64 + 256;
    if needed <= free {
        return Ok(());
    }
    Err(AppError::Failed(format!(
        "{what} take {needed} pages of memory with what is needed beside them, and {free} are free; \
         give the machine more (--mem)"
    )))
}
