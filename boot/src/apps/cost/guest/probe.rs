//! A guest that reads the clock, does one thing, and reads the clock again.
//!
//! | guest address | what |
//! | --- | --- |
//! | [`TABLES`] | its page tables: identity, 2 GiB |
//! | [`IDT`], [`GDT`] | its interrupt table and its segments |
//! | [`RING`], [`INFO`] | the ring of its monitor, and the page in which the CPU describes violations |
//! | [`CODE`] | the loops below, and the handler |
//! | [`STACK`] | its stack |
//! | [`SOURCE`] | a page to copy from |
//! | [`RESULTS`] | a word for each touch |
//! | [`REGION`] | what is touched |
#![expect(unsafe_code, reason = "bytes between two symbols of the assembler's")]

use core::arch::global_asm;

use kernel::abi::guest::{Call, RING_ENTRIES, VIEW_CACHED};

pub const TABLES: u64 = 0x1000;
pub const IDT: u64 = 0x8000;
pub const RING: u64 = 0x9000;
pub const SOURCE: u64 = 0xa000;
pub const GDT: u64 = 0xb000;
pub const INFO: u64 = 0xc000;
pub const CODE: u64 = 0x1_0000;
pub const STACK: u64 = 0x2_0000;
pub const RESULTS: u64 = 0x10_0000;
pub const REGION: u64 = 1 << 30;
/// The vector by which its monitor is told.
pub const VECTOR: u8 = 0x51;

/// Where in the code each thing begins; see `probe.s` for what the registers hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// Loads a word of each page.
    Load,
    /// Stores a word to each page.
    Store,
    /// Calls the owner, which has nothing to do.
    Call,
    /// Loads a word of each page, from the view in which delegated pages are absent.
    LoadInView,
}

/// Who fills its pages; see `probe.s`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handler {
    /// Told by an interrupt: copies.
    Copies,
    /// Told by #VE: copies.
    CopiesOnException,
    /// Told by #VE: goes to the view in which the page is there.
    Switches,
}

global_asm!(
    include_str!("probe.s"),
    MARK = const Call::Mark as u64,
    EXIT = const Call::Exit as u64,
    COPY = const Call::Copy as u64,
    RING = const RING,
    INFO = const INFO,
    VIEW_CACHED = const VIEW_CACHED,
    SOURCE = const SOURCE,
    RING_ENTRIES = const RING_ENTRIES,
    options(att_syntax)
);

unsafe extern "C" {
    static cost_probe: u8;
    static cost_probe_store: u8;
    static cost_probe_call: u8;
    static cost_probe_view: u8;
    static cost_probe_handler: u8;
    static cost_probe_ve_copies: u8;
    static cost_probe_ve_switches: u8;
    static cost_probe_end: u8;
}

/// The code, as VMMCALL spells its hypercalls.
pub fn code() -> &'static [u8] {
    let (first, end) = (&raw const cost_probe, &raw const cost_probe_end);
    // SAFETY: both are of one read-only section, the second behind the first.
    unsafe { core::slice::from_raw_parts(first, end.addr() - first.addr()) }
}

/// Where a guest begins that does this.
pub fn address_of(entry: Entry) -> u64 {
    at(match entry {
        Entry::Load => &raw const cost_probe,
        Entry::Store => &raw const cost_probe_store,
        Entry::Call => &raw const cost_probe_call,
        Entry::LoadInView => &raw const cost_probe_view,
    })
}

/// Where a handler is.
pub fn address_of_handler(handler: Handler) -> u64 {
    at(match handler {
        Handler::Copies => &raw const cost_probe_handler,
        Handler::CopiesOnException => &raw const cost_probe_ve_copies,
        Handler::Switches => &raw const cost_probe_ve_switches,
    })
}

fn at(symbol: *const u8) -> u64 {
    CODE + (symbol.addr() - (&raw const cost_probe).addr()) as u64
}
