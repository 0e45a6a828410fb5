//! From either door to the first task.

#![expect(unsafe_code, reason = "hands the machine's memory over")]

use core::fmt::{Display, Write};
use core::panic::PanicInfo;

use arrayvec::ArrayString;
use kernel::arch::x86_64::{self as machine, features, image};
use kernel::arch::{Cpu, Machine};
use kernel::bootinfo::{BootInfo, cmdline};
use kernel::drivers::loader_memory;
use kernel::drivers::ramdisk::Ramdisk;
use kernel::println;
use kernel::sync::Once;
use kernel::trace::record::ExitStatus;
use kernel::{mm, task, trace};

use crate::apps;

static BOOT_INFO: Once<BootInfo> = Once::new();

/// Where both doors meet: keeps what is known and leaves the loader's stack.
pub fn enter(mut info: BootInfo) -> ! {
    info.image = image::segments();
    info.boot_stack = image::boot_stack();
    if info.cmdline.is_empty() && info.cmdline_problem.is_none() {
        (info.cmdline, info.cmdline_problem) = cmdline::parse(cmdline_of_ramdisk(&info));
    }
    BOOT_INFO.call_once(|| info);
    image::on_boot_stack(kernel_main)
}

/// The ramdisk's `cmdline` file, for loaders that have no command line; nothing when there is none. A ramdisk that
/// cannot be read is reported later, by whoever needs it.
fn cmdline_of_ramdisk(info: &BootInfo) -> &'static [u8] {
    let ramdisk = Ramdisk::new(loader_memory::ramdisk(info));
    ramdisk
        .ok()
        .and_then(|files| files.file("cmdline"))
        .unwrap_or_default()
}

extern "C" fn kernel_main() -> ! {
    let info = BOOT_INFO.get().expect("`enter` has set it");
    trace::start(&info.cmdline);
    machine::init_cpu();
    greet(info);
    check(info);
    own_memory(info);
    match machine::init_timer() {
        Ok(()) => println!("{}", machine::timer::Summary),
        Err(reason) => fail("the timer", reason),
    }
    start_tasks(info)
}

/// From here on the heap works and the loader's tables are gone.
fn own_memory(info: &BootInfo) {
    // SAFETY: called once, on the boot CPU; both doors fill the map so that usable regions are free RAM, and report how
    // far the loader's direct map reaches.
    if let Err(reason) = unsafe { mm::init::init(info) } {
        fail("memory", reason);
    }
}

/// Starts the first task and becomes the idle task.
fn start_tasks(info: &'static BootInfo) -> ! {
    task::idle::set_deadlock_hook(|text| trace::end(ExitStatus::Failed, text));
    if let Err(reason) = task::init() {
        fail("tasks", reason);
    }
    // The level that a CPU starts with: there are tasks to preempt for now.
    Machine::preempt_enable();
    if let Err(reason) = task::spawn("init", None, move || first_task(info)) {
        fail("the first task", reason);
    }
    task::idle::run()
}

/// What runs first: the screen, if there is one, then the application.
fn first_task(info: &'static BootInfo) {
    loader_memory::attach_screen(info);
    apps::main(info)
}

/// Ends a run that cannot begin, with a reason that needs no heap.
fn fail(what: &str, reason: impl Display) -> ! {
    let mut message = ArrayString::<160>::new();
    // What does not fit is cut; the sentence begins with what matters.
    let _ = write!(message, "cannot start on this machine: {what}: {reason}");
    trace::end(ExitStatus::Failed, &message)
}

/// What the machine is, in a few lines.
fn greet(info: &BootInfo) {
    println!(
        "Faultline {}, started through {:?}",
        env!("CARGO_PKG_VERSION"),
        info.door
    );
    println!("CPU: {}", features::Summary);
    println!(
        "memory: {} KiB usable in {} regions",
        info.usable() / 1024,
        info.memory.len()
    );
    if let Some((at, len)) = info.ramdisk {
        println!("ramdisk: {len} bytes at {at}");
    }
    if info.regions_dropped > 0 {
        println!(
            "the memory map is too long: {} regions are not used",
            info.regions_dropped
        );
    }
}

/// Ends the run when the loader or the CPU has not what is needed.
fn check(info: &BootInfo) {
    if let Some(problem) = &info.cmdline_problem {
        let mut message = ArrayString::<160>::new();
        let _ = write!(message, "{problem}");
        trace::end(ExitStatus::Usage, &message);
    }
    if info.usable() == 0 {
        fail("memory", "the loader gave none that is usable");
    }
    if !features::features().contains(features::Features::NX) {
        fail("CPU", "it has no NX bit, or the firmware has switched it off");
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    trace::panic::panic(info)
}
