//! Sending and receiving: bytes, open files, and who sends them.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{SOL_SOCKET, address, with_socket};
use crate::abi::errno::Errno;
use crate::file::socket::{Address, Identity, Kind, Message, Receive, Received, Socket, Switch};
use crate::file::{OpenFile, OpenFlags, Segment, Sink, Source};
use crate::process::credentials::{Ids, capability};
use crate::process::{self, Pid};
use crate::syscall::file::transfer::{segment, segments};
use crate::syscall::{Call, Error, Result, user};

/// `SCM_RIGHTS`.
const RIGHTS: u32 = 1;
/// `SCM_CREDENTIALS`.
const CREDENTIALS: u32 = 2;
/// Most files of one message (`SCM_MAX_FD`).
const MAX_FILES: usize = 253;
/// Most bytes beside a message (`net.core.optmem_max`).
const MAX_CONTROL: u64 = 131_072;
/// Bytes of a `cmsghdr`.
const CONTROL: usize = 16;
/// Bytes of a `ucred`.
const UCRED: usize = 12;
/// The user and the group of somebody who is not known (`overflowuid`).
const NO_ID: u32 = 65_534;

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

fn waits_not(open: &OpenFile, flags: u64) -> bool {
    flags & flag::DONTWAIT != 0 || open.status().contains(OpenFlags::NONBLOCK)
}

/// What goes beside the bytes of a message.
#[derive(Default)]
struct Beside {
    files: Vec<Arc<OpenFile>>,
    identity: Option<Identity>,
}

/// To whom a message goes, of an address that may be there. Sockets that have connections are told that there was one.
fn receiver(bytes: &[u8], kind: Kind) -> core::result::Result<Option<Address>, Errno> {
    match kind {
        _ if bytes.is_empty() => Ok(None),
        Kind::Datagram => address::named(bytes).map(Some),
        Kind::Stream | Kind::SeqPacket => Ok(Some(Address::Unnamed)),
    }
}

fn send(
    call: &Call<'_>,
    open: &OpenFile,
    socket: &Arc<Socket>,
    parts: &[Segment],
    beside: Beside,
    to: &[u8],
    flags: u64,
) -> Result {
    let to = receiver(to, socket.kind())?;
    let place = to.is_some().then(|| call.place());
    let message = Message {
        files: beside.files,
        identity: beside.identity,
        to: to.zip(place.as_deref()),
        quiet: flags & flag::NOSIGNAL != 0,
    };
    let sent = socket.send(&mut Source::task(parts), message, waits_not(open, flags))?;
    Ok(sent as u64)
}

/// `sendto`.
pub fn sendto(call: &mut Call<'_>) -> Result {
    let [_, at, len, flags, to, to_len] = *call.args;
    with_socket(call, |open, file| {
        let part = segment(at, len)?;
        let to = match to {
            0 => Vec::new(),
            to => address::read(to, to_len)?,
        };
        send(call, open, file.socket(), &[part], Beside::default(), &to, flags)
    })
}

/// `recvfrom`.
pub fn recvfrom(call: &mut Call<'_>) -> Result {
    let [_, at, len, flags, from, length] = *call.args;
    with_socket(call, |open, file| {
        let parts = [segment(at, len)?];
        let mut to = Sink::task(&parts);
        let received = file.socket().receive(&mut to, how(open, flags))?;
        if from != 0 {
            give_sender(&received, from, length)?;
        }
        let whole = received.cut.filter(|_| flags & u64::from(flag::TRUNC) != 0);
        Ok(whole.unwrap_or(to.done()) as u64)
    })
}

/// Gives the caller the name of who has sent a message; one without a name has no address at all.
fn give_sender(received: &Received, at: u64, length: u64) -> core::result::Result<(), Error> {
    match received.from.as_deref() {
        None | Some(Address::Unnamed) => address::give_nothing(at, length),
        Some(name) => address::give(name, at, length),
    }
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
    name: u64,
    name_len: u64,
    parts: Vec<Segment>,
    control: u64,
    control_len: u64,
}

impl Header {
    fn read(at: u64) -> core::result::Result<Self, Error> {
        let [name, name_len, parts, count, control, control_len, _flags] = user::read_words(at)?;
        let name_len = if name == 0 { 0 } else { name_len as i32 };
        let name_len = u64::try_from(name_len).map_err(|_| Errno::EINVAL)?;
        let parts = segments(parts, count).map_err(|error| match error {
            // Too many parts.
            Error::Errno(Errno::EINVAL) if count > 1024 => Errno::EMSGSIZE.into(),
            error => error,
        })?;
        Ok(Self {
            name,
            name_len: name_len.min(address::MAX),
            parts,
            control,
            control_len,
        })
    }

    /// What a message is to carry beside its bytes.
    fn beside(&self, call: &Call<'_>) -> core::result::Result<Beside, Error> {
        if self.control_len > MAX_CONTROL {
            return Err(Errno::ENOBUFS.into());
        }
        let bytes = match self.control_len {
            0 => Vec::new(),
            len => user::read_vec(self.control, len as usize)?,
        };
        let mut beside = Beside::default();
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
            let data = at + CONTROL;
            if number(at + 8) == SOL_SOCKET {
                match number(at + 12) {
                    RIGHTS => {
                        for fd in (data..at + len).step_by(4).filter(|fd| fd + 4 <= at + len) {
                            beside.files.push(call.files.get_any(u64::from(number(fd)))?);
                        }
                    }
                    CREDENTIALS if len == CONTROL + UCRED => {
                        let [pid, uid, gid] = [data, data + 4, data + 8].map(number);
                        beside.identity = Some(permitted(call, Identity { pid, uid, gid })?);
                    }
                    _ => return Err(Errno::EINVAL.into()),
                }
                if beside.files.len() > MAX_FILES {
                    return Err(Errno::EINVAL.into());
                }
            }
            at = (at + len).next_multiple_of(8);
        }
        Ok(beside)
    }
}

/// Whether the caller may say that it is this one.
///
/// # Errors
/// EPERM; ESRCH: there is no such process.
fn permitted(call: &Call<'_>, who: Identity) -> core::result::Result<Identity, Errno> {
    let credentials = call.thread.credentials();
    let may = |ids: Ids, id: u32, capability: u32| {
        [ids.real, ids.effective, ids.saved].contains(&id) || credentials.can(capability)
    };
    let own = call.thread.process().pid().as_u32();
    if (who.pid != own && !credentials.can(capability::SYS_ADMIN))
        || !may(credentials.user, who.uid, capability::SETUID)
        || !may(credentials.group, who.gid, capability::SETGID)
    {
        return Err(Errno::EPERM);
    }
    if who.pid != own && process::find(Pid::new(who.pid)).is_none() {
        return Err(Errno::ESRCH);
    }
    Ok(who)
}

/// The room of a caller for what came beside a message.
struct Control {
    at: u64,
    room: u64,
    used: u64,
    /// Not all of it had room.
    cut: bool,
}

impl Control {
    fn new(header: &Header) -> Self {
        Self {
            at: header.control,
            room: header.control_len,
            used: 0,
            cut: false,
        }
    }

    /// Bytes of data that have room behind one more header.
    fn left(&self) -> usize {
        (self.room - self.used).saturating_sub(CONTROL as u64) as usize
    }

    /// Adds a part, or as much of it as has room.
    fn put(&mut self, kind: u32, data: &[u8]) -> core::result::Result<(), Error> {
        if self.room - self.used < CONTROL as u64 {
            self.cut = true;
            return Ok(());
        }
        let data = &data[..data.len().min(self.left())];
        let len = (CONTROL + data.len()) as u64;
        let mut bytes = Vec::from(len.to_ne_bytes());
        bytes.extend_from_slice(&SOL_SOCKET.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(data);
        user::write(self.at.wrapping_add(self.used), &bytes)?;
        self.used += len.next_multiple_of(8).min(self.room - self.used);
        Ok(())
    }

    fn put_identity(&mut self, who: Option<Identity>) -> core::result::Result<(), Error> {
        let who = who.unwrap_or(Identity {
            pid: 0,
            uid: NO_ID,
            gid: NO_ID,
        });
        self.cut |= self.left() < UCRED;
        let words = [who.pid, who.uid, who.gid].map(u32::to_ne_bytes);
        self.put(CREDENTIALS, words.as_flattened())
    }

    /// Gives the caller descriptors for `files`, as many as have room.
    fn put_files(
        &mut self,
        call: &Call<'_>,
        files: Vec<Arc<OpenFile>>,
        cloexec: bool,
    ) -> core::result::Result<(), Error> {
        let wanted = files.len();
        let mut numbers = Vec::new();
        for file in files.into_iter().take(self.left() / 4) {
            // Without a number left, the rest is not given.
            let Ok(fd) = call.files.install(file, cloexec) else {
                break;
            };
            numbers.extend_from_slice(&(fd as u32).to_ne_bytes());
        }
        self.cut |= numbers.len() / 4 < wanted;
        if numbers.is_empty() {
            return Ok(());
        }
        self.put(RIGHTS, &numbers)
    }
}

/// `sendmsg`.
pub fn sendmsg(call: &mut Call<'_>) -> Result {
    let [_, at, flags, ..] = *call.args;
    with_socket(call, |open, file| {
        let header = Header::read(at)?;
        let to = address::read(header.name, header.name_len)?;
        let beside = header.beside(call)?;
        send(call, open, file.socket(), &header.parts, beside, &to, flags)
    })
}

/// `recvmsg`.
pub fn recvmsg(call: &mut Call<'_>) -> Result {
    let [_, at, flags, ..] = *call.args;
    with_socket(call, |open, file| {
        let socket: &Socket = file.socket();
        let header = Header::read(at)?;
        let mut to = Sink::task(&header.parts);
        let mut received = socket.receive(&mut to, how(open, flags))?;
        let mut control = Control::new(&header);
        if socket.is_on(Switch::PassCredentials) {
            control.put_identity(received.identity)?;
        }
        let files = core::mem::take(&mut received.files);
        control.put_files(call, files, flags & flag::CLOEXEC != 0)?;
        let mut out = 0;
        out |= if control.cut { flag::CTRUNC } else { 0 };
        out |= if received.cut.is_some() { flag::TRUNC } else { 0 };
        if flags & flag::CLOEXEC != 0 {
            out |= flag::CLOEXEC as u32;
        }
        if header.name != 0 {
            give_sender(&received, header.name, at.wrapping_add(8))?;
        }
        user::write_u64(at.wrapping_add(40), control.used)?;
        user::write_u32(at.wrapping_add(48), out)?;
        let whole = received.cut.filter(|_| flags & u64::from(flag::TRUNC) != 0);
        Ok(whole.unwrap_or(to.done()) as u64)
    })
}
