//! Restartable sequences (`rseq`): a thread that was interrupted in one goes on at its abort handler.
//!
//! There is one CPU, so what the area tells of it never changes. Another thread may have run on it meanwhile all the same:
//! whatever the thread came back to the kernel for, other than a system call, counts as that.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use super::signal::force;
use super::{Rseq, Thread};
use crate::abi::signal::{SIGSEGV, SigInfo};
use crate::arch::user::Registers;
use crate::mm::addr::{USER_TOP, VirtAddr};
use crate::mm::uaccess::{self, AccessError, on_behalf};
use crate::sync::SpinLock;

/// Where the area has the address of the sequence that the thread is in.
const CURRENT: u64 = 8;

/// What a thread has registered. Looked at whenever it comes back from a fault: that it is nothing is known without the lock.
#[derive(Debug, Default)]
pub struct Registered {
    any: AtomicBool,
    area: SpinLock<Option<Rseq>>,
}

impl Registered {
    /// The area, if there is one.
    pub fn get(&self) -> Option<Rseq> {
        *self.area.lock()
    }

    /// Whether there is one.
    #[inline]
    fn is_any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Registers another area, or none. The thread itself does, or its maker before it runs.
    pub fn set(&self, area: Option<Rseq>) {
        *self.area.lock() = area;
        self.any.store(area.is_some(), Ordering::Relaxed);
    }
}

/// `struct rseq_cs`.
struct Sequence {
    start: u64,
    len: u64,
    abort: u64,
}

/// The sequence that the thread has named is not one.
struct Malformed;

impl From<AccessError> for Malformed {
    fn from(_: AccessError) -> Self {
        Self
    }
}

/// Looks whether `thread`, the current one, is in a sequence, and has it go on at the abort handler then.
#[inline]
pub(super) fn interrupted(thread: &Arc<Thread>, registers: &mut Registers) {
    if thread.rseq.is_any() {
        look(thread, registers);
    }
}

#[inline(never)]
fn look(thread: &Arc<Thread>, registers: &mut Registers) {
    if let Some(area) = thread.rseq.get()
        && restart(&area, registers).is_err()
    {
        force(thread, SigInfo::kernel(SIGSEGV));
    }
}

fn read<const N: usize>(at: u64) -> Result<[u8; N], Malformed> {
    let mut bytes = [0; N];
    on_behalf(|| uaccess::read(VirtAddr::new(at), &mut bytes))?;
    Ok(bytes)
}

fn restart(area: &Rseq, registers: &mut Registers) -> Result<(), Malformed> {
    let current = area.at + CURRENT;
    // Aligned, as the area is.
    let at = on_behalf(|| uaccess::load(current))?;
    if at == 0 {
        return Ok(());
    }
    let sequence = sequence(at)?;
    let is_inside = registers.rip.wrapping_sub(sequence.start) < sequence.len;
    // It is left in either case.
    on_behalf(|| uaccess::store(current, 0))?;
    if !is_inside {
        return Ok(());
    }
    let signature = u32::from_le_bytes(read(sequence.abort.wrapping_sub(4))?);
    if signature != area.signature {
        return Err(Malformed);
    }
    registers.rip = sequence.abort;
    Ok(())
}

fn sequence(at: u64) -> Result<Sequence, Malformed> {
    let bytes: [u8; 32] = read(at)?;
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    let version = word(0) as u32;
    let sequence = Sequence {
        start: word(8),
        len: word(16),
        abort: word(24),
    };
    let end = sequence.start.checked_add(sequence.len).ok_or(Malformed)?;
    let top = USER_TOP.as_u64();
    let handler_is_inside = (sequence.start..end).contains(&sequence.abort);
    if version != 0 || end > top || sequence.abort >= top || handler_is_inside {
        return Err(Malformed);
    }
    Ok(sequence)
}
