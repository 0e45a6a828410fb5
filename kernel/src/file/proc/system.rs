//! What `/proc` says about the machine.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use crate::abi::errno::Errno;
use crate::file::pseudo::{Fixed, PseudoFs, Text};
use crate::file::tree::Inode;
use crate::file::{locks as file_locks, sys, userfault};
use crate::mm::addr::PAGE_SIZE;
use crate::mm::frame::{Kind, allocator};
use crate::process::clock::realtime;
use crate::task;

/// What `uname` says too.
pub const RELEASE: &str = "6.18.0-faultline";

/// The files, by name.
pub(super) fn files(fs: &Arc<PseudoFs>) -> Vec<(&'static str, Arc<dyn Inode>)> {
    let text = |make: fn() -> String| Text::readable(fs, move || Ok(make().into_bytes()));
    vec![
        ("cpuinfo", text(cpuinfo)),
        ("filesystems", text(filesystems)),
        ("loadavg", text(|| "0.00 0.00 0.00 1/1 1\n".into())),
        ("locks", Text::readable(fs, locks)),
        ("meminfo", text(meminfo)),
        ("stat", text(stat)),
        ("uptime", text(uptime)),
        ("version", text(version)),
        ("sys", sysctls(fs)),
    ]
}

/// `/proc/sys`.
fn sysctls(fs: &Arc<PseudoFs>) -> Arc<dyn Inode> {
    let constant = |text: &'static str| Text::readable(fs, move || Ok(text.into()));
    let dir = |names| Fixed::with(fs, names);
    let vm = dir(vec![
        ("max_map_count", constant("65530\n")),
        ("mmap_min_addr", constant("65536\n")),
        (
            "nr_hugepages",
            Text::writable(
                fs,
                || Ok(format!("{}\n", allocator().huge_pages().total).into()),
                sys::set_pool,
            ),
        ),
        ("overcommit_memory", constant("0\n")),
        ("unprivileged_userfaultfd", unprivileged_userfaultfd(fs)),
    ]);
    let random = dir(vec![
        ("entropy_avail", constant("256\n")),
        ("poolsize", constant("256\n")),
        ("uuid", Text::readable(fs, || Ok(uuid()))),
        ("boot_id", constant("0fa171ae-0000-4000-8000-000000000001\n")),
    ]);
    let kernel = dir(vec![
        ("hostname", constant("faultline\n")),
        (
            "osrelease",
            Text::readable(fs, || Ok(format!("{RELEASE}\n").into())),
        ),
        ("ostype", constant("Linux\n")),
        ("pid_max", constant("32768\n")),
        ("random", random),
        ("threads-max", constant("32768\n")),
        ("version", constant("#1 SMP\n")),
    ]);
    let files = dir(vec![
        ("file-max", constant("1048576\n")),
        ("nr_open", constant("1048576\n")),
        ("pipe-max-size", constant("1048576\n")),
    ]);
    dir(vec![("fs", files), ("kernel", kernel), ("vm", vm)])
}

/// `vm.unprivileged_userfaultfd`: whether everybody may watch accesses of the kernel.
fn unprivileged_userfaultfd(fs: &Arc<PseudoFs>) -> Arc<dyn Inode> {
    Text::writable(
        fs,
        || Ok(format!("{}\n", u8::from(userfault::everybody_may())).into()),
        |bytes| {
            let allowed = match sys::parse(bytes)? {
                0 => false,
                1 => true,
                _ => return Err(Errno::EINVAL),
            };
            userfault::EVERYBODY_MAY.store(allowed, Ordering::Relaxed);
            Ok(())
        },
    )
}

fn uuid() -> Vec<u8> {
    let mut bytes = [0; 16];
    crate::file::random::fill(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = |range: &[u8]| range.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let parts = [
        &bytes[..4],
        &bytes[4..6],
        &bytes[6..8],
        &bytes[8..10],
        &bytes[10..],
    ];
    (parts.map(hex).join("-") + "\n").into_bytes()
}

fn meminfo() -> String {
    let frames = allocator().stats();
    let pool = allocator().huge_pages();
    let kb = |frames: u64| frames * (PAGE_SIZE / 1024);
    let anon = kb(frames.of(Kind::Anon));
    let rows = [
        ("MemTotal", kb(frames.managed)),
        ("MemFree", kb(frames.free)),
        ("MemAvailable", kb(frames.free)),
        ("Buffers", 0),
        ("Cached", 0),
        ("SwapCached", 0),
        ("Active", anon),
        ("Inactive", 0),
        ("Unevictable", 0),
        ("Mlocked", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", 0),
        ("Writeback", 0),
        ("AnonPages", anon),
        ("Mapped", 0),
        ("Shmem", 0),
        ("CommitLimit", kb(frames.managed) / 2),
        ("Committed_AS", anon),
        ("VmallocTotal", 34_359_738_367),
        ("AnonHugePages", 0),
        ("ShmemHugePages", 0),
    ];
    let mut text = String::new();
    for (name, value) in rows {
        text += &format!("{:<15} {value:>8} kB\n", format!("{name}:"));
    }
    for (name, value) in [
        ("HugePages_Total", pool.total),
        ("HugePages_Free", pool.free),
        ("HugePages_Rsvd", pool.promised),
        ("HugePages_Surp", 0),
    ] {
        text += &format!("{:<15} {value:>8}\n", format!("{name}:"));
    }
    for (name, value) in [
        ("Hugepagesize", 2048),
        ("Hugetlb", pool.total * 2048),
        ("DirectMap4k", 0),
        ("DirectMap2M", kb(frames.managed)),
    ] {
        text += &format!("{:<15} {value:>8} kB\n", format!("{name}:"));
    }
    text
}

fn cpuinfo() -> String {
    let rows = [
        ("processor", "0"),
        ("vendor_id", "Faultline"),
        ("cpu family", "6"),
        ("model", "0"),
        ("model name", "Faultline virtual CPU"),
        ("physical id", "0"),
        ("siblings", "1"),
        ("core id", "0"),
        ("cpu cores", "1"),
        ("fpu", "yes"),
        ("cpuid level", "13"),
        (
            "flags",
            "fpu tsc msr pae cx8 apic cmov fxsr sse sse2 syscall nx lm",
        ),
        ("clflush size", "64"),
        ("address sizes", "40 bits physical, 48 bits virtual"),
    ];
    let mut text = String::new();
    for (name, value) in rows {
        let tabs = if name.len() < 8 { "\t\t" } else { "\t" };
        text += &format!("{name}{tabs}: {value}\n");
    }
    text + "\n"
}

fn filesystems() -> String {
    "nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\nnodev\tdevtmpfs\nnodev\thugetlbfs\n".into()
}

fn stat() -> String {
    let now = task::now();
    let hundredths = now.as_millis() / 10;
    let started = realtime().saturating_sub(now).as_secs();
    format!(
        "cpu  {hundredths} 0 0 0 0 0 0 0 0 0\ncpu0 {hundredths} 0 0 0 0 0 0 0 0 0\nintr 0\nctxt 0\nbtime {started}\n\
         processes 1\nprocs_running 1\nprocs_blocked 0\n"
    )
}

fn locks() -> Result<Vec<u8>, Errno> {
    let mut text = String::new();
    let mut number = 0;
    for lock in file_locks::all()? {
        let arrow = if lock.waits {
            "-> "
        } else {
            number += 1;
            ""
        };
        text += &format!("{number}: {arrow}{lock}\n");
    }
    Ok(text.into_bytes())
}

fn uptime() -> String {
    let now = task::now();
    let (seconds, hundredths) = (now.as_secs(), now.subsec_millis() / 10);
    format!("{seconds}.{hundredths:02} 0.00\n")
}

fn version() -> String {
    format!("Linux version {RELEASE} (faultline) #1 SMP\n")
}
