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

/// Of `/dev/userfaultfd`: opens a context.
pub const USERFAULTFD_IOC_NEW: u32 = 0xaa00;

/// The ioctls of a context.
#[expect(missing_docs, reason = "named after Linux's")]
pub mod ioctl {
    pub const API: u32 = 0xc018_aa3f;
    pub const REGISTER: u32 = 0xc020_aa00;
    pub const UNREGISTER: u32 = 0x8010_aa01;
    pub const WAKE: u32 = 0x8010_aa02;
    pub const COPY: u32 = 0xc028_aa03;
    pub const ZEROPAGE: u32 = 0xc020_aa04;
    pub const MOVE: u32 = 0xc028_aa05;
    pub const WRITEPROTECT: u32 = 0xc018_aa06;
    pub const CONTINUE: u32 = 0xc020_aa07;
    pub const POISON: u32 = 0xc020_aa08;
}
