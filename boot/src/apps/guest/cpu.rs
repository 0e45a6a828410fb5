//! Which vendor's virtualisation this CPU has.

use alloc::format;
use alloc::string::String;

use hv::svm::Svm;
use hv::vendor::{Features, Unavailable, Vendor};
use hv::vmx::Vmx;

use crate::apps::AppError;

/// Something that is done with guests, the same for every vendor.
pub trait Job {
    /// What it comes to.
    type Out;

    /// Does it on the CPU that runs now, whose virtualisation is on.
    fn run<V: Vendor>(self, features: &Features) -> Self::Out;
}

/// Switches this CPU's virtualisation on and does `job` with it.
///
/// # Errors
/// [`AppError::Unsupported`]: the CPU has none that can be used.
pub fn on_this_cpu<J: Job>(job: J) -> Result<J::Out, AppError> {
    let svm = match Svm::enable() {
        Ok(features) => return Ok(job.run::<Svm>(&features)),
        Err(why) => why,
    };
    match Vmx::enable() {
        Ok(features) => Ok(job.run::<Vmx>(&features)),
        Err(vmx) => Err(AppError::Unsupported(neither(svm, vmx))),
    }
}

/// Why there is neither. What the CPU does not show at all is not worth a word beside the one that it has.
fn neither(svm: Unavailable, vmx: Unavailable) -> String {
    let (svm_name, vmx_name) = (Svm::NAME, Vmx::NAME);
    match (svm, vmx) {
        (Unavailable::Absent, Unavailable::Absent) => format!(
            "guests cannot be run: the CPU shows neither {svm_name} nor {vmx_name}; run this in QEMU with --accel tcg, in \
             Bochs, or on a machine that has one"
        ),
        (why, Unavailable::Absent) => format!("guests cannot be run with {svm_name}: {why}"),
        (Unavailable::Absent, why) => format!("guests cannot be run with {vmx_name}: {why}"),
        (svm, vmx) => format!("guests cannot be run: {svm_name}: {svm}; {vmx_name}: {vmx}"),
    }
}
