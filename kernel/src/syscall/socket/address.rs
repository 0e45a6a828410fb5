//! Addresses as programs give and take them: a family and a name (`sockaddr_un`).

use alloc::vec::Vec;

use super::{UNIX, with_socket};
use crate::abi::errno::Errno;
use crate::file::socket::{Address, Kind, NAME_MAX};
use crate::syscall::{Call, Error, Result, user};

/// Bytes of the family.
const FAMILY: usize = 2;
/// `AF_UNSPEC`.
const UNSPECIFIED: u16 = 0;
/// Most bytes of an address of any family (`sockaddr_storage`).
pub(super) const MAX: u64 = 128;

/// Copies an address; it may be of any family.
///
/// # Errors
/// EINVAL: its length. EFAULT.
pub(super) fn read(at: u64, len: u64) -> core::result::Result<Vec<u8>, Error> {
    let len = u64::from(len as u32);
    if len > MAX {
        return Err(Errno::EINVAL.into());
    }
    if len == 0 {
        return Ok(Vec::new());
    }
    user::read_vec(at, len as usize)
}

fn family_of(bytes: &[u8]) -> Option<u16> {
    let family = bytes.first_chunk::<FAMILY>()?;
    Some(u16::from_ne_bytes(*family))
}

/// An address with a name.
pub(super) fn named(bytes: &[u8]) -> core::result::Result<Address, Errno> {
    let is_unix = family_of(bytes).map(u64::from) == Some(UNIX);
    if bytes.len() <= FAMILY || bytes.len() > FAMILY + NAME_MAX || !is_unix {
        return Err(Errno::EINVAL);
    }
    Ok(Address::from_bytes(&bytes[FAMILY..]))
}

/// What to bind to: without a name, any that is free.
pub(super) fn to_bind(bytes: &[u8]) -> core::result::Result<Address, Errno> {
    if bytes.len() == FAMILY && family_of(bytes).map(u64::from) == Some(UNIX) {
        return Ok(Address::Unnamed);
    }
    named(bytes)
}

/// What to connect to: nothing, if a socket for datagrams is to be disconnected.
pub(super) fn to_connect(bytes: &[u8], kind: Kind) -> core::result::Result<Option<Address>, Errno> {
    if kind == Kind::Datagram && family_of(bytes) == Some(UNSPECIFIED) {
        return Ok(None);
    }
    named(bytes).map(Some)
}

/// Gives the caller an address, or as much of it as has room, and its whole length.
pub(super) fn give(address: &Address, at: u64, length: u64) -> core::result::Result<(), Error> {
    let bytes = [&(UNIX as u16).to_ne_bytes()[..], &address.to_bytes()].concat();
    give_bytes(&bytes, at, length)
}

/// The same with no address at all.
pub(super) fn give_nothing(at: u64, length: u64) -> core::result::Result<(), Error> {
    give_bytes(&[], at, length)
}

fn give_bytes(bytes: &[u8], at: u64, length: u64) -> core::result::Result<(), Error> {
    let room = user::read_u32(length)? as i32;
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
    user::write_u32(length, bytes.len() as u32)?;
    user::write(at, &bytes[..bytes.len().min(room)])
}

/// `getsockname`.
pub fn getsockname(call: &mut Call<'_>) -> Result {
    let [_, at, length, ..] = *call.args;
    with_socket(call, |_, file| {
        give(&file.socket().name(), at, length)?;
        Ok(0)
    })
}

/// `getpeername`.
pub fn getpeername(call: &mut Call<'_>) -> Result {
    let [_, at, length, ..] = *call.args;
    with_socket(call, |_, file| {
        give(&*file.socket().peer_name()?, at, length)?;
        Ok(0)
    })
}
