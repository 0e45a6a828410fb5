//! Every system call that there is.

use super::{Call, Result, memory, process};

/// A system call.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// What does it.
    pub call: fn(&mut Call<'_>) -> Result,
}

/// Numbers in the table: larger ones are not there.
const COUNT: usize = 512;

macro_rules! calls {
    ($($number:literal $call:path;)*) => {
        static TABLE: [Option<Entry>; COUNT] = {
            let mut table = [None; COUNT];
            $(
                assert!(table[$number].is_none(), "a number is given twice");
                table[$number] = Some(Entry { call: $call });
            )*
            table
        };
    };
}

calls! {
    1 process::write_console;
    9 memory::mmap;
    10 memory::mprotect;
    11 memory::munmap;
    12 memory::brk;
    28 memory::madvise;
    60 process::exit;
    158 process::arch_prctl;
    218 process::set_tid_address;
    231 process::exit_group;
}

/// The call with this number.
#[inline]
pub fn find(number: u64) -> Option<&'static Entry> {
    TABLE.get(usize::try_from(number).ok()?)?.as_ref()
}
