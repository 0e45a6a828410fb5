//! What stage-2 leaves the CPU takes.
//!
//! Kept apart from the formats so that they stay pure functions of their input otherwise. Until [`set_caps`] is called the
//! formats allow what every CPU with stage 2 can do: 2 MiB leaves, no execute-only.

use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use kernel::mm::pt::Level;

/// Capabilities of the CPU's stage 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caps {
    /// Leaves of 1 GiB: IA32_VMX_EPT_VPID_CAP bit 17 (SDM vol. 3D, A.10), or CPUID 8000_0001 EDX bit 26 for NPT
    /// (APM vol. 2, 5.3).
    pub leaves_1g: bool,
    /// Execute without read: IA32_VMX_EPT_VPID_CAP bit 0. Never with NPT.
    pub execute_only: bool,
}

const LEAVES_1G: u8 = 1;
const EXECUTE_ONLY: u8 = 2;

static CAPS: AtomicU8 = AtomicU8::new(0);

/// Tells the formats what the CPU can do; once, before the first stage-2 table is made.
pub fn set_caps(caps: Caps) {
    let mut bits = 0;
    if caps.leaves_1g {
        bits |= LEAVES_1G;
    }
    if caps.execute_only {
        bits |= EXECUTE_ONLY;
    }
    CAPS.store(bits, Relaxed);
}

/// What the CPU can do.
pub fn caps() -> Caps {
    let bits = CAPS.load(Relaxed);
    Caps {
        leaves_1g: bits & LEAVES_1G != 0,
        execute_only: bits & EXECUTE_ONLY != 0,
    }
}

/// The largest level of leaves.
pub(super) fn max_leaf() -> Level {
    if caps().leaves_1g {
        Level::UPPER
    } else {
        Level::MID
    }
}
