//! The machine that a guest is restored into: all of its memory is there, and none of its pages.

use alloc::sync::Arc;

use hv::bitmap::Bitmap;
use hv::memslot::SlotRequest;
use hv::userfault::{Delivery, Userfaults};
use hv::vcpu::Vcpu;
use hv::vendor::{Features, Vendor};
use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::cache::Object;
use kernel::mm::memtype::guest_memfd::GUEST_MEMFD;
use kernel::uffd::{Features as UffdFeatures, Modes, Uffd};

use crate::apps::AppError;
use crate::apps::common::Region;
use crate::apps::guest::{Console, Saved, assemble, of_region, resident, vcpu};

/// The machine.
pub struct Target<V: Vendor> {
    /// Its vCPU, as it was saved.
    pub vcpu: Vcpu<V>,
    /// Its ordinary memory, registered for missing pages.
    pub ordinary: Region,
    /// The monitor's end of that memory's channel.
    pub uffd: Arc<Uffd>,
    /// Its delegated memory.
    pub delegated: Arc<Object>,
    /// Which pages of that are delegated: all of them.
    pub bitmap: Arc<Bitmap>,
}

impl<V: Vendor> Target<V> {
    /// A machine for `saved`.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn new(features: &Features, saved: &Saved, console: &Arc<Console>) -> Result<Self, AppError> {
        let layout = saved.layout;
        let ordinary = Region::new(layout.ordinary.pages())?;
        let uffd = Arc::new(ordinary.delegate(Modes::MISSING, UffdFeatures::empty())?);
        let delegated = Object::new(&GUEST_MEMFD, layout.delegated.len());
        let bitmap = Bitmap::new(layout.delegated.pages()).map_err(AppError::failed)?;
        bitmap.set_all();
        let bitmap = Arc::new(bitmap);
        let userfaults = Userfaults {
            bitmap: Arc::clone(&bitmap),
            delivery: Delivery::Exit,
        };
        let mut store = SlotRequest::of_object(layout.store().start, &saved.delegated, None);
        store.read_only = true;
        let slots = [
            of_region(layout.ordinary, &ordinary, 0),
            SlotRequest::of_object(layout.delegated.start, &delegated, Some(userfaults)),
            store,
        ];
        let vm = assemble::<V>(features, &layout, slots, console)?;
        Ok(Self {
            vcpu: vcpu(&vm, &saved.vcpu)?,
            ordinary,
            uffd,
            delegated,
            bitmap,
        })
    }

    /// Pages that are there: of ordinary and of delegated memory.
    pub fn resident(&self) -> (u64, u64) {
        (resident(&self.ordinary), self.delegated.resident() / PAGE_SIZE)
    }
}
