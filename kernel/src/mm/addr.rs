//! Address kinds as types.
//!
//! A virtual address, a physical address, a guest-physical address and a frame number never mix by accident:
//! each is a newtype, and the conversions between them are named. `PAGE_SIZE` is the only granule the address types
//! know; larger leaves are a matter of the page-table level (see [`crate::mm::pt`]).

use core::fmt;

/// log2 of the base page size.
pub const PAGE_SHIFT: u32 = 12;
/// Base page size in bytes.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;
/// First address above what a task may map (Linux's TASK_SIZE on x86-64 with 4-level tables).
pub const USER_TOP: VirtAddr = VirtAddr::new(0x7fff_ffff_f000);

/// What page tables translate *from*: a virtual address at stage 1, a guest-physical address at stage 2.
pub trait PageAddr: Copy + Ord + fmt::Debug {
    /// The address as a number.
    fn to_u64(self) -> u64;
    /// The address with this number.
    fn from_u64(raw: u64) -> Self;
}

macro_rules! address {
    ($(#[$doc:meta])* $name:ident, $tag:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// The address with this number.
            pub const fn new(raw: u64) -> Self {
                Self(raw)
            }

            /// The address as a number.
            pub const fn as_u64(self) -> u64 {
                self.0
            }

            /// Bytes into the page.
            pub const fn page_offset(self) -> u64 {
                self.0 & (PAGE_SIZE - 1)
            }

            /// Rounded down to a multiple of `align`, a power of two.
            pub const fn align_down(self, align: u64) -> Self {
                Self(self.0 & !(align - 1))
            }

            /// Rounded up to a multiple of `align`, a power of two; `None` when that wraps.
            pub const fn align_up(self, align: u64) -> Option<Self> {
                match self.0.checked_add(align - 1) {
                    Some(sum) => Some(Self(sum & !(align - 1))),
                    None => None,
                }
            }

            /// Whether the address is a multiple of `align`, a power of two.
            pub const fn is_aligned(self, align: u64) -> bool {
                self.0 & (align - 1) == 0
            }

            /// The address `bytes` further on; `None` when that wraps.
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }
        }

        impl core::ops::Add<u64> for $name {
            type Output = Self;
            fn add(self, bytes: u64) -> Self {
                Self(self.0 + bytes)
            }
        }

        impl core::ops::Sub<u64> for $name {
            type Output = Self;
            fn sub(self, bytes: u64) -> Self {
                Self(self.0 - bytes)
            }
        }

        impl core::ops::Sub for $name {
            type Output = u64;
            fn sub(self, other: Self) -> u64 {
                self.0 - other.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($tag, ":{:#x}"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address!(
    /// An address as a task or the kernel uses it, before stage 1.
    VirtAddr,
    "va"
);
address!(
    /// An address of the machine's memory.
    PhysAddr,
    "pa"
);
address!(
    /// An address of a guest's memory, before stage 2.
    GuestPhysAddr,
    "gpa"
);

impl PageAddr for VirtAddr {
    fn to_u64(self) -> u64 {
        self.0
    }
    fn from_u64(raw: u64) -> Self {
        Self(raw)
    }
}

impl PageAddr for GuestPhysAddr {
    fn to_u64(self) -> u64 {
        self.0
    }
    fn from_u64(raw: u64) -> Self {
        Self(raw)
    }
}

/// Number of a physical frame: its physical address divided by the page size.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Pfn(u64);

impl Pfn {
    /// The frame with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The frame that holds `addr`.
    pub const fn containing(addr: PhysAddr) -> Self {
        Self(addr.as_u64() >> PAGE_SHIFT)
    }

    /// The frame's number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The frame's first byte.
    pub const fn start(self) -> PhysAddr {
        PhysAddr::new(self.0 << PAGE_SHIFT)
    }

    /// The frame `frames` further on.
    pub const fn offset(self, frames: u64) -> Self {
        Self(self.0 + frames)
    }
}

impl fmt::Debug for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pfn:{:#x}", self.0)
    }
}
