//! Which access is trapped, and as what: a pure function.
//!
//! | entry | cache | read | write |
//! | --- | --- | --- | --- |
//! | empty | nothing | MISSING if registered | MISSING if registered |
//! | empty | page | MINOR if registered | MINOR if registered |
//! | write-protect marker | nothing | MISSING if registered | MISSING if registered, else WP if registered |
//! | write-protect marker | page | MINOR if registered | MINOR if registered, else WP if registered |
//! | present, write-protected | any | none | WP if registered |
//! | present | any | none | none |
//!
//! Rights are checked before, and poison and guard markers never get here: those accesses fail.

use crate::mm::fault::Access;
use crate::mm::memtype::Modes;

/// What the page-table entry says, as far as traps go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryState {
    /// Nothing.
    Empty,
    /// Nothing, but write-protected before it was populated.
    WpMarker,
    /// A page.
    Present {
        /// Write-protected by a userfault context.
        uffd_wp: bool,
    },
}

/// What the memory type's cache has for the page. Types without one have nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CacheState {
    /// Nothing.
    Absent,
    /// A page.
    Present,
}

/// Why a fault is delegated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum TrapKind {
    /// The page is nowhere.
    Missing,
    /// The page is in the cache but not mapped.
    Minor,
    /// The page is write-protected.
    WriteProtect,
}

/// A fault to be delegated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trap {
    /// Why.
    pub kind: TrapKind,
    /// Whether the access was a store.
    pub write: bool,
}

impl Trap {
    /// In one byte: "write" in bit 0, the kind above.
    #[inline]
    pub(super) const fn to_bits(self) -> u8 {
        (self.kind as u8) << 1 | self.write as u8
    }

    /// Out of that byte.
    #[inline]
    pub(super) const fn from_bits(bits: u8) -> Self {
        let kind = match bits >> 1 {
            0 => TrapKind::Missing,
            1 => TrapKind::Minor,
            _ => TrapKind::WriteProtect,
        };
        Self {
            kind,
            write: bits & 1 != 0,
        }
    }
}

/// The trap that an access raises on memory registered with `modes`, if any.
#[inline]
pub fn classify(entry: EntryState, cache: CacheState, modes: Modes, access: Access) -> Option<Trap> {
    let write = access == Access::Write;
    let trap = |mode: Modes, kind| modes.contains(mode).then_some(Trap { kind, write });
    let absent = || match cache {
        CacheState::Absent => trap(Modes::MISSING, TrapKind::Missing),
        CacheState::Present => trap(Modes::MINOR, TrapKind::Minor),
    };
    let protected = || {
        if write {
            trap(Modes::WP, TrapKind::WriteProtect)
        } else {
            None
        }
    };
    match entry {
        EntryState::Empty => absent(),
        EntryState::WpMarker => absent().or_else(protected),
        EntryState::Present { uffd_wp: true } => protected(),
        EntryState::Present { uffd_wp: false } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_of_the_table() {
        use Access::{Read, Write};
        use CacheState::{Absent, Present as Cached};
        use EntryState::{Empty, Present, WpMarker};
        const N: Option<u8> = None;
        // Rows: entry, cache, access; then the trap's flag word on Linux (write 1, wp 2, minor 4) for modes 1 to 7.
        let rows: [(EntryState, CacheState, Access, [Option<u8>; 7]); 14] = [
            (Empty, Absent, Read, [Some(0), N, Some(0), N, Some(0), N, Some(0)]),
            (
                Empty,
                Absent,
                Write,
                [Some(1), N, Some(1), N, Some(1), N, Some(1)],
            ),
            (Empty, Cached, Read, [N, N, N, Some(4), Some(4), Some(4), Some(4)]),
            (
                Empty,
                Cached,
                Write,
                [N, N, N, Some(5), Some(5), Some(5), Some(5)],
            ),
            (
                WpMarker,
                Absent,
                Read,
                [Some(0), N, Some(0), N, Some(0), N, Some(0)],
            ),
            (
                WpMarker,
                Absent,
                Write,
                [Some(1), Some(3), Some(1), N, Some(1), Some(3), Some(1)],
            ),
            (
                WpMarker,
                Cached,
                Read,
                [N, N, N, Some(4), Some(4), Some(4), Some(4)],
            ),
            (
                WpMarker,
                Cached,
                Write,
                [N, Some(3), Some(3), Some(5), Some(5), Some(5), Some(5)],
            ),
            (Present { uffd_wp: true }, Absent, Read, [N; 7]),
            (Present { uffd_wp: true }, Cached, Read, [N; 7]),
            (
                Present { uffd_wp: true },
                Absent,
                Write,
                [N, Some(3), Some(3), N, N, Some(3), Some(3)],
            ),
            (
                Present { uffd_wp: true },
                Cached,
                Write,
                [N, Some(3), Some(3), N, N, Some(3), Some(3)],
            ),
            (Present { uffd_wp: false }, Absent, Write, [N; 7]),
            (Present { uffd_wp: false }, Cached, Read, [N; 7]),
        ];
        for (entry, cache, access, expected) in rows {
            for (modes, flags) in (1u8..).zip(expected) {
                let trap = classify(entry, cache, Modes::from_bits_truncate(modes), access);
                let got = trap.map(|trap| {
                    let kind = match trap.kind {
                        TrapKind::Missing => 0,
                        TrapKind::WriteProtect => 2,
                        TrapKind::Minor => 4,
                    };
                    kind + u8::from(trap.write)
                });
                assert_eq!(
                    got, flags,
                    "{entry:?}, cache {cache:?}, {access:?}, modes {modes}"
                );
            }
        }
    }

    #[test]
    fn a_fetch_is_trapped_like_a_read() {
        let trap = classify(
            EntryState::Empty,
            CacheState::Absent,
            Modes::MISSING,
            Access::Execute,
        );
        assert_eq!(
            trap,
            Some(Trap {
                kind: TrapKind::Missing,
                write: false
            })
        );
    }
}
