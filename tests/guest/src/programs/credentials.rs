//! Who a thread acts as, what that lets it do, and what /proc/PID/status says of it.

use guest_tests::child::fork;
use guest_tests::sys::{Answer, call};
use guest_tests::transcript::{answer, check, ok, show};

/// As an argument of the calls that set several: this one stays.
const UNCHANGED: usize = u32::MAX as usize;
/// CHOWN, SETGID, SETUID, SYS_ADMIN. Others may be kept from the superuser of a container.
const LOOKED_AT: u64 = 1 << 0 | 1 << CAP_SETGID | 1 << CAP_SETUID | 1 << 21;
const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;

pub fn run() {
    apart("root", || rows("root"));
    apart("groups", groups);
    apart("another user", || {
        show("setresuid", ok(set_users(1000, 1001, 1002)));
        rows("another user");
        show("back", ok(set_users(UNCHANGED, 0, UNCHANGED)));
        show("saved", ok(set_users(UNCHANGED, 1002, UNCHANGED)));
        show("setgroups", ok(set_groups(&[1])));
        rows("another user, later");
    });
    apart("effective user", || {
        show("setresuid", ok(set_users(UNCHANGED, 1000, UNCHANGED)));
        rows("effective user");
        show("back", ok(set_users(UNCHANGED, 0, UNCHANGED)));
        rows("effective user, and back");
    });
    apart("kept capabilities", || {
        show("prctl", ok(control(libc::PR_SET_KEEPCAPS, 1)));
        show("setresuid", ok(set_users(1000, 1000, 1000)));
        rows("kept capabilities");
        show("setgroups", ok(set_groups(&[1])));
    });
    apart("file system's user", || {
        show("setfsuid", answer(call(libc::SYS_setfsuid, &[1000])));
        show("setfsgid", answer(call(libc::SYS_setfsgid, &[1001])));
        rows("file system's user");
        show("setfsuid: back", answer(call(libc::SYS_setfsuid, &[0])));
        show("setfsuid: nobody", answer(call(libc::SYS_setfsuid, &[UNCHANGED])));
        rows("file system's user, and back");
        show("setresuid", ok(set_users(1000, 1000, 1001)));
        show("setfsuid: not ours", answer(call(libc::SYS_setfsuid, &[1002])));
        show("setfsuid: saved", answer(call(libc::SYS_setfsuid, &[1001])));
        rows("file system's user, as another");
    });
    apart("fewer capabilities", fewer_capabilities);
    apart("bounding set", || {
        show("drop", ok(control(libc::PR_CAPBSET_DROP, 21)));
        show("read", answer(control(libc::PR_CAPBSET_READ, 21)));
        show("drop: unknown", ok(control(libc::PR_CAPBSET_DROP, 64)));
        rows("bounding set");
    });
    apart("no new privileges", || {
        show("set to 0", ok(control(libc::PR_SET_NO_NEW_PRIVS, 0)));
        show("set to 1", ok(control(libc::PR_SET_NO_NEW_PRIVS, 1)));
        rows("no new privileges");
    });
}

/// Runs `work` as a process of its own: what it gives up is gone.
fn apart(name: &str, work: impl FnOnce()) {
    let child = fork(|| {
        work();
        0
    });
    check(&format!("{name}: the process"), child.wait(), "exit 0");
}

fn groups() {
    show("setgroups", ok(set_groups(&[9, 3, 5])));
    rows("groups");
    let mut room = [0u32; 4];
    let get = |room: &mut [u32]| call(libc::SYS_getgroups, &[room.len(), room.as_mut_ptr() as usize]);
    show("getgroups: how many", answer(get(&mut [])));
    show("getgroups: too little room", answer(get(&mut room[..2])));
    show("getgroups", answer(get(&mut room)));
    show("getgroups: which", format_args!("{room:?}"));
    show("setgroups: too many", ok(call(libc::SYS_setgroups, &[65537, 0])));
    show("setgroups: nowhere", ok(call(libc::SYS_setgroups, &[1, 8])));
    show("setgroups: none", ok(set_groups(&[])));
    rows("no groups");
}

fn fewer_capabilities() {
    let own = status("CapPrm:").and_then(|text| u64::from_str_radix(&text, 16).ok());
    let own = own.expect("a row of status");
    show("capset", ok(set_capabilities(own & !(1 << CAP_SETUID), own, 0)));
    rows("fewer capabilities");
    show("setresuid", ok(set_users(1000, 1000, 1000)));
    show("setgroups", ok(set_groups(&[1])));
    let (fewer, inheritable) = (own & !(1 << CAP_SETGID), 1);
    show(
        "capset: effective beyond permitted",
        ok(set_capabilities(own, fewer, 0)),
    );
    show(
        "capset: inheritable",
        ok(set_capabilities(fewer, fewer, inheritable)),
    );
    rows("fewer capabilities, later");
    show("capset: back", ok(set_capabilities(own, own, 0)));
}

/// What /proc/self/status says.
fn rows(name: &str) {
    for key in ["Uid:", "Gid:", "Groups:", "NoNewPrivs:"] {
        show(&format!("{name}: {key}"), status(key).unwrap_or_default());
    }
    for key in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        let set = status(key).and_then(|text| u64::from_str_radix(&text, 16).ok());
        let set = set.map(|set| format!("{:x}", set & LOOKED_AT));
        show(&format!("{name}: {key}"), set.unwrap_or_default());
    }
}

/// What stands behind `key` in /proc/self/status.
fn status(key: &str) -> Option<String> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let row = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(row.replace('\t', " ").trim_start().to_owned())
}

fn set_users(real: usize, effective: usize, saved: usize) -> Answer {
    call(libc::SYS_setresuid, &[real, effective, saved])
}

fn set_groups(groups: &[u32]) -> Answer {
    call(libc::SYS_setgroups, &[groups.len(), groups.as_ptr() as usize])
}

fn control(what: i32, value: usize) -> Answer {
    call(libc::SYS_prctl, &[what as usize, value, 0, 0, 0])
}

fn set_capabilities(effective: u64, permitted: u64, inheritable: u64) -> Answer {
    let header = [0x2008_0522u32, 0];
    let sets = [effective, permitted, inheritable];
    let words = [sets.map(|set| set as u32), sets.map(|set| (set >> 32) as u32)];
    call(
        libc::SYS_capset,
        &[header.as_ptr() as usize, words.as_ptr() as usize],
    )
}
