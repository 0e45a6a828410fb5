//! Delegated memory, and other guest-physical memory that is not the kernel's: mapped, and touched a word at a time.
#![expect(unsafe_code, reason = "memory that the hypervisor fills behind one's back")]

use kernel::abi::guest::BootInfo;
use kernel::mm::addr::{PAGE_SIZE, PhysAddr};
use kernel::mm::kmap;
use kernel::mm::pt::CacheType;

use crate::commands::Failure;

/// Words of a page.
pub const WORDS: usize = PAGE_SIZE as usize / 8;

/// A range of guest-physical memory that is not ordinary memory.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    len: u64,
    at: u64,
}

impl Window {
    /// The delegated memory.
    ///
    /// # Errors
    /// There is none, or it cannot be mapped.
    pub fn delegated(given: &BootInfo) -> Result<Self, Failure> {
        Self::map("delegated memory", given.delegated_start, given.delegated_len)
    }

    /// Maps `len` bytes at `start`, whatever is there.
    ///
    /// # Errors
    /// `len` is 0, or there is no memory for the tables.
    pub fn map(what: &str, start: u64, len: u64) -> Result<Self, Failure> {
        if len == 0 {
            return Err(Failure::Failed(alloc::format!("the machine has no {what}")));
        }
        let at = kmap::map_device(PhysAddr::new(start), len, CacheType::WriteBack)
            .map_err(|_| Failure::Failed(alloc::format!("too little memory to map the {what}")))?;
        Ok(Self { len, at: at.as_u64() })
    }

    /// Whole pages.
    pub fn pages(&self) -> u64 {
        self.len / PAGE_SIZE
    }

    /// All of it, if nobody ever changes it: the store.
    pub fn contents(&self) -> &'static [u8] {
        // SAFETY: mapped for ever and never written, by the contract of the store.
        unsafe {
            core::slice::from_raw_parts(
                core::ptr::with_exposed_provenance(self.at as usize),
                self.len as usize,
            )
        }
    }

    /// Loads a word of a page.
    pub fn load(&self, page: u64, word: usize) -> u64 {
        // SAFETY: `word` bounds it. A device's, as far as Rust is concerned: nothing else of this program refers to it.
        unsafe { self.word(page, word).read_volatile() }
    }

    /// Stores a word of a page.
    pub fn store(&self, page: u64, word: usize, value: u64) {
        // SAFETY: as in `load`; who stores where is settled by the tasks.
        unsafe { self.word(page, word).write_volatile(value) }
    }

    fn word(&self, page: u64, word: usize) -> *mut u64 {
        assert!(page < self.pages() && word < WORDS, "word {word} of page {page}");
        core::ptr::with_exposed_provenance_mut((self.at + page * PAGE_SIZE) as usize + word * 8)
    }
}
