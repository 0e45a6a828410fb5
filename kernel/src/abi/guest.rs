//! What a guest and Faultline's hypervisor agree on. Data only; both sides are compiled from it.
//!
//! **Finding out.** CPUID leaf [`CPUID_SIGNATURE`] answers [`SIGNATURE`] in EBX, ECX, EDX, and in EAX the largest leaf of the
//! range, which is the same.
//!
//! **Start.** A vCPU starts in 64-bit mode at the ELF's entry point with interrupts off: RDI holds the guest-physical address
//! of a [`BootInfo`], RSP the end of a stack of [`BOOT_STACK`] bytes with nothing on it. The tables in CR3 map the first
//! [`IDENTITY_MAPPED`] bytes of guest-physical memory one to one, and again from [`DIRECT_MAP`] on, and each segment at
//! its virtual address; everything readable, writable and executable. Tables, stack and boot info lie in the guest's memory,
//! in front of [`BootInfo::free_start`].
//!
//! **Calls.** VMMCALL on AMD, VMCALL on Intel, from privilege level 0. RAX holds a [`Call`], RDI, RSI, RDX and R10 its
//! arguments. RAX comes back as a [`Status`], RDX as the value, where there is one. Nothing else changes.
//!
//! **Ports.** 0x3f8-0x3ff is a serial line that only transmits, 0xe9 a debug console. Both end up, line by line, at the
//! host's console. Nothing else answers; reads give ones.

use crate::trace::record::ExitStatus;

/// CPUID leaf that tells this hypervisor.
pub const CPUID_SIGNATURE: u32 = 0x4000_0000;
/// EBX, ECX, EDX of that leaf: "FaultlineHv\0".
pub const SIGNATURE: [u32; 3] = [
    u32::from_le_bytes(*b"Faul"),
    u32::from_le_bytes(*b"tlin"),
    u32::from_le_bytes(*b"eHv\0"),
];

/// First word of a [`BootInfo`].
pub const BOOT_MAGIC: u64 = u64::from_le_bytes(*b"FLGuest1");
/// Bytes of the first stack.
pub const BOOT_STACK: u64 = 64 << 10;
/// Bytes of guest-physical memory that the first tables map.
pub const IDENTITY_MAPPED: u64 = 4 << 30;
/// Where the same bytes stand a second time, where the kernel library wants them.
pub const DIRECT_MAP: u64 = 0xffff_8000_0000_0000;

/// What a guest is told at its start.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BootInfo {
    /// [`BOOT_MAGIC`].
    pub magic: u64,
    /// Bytes of this structure.
    pub size: u64,
    /// Address of the command line, UTF-8.
    pub cmdline: u64,
    /// Bytes of the command line.
    pub cmdline_len: u64,
    /// Ordinary memory is `[0, memory_len)`.
    pub memory_len: u64,
    /// First byte of ordinary memory that is neither the guest's image nor what the hypervisor has put there.
    pub free_start: u64,
    /// Where delegated memory begins: what its faults become is decided by the owner and [`Call::Monitor`].
    pub delegated_start: u64,
    /// Its bytes; 0 if there is none.
    pub delegated_len: u64,
    /// Where the store begins: what delegated memory held when the guest was saved, read-only. Present in a guest that was
    /// restored.
    pub store_start: u64,
    /// Its bytes; as many as there is delegated memory.
    pub store_len: u64,
    /// Ticks of the TSC per second.
    pub frequency: u64,
}

impl BootInfo {
    /// The structure as it lies in memory.
    pub fn to_bytes(&self) -> [u8; size_of::<Self>()] {
        let words = [
            self.magic,
            self.size,
            self.cmdline,
            self.cmdline_len,
            self.memory_len,
            self.free_start,
            self.delegated_start,
            self.delegated_len,
            self.store_start,
            self.store_len,
            self.frequency,
        ];
        let mut bytes = [0; size_of::<Self>()];
        for (place, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        bytes
    }
}

/// An enumeration by number, and the way back from a number that the other side says.
macro_rules! numbered {
    ($(#[$attr:meta])* $name:ident, $found:literal { $($(#[$doc:meta])* $variant:ident = $number:literal,)+ }) => {
        $(#[$attr])*
        #[repr(u64)]
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name {
            $($(#[$doc])* $variant = $number,)+
        }

        impl $name {
            #[doc = $found]
            pub const fn from_number(number: u64) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

numbered! {
    /// A hypercall.
    Call, "The call with this number." {
        /// The guest is done. RDI: its exit status. Does not return.
        Exit = 0x464c_0000,
        /// The guest has reached a point. RDI: its number. An owner that waits for that point saves the guest here, and a guest
        /// that was restored goes on here. The value is a [`Resumed`].
        Mark = 0x464c_0001,
        /// A periodic interrupt. RDI: ticks of the TSC between two, 0 for none any more; RSI: its vector, 32 to 255.
        Timer = 0x464c_0002,
        /// The guest's monitor is ready: stage-2 faults on delegated memory become its business. RDI: address of a page with a
        /// [`Ring`] in ordinary memory, 0 to go back to the owner's; RSI: the vector by which it is told, 32 to 255;
        /// RDX: a [`Delivery`]; R10: with [`Delivery::VirtualizationException`], address of the page that the CPU describes
        /// violations in, another one of ordinary memory. Each vCPU that is to be told in this way makes the call, with a page of
        /// its own; to the others the owner's resolution remains. With [`WITH_VIEWS`] added to RDX the vCPU may switch views.
        ///
        /// Refused with [`Status::NotSupported`] where the CPU has no #VE, or no VMFUNC and views are asked for.
        Monitor = 0x464c_0003,
        /// A range of delegated memory that the monitor needs itself: its faults stay the owner's. RDI: address, RSI: bytes.
        Exempt = 0x464c_0004,
        /// Fills absent delegated pages and maps them. RDI: where; RSI: address of the contents in memory that is not delegated; RDX: bytes.
        /// The value counts the bytes that were done, also when it is refused.
        Copy = 0x464c_0010,
        /// Maps delegated pages that are in the cache. RDI: where; RSI: bytes. The value is as for [`Call::Copy`].
        Continue = 0x464c_0011,
        /// Fills absent delegated pages with zeros. RDI: where; RSI: bytes. The value is as for [`Call::Copy`].
        Zeropage = 0x464c_0012,
        /// Has the owner resolve a violation that came as #VE and is not the monitor's business, as if it had exited. When the
        /// call returns, the access can be made again. RDI: address; RSI: the accesses of [`RingEntry::flags`].
        Resolve = 0x464c_0013,
    }
}

numbered! {
    /// How a call ended.
    Status, "The status with this number." {
        /// As asked.
        Done = 0,
        /// There is no such call, or not from this privilege level.
        NoSuchCall = 1,
        /// An argument makes no sense: misaligned, empty, wrapping, a vector below 32.
        Invalid = 2,
        /// An address does not lie where it has to.
        BadAddress = 3,
        /// There is a page already (as EEXIST of UFFDIO_COPY). Whoever waits for it goes on when it is touched again, unless it is
        /// still delegated: then it is to be continued.
        Exists = 4,
        /// There is no page in the cache (as ENOENT of UFFDIO_CONTINUE).
        Absent = 5,
        /// The host has no memory left.
        OutOfMemory = 6,
        /// This CPU cannot do it.
        NotSupported = 7,
    }
}

numbered! {
    /// How a guest goes on behind a mark.
    Resumed, "The value with this number." {
        /// As if nothing had been.
        AsBefore = 0,
        /// In a new machine; whatever is absent is the owner's business.
        Restored = 1,
        /// In a new machine whose delegated memory is absent: the guest shall serve it from the store, told by injection.
        ToServeInjected = 2,
        /// The same, told by #VE.
        ToServeExceptions = 3,
    }
}

numbered! {
    /// What this kernel exits with as a guest. Other guests may choose numbers of their own.
    ExitCode, "The code with this number." {
        /// Everything was done and verified.
        Done = 0,
        /// The job ran and failed.
        Failed = 1,
        /// The command line made no sense.
        Usage = 2,
        /// It panicked, or met an exception that it cannot survive.
        Panic = 3,
        /// The time was over.
        Deadline = 4,
        /// Its monitor touched memory that it has to serve itself.
        SelfFault = 5,
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        match status {
            ExitStatus::Success => Self::Done,
            ExitStatus::Failed | ExitStatus::Unsupported => Self::Failed,
            ExitStatus::Usage => Self::Usage,
            ExitStatus::Panic => Self::Panic,
            ExitStatus::Deadline => Self::Deadline,
        }
    }
}

/// How a guest's monitor is told.
#[repr(u64)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// The violation exits; an entry is put into the ring and the vector injected, in front of the instruction that faulted.
    /// An access with interrupts off cannot be told so: it is the owner's business.
    Injected = 0,
    /// The violation does not exit: the CPU raises #VE (vector 20), and describes it in the page that [`Call::Monitor`] named
    /// (SDM vol. 3C, 26.5.7.2). While the busy word there is not 0, and while something else is being delivered, it is the
    /// owner's business. The page stays where it is until the monitor is another one: the CPU does not look for it again.
    VirtualizationException = 1,
}

/// Added to [`Delivery::VirtualizationException`] in RDX of [`Call::Monitor`]: VMFUNC with EAX 0 and the number of a view in
/// ECX switches the vCPU's view of memory, without an exit and until it switches again. It begins with [`VIEW_DELEGATING`]. A
/// number that is no view's ends the guest. A restored vCPU may not switch before it has asked again.
///
/// What one view has of ordinary memory, the other has too. A guest keeps in mind which view it is in: it alone switches, and
/// there are emulators whose #VE does not tell it right.
pub const WITH_VIEWS: u64 = 1 << 32;
/// The view in which delegated pages are absent.
pub const VIEW_DELEGATING: u64 = 0;
/// The view in which those delegated pages are there that the cache holds, as of the call or of their delegation; pages that
/// come into the cache later are continued first ([`Call::Continue`]). Exempt pages are as in the other.
pub const VIEW_CACHED: u64 = 1;

/// Head of a page with a ring; [`RING_ENTRIES`] entries follow it. All counters run freely and wrap.
///
/// The hypervisor takes nothing in it for granted: a tail that it cannot be ends the guest.
#[repr(C)]
#[derive(Debug)]
pub struct Ring {
    /// Entries put in; written by the hypervisor only.
    pub head: core::sync::atomic::AtomicU32,
    /// Entries taken out; written by the guest only.
    pub tail: core::sync::atomic::AtomicU32,
    /// Nothing yet.
    pub reserved: [u64; 3],
}

/// One fault.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RingEntry {
    /// What was touched.
    pub addr: u64,
    /// [`FAULT_WRITE`], [`FAULT_FETCH`], [`FAULT_MINOR`], [`FAULT_WALK`].
    pub flags: u64,
}

/// The access was a store.
pub const FAULT_WRITE: u64 = 1;
/// The access was an instruction fetch.
pub const FAULT_FETCH: u64 = 1 << 1;
/// The page is in the cache: it can be continued.
pub const FAULT_MINOR: u64 = 1 << 2;
/// The CPU touched it, walking the guest's tables.
pub const FAULT_WALK: u64 = 1 << 3;

/// Entries of a ring: a power of two, so that the counters may wrap. Entry n of all times stands at n modulo this.
pub const RING_ENTRIES: u32 = 128;

/// Bytes of a page as all addresses and lengths of calls count it.
pub const PAGE: u64 = 4096;

const _: () = {
    assert!(size_of::<BootInfo>() == 88);
    assert!(size_of::<Ring>() == 32);
    assert!(size_of::<RingEntry>() == 16);
    assert!(size_of::<Ring>() + RING_ENTRIES as usize * size_of::<RingEntry>() <= PAGE as usize);
};
