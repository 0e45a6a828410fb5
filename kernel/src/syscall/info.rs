//! What programs ask about the system.

use super::{Call, Result, user};
use crate::abi::errno::Errno;
use crate::file::proc::RELEASE;
use crate::file::random;
use crate::mm::addr::PAGE_SIZE;
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
    let [at, len, flags, ..] = call.args;
    let flags = flags as u32;
    if flags & !(NONBLOCK | RANDOM | INSECURE) != 0 || flags & (RANDOM | INSECURE) == RANDOM | INSECURE {
        return Err(Errno::EINVAL.into());
    }
    let len = len.min(i32::MAX as u64);
    let mut done = 0;
    while done < len {
        let mut piece = [0; PIECE];
        let count = (len - done).min(PIECE as u64) as usize;
        random::fill(&mut piece[..count]);
        match user::write(at + done, &piece[..count]) {
            Ok(()) => done += count as u64,
            Err(error) if done == 0 => return Err(error),
            Err(_) => break,
        }
        if call.thread.signal_is_pending() {
            break;
        }
    }
    Ok(done)
}

/// `membarrier`-like calls have nothing to order on one CPU, but this one has a mask to tell.
pub fn membarrier(call: &mut Call<'_>) -> Result {
    const QUERY: u32 = 0;
    /// Commands that are known: global, global expedited and its registration, private expedited and its registration, the
    /// same for code.
    const KNOWN: u64 = 0x7f;
    let [command, flags, ..] = call.args;
    match command as u32 {
        _ if flags != 0 => Err(Errno::EINVAL.into()),
        QUERY => Ok(KNOWN),
        command if command.is_power_of_two() && u64::from(command) & KNOWN != 0 => Ok(0),
        _ => Err(Errno::EINVAL.into()),
    }
}
