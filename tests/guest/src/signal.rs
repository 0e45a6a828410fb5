//! Signals: names, and handlers that only note what they were told.
#![expect(unsafe_code, reason = "handlers and masks are libc's")]

use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use crate::sys::{self, Answer};

/// How many deliveries are kept.
const KEPT: usize = 64;

/// One delivery, as the handler saw it.
struct Slot {
    signal: AtomicI32,
    code: AtomicI32,
    value: AtomicUsize,
    address: AtomicUsize,
    tid: AtomicI32,
    errno: AtomicI32,
}

static SLOTS: [Slot; KEPT] = [const {
    Slot {
        signal: AtomicI32::new(0),
        code: AtomicI32::new(0),
        value: AtomicUsize::new(0),
        address: AtomicUsize::new(0),
        tid: AtomicI32::new(0),
        errno: AtomicI32::new(0),
    }
}; KEPT];

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// A delivery that a handler has noted.
#[derive(Clone, Copy, Debug)]
pub struct Caught {
    /// Which signal.
    pub signal: i32,
    /// `si_code`.
    pub code: i32,
    /// `si_value` as an integer.
    pub value: usize,
    /// `si_addr`, and also the pair of pid and uid: the meaning is the code's.
    pub address: usize,
    /// Thread that handled it.
    pub tid: i32,
    /// `si_errno`.
    pub errno: i32,
}

extern "C" fn note(signal: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let tid = sys::call(libc::SYS_gettid, &[]).unwrap_or(0) as i32;
    let index = COUNT.fetch_add(1, Ordering::AcqRel);
    let Some(slot) = SLOTS.get(index) else { return };
    // SAFETY: the kernel passes a pointer to a siginfo on this stack, 128 bytes long.
    let (code, errno, value, address) = unsafe {
        let info = &*info;
        (
            info.si_code,
            info.si_errno,
            info.si_value().sival_ptr as usize,
            info.si_addr() as usize,
        )
    };
    slot.code.store(code, Ordering::Relaxed);
    slot.errno.store(errno, Ordering::Relaxed);
    slot.value.store(value, Ordering::Relaxed);
    slot.address.store(address, Ordering::Relaxed);
    slot.tid.store(tid, Ordering::Relaxed);
    slot.signal.store(signal, Ordering::Release);
}

/// Has deliveries of `signal` noted. `flags` go to sigaction(2) beside SA_SIGINFO; signals of `mask` wait meanwhile.
pub fn catch(signal: i32, flags: i32, mask: &[i32]) {
    handle(signal, flags, mask, note as *const () as usize);
}

/// Has `signal` handled by the function at `handler`, or by SIG_IGN or SIG_DFL.
pub fn handle(signal: i32, flags: i32, mask: &[i32], handler: usize) {
    // SAFETY: the structure is plain data; the handler is one of this crate's or the program's, and fits SA_SIGINFO.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags | libc::SA_SIGINFO;
        for other in mask {
            libc::sigaddset(&mut action.sa_mask, *other);
        }
        libc::sigaction(signal, &action, std::ptr::null_mut());
    }
}

/// What handlers have noted so far, oldest first.
pub fn caught() -> Vec<Caught> {
    let read = |slot: &Slot| Caught {
        signal: slot.signal.load(Ordering::Acquire),
        code: slot.code.load(Ordering::Relaxed),
        value: slot.value.load(Ordering::Relaxed),
        address: slot.address.load(Ordering::Relaxed),
        tid: slot.tid.load(Ordering::Relaxed),
        errno: slot.errno.load(Ordering::Relaxed),
    };
    SLOTS[..count().min(KEPT)].iter().map(read).collect()
}

/// How many deliveries were noted.
pub fn count() -> usize {
    COUNT.load(Ordering::Acquire)
}

/// Forgets what was noted.
pub fn forget() {
    COUNT.store(0, Ordering::Release);
}

/// The set that holds these signals, as the kernel keeps it: bit n - 1 is signal n.
pub fn set(signals: &[i32]) -> u64 {
    signals.iter().fold(0, |set, signal| set | 1 << (signal - 1))
}

/// rt_sigprocmask(2); answers the old mask.
pub fn mask(how: i32, set: u64) -> Answer<u64> {
    let mut old = 0u64;
    sys::call(
        libc::SYS_rt_sigprocmask,
        &[how as usize, &raw const set as usize, &raw mut old as usize, 8],
    )?;
    Ok(old)
}

/// The set of pending signals.
pub fn pending() -> u64 {
    let mut set = 0u64;
    let _ = sys::call(libc::SYS_rt_sigpending, &[&raw mut set as usize, 8]);
    set
}

/// Sends `signal` to a thread of this process.
pub fn tgkill(tid: i32, signal: i32) -> Answer<()> {
    let pid = std::process::id() as usize;
    sys::call(libc::SYS_tgkill, &[pid, tid as usize, signal as usize]).map(drop)
}

/// This thread.
pub fn gettid() -> i32 {
    sys::call(libc::SYS_gettid, &[]).unwrap_or(0) as i32
}

/// The signal's name.
pub fn name(signal: i32) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    match signal {
        1..=31 => format!("SIG{}", NAMES[signal as usize - 1]),
        32..=64 => format!("RT+{}", signal - 32),
        _ => format!("signal {signal}"),
    }
}
