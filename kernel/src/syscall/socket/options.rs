//! `getsockopt` and `setsockopt`.

use alloc::vec::Vec;
use core::time::Duration;

use super::{SOL_SOCKET, UNIX, with_socket};
use crate::abi::errno::Errno;
use crate::file::socket::{Kind, Socket, Switch, Timeout};
use crate::syscall::{Call, Result, user};

/// Options of all sockets (`asm-generic/socket.h`).
mod option {
    pub const REUSEADDR: u32 = 2;
    pub const TYPE: u32 = 3;
    pub const ERROR: u32 = 4;
    pub const BROADCAST: u32 = 6;
    pub const SNDBUF: u32 = 7;
    pub const RCVBUF: u32 = 8;
    pub const KEEPALIVE: u32 = 9;
    pub const PASSCRED: u32 = 16;
    pub const PEERCRED: u32 = 17;
    pub const RCVTIMEO: u32 = 20;
    pub const SNDTIMEO: u32 = 21;
    pub const ACCEPTCONN: u32 = 30;
    pub const PROTOCOL: u32 = 38;
    pub const DOMAIN: u32 = 39;
}

/// Bytes of a `timeval`.
const TIME: usize = 16;

fn switch_of(option: u32) -> Option<Switch> {
    Some(match option {
        option::REUSEADDR => Switch::ReuseAddress,
        option::BROADCAST => Switch::Broadcast,
        option::KEEPALIVE => Switch::KeepAlive,
        option::PASSCRED => Switch::PassCredentials,
        _ => return None,
    })
}

fn timeout_of(option: u32) -> Option<Timeout> {
    match option {
        option::RCVTIMEO => Some(Timeout::Receive),
        option::SNDTIMEO => Some(Timeout::Send),
        _ => None,
    }
}

/// `getsockopt`.
pub fn getsockopt(call: &mut Call<'_>) -> Result {
    let [_, level, option, at, length, _] = *call.args;
    with_socket(call, |_, file| {
        if level as u32 != SOL_SOCKET {
            return Err(Errno::EOPNOTSUPP.into());
        }
        let room = user::read_u32(length)? as i32;
        let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
        let value = value_of(file.socket(), option as u32).ok_or(Errno::ENOPROTOOPT)?;
        let len = room.min(value.len());
        user::write(at, &value[..len])?;
        user::write_u32(length, len as u32)?;
        Ok(0)
    })
}

fn value_of(socket: &Socket, option: u32) -> Option<Vec<u8>> {
    if let Some(timeout) = timeout_of(option) {
        let time = socket.timeout(timeout).unwrap_or_default();
        let parts = [time.as_secs(), u64::from(time.subsec_micros())];
        return Some(parts.map(u64::to_ne_bytes).concat());
    }
    if option == option::PEERCRED {
        let who = socket.identity();
        return Some([who.pid, who.uid, who.gid].map(u32::to_ne_bytes).concat());
    }
    let number = match option {
        option::TYPE => match socket.kind() {
            Kind::Stream => 1,
            Kind::Datagram => 2,
            Kind::SeqPacket => 5,
        },
        option::ERROR => socket.take_error().map_or(0, |errno| errno.number() as u32),
        option::PROTOCOL => 0,
        option::DOMAIN => UNIX as u32,
        option::SNDBUF => socket.room(false) as u32,
        option::RCVBUF => socket.room(true) as u32,
        option::ACCEPTCONN => u32::from(socket.listens()),
        _ => u32::from(socket.is_on(switch_of(option)?)),
    };
    Some(Vec::from(number.to_ne_bytes()))
}

/// `setsockopt`.
pub fn setsockopt(call: &mut Call<'_>) -> Result {
    let [_, level, option, at, len, _] = *call.args;
    let option = option as u32;
    with_socket(call, |_, file| {
        let socket = file.socket();
        let len = usize::try_from(len as i32).map_err(|_| Errno::EINVAL)?;
        if level as u32 != SOL_SOCKET {
            return Err(Errno::EOPNOTSUPP.into());
        }
        if len < 4 {
            return Err(Errno::EINVAL.into());
        }
        let number = user::read_u32(at)?;
        if let Some(timeout) = timeout_of(option) {
            if len < TIME {
                return Err(Errno::EINVAL.into());
            }
            socket.set_timeout(timeout, time_at(at)?);
        } else if let Some(switch) = switch_of(option) {
            socket.switch(switch, number != 0);
        } else if matches!(option, option::SNDBUF | option::RCVBUF) {
            socket.set_room(option == option::RCVBUF, number);
        } else {
            return Err(Errno::ENOPROTOOPT.into());
        }
        Ok(0)
    })
}

/// How long to wait: zero means for ever, and a time that is past not at all.
fn time_at(at: u64) -> core::result::Result<Option<Duration>, crate::syscall::Error> {
    let [seconds, micros] = user::read_words::<2>(at)?;
    if micros >= 1_000_000 {
        return Err(Errno::EDOM.into());
    }
    if (seconds as i64) < 0 {
        return Ok(Some(Duration::ZERO));
    }
    let time = Duration::new(seconds, micros as u32 * 1000);
    Ok((!time.is_zero()).then_some(time))
}
