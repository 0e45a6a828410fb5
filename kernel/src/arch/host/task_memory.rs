//! Task memory through the software MMU, with faults that go to the kernel.

use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU64, Ordering};

use super::machine::SoftMachine;
use super::processor;
use super::tlb::{MmuFault, Mode};
use crate::mm::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use crate::mm::fault::{self, Access, FaultInfo};

/// Faults of one access that are answered with "again" before the machine calls it a livelock.
const MOST_RETRIES: u32 = 10_000;

/// Makes one access, however many faults that takes; `None` when the kernel says that it cannot be made.
///
/// # Panics
/// The calling thread holds a lock, is not in a machine, or the kernel answers "again" for ever.
fn access<R>(
    addr: VirtAddr,
    access: Access,
    mode: Mode,
    mut then: impl FnMut(&SoftMachine, PhysAddr) -> R,
) -> Option<R> {
    processor::current().assert_may_sleep("an access to task memory");
    for _ in 0..MOST_RETRIES {
        // Looked up each time: a fault may sleep, and the task may go on as another CPU.
        let processor = processor::current();
        let machine = SoftMachine::current();
        match machine.with_translation(processor, addr, access, mode, |physical| then(machine, physical)) {
            Ok(result) => return Some(result),
            Err(MmuFault::Page) => {
                fault::handle(&FaultInfo::reported(addr, access, mode == Mode::User)).ok()?;
            }
            Err(MmuFault::NotCanonical) => return None,
            Err(MmuFault::Broken(error)) => panic!("the page tables are broken at {addr:?}: {error:x?}"),
        }
    }
    panic!("{access:?} at {addr:?} still faults after {MOST_RETRIES} times \"resolved, try again\"");
}

/// Calls `f(address, first, last)` for the part of `[addr, addr + len)` on each page until it says no; returns how many
/// bytes were not reached.
fn by_page(addr: VirtAddr, len: usize, mut f: impl FnMut(VirtAddr, usize, usize) -> Option<()>) -> usize {
    let mut done = 0;
    while done < len {
        let Some(at) = addr.checked_add(done as u64) else {
            break;
        };
        let chunk = (len - done).min((PAGE_SIZE - at.page_offset()) as usize);
        if f(at, done, done + chunk).is_none() {
            break;
        }
        done += chunk;
    }
    len - done
}

/// Loads bytes; returns how many were not loaded.
pub fn load(dst: &mut [MaybeUninit<u8>], src: VirtAddr, mode: Mode) -> usize {
    by_page(src, dst.len(), |at, first, last| {
        access(at, Access::Read, mode, |machine, physical| {
            in_ram(machine.arena().load(physical, &mut dst[first..last]), physical);
        })
    })
}

/// Loads bytes as the tables stand, without asking the kernel; returns how many were not loaded.
pub fn load_at_once(dst: &mut [MaybeUninit<u8>], src: VirtAddr, mode: Mode) -> usize {
    let (processor, machine) = (processor::current(), SoftMachine::current());
    assert!(
        processor.preempt_depth() > 0,
        "an access at once, where the kernel could be asked"
    );
    by_page(src, dst.len(), |at, first, last| {
        let part = |physical| in_ram(machine.arena().load(physical, &mut dst[first..last]), physical);
        match machine.with_translation(processor, at, Access::Read, mode, part) {
            Err(MmuFault::Broken(error)) => panic!("the page tables are broken at {at:?}: {error:x?}"),
            result => result.ok(),
        }
    })
}

/// Stores bytes; returns how many were not stored.
pub fn store(dst: VirtAddr, src: &[u8], mode: Mode) -> usize {
    by_page(dst, src.len(), |at, first, last| {
        access(at, Access::Write, mode, |machine, physical| {
            in_ram(machine.arena().store(physical, &src[first..last]), physical);
        })
    })
}

/// Fetches an instruction: nothing but the right to do so is tested.
pub fn fetch(addr: VirtAddr, mode: Mode) -> bool {
    access(addr, Access::Execute, mode, |_, _| ()).is_some()
}

/// Loads an aligned word at once.
///
/// # Panics
/// `src` is not aligned: hardware would do it, no caller means it.
pub fn load_word(src: VirtAddr, mode: Mode) -> Option<u64> {
    assert!(
        src.is_aligned(8),
        "word load from {src:?}, which is not 8-aligned"
    );
    access(src, Access::Read, mode, |machine, physical| {
        let word = machine
            .arena()
            .word(physical)
            .unwrap_or_else(|| bus_error(physical));
        word.load(Ordering::Acquire)
    })
}

/// Stores an aligned word at once; `false` when the access failed.
///
/// # Panics
/// `dst` is not aligned.
pub fn store_word(dst: VirtAddr, value: u64, mode: Mode) -> bool {
    assert!(dst.is_aligned(8), "word store to {dst:?}, which is not 8-aligned");
    access(dst, Access::Write, mode, |machine, physical| {
        let word = machine
            .arena()
            .word(physical)
            .unwrap_or_else(|| bus_error(physical));
        word.store(value, Ordering::Release);
    })
    .is_some()
}

/// Loads four aligned bytes at once.
pub fn load_half(src: VirtAddr, mode: Mode) -> Option<u32> {
    access(src, Access::Read, mode, |machine, physical| {
        let (word, shift) = word_around(machine, physical);
        (word.load(Ordering::Acquire) >> shift) as u32
    })
}

/// Stores four aligned bytes at once if they are `old`; what they were.
pub fn compare_exchange_half(dst: VirtAddr, old: u32, new: u32, mode: Mode) -> Option<u32> {
    access(dst, Access::Write, mode, |machine, physical| {
        let (word, shift) = word_around(machine, physical);
        let with_new = |present: u64| {
            let others = present & !(u64::from(u32::MAX) << shift);
            ((present >> shift) as u32 == old).then_some(others | u64::from(new) << shift)
        };
        match word.fetch_update(Ordering::AcqRel, Ordering::Acquire, with_new) {
            Ok(before) | Err(before) => (before >> shift) as u32,
        }
    })
}

/// The word that holds four aligned bytes, and by how many bits they are off its end.
fn word_around(machine: &SoftMachine, physical: PhysAddr) -> (&AtomicU64, u32) {
    let offset = physical.as_u64() % 8;
    let aligned = PhysAddr::new(physical.as_u64() - offset);
    let word = machine.arena().word(aligned);
    (word.unwrap_or_else(|| bus_error(physical)), offset as u32 * 8)
}

fn in_ram(reached: bool, physical: PhysAddr) {
    if !reached {
        bus_error(physical)
    }
}

fn bus_error(physical: PhysAddr) -> ! {
    panic!("the page tables lead to {physical:?}, which is not RAM")
}
