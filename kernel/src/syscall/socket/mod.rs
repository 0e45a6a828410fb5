//! Sockets between programs of this machine, and messages with open files. There is no network.
//!
//! | file | what |
//! | --- | --- |
//! | `address` | addresses as programs give and take them |
//! | `message` | sending and receiving |
//! | `options` | getsockopt and setsockopt |

mod address;
mod message;
mod options;

pub use address::{getpeername, getsockname};
pub use message::{recvfrom, recvmsg, sendmsg, sendto};
pub use options::{getsockopt, setsockopt};

use super::file::open::{install, install_pair};
use super::{Call, Error, Result};
use crate::abi::errno::Errno;
use crate::file::socket::{Kind, SocketFile};
use crate::file::{OpenFile, OpenFlags};

/// `AF_UNIX`.
const UNIX: u64 = 1;
/// Address families that Linux has.
const FAMILIES: u64 = 46;
/// `SOL_SOCKET`.
const SOL_SOCKET: u32 = 1;

/// What may be said when a descriptor is made.
const AT_OPEN: OpenFlags = OpenFlags::CLOEXEC.union(OpenFlags::NONBLOCK);

/// The kind and the flags in the second argument of `socket` and `socketpair`.
fn kind_of(word: u64) -> core::result::Result<(Kind, OpenFlags), Errno> {
    let flags = OpenFlags::from_bits_retain(word as u32 & !0xf);
    if !AT_OPEN.contains(flags) {
        return Err(Errno::EINVAL);
    }
    let kind = match word & 0xf {
        1 => Kind::Stream,
        // Raw ones are datagrams (as on Linux).
        2 | 3 => Kind::Datagram,
        5 => Kind::SeqPacket,
        0 | 4 | 6..=10 => return Err(Errno::ESOCKTNOSUPPORT),
        _ => return Err(Errno::EINVAL),
    };
    Ok((kind, flags))
}

/// Whether there are such sockets.
fn checked(family: u64, kind: u64, protocol: u64) -> core::result::Result<(Kind, OpenFlags), Errno> {
    if family as u32 as u64 >= FAMILIES {
        return Err(Errno::EAFNOSUPPORT);
    }
    let found = kind_of(kind);
    if found == Err(Errno::EINVAL) {
        return Err(Errno::EINVAL);
    }
    if family != UNIX {
        return Err(Errno::EAFNOSUPPORT);
    }
    let found = found?;
    if !matches!(protocol as u32 as u64, 0 | UNIX) {
        return Err(Errno::EPROTONOSUPPORT);
    }
    Ok(found)
}

/// `socketpair`.
pub fn socketpair(call: &mut Call<'_>) -> Result {
    let [family, kind, protocol, at, ..] = *call.args;
    let (kind, flags) = checked(family, kind, protocol)?;
    let [first, second] = SocketFile::pair(kind, flags);
    install_pair(call, first, second, at, flags)
}

/// `socket`.
pub fn socket(call: &mut Call<'_>) -> Result {
    let [family, kind, protocol, ..] = *call.args;
    let (kind, flags) = checked(family, kind, protocol)?;
    install(call, SocketFile::open(kind, flags), flags)
}

/// Runs `f` with the socket of argument 0.
fn with_socket<R>(
    call: &Call<'_>,
    f: impl FnOnce(&OpenFile, &SocketFile) -> core::result::Result<R, Error>,
) -> core::result::Result<R, Error> {
    let open = call.file(0)?;
    let socket = open.as_file::<SocketFile>().ok_or(Errno::ENOTSOCK)?;
    f(&open, socket)
}

/// `bind`.
pub fn bind(call: &mut Call<'_>) -> Result {
    let [_, at, len, ..] = *call.args;
    with_socket(call, |_, file| {
        let name = address::to_bind(&address::read(at, len)?)?;
        file.socket().bind(&name, &call.place())?;
        Ok(0)
    })
}

/// `listen`.
pub fn listen(call: &mut Call<'_>) -> Result {
    with_socket(call, |_, file| {
        file.socket().listen(call.args[1] as u32)?;
        Ok(0)
    })
}

/// `connect`.
pub fn connect(call: &mut Call<'_>) -> Result {
    let [_, at, len, ..] = *call.args;
    with_socket(call, |open, file| {
        let bytes = address::read(at, len)?;
        let name = address::to_connect(&bytes, file.socket().kind())?;
        let nonblocking = open.status().contains(OpenFlags::NONBLOCK);
        file.socket().connect(name.as_ref(), &call.place(), nonblocking)?;
        Ok(0)
    })
}

/// `accept`.
pub fn accept(call: &mut Call<'_>) -> Result {
    accept_with(call, 0)
}

/// `accept4`.
pub fn accept4(call: &mut Call<'_>) -> Result {
    accept_with(call, call.args[3])
}

fn accept_with(call: &Call<'_>, flags: u64) -> Result {
    let [_, at, length, ..] = *call.args;
    let flags = OpenFlags::from_bits_retain(flags as u32);
    if !AT_OPEN.contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    with_socket(call, |open, file| {
        // A connection is not taken away from others for nothing.
        if !call.files.has_room() {
            return Err(Errno::EMFILE.into());
        }
        let nonblocking = open.status().contains(OpenFlags::NONBLOCK);
        let accepted = file.accept(nonblocking, flags)?;
        if at != 0
            && let Some(socket) = accepted.as_file::<SocketFile>()
        {
            address::give(&*socket.socket().peer_name()?, at, length)?;
        }
        install(call, accepted, flags)
    })
}

/// `shutdown`.
pub fn shutdown(call: &mut Call<'_>) -> Result {
    let how = call.args[1] as u32;
    with_socket(call, |_, file| {
        if how > 2 {
            return Err(Errno::EINVAL.into());
        }
        file.socket().shut_down(how != 1, how != 0);
        Ok(0)
    })
}
