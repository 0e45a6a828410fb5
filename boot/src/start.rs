//! From either door to the first task.
#![expect(unsafe_code, reason = "hands the machine's memory to the kernel")]

use core::panic::PanicInfo;

use kernel::arch::x86_64::{self as machine, features};
use kernel::bootinfo::BootInfo;
use kernel::println;
use kernel::sync::Once;
use kernel::task;
use kernel::trace;
use kernel::trace::record::ExitStatus;

use crate::{apps, image};

static BOOT_INFO: Once<BootInfo> = Once::new();

/// Where both doors meet: keeps what is known and leaves the loader's stack.
pub fn enter(mut info: BootInfo) -> ! {
    info.image = image::segments();
    info.boot_stack = image::boot_stack();
    BOOT_INFO.call_once(|| info);
    image::on_boot_stack(kernel_main)
}

extern "C" fn kernel_main() -> ! {
    let info = BOOT_INFO.get().expect("`enter` has set it");
    trace::start(&info.cmdline);
    machine::init_cpu();
    greet(info);
    check(info);
    own_memory(info);
    match machine::init_timer() {
        Ok(()) => println!("{}", machine::apic::Summary),
        Err(reason) => trace::end(ExitStatus::Failed, reason.as_str()),
    }
    start_tasks(info)
}

/// Leaves the loader's mappings; from here on the heap works.
fn own_memory(info: &BootInfo) {
    // SAFETY: called once, on the boot CPU, with what a boot door made of the loader's words; both doors have the loader's
    // tables map physical memory at the kernel's direct map.
    if let Err(error) = unsafe { kernel::mm::init::init(info) } {
        println!("memory: {error}");
        trace::end(ExitStatus::Failed, "the kernel cannot own this machine's memory");
    }
}

/// Starts the first task and becomes the idle task.
fn start_tasks(info: &'static BootInfo) -> ! {
    task::idle::set_deadlock_hook(|text| {
        println!("{text}");
        trace::end(
            ExitStatus::Failed,
            "every task waits for another; see the console",
        )
    });
    let started = task::init().and_then(|()| task::spawn("init", None, move || first_task(info)));
    if let Err(error) = started {
        println!("tasks: {error}");
        trace::end(ExitStatus::Failed, "too little memory for the first task");
    }
    task::idle::run()
}

/// What runs first: the screen, if there is one, then the application.
fn first_task(info: &'static BootInfo) {
    kernel::drivers::loader_memory::attach_screen(info);
    apps::main(info)
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

/// Ends the run when the loader has not given what is needed.
fn check(info: &BootInfo) {
    if let Some(problem) = &info.cmdline_problem {
        println!("{problem}");
        trace::end(ExitStatus::Usage, "the command line cannot be used");
    }
    if info.usable() == 0 {
        trace::end(ExitStatus::Failed, "the loader gave no usable memory");
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    trace::panic::panic(info)
}
