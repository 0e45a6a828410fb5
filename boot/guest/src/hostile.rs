//! Commands that do what a guest must not, to see the hypervisor survive it.
#![expect(unsafe_code, reason = "does what must not be done")]

use alloc::boxed::Box;
use alloc::string::String;
use core::arch::asm;
use core::sync::atomic::Ordering;

use kernel::abi::guest::{BootInfo, Ring};
use kernel::arch::{Irq, Machine, Memory};
use kernel::drivers::exit;
use kernel::guest::calls::{self, Telling};
use kernel::mm::frame::Frame;
use kernel::trace::cmdline::Cmdline;

use crate::commands::{Command, Failure};
use crate::delegated::Window;

/// See each function. Those that come back have failed to fail.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "triple-fault",
        run: |_, _| exit::triple_fault(),
    },
    Command {
        name: "spin",
        run: |_, _| spin(),
    },
    Command {
        name: "deaf",
        run: |_, _| deaf(),
    },
    Command {
        name: "halt",
        run: |_, _| halt(),
    },
    Command {
        name: "privileged",
        run: |_, _| privileged(),
    },
    Command {
        name: "string-port",
        run: |_, _| string_port(),
    },
    Command {
        name: "unbacked",
        run: unbacked,
    },
    Command {
        name: "read-only",
        run: read_only,
    },
    Command {
        name: "lying-ring",
        run: lying_ring,
    },
];

fn survived(what: &str) -> Result<String, Failure> {
    Err(Failure::Failed(alloc::format!("{what} was survived")))
}

/// `spin`: never ends, with interrupts on.
fn spin() -> ! {
    loop {
        core::hint::spin_loop();
    }
}

/// `deaf`: never ends, with interrupts off.
fn deaf() -> ! {
    Machine::disable();
    spin()
}

/// `halt`: waits for an interrupt that cannot come.
fn halt() -> ! {
    Machine::disable();
    loop {
        // SAFETY: stops, and nothing will go on.
        unsafe { asm!("hlt") };
    }
}

/// `privileged`: reads a performance counter, of which guests have none.
fn privileged() -> Result<String, Failure> {
    // SAFETY: reads a register.
    unsafe { asm!("rdpmc", in("ecx") 0, out("eax") _, out("edx") _, options(nomem, nostack)) };
    survived("RDPMC")
}

/// `string-port`: writes to a port by a string instruction.
fn string_port() -> Result<String, Failure> {
    let text = *b"x";
    // SAFETY: one byte of `text` goes to the debug console.
    unsafe { asm!("outsb", in("dx") 0xe9_u16, inout("rsi") text.as_ptr() => _, options(nostack, readonly)) };
    survived("OUTSB")
}

/// `unbacked at=ADDR write=1`: touches memory that the machine does not have.
fn unbacked(line: &Cmdline<'_>, given: &'static BootInfo) -> Result<String, Failure> {
    line.allow(&["at", "write"])?;
    let ends = [
        given.memory_len,
        given.delegated_start + given.delegated_len,
        given.store_start + given.store_len,
    ];
    let beyond = ends.into_iter().max().unwrap_or_default() + (16 << 20);
    let at = line.number("at", 0, 1 << 46)?.unwrap_or(beyond);
    let window = Window::map("address", at, 4096)?;
    if line.flag("write")? {
        window.store(0, 0, 1);
    } else {
        window.load(0, 0);
    }
    survived("an access to nowhere")
}

/// `read-only`: stores to the store.
fn read_only(line: &Cmdline<'_>, given: &'static BootInfo) -> Result<String, Failure> {
    line.allow(&[])?;
    let store = Window::map("store", given.store_start, given.store_len)?;
    let before = store.load(0, 0);
    store.store(0, 0, !before);
    survived("a store to read-only memory")
}

/// `lying-ring tail=N`: says that entries were taken out of its ring that were never in it, and has one put in.
fn lying_ring(line: &Cmdline<'_>, given: &'static BootInfo) -> Result<String, Failure> {
    line.allow(&["tail"])?;
    let tail = line.number("tail", 0, u64::from(u32::MAX))?.unwrap_or(12345) as u32;
    let page = Frame::alloc_zeroed().map_err(|_| Failure::Failed("no memory for a ring".into()))?;
    let memory = Window::delegated(given)?;
    let page = &*Box::leak(Box::new(page));
    calls::declare(page, 0x51, Telling::Injected).map_err(Failure::failed)?;
    // SAFETY: the page is this function's own, for ever, and only atomic words of it are used.
    let ring = unsafe { &*Machine::direct_map(page.pfn().start()).cast::<Ring>() };
    ring.tail.store(tail, Ordering::Relaxed);
    memory.load(0, 0);
    survived("a lie in the ring")
}
