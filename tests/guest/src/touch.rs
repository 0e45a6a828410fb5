//! Accesses whose faults are outcomes: a byte, or the signal that the access raised.
//!
//! The accesses are two short routines with known ends. A handler of SIGSEGV and SIGBUS that finds the interrupted
//! instruction inside one of them lets it return with the signal in its second register; any other fault ends the program
//! as it would without the handler.
#![expect(unsafe_code, reason = "wild accesses are the subject")]

use std::fmt;
use std::sync::Once;

use crate::job::until;
use crate::region::place;

core::arch::global_asm!(
    ".global guest_probe_load, guest_probe_store, guest_probe_end",
    "guest_probe_load:",
    "movzx eax, byte ptr [rdi]",
    "xor edx, edx",
    "ret",
    "guest_probe_store:",
    "mov byte ptr [rdi], sil",
    "xor edx, edx",
    "guest_probe_end:",
    "ret",
);

/// What a routine returns: rax and rdx.
#[repr(C)]
struct Registers {
    /// The byte, or the address of the fault.
    rax: u64,
    /// Zero, or the signal with its code in the upper half.
    rdx: u64,
}

unsafe extern "C" {
    fn guest_probe_load(address: usize) -> Registers;
    fn guest_probe_store(address: usize, value: u8) -> Registers;
    fn guest_probe_end();
}

/// How an access ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Touch {
    /// The byte that was read.
    Byte(u8),
    /// The byte was written.
    Written,
    /// The access raised a signal.
    Signal {
        /// Which.
        signal: i32,
        /// `si_code`.
        code: i32,
        /// `si_addr`.
        address: usize,
    },
}

impl fmt::Display for Touch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Byte(byte) => write!(f, "{byte:#04x}"),
            Self::Written => f.write_str("written"),
            Self::Signal {
                signal,
                code,
                address,
            } => {
                write!(
                    f,
                    "{} code {code} at {}",
                    crate::signal::name(signal),
                    place(address)
                )
            }
        }
    }
}

/// Reads the byte at `address`.
pub fn peek(address: usize) -> Touch {
    catch();
    // SAFETY: a load changes nothing, and one that faults comes back through the handler.
    let out = unsafe { guest_probe_load(address) };
    outcome(out, |rax| Touch::Byte(rax as u8))
}

/// Writes `value` to `address`, which is memory that the program maps for such writes, or nobody's.
pub fn poke(address: usize, value: u8) -> Touch {
    catch();
    // SAFETY: the caller names memory that no Rust object lives in; a store that faults comes back through the handler.
    let out = unsafe { guest_probe_store(address, value) };
    outcome(out, |_| Touch::Written)
}

/// Waits until another process has written `value` to `address`, and says whether that came.
pub fn until_byte(address: usize, value: u8) -> bool {
    until(|| peek(address) == Touch::Byte(value))
}

/// The bytes at `address`, each one as it is; stops at the first that cannot be read.
pub fn bytes(address: usize, len: usize) -> Vec<u8> {
    let mut all = Vec::new();
    for at in address..address + len {
        match peek(at) {
            Touch::Byte(byte) => all.push(byte),
            _ => break,
        }
    }
    all
}

/// Reads out what a routine has returned.
fn outcome(out: Registers, value: impl Fn(u64) -> Touch) -> Touch {
    match (out.rdx & 0xff) as i32 {
        0 => value(out.rax),
        signal => Touch::Signal {
            signal,
            code: (out.rdx >> 32) as i32,
            address: out.rax as usize,
        },
    }
}

/// Installs the handler, once per process.
pub fn catch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(install);
}

/// Installs the handler (again).
pub fn install() {
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: the structure is plain data, and the handler touches what the kernel has handed to it alone.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_fault as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}

/// Lets a routine return with the signal; puts any other fault back to its default.
extern "C" fn on_fault(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let routines = guest_probe_load as *const () as usize..guest_probe_end as *const () as usize;
    // SAFETY: the kernel passes pointers to a siginfo and a context on this stack.
    unsafe {
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        if routines.contains(&(registers[libc::REG_RIP as usize] as usize)) {
            registers[libc::REG_RIP as usize] = guest_probe_end as *const () as i64;
            registers[libc::REG_RAX as usize] = (*info).si_addr() as i64;
            registers[libc::REG_RDX as usize] = i64::from(signal) | i64::from((*info).si_code) << 32;
        } else {
            // The access is executed again, and ends the process this time.
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = libc::SIG_DFL;
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}
