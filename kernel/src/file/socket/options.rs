//! What `setsockopt` sets.

use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;

use super::{ROOM, Socket};

/// Most room that can be asked for (Linux: `net.core.wmem_max`, `net.core.rmem_max`).
const MOST: usize = 4 << 20;

/// No limit.
const FOREVER: u64 = u64::MAX;
/// Least room for what is sent, and for what is received (Linux: `SOCK_MIN_SNDBUF`, `SOCK_MIN_RCVBUF`).
const LEAST: [usize; 2] = [4608, 2304];

/// Something that is on or off. All but the last mean nothing here, and are remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Switch {
    /// `SO_REUSEADDR`.
    ReuseAddress,
    /// `SO_BROADCAST`.
    Broadcast,
    /// `SO_KEEPALIVE`.
    KeepAlive,
    /// `SO_PASSCRED`: messages are told who sends them.
    PassCredentials,
}

/// What waits no longer than it was told to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timeout {
    /// Receiving, accepting.
    Receive,
    /// Sending, connecting.
    Send,
}

/// The options of a socket.
pub(super) struct Options {
    switches: AtomicU32,
    /// Of what it sends, and of what it receives; the latter means nothing.
    rooms: [AtomicUsize; 2],
    /// In nanoseconds.
    timeouts: [AtomicU64; 2],
}

impl Default for Options {
    fn default() -> Self {
        Self {
            switches: AtomicU32::new(0),
            rooms: [const { AtomicUsize::new(ROOM) }; 2],
            timeouts: [const { AtomicU64::new(FOREVER) }; 2],
        }
    }
}

impl Options {
    /// How much of what it sends may be unread.
    pub fn room(&self) -> usize {
        self.rooms[0].load(Ordering::Relaxed)
    }
}

fn bit(switch: Switch) -> u32 {
    1 << switch as u32
}

impl Socket {
    /// Whether something is on.
    pub fn is_on(&self, switch: Switch) -> bool {
        self.options.switches.load(Ordering::Relaxed) & bit(switch) != 0
    }

    /// Turns something on or off.
    pub fn switch(&self, switch: Switch, on: bool) {
        if on {
            self.options.switches.fetch_or(bit(switch), Ordering::Relaxed);
        } else {
            self.options.switches.fetch_and(!bit(switch), Ordering::Relaxed);
        }
    }

    /// Room for what it sends, or for what it receives.
    pub fn room(&self, receives: bool) -> usize {
        self.options.rooms[usize::from(receives)].load(Ordering::Relaxed)
    }

    /// Sets it to twice what was asked for, within limits (as on Linux).
    pub fn set_room(&self, receives: bool, bytes: u32) {
        let which = usize::from(receives);
        let room = (bytes as usize).min(MOST) * 2;
        self.options.rooms[which].store(room.max(LEAST[which]), Ordering::Relaxed);
    }

    /// How long its calls wait; `None` for ever.
    pub fn timeout(&self, which: Timeout) -> Option<Duration> {
        let nanoseconds = self.options.timeouts[which as usize].load(Ordering::Relaxed);
        (nanoseconds != FOREVER).then(|| Duration::from_nanos(nanoseconds))
    }

    /// Sets that.
    pub fn set_timeout(&self, which: Timeout, timeout: Option<Duration>) {
        let nanoseconds = timeout.and_then(|timeout| u64::try_from(timeout.as_nanos()).ok());
        let timeouts = &self.options.timeouts[which as usize];
        timeouts.store(nanoseconds.unwrap_or(FOREVER), Ordering::Relaxed);
    }

    /// The options of the socket that listens, for one that it accepts.
    pub(super) fn inherit(&self, listener: &Self) {
        self.switch(Switch::PassCredentials, listener.is_on(Switch::PassCredentials));
    }
}
