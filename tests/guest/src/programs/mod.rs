//! The programs: one file each, one line each in the table below.

mod api;
mod area_borders;
mod bad_elf;
mod bounds;
mod busy_text;
mod cont;
mod copy;
mod credentials;
mod delivery;
mod descriptors;
mod disk_file;
mod events;
mod execute;
mod exhaustion;
mod fdinfo;
mod file_rights;
mod fill_rules;
mod fork_events;
mod futex;
mod guest_memfd;
mod huge_promises;
mod kernel_access;
mod lifetime;
mod locks;
mod machine_state;
mod markers;
mod memfd;
mod memory_calls;
mod memory_limits;
mod message;
mod message_stream;
mod monitors;
mod moving;
mod open;
mod pidfd;
mod poison;
mod proc_files;
mod proc_mem;
mod processes;
mod races;
mod read_poll;
mod register;
mod register_masks;
mod remap;
mod secret;
mod sigbus;
mod signal_frames;
mod signals;
mod special;
mod timers;
mod tmpfs_files;
mod uffd_signals;
mod unix_sockets;
mod unregister;
mod vdso;
mod waiting;
mod wild_calls;
mod wild_pointers;
mod wp_async;
mod writeprotect;
mod zeropage;

/// A program of the collection.
pub struct Program {
    /// What it is called on the command line and in the transcript.
    pub name: &'static str,
    /// What it is about, in a few words.
    pub about: &'static str,
    /// Where it may be run.
    pub on: Where,
    /// How long it may take, in seconds.
    pub seconds: u32,
    /// The program itself, run in a process of its own.
    pub run: fn(),
}

/// Where a program may be run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// On any Linux as well.
    Everywhere,
    /// Only on Faultline: it would harm the machine, or says nothing that another kernel could be compared with.
    Faultline,
}

/// Declares the table: `name: where, seconds, "about"`, where the module `name` has a function `run`.
macro_rules! programs {
    ($($name:ident: $on:ident, $seconds:literal, $about:literal;)*) => {
        /// Every program, in the order in which `all` runs them.
        pub const PROGRAMS: &[Program] = &[$(Program {
            name: stringify!($name), about: $about, on: Where::$on, seconds: $seconds, run: $name::run,
        }),*];
    };
}

programs! {
    open: Everywhere, 10, "1.1: userfaultfd(2), the device, the descriptor";
    api: Everywhere, 10, "1.2, 1.4, 3.1: the handshake, features, command numbers";
    register_masks: Everywhere, 10, "2: modes that each type of memory accepts, and the mask";
    register: Everywhere, 20, "3.2: registering";
    unregister: Everywhere, 20, "3.3, 3.4: unregistering and waking";
    fill_rules: Everywhere, 30, "3.0: rules that all fills share";
    copy: Everywhere, 20, "3.5: COPY";
    zeropage: Everywhere, 20, "3.6: ZEROPAGE";
    writeprotect: Everywhere, 20, "3.7: WRITEPROTECT";
    cont: Everywhere, 20, "3.8: CONTINUE";
    poison: Everywhere, 20, "3.9, 4.6: POISON";
    moving: Everywhere, 20, "3.10: MOVE";
    delivery: Everywhere, 40, "4.1: which fault is raised when";
    message: Everywhere, 20, "1.3, 4.2: what a message holds";
    sigbus: Everywhere, 20, "4.3: FEATURE_SIGBUS";
    kernel_access: Everywhere, 40, "4.4: faults that the kernel takes for a task";
    uffd_signals: Everywhere, 30, "4.4: signals for those who wait for a page";
    wp_async: Everywhere, 20, "4.5: write tracking, PAGEMAP_SCAN";
    markers: Everywhere, 30, "4.6: the life of protection and poison";
    read_poll: Everywhere, 30, "4.7: reading and polling";
    fdinfo: Everywhere, 20, "1.1: /proc/self/fdinfo";
    events: Everywhere, 40, "4.8: events, who waits for them, what has happened meanwhile";
    fork_events: Everywhere, 40, "4.8: fork, with and without EVENT_FORK";
    remap: Everywhere, 30, "4.8: mremap of registered memory";
    lifetime: Everywhere, 40, "4.9: close, inherited descriptors, targets that are gone";
    special: Everywhere, 30, "2: memory that cannot be registered";
    disk_file: Everywhere, 30, "2, 4.4: a file on a disk: tracking alone, reading past the cache";
    guest_memfd: Everywhere, 30, "2: guest_memfd of KVM, mapped";
    memory_limits: Everywhere, 30, "3.5: fills where memory has a limit";
    vdso: Everywhere, 30, "4.4: the clock of the vdso";
    area_borders: Everywhere, 20, "2, 5.1: which neighbours are one area";
    memory_calls: Everywhere, 30, "mmap, mprotect, mremap, madvise, mincore, mlock, brk";
    huge_promises: Everywhere, 30, "huge pages that are promised to mappings";
    memfd: Everywhere, 30, "memfd_create, seals, fallocate, mappings beside read and write";
    secret: Everywhere, 20, "memfd_secret(2)";
    futex: Everywhere, 30, "futex(2)";
    signal_frames: Everywhere, 20, "x87 and vector registers that a handler changes in its frame";
    signals: Everywhere, 30, "masks, queues, handlers, alternate stacks, restarts";
    timers: Everywhere, 40, "clocks, sleeps, alarms, interval timers, timerfd";
    processes: Everywhere, 40, "fork, clone, exit and the ways to wait";
    pidfd: Everywhere, 40, "descriptors of processes, process_madvise";
    execute: Everywhere, 40, "execve: arguments, what stays and what goes, refusals";
    descriptors: Everywhere, 30, "dup, fcntl, close, pipes, eventfd, devices";
    unix_sockets: Everywhere, 30, "named sockets: bind, listen, connect, accept, what they refuse";
    waiting: Everywhere, 30, "poll, select, epoll";
    proc_files: Everywhere, 30, "/proc and /sys as programs read them";
    proc_mem: Everywhere, 20, "/proc/PID/mem: what a debugger reads and writes that rights forbid";
    tmpfs_files: Everywhere, 30, "files and directories in memory";
    machine_state: Everywhere, 40, "registers over switches and signals, affinity, barriers, rseq";
    wild_calls: Everywhere, 400, "a million random system calls with random arguments";
    wild_pointers: Everywhere, 120, "every call that takes a pointer, with bad ones";
    races: Everywhere, 120, "threads that map, unmap, fork and touch the same pages";
    monitors: Everywhere, 60, "monitors that close, exit and are killed with waiters";
    bad_elf: Everywhere, 60, "programs that are truncated, overlapping, huge, without an interpreter";
    busy_text: Everywhere, 60, "programs that run and are written to (ETXTBSY)";
    bounds: Everywhere, 60, "chains of polls, polls of very many files, timers without a pause, threads ended at birth";
    exhaustion: Faultline, 300, "a fork bomb, hogs of memory, descriptors, mappings, threads";
    message_stream: Everywhere, 20, "4.4: a waiter in the kernel that has a signal";
    credentials: Everywhere, 20, "users, groups, capabilities";
    locks: Everywhere, 60, "flock and record locks: who excludes whom, and who waits";
    file_rights: Everywhere, 20, "permissions and owners of files";
}
