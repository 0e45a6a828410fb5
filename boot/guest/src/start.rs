//! From the door to the task that carries out the command line.

use core::fmt::{Display, Write};
use core::panic::PanicInfo;

use arrayvec::ArrayString;
use kernel::abi::guest;
use kernel::arch::x86_64::{self as machine, image};
use kernel::arch::{Cpu, Machine};
use kernel::bootinfo::BootInfo;
use kernel::guest::calls;
use kernel::sync::Once;
use kernel::trace::record::ExitStatus;
use kernel::{mm, task, trace};

use crate::commands;

static BOOT_INFO: Once<(BootInfo, guest::BootInfo)> = Once::new();

/// Keeps what is known and leaves the hypervisor's stack.
pub fn enter(mut info: BootInfo, given: guest::BootInfo) -> ! {
    info.image = image::segments();
    info.boot_stack = image::boot_stack();
    BOOT_INFO.call_once(|| (info, given));
    image::on_boot_stack(kernel_main)
}

extern "C" fn kernel_main() -> ! {
    let (info, given) = BOOT_INFO.get().expect("`enter` has set it");
    trace::start(&info.cmdline);
    machine::init_cpu();
    check(info);
    machine::clock::told(given.frequency);
    own_memory(info);
    if let Err(reason) = machine::init_timer() {
        fail("the timer", reason);
    }
    start_tasks(info, given)
}

/// Ends the run when this is nobody's guest, or it cannot be understood what is asked of it.
fn check(info: &BootInfo) {
    if !calls::is_guest() || info.memory.is_empty() {
        fail("hypervisor", "this image runs as a guest of Faultline's only");
    }
    if let Some(problem) = &info.cmdline_problem {
        let mut message = ArrayString::<160>::new();
        // What does not fit is cut.
        let _ = write!(message, "{problem}");
        trace::end(ExitStatus::Usage, &message);
    }
}

#[expect(unsafe_code, reason = "hands the machine's memory over")]
fn own_memory(info: &BootInfo) {
    // SAFETY: called once, on the only CPU; the door gives as usable what the hypervisor calls free, and says how far the
    // direct map reaches.
    if let Err(reason) = unsafe { mm::init::init(info) } {
        fail("memory", reason);
    }
}

/// Starts the first task and becomes the idle task.
fn start_tasks(info: &'static BootInfo, given: &'static guest::BootInfo) -> ! {
    task::idle::set_deadlock_hook(|text| trace::end(ExitStatus::Failed, text));
    if let Err(reason) = task::init() {
        fail("tasks", reason);
    }
    // The level that a CPU starts with: there are tasks to preempt for now.
    Machine::preempt_enable();
    if let Err(reason) = task::spawn("command", None, move || commands::main(&info.cmdline, given)) {
        fail("the first task", reason);
    }
    task::idle::run()
}

/// Ends a run that cannot begin, with a reason that needs no heap.
fn fail(what: &str, reason: impl Display) -> ! {
    let mut message = ArrayString::<160>::new();
    // What does not fit is cut; the sentence begins with what matters.
    let _ = write!(message, "the guest cannot start: {what}: {reason}");
    trace::end(ExitStatus::Failed, &message)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    trace::panic::panic(info)
}
