//! What an entry means, apart from how a CPU encodes it.

use bitflags::bitflags;

use crate::mm::addr::{PAGE_SHIFT, PageAddr, Pfn};

/// Level of a node and of its entries: 1 has 4 KiB leaves, 2 has 2 MiB, 3 has 1 GiB, 4 is the root.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Level(u8);

impl Level {
    /// Entries of 4 KiB.
    pub const PAGE: Level = Level(1);
    /// Entries of 2 MiB.
    pub const MID: Level = Level(2);
    /// Entries of 1 GiB.
    pub const UPPER: Level = Level(3);
    /// Entries of 512 GiB: the root.
    pub const ROOT: Level = Level(4);

    /// 1 to 4.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The level with this number, 1 to 4.
    ///
    /// # Panics
    /// There is none.
    pub const fn numbered(number: u8) -> Self {
        assert!(number >= 1 && number <= 4, "levels are numbered from 1 to 4");
        Self(number)
    }

    /// log2 of the bytes that an entry covers.
    pub const fn shift(self) -> u32 {
        PAGE_SHIFT + 9 * (self.0 as u32 - 1)
    }

    /// Bytes that an entry covers.
    pub const fn size(self) -> u64 {
        1 << self.shift()
    }

    /// Base frames that an entry covers.
    pub const fn frames(self) -> u64 {
        1 << (self.shift() - PAGE_SHIFT)
    }

    /// log2 of [`Self::frames`]: the order of a block that fills an entry.
    pub const fn order(self) -> u8 {
        (self.shift() - PAGE_SHIFT) as u8
    }

    /// The level of the nodes that this level's table entries point to.
    ///
    /// # Panics
    /// There is none below [`Level::PAGE`].
    pub const fn below(self) -> Level {
        assert!(self.0 > 1, "no level below pages");
        Level(self.0 - 1)
    }

    /// The level above, if it is not the root.
    pub const fn above(self) -> Option<Level> {
        if self.0 < 4 { Some(Level(self.0 + 1)) } else { None }
    }

    /// Which of a node's 512 entries decides about `addr`.
    pub const fn index(self, addr: u64) -> usize {
        (addr >> self.shift()) as usize & 511
    }
}

bitflags! {
    /// Rights of a leaf. An empty set is a leaf that is there but lets nobody in.
    ///
    /// The first three stand where x86-64 has present, writable and user, so that stage 1 need not shuffle bits.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    pub struct Prot: u8 {
        /// Loads.
        const READ = 1;
        /// Stores.
        const WRITE = 1 << 1;
        /// User mode too, not only the kernel.
        const USER = 1 << 2;
        /// Instruction fetches.
        const EXEC = 1 << 3;
    }
}

bitflags! {
    /// What else is known about a leaf. The bits stand where stage 1 has them in its entries.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct AttrFlags: u16 {
        /// Used since this was last cleared.
        const ACCESSED = 1 << 5;
        /// Written since this was last cleared.
        const DIRTY = 1 << 6;
        /// Survives a change of the root.
        const GLOBAL = 1 << 8;
        /// The entry owns no reference to the frame.
        const BORROWED = 1 << 9;
        /// Write-protected by a userfault context.
        const UFFD_WP = 1 << 10;
        /// Shared by a fork and not written since: not this space's alone, even when nobody else is left. Never together
        /// with the right to write; the store that grants it takes this away. Stage 2 has no such leaves.
        const FORKED = 1 << 11;
    }
}

/// How the CPU caches a leaf's memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum CacheType {
    /// Ordinary memory.
    #[default]
    WriteBack,
    /// Reads are cached, writes go through.
    WriteThrough,
    /// Framebuffers.
    WriteCombining,
    /// Device registers.
    Uncached,
}

/// Attributes of a leaf.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Attr {
    /// Flags.
    pub flags: AttrFlags,
    /// Memory type.
    pub cache: CacheType,
}

impl Attr {
    /// Ordinary memory with these flags.
    pub const fn flags(flags: AttrFlags) -> Self {
        Self {
            flags,
            cache: CacheType::WriteBack,
        }
    }

    /// Whether the entry owns no reference.
    pub const fn is_borrowed(self) -> bool {
        self.flags.contains(AttrFlags::BORROWED)
    }
}

/// What an absent entry remembers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Marker {
    /// Nothing.
    #[default]
    None,
    /// Write-protected by a userfault context before it was populated.
    UffdWp,
    /// Any access is a bus error.
    Poison,
    /// Any access is a segmentation fault.
    Guard,
}

impl Marker {
    /// As a number below 4, for formats to put somewhere into an absent entry; 0 is [`Marker::None`].
    #[inline]
    pub const fn number(self) -> u64 {
        match self {
            Self::None => 0,
            Self::UffdWp => 1,
            Self::Poison => 2,
            Self::Guard => 3,
        }
    }

    /// The marker with this number, of which the two lowest bits count.
    #[inline]
    pub const fn from_number(number: u64) -> Self {
        match number & 3 {
            0 => Self::None,
            1 => Self::UffdWp,
            2 => Self::Poison,
            _ => Self::Guard,
        }
    }
}

/// A translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// First frame.
    pub frame: Pfn,
    /// Rights.
    pub prot: Prot,
    /// The rest.
    pub attr: Attr,
}

impl Leaf {
    /// This leaf, but owning its frame if `other` does and only then.
    #[inline(always)]
    pub(super) const fn owned_like(mut self, other: &Self) -> Self {
        let (own, others) = (self.attr.flags, other.attr.flags);
        let apart = AttrFlags::BORROWED.complement();
        self.attr.flags = own
            .intersection(apart)
            .union(others.intersection(AttrFlags::BORROWED));
        self
    }

    /// Whether a userfault context protects it.
    pub const fn is_protected(&self) -> bool {
        self.attr.flags.contains(AttrFlags::UFFD_WP)
    }

    /// Write-protected by a userfault context.
    #[must_use]
    pub fn protected(mut self) -> Self {
        self.prot -= Prot::WRITE;
        self.attr.flags |= AttrFlags::UFFD_WP;
        self
    }

    /// No longer write-protected; with `write`, whoever may load may store as well.
    #[must_use]
    pub fn unprotected(mut self, write: bool) -> Self {
        self.attr.flags -= AttrFlags::UFFD_WP;
        if write && self.prot.contains(Prot::READ) {
            self.prot |= Prot::WRITE;
        }
        self
    }
}

/// An entry, decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// No translation.
    Absent(Marker),
    /// A node one level down.
    Table(Pfn),
    /// A translation.
    Leaf(Leaf),
}

impl Entry {
    /// Nothing there, nothing remembered.
    pub const EMPTY: Entry = Entry::Absent(Marker::None);

    /// Whether it is a leaf.
    pub const fn is_leaf(&self) -> bool {
        matches!(self, Entry::Leaf(_))
    }
}

/// A way to encode entries.
///
/// `decode(encode(e, l), l) == e` for every entry that [`PtFormat::can_encode`] accepts. Tables have four levels of 512 entries of 8 bytes.
pub trait PtFormat: Sized + core::fmt::Debug + 'static {
    /// What the tables translate from.
    type Addr: PageAddr;

    /// The bits of [`Entry::EMPTY`], at every level: what a fresh node is full of.
    const EMPTY: u64 = 0;

    /// Largest level at which this machine may have leaves.
    fn max_leaf() -> Level;

    /// Whether the format has these rights and attributes; for example x86-64 cannot grant writing without reading.
    fn can_encode_leaf(leaf: &Leaf) -> bool;

    /// Whether the format can say this: a leaf that is also aligned to its size.
    fn can_encode(entry: &Entry, level: Level) -> bool {
        match entry {
            Entry::Absent(_) => true,
            Entry::Table(_) => level > Level::PAGE,
            Entry::Leaf(leaf) => {
                let aligned = leaf.frame.as_u64() & (level.frames() - 1) == 0;
                level <= Level::UPPER && aligned && Self::can_encode_leaf(leaf)
            }
        }
    }

    /// The entry's bits.
    fn encode(entry: &Entry, level: Level) -> u64;

    /// The entry that has these bits.
    fn decode(raw: u64, level: Level) -> Entry;

    /// The node that an entry with these bits points to, if it points to one: what a walk asks at every level. Formats
    /// override it where that is cheaper than decoding all of the entry.
    #[inline]
    fn decode_table(raw: u64, level: Level) -> Option<Pfn> {
        match Self::decode(raw, level) {
            Entry::Table(pfn) => Some(pfn),
            _ => None,
        }
    }

    /// The frame of a leaf that has all of these rights, at least one, and all of these flags; `None` for everything else.
    /// What is asked of an entry that somebody else has filled.
    #[inline]
    fn frame_with(raw: u64, level: Level, prot: Prot, flags: AttrFlags) -> Option<Pfn> {
        match Self::decode(raw, level) {
            Entry::Leaf(leaf) if leaf.prot.contains(prot) && leaf.attr.flags.contains(flags) => {
                Some(leaf.frame)
            }
            _ => None,
        }
    }

    // The rest serves write protection of many pages. The defaults say what is meant; formats override them where it can be
    // had without decoding.

    /// The bits of a leaf that change when it is protected ([`Leaf::protected`]); `None` unless it is a leaf.
    #[inline]
    fn to_protect(raw: u64, level: Level) -> Option<u64> {
        match Self::decode(raw, level) {
            Entry::Leaf(leaf) => Some(raw ^ Self::encode(&Entry::Leaf(leaf.protected()), level)),
            _ => None,
        }
    }

    /// The bits of a protected leaf that change when its protection ends ([`Leaf::unprotected`]).
    #[inline]
    fn to_unprotect(raw: u64, level: Level, write: bool) -> u64 {
        match Self::decode(raw, level) {
            Entry::Leaf(leaf) => raw ^ Self::encode(&Entry::Leaf(leaf.unprotected(write)), level),
            _ => 0,
        }
    }

    /// The frame of a protected leaf that owns it, was not forked, and may be loaded from and not be stored to: the common
    /// case of a protected page. `None` for everything else.
    #[inline]
    fn protected_frame(raw: u64, level: Level) -> Option<Pfn> {
        let Entry::Leaf(leaf) = Self::decode(raw, level) else {
            return None;
        };
        let common = leaf.is_protected()
            && !leaf
                .attr
                .flags
                .intersects(AttrFlags::BORROWED | AttrFlags::FORKED)
            && leaf.prot & (Prot::READ | Prot::WRITE) == Prot::READ;
        common.then_some(leaf.frame)
    }
}
