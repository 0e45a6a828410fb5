//! A guest whose memory, ordinary and delegated, is one region of a space.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use hv::vcpu::{Image, Vcpu};
use hv::vendor::{Features, Vendor};
use kernel::mm::fault::Origin as OnBehalf;

use crate::apps::AppError;
use crate::apps::common::{Live, Region};
use crate::apps::guest::{Console, Guest, Layout, assemble, load, of_region, vcpu};

/// The machine. Nothing of its memory is delegated to anybody but the region's own monitor.
pub struct OneRegion<V: Vendor> {
    /// Its vCPU.
    pub vcpu: Vcpu<V>,
    /// The page of the region that delegated memory begins with.
    pub first_delegated: usize,
}

impl<V: Vendor> OneRegion<V> {
    /// A guest at its first instruction, with `region` for its memory.
    ///
    /// # Errors
    /// The ELF is not taken, or there is no memory for it.
    pub fn load(
        features: &Features,
        guest: &Guest,
        region: &Region,
        console: &Arc<Console>,
    ) -> Result<Self, AppError> {
        let start = load(guest, region)?;
        Self::with(features, guest.layout, region, console, &start)
    }

    /// A guest in this state, with `region` for its memory.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn with(
        features: &Features,
        layout: Layout,
        region: &Region,
        console: &Arc<Console>,
        image: &Image,
    ) -> Result<Self, AppError> {
        let first_delegated = layout.ordinary.pages() as usize;
        let slots = [
            of_region(layout.ordinary, region, 0),
            of_region(layout.delegated, region, first_delegated),
        ];
        let vm = assemble::<V>(features, &layout, slots, console)?;
        Ok(Self {
            vcpu: vcpu(&vm, image)?,
            first_delegated,
        })
    }

    /// Stage-2 violations so far.
    pub fn violations(&self) -> u64 {
        self.vcpu.vm().counters.violations.load(Ordering::Relaxed)
    }
}

/// Writes an image into a region where nothing is; what is zeros stays absent.
///
/// # Errors
/// There is no memory for it.
pub fn write_back(live: &Live, region: &Region) -> Result<(), AppError> {
    for page in 0..region.pages() {
        let write = |bytes: &[u8]| {
            if bytes.iter().all(|byte| *byte == 0) {
                return Ok(());
            }
            region
                .space
                .write_bytes(region.address(page), bytes, OnBehalf::Kernel)
        };
        if let Some(written) = live.image.with_page(page, write) {
            written.map_err(AppError::failed)?;
        }
    }
    Ok(())
}
