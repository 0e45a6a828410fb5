//! A guest's first page tables, built here and written to its memory afterwards.
//!
//! | from | to | leaves |
//! | --- | --- | --- |
//! | 0 | the first [`IDENTITY_MAPPED`] bytes of guest-physical memory | 2 MiB |
//! | [`DIRECT_MAP`] | the same | the same tables |
//! | each segment's virtual address | its physical address | 2 MiB where both fit, else 4 KiB |
//!
//! Everything is present, writable and executable, and nothing else is mapped.

use alloc::boxed::Box;
use alloc::vec::Vec;

use kernel::abi::guest::{DIRECT_MAP, IDENTITY_MAPPED, PAGE};

use super::image::Segment;

/// Entry bits (SDM vol. 3A, 5.5.4; APM vol. 2, 5.3): present and writable; a leaf above the last level.
const PRESENT_WRITE: u64 = 3;
const LARGE: u64 = 1 << 7;
/// Where an entry leads.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Bytes that a leaf of the second level maps.
const LARGE_PAGE: u64 = 2 << 20;
/// Levels: 4 is the root.
const ROOT: u32 = 4;

/// Bits of the address that a table of `level` translates begin here.
const fn shift(level: u32) -> u32 {
    12 + 9 * (level - 1)
}

const fn index(address: u64, level: u32) -> usize {
    (address >> shift(level)) as usize & 511
}

/// Why segments cannot be mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unmappable {
    /// The tables do not fit into the room for them.
    NoRoom,
    /// A page of this segment is mapped to other memory already.
    Twice {
        /// Its number.
        segment: usize,
    },
}

/// One table, as the CPU reads it.
type Table = Box<[u8; PAGE as usize]>;

/// Tables that will lie one after the other from some page on. The first is the root.
#[derive(Debug)]
pub struct Tables {
    start: u64,
    /// First byte behind the room for them.
    limit: u64,
    tables: Vec<Table>,
}

impl Tables {
    /// Tables at `start`, a page's, and below `limit`, that map what every guest finds and its segments. These lie below
    /// `limit`, too.
    ///
    /// # Errors
    /// See [`Unmappable`].
    pub fn new(start: u64, limit: u64, segments: &[Segment<'_>]) -> Result<Self, Unmappable> {
        let mut all = Self {
            start,
            limit,
            tables: Vec::new(),
        };
        let root = all.add()?;
        all.map_all(root)?;
        for segment in segments {
            all.map_segment(root, segment)?;
        }
        Ok(all)
    }

    /// Where the root lies.
    pub fn root(&self) -> u64 {
        self.start
    }

    /// First byte behind the tables.
    pub fn end(&self) -> u64 {
        self.start + self.tables.len() as u64 * PAGE
    }

    /// Each table with its place.
    pub fn pages(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let places = (0..).map(|number| self.start + number * PAGE);
        places.zip(self.tables.iter().map(|table| &table[..]))
    }

    /// The identity map and the direct map: two tables of the third level, which share those below.
    fn map_all(&mut self, root: u64) -> Result<(), Unmappable> {
        let (low, direct) = (self.add()?, self.add()?);
        self.set(root, 0, low | PRESENT_WRITE);
        self.set(root, index(DIRECT_MAP, ROOT), direct | PRESENT_WRITE);
        for gib in 0..(IDENTITY_MAPPED >> 30) as usize {
            let table = self.add()?;
            self.set(low, gib, table | PRESENT_WRITE);
            self.set(direct, gib, table | PRESENT_WRITE);
            for page in 0..512 {
                let target = ((gib as u64) << 30) + page as u64 * LARGE_PAGE;
                self.set(table, page, target | PRESENT_WRITE | LARGE);
            }
        }
        Ok(())
    }

    fn map_segment(&mut self, root: u64, segment: &Segment<'_>) -> Result<(), Unmappable> {
        let end = segment.end().next_multiple_of(PAGE);
        let mut address = segment.address / PAGE * PAGE;
        let mut target = segment.physical / PAGE * PAGE;
        while address < end {
            let is_large = (address | target).is_multiple_of(LARGE_PAGE) && end - address >= LARGE_PAGE;
            let level = if is_large { 2 } else { 1 };
            if !self.map(root, address, target, level)? {
                return Err(Unmappable::Twice {
                    segment: segment.number,
                });
            }
            address += 1 << shift(level);
            target += 1 << shift(level);
        }
        Ok(())
    }

    /// Maps `address` to `target` by a leaf of `level`; false if something else is mapped there.
    fn map(&mut self, root: u64, address: u64, target: u64, level: u32) -> Result<bool, Unmappable> {
        let mut table = root;
        let mut at = ROOT;
        loop {
            let slot = index(address, at);
            let entry = self.get(table, slot);
            if entry & LARGE != 0 || (at == 1 && entry != 0) {
                // A leaf: of the identity map, or of a segment that shares this page.
                let inside = address & ((1 << shift(at)) - 1);
                return Ok((entry & ADDRESS) + inside == target);
            }
            if at == level {
                if entry != 0 {
                    // Smaller pages of another segment are mapped somewhere below.
                    return Ok(false);
                }
                let large = if level > 1 { LARGE } else { 0 };
                self.set(table, slot, target | PRESENT_WRITE | large);
                return Ok(true);
            }
            table = match entry & ADDRESS {
                0 => {
                    let next = self.add()?;
                    self.set(table, slot, next | PRESENT_WRITE);
                    next
                }
                next => next,
            };
            at -= 1;
        }
    }

    /// One more table; where it will lie.
    fn add(&mut self) -> Result<u64, Unmappable> {
        let at = self.end();
        if self.limit.saturating_sub(at) < PAGE {
            return Err(Unmappable::NoRoom);
        }
        self.tables.push(Box::new([0; PAGE as usize]));
        Ok(at)
    }

    fn slot(&mut self, table: u64, slot: usize) -> &mut [u8; 8] {
        let number = ((table - self.start) / PAGE) as usize;
        let (slots, _) = self.tables[number].as_chunks_mut();
        &mut slots[slot]
    }

    fn get(&mut self, table: u64, slot: usize) -> u64 {
        u64::from_le_bytes(*self.slot(table, slot))
    }

    fn set(&mut self, table: u64, slot: usize, entry: u64) {
        *self.slot(table, slot) = entry.to_le_bytes();
    }
}
