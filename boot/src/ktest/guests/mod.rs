//! Guests of a few instructions each, on the real CPU: what the vendors' modules promise.
//!
//! ```text
//!   guest_test!(fn name<V>() …)  runs with this machine's vendor
//!         Guest<V> ── vCPU, registers ── nested table ── pages, each a frame
//! ```
//!
//! A guest starts in 64-bit mode at privilege level 0 with tables of its own, which map its first 2 MiB one to one:
//!
//! | guest address | what |
//! | --- | --- |
//! | [`TABLES`] | its page tables: four pages |
//! | [`IDT`], [`GDT`] | its interrupt table and its segments, absent until [`Guest::set_gate`] |
//! | [`CODE`] | its instructions, from [`guest_code!`] |
//! | [`STACK`] | a page; RSP starts at its end |
//! | [`DATA`] | a page |
//! | everything else | absent at stage 2 |

use alloc::string::String;
use alloc::vec::Vec;

use hv::exit::{Exit, Stopped};
use hv::state::{Registers, SystemState, TableRegister};
use hv::svm::Svm;
use hv::vendor::{Unavailable, Vendor};
use hv::vmx::Vmx;
use kernel::arch::x86_64::features::{Features, features};
use kernel::mm::addr::{GuestPhysAddr, PAGE_SIZE, Pfn};
use kernel::mm::frame::{Frame, KernelData};
use kernel::mm::phys;
use kernel::mm::pt::{Attr, Flush, Invalidator, Level, PageTable, Progress, Prot};
use kernel::mm::range::GuestRange;
use kernel::println;

use super::common::text;

mod basic;
mod built_in;
mod divert;
mod interrupts;
mod leaves;
mod memory;
mod running;
mod svm;
mod switched;

/// Its page tables: one of each level, from the root down.
pub const TABLES: u64 = 0x1000;
/// Its interrupt table.
pub const IDT: u64 = 0x8000;
/// Its segment descriptors.
pub const GDT: u64 = 0x9000;
/// Its instructions.
pub const CODE: u64 = 0x1_0000;
/// Its stack's page.
pub const STACK: u64 = 0x2_0000;
/// A page to play with.
pub const DATA: u64 = 0x3_0000;

/// Bytes that the guest's tables map.
const REACH: u64 = 2 << 20;
/// Selectors and descriptors of 64-bit code and of data, both for privilege level 0.
const SEGMENTS: [(u64, u64); 2] = [(8, 0x00af_9b00_0000_ffff), (16, 0x00cf_9300_0000_ffff)];
/// A page-table entry: present, writable, accessed.
const ENTRY: u64 = 0x23;
/// RFLAGS with nothing but the bit that is always set.
pub const FLAGS: u64 = 2;
/// RFLAGS.IF.
pub const INTERRUPT_FLAG: u64 = 1 << 9;
/// Interrupts of the host's that a run outlasts before it counts as hanging: 20 s of ticks.
const PATIENCE: u32 = 2000;

/// How the tests spell hypercalls.
const VMMCALL: [u8; 3] = [0x0f, 0x01, 0xd9];

/// Whose virtualisation this machine has.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// AMD's.
    Svm,
    /// Intel's.
    Vmx,
}

impl Kind {
    /// What the CPU shows.
    fn shown() -> Option<Self> {
        let kinds = [(Features::SVM, Self::Svm), (Features::VMX, Self::Vmx)];
        kinds
            .into_iter()
            .find_map(|(feature, kind)| features().contains(feature).then_some(kind))
    }

    fn enable(self) -> Result<hv::vendor::Features, Unavailable> {
        match self {
            Self::Svm => Svm::enable(),
            Self::Vmx => Vmx::enable(),
        }
    }
}

/// Whose guests this machine runs, if any.
pub fn kind() -> Option<Kind> {
    Kind::shown().filter(|kind| kind.enable().is_ok())
}

/// Enables virtualisation, so that what it keeps for good is there before tests count frames; says why there is nothing to
/// test.
pub fn prepare() {
    match Kind::shown().map_or(Err(Unavailable::Absent), Kind::enable) {
        Ok(_) => {}
        Err(why) => println!("tests with guests have nothing to test: {why}"),
    }
}

/// Registers tests that are generic over the vendor, and run with this machine's. Without one there is nothing to test.
macro_rules! guest_test {
    ($(#[$attr:meta])* fn $name:ident<$vendor:ident>() -> Result<(), String> $body:block) => {
        $crate::kernel_test!(
            $(#[$attr])*
            fn $name() -> Result<(), String> {
                fn test<$vendor: hv::vendor::Vendor>() -> Result<(), String> $body
                match $crate::ktest::guests::kind() {
                    Some($crate::ktest::guests::Kind::Svm) => test::<hv::svm::Svm>(),
                    Some($crate::ktest::guests::Kind::Vmx) => test::<hv::vmx::Vmx>(),
                    None => Ok(()),
                }
            }
        );
    };
}
use guest_test;

/// Instructions of a guest, as a function that returns their bytes, of which `.org` counts. They run wherever they are put;
/// names are unique among all of them.
macro_rules! guest_code {
    ($(#[$attr:meta])* $name:ident: $($line:literal),+ $(,)?) => {
        #[expect(unsafe_code, reason = "bytes between two symbols of the assembler's")]
        mod $name {
            core::arch::global_asm!(
                concat!(".pushsection .rodata.guest.", stringify!($name), ", \"a\""),
                concat!(".globl guest_code_", stringify!($name), ", guest_code_", stringify!($name), "_end"),
                concat!("guest_code_", stringify!($name), ":"),
                $($line,)+
                concat!("guest_code_", stringify!($name), "_end:"),
                ".popsection",
            );
            unsafe extern "C" {
                #[link_name = concat!("guest_code_", stringify!($name))]
                static FIRST: u8;
                #[link_name = concat!("guest_code_", stringify!($name), "_end")]
                static END: u8;
            }
            pub fn $name() -> &'static [u8] {
                let (first, end) = (&raw const FIRST, &raw const END);
                // SAFETY: both are of one read-only section, the second behind the first.
                unsafe { core::slice::from_raw_parts(first, end.addr() - first.addr()) }
            }
        }
        $(#[$attr])*
        use $name::$name;
    };
}
use guest_code;

/// Nothing to do now: the test flushes with the guest's next run, and keeps the frames until then.
struct NextRun;

impl Invalidator<GuestPhysAddr> for NextRun {
    fn invalidate(&self, _: GuestRange, _: u64) {}
}

/// A guest.
#[derive(Debug)]
pub struct Guest<V: Vendor> {
    /// Its vCPU.
    pub vcpu: V::Vcpu,
    /// Its registers.
    pub registers: Registers,
    stage2: PageTable<V::Format>,
    pages: Vec<(u64, Frame<KernelData>)>,
}

impl<V: Vendor> Guest<V> {
    /// A guest that is about to execute `code`.
    pub fn new(code: &[u8]) -> Result<Self, String> {
        V::enable().map_err(text)?;
        let stage2 = PageTable::new().map_err(text)?;
        let mut guest = Self {
            vcpu: V::create(stage2.root()).map_err(text)?,
            registers: Registers {
                rip: CODE,
                rsp: STACK + PAGE_SIZE,
                rflags: FLAGS,
                ..Registers::default()
            },
            stage2,
            pages: Vec::new(),
        };
        guest.make_tables()?;
        for page in [CODE, STACK, DATA] {
            guest.add(page, Prot::READ | Prot::WRITE | Prot::EXEC)?;
        }
        let bytes = guest.bytes(CODE);
        bytes[..code.len()].copy_from_slice(code);
        while let Some(at) = bytes.windows(3).position(|bytes| bytes == VMMCALL)
            && V::HYPERCALL != VMMCALL
        {
            bytes[at..at + 3].copy_from_slice(&V::HYPERCALL);
        }
        V::load(&mut guest.vcpu, &SystemState::long_mode(TABLES));
        Ok(guest)
    }

    fn make_tables(&mut self) -> Result<(), String> {
        for level in 0..4 {
            self.add(TABLES + level * PAGE_SIZE, Prot::READ | Prot::WRITE)?;
        }
        for level in 0..3 {
            let below = TABLES + (level + 1) * PAGE_SIZE;
            self.poke(TABLES + level * PAGE_SIZE, below | ENTRY);
        }
        for page in (0..REACH).step_by(PAGE_SIZE as usize) {
            self.poke(Self::entry_of(page), page | ENTRY);
        }
        Ok(())
    }

    /// Where the guest's own entry for a page of its first 2 MiB stands.
    pub fn entry_of(page: u64) -> u64 {
        TABLES + 3 * PAGE_SIZE + page / PAGE_SIZE * 8
    }

    /// Has another vCPU go on with `state` and the same registers.
    pub fn replace_vcpu(&mut self, state: &SystemState) -> Result<(), String> {
        self.vcpu = V::create(self.stage2.root()).map_err(text)?;
        V::load(&mut self.vcpu, state);
        Ok(())
    }

    /// Lets the guest's user mode use a page, as far as the guest's tables decide.
    pub fn let_users_in(&mut self, page: u64) {
        const USER: u64 = 1 << 2;
        for level in 0..3 {
            let at = TABLES + level * PAGE_SIZE;
            let entry = self.peek(at);
            self.poke(at, entry | USER);
        }
        let at = Self::entry_of(page);
        let entry = self.peek(at);
        self.poke(at, entry | USER);
    }

    /// Gives the guest a page of zeros at `at`, with these rights at stage 2.
    pub fn add(&mut self, at: u64, prot: Prot) -> Result<(), String> {
        let frame = Frame::alloc_zeroed().map_err(text)?;
        self.map(at, frame.pfn(), prot)?;
        self.pages.push((at, frame));
        Ok(())
    }

    /// Maps a frame that outlives the guest, where nothing is mapped.
    pub fn map(&mut self, at: u64, frame: Pfn, prot: Prot) -> Result<(), String> {
        self.map_leaf(Level::PAGE, at, frame, prot)
    }

    /// The same with a leaf of `level`.
    pub fn map_leaf(&mut self, level: Level, at: u64, frame: Pfn, prot: Prot) -> Result<(), String> {
        let start = GuestPhysAddr::new(at);
        let mut cursor = self.stage2.cursor(GuestRange::new(start, start + level.size()));
        match cursor.install_borrowed(level, frame, prot, Attr::default()) {
            Ok(Some(_)) => Ok(()),
            other => Err(text(other)),
        }
    }

    /// Has the guest's own entry for one of its first pages lead to another guest-physical address.
    pub fn point_to(&mut self, page: u64, at: u64) {
        self.poke(Self::entry_of(page), at | ENTRY);
    }

    /// Takes a page away from stage 2. The guest may use it until it is run with a flush.
    pub fn unmap(&mut self, at: u64) {
        let mut flush = Flush::new();
        let done = self
            .stage2
            .cursor_at(GuestPhysAddr::new(at))
            .unmap(false, &mut flush);
        assert_eq!(done, Ok(Progress::Done), "a page is one entry");
        flush.spend(&NextRun);
    }

    /// The bytes of a page that it was given.
    pub fn bytes(&mut self, at: u64) -> &mut [u8] {
        let page = self.pages.iter_mut().find(|(page, _)| *page == at);
        phys::bytes_mut(&mut page.expect("a page of the guest's").1)
    }

    /// A word of its memory.
    pub fn peek(&mut self, at: u64) -> u64 {
        let offset = (at % PAGE_SIZE) as usize;
        let bytes = &self.bytes(at - at % PAGE_SIZE)[offset..offset + 8];
        u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
    }

    /// Stores a word to its memory.
    pub fn poke(&mut self, at: u64, word: u64) {
        let offset = (at % PAGE_SIZE) as usize;
        self.bytes(at - at % PAGE_SIZE)[offset..offset + 8].copy_from_slice(&word.to_le_bytes());
    }

    /// Leads a vector to an address. The first one gives the guest an interrupt table, and the code segment that
    /// its gates name.
    pub fn set_gate(&mut self, vector: u8, handler: u64) -> Result<(), String> {
        if !self.pages.iter().any(|(page, _)| *page == IDT) {
            self.add(IDT, Prot::READ | Prot::WRITE)?;
            self.add(GDT, Prot::READ | Prot::WRITE)?;
            let mut state = V::save(&mut self.vcpu);
            for (selector, descriptor) in SEGMENTS {
                self.poke(GDT + selector, descriptor);
            }
            state.gdtr = TableRegister {
                limit: 0x17,
                base: GDT,
            };
            state.idtr = TableRegister {
                limit: 0xfff,
                base: IDT,
            };
            V::load(&mut self.vcpu, &state);
        }
        // Present, interrupt gate, code segment 8.
        let low = handler & 0xffff | 8 << 16 | 0x8e00 << 32 | (handler >> 16 & 0xffff) << 48;
        let at = IDT + u64::from(vector) * 16;
        self.poke(at, low);
        self.poke(at + 8, handler >> 32);
        Ok(())
    }

    /// Runs the guest until it stops for a reason of its own.
    pub fn run(&mut self) -> Stopped {
        self.run_with(false)
    }

    /// The same, and first drops what the CPU has cached of its tables.
    pub fn run_flushed(&mut self) -> Stopped {
        self.run_with(true)
    }

    fn run_with(&mut self, flush: bool) -> Stopped {
        let mut stopped = V::run(&mut self.vcpu, &mut self.registers, flush);
        for _ in 0..PATIENCE {
            if stopped.exit != Exit::HostInterrupt {
                break;
            }
            stopped = V::run(&mut self.vcpu, &mut self.registers, false);
        }
        stopped
    }

    /// Moves on behind an instruction that was intercepted.
    pub fn skip(&mut self, len: u8) {
        self.registers.rip += u64::from(len);
    }
}

/// Runs the guest, and says it if it stopped for another reason than `expected`.
macro_rules! expect_exit {
    ($guest:expr, $expected:expr) => {
        let stopped = $guest.run();
        $crate::ensure!(
            stopped.exit == $expected,
            "{:?} ({}) instead of {:?}; {:?}",
            stopped.exit,
            stopped.raw,
            $expected,
            $guest.registers
        );
    };
}
use expect_exit;
