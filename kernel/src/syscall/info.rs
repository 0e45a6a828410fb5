//! What programs ask about the system.

use core::sync::atomic::Ordering;

use super::{Call, Error, Result, user};
use crate::abi::errno::Errno;
use crate::file::proc::RELEASE;
use crate::file::{Segment, Sink, random};
use crate::mm::addr::{PAGE_SIZE, VirtAddr};
use crate::mm::frame;
use crate::process;

/// What `uname` says, in its order. The release is that of the Linux whose interface this is.
const NAMES: [&str; 6] = [
    "Linux",
    "faultline",
    RELEASE,
    "#1 SMP PREEMPT_DYNAMIC",
    "x86_64",
    "(none)",
];
/// Bytes of each.
const NAME_LEN: usize = 65;

/// `uname`.
pub fn uname(call: &mut Call<'_>) -> Result {
    let mut bytes = [0; NAMES.len() * NAME_LEN];
    for (field, name) in bytes.chunks_exact_mut(NAME_LEN).zip(NAMES) {
        field[..name.len()].copy_from_slice(name.as_bytes());
    }
    user::write(call.args[0], &bytes)?;
    Ok(0)
}

/// `sysinfo`.
pub fn sysinfo(call: &mut Call<'_>) -> Result {
    let frames = frame::allocator().stats();
    let mut bytes = [0; 112];
    let mut put = |at: usize, word: u64| bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
    put(0, crate::task::now().as_secs());
    put(32, frames.managed * PAGE_SIZE);
    put(40, frames.free * PAGE_SIZE);
    let threads = u16::try_from(process::living_threads()).unwrap_or(u16::MAX);
    bytes[80..82].copy_from_slice(&threads.to_le_bytes());
    // The unit of the sizes: bytes.
    bytes[104..108].copy_from_slice(&1u32.to_le_bytes());
    user::write(call.args[0], &bytes)?;
    Ok(0)
}

/// `getrandom`: where, how many, flags. There is always enough ([`random`] says of what).
pub fn getrandom(call: &mut Call<'_>) -> Result {
    const NONBLOCK: u32 = 1;
    const RANDOM: u32 = 2;
    const INSECURE: u32 = 4;
    /// Bytes that are made at a time.
    const PIECE: usize = 256;
    let [at, len, flags, ..] = *call.args;
    let flags = flags as u32;
    if flags & !(NONBLOCK | RANDOM | INSECURE) != 0 || flags & (RANDOM | INSECURE) == RANDOM | INSECURE {
        return Err(Errno::EINVAL.into());
    }
    let segment = [Segment {
        addr: VirtAddr::new(at),
        len: len.min(i32::MAX as u64) as usize,
    }];
    let mut sink = Sink::task(&segment);
    let mut ended = Ok(());
    while sink.left() > 0 && ended.is_ok() {
        let mut piece = [0; PIECE];
        random::fill(&mut piece);
        ended = sink.put(&piece).map_err(Error::from);
        if call.thread.signal_is_pending() {
            break;
        }
    }
    Ok(sink.outcome(ended)? as u64)
}

/// `membarrier`: with one CPU there is nothing to order, but programs have to say beforehand that they will ask.
pub fn membarrier(call: &mut Call<'_>) -> Result {
    const QUERY: u32 = 0;
    const GLOBAL: u32 = 1;
    const GLOBAL_EXPEDITED: u32 = 1 << 1;
    const REGISTER_GLOBAL_EXPEDITED: u32 = 1 << 2;
    const PRIVATE: u32 = 1 << 3;
    const REGISTER_PRIVATE: u32 = 1 << 4;
    const PRIVATE_SYNC_CORE: u32 = 1 << 5;
    const REGISTER_PRIVATE_SYNC_CORE: u32 = 1 << 6;
    const PRIVATE_RSEQ: u32 = 1 << 7;
    const REGISTER_PRIVATE_RSEQ: u32 = 1 << 8;
    const GET_REGISTRATIONS: u32 = 1 << 9;
    const REGISTERING: u32 =
        REGISTER_GLOBAL_EXPEDITED | REGISTER_PRIVATE | REGISTER_PRIVATE_SYNC_CORE | REGISTER_PRIVATE_RSEQ;
    const KNOWN: u32 = 0x3ff;
    /// `MEMBARRIER_CMD_FLAG_CPU`, of one command.
    const OF_CPU: u32 = 1;
    let [command, flags, ..] = *call.args;
    let (command, flags) = (command as u32, flags as u32);
    if flags != 0 && (command != PRIVATE_RSEQ || flags != OF_CPU) {
        return Err(Errno::EINVAL.into());
    }
    let registered = &call.thread.process().barriers;
    match command {
        QUERY => Ok(KNOWN.into()),
        GLOBAL | GLOBAL_EXPEDITED => Ok(0),
        GET_REGISTRATIONS => Ok(registered.load(Ordering::Relaxed).into()),
        PRIVATE | PRIVATE_SYNC_CORE | PRIVATE_RSEQ => {
            // The command that registers is the next bit.
            match registered.load(Ordering::Relaxed) & command << 1 {
                0 => Err(Errno::EPERM.into()),
                _ => Ok(0),
            }
        }
        command if command & REGISTERING != 0 && command.is_power_of_two() => {
            registered.fetch_or(command, Ordering::Relaxed);
            Ok(0)
        }
        _ => Err(Errno::EINVAL.into()),
    }
}
