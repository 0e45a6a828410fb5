//! Memory running out.

use alloc::string::String;
use alloc::vec::Vec;

use kernel::mm::frame::{self, Kind};

use crate::{ensure, kernel_test};

/// Room for `bytes` on the heap, if it has that.
fn reserve(bytes: usize) -> Option<Vec<u8>> {
    let mut room = Vec::new();
    room.try_reserve_exact(bytes).ok()?;
    Some(room)
}

kernel_test!(
    fn heap_that_cannot_have_enough_takes_nothing() -> Result<(), String> {
        let taken = || frame::allocator().stats().of(Kind::Heap);
        let before = taken();
        // More than any machine that runs this has, and less than the heap's window.
        ensure!(reserve(1 << 38).is_none(), "a quarter of a TiB was handed out");
        ensure!(
            taken() == before,
            "the heap took {} frames for nothing",
            taken() - before
        );
        Ok(())
    }
);

kernel_test!(
    fn heap_grows_by_less_than_a_step_when_that_is_enough() -> Result<(), String> {
        let mut full = Vec::with_capacity(1024);
        frame::allocator().inject_failure(0);
        while full.len() < full.capacity()
            && let Some(room) = reserve(16 << 10)
        {
            full.push(room);
        }
        // A step has 64 frames.
        frame::allocator().inject_failure(24);
        let room = reserve(32 << 10);
        frame::allocator().stop_injection();
        ensure!(full.len() < full.capacity(), "the heap was not filled");
        ensure!(room.is_some(), "24 frames were there, and 32 KiB were refused");
        Ok(())
    }
);
