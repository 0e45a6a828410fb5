//! Arguments that are addresses: allegations until they are copied. No lock may be held: an access may sleep.

use alloc::vec;
use alloc::vec::Vec;

use super::Error;
use crate::abi::errno::Errno;
use crate::mm::addr::VirtAddr;
use crate::mm::frame::allocator;
use crate::mm::uaccess::{self, on_behalf};
use crate::task;

/// Copies from the current process's memory.
///
/// # Errors
/// EFAULT.
#[inline]
pub fn read(at: u64, out: &mut [u8]) -> Result<(), Error> {
    on_behalf(|| uaccess::read(VirtAddr::new(at), out)).map_err(|_| Errno::EFAULT.into())
}

/// Copies words from it.
///
/// # Errors
/// EFAULT.
#[inline]
pub fn read_words<const N: usize>(at: u64) -> Result<[u64; N], Error> {
    on_behalf(|| uaccess::read_words(VirtAddr::new(at))).map_err(|_| Errno::EFAULT.into())
}

/// Copies to it.
///
/// # Errors
/// EFAULT. EINTR: the task is to end; so do loops whose length a program chooses.
#[inline]
pub fn write(at: u64, bytes: &[u8]) -> Result<(), Error> {
    if task::current().is_killed() {
        return Err(Errno::EINTR.into());
    }
    on_behalf(|| uaccess::write(VirtAddr::new(at), bytes)).map_err(|_| Errno::EFAULT.into())
}

/// Whether the kernel can spare `bytes` for one call.
///
/// # Errors
/// ENOMEM.
pub fn check_room(bytes: usize) -> Result<(), Errno> {
    if allocator().can_spare(bytes) {
        Ok(())
    } else {
        Err(Errno::ENOMEM)
    }
}

/// `len` bytes.
///
/// # Errors
/// EFAULT. ENOMEM: they are too many to be kept in the kernel now.
pub fn read_vec(at: u64, len: usize) -> Result<Vec<u8>, Error> {
    check_room(len)?;
    let mut bytes = vec![0; len];
    read(at, &mut bytes)?;
    Ok(bytes)
}

/// A 64-bit word.
///
/// # Errors
/// EFAULT.
pub fn read_u64(at: u64) -> Result<u64, Error> {
    let mut bytes = [0; 8];
    read(at, &mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// A 32-bit word.
///
/// # Errors
/// EFAULT.
pub fn read_u32(at: u64) -> Result<u32, Error> {
    let mut bytes = [0; 4];
    read(at, &mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

/// The string at `at`, without the zero byte behind it.
///
/// # Errors
/// EFAULT. ENAMETOOLONG: there is no zero byte among the first `max`.
pub fn read_string(at: u64, max: usize) -> Result<Vec<u8>, Error> {
    const PIECE: u64 = 256;
    let mut string = Vec::new();
    while string.len() < max {
        let from = at.wrapping_add(string.len() as u64);
        // Not over the end of a page: the string may end before.
        let len = PIECE - from % PIECE;
        let piece = read_vec(from, (len as usize).min(max - string.len()))?;
        match piece.iter().position(|byte| *byte == 0) {
            Some(end) => {
                string.extend_from_slice(&piece[..end]);
                return Ok(string);
            }
            None => string.extend_from_slice(&piece),
        }
    }
    Err(Errno::ENAMETOOLONG.into())
}

/// `N` bytes.
///
/// # Errors
/// EFAULT.
pub fn read_array<const N: usize>(at: u64) -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    read(at, &mut bytes)?;
    Ok(bytes)
}

/// Stores a 64-bit word.
///
/// # Errors
/// EFAULT.
pub fn write_u64(at: u64, word: u64) -> Result<(), Error> {
    write(at, &word.to_le_bytes())
}

/// Stores a 32-bit word.
///
/// # Errors
/// EFAULT.
pub fn write_u32(at: u64, word: u32) -> Result<(), Error> {
    write(at, &word.to_le_bytes())
}
