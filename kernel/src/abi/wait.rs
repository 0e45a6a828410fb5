//! `wait4` and `waitid` (`linux/wait.h`).

/// Do not wait.
pub const WNOHANG: u32 = 1;
/// Also children that were stopped (`WUNTRACED` of `wait4`).
pub const WSTOPPED: u32 = 2;
/// Children that have ended.
pub const WEXITED: u32 = 4;
/// Children that go on.
pub const WCONTINUED: u32 = 8;
/// Leave the child as it is.
pub const WNOWAIT: u32 = 0x0100_0000;
/// Not the children of other threads.
pub const WNOTHREAD: u32 = 0x2000_0000;
/// Children whatever signal they end with.
pub const WALL: u32 = 0x4000_0000;
/// Children that do not end with SIGCHLD.
pub const WCLONE: u32 = 0x8000_0000;

/// `waitid`: any child.
pub const P_ALL: u32 = 0;
/// `waitid`: this one.
pub const P_PID: u32 = 1;
/// `waitid`: those of this group.
pub const P_PGID: u32 = 2;
/// `waitid`: that of this descriptor.
pub const P_PIDFD: u32 = 3;
