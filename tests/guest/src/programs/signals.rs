//! Signals: masks, queues, what a handler is told, alternate stacks, restarts, waiting for them.
#![expect(unsafe_code, reason = "a handler looks where its stack is")]

use std::sync::atomic::{AtomicUsize, Ordering};

use guest_tests::child::fork;
use guest_tests::job::{self, until};
use guest_tests::region::*;
use guest_tests::signal::{self, Caught, caught, forget, gettid, mask, name, pending, set, tgkill};
use guest_tests::sys::{self, Answer, call};
use guest_tests::touch::{bytes, poke};
use guest_tests::transcript::{answer, ok, show};

const BLOCK: i32 = libc::SIG_BLOCK;
const SET: i32 = libc::SIG_SETMASK;

pub fn run() {
    refusals();
    told();
    queues();
    order();
    masks_of_handlers();
    one_shot();
    alternate_stack();
    restarts();
    waiting();
    suspended();
    defaults();
    exceptions();
    inherited();
}

fn kill(pid: i32, signal: i32) -> Answer<()> {
    call(libc::SYS_kill, &[pid as usize, signal as usize]).map(drop)
}

fn me() -> i32 {
    std::process::id() as i32
}

/// A delivery in words.
fn words(one: &Caught) -> String {
    format!("{} code {} value {}", name(one.signal), one.code, one.value)
}

fn refusals() {
    let action = |signal: i32, size: usize| ok(call(libc::SYS_rt_sigaction, &[signal as usize, 0, 0, size]));
    show("sigaction: signal 0", action(0, 8));
    show("sigaction: signal 65", action(65, 8));
    show("sigaction: another size of set", action(1, 16));
    show("sigaction: a query of KILL", action(libc::SIGKILL, 8));
    let new = [0usize; 4];
    let change = |signal: i32| {
        ok(call(
            libc::SYS_rt_sigaction,
            &[signal as usize, new.as_ptr() as usize, 0, 8],
        ))
    };
    show("sigaction: KILL", change(libc::SIGKILL));
    show("sigaction: STOP", change(libc::SIGSTOP));
    show(
        "sigaction: bad pointer",
        ok(call(libc::SYS_rt_sigaction, &[1, 8, 0, 8])),
    );
    show("sigprocmask: unknown way", ok(mask(9, 0)));
    show(
        "sigprocmask: size",
        ok(call(libc::SYS_rt_sigprocmask, &[0, 0, 0, 4])),
    );
    show("kill: signal 65", ok(kill(me(), 65)));
    show("kill: signal 0", ok(kill(me(), 0)));
    show("kill: no such process", ok(kill(0x3fff_fff0, 0)));
    show("tgkill: no such thread", ok(tgkill(0x3fff_fff0, 0)));
    show("tgkill: thread 0", ok(tgkill(0, 0)));
    show("tkill: negative", ok(call(libc::SYS_tkill, &[usize::MAX, 0])));
    let all = u64::MAX;
    show("sigprocmask: everything", ok(mask(SET, all)));
    let now = mask(SET, 0).unwrap_or(0);
    show("sigprocmask: what cannot be blocked", format!("{:#x}", !now));
}

/// What the handler sees of each way to send.
fn told() {
    forget();
    signal::catch(libc::SIGUSR1, 0, &[]);
    let one = |name: &str, send: &dyn Fn()| {
        forget();
        send();
        until(|| signal::count() > 0);
        let own = caught().first().map(|one| {
            let pid = one.address as u32 as i32;
            let whose = if pid == me() {
                "own pid"
            } else if pid == 0 {
                "pid 0"
            } else {
                "another pid"
            };
            format!("{} {whose}", words(one).split(" value").next().unwrap_or(""))
        });
        show(&format!("siginfo: {name}"), own.unwrap_or("nothing".into()));
    };
    one("kill", &|| kill(me(), libc::SIGUSR1).expect("it is there"));
    one("tgkill", &|| {
        tgkill(gettid(), libc::SIGUSR1).expect("it is there")
    });
    one("from a child", &|| {
        let parent = me();
        let _ = fork(|| i32::from(kill(parent, libc::SIGUSR1).is_err())).wait();
    });
    forget();
    show("sigqueue", ok(queue(libc::SIGUSR1, -1, 4711)));
    show(
        "sigqueue: the handler",
        caught().first().map(words).unwrap_or_default(),
    );
    show(
        "sigqueue: with the kernel's code, to oneself",
        ok(queue(libc::SIGUSR1, 0, 1)),
    );
    let child = fork(|| {
        let _ = call(libc::SYS_pause, &[]);
        0
    });
    show(
        "sigqueue: with the kernel's code, to another",
        ok(queue_to(child.pid, libc::SIGUSR1, 0, 1)),
    );
    show(
        "sigqueue: with SI_TKILL, to another",
        ok(queue_to(child.pid, libc::SIGUSR1, -6, 1)),
    );
    let _ = child.kill(libc::SIGKILL);
    let _ = child.wait();
    forget();
}

/// rt_sigqueueinfo to this process.
fn queue(signal: i32, code: i32, value: u64) -> Answer<()> {
    queue_to(me(), signal, code, value)
}

fn queue_to(pid: i32, signal: i32, code: i32, value: u64) -> Answer<()> {
    let mut info = [0u32; 32];
    info[0] = signal as u32;
    info[2] = code as u32;
    info[4] = me() as u32;
    info[6] = value as u32;
    info[7] = (value >> 32) as u32;
    call(
        libc::SYS_rt_sigqueueinfo,
        &[pid as usize, signal as usize, info.as_ptr() as usize],
    )
    .map(drop)
}

fn queues() {
    let (usr, real) = (libc::SIGUSR1, 40);
    signal::catch(usr, 0, &[]);
    signal::catch(real, 0, &[]);
    forget();
    mask(BLOCK, set(&[usr, real])).expect("a mask can be set");
    for value in 1..4 {
        queue(usr, -1, value).expect("a signal can be queued");
        queue(real, -1, value).expect("a signal can be queued");
    }
    show("queue: pending", format!("{:#x}", pending()));
    show("queue: nothing yet", signal::count());
    mask(SET, 0).expect("a mask can be set");
    show(
        "queue: USR1 once, the other as often as sent",
        caught().iter().map(words).collect::<Vec<_>>().join(", "),
    );
    show("queue: pending then", format!("{:#x}", pending()));
    // To the thread and to the process: two of one kind.
    forget();
    mask(BLOCK, set(&[usr])).expect("a mask can be set");
    let _ = kill(me(), usr);
    let _ = tgkill(gettid(), usr);
    mask(SET, 0).expect("a mask can be set");
    show("queue: one to the thread, one to the process", signal::count());
    // What is ignored is not kept.
    mask(BLOCK, set(&[usr])).expect("a mask can be set");
    let _ = kill(me(), usr);
    signal::handle(usr, 0, &[], libc::SIG_IGN);
    show("queue: ignored while it waits", format!("{:#x}", pending()));
    mask(SET, 0).expect("a mask can be set");
}

/// Lower numbers first.
fn order() {
    forget();
    let signals = [libc::SIGUSR2, libc::SIGUSR1, 50, 35, libc::SIGTERM, 63];
    for one in signals {
        signal::catch(one, 0, &signals);
    }
    mask(BLOCK, set(&signals)).expect("a mask can be set");
    for one in signals {
        let _ = kill(me(), one);
    }
    mask(SET, 0).expect("a mask can be set");
    // All of them are masked in each handler: one after the other, lowest first.
    show(
        "order",
        caught()
            .iter()
            .map(|one| name(one.signal))
            .collect::<Vec<_>>()
            .join(" "),
    );
    forget();
    for one in signals {
        signal::catch(one, 0, &[]);
    }
    mask(BLOCK, set(&signals)).expect("a mask can be set");
    for one in signals {
        let _ = kill(me(), one);
    }
    mask(SET, 0).expect("a mask can be set");
    show(
        "order, handlers not masked",
        caught()
            .iter()
            .map(|one| name(one.signal))
            .collect::<Vec<_>>()
            .join(" "),
    );
}

/// The mask while a handler ran.
static SEEN: AtomicUsize = AtomicUsize::new(0);

extern "C" fn look_at_mask(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    SEEN.store(mask(BLOCK, 0).unwrap_or(0) as usize, Ordering::Relaxed);
}

fn masks_of_handlers() {
    let handler = look_at_mask as *const () as usize;
    for (what, flags, with) in [
        ("plain", 0, &[][..]),
        ("NODEFER", libc::SA_NODEFER, &[][..]),
        ("with USR2", 0, &[libc::SIGUSR2][..]),
        ("NODEFER, with USR2", libc::SA_NODEFER, &[libc::SIGUSR2][..]),
    ] {
        signal::handle(libc::SIGUSR1, flags, with, handler);
        let _ = kill(me(), libc::SIGUSR1);
        show(
            &format!("mask in a handler: {what}"),
            format!("{:#x}", SEEN.load(Ordering::Relaxed)),
        );
    }
    show(
        "mask after a handler",
        format!("{:#x}", mask(BLOCK, 0).unwrap_or(1)),
    );
}

fn one_shot() {
    forget();
    let child = fork(|| {
        signal::catch(libc::SIGUSR1, libc::SA_RESETHAND, &[]);
        let _ = kill(me(), libc::SIGUSR1);
        show("RESETHAND: the first", signal::count());
        let _ = kill(me(), libc::SIGUSR1);
        0
    });
    show("RESETHAND: the second", child.wait());
}

/// Where the stack of a handler was.
static STACK: AtomicUsize = AtomicUsize::new(0);

extern "C" fn look_at_stack(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let here = 0u8;
    STACK.store(&raw const here as usize, Ordering::Relaxed);
    let mut current = [0usize; 3];
    let _ = call(libc::SYS_sigaltstack, &[0, current.as_mut_ptr() as usize]);
    SEEN.store(current[1] as u32 as usize, Ordering::Relaxed);
    // It cannot be changed from here.
    let new = [0x1000_0000usize, 0, 8192];
    let answer = call(libc::SYS_sigaltstack, &[new.as_ptr() as usize, 0]);
    CHANGED.store(
        answer.err().map_or(0, |errno| errno.0 as usize),
        Ordering::Relaxed,
    );
}

static CHANGED: AtomicUsize = AtomicUsize::new(0);

fn alternate_stack() {
    let stack = Region::anon("stack", 16);
    let alt = |start: usize, flags: usize, size: usize| {
        let new = [start, flags, size];
        ok(call(libc::SYS_sigaltstack, &[new.as_ptr() as usize, 0]))
    };
    show("altstack: too small", alt(stack.start, 0, 1024));
    show("altstack: unknown flag", alt(stack.start, 8, stack.len));
    show("altstack: bad pointer", ok(call(libc::SYS_sigaltstack, &[8, 0])));
    show("altstack: set", alt(stack.start, 0, stack.len));
    let handler = look_at_stack as *const () as usize;
    for (what, flags) in [("ONSTACK", libc::SA_ONSTACK), ("without ONSTACK", 0)] {
        signal::handle(libc::SIGUSR1, flags, &[], handler);
        let _ = kill(me(), libc::SIGUSR1);
        let inside = (stack.start..stack.end()).contains(&STACK.load(Ordering::Relaxed));
        show(&format!("altstack: {what}: the handler runs on it"), inside);
        show(
            &format!("altstack: {what}: its flags"),
            SEEN.load(Ordering::Relaxed),
        );
        show(
            &format!("altstack: {what}: change from the handler"),
            guest_tests::errno::Errno(CHANGED.load(Ordering::Relaxed) as i32),
        );
    }
    show("altstack: off", alt(0, libc::SS_DISABLE as usize, 0));
    // A stack that overflows is told on the other one; without it the process is ended.
    let child = fork(|| {
        overflow(0);
        0
    });
    show("stack overflow without an alternate stack", child.wait());
}

/// Never returns: each round takes a page of the stack.
#[expect(unconditional_recursion, reason = "the stack is to overflow")]
fn overflow(depth: usize) -> usize {
    // The handler of touches is not to hide it, so the fault is to be fatal as it is.
    let page = std::hint::black_box([depth as u8; PAGE]);
    overflow(depth + 1) + page[depth % PAGE] as usize
}

fn restarts() {
    for (what, flags) in [("plain", 0), ("SA_RESTART", libc::SA_RESTART)] {
        signal::catch(libc::SIGUSR1, flags, &[]);
        let row = |name: &str, finish: &dyn Fn(), work: fn(i32, i32) -> String, ends: (i32, i32)| {
            forget();
            let job = job::start(move || work(ends.0, ends.1));
            job.settle();
            let _ = tgkill(job.tid(), libc::SIGUSR1);
            until(|| signal::count() > 0);
            let after = job.settle();
            if after == "blocked" {
                finish();
            }
            show(
                &format!("interrupted {name}, {what}"),
                format!("{after}, {}", job.finish()),
            );
        };
        let ends = sys::pipe2(0).expect("a pipe can be made");
        let feed = || {
            let _ = sys::write(ends.1, b"x");
        };
        row(
            "read",
            &feed,
            |from, _| answer(sys::read(from, &mut [0; 1])),
            ends,
        );
        row(
            "poll",
            &feed,
            |from, _| answer(sys::poll(from, libc::POLLIN, 300)),
            ends,
        );
        row(
            "nanosleep",
            &|| (),
            |_, _| {
                ok(call(
                    libc::SYS_nanosleep,
                    &[[0u64, 200_000_000].as_ptr() as usize, 0],
                ))
            },
            ends,
        );
        row("pause", &|| (), |_, _| ok(call(libc::SYS_pause, &[])), ends);
    }
    signal::catch(libc::SIGUSR1, libc::SA_RESTART, &[]);
    forget();
    let child = fork(|| {
        let _ = call(libc::SYS_pause, &[]);
        0
    });
    let pid = child.pid;
    let waiter = job::start(move || {
        answer(call(libc::SYS_wait4, &[pid as usize, 0, 0, 0]).map(|got| got == pid as usize))
    });
    waiter.settle();
    let _ = tgkill(waiter.tid(), libc::SIGUSR1);
    until(|| signal::count() > 0);
    show("interrupted wait4, SA_RESTART", waiter.settle());
    let _ = child.kill(libc::SIGKILL);
    show("interrupted wait4, SA_RESTART: the child", waiter.finish());
}

fn waiting() {
    let signals = [libc::SIGUSR1, 41];
    signal::catch(libc::SIGUSR1, 0, &[]);
    mask(BLOCK, set(&signals)).expect("a mask can be set");
    let wait = |nanoseconds: u64| {
        let (limit, which) = ([0u64, nanoseconds], set(&signals));
        let mut info = [0u32; 32];
        let got = call(
            libc::SYS_rt_sigtimedwait,
            &[
                &raw const which as usize,
                info.as_mut_ptr() as usize,
                limit.as_ptr() as usize,
                8,
            ],
        );
        answer(got.map(|signal| {
            format!(
                "{} code {} value {}",
                name(signal as i32),
                info[2] as i32,
                info[6]
            )
        }))
    };
    show("sigtimedwait: nothing, no time", wait(0));
    show("sigtimedwait: nothing, some time", wait(3_000_000));
    let _ = queue(41, -1, 7);
    let _ = queue(libc::SIGUSR1, -1, 8);
    show("sigtimedwait: the lower", wait(0));
    show("sigtimedwait: the higher", wait(0));
    let waiter = job::start(move || {
        let which = set(&[41]);
        answer(call(
            libc::SYS_rt_sigtimedwait,
            &[&raw const which as usize, 0, 0, 8],
        ))
    });
    show("sigwaitinfo: it waits", waiter.settle());
    let _ = kill(me(), 41);
    show("sigwaitinfo: it is told", waiter.finish());
    forget();
    show("sigtimedwait: no handler runs", signal::count());
    mask(SET, 0).expect("a mask can be set");
}

fn suspended() {
    forget();
    signal::catch(libc::SIGUSR1, 0, &[]);
    mask(BLOCK, set(&[libc::SIGUSR1])).expect("a mask can be set");
    let _ = kill(me(), libc::SIGUSR1);
    let none = 0u64;
    show(
        "sigsuspend: pending",
        ok(call(libc::SYS_rt_sigsuspend, &[&raw const none as usize, 8])),
    );
    show("sigsuspend: the handler", signal::count());
    show(
        "sigsuspend: the mask is back",
        format!("{:#x}", mask(BLOCK, 0).unwrap_or(0)),
    );
    let (from, _to) = sys::pipe2(0).expect("a pipe can be made");
    for (time, seconds) in [("time", 10), ("no time", 0)] {
        waits_with_a_mask(time, [seconds, 0], from, &none);
    }
    mask(SET, 0).expect("a mask can be set");
}

/// What the waits do that take a mask, while a signal waits that the mask lets through.
fn waits_with_a_mask(time: &str, limit: [u64; 2], from: i32, mask: &u64) {
    let poll = libc::pollfd {
        fd: from,
        events: libc::POLLIN,
        revents: 0,
    };
    let (mask, limit_at) = (std::ptr::from_ref(mask) as usize, limit.as_ptr() as usize);
    let pack = [mask, 8];
    let mut event = [0u8; 12];
    let epoll = call(libc::SYS_epoll_create1, &[0]).expect("an epoll can be made") as usize;
    let milliseconds = limit[0] as usize * 1000;
    let at = event.as_mut_ptr() as usize;
    for (name, number, args) in [
        (
            "ppoll",
            libc::SYS_ppoll,
            [&raw const poll as usize, 1, limit_at, mask, 8, 0],
        ),
        (
            "pselect",
            libc::SYS_pselect6,
            [0, 0, 0, 0, limit_at, pack.as_ptr() as usize],
        ),
        (
            "epoll_pwait",
            libc::SYS_epoll_pwait,
            [epoll, at, 1, milliseconds, mask, 8],
        ),
    ] {
        let _ = kill(me(), libc::SIGUSR1);
        let before = signal::count();
        show(
            &format!("{name} with a mask, {time}: pending"),
            answer(call(number, &args)),
        );
        show(
            &format!("{name} with a mask, {time}: handlers"),
            signal::count() - before,
        );
    }
    let _ = sys::close(epoll as i32);
}

/// What signals do that nobody handles.
fn defaults() {
    for signal in [
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 23, 24, 25, 26, 27, 28, 29, 30, 31,
        34, 64,
    ] {
        let child = fork(|| {
            signal::handle(signal, 0, &[], libc::SIG_DFL);
            let _ = kill(me(), signal);
            7
        });
        show(&format!("default of {}", name(signal)), child.wait());
    }
}

/// Signals of instructions.
fn exceptions() {
    let child = |name: &str, work: fn()| {
        let child = fork(|| {
            for signal in [libc::SIGSEGV, libc::SIGBUS] {
                signal::handle(signal, 0, &[], libc::SIG_DFL);
            }
            work();
            0
        });
        show(&format!("instruction: {name}"), child.wait());
    };
    /// Runs these instructions.
    macro_rules! instruction {
        ($name:literal: $($line:literal),*) => {
            // SAFETY: each of them raises a signal that ends the process; nothing runs behind it.
            child($name, || unsafe {
                core::arch::asm!($($line),*, out("rax") _, out("rcx") _, out("rdx") _)
            })
        };
    }
    instruction!("ud2": "ud2");
    instruction!("int3": "int3");
    instruction!("hlt": "hlt");
    instruction!("cli": "cli");
    instruction!("in": "in al, 0x60");
    instruction!("division by zero": "xor edx, edx", "xor ecx, ecx", "div ecx");
    instruction!("a load that is not canonical": "mov rax, 0x8000000000000000", "mov rax, [rax]");
    instruction!("a load from the kernel": "mov rax, 0xffffffff80000000", "mov rax, [rax]");
    instruction!("a jump into the kernel": "mov rax, 0xffffffff80000000", "jmp rax");
    instruction!("a jump to nowhere": "xor eax, eax", "jmp rax");
    instruction!("int 0x21": "int 0x21");
    instruction!("int 0x0e": "int 0x0e");
    instruction!("wrmsr": "xor eax, eax", "mov ecx, 0x10", "wrmsr");
    instruction!("mov to cr3": "xor eax, eax", "mov cr3, rax");
    instruction!("trap flag": "pushfq", "or dword ptr [rsp], 0x100", "popfq", "nop");
    instruction!("iret to the kernel": "push 0", "push 0", "push 0x202", "push 0x8", "push 0", "iretq");
}

/// What a child has of it.
fn inherited() {
    forget();
    signal::catch(libc::SIGUSR1, 0, &[]);
    mask(BLOCK, set(&[libc::SIGUSR1])).expect("a mask can be set");
    let _ = kill(me(), libc::SIGUSR1);
    let child = fork(|| {
        show("fork: the mask", format!("{:#x}", mask(BLOCK, 0).unwrap_or(0)));
        show("fork: pending", format!("{:#x}", pending()));
        let _ = kill(me(), libc::SIGUSR1);
        let _ = mask(SET, 0);
        show("fork: the handler", signal::count());
        0
    });
    show("fork: the child", child.wait());
    mask(SET, 0).expect("a mask can be set");
    show("fork: the parent's", signal::count());
    let area = Region::anon("info", 1);
    poke(area.start, 0);
    show("fork: nothing of it is shared", bytes(area.start, 1)[0]);
}
