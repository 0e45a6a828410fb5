//! `clone` and `clone3` (`linux/sched.h`).

/// Shares the memory.
pub const CLONE_VM: u64 = 0x100;
/// Shares root, working directory and umask.
pub const CLONE_FS: u64 = 0x200;
/// Shares the descriptors.
pub const CLONE_FILES: u64 = 0x400;
/// Shares the signal handlers.
pub const CLONE_SIGHAND: u64 = 0x800;
/// Stores a descriptor of the child.
pub const CLONE_PIDFD: u64 = 0x1000;
/// The child is traced if its maker is.
pub const CLONE_PTRACE: u64 = 0x2000;
/// Waits until the child has left the memory.
pub const CLONE_VFORK: u64 = 0x4000;
/// The child's parent is its maker's.
pub const CLONE_PARENT: u64 = 0x8000;
/// A thread of the same process.
pub const CLONE_THREAD: u64 = 0x1_0000;
/// A namespace of mounts of its own.
pub const CLONE_NEWNS: u64 = 0x2_0000;
/// Shares undo values of semaphores.
pub const CLONE_SYSVSEM: u64 = 0x4_0000;
/// Sets the base of FS.
pub const CLONE_SETTLS: u64 = 0x8_0000;
/// Stores the child's number in its maker's memory.
pub const CLONE_PARENT_SETTID: u64 = 0x10_0000;
/// Clears a word in the child's memory when it ends.
pub const CLONE_CHILD_CLEARTID: u64 = 0x20_0000;
/// Means nothing.
pub const CLONE_DETACHED: u64 = 0x40_0000;
/// The child cannot be traced.
pub const CLONE_UNTRACED: u64 = 0x80_0000;
/// Stores the child's number in its own memory.
pub const CLONE_CHILD_SETTID: u64 = 0x100_0000;
/// Shares the context of input and output.
pub const CLONE_IO: u64 = 0x8000_0000;
/// Without signal handlers (`clone3` alone).
pub const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

/// Namespaces of any kind: mounts, cgroups, names, messages, users, processes, networks, times.
pub const CLONE_NEW_ANYTHING: u64 = CLONE_NEWNS | 0x7e00_0000 | 0x80;
/// All of them.
pub const CLONE_KNOWN: u64 = CLONE_VM
    | CLONE_FS
    | CLONE_FILES
    | CLONE_SIGHAND
    | CLONE_PIDFD
    | CLONE_PTRACE
    | CLONE_VFORK
    | CLONE_PARENT
    | CLONE_THREAD
    | CLONE_NEW_ANYTHING
    | CLONE_SYSVSEM
    | CLONE_SETTLS
    | CLONE_PARENT_SETTID
    | CLONE_CHILD_CLEARTID
    | CLONE_DETACHED
    | CLONE_UNTRACED
    | CLONE_CHILD_SETTID
    | CLONE_IO
    | CLONE_CLEAR_SIGHAND;
/// The signal, in the low byte of `clone`'s flags.
pub const CSIGNAL: u64 = 0xff;
