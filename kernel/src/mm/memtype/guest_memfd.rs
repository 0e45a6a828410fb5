//! Guest memory: objects that exist to back a virtual machine, mapped shared or not at all.
//!
//! Three types, because Linux has discussed more than it has merged:
//!
//! | type | missing pages are filled by | a touch that nothing traps |
//! | --- | --- | --- |
//! | [`GUEST_MEMFD`] | COPY, or `write()` and CONTINUE | zeros |
//! | [`GUEST_MEMFD_WRITTEN`] | `write()` and CONTINUE | zeros |
//! | [`GUEST_MEMFD_PRIVATE`] | `write()`, for the guest only | bus error |
//!
//! The first two are objects made with Linux's `INIT_SHARED`; the last is one made without: the host can map it, but not
//! touch it, and a userfault context cannot register it. Write protection is offered by none.
//!
//! `write()` fills the cache and maps nothing, so it wakes nobody ([`Object::write`](crate::mm::cache::Object::write)). A
//! task that waits for the page finds it in the cache when it is woken and tries again: with MINOR registered that is a
//! minor fault, which CONTINUE resolves; without, the page is mapped. A monitor that knows who waits saves the second fault:
//! it writes, then continues the range, which maps the page and wakes the waiters of the missing fault.

use super::{CacheOps, Class, Granule, MemType, Modes, OpSet, Privately, Supply, UffdOps};

/// Filled by COPY, or by `write()` and CONTINUE.
pub static GUEST_MEMFD: MemType = MemType {
    name: "guest",
    class: Class::File,
    privately: Privately::Never,
    fixed_size: true,
    guest_only: false,
    pool: None,
    uffd: Some(
        UffdOps {
            ops: CONTINUED.ops.union(OpSet::COPY),
            ..CONTINUED
        }
        .checked(),
    ),
};

/// Filled by `write()` and CONTINUE only.
pub static GUEST_MEMFD_WRITTEN: MemType = MemType {
    name: "guest, written",
    class: Class::File,
    privately: Privately::Never,
    fixed_size: true,
    guest_only: false,
    pool: None,
    uffd: Some(CONTINUED),
};

/// Not the host's to touch.
pub static GUEST_MEMFD_PRIVATE: MemType = MemType {
    name: "guest, private",
    class: Class::File,
    privately: Privately::Never,
    fixed_size: true,
    guest_only: true,
    pool: None,
    uffd: None,
};

const CONTINUED: UffdOps = UffdOps {
    modes: Modes::MISSING.union(Modes::MINOR),
    ops: OpSet::CONTINUE.union(OpSet::POISON),
    granule: Granule::Base,
    filled_by_write: true,
    alloc: Supply::Frames,
    cache: Some(CacheOps::PAGE_CACHE),
}
.checked();
