//! /proc and /sys as programs read them.

use guest_tests::child::fork;
use guest_tests::job;
use guest_tests::region::*;
use guest_tests::sys::{self, call};
use guest_tests::transcript::{answer, ok, say, show};

pub fn run() {
    maps();
    pagemap();
    status();
    tasks();
    descriptors();
    links();
    machine();
    mounts();
    memory_files();
}

/// Both tables of mounts tell of the same places; in the longer one each has the number of one that was there before.
fn mounts() {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (short, long) = (read("/proc/self/mounts"), read("/proc/self/mountinfo"));
    let places = |text: &str, column: usize| -> Vec<String> {
        let words = text.lines().filter_map(|line| line.split(' ').nth(column));
        words.map(str::to_owned).collect()
    };
    show(
        "mountinfo: the places of mounts",
        places(&short, 1) == places(&long, 4),
    );
    show(
        "mountinfo: /proc is there",
        places(&long, 4).iter().any(|place| place == "/proc"),
    );
    let kinds: Vec<Option<&str>> = long
        .lines()
        .filter_map(|line| line.split_once(" - "))
        .map(|(_, kind)| kind.split(' ').next())
        .collect();
    show("mountinfo: /proc is of kind proc", kinds.contains(&Some("proc")));
    let device = std::fs::metadata("/proc").map(|data| std::os::unix::fs::MetadataExt::dev(&data));
    let device = device.expect("it is there");
    let shown = long.lines().find(|line| line.split(' ').nth(4) == Some("/proc"));
    let shown = shown.and_then(|line| line.split(' ').nth(2));
    let want = format!("{}:{}", libc::major(device), libc::minor(device));
    show("mountinfo: its device", shown == Some(want.as_str()));
    let started = read("/proc/stat").lines().find_map(|line| {
        line.strip_prefix("btime ")
            .and_then(|time| time.parse::<u64>().ok())
    });
    show(
        "stat: the time of the start",
        started.is_some_and(|time| time > 1_600_000_000),
    );
}

/// The lines of maps for the regions made here: offsets, rights, and the file.
fn maps() {
    let object = memfd(4);
    let area = Region::anon("area", 6);
    mprotect(area.page(1), PAGE, libc::PROT_READ).expect("mprotect works");
    mprotect(area.page(2), PAGE, libc::PROT_NONE).expect("mprotect works");
    call(libc::SYS_munmap, &[area.page(4), PAGE]).expect("munmap works");
    let shared = Region::shared("shared", object, 4);
    let private = Region::map(
        "private",
        2 * PAGE,
        libc::PROT_READ,
        libc::MAP_PRIVATE,
        object,
        PAGE,
    )
    .expect("it can be mapped");
    let text = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some((from, to)) = words.next().and_then(|range| range.split_once('-')) else {
            continue;
        };
        let (from, to) = (
            usize::from_str_radix(from, 16).unwrap_or(0),
            usize::from_str_radix(to, 16).unwrap_or(0),
        );
        let rest: Vec<&str> = words.collect();
        if [area, shared, private]
            .iter()
            .any(|region| (region.start..region.end()).contains(&from))
        {
            let name = rest.get(4..).map_or(String::new(), |name| name.join(" "));
            say(format_args!(
                "maps: {}-{} {} {} {name}",
                place(from),
                place(to),
                rest[0],
                rest[1]
            ));
        }
    }
    for name in ["[heap]", "[stack]"] {
        show(
            &format!("maps: {name}"),
            text.lines().any(|line| line.ends_with(name)),
        );
    }
    let sorted = text
        .lines()
        .map(|line| line.split('-').next().unwrap_or("").to_string())
        .collect::<Vec<_>>();
    let as_numbers: Vec<usize> = sorted
        .iter()
        .map(|start| usize::from_str_radix(start, 16).unwrap_or(0))
        .collect();
    show("maps: in order", as_numbers.is_sorted());
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    area.fill(0, 1, 1);
    for key in [
        "Size:",
        "KernelPageSize:",
        "MMUPageSize:",
        "Rss:",
        "Pss:",
        "Anonymous:",
        "VmFlags:",
    ] {
        show(
            &format!("smaps has {key}"),
            smaps.lines().any(|line| line.starts_with(key)),
        );
    }
}

fn pagemap() {
    let area = Region::anon("area", 4);
    area.fill(1, 3, 1);
    let fd = sys::open("/proc/self/pagemap", libc::O_RDONLY).expect("it is there");
    let read = |at: usize, len: usize| {
        let mut entries = [0u64; 8];
        answer(call(
            libc::SYS_pread64,
            &[fd as usize, entries.as_mut_ptr() as usize, len, at],
        ))
    };
    show("pagemap: four entries", read(area.start / PAGE * 8, 32));
    show("pagemap: half an entry", read(area.start / PAGE * 8, 4));
    show("pagemap: not aligned", read(area.start / PAGE * 8 + 4, 8));
    show("pagemap: behind user space", read(1 << 52, 8));
    for index in 0..4 {
        show(
            &format!("pagemap: page {index}"),
            guest_tests::proc::page(area.page(index)),
        );
    }
    show(
        "pagemap: a hole",
        guest_tests::proc::page(Region::hole("hole", PAGE).start),
    );
    let exclusive = |at: usize| guest_tests::proc::pagemap(at).map_or(9, |entry| entry >> 56 & 1);
    show("pagemap: exclusive", exclusive(area.page(1)));
    let child = fork(|| {
        let _ = call(libc::SYS_pause, &[]);
        0
    });
    show("pagemap: shared with a child", exclusive(area.page(1)));
    let _ = child.kill(libc::SIGKILL);
    show("pagemap: the child", child.wait());
    show("pagemap: its end", exclusive(area.page(1)));
    let number = guest_tests::proc::pagemap(area.page(1)).map_or(0, |entry| entry & ((1 << 55) - 1));
    show("pagemap: root sees frames", number != 0);
}

/// The value of a line of /proc/self/status.
fn status_line(key: &str) -> String {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text
        .lines()
        .find(|line| line.starts_with(key))
        .map(|line| line[key.len()..].trim().replace('\t', " "));
    line.unwrap_or("is not there".into())
}

fn status() {
    show("status: Name", status_line("Name:"));
    show("status: State", status_line("State:"));
    show(
        "status: Tgid is the pid",
        status_line("Tgid:") == std::process::id().to_string(),
    );
    show(
        "status: Pid is it too",
        status_line("Pid:") == std::process::id().to_string(),
    );
    show(
        "status: PPid",
        Ok(status_line("PPid:").parse().unwrap_or(0)) == call(libc::SYS_getppid, &[]),
    );
    show("status: Uid", status_line("Uid:"));
    show("status: Gid", status_line("Gid:"));
    show("status: Threads", status_line("Threads:"));
    let sleeper = job::start(|| ok(call(libc::SYS_pause, &[])));
    sleeper.settle();
    show("status: Threads, one more", status_line("Threads:"));
    guest_tests::signal::mask(libc::SIG_BLOCK, guest_tests::signal::set(&[10, 40]))
        .expect("a mask can be set");
    show("status: SigBlk", status_line("SigBlk:"));
    guest_tests::signal::mask(libc::SIG_SETMASK, 0).expect("a mask can be set");
    for key in ["VmPeak:", "VmSize:", "VmRSS:", "VmData:", "VmStk:", "VmLck:"] {
        show(
            &format!("status: {key} is in kB"),
            status_line(key).ends_with(" kB"),
        );
    }
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let words: Vec<&str> = stat.split_whitespace().collect();
    show("stat: words", words.len());
    show(
        "stat: the first is the pid",
        words
            .first()
            .is_some_and(|word| *word == std::process::id().to_string()),
    );
    show("stat: the second", words.get(1).copied().unwrap_or(""));
    show("stat: the third", words.get(2).copied().unwrap_or(""));
    let line = std::fs::read("/proc/self/cmdline").unwrap_or_default();
    show("cmdline ends with a NUL", line.last() == Some(&0));
}

fn tasks() {
    let sleeper = job::start(|| ok(call(libc::SYS_pause, &[])));
    sleeper.settle();
    let tid = sleeper.tid();
    let names: Vec<String> = std::fs::read_dir("/proc/self/task")
        .map(|tasks| {
            tasks
                .flatten()
                .map(|task| task.file_name().to_string_lossy().into())
                .collect()
        })
        .unwrap_or_default();
    show(
        "task: the first thread is there",
        names.contains(&std::process::id().to_string()),
    );
    show("task: the other is there", names.contains(&tid.to_string()));
    let state = |path: &str| -> String {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines()
            .find(|line| line.starts_with("State:"))
            .unwrap_or("none")
            .replace('\t', " ")
    };
    show(
        "task: status of the other",
        state(&format!("/proc/self/task/{tid}/status")),
    );
    show("task: by its own number", state(&format!("/proc/{tid}/status")));
    let child = fork(|| {
        let _ = call(libc::SYS_pause, &[]);
        0
    });
    job::until(|| guest_tests::proc::process_state(child.pid) == Some('S'));
    show(
        "another process: its state",
        state(&format!("/proc/{}/status", child.pid)),
    );
    let _ = child.kill(libc::SIGKILL);
    let _ = child.wait();
    show("no such process", state(&format!("/proc/{}/status", child.pid)));
}

fn descriptors() {
    let (from, to) = sys::pipe2(0).expect("a pipe can be made");
    let names = || -> Vec<i32> {
        let entries = std::fs::read_dir("/proc/self/fd")
            .map(|entries| entries.flatten().collect::<Vec<_>>())
            .unwrap_or_default();
        entries
            .iter()
            .filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
            .collect()
    };
    show(
        "fd: both ends of a pipe",
        names().contains(&from) && names().contains(&to),
    );
    let _ = sys::close(from);
    show("fd: closed", names().contains(&from));
    let object = memfd(1);
    let opened = sys::open(&format!("/proc/self/fd/{object}"), libc::O_RDWR).expect("it can be opened again");
    sys::write(opened, b"hello").expect("a memfd takes bytes");
    let mut text = [0u8; 5];
    show(
        "fd: opened again, the same file",
        answer(sys::read(object, &mut text)),
    );
    show("fd: what it says", String::from_utf8_lossy(&text));
    let info = |fd: i32| std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
    let lines = |fd: i32| -> String {
        let text = info(fd);
        text.lines()
            .filter_map(|line| line.split(':').next())
            .collect::<Vec<_>>()
            .join(" ")
    };
    show("fdinfo of a memfd", lines(object));
    show(
        "fdinfo: pos",
        info(opened).lines().next().unwrap_or("").replace('\t', " "),
    );
    show(
        "fdinfo of a pipe: flags",
        info(to).lines().nth(1).unwrap_or("").replace('\t', " "),
    );
}

fn links() {
    let link = |path: &str| {
        std::fs::read_link(path).map_or_else(
            |error| error.kind().to_string(),
            |path| path.display().to_string(),
        )
    };
    show(
        "exe names a file",
        std::path::Path::new(&link("/proc/self/exe")).is_absolute(),
    );
    show(
        "self is the pid",
        link("/proc/self") == std::process::id().to_string(),
    );
    std::env::set_current_dir("/tmp").expect("it is there");
    show("cwd", link("/proc/self/cwd"));
    show("root", link("/proc/self/root"));
    let mut buffer = [0u8; 64];
    show(
        "getcwd",
        answer(call(libc::SYS_getcwd, &[buffer.as_mut_ptr() as usize, 64])),
    );
    show(
        "getcwd: too small",
        answer(call(libc::SYS_getcwd, &[buffer.as_mut_ptr() as usize, 4])),
    );
    show(
        "readlink: of a directory",
        answer(call(
            libc::SYS_readlink,
            &[c"/tmp".as_ptr() as usize, buffer.as_mut_ptr() as usize, 64],
        )),
    );
}

fn machine() {
    for (path, keys) in [
        (
            "/proc/meminfo",
            &[
                "MemTotal:",
                "MemFree:",
                "HugePages_Total:",
                "HugePages_Free:",
                "Hugepagesize:",
            ][..],
        ),
        (
            "/proc/cpuinfo",
            &["processor", "flags", "vendor_id", "model name"][..],
        ),
    ] {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        for key in keys {
            show(
                &format!("{path}: {key}"),
                text.lines().any(|line| line.starts_with(key)),
            );
        }
    }
    show(
        "meminfo: Hugepagesize",
        guest_tests::proc::meminfo("Hugepagesize:").unwrap_or(0),
    );
    for path in [
        "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size",
        "/proc/sys/vm/unprivileged_userfaultfd",
    ] {
        show(path, std::fs::read_to_string(path).unwrap_or_default().trim_end());
    }
    show(
        "/sys/devices/system/cpu/online is there",
        std::fs::read_to_string("/sys/devices/system/cpu/online").is_ok(),
    );
    let mut info = [0u64; 16];
    show(
        "sysinfo",
        ok(call(libc::SYS_sysinfo, &[info.as_mut_ptr() as usize])),
    );
    show("sysinfo: bad pointer", ok(call(libc::SYS_sysinfo, &[8])));
}

/// /proc/self/mem reads and writes like a debugger.
fn memory_files() {
    let area = Region::anon("area", 2);
    area.fill(0, 1, 0x11);
    let fd = sys::open("/proc/self/mem", libc::O_RDWR).expect("it is there");
    let mut byte = 0u8;
    let at = &raw mut byte as usize;
    show(
        "mem: read",
        answer(call(libc::SYS_pread64, &[fd as usize, at, 1, area.start])),
    );
    show("mem: what it reads", byte);
    let other = [0x22u8];
    let at = other.as_ptr() as usize;
    show(
        "mem: write",
        answer(call(libc::SYS_pwrite64, &[fd as usize, at, 1, area.start])),
    );
    show("mem: what was written", guest_tests::touch::peek(area.start));
    show(
        "mem: a hole",
        answer(call(
            libc::SYS_pread64,
            &[fd as usize, at, 1, Region::hole("hole", PAGE).start],
        )),
    );
}
