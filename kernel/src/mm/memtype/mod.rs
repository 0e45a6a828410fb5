//! Memory types, and what each lets a userfault context do.
//!
//! A type is one file with a [`MemType`] in it, and one line in [`ALL`]. What is special about it stands in its
//! [`UffdOps`]: which faults may be trapped, which operations resolve them, in which granule, and where a fresh folio
//! comes from. The copying, the retries, the page tables and the wake-ups are the same for all types and live elsewhere.
//!
//! `modes` and `ops` are data, so they can be read at a glance and cannot disagree: [`UffdOps::checked`] is evaluated at
//! compile time, and a table that could not resolve what it traps does not compile:
//!
//! ```compile_fail
//! use kernel::mm::memtype::{Granule, Modes, OpSet, UffdOps, anon};
//! // Traps missing pages, but nothing could fill them.
//! const BROKEN: UffdOps = UffdOps {
//!     modes: Modes::MISSING,
//!     ops: OpSet::empty(),
//!     granule: Granule::Base,
//!     filled_by_write: false,
//!     alloc: anon::fresh,
//! }
//! .checked();
//! assert!(BROKEN.modes.contains(Modes::MISSING));
//! ```

use bitflags::bitflags;

use super::frame::{Anon, Frame, OutOfFrames};
use super::pt::Level;

pub mod anon;

bitflags! {
    /// Kinds of faults that a registration traps. The values are Linux's `UFFDIO_REGISTER_MODE_*`.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    pub struct Modes: u8 {
        /// A page that is nowhere.
        const MISSING = 1;
        /// A write to a protected page.
        const WP = 2;
        /// A page that is in the cache but not mapped.
        const MINOR = 4;
    }
}

bitflags! {
    /// Operations that resolve or change registered memory.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    pub struct OpSet: u8 {
        /// Fill with a copy.
        const COPY = 1;
        /// Fill with zeros.
        const ZEROPAGE = 2;
        /// Map what the cache has.
        const CONTINUE = 4;
        /// Protect against writing, or stop protecting.
        const WRITEPROTECT = 8;
        /// Make accesses fail.
        const POISON = 16;
        /// Move pages from elsewhere in the space.
        const MOVE = 32;
    }
}

/// The unit in which a type is filled: the fill loop's step, the alignment it asks for and the mask of reported addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Granule {
    /// 4 KiB.
    Base,
    /// 2 MiB.
    Huge,
}

impl Granule {
    /// The level whose leaves have this size.
    pub const fn level(self) -> Level {
        match self {
            Self::Base => Level::PAGE,
            Self::Huge => Level::MID,
        }
    }

    /// Size in bytes.
    pub const fn size(self) -> u64 {
        self.level().size()
    }
}

/// What a memory type lets a userfault context do.
#[derive(Clone, Copy, Debug)]
pub struct UffdOps {
    /// Faults that may be registered.
    pub modes: Modes,
    /// Operations that work.
    pub ops: OpSet,
    /// The unit of all of them.
    pub granule: Granule,
    /// Whether missing pages can (also) be filled by writing to the memory object.
    pub filled_by_write: bool,
    /// A folio of the granule's size, not yet filled.
    pub alloc: fn() -> Result<Frame<Anon>, OutOfFrames>,
}

impl UffdOps {
    /// The same table, if it can resolve whatever it traps; otherwise a compile-time error.
    ///
    /// # Panics
    /// The table is inconsistent. Meant for constants, where that ends the build.
    pub const fn checked(self) -> Self {
        let can_fill =
            self.ops.contains(OpSet::COPY) || self.ops.contains(OpSet::ZEROPAGE) || self.filled_by_write;
        assert!(
            !self.modes.contains(Modes::MISSING) || can_fill,
            "MISSING needs COPY, ZEROPAGE or write()"
        );
        assert!(
            !self.ops.contains(OpSet::ZEROPAGE) || matches!(self.granule, Granule::Base),
            "ZEROPAGE maps the shared page of zeros, which is a base page"
        );
        assert!(
            !self.modes.contains(Modes::MINOR) || self.ops.contains(OpSet::CONTINUE),
            "MINOR needs CONTINUE"
        );
        assert!(
            !self.modes.contains(Modes::WP) || self.ops.contains(OpSet::WRITEPROTECT),
            "WP needs WRITEPROTECT"
        );
        self
    }
}

/// A memory type.
#[derive(Debug)]
pub struct MemType {
    /// For messages.
    pub name: &'static str,
    /// What a userfault context may do; `None` when it may do nothing.
    pub uffd: Option<UffdOps>,
}

/// All types.
pub static ALL: &[&MemType] = &[&anon::ANON];

impl PartialEq for MemType {
    fn eq(&self, other: &Self) -> bool {
        core::ptr::eq(self, other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "the shared page of zeros")]
    fn a_huge_type_cannot_be_filled_with_the_page_of_zeros() {
        let huge = UffdOps {
            granule: Granule::Huge,
            ..anon::ANON.uffd.expect("anonymous memory has operations")
        };
        let _never = huge.checked();
    }
}
