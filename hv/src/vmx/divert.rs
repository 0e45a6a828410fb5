//! Violations that the guest deals with by itself: #VE, and switching roots by VMFUNC (SDM vol. 3C, 26.5.6 and 26.5.7).
//!
//! The CPU raises #VE instead of an exit where the last entry of the walk does not suppress it, nothing is being delivered
//! to the guest, and the second word of the information page is 0. It then describes the violation there and sets that
//! word; the guest clears it when it is ready for the next one. VMFUNC takes a root by its place in the list, and exits where
//! there is none. The list is the vCPU's own copy, so that nobody else can put anything there.
//!
//! What #VE says of the root is not to be relied upon: Bochs 2.7 does not load that field on entry, and reports the place that
//! some guest was the last to switch to. An exit's is right, there too.

use kernel::mm::addr::{PAGE_SIZE, Pfn};
use kernel::mm::frame::{Frame, KernelData};
use kernel::mm::phys;

use super::control::Current;
use super::detect::{Controls, SECONDARY_FUNCTIONS, SECONDARY_VIOLATION_EXCEPTION};
use super::fields;
use crate::vendor::{DivertError, MAX_ROOTS, ViolationException};

/// VM functions: EPTP switching.
const SWITCHING: u64 = 1;

const _: () = assert!(MAX_ROOTS * size_of::<u64>() == PAGE_SIZE as usize);

/// How a vCPU's violations are diverted.
#[derive(Debug, Default)]
pub struct Diverted {
    roots: Option<Frame<KernelData>>,
}

impl Diverted {
    /// Whether the guest may switch roots.
    #[inline]
    pub fn can_switch(&self) -> bool {
        self.roots.is_some()
    }

    /// The EPT pointers that it may switch among.
    pub fn pointers(&self) -> impl Iterator<Item = u64> {
        let words = self
            .roots
            .iter()
            .flat_map(|frame| phys::bytes(frame).as_chunks().0);
        words
            .map(|word| u64::from_le_bytes(*word))
            .filter(|&word| word != 0)
    }
}

/// The list of `roots`, as the CPU reads it.
fn list(controls: &Controls, roots: &[Pfn]) -> Result<Frame<KernelData>, DivertError> {
    assert!(roots.len() <= MAX_ROOTS, "{} roots", roots.len());
    let mut frame = Frame::alloc_zeroed().map_err(|_| DivertError::OutOfFrames)?;
    let (words, _) = phys::bytes_mut(&mut frame).as_chunks_mut();
    for (word, &root) in words.iter_mut().zip(roots) {
        *word = controls.pointer_to(root).to_le_bytes();
    }
    Ok(frame)
}

impl Current<'_> {
    /// See [`Vendor::divert_violations`](crate::vendor::Vendor::divert_violations).
    ///
    /// # Errors
    /// Nothing changed.
    pub fn divert(&mut self, how: Option<ViolationException<'_>>) -> Result<(), DivertError> {
        let controls = self.vcpu.controls;
        let mut secondary = self.vcpu.secondary;
        let mut roots = None;
        if let Some(ViolationException { info, roots: wanted }) = how {
            let switches = !wanted.is_empty();
            let features = controls.features;
            if !features.violation_exceptions || (switches && !features.root_switching) {
                return Err(DivertError::NotSupported);
            }
            if switches {
                let list = list(controls, wanted)?;
                secondary |= SECONDARY_FUNCTIONS;
                self.write(fields::FUNCTIONS, SWITCHING);
                self.write(fields::ROOT_LIST, list.pfn().start().as_u64());
                roots = Some(list);
            }
            secondary |= SECONDARY_VIOLATION_EXCEPTION;
            self.write(fields::EXCEPTION_INFO, info.start().as_u64());
        }
        if controls.features.violation_exceptions {
            self.write(fields::ROOT_INDEX, 0);
        }
        self.write(fields::EPT_POINTER, controls.pointer_to(self.vcpu.root));
        self.write(fields::SECONDARY_CONTROLS, secondary.into());
        self.vcpu.diverted = Diverted { roots };
        (self.vcpu.fresh, self.vcpu.attention) = (true, true);
        Ok(())
    }
}
