//! What is known about every frame, 32 bytes each.

use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

/// Flag: the block is a page of a memory object's cache, or was until it was taken out: then the flag stays until the block
/// is freed. A page that did not get in loses it at once.
pub(super) const IN_CACHE: u8 = 1;
/// Flag: the block is one of the pool of huge pages and goes back there.
pub(super) const POOLED: u8 = 1 << 1;
/// Flag: the page was put into a cache ahead of use, and nobody has used it since.
pub(super) const UNUSED: u8 = 1 << 2;

/// Flag: the huge page was promised to whoever has it, and is promised again when it goes back to the pool.
pub(super) const PROMISED: u8 = 1 << 3;

/// "No frame" in a link.
pub(super) const NIL: u32 = u32::MAX;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $tag:literal,)*) => {
        /// What a block of frames is used for.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Kind {
            $($(#[$doc])* $name,)*
        }

        impl Kind {
            /// All kinds, in the order of their numbers.
            pub const ALL: &[Kind] = &[$(Kind::$name,)*];

            /// A short name for tables.
            pub const fn name(self) -> &'static str {
                match self { $(Kind::$name => $tag,)* }
            }

            /// The kind with this number; metadata holds only numbers that came from a kind.
            pub(super) const fn from_raw(raw: u8) -> Kind {
                Self::ALL[raw as usize]
            }
        }
    };
}

kinds! {
    /// Not the allocator's: no RAM, the kernel image, loader data.
    Reserved = "reserved",
    /// In a free list of the buddy (its first frame), or inside such a block.
    Free = "free",
    /// In a CPU's cache.
    Cached = "cached",
    /// A page-table node.
    Table = "table",
    /// In the pool of huge pages, used by nobody.
    Pooled = "huge pool",
    /// Memory of tasks.
    Anon = "anon",
    /// A kernel stack.
    Stack = "stack",
    /// The kernel heap.
    Heap = "heap",
    /// Memory that a device reads or writes.
    Dma = "dma",
    /// Anything else that lives as long as the kernel.
    KernelData = "kernel",
}

/// Metadata of one frame. For a block, that of its first frame counts.
///
/// | field | free block | in use |
/// | --- | --- | --- |
/// | `refs` | 0 | handles and entries that own the block |
/// | `next`, `prev` | links of the free list | unused; of a huge page in the pool, the next one |
/// | `owner`, `index` | unused | what the folio belongs to, and where in it |
#[derive(Debug)]
#[repr(C, align(32))]
pub struct FrameMeta {
    pub(super) refs: AtomicU32,
    pub(super) kind: AtomicU8,
    pub(super) order: AtomicU8,
    pub(super) flags: AtomicU8,
    pub(super) spare: AtomicU8,
    pub(super) next: AtomicU32,
    pub(super) prev: AtomicU32,
    pub(super) owner: AtomicU64,
    pub(super) index: AtomicU64,
}

const _: () = assert!(size_of::<FrameMeta>() == 32);

impl FrameMeta {
    /// Metadata of a frame that is not the allocator's.
    pub const fn reserved() -> Self {
        Self {
            refs: AtomicU32::new(0),
            kind: AtomicU8::new(Kind::Reserved as u8),
            order: AtomicU8::new(0),
            flags: AtomicU8::new(0),
            spare: AtomicU8::new(0),
            next: AtomicU32::new(NIL),
            prev: AtomicU32::new(NIL),
            owner: AtomicU64::new(0),
            index: AtomicU64::new(0),
        }
    }

    /// How many own the block at this moment. What those who let go before did to the bytes is visible afterwards.
    #[inline]
    pub fn owners(&self) -> u32 {
        self.refs.load(core::sync::atomic::Ordering::Acquire)
    }

    /// What the block is used for.
    pub fn kind(&self) -> Kind {
        Kind::from_raw(self.kind.load(core::sync::atomic::Ordering::Relaxed))
    }
}
