//! A vCPU whose guest deals with violations by itself: what the host holds for that, and for how long.
//!
//! The CPU writes into the guest's information page by its frame, past the tables. So the vCPU owns a reference to the page
//! as long as the CPU may do that: whatever becomes of the slot, of the space's entry or of the object, the frame is nobody
//! else's meanwhile. Where the guest has got another page there, it does not see what the CPU writes, finds the busy word of
//! its own page clear, and its violations exit. Nor are these stores noted or stopped like the guest's own: whoever logs or
//! protects the page learns of it when the handler clears the busy word.
//!
//! | begins | ends |
//! | --- | --- |
//! | [`Call::Monitor`](kernel::abi::guest::Call) with #VE | another [`Call::Monitor`](kernel::abi::guest::Call); [`Vcpu::restore`]; with the vCPU |

use kernel::abi::guest::Status;
use kernel::mm::addr::{GuestPhysAddr, PAGE_SIZE};
use kernel::mm::cache::Lookup;
use kernel::mm::fault::{Access, FaultError};
use kernel::mm::frame::OutOfFrames;
use kernel::mm::pt::PtFormat;
use kernel::mm::space::Pinned;

use crate::memory::GuestMemory;
use crate::memslot::Backing;
use crate::userfault::Outcome;
use crate::vcpu::Vcpu;
use crate::vendor::{DivertError, Vendor, ViolationException};

impl<F: PtFormat<Addr = GuestPhysAddr>> GuestMemory<F> {
    /// The page that a store of the guest to `addr` would reach, which is not given to anybody else before this is dropped;
    /// may sleep. No lock may be held.
    ///
    /// # Errors
    /// There is none; never [`Outcome::Retry`].
    pub(crate) fn pin(&self, addr: GuestPhysAddr) -> Result<Pinned, Outcome> {
        let page = addr.align_down(PAGE_SIZE);
        loop {
            match self.touch(page, Access::Write) {
                Outcome::Retry => {}
                outcome => return Err(outcome),
            }
            let slot = self.find(page).ok_or(Outcome::Unbacked)?;
            let pinned = match &slot.backing {
                Backing::Space { space, addr } => space.pin(*addr + slot.offset(page)),
                Backing::Object { object, offset, .. } => match object.lookup(offset + slot.offset(page)) {
                    Lookup::Present(folio) => Some(Pinned::whole(folio)),
                    Lookup::Absent | Lookup::BeyondEnd => None,
                },
            };
            // Taken away right after the touch: once more.
            if let Some(pinned) = pinned {
                return Ok(pinned);
            }
        }
    }
}

impl<V: Vendor> Vcpu<V> {
    /// Has the CPU raise #VE for convertible violations, and describe them in the page `info`; with `views`, the guest may
    /// switch views.
    ///
    /// # Errors
    /// Refused; nothing changed.
    pub(crate) fn divert(&mut self, info: GuestPhysAddr, views: bool) -> Result<(), Status> {
        let memory = &self.vm.memory;
        let features = memory.features();
        if !features.violation_exceptions || (views && !features.root_switching) {
            return Err(Status::NotSupported);
        }
        let info = memory.pin(info).map_err(|why| match why {
            Outcome::Failed(FaultError::OutOfMemory) => Status::OutOfMemory,
            _ => Status::BadAddress,
        })?;
        let roots = match views {
            true => Some(memory.open_views().map_err(|OutOfFrames| Status::OutOfMemory)?),
            false => None,
        };
        let how = ViolationException {
            info: info.frame(),
            roots: roots.as_ref().map_or(&[], |roots| &roots[..]),
        };
        let (control, diverted) = self.divertible();
        V::divert_violations(control, Some(how)).map_err(|error| match error {
            DivertError::NotSupported => Status::NotSupported,
            DivertError::OutOfFrames => Status::OutOfMemory,
        })?;
        // The CPU has let go of the last one.
        *diverted = Some(info);
        Ok(())
    }

    /// Has all violations exit.
    pub(crate) fn end_diversion(&mut self) {
        let (control, diverted) = self.divertible();
        if diverted.is_some() {
            V::divert_violations(control, None).expect("whoever can divert can also stop");
            *diverted = None;
        }
    }
}
