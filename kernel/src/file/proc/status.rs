//! `/proc/PID/status`, `stat`, `statm`, `limits`.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::memory::Counts;
use crate::abi::errno::Errno;
use crate::mm::addr::PAGE_SIZE;
use crate::mm::memtype::shmem::SHMEM;
use crate::mm::pt::Prot;
use crate::mm::vma::{Vma, VmaFlags};
use crate::process::limits::{INFINITY, Resource};
use crate::process::{Process, Thread, with_tree};
use crate::task::{State, Switches};

/// Letter and name of what a thread is doing.
fn state(process: &Process, thread: Option<&Arc<Thread>>) -> (char, &'static str) {
    let Some(thread) = thread else {
        return ('Z', "zombie");
    };
    if with_tree(|tree| tree.is_zombie(process.pid())) {
        return ('Z', "zombie");
    }
    let Some(task) = thread.task() else {
        return ('X', "dead");
    };
    match task.state() {
        State::Parked if task.cannot_be_interrupted() => ('D', "disk sleep"),
        State::Parked if process.is_stopped() => ('T', "stopped"),
        State::Parked => ('S', "sleeping"),
        State::Runnable | State::Ended => ('R', "running"),
    }
}

/// Sums of the memory of a process, in pages.
#[derive(Default)]
struct Sizes {
    total: u64,
    locked: u64,
    data: u64,
    stack: u64,
    text: u64,
    shared: u64,
    counts: Counts,
}

fn sizes(process: &Process) -> Sizes {
    let mm = process.mm();
    let mut sizes = Sizes::default();
    for area in mm.space().each_area() {
        let pages = area.range.pages();
        sizes.total += pages;
        if area.flags.contains(VmaFlags::LOCKED) {
            sizes.locked += pages;
        }
        let counts = Counts::of(mm.space(), &area);
        if is_shared_memory(&area) {
            sizes.shared += counts.file;
        }
        sizes.counts.add(&counts);
        let writable = area.prot.contains(Prot::WRITE) && !area.is_shared();
        match area.prot.contains(Prot::EXEC) {
            _ if area.flags.contains(VmaFlags::GROWS_DOWN) => sizes.stack += pages,
            true if !writable => sizes.text += pages,
            _ if writable => sizes.data += pages,
            _ => {}
        }
    }
    sizes
}

fn is_shared_memory(area: &Vma) -> bool {
    area.is_shared() && core::ptr::eq(area.ty, &raw const SHMEM)
}

fn kb(pages: u64) -> u64 {
    pages * (PAGE_SIZE / 1024)
}

/// `status` of a thread; of the process, that of its first.
pub(super) fn status(process: &Arc<Process>, thread: Option<&Arc<Thread>>) -> Result<Vec<u8>, Errno> {
    let pid = process.pid();
    let tid = thread.map_or(pid, |thread| thread.tid());
    let (letter, state) = state(process, thread);
    let parent = process.parent_pid();
    let credentials = thread.map_or_else(|| process.credentials(), |thread| thread.credentials());
    let name = thread.map_or_else(String::new, |thread| thread.name());
    let ids = |ids: crate::process::credentials::Ids| {
        format!("{}\t{}\t{}\t{}", ids.real, ids.effective, ids.saved, ids.fs)
    };
    let groups: Vec<String> = credentials
        .groups
        .iter()
        .map(|group| format!("{group}"))
        .collect();
    let (files, place) = (process.files(), process.place());
    let mut text = format!(
        "Name:\t{name}\nUmask:\t{:04o}\nState:\t{letter} ({state})\nTgid:\t{pid}\nNgid:\t0\nPid:\t{tid}\nPPid:\t{parent}\n\
         TracerPid:\t0\nUid:\t{}\nGid:\t{}\nFDSize:\t{}\nGroups:\t{} \n",
        place.umask(),
        ids(credentials.user),
        ids(credentials.group),
        files.size(),
        groups.join(" "),
    );
    let (group, session) = with_tree(|tree| (tree.group(pid), tree.session(pid)));
    text += &format!(
        "NStgid:\t{pid}\nNSpid:\t{tid}\nNSpgid:\t{}\nNSsid:\t{}\nKthread:\t0\n",
        group.unwrap_or(pid),
        session.unwrap_or(pid)
    );
    if letter != 'Z' {
        text += &memory_rows(process);
    }
    text += &format!(
        "CoreDumping:\t0\nTHP_enabled:\t1\nuntag_mask:\t0xffffffffffffffff\nThreads:\t{}\n",
        process.thread_count()
    );
    text += &signal_rows(process, thread);
    let sets = credentials.capabilities;
    text += &format!(
        "CapInh:\t{:016x}\nCapPrm:\t{:016x}\nCapEff:\t{:016x}\nCapBnd:\t{:016x}\nCapAmb:\t0000000000000000\nNoNewPrivs:\t{}\n",
        sets.inheritable,
        sets.permitted,
        sets.effective,
        sets.bounding,
        u8::from(credentials.no_new_privileges),
    );
    text += "Seccomp:\t0\nSeccomp_filters:\t0\n\
             Cpus_allowed:\t1\nCpus_allowed_list:\t0\nMems_allowed:\t1\nMems_allowed_list:\t0\n";
    let task = thread.and_then(|thread| thread.task());
    let switches = task.as_ref().map(|task| task.switches());
    text += &format!(
        "voluntary_ctxt_switches:\t{}\nnonvoluntary_ctxt_switches:\t{}\n",
        switches.map_or(0, Switches::voluntary),
        switches.map_or(0, Switches::involuntary),
    );
    Ok(text.into_bytes())
}

fn memory_rows(process: &Process) -> String {
    let sizes = sizes(process);
    let resident = sizes.counts.resident();
    let rows = [
        ("VmPeak", kb(sizes.total)),
        ("VmSize", kb(sizes.total)),
        ("VmLck", kb(sizes.locked)),
        ("VmPin", 0),
        ("VmHWM", kb(resident)),
        ("VmRSS", kb(resident)),
        ("RssAnon", kb(sizes.counts.anonymous)),
        ("RssFile", kb(sizes.counts.file - sizes.shared)),
        ("RssShmem", kb(sizes.shared)),
        ("VmData", kb(sizes.data)),
        ("VmStk", kb(sizes.stack)),
        ("VmExe", kb(sizes.text)),
        ("VmLib", 0),
        ("VmPTE", 4),
        ("VmSwap", 0),
        ("HugetlbPages", kb(sizes.counts.pool())),
    ];
    rows.iter()
        .map(|(name, kb)| format!("{name}:\t{kb:>8} kB\n"))
        .collect()
}

fn signal_rows(process: &Process, thread: Option<&Arc<Thread>>) -> String {
    let (caught, ignored) = process.signals.actions().caught_and_ignored();
    let (pending, blocked) = match thread {
        Some(thread) => (
            thread.signals.pending.set().bits(),
            thread.signals.blocked().bits(),
        ),
        None => (0, 0),
    };
    let limit = process.limits().get(Resource::PendingSignals).soft;
    format!(
        "SigQ:\t0/{limit}\nSigPnd:\t{pending:016x}\nShdPnd:\t{:016x}\nSigBlk:\t{blocked:016x}\nSigIgn:\t{:016x}\n\
         SigCgt:\t{:016x}\n",
        process.signals.pending.set().bits(),
        ignored.bits(),
        caught.bits(),
    )
}

/// `stat`.
pub(super) fn stat(process: &Arc<Process>, thread: Option<&Arc<Thread>>) -> Result<Vec<u8>, Errno> {
    let pid = process.pid();
    let tid = thread.map_or(pid, |thread| thread.tid());
    let (letter, _) = state(process, thread);
    let name = thread.map_or_else(String::new, |thread| thread.name());
    let (group, session) = with_tree(|tree| (tree.group(pid), tree.session(pid)));
    let times = process.times();
    // In hundredths of a second.
    let clock = |nanos: u64| nanos / 10_000_000;
    let (mm, sizes) = (process.mm(), sizes(process));
    let (layout, heap) = (mm.layout(), mm.heap());
    let text = format!(
        "{tid} ({name}) {letter} {} {} {} 0 -1 4194304 {} 0 0 0 {} {} 0 0 20 0 {} 0 0 {} {} 18446744073709551615 0 0 {} 0 0 \
         {} {} {} {} 0 0 0 17 0 0 0 0 0 0 0 0 {} {} {} {} {} 0\n",
        process.parent_pid(),
        group.unwrap_or(pid),
        session.unwrap_or(pid),
        mm.space().fault_count(),
        clock(times.user),
        clock(times.system),
        process.thread_count(),
        sizes.total * PAGE_SIZE,
        sizes.counts.resident(),
        layout.args.start.as_u64(),
        process.signals.pending.set().bits() & 0x7fff_ffff,
        thread.map_or(0, |thread| thread.signals.blocked().bits() & 0x7fff_ffff),
        process.signals.actions().caught_and_ignored().1.bits() & 0x7fff_ffff,
        process.signals.actions().caught_and_ignored().0.bits() & 0x7fff_ffff,
        heap.start.as_u64(),
        layout.args.start.as_u64(),
        layout.args.end.as_u64(),
        layout.env.start.as_u64(),
        layout.env.end.as_u64(),
    );
    Ok(text.into_bytes())
}

/// `statm`: sizes in pages.
pub(super) fn statm(process: &Arc<Process>) -> Result<Vec<u8>, Errno> {
    let sizes = sizes(process);
    let text = format!(
        "{} {} {} {} 0 {} 0\n",
        sizes.total,
        sizes.counts.resident(),
        sizes.counts.file,
        sizes.text,
        sizes.data + sizes.stack
    );
    Ok(text.into_bytes())
}

/// `limits`.
pub(super) fn limits(process: &Arc<Process>) -> Result<Vec<u8>, Errno> {
    let rows = [
        ("Max cpu time", Resource::Cpu, "seconds"),
        ("Max file size", Resource::FileSize, "bytes"),
        ("Max data size", Resource::Data, "bytes"),
        ("Max stack size", Resource::Stack, "bytes"),
        ("Max core file size", Resource::Core, "bytes"),
        ("Max resident set", Resource::ResidentSet, "bytes"),
        ("Max processes", Resource::Processes, "processes"),
        ("Max open files", Resource::OpenFiles, "files"),
        ("Max locked memory", Resource::LockedMemory, "bytes"),
        ("Max address space", Resource::AddressSpace, "bytes"),
        ("Max file locks", Resource::Locks, "locks"),
        ("Max pending signals", Resource::PendingSignals, "signals"),
        ("Max msgqueue size", Resource::MessageQueues, "bytes"),
        ("Max nice priority", Resource::Nice, ""),
        ("Max realtime priority", Resource::RealTimePriority, ""),
        ("Max realtime timeout", Resource::RealTimeTime, "us"),
    ];
    let limits = process.limits();
    let show = |limit: u64| {
        if limit == INFINITY {
            String::from("unlimited")
        } else {
            format!("{limit}")
        }
    };
    let mut text = format!(
        "{:<25} {:<20} {:<20} {:<10}\n",
        "Limit", "Soft Limit", "Hard Limit", "Units"
    );
    for (name, resource, unit) in rows {
        let limit = limits.get(resource);
        text += &format!(
            "{name:<25} {:<20} {:<20} {unit:<10}\n",
            show(limit.soft),
            show(limit.hard)
        );
    }
    Ok(text.into_bytes())
}
