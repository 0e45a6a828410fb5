//! Memory that a device and the kernel share, as `virtio-drivers` asks for it.
//!
//! Queues and buffers come from the frame allocator as contiguous blocks and are reached through the direct map, where a
//! physical address is a subtraction away. A buffer elsewhere (heap, stack, image) need not be contiguous: it is
//! copied through a block of its own for as long as the device has it. There is no IOMMU: devices see physical
//! addresses.
#![expect(unsafe_code, reason = "implements the crate's unsafe hardware interface")]

use alloc::vec::Vec;
use core::ptr::{self, NonNull};

pub use virtio_drivers::{BufferDirection, Hal};
use virtio_drivers::{PAGE_SIZE, PhysAddr};

use crate::mm::addr::{self, VirtAddr};
use crate::mm::frame::{self, Dma, Frame, MAX_ORDER};
use crate::mm::pt::CacheType;
use crate::mm::{kmap, phys};
use crate::sync::SpinLock;

/// The kernel as `virtio-drivers` sees it.
#[derive(Debug)]
pub struct Kernel;

/// Blocks that devices have, found again by their physical address.
static LENT: SpinLock<Vec<Frame<Dma>>> = SpinLock::new(Vec::new());

/// The smallest order whose block holds `bytes`; `None` when no block does.
pub fn order_for(bytes: usize) -> Option<u8> {
    (0..=MAX_ORDER).find(|order| PAGE_SIZE << order >= bytes)
}

fn lend(bytes: usize) -> Option<(PhysAddr, NonNull<u8>)> {
    let mut block = Frame::<Dma>::alloc_order(order_for(bytes)?).ok()?;
    phys::zero(&mut block);
    let pfn = block.pfn();
    LENT.lock().push(block);
    Some((pfn.start().as_u64(), NonNull::new(phys::frame_ptr(pfn))?))
}

fn take_back(paddr: PhysAddr) -> Option<Frame<Dma>> {
    let mut lent = LENT.lock();
    let index = lent
        .iter()
        .position(|block| block.pfn().start().as_u64() == paddr)?;
    Some(lent.swap_remove(index))
}

/// The physical address of memory that lies in the direct map, as everything does that a frame's handle gives.
fn direct_mapped(buffer: NonNull<[u8]>) -> Option<PhysAddr> {
    let start = VirtAddr::new(buffer.cast::<u8>().as_ptr() as u64);
    let offset = start.as_u64().checked_sub(kmap::DIRECT_MAP.as_u64())?;
    let end = offset.checked_add(buffer.len() as u64)?;
    (end <= frame::allocator().span() * addr::PAGE_SIZE).then_some(offset)
}

// SAFETY: each method meets what the trait asks of it, as argued there.
unsafe impl Hal for Kernel {
    // The block is zeroed, page-aligned, contiguous, and owned by `LENT` until `dma_dealloc`; 0 tells the crate that
    // there is none.
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        lend(pages * PAGE_SIZE).unwrap_or((0, NonNull::dangling()))
    }

    // SAFETY: see the trait; the block is found by its address, so a wrong one frees nothing.
    unsafe fn dma_dealloc(paddr: PhysAddr, _: NonNull<u8>, _: usize) -> i32 {
        if take_back(paddr).is_some() { 0 } else { -1 }
    }

    // SAFETY: see the trait; the mapping is fresh, so it aliases nothing.
    unsafe fn mmio_phys_to_virt(paddr: PhysAddr, size: usize) -> NonNull<u8> {
        let mapped = kmap::map_device(addr::PhysAddr::new(paddr), size as u64, CacheType::Uncached);
        let at = mapped.expect("the kernel has frames for its tables and 512 GiB of addresses for devices");
        NonNull::new(at.as_u64() as *mut u8).expect("the device window does not begin at address 0")
    }

    // SAFETY: see the trait; what is outside the direct map is copied into a block that only the device uses.
    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        if let Some(paddr) = direct_mapped(buffer) {
            return paddr;
        }
        let (paddr, block) = lend(buffer.len()).expect("buffers outside the direct map are a few bytes long");
        if direction != BufferDirection::DeviceToDriver {
            // SAFETY: the caller's buffer is valid for its length, the block is as large and new.
            unsafe { ptr::copy_nonoverlapping(buffer.cast().as_ptr(), block.as_ptr(), buffer.len()) };
        }
        paddr
    }

    // SAFETY: see the trait; a buffer in the direct map was not copied and is left alone.
    unsafe fn unshare(paddr: PhysAddr, buffer: NonNull<[u8]>, direction: BufferDirection) {
        if direct_mapped(buffer).is_some() {
            return;
        }
        let Some(block) = take_back(paddr) else { return };
        if direction != BufferDirection::DriverToDevice {
            let source = phys::bytes(&block);
            // SAFETY: the caller's buffer is valid for its length; the block was made at least as large in `share`.
            unsafe { ptr::copy_nonoverlapping(source.as_ptr(), buffer.cast().as_ptr(), buffer.len()) };
        }
    }
}
