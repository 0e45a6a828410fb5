//! What belongs to a thread's machine state: floating point over switches and signals, thread-local storage, bases, and
//! the calls that concern threads and processors.
#![expect(unsafe_code, reason = "registers are looked at")]

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

use guest_tests::child::fork;
use guest_tests::job;
use guest_tests::region::*;
use guest_tests::signal;
use guest_tests::sys::{Answer, call};
use guest_tests::touch::{peek, poke};
use guest_tests::transcript::{answer, ok, show};

pub fn run() {
    over_switches();
    over_signals();
    control_words();
    bases();
    thread_local();
    registers_over_calls();
    robust_lists();
    affinity();
    scheduling();
    barriers();
    other_memory();
    restartable();
}

/// Fills the vector registers from `before`, yields the processor `yields` times and waits until `*flag` is not zero, all
/// without a function in between that could use them, and says whether they are the same then.
fn vectors_stay(seed: u64, yields: u64, flag: &AtomicU32) -> bool {
    let before: [[u64; 2]; 16] =
        std::array::from_fn(|index| [seed + index as u64, !(seed * 3 + index as u64)]);
    let mut after = [[0u64; 2]; 16];
    // SAFETY: the two arrays have room for sixteen registers each; every register that is changed is named.
    unsafe {
        core::arch::asm!(
            "movups xmm0, [rsi]", "movups xmm1, [rsi+16]", "movups xmm2, [rsi+32]", "movups xmm3, [rsi+48]",
            "movups xmm4, [rsi+64]", "movups xmm5, [rsi+80]", "movups xmm6, [rsi+96]", "movups xmm7, [rsi+112]",
            "movups xmm8, [rsi+128]", "movups xmm9, [rsi+144]", "movups xmm10, [rsi+160]", "movups xmm11, [rsi+176]",
            "movups xmm12, [rsi+192]", "movups xmm13, [rsi+208]", "movups xmm14, [rsi+224]", "movups xmm15, [rsi+240]",
            // 24 is sched_yield.
            "2: mov eax, 24",
            "syscall",
            "dec r12",
            "jnz 2b",
            "3: pause",
            "cmp dword ptr [r13], 0",
            "je 3b",
            "movups [rdi], xmm0", "movups [rdi+16], xmm1", "movups [rdi+32], xmm2", "movups [rdi+48], xmm3",
            "movups [rdi+64], xmm4", "movups [rdi+80], xmm5", "movups [rdi+96], xmm6", "movups [rdi+112], xmm7",
            "movups [rdi+128], xmm8", "movups [rdi+144], xmm9", "movups [rdi+160], xmm10", "movups [rdi+176], xmm11",
            "movups [rdi+192], xmm12", "movups [rdi+208], xmm13", "movups [rdi+224], xmm14", "movups [rdi+240], xmm15",
            in("rsi") before.as_ptr(),
            in("rdi") after.as_mut_ptr(),
            in("r13") flag.as_ptr(),
            inout("r12") yields => _,
            out("rax") _, out("rcx") _, out("r11") _,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _, out("xmm6") _,
            out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _, out("xmm12") _,
            out("xmm13") _, out("xmm14") _, out("xmm15") _,
        );
    }
    before == after
}

/// Up at once: for those who wait for nothing.
static UP: AtomicU32 = AtomicU32::new(1);

fn over_switches() {
    let jobs: Vec<_> = (0..6)
        .map(|seed| job::start(move || vectors_stay(seed * 1_000_003 + 7, 500, &UP)))
        .collect();
    show(
        "vectors over switches",
        jobs.iter().map(job::Job::finish).collect::<Vec<_>>().join(" "),
    );
    let own = vectors_stay(42, 10, &UP);
    let child = fork(|| i32::from(!vectors_stay(43, 50, &UP)));
    show("vectors over fork", format!("{own} {}", child.wait()));
}

/// Raised by the handler below.
static HANDLED: AtomicU32 = AtomicU32::new(0);

/// Changes every vector register and the flags.
extern "C" fn spoil(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the registers that a handler may change are put back when it returns.
    unsafe {
        core::arch::asm!(
            "pcmpeqd xmm0, xmm0", "movaps xmm1, xmm0", "movaps xmm2, xmm0", "movaps xmm3, xmm0", "movaps xmm4, xmm0",
            "movaps xmm5, xmm0", "movaps xmm6, xmm0", "movaps xmm7, xmm0", "movaps xmm8, xmm0", "movaps xmm9, xmm0",
            "movaps xmm10, xmm0", "movaps xmm11, xmm0", "movaps xmm12, xmm0", "movaps xmm13, xmm0",
            "movaps xmm14, xmm0", "movaps xmm15, xmm0",
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _, out("xmm6") _,
            out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _, out("xmm12") _,
            out("xmm13") _, out("xmm14") _, out("xmm15") _,
        );
    }
    HANDLED.fetch_add(1, Ordering::Release);
}

fn over_signals() {
    signal::handle(libc::SIGUSR1, 0, &[], spoil as *const () as usize);
    let waiting = job::start(|| vectors_stay(99, 1, &HANDLED));
    std::thread::yield_now();
    signal::tgkill(waiting.tid(), libc::SIGUSR1).expect("the thread is there");
    show("vectors over a handler that uses them", waiting.finish());
    show("the handler ran", HANDLED.load(Ordering::Acquire));
}

fn control_words() {
    let words = || {
        let (mut x87, mut sse) = (0u16, 0u32);
        // SAFETY: the control words are stored to two variables.
        unsafe {
            core::arch::asm!("fnstcw [{0}]", "stmxcsr [{1}]", in(reg) &raw mut x87, in(reg) &raw mut sse);
        }
        format!("{x87:#x} {sse:#x}")
    };
    show(
        "control words at the start of a thread",
        job::start(words).finish(),
    );
    let (x87, sse) = (0x0f7fu16, 0x7f80u32);
    // SAFETY: rounding changes for this thread alone, and is put back below.
    unsafe {
        core::arch::asm!("fldcw [{0}]", "ldmxcsr [{1}]", in(reg) &raw const x87, in(reg) &raw const sse);
    }
    show("control words that were set", words());
    let _ = call(libc::SYS_sched_yield, &[]);
    show("control words after a call", words());
    let child = fork(|| {
        show("control words of a child", words());
        0
    });
    show("control words: the child", child.wait());
    let (x87, sse) = (0x037fu16, 0x1f80u32);
    // SAFETY: as above.
    unsafe {
        core::arch::asm!("fldcw [{0}]", "ldmxcsr [{1}]", in(reg) &raw const x87, in(reg) &raw const sse);
    }
}

fn bases() {
    const SET_GS: usize = 0x1001;
    const SET_FS: usize = 0x1002;
    const GET_FS: usize = 0x1003;
    const GET_GS: usize = 0x1004;
    let arch = |code: usize, address: usize| call(libc::SYS_arch_prctl, &[code, address]);
    let mut base = 0usize;
    let at = &raw mut base as usize;
    show("arch_prctl: GET_FS", ok(arch(GET_FS, at)));
    show("arch_prctl: FS is not 0", base != 0);
    show("arch_prctl: GET_GS", ok(arch(GET_GS, at)));
    show("arch_prctl: GS", base);
    let area = Region::anon("area", 1);
    poke(area.start + 8, 0x5a);
    show("arch_prctl: SET_GS", ok(arch(SET_GS, area.start)));
    let through: u8;
    // SAFETY: GS points to a region of the program's own.
    unsafe { core::arch::asm!("mov {0}, gs:[8]", out(reg_byte) through) }
    show("a load through GS", format!("{through:#x}"));
    let _ = call(libc::SYS_sched_yield, &[]);
    let _ = arch(GET_GS, at);
    show("GS over a switch", base == area.start);
    let other = job::start(move || {
        let mut base = 1usize;
        let _ = call(libc::SYS_arch_prctl, &[GET_GS, &raw mut base as usize]);
        base
    });
    show(
        "GS of a new thread is its maker's",
        other.finish() == area.start.to_string(),
    );
    show(
        "arch_prctl: SET_GS to the kernel",
        ok(arch(SET_GS, 0xffff_8000_0000_0000)),
    );
    show(
        "arch_prctl: SET_FS to the kernel",
        ok(arch(SET_FS, 0xffff_8000_0000_0000)),
    );
    show("arch_prctl: unknown", ok(arch(0x7777, 0)));
    show("arch_prctl: bad pointer", ok(arch(GET_FS, 8)));
    let _ = arch(SET_GS, 0);
}

thread_local! {
    /// A word of each thread's own.
    static OWN: Cell<u64> = const { Cell::new(5) };
}

fn thread_local() {
    OWN.set(6);
    let others: Vec<_> = (0..4)
        .map(|index| {
            job::start(move || {
                let before = OWN.get();
                OWN.set(before + index);
                for _ in 0..50 {
                    std::thread::yield_now();
                }
                OWN.get()
            })
        })
        .collect();
    show(
        "thread-local words",
        others.iter().map(job::Job::finish).collect::<Vec<_>>().join(" "),
    );
    show("thread-local: the first thread's", OWN.get());
    let child = fork(|| OWN.get() as i32);
    show("thread-local: a child's", child.wait());
}

/// What a system call may change: rax, rcx and r11.
fn registers_over_calls() {
    let (mut rbx_rbp_kept, mut rest) = (0u64, [0u64; 8]);
    // SAFETY: getpid changes no memory; every register that is changed is named, rbx is put back.
    unsafe {
        core::arch::asm!(
            "mov r14, rbx",
            "mov rbx, 0x1111",
            "mov rdi, 0x2222", "mov rsi, 0x3333", "mov rdx, 0x4444", "mov r8, 0x5555", "mov r9, 0x6666",
            "mov r10, 0x7777", "mov r12, 0x8888", "mov r13, 0x9999",
            "mov eax, 39",
            "syscall",
            "mov [r15], rdi", "mov [r15+8], rsi", "mov [r15+16], rdx", "mov [r15+24], r8", "mov [r15+32], r9",
            "mov [r15+40], r10", "mov [r15+48], r12", "mov [r15+56], r13",
            "mov rax, rbx",
            "mov rbx, r14",
            in("r15") rest.as_mut_ptr(),
            lateout("rax") rbx_rbp_kept,
            out("rcx") _, out("r11") _, out("rdi") _, out("rsi") _, out("rdx") _, out("r8") _, out("r9") _,
            out("r10") _, out("r12") _, out("r13") _, out("r14") _,
        );
    }
    show("registers over a call", format!("{rbx_rbp_kept:x} {rest:x?}"));
    let flags: u64;
    // SAFETY: the direction flag is set for one call, and cleared again.
    unsafe {
        core::arch::asm!(
            "std", "mov eax, 39", "syscall", "pushfq", "pop {0}", "cld",
            out(reg) flags, out("rax") _, out("rcx") _, out("r11") _,
        );
    }
    show("the direction flag over a call", flags >> 10 & 1);
}

fn robust_lists() {
    show(
        "set_robust_list: another size",
        ok(call(libc::SYS_set_robust_list, &[0, 8])),
    );
    let (mut head, mut size) = (0usize, 0usize);
    let get = |pid: usize, head: &mut usize, size: &mut usize| {
        ok(call(
            libc::SYS_get_robust_list,
            &[pid, head as *mut usize as usize, size as *mut usize as usize],
        ))
    };
    show("get_robust_list", get(0, &mut head, &mut size));
    show("get_robust_list: its size", size);
    show(
        "get_robust_list: no such thread",
        get(0x3fff_fff0, &mut head, &mut size),
    );
    // A thread that ends while it holds a lock: the word says so, and one waiter is woken.
    let area = Region::common("lock");
    let (list, lock) = (area.start, area.start + 64);
    let child = fork(|| {
        let tid = signal::gettid() as u32;
        let store = |at: usize, value: u64| {
            for (index, byte) in value.to_le_bytes().into_iter().enumerate() {
                poke(at + index, byte);
            }
        };
        // head: next, offset of the word, pending; the entry is at the lock + 8.
        store(list, lock as u64 + 8);
        store(list + 8, 8u64.wrapping_neg());
        store(list + 16, 0);
        store(lock + 8, list as u64);
        for (index, byte) in (tid | 0x8000_0000).to_le_bytes().into_iter().enumerate() {
            poke(lock + index, byte);
        }
        call(libc::SYS_set_robust_list, &[list, 24]).map_or(1, |_| 0)
    });
    show("robust list: its owner ends", child.wait());
    let word = guest_tests::touch::bytes(lock, 4);
    let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
    show("robust list: owner died, somebody waits", format!("{word:#x}"));
}

fn affinity() {
    let get = |pid: usize, size: usize| -> Answer<u32> {
        let mut mask = [0u64; 32];
        let got = call(
            libc::SYS_sched_getaffinity,
            &[pid, size, mask.as_mut_ptr() as usize],
        )?;
        Ok(mask[..got / 8].iter().map(|word| word.count_ones()).sum())
    };
    show(
        "sched_getaffinity: some processor",
        get(0, 256).is_ok_and(|count| count > 0),
    );
    show("sched_getaffinity: too small", answer(get(0, 0)));
    show("sched_getaffinity: not in words", answer(get(0, 9)));
    show("sched_getaffinity: no such thread", answer(get(0x3fff_fff0, 256)));
    let set = |mask: u64| {
        ok(call(
            libc::SYS_sched_setaffinity,
            &[0, 8, &raw const mask as usize],
        ))
    };
    let child = fork(|| {
        show("sched_setaffinity: the first", set(1));
        show("sched_setaffinity: then", answer(get(0, 256)));
        show("sched_setaffinity: none", set(0));
        show("sched_setaffinity: one that is not there", set(1 << 63));
        let mut cpu = 99u32;
        show(
            "getcpu",
            ok(call(libc::SYS_getcpu, &[&raw mut cpu as usize, 0, 0])),
        );
        show("getcpu: it is that one", cpu);
        0
    });
    show("sched_setaffinity: the child", child.wait());
}

fn scheduling() {
    show("sched_yield", ok(call(libc::SYS_sched_yield, &[])));
    show(
        "sched_getscheduler",
        answer(call(libc::SYS_sched_getscheduler, &[0])),
    );
    show(
        "sched_getscheduler: no such thread",
        answer(call(libc::SYS_sched_getscheduler, &[0x3fff_fff0])),
    );
    show(
        "sched_get_priority_max of FIFO",
        answer(call(libc::SYS_sched_get_priority_max, &[1])),
    );
    show(
        "sched_get_priority_min of OTHER",
        answer(call(libc::SYS_sched_get_priority_min, &[0])),
    );
    show(
        "sched_get_priority_max: unknown",
        answer(call(libc::SYS_sched_get_priority_max, &[99])),
    );
    show("getpriority", answer(call(libc::SYS_getpriority, &[0, 0])));
    let child = fork(|| {
        show("setpriority", ok(call(libc::SYS_setpriority, &[0, 0, 5])));
        show("getpriority: then", answer(call(libc::SYS_getpriority, &[0, 0])));
        0
    });
    show("setpriority: the child", child.wait());
}

fn barriers() {
    let barrier = |command: usize, flags: usize| answer(call(libc::SYS_membarrier, &[command, flags, 0]));
    show(
        "membarrier: a query",
        call(libc::SYS_membarrier, &[0, 0, 0]).is_ok_and(|commands| commands & 0x19 == 0x19),
    );
    show("membarrier: global", barrier(1, 0));
    show("membarrier: private, not registered", barrier(8, 0));
    show("membarrier: register", barrier(16, 0));
    show("membarrier: private", barrier(8, 0));
    show("membarrier: unknown", barrier(1 << 20, 0));
    show("membarrier: unknown flag", barrier(8, 2));
}

/// process_vm_readv and its twin.
fn other_memory() {
    let (from, to) = (Region::anon("from", 4), Region::anon("to", 4));
    from.fill(0, 4, 0x31);
    to.fill(0, 4, 0);
    let copy = |number: i64, pid: usize, local: &[[usize; 2]], remote: &[[usize; 2]], flags: usize| {
        let (local_at, remote_at) = (local.as_ptr() as usize, remote.as_ptr() as usize);
        answer(call(
            number,
            &[pid, local_at, local.len(), remote_at, remote.len(), flags],
        ))
    };
    let own = std::process::id() as usize;
    let (read, write) = (libc::SYS_process_vm_readv, libc::SYS_process_vm_writev);
    show(
        "process_vm_readv",
        copy(read, own, &[[to.start, 5000]], &[[from.start, 5000]], 0),
    );
    show("process_vm_readv: what came", peek(to.start + 4999));
    show(
        "process_vm_readv: several",
        copy(
            read,
            own,
            &[[to.start, 10], [to.page(1), 10]],
            &[[from.start, 5], [from.page(2), 30]],
            0,
        ),
    );
    show(
        "process_vm_readv: unknown flag",
        copy(read, own, &[[to.start, 1]], &[[from.start, 1]], 1),
    );
    show(
        "process_vm_readv: no such process",
        copy(read, 0x3fff_fff0, &[[to.start, 1]], &[[from.start, 1]], 0),
    );
    show(
        "process_vm_readv: the other side is bad",
        copy(read, own, &[[to.start, 1]], &[[8, 1]], 0),
    );
    show(
        "process_vm_readv: this side is bad",
        copy(read, own, &[[8, 1]], &[[from.start, 1]], 0),
    );
    show(
        "process_vm_readv: the second is bad",
        copy(read, own, &[[to.start, 20]], &[[from.start, 10], [8, 10]], 0),
    );
    let edge = [[from.page(3), 8192]];
    show(
        "process_vm_readv: across the end",
        copy(read, own, &[[to.start, 8192]], &edge, 0),
    );
    show(
        "process_vm_writev",
        copy(write, own, &[[from.start, 100]], &[[to.page(3), 100]], 0),
    );
    mprotect(to.start, PAGE, libc::PROT_READ).expect("mprotect works");
    show(
        "process_vm_writev: read-only",
        copy(write, own, &[[from.start, 100]], &[[to.start, 100]], 0),
    );
    let child = fork(|| {
        from.fill(0, 1, 0x77);
        signal::mask(libc::SIG_BLOCK, signal::set(&[libc::SIGUSR1])).expect("a mask can be set");
        let which = signal::set(&[libc::SIGUSR1]);
        call(libc::SYS_rt_sigtimedwait, &[&raw const which as usize, 0, 0, 8]).map_or(1, |_| 0)
    });
    job::until(|| guest_tests::proc::process_state(child.pid) == Some('S'));
    show(
        "process_vm_readv: of a child",
        copy(
            read,
            child.pid as usize,
            &[[to.page(2), 1]],
            &[[from.start, 1]],
            0,
        ),
    );
    show("process_vm_readv: what the child has", peek(to.page(2)));
    let _ = child.kill(libc::SIGUSR1);
    show("process_vm_readv: the child", child.wait());
}

/// Registration alone; what it is for depends on how often a thread is moved.
fn restartable() {
    let area = Region::filled("rseq", 1, 0);
    let child = fork(|| {
        let rseq =
            |at: usize, len: usize, flags: usize| ok(call(libc::SYS_rseq, &[at, len, flags, 0x5305_3053]));
        show("rseq: not aligned", rseq(area.start + 4, 32, 0));
        show("rseq: a length that is not its", rseq(area.start, 31, 0));
        show("rseq: unknown flag", rseq(area.start, 32, 2));
        show("rseq: unregister what is not registered", rseq(area.start, 32, 1));
        show("rseq: register", rseq(area.start, 32, 0));
        show("rseq: again", rseq(area.start, 32, 0));
        let _ = call(libc::SYS_sched_yield, &[]);
        show(
            "rseq: the processor is told",
            peek(area.start + 4) != guest_tests::touch::Touch::Byte(0xff),
        );
        show("rseq: unregister", rseq(area.start, 32, 1));
        0
    });
    show("rseq: the child", child.wait());
}
