//! Digests of pages: XXH3 with 128 bits.
//!
//! The host computes one for each page of a snapshot and sends them along, 16 bytes little-endian a page, the last page
//! padded with zeros; or they are computed here, at an instant that is checked later. A workload checks what it reads
//! against them.

use alloc::vec::Vec;
use core::fmt;

use xxhash_rust::xxh3::xxh3_128;

/// Bytes of a digest.
pub const DIGEST: usize = 16;

/// The digest of a page.
pub fn of(page: &[u8]) -> u128 {
    xxh3_128(page)
}

/// The list of digests does not fit the snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WrongCount {
    /// Bytes of the list.
    pub bytes: usize,
    /// Pages of the snapshot.
    pub pages: u64,
}

impl fmt::Display for WrongCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, pages } = self;
        write!(
            f,
            "the digests are {bytes} bytes; {pages} pages need {}",
            pages.saturating_mul(DIGEST as u64)
        )
    }
}

impl core::error::Error for WrongCount {}

/// A page that is not what it should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mismatch {
    /// Number of the page.
    pub page: u64,
    /// The digest from the host.
    pub expected: u128,
    /// The digest of what was read.
    pub found: u128,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            page,
            expected,
            found,
        } = self;
        write!(f, "page {page}: digest {found:032x}, expected {expected:032x}")
    }
}

impl core::error::Error for Mismatch {}

/// The digests of a snapshot's pages.
#[derive(Clone, Copy, Debug)]
pub struct Digests<'a> {
    list: &'a [[u8; DIGEST]],
}

impl<'a> Digests<'a> {
    /// The digests in `bytes`, one for each of `pages` pages.
    ///
    /// # Errors
    /// There are more or fewer.
    pub fn new(bytes: &'a [u8], pages: u64) -> Result<Self, WrongCount> {
        match bytes.as_chunks() {
            (list, []) if list.len() as u64 == pages => Ok(Self { list }),
            _ => Err(WrongCount {
                bytes: bytes.len(),
                pages,
            }),
        }
    }

    /// Checks the content of page `page`.
    ///
    /// # Errors
    /// It has another digest.
    ///
    /// # Panics
    /// The snapshot has no such page.
    pub fn check(&self, page: u64, content: &[u8]) -> Result<(), Mismatch> {
        let expected = u128::from_le_bytes(self.list[page as usize]);
        let found = of(content);
        if found == expected {
            Ok(())
        } else {
            Err(Mismatch {
                page,
                expected,
                found,
            })
        }
    }
}

/// Digests that are computed here, page after page.
#[derive(Clone, Debug, Default)]
pub struct DigestList {
    list: Vec<[u8; DIGEST]>,
}

impl DigestList {
    /// Room for `pages` digests; more are taken, at the price of an allocation.
    pub fn with_capacity(pages: usize) -> Self {
        Self {
            list: Vec::with_capacity(pages),
        }
    }

    /// Adds the digest of the next page.
    pub fn push(&mut self, page: &[u8]) {
        self.list.push(of(page).to_le_bytes());
    }

    /// The pages whose digest is another than in `expected`, as far as both lists reach.
    pub fn differences<'a>(&'a self, expected: &'a Self) -> impl Iterator<Item = Mismatch> + 'a {
        let both = self.list.iter().zip(&expected.list).enumerate();
        both.filter(|(_, (found, expected))| found != expected)
            .map(|(page, (found, expected))| Mismatch {
                page: page as u64,
                expected: u128::from_le_bytes(*expected),
                found: u128::from_le_bytes(*found),
            })
    }

    /// To check pages against.
    pub fn digests(&self) -> Digests<'_> {
        Digests { list: &self.list }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec;

    use super::*;

    #[test]
    fn digest_is_the_published_function() {
        // XXH3_128bits of the empty input, from the algorithm's specification.
        assert_eq!(of(b""), 0x99aa_06d3_0147_98d8_6001_c324_468d_497f);
    }

    #[test]
    fn changed_page_is_named_with_both_digests() {
        let pages = [vec![1u8; 4096], vec![2; 4096]];
        let bytes: Vec<u8> = pages.iter().flat_map(|page| of(page).to_le_bytes()).collect();
        let digests = Digests::new(&bytes, 2).unwrap();
        let mut list = DigestList::with_capacity(2);
        pages.iter().for_each(|page| list.push(page));
        assert_eq!(
            list.digests().list,
            digests.list,
            "computed here or there, the same"
        );
        assert_eq!(digests.check(1, &pages[1]), Ok(()));
        let mut changed = pages[1].clone();
        changed[4095] ^= 1;
        let mismatch = digests.check(1, &changed).unwrap_err();
        assert_eq!(
            mismatch,
            Mismatch {
                page: 1,
                expected: of(&pages[1]),
                found: of(&changed)
            }
        );
        let text = mismatch.to_string();
        assert!(
            text.starts_with("page 1: digest ") && text.contains(", expected "),
            "{text}"
        );
    }

    #[test]
    fn list_of_another_length_is_refused() {
        for bytes in [0, 16, 31, 33, 48] {
            assert_eq!(
                Digests::new(&vec![0; bytes], 2).unwrap_err(),
                WrongCount { bytes, pages: 2 }
            );
        }
        assert_eq!(
            Digests::new(&[0; 5], 2).unwrap_err().to_string(),
            "the digests are 5 bytes; 2 pages need 32"
        );
    }

    #[test]
    fn lists_differ_in_the_pages_that_do() {
        let list = |pages: [u8; 3]| {
            let mut list = DigestList::default();
            pages.iter().for_each(|byte| list.push(&[*byte; 4096]));
            list
        };
        let (found, expected) = (list([1, 5, 3]), list([1, 2, 3]));
        let differences: Vec<Mismatch> = found.differences(&expected).collect();
        assert_eq!(differences.len(), 1);
        assert_eq!(differences[0].page, 1);
        assert_eq!(
            (differences[0].found, differences[0].expected),
            (of(&[5; 4096]), of(&[2; 4096]))
        );
        assert_eq!(found.differences(&found).count(), 0);
    }
}
