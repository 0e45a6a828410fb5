//! Loads and stores that survive the signals they raise.
//!
//! The instructions stand between two labels. The handler knows them by their addresses, notes the signal in the place
//! that the second argument points to, and lets the function return from its third label instead.
#![expect(
    unsafe_code,
    reason = "accesses that may fault, and the handler that mends them"
)]

use std::fmt;

/// What a touch raised.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Raised {
    signal: i32,
    code: i32,
    address: usize,
}

impl Raised {
    /// Whether it was SIGBUS.
    pub fn is_bus_error(&self) -> bool {
        self.signal == libc::SIGBUS
    }
}

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.is_bus_error() { "SIGBUS" } else { "SIGSEGV" };
        write!(
            f,
            "{name} code {} at {}",
            self.code,
            super::arena::Place(self.address)
        )
    }
}

core::arch::global_asm!(
    ".global guest_tests_load, guest_tests_store, guest_tests_touch_end, guest_tests_touch_failed",
    "guest_tests_load:",
    "movzx eax, byte ptr [rdi]",
    "ret",
    "guest_tests_store:",
    "mov byte ptr [rdi], dl",
    "xor eax, eax",
    "ret",
    "guest_tests_touch_end:",
    "guest_tests_touch_failed:",
    "mov eax, -1",
    "ret",
);

unsafe extern "C" {
    fn guest_tests_load(address: usize, raised: *mut Raised) -> i32;
    fn guest_tests_store(address: usize, raised: *mut Raised, value: u8) -> i32;
    fn guest_tests_touch_failed();
}

/// Loads the byte at the address.
pub fn load(address: usize) -> Result<u8, Raised> {
    let mut raised = Raised::default();
    // SAFETY: the function follows the C rules, and an access that faults returns as well, by way of the handler.
    match unsafe { guest_tests_load(address, &raw mut raised) } {
        -1 => Err(raised),
        value => Ok(value as u8),
    }
}

/// Stores a byte at an address of the arena.
pub fn store(address: usize, value: u8) -> Result<(), Raised> {
    let mut raised = Raised::default();
    // SAFETY: as in `load`; scripts store in the arena alone, which holds nothing of the program's own.
    match unsafe { guest_tests_store(address, &raw mut raised, value) } {
        -1 => Err(raised),
        _ => Ok(()),
    }
}

/// Installs the handler, and one that does nothing for SIGUSR1.
pub fn install() {
    for (signal, handler) in [
        (libc::SIGSEGV, mend as *const () as usize),
        (libc::SIGBUS, mend as *const () as usize),
        (libc::SIGUSR1, ignore as *const () as usize),
    ] {
        // SAFETY: the structure is plain data; both handlers have the type that SA_SIGINFO asks for.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler;
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

extern "C" fn ignore(_: i32, _: *const libc::siginfo_t, _: *mut libc::c_void) {}

extern "C" fn mend(signal: i32, info: *const libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes both, and they are the handler's own until it returns. Between the two labels rsi points
    // to the `Raised` of the caller.
    unsafe {
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let at = registers[libc::REG_RIP as usize] as usize;
        if (guest_tests_load as *const () as usize..guest_tests_touch_failed as *const () as usize)
            .contains(&at)
        {
            let raised = registers[libc::REG_RSI as usize] as *mut Raised;
            *raised = Raised {
                signal,
                code: (*info).si_code,
                address: (*info).si_addr() as usize,
            };
            registers[libc::REG_RIP as usize] = guest_tests_touch_failed as *const () as i64;
        } else {
            // A mistake of the program's: die of it.
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}
