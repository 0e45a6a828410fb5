//! Ways to crash, for the tests of the crash reports: `crash how=...`.
#![expect(unsafe_code, reason = "does what must not be done")]

use alloc::sync::Arc;
use core::arch::asm;
use core::time::Duration;

use kernel::arch::{Cpu, Irq, Machine};
use kernel::drivers::exit;
use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::memtype::anon::ANON;
use kernel::mm::pt::Prot;
use kernel::mm::space::{MapRequest, Memory, Privilege, Space};
use kernel::mm::uaccess;
use kernel::sync::SpinLock;
use kernel::task::{self, Task};
use kernel::uffd::{Features, FillMode, Modes, Uffd};

/// Crashes in the way called `how`; returns when there is none of that name.
pub fn by(how: &str) {
    let wild = core::ptr::with_exposed_provenance_mut::<u64>(0x1234_5678_9000);
    let kernel = core::ptr::with_exposed_provenance_mut::<u64>(0xffff_f123_4567_8000);
    // SAFETY: none of this is sound; each line ends in an exception.
    unsafe {
        match how {
            "panic" => panic!("asked to"),
            "twice" => panic!("asked to, {}", Panics),
            "divide" => {
                asm!("xor edx, edx", "xor ecx, ecx", "div ecx", out("eax") _, out("ecx") _, out("edx") _)
            }
            "opcode" => asm!("ud2"),
            "protection" => asm!("mov {0}, 0x1234000000000000", "mov {0}, [{0}]", out(reg) _),
            "segment" => asm!("mov {0:e}, 0x58", "mov fs, {0:e}", out(reg) _),
            "null" => read(core::ptr::with_exposed_provenance(8)),
            "wild" => wild.write_volatile(1),
            "kernel" => read(kernel),
            "irqoff" => {
                Machine::disable();
                wild.write_volatile(1);
            }
            "locked" => {
                Machine::preempt_disable();
                wild.write_volatile(1);
            }
            "fetch" => core::mem::transmute::<*mut u64, fn()>(wild)(),
            "breakpoint" => asm!("int3"),
            "stack" => {
                overflow(0);
            }
            "deadlock" => deadlock(),
            "sleeplocked" => {
                let lock = SpinLock::new(());
                let _guard = lock.lock();
                task::park();
            }
            "triple" => exit::triple_fault(),
            "hang" => loop {
                Machine::wait_for_interrupt();
            },
            "deaf" => {
                Machine::disable();
                loop {
                    core::hint::spin_loop();
                }
            }
            "stuck" => {
                let _held = stuck();
                loop {
                    task::yield_now();
                }
            }
            "stuckpanic" => {
                let _held = stuck();
                task::sleep(Duration::from_millis(1500));
                panic!("asked to, with a task that waits for a page")
            }
            "stuckdeadlock" => {
                let held = stuck();
                held.map(|(_, waiter)| waiter.join());
            }
            _ => {}
        }
    }
}

/// Panics when it is printed.
struct Panics;

impl core::fmt::Display for Panics {
    fn fmt(&self, _: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        panic!("asked to, again")
    }
}

/// What keeps a stuck task stuck: the context, and the task.
type Stuck = (Uffd, Arc<Task>);

/// A task that waits for a page which is there by now: its message was read, and the fill that came too late woke nobody.
fn stuck() -> Option<Stuck> {
    let space = Space::new(Privilege::Kernel).ok()?;
    let request = MapRequest {
        at: None,
        len: PAGE_SIZE,
        prot: Prot::READ,
        memory: Memory::Own(&ANON),
    };
    let range = space.map(request).ok()?;
    let uffd = Uffd::new(&space, Features::empty());
    uffd.register(range, Modes::MISSING).ok()?;
    let waiter = task::spawn("stuck", Some(space), move || {
        let _ = uaccess::load(range.start);
    })
    .ok()?;
    uffd.read_event().ok()?;
    // As if somebody else had filled the page and left the waking to the reader, who thinks that it is done.
    let _ = uffd.zeropage(range, FillMode::DONTWAKE);
    let _ = uffd.zeropage(range, FillMode::empty());
    Some((uffd, waiter))
}

/// Waits for the end of a task that waits for a wake-up that never comes.
fn deadlock() {
    if let Ok(other) = task::spawn("sleeper", None, task::park) {
        other.join();
    }
}

/// # Safety
/// There is none: `at` is where nothing is mapped.
unsafe fn read(at: *const u64) {
    // SAFETY: see above.
    let _: u64 = unsafe { at.read_volatile() };
}

#[expect(unconditional_recursion, reason = "overflows the stack")]
#[inline(never)]
fn overflow(depth: u64) -> u64 {
    core::hint::black_box(overflow(core::hint::black_box(depth) + 1)) + 1
}
