//! Scheduling. There is one CPU, and threads take turns on it: priorities and classes are kept as they were set and told again.

use alloc::sync::Arc;
use core::time::Duration;

use super::{Call, Result, user};
use crate::abi::errno::Errno;
use crate::process::clock::TimeSpec;
use crate::process::credentials::capability::SYS_NICE;
use crate::process::{Pid, Scheduling, TICK, Thread, find, table, with_tree};

const OTHER: u32 = 0;
const FIFO: u32 = 1;
const ROUND_ROBIN: u32 = 2;
const BATCH: u32 = 3;
const IDLE: u32 = 5;
const RESET_ON_FORK: u32 = 0x4000_0000;

/// Bytes of the set of CPUs.
const CPU_SET: u64 = 8;

/// `sched_yield`.
pub fn sched_yield(_call: &mut Call<'_>) -> Result {
    crate::task::yield_now();
    Ok(0)
}

fn thread(call: &Call<'_>, tid: u64) -> core::result::Result<Arc<Thread>, Errno> {
    match tid as i32 {
        0 => Ok(Arc::clone(call.thread)),
        tid if tid > 0 => table::thread(Pid::new(tid as u32)).ok_or(Errno::ESRCH),
        _ => Err(Errno::EINVAL),
    }
}

/// `sched_setaffinity`: thread, length, CPUs.
pub fn sched_setaffinity(call: &mut Call<'_>) -> Result {
    let [tid, len, at, ..] = *call.args;
    let mut set = [0; CPU_SET as usize];
    user::read(at, &mut set[..len.min(CPU_SET) as usize])?;
    thread(call, tid)?;
    match set[0] & 1 {
        0 => Err(Errno::EINVAL.into()),
        _ => Ok(0),
    }
}

/// `sched_getaffinity`: thread, length, CPUs; says how many bytes it stores.
pub fn sched_getaffinity(call: &mut Call<'_>) -> Result {
    let [tid, len, at, ..] = *call.args;
    if len < CPU_SET || !len.is_multiple_of(8) {
        return Err(Errno::EINVAL.into());
    }
    thread(call, tid)?;
    user::write_u64(at, 1)?;
    Ok(CPU_SET)
}

/// `getcpu`: CPU, node.
pub fn getcpu(call: &mut Call<'_>) -> Result {
    for at in &call.args[..2] {
        if *at != 0 {
            user::write_u32(*at, 0)?;
        }
    }
    Ok(0)
}

fn set(call: &Call<'_>, tid: u64, policy: Option<u64>, param: u64) -> Result {
    if param == 0 || (tid as i32) < 0 {
        return Err(Errno::EINVAL.into());
    }
    let priority = user::read_u32(param)?;
    let thread = thread(call, tid)?;
    let old = thread.scheduling();
    let policy = policy.map_or(old.policy, |policy| policy as u32);
    let is_valid = match policy & !RESET_ON_FORK {
        FIFO | ROUND_ROBIN => (1..=99).contains(&priority),
        OTHER | BATCH | IDLE => priority == 0,
        _ => false,
    };
    if !is_valid {
        return Err(Errno::EINVAL.into());
    }
    let is_real_time = priority > 0;
    if is_real_time && !call.thread.credentials().can(SYS_NICE) {
        return Err(Errno::EPERM.into());
    }
    thread.set_scheduling(Scheduling {
        policy,
        priority,
        ..old
    });
    Ok(0)
}

/// `sched_setscheduler`: thread, class, parameters.
pub fn sched_setscheduler(call: &mut Call<'_>) -> Result {
    let [tid, policy, param, ..] = *call.args;
    if (policy as i32) < 0 {
        return Err(Errno::EINVAL.into());
    }
    set(call, tid, Some(policy), param)
}

/// `sched_setparam`.
pub fn sched_setparam(call: &mut Call<'_>) -> Result {
    let [tid, param, ..] = *call.args;
    set(call, tid, None, param)
}

/// `sched_getscheduler`.
pub fn sched_getscheduler(call: &mut Call<'_>) -> Result {
    Ok(thread(call, call.args[0])?.scheduling().policy.into())
}

/// `sched_getparam`.
pub fn sched_getparam(call: &mut Call<'_>) -> Result {
    let [tid, param, ..] = *call.args;
    if param == 0 {
        return Err(Errno::EINVAL.into());
    }
    let priority = thread(call, tid)?.scheduling().priority;
    user::write_u32(param, priority)?;
    Ok(0)
}

/// `sched_get_priority_max`.
pub fn sched_get_priority_max(call: &mut Call<'_>) -> Result {
    priority_bound(call, 99)
}

/// `sched_get_priority_min`.
pub fn sched_get_priority_min(call: &mut Call<'_>) -> Result {
    priority_bound(call, 1)
}

fn priority_bound(call: &Call<'_>, of_real_time: u64) -> Result {
    match call.args[0] as u32 {
        FIFO | ROUND_ROBIN => Ok(of_real_time),
        // And deadlines, which have none.
        OTHER | BATCH | IDLE | 6 => Ok(0),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// `sched_rr_get_interval`.
pub fn sched_rr_get_interval(call: &mut Call<'_>) -> Result {
    let [tid, at, ..] = *call.args;
    let slice = match thread(call, tid)?.scheduling().policy & !RESET_ON_FORK {
        FIFO => 0,
        _ => 2 * TICK,
    };
    user::write(at, &TimeSpec::from(Duration::from_nanos(slice)).to_bytes())?;
    Ok(0)
}

/// Whom `getpriority` and `setpriority` mean.
fn meant(call: &Call<'_>, kind: u64, who: u64) -> core::result::Result<alloc::vec::Vec<Arc<Thread>>, Errno> {
    const PROCESS: u32 = 0;
    const GROUP: u32 = 1;
    const USER: u32 = 2;
    let who = who as u32;
    let own = call.thread.process().pid();
    let threads = match kind as u32 {
        PROCESS if who == 0 => return Ok(alloc::vec![Arc::clone(call.thread)]),
        PROCESS => match table::thread(Pid::new(who)) {
            Some(thread) => alloc::vec![thread],
            None => find(Pid::new(who)).map_or_else(alloc::vec::Vec::new, |process| process.threads()),
        },
        GROUP => {
            let members: alloc::vec::Vec<_> = with_tree(|tree| {
                let group = match who {
                    0 => tree.group(own).unwrap_or(own),
                    group => Pid::new(group),
                };
                tree.group_members(group).cloned().collect()
            });
            members.iter().flat_map(|process| process.threads()).collect()
        }
        USER => {
            let uid = match who {
                0 => call.thread.credentials().user.real,
                uid => uid,
            };
            let mut all = table::threads();
            all.retain(|thread| thread.credentials().user.real == uid);
            all
        }
        _ => return Err(Errno::EINVAL),
    };
    if threads.is_empty() {
        Err(Errno::ESRCH)
    } else {
        Ok(threads)
    }
}

/// `getpriority`: as 20 - nice.
pub fn getpriority(call: &mut Call<'_>) -> Result {
    let threads = meant(call, call.args[0], call.args[1])?;
    let best = threads
        .iter()
        .map(|thread| 20 - i64::from(thread.scheduling().nice));
    Ok(best.max().unwrap_or(0) as u64)
}

/// `setpriority`.
pub fn setpriority(call: &mut Call<'_>) -> Result {
    let [kind, who, nice, ..] = *call.args;
    let nice = (nice as i32).clamp(-20, 19) as i8;
    for thread in meant(call, kind, who)? {
        let old = thread.scheduling();
        if nice < old.nice && !call.thread.credentials().can(SYS_NICE) {
            return Err(Errno::EACCES.into());
        }
        thread.set_scheduling(Scheduling { nice, ..old });
    }
    Ok(0)
}
