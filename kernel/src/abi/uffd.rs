//! The userfaultfd interface (`linux/userfaultfd.h`).

/// Bytes of a message (`struct uffd_msg`). A read gives whole ones only.
pub const MESSAGE_SIZE: usize = 32;

/// A task waits for a page.
pub const EVENT_PAGEFAULT: u8 = 0x12;
/// The space was forked.
pub const EVENT_FORK: u8 = 0x13;
/// Memory has moved.
pub const EVENT_REMAP: u8 = 0x14;
/// Contents are about to be dropped.
pub const EVENT_REMOVE: u8 = 0x15;
/// Mappings are gone.
pub const EVENT_UNMAP: u8 = 0x16;

/// Of a page fault: the access was a store.
pub const PAGEFAULT_FLAG_WRITE: u64 = 1;
/// Of a page fault: the page is write-protected.
pub const PAGEFAULT_FLAG_WP: u64 = 2;
/// Of a page fault: the page is in the cache.
pub const PAGEFAULT_FLAG_MINOR: u64 = 4;
