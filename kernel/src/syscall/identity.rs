//! Users, groups and capabilities.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Call, Result, user};
use crate::abi::errno::Errno;
use crate::process::credentials::{Ids, capability};
use crate::process::{Pid, table};

/// Most groups of a thread.
const MOST_GROUPS: u64 = 65536;

/// `getuid`.
pub fn getuid(call: &mut Call<'_>) -> Result {
    Ok(call.thread.credentials().user.real.into())
}

/// `geteuid`.
pub fn geteuid(call: &mut Call<'_>) -> Result {
    Ok(call.thread.credentials().user.effective.into())
}

/// `getgid`.
pub fn getgid(call: &mut Call<'_>) -> Result {
    Ok(call.thread.credentials().group.real.into())
}

/// `getegid`.
pub fn getegid(call: &mut Call<'_>) -> Result {
    Ok(call.thread.credentials().group.effective.into())
}

fn write_three(call: &Call<'_>, ids: Ids) -> Result {
    for (at, id) in call.args.iter().zip([ids.real, ids.effective, ids.saved]) {
        user::write_u32(*at, id)?;
    }
    Ok(0)
}

/// `getresuid`.
pub fn getresuid(call: &mut Call<'_>) -> Result {
    write_three(call, call.thread.credentials().user)
}

/// `getresgid`.
pub fn getresgid(call: &mut Call<'_>) -> Result {
    write_three(call, call.thread.credentials().group)
}

/// `setuid`.
pub fn setuid(call: &mut Call<'_>) -> Result {
    let id = call.args[0] as u32;
    call.thread.change_credentials(|who| who.set_user(id))?;
    Ok(0)
}

/// `setgid`.
pub fn setgid(call: &mut Call<'_>) -> Result {
    let id = call.args[0] as u32;
    call.thread.change_credentials(|who| who.set_group(id))?;
    Ok(0)
}

/// `setreuid`.
pub fn setreuid(call: &mut Call<'_>) -> Result {
    let [real, effective, ..] = call.args.map(|id| id as u32);
    call.thread
        .change_credentials(|who| who.set_two_users(real, effective))?;
    Ok(0)
}

/// `setregid`.
pub fn setregid(call: &mut Call<'_>) -> Result {
    let [real, effective, ..] = call.args.map(|id| id as u32);
    call.thread
        .change_credentials(|who| who.set_two_groups(real, effective))?;
    Ok(0)
}

/// `setresuid`.
pub fn setresuid(call: &mut Call<'_>) -> Result {
    let [real, effective, saved, ..] = call.args.map(|id| id as u32);
    call.thread
        .change_credentials(|who| who.set_users(real, effective, saved))?;
    Ok(0)
}

/// `setresgid`.
pub fn setresgid(call: &mut Call<'_>) -> Result {
    let [real, effective, saved, ..] = call.args.map(|id| id as u32);
    call.thread
        .change_credentials(|who| who.set_groups_of(real, effective, saved))?;
    Ok(0)
}

/// `setfsuid`: gives what it was, whether or not it is set.
pub fn setfsuid(call: &mut Call<'_>) -> Result {
    let id = call.args[0] as u32;
    let old = call.thread.change_credentials(|who| who.set_user_of_files(id));
    Ok(old.into())
}

/// `setfsgid`.
pub fn setfsgid(call: &mut Call<'_>) -> Result {
    let id = call.args[0] as u32;
    let old = call.thread.change_credentials(|who| who.set_group_of_files(id));
    Ok(old.into())
}

/// `getgroups`: room for so many, where.
pub fn getgroups(call: &mut Call<'_>) -> Result {
    let [room, at, ..] = *call.args;
    let groups = call.thread.credentials().groups;
    let room = room as i32;
    if room < 0 {
        return Err(Errno::EINVAL.into());
    }
    if room > 0 {
        if (room as usize) < groups.len() {
            return Err(Errno::EINVAL.into());
        }
        let bytes: Vec<u8> = groups.iter().flat_map(|group| group.to_le_bytes()).collect();
        user::write(at, &bytes)?;
    }
    Ok(groups.len() as u64)
}

/// `setgroups`: how many, where.
pub fn setgroups(call: &mut Call<'_>) -> Result {
    let [count, at, ..] = *call.args;
    if !call.thread.credentials().can(capability::SETGID) {
        return Err(Errno::EPERM.into());
    }
    let count = u64::from(count as u32);
    if count > MOST_GROUPS {
        return Err(Errno::EINVAL.into());
    }
    let bytes = user::read_vec(at, count as usize * 4)?;
    let groups = bytes
        .chunks_exact(4)
        .map(|group| u32::from_le_bytes(group.try_into().expect("4 bytes")));
    let mut groups: Vec<u32> = groups.collect();
    groups.sort_unstable();
    let groups = Arc::new(groups);
    call.thread.change_credentials(|who| who.groups = groups);
    Ok(0)
}

/// How many words each set of capabilities has in a version of the structures; `None`: no such version.
fn words(version: u32) -> Option<u64> {
    match version {
        0x1998_0330 => Some(1),
        0x2007_1026 | 0x2008_0522 => Some(2),
        _ => None,
    }
}

/// The version that is told to those who ask for an unknown one.
const PRESENT_VERSION: u32 = 0x2008_0522;

/// The words, and the process that is meant; the version is told back when it is not known.
fn header(at: u64) -> core::result::Result<(u64, u32), super::Error> {
    let version = user::read_u32(at)?;
    let Some(words) = words(version) else {
        user::write_u32(at, PRESENT_VERSION)?;
        return Err(Errno::EINVAL.into());
    };
    Ok((words, user::read_u32(at + 4)?))
}

/// `capget`: header, data.
pub fn capget(call: &mut Call<'_>) -> Result {
    let [header_at, data, ..] = *call.args;
    let header = header(header_at);
    if data == 0 {
        // Whoever asks so wants to know the version.
        return match header {
            Err(super::Error::Errno(Errno::EINVAL)) | Ok(_) => Ok(0),
            Err(error) => Err(error),
        };
    }
    let (words, pid) = header?;
    if (pid as i32) < 0 {
        return Err(Errno::EINVAL.into());
    }
    let who = match pid {
        0 => call.thread.credentials(),
        pid => table::thread(Pid::new(pid)).ok_or(Errno::ESRCH)?.credentials(),
    };
    let caps = who.capabilities;
    for word in 0..words {
        let sets = [caps.effective, caps.permitted, caps.inheritable];
        for (at, set) in (0..).zip(sets) {
            user::write_u32(data + 12 * word + 4 * at, (set >> (32 * word)) as u32)?;
        }
    }
    Ok(0)
}

/// `capset`: header, data.
pub fn capset(call: &mut Call<'_>) -> Result {
    let [header_at, data, ..] = *call.args;
    let (words, pid) = header(header_at)?;
    if pid != 0 && pid != call.thread.tid().as_u32() {
        return Err(Errno::EPERM.into());
    }
    let mut sets = [0u64; 3];
    for word in 0..words {
        for (at, set) in (0..).zip(&mut sets) {
            *set |= u64::from(user::read_u32(data + 12 * word + 4 * at)?) << (32 * word);
        }
    }
    let [effective, permitted, inheritable] = sets.map(|set| set & capability::ALL);
    call.thread
        .change_credentials(|who| who.set_capabilities(effective, permitted, inheritable))?;
    Ok(0)
}
