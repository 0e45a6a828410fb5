//! What becomes of the x87 and vector registers when a handler changes them in its frame: the frame is an allegation.
#![expect(unsafe_code, reason = "frames are changed where the kernel has put them")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use guest_tests::child::fork;
use guest_tests::region::*;
use guest_tests::signal;
use guest_tests::transcript::show;

/// The word of `struct ucontext` that says where the state is.
const UCONTEXT_FPSTATE: usize = 5 + 23;
/// Where the words of that state are: x87's control word, MXCSR, the label, and XSAVE's header.
const CONTROL: usize = 0;
const MXCSR: usize = 24;
const MAGIC: usize = 464;
const PROMISED: usize = MAGIC + 4;
const COMPONENTS: usize = MAGIC + 8;
const SIZE: usize = MAGIC + 16;
const PRESENT: usize = 512;
const COMPACTED: usize = PRESENT + 8;
const RESERVED: usize = PRESENT + 24;
/// Bytes of the part of an area that FXSAVE knows, and with XSAVE's header behind it.
const LEGACY: usize = 512;
const WITH_HEADER: usize = LEGACY + 64;
/// What stands behind a labelled area.
const END: u32 = 0x4650_5845;

/// MXCSR as a program finds it, and with other rounding.
static INITIAL: u32 = 0x1f80;
static ROUNDING: u32 = 0x3f80;

pub fn run() {
    let cases: [(&str, Change); 28] = [
        ("nothing", |_| {}),
        ("x87's control word", |state| state.set(CONTROL, 0x077f)),
        ("MXCSR", |state| state.set(MXCSR, 0x5f80)),
        ("MXCSR: a bit that is none", |state| state.set(MXCSR, 0x1_1f80)),
        ("no address", |state| state.at = 0),
        ("an address of nothing", |state| state.at = 0x1000),
        ("an address of the kernel's", |state| {
            state.at = 0xffff_8000_0000_0000
        }),
        ("another address", |state| state.move_to(0, state.len())),
        ("another address, read-only", |state| {
            state.move_to(0, state.len());
            let _ = mprotect(state.at, PAGE, libc::PROT_READ);
        }),
        ("another address, aligned to 16", |state| {
            state.move_to(16, state.len())
        }),
        ("over the end of memory", |state| {
            state.move_to(PAGE - WITH_HEADER, WITH_HEADER)
        }),
        ("over the end of memory, from the header on", |state| {
            state.move_to(PAGE - LEGACY, LEGACY);
        }),
        ("no label", |state| state.set(MAGIC, 0)),
        ("no label, aligned to 16", |state| {
            state.set(MAGIC, 0);
            state.move_to(16, LEGACY);
        }),
        ("no label, aligned to 8", |state| {
            state.set(MAGIC, 0);
            state.move_to(8, LEGACY);
        }),
        ("no label, up to the end of memory", |state| {
            state.set(MAGIC, 0);
            state.move_to(PAGE - LEGACY, LEGACY);
        }),
        ("no label, MXCSR: a bit that is none", |state| {
            state.set(MAGIC, 0);
            state.set(MXCSR, 0x1_1f80);
        }),
        ("no label, a component that is none", |state| {
            state.set(MAGIC, 0);
            state.set(PRESENT + 4, 1 << 28);
        }),
        ("a label that promises less than it has", |state| {
            state.set(PROMISED, 0)
        }),
        ("a label of another size", |state| {
            state.set(SIZE, WITH_HEADER as u32)
        }),
        ("a label of another size, with an end", |state| {
            state.set(SIZE, WITH_HEADER as u32);
            state.set(WITH_HEADER, END);
            state.set(PRESENT, 3);
        }),
        ("a label without an end", |state| state.set(state.len() - 4, 0)),
        ("a label of x87 alone", |state| state.set(COMPONENTS, 1)),
        ("a label of nothing", |state| state.set(COMPONENTS, 0)),
        ("nothing is there", |state| state.set(PRESENT, 0)),
        ("a component that is none", |state| {
            state.set(PRESENT + 4, 1 << 28)
        }),
        ("the compacted format", |state| state.set(COMPACTED + 4, 1 << 31)),
        ("reserved bytes that nobody looks at", |state| {
            state.set(RESERVED, 1)
        }),
    ];
    signal::handle(libc::SIGUSR2, 0, &[], handler as *const () as usize);
    signal::handle(libc::SIGSEGV, 0, &[], refusal as *const () as usize);
    for (name, change) in cases {
        *CHANGE.lock().expect("nobody panicked") = Some(change);
        let child = fork(|| {
            show(name, over_a_handler());
            0
        });
        show(name, child.wait());
    }
}

/// What a handler does to the state in its frame.
type Change = fn(&mut State);

/// What the next handler does.
static CHANGE: Mutex<Option<Change>> = Mutex::new(None);

/// Whether the kernel has refused a frame.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// The x87 and vector registers in a frame.
struct State {
    /// Where the frame says that they are.
    at: usize,
}

impl State {
    fn get(&self, at: usize) -> u32 {
        // SAFETY: the frame is on this stack, or is a copy of it; no Rust object lives in it.
        unsafe { ((self.at + at) as *const u32).read_volatile() }
    }

    fn set(&self, at: usize, value: u32) {
        // SAFETY: as above.
        unsafe { ((self.at + at) as *mut u32).write_volatile(value) }
    }

    /// Bytes, with the end of the label.
    fn len(&self) -> usize {
        self.get(SIZE) as usize + 4
    }

    /// Copies the first `len` bytes to other memory, `offset` bytes into a page, behind which nothing can be read.
    fn move_to(&mut self, offset: usize, len: usize) {
        let pages = Region::anon("frame", 3);
        let _ = mprotect(pages.page(1), 2 * PAGE, libc::PROT_NONE);
        let to = pages.start + offset;
        // SAFETY: the page is the test's own, and the frame is as long.
        unsafe { std::ptr::copy_nonoverlapping(self.at as *const u8, to as *mut u8, len) };
        self.at = to;
    }
}

extern "C" fn handler(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a pointer to the context on this stack; `fpstate` follows the general registers in it.
    let at = unsafe { &mut *context.cast::<usize>().add(UCONTEXT_FPSTATE) };
    let mut state = State { at: *at };
    if let Some(change) = *CHANGE.lock().expect("nobody panicked") {
        change(&mut state);
    }
    *at = state.at;
}

/// A frame was none. The general registers were put back before that was found, so that the program goes on.
extern "C" fn refusal(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    REFUSED.store(true, Ordering::Release);
}

/// Sets a vector register and MXCSR, handles a signal, and says what they are then, and what x87's control word is.
fn over_a_handler() -> String {
    let pid = std::process::id();
    let (mut vector, mut sse, mut x87) = ([0u64; 2], 0u32, 0u16);
    // SAFETY: every register that is changed is named; the control words are put back. kill(2) changes no memory.
    unsafe {
        core::arch::asm!(
            "ldmxcsr [r15]", "pcmpeqd xmm15, xmm15",
            "mov eax, 62",
            "syscall",
            "movups [r12], xmm15", "stmxcsr [r13]", "fnstcw [r14]", "fninit",
            in("rdi") u64::from(pid), in("rsi") libc::SIGUSR2 as u64,
            in("r12") vector.as_mut_ptr(), in("r13") &raw mut sse, in("r14") &raw mut x87,
            in("r15") &raw const ROUNDING,
            out("rax") _, out("rcx") _, out("r11") _, out("xmm15") _,
        );
        core::arch::asm!("ldmxcsr [{0}]", in(reg) &raw const INITIAL);
    }
    let refused = match REFUSED.load(Ordering::Acquire) {
        true => "refused: ",
        false => "",
    };
    format!("{refused}xmm15 {:x}, MXCSR {sse:x}, x87 {x87:x}", vector[1])
}
