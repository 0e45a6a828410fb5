//! The CPU itself: clock, interrupts, and accesses that cannot be made.
#![expect(unsafe_code, reason = "raw copies from and to task memory")]

use alloc::string::String;
use core::time::Duration;

use kernel::arch::x86_64::{features, interrupt, unwind};
use kernel::arch::{Clock, Cpu, Irq, Machine, TaskMemory};
use kernel::mm::addr::{USER_TOP, VirtAddr};
use kernel::task;

use crate::{ensure, kernel_test};

/// In the task half, in no area of any space.
const NOWHERE: VirtAddr = VirtAddr::new(0x6000_0000_0000);

kernel_test!(
    fn clock_goes_on_and_its_frequency_is_known() -> Result<(), String> {
        let first = Machine::ticks();
        let second = Machine::ticks();
        ensure!(first < second, "the clock read {first}, then {second}");
        let frequency = Machine::frequency();
        ensure!(
            (1_000_000..100_000_000_000).contains(&frequency),
            "{frequency} ticks a second"
        );
        Ok(())
    }
);

kernel_test!(
    fn timer_and_clock_agree_about_a_sleep() -> Result<(), String> {
        let wanted = Duration::from_millis(100);
        let start = Machine::ticks();
        task::sleep(wanted);
        let slept = (Machine::ticks() - start) * 1000 / Machine::frequency();
        // Sleeps are rounded up to ticks of 10 ms; a busy host can only make them longer.
        ensure!(slept >= 99, "a sleep of 100 ms took {slept} ms");
        Ok(())
    }
);

kernel_test!(
    fn copies_from_and_to_nowhere_copy_nothing() -> Result<(), String> {
        let mut here = [7u8; 100];
        // SAFETY: `here` has 100 bytes.
        let left = unsafe { Machine::copy_in(here.as_mut_ptr(), NOWHERE, 100) };
        ensure!(
            left == 100 && here == [7; 100],
            "{left} bytes left, then {here:?}"
        );
        // SAFETY: as above.
        let left = unsafe { Machine::copy_out(NOWHERE, here.as_ptr(), 99) };
        ensure!(left == 99, "{left} bytes left of 99");
        ensure!(
            Machine::load_u64(NOWHERE).is_none(),
            "a word was loaded from nowhere"
        );
        ensure!(!Machine::store_u64(NOWHERE, 1), "a word was stored nowhere");
        Ok(())
    }
);

kernel_test!(
    fn kernel_addresses_and_holes_are_no_task_memory() -> Result<(), String> {
        let local = 1u64;
        let kernel = VirtAddr::new((&raw const local).addr() as u64);
        let hole = VirtAddr::new(0x1234_0000_0000_0000);
        for addr in [kernel, hole, USER_TOP, USER_TOP - 4, VirtAddr::new(u64::MAX - 3)] {
            ensure!(Machine::load_u64(addr).is_none(), "a word was loaded from {addr}");
            ensure!(!Machine::store_u64(addr, 2), "a word was stored to {addr}");
            let mut word = 0u64;
            // SAFETY: `word` has eight bytes.
            let left = unsafe { Machine::copy_in((&raw mut word).cast(), addr, 8) };
            ensure!(left == 8, "{} bytes were copied from {addr}", 8 - left);
        }
        ensure!(local == 1, "a local variable was overwritten");
        Ok(())
    }
);

kernel_test!(
    fn backtrace_reads_the_stack_and_survives_holes() -> Result<(), String> {
        let word = 0x5eed_u64;
        let read = unwind::read((&raw const word).addr() as u64);
        ensure!(read == Some(0x5eed), "read {read:?}");
        for hole in [
            0,
            0x1000,
            0x1234_0000_0000_0000,
            0xffff_f7ff_ffff_f000,
            u64::MAX - 7,
        ] {
            let read = unwind::read(hole);
            ensure!(read.is_none(), "read {read:?} at {hole:#x}");
        }
        Ok(())
    }
);

kernel_test!(
    fn interrupt_flag_and_preemption_nest() -> Result<(), String> {
        ensure!(Machine::enabled(), "interrupts are off in a task");
        let outer = Machine::disable();
        let inner = Machine::disable();
        Machine::restore(inner);
        let between = Machine::enabled();
        Machine::restore(outer);
        ensure!(
            !between && Machine::enabled(),
            "restoring the inner section enabled interrupts"
        );
        let before = Machine::preempt_count();
        Machine::preempt_disable();
        Machine::preempt_disable();
        let inside = Machine::preempt_count();
        Machine::preempt_enable();
        Machine::preempt_enable();
        let after = Machine::preempt_count();
        ensure!(
            (before, inside, after) == (0, 2, 0),
            "counts {before}, {inside}, {after}"
        );
        Ok(())
    }
);

kernel_test!(
    fn preemption_that_is_off_delays_the_scheduler() -> Result<(), String> {
        let end = Machine::ticks() + Machine::frequency() / 20;
        Machine::preempt_disable();
        Machine::request_reschedule();
        while Machine::ticks() < end {
            Machine::relax();
        }
        let still_due = Machine::take_reschedule();
        Machine::preempt_enable();
        ensure!(still_due, "the scheduler ran while preemption was off");
        Ok(())
    }
);

kernel_test!(
    fn no_interrupt_came_that_nobody_serves() -> Result<(), String> {
        let count = interrupt::unexpected();
        ensure!(count == 0, "{count} unexpected interrupts");
        Ok(())
    }
);

kernel_test!(
    fn pages_without_execute_permission_exist() -> Result<(), String> {
        let found = features::features();
        ensure!(found.contains(features::Features::NX), "only {found:?}");
        Ok(())
    }
);
