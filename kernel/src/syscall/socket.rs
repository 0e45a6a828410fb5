//! Sockets: pairs of them, and messages with open files. There is no network.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::file::open::install_pair;
use super::file::transfer::{segment, segments};
use super::{Call, Error, Result, user};
use crate::abi::errno::Errno;
use crate::file::socket::{Kind, Receive, SocketFile};
use crate::file::{OpenFile, OpenFlags, Segment, Sink, Source};

/// `AF_UNIX`.
const UNIX: u64 = 1;
/// Address families that Linux has.
const FAMILIES: u64 = 46;
/// `SOL_SOCKET`.
const SOL_SOCKET: u32 = 1;
/// `SCM_RIGHTS`.
const RIGHTS: u32 = 1;
/// Most files of one message (`SCM_MAX_FD`).
const MAX_FILES: usize = 253;
/// Most bytes beside a message (`net.core.optmem_max`).
const MAX_CONTROL: u64 = 131_072;
/// Bytes of a `msghdr`.
const HEADER: usize = 56;
/// Bytes of a `cmsghdr`.
const CONTROL: usize = 16;

/// Flags of messages.
mod flag {
    pub const PEEK: u64 = 2;
    pub const CTRUNC: u32 = 8;
    pub const TRUNC: u32 = 0x20;
    pub const DONTWAIT: u64 = 0x40;
    pub const WAITALL: u64 = 0x100;
    pub const NOSIGNAL: u64 = 0x4000;
    pub const CLOEXEC: u64 = 0x4000_0000;
}

/// The kind and the flags in the second argument of `socket` and `socketpair`.
fn kind_of(word: u64) -> core::result::Result<(Kind, OpenFlags), Errno> {
    let known = OpenFlags::CLOEXEC | OpenFlags::NONBLOCK;
    let flags = OpenFlags::from_bits_retain(word as u32 & !0xf);
    if !known.contains(flags) {
        return Err(Errno::EINVAL);
    }
    let kind = match word & 0xf {
        1 => Kind::Stream,
        // Raw ones are datagrams (as on Linux).
        2 | 3 => Kind::Datagram,
        5 => Kind::SeqPacket,
        0 | 4 | 6 | 10 => return Err(Errno::ESOCKTNOSUPPORT),
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

/// `socket`: there is nobody to connect to.
pub fn socket(call: &mut Call<'_>) -> Result {
    let [family, kind, protocol, ..] = *call.args;
    checked(family, kind, protocol)?;
    Err(Errno::EACCES.into())
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

fn waits_not(open: &OpenFile, flags: u64) -> bool {
    flags & flag::DONTWAIT != 0 || open.status().contains(OpenFlags::NONBLOCK)
}

fn send(call: &Call<'_>, parts: &[Segment], files: Vec<Arc<OpenFile>>, flags: u64) -> Result {
    with_socket(call, |open, socket| {
        let quiet = flags & flag::NOSIGNAL != 0;
        let sent = socket.send(&mut Source::task(parts), files, waits_not(open, flags), quiet)?;
        Ok(sent as u64)
    })
}

/// `sendto`. The other end is known: an address is one too many.
pub fn sendto(call: &mut Call<'_>) -> Result {
    let [_, at, len, flags, address, _] = *call.args;
    with_socket(call, |_, _| Ok(()))?;
    let part = segment(at, len)?;
    if address != 0 {
        return Err(Errno::EISCONN.into());
    }
    send(call, &[part], Vec::new(), flags)
}

/// `recvfrom`.
pub fn recvfrom(call: &mut Call<'_>) -> Result {
    let [_, at, len, flags, _, length] = *call.args;
    with_socket(call, |open, socket| {
        let parts = [segment(at, len)?];
        let mut to = Sink::task(&parts);
        let received = socket.receive(&mut to, how(open, flags))?;
        if length != 0 {
            user::write(length, &0_u32.to_ne_bytes())?;
        }
        let whole = received.cut.filter(|_| flags & u64::from(flag::TRUNC) != 0);
        Ok(whole.unwrap_or(to.done()) as u64)
    })
}

fn how(open: &OpenFile, flags: u64) -> Receive {
    Receive {
        nonblocking: waits_not(open, flags),
        peek: flags & flag::PEEK != 0,
        all: flags & flag::WAITALL != 0,
    }
}

/// What a `msghdr` says.
struct Header {
    parts: Vec<Segment>,
    control: u64,
    control_len: u64,
}

impl Header {
    fn read(at: u64) -> core::result::Result<Self, Error> {
        let bytes = user::read_vec(at, HEADER)?;
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_ne_bytes(word)
        };
        let parts = segments(word(16), word(24)).map_err(|error| match error {
            // Too many parts.
            Error::Errno(Errno::EINVAL) if word(24) > 1024 => Errno::EMSGSIZE.into(),
            error => error,
        })?;
        Ok(Self {
            parts,
            control: word(32),
            control_len: word(40),
        })
    }

    /// The open files that a message is to carry.
    fn files(&self, call: &Call<'_>) -> core::result::Result<Vec<Arc<OpenFile>>, Error> {
        if self.control_len > MAX_CONTROL {
            return Err(Errno::ENOBUFS.into());
        }
        let bytes = match self.control_len {
            0 => Vec::new(),
            len => user::read_vec(self.control, len as usize)?,
        };
        let mut files = Vec::new();
        let mut at = 0;
        while at + CONTROL <= bytes.len() {
            let number = |at: usize| {
                let mut word = [0; 4];
                word.copy_from_slice(&bytes[at..at + 4]);
                u32::from_ne_bytes(word)
            };
            let len = u64::from(number(at)) | u64::from(number(at + 4)) << 32;
            let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
            if len < CONTROL || len > bytes.len() - at {
                return Err(Errno::EINVAL.into());
            }
            if number(at + 8) == SOL_SOCKET {
                if number(at + 12) != RIGHTS {
                    return Err(Errno::EINVAL.into());
                }
                for fd in (at + CONTROL..at + len)
                    .step_by(4)
                    .filter(|fd| fd + 4 <= at + len)
                {
                    files.push(call.files.get_any(u64::from(number(fd)))?);
                }
                if files.len() > MAX_FILES {
                    return Err(Errno::EINVAL.into());
                }
            }
            at = (at + len).next_multiple_of(8);
        }
        Ok(files)
    }

    /// Gives the caller descriptors for `files`, as many as have room; how many bytes say so, and whether that was all.
    fn give(
        &self,
        call: &Call<'_>,
        files: Vec<Arc<OpenFile>>,
        cloexec: bool,
    ) -> core::result::Result<(u64, bool), Error> {
        let room = (self.control_len as usize).saturating_sub(CONTROL) / 4;
        let wanted = files.len();
        if wanted == 0 {
            return Ok((0, true));
        }
        let mut numbers = Vec::new();
        for file in files.into_iter().take(room) {
            // Without a number left, the rest is not given.
            let Ok(fd) = call.files.install(file, cloexec) else {
                break;
            };
            numbers.extend_from_slice(&(fd as u32).to_ne_bytes());
        }
        let all = numbers.len() / 4 == wanted;
        if numbers.is_empty() {
            return Ok((0, all));
        }
        let len = CONTROL + numbers.len();
        let mut bytes = Vec::from((len as u64).to_ne_bytes());
        bytes.extend_from_slice(&SOL_SOCKET.to_ne_bytes());
        bytes.extend_from_slice(&RIGHTS.to_ne_bytes());
        bytes.extend_from_slice(&numbers);
        user::write(self.control, &bytes)?;
        Ok(((len as u64).next_multiple_of(8).min(self.control_len), all))
    }
}

/// `sendmsg`.
pub fn sendmsg(call: &mut Call<'_>) -> Result {
    let [_, at, flags, ..] = *call.args;
    with_socket(call, |_, _| Ok(()))?;
    let header = Header::read(at)?;
    let files = header.files(call)?;
    send(call, &header.parts, files, flags)
}

/// `recvmsg`.
pub fn recvmsg(call: &mut Call<'_>) -> Result {
    let [_, at, flags, ..] = *call.args;
    with_socket(call, |open, socket| {
        let header = Header::read(at)?;
        let mut to = Sink::task(&header.parts);
        let received = socket.receive(&mut to, how(open, flags))?;
        let (control, all) = header.give(call, received.files, flags & flag::CLOEXEC != 0)?;
        let mut out = 0;
        out |= if all { 0 } else { flag::CTRUNC };
        out |= if received.cut.is_some() { flag::TRUNC } else { 0 };
        if flags & flag::CLOEXEC != 0 {
            out |= flag::CLOEXEC as u32;
        }
        user::write(at.wrapping_add(8), &0_u32.to_ne_bytes())?;
        user::write(at.wrapping_add(40), &control.to_ne_bytes())?;
        user::write(at.wrapping_add(48), &out.to_ne_bytes())?;
        let whole = received.cut.filter(|_| flags & u64::from(flag::TRUNC) != 0);
        Ok(whole.unwrap_or(to.done()) as u64)
    })
}

/// `getsockname`: the ends of a pair have no names.
pub fn getsockname(call: &mut Call<'_>) -> Result {
    without_name(call)
}

/// `getpeername`.
pub fn getpeername(call: &mut Call<'_>) -> Result {
    without_name(call)
}

/// Gives the address of a socket that is bound to none: the family and nothing else.
fn without_name(call: &Call<'_>) -> Result {
    let [_, at, length, ..] = *call.args;
    with_socket(call, |_, _| {
        let address = (UNIX as u16).to_ne_bytes();
        let room = user::read_u32(length)? as i32;
        if room < 0 {
            return Err(Errno::EINVAL.into());
        }
        user::write(length, &(address.len() as u32).to_ne_bytes())?;
        user::write(at, &address[..address.len().min(room as usize)])?;
        Ok(0)
    })
}

/// `shutdown`.
pub fn shutdown(call: &mut Call<'_>) -> Result {
    let how = call.args[1] as u32;
    with_socket(call, |_, socket| {
        if how > 2 {
            return Err(Errno::EINVAL.into());
        }
        socket.shut_down(how != 1, how != 0);
        Ok(0)
    })
}

/// `getsockopt`: what can be said of a pair.
pub fn getsockopt(call: &mut Call<'_>) -> Result {
    const TYPE: u64 = 3;
    const ERROR: u64 = 4;
    const SNDBUF: u64 = 7;
    const RCVBUF: u64 = 8;
    const PROTOCOL: u64 = 38;
    const DOMAIN: u64 = 39;
    let [_, level, option, at, length, _] = *call.args;
    with_socket(call, |_, socket| {
        if level as u32 != SOL_SOCKET {
            return Err(Errno::EOPNOTSUPP.into());
        }
        let room = user::read_u32(length)?;
        let value: u32 = match option {
            TYPE => match socket.kind() {
                Kind::Stream => 1,
                Kind::Datagram => 2,
                Kind::SeqPacket => 5,
            },
            ERROR | PROTOCOL => 0,
            SNDBUF | RCVBUF => 212_992,
            DOMAIN => 1,
            _ => return Err(Errno::ENOPROTOOPT.into()),
        };
        let len = room.min(4);
        user::write(at, &value.to_ne_bytes()[..len as usize])?;
        user::write(length, &len.to_ne_bytes())?;
        Ok(0)
    })
}
