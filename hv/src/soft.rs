//! A vendor of the software machine, for tests: a vCPU that walks stage-2 tables, keeps every translation until it is told
//! to drop them, and whose guest is a script.
//!
//! The walks are written from the manuals, by raw bits and without a look at the formats' own code, so that the two check
//! each other. A guest has no tables of its own: its addresses are guest-physical.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;
use core::sync::atomic::Ordering;

use kernel::arch::host::SoftMachine;
use kernel::mm::addr::{GuestPhysAddr, PAGE_SIZE, Pfn, PhysAddr};
use kernel::mm::fault::Access;
use kernel::mm::frame::OutOfFrames;
use kernel::mm::pt::{Prot, PtFormat};

use crate::exit::{Exit, Raw, Stopped, Violation};
use crate::stage2::{Ept, Npt};
use crate::state::{Injection, Registers, SystemState};
use crate::vendor::{DivertError, Features, Injected, Unavailable, Vendor, ViolationException};

/// Bits 45:12, for a CPU with 46 physical address bits.
const FRAME: u64 = 0x3fff_ffff_f000;

/// What one entry says to the CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Nothing.
    Absent,
    /// Go on there; everything below has these rights at most.
    Table(PhysAddr, Prot),
    /// Memory.
    Leaf(PhysAddr, Prot),
}

/// A stage-2 format as a CPU reads it.
pub trait SoftFormat: PtFormat<Addr = GuestPhysAddr> {
    /// What the vendor is called.
    const NAME: &'static str;
    /// The accessed and the dirty bit of a leaf.
    const USED: (u64, u64);
    /// The bit of an entry without a translation that keeps #VE from being raised, where there is such an exception.
    const SUPPRESSES: Option<u64>;

    /// Reads an entry of `level`, 4 at the root.
    ///
    /// # Panics
    /// The entry has what no hypervisor may write.
    fn read(raw: u64, level: u32) -> Step;
}

impl SoftFormat for Ept {
    const NAME: &'static str = "software, EPT";
    const USED: (u64, u64) = (1 << 8, 1 << 9);
    const SUPPRESSES: Option<u64> = Some(1 << 63);

    /// As the SDM's tables 29-1 to 29-6 have it, for a CPU with execute-only and without mode-based execute control.
    fn read(raw: u64, level: u32) -> Step {
        let mut prot = Prot::empty();
        prot.set(Prot::READ, raw & 1 != 0);
        prot.set(Prot::WRITE, raw & 2 != 0);
        prot.set(Prot::EXEC, raw & 4 != 0);
        if prot.is_empty() {
            return Step::Absent;
        }
        assert!(
            !prot.contains(Prot::WRITE) || prot.contains(Prot::READ),
            "misconfiguration: write-only {raw:#x}"
        );
        assert_eq!(
            raw & (0x000f_ffff_ffff_f000 & !FRAME),
            0,
            "misconfiguration: address too wide {raw:#x}"
        );
        let is_leaf = level == 1 || (level <= 3 && raw & 0x80 != 0);
        let base = PhysAddr::new(raw & FRAME);
        if is_leaf {
            assert!(
                matches!(raw >> 3 & 7, 0 | 1 | 4 | 5 | 6),
                "misconfiguration: reserved memory type {raw:#x}"
            );
            assert!(
                base.is_aligned(1 << (12 + 9 * (level - 1))),
                "misconfiguration: reserved bits {raw:#x}"
            );
            Step::Leaf(base, prot)
        } else {
            assert_eq!(
                raw & 0xf8 & if level == 4 { 0xf8 } else { 0x78 },
                0,
                "misconfiguration: reserved bits {raw:#x}"
            );
            Step::Table(base, prot)
        }
    }
}

impl SoftFormat for Npt {
    const NAME: &'static str = "software, NPT";
    const USED: (u64, u64) = (1 << 5, 1 << 6);
    const SUPPRESSES: Option<u64> = None;

    /// As the APM's figures 5-20 to 5-27 have it, seen by a guest access, which is a user access (15.25.5).
    fn read(raw: u64, level: u32) -> Step {
        if raw & 1 == 0 {
            return Step::Absent;
        }
        assert_ne!(raw & 4, 0, "guest accesses fault without the user bit: {raw:#x}");
        assert_eq!(
            raw & (0x000f_ffff_ffff_f000 & !FRAME),
            0,
            "reserved: address too wide {raw:#x}"
        );
        let mut prot = Prot::READ;
        prot.set(Prot::WRITE, raw & 2 != 0);
        prot.set(Prot::EXEC, raw >> 63 == 0);
        if level == 1 {
            return Step::Leaf(PhysAddr::new(raw & FRAME), prot);
        }
        if raw & 0x80 == 0 {
            return Step::Table(PhysAddr::new(raw & FRAME), prot);
        }
        assert!(level <= 3, "reserved: bit 7 at the root {raw:#x}");
        // Bit 12 of a large leaf is PAT; the rest below the page size must be zero.
        let base = PhysAddr::new(raw & FRAME & !0x1000);
        assert!(
            base.is_aligned(1 << (12 + 9 * (level - 1))),
            "reserved bits {raw:#x}"
        );
        Step::Leaf(base, prot)
    }
}

/// A page as a walk finds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// Where the page is.
    pub page: PhysAddr,
    /// What all entries on the way allow together.
    pub prot: Prot,
    /// Level of the leaf.
    pub level: u32,
    /// Where the leaf's entry is.
    pub entry: PhysAddr,
}

/// What a CPU finds at `addr` in the tables at `root`; `None` where there is nothing.
///
/// # Panics
/// The tables hold what no hypervisor may write.
pub fn walk<F: SoftFormat>(root: Pfn, addr: u64) -> Option<Found> {
    walk_to_end::<F>(root, addr).ok()
}

/// The same; or the entry at which the walk ends.
fn walk_to_end<F: SoftFormat>(root: Pfn, addr: u64) -> Result<Found, u64> {
    let (mut table, mut rights) = (root.start(), Prot::all());
    for level in (1..=4).rev() {
        let shift = 12 + 9 * (level - 1);
        let entry = table + (addr >> shift & 511) * 8;
        let raw = SoftMachine::current().peek(entry).expect("tables lie in RAM");
        match F::read(raw, level) {
            Step::Absent => return Err(raw),
            Step::Table(next, prot) => (table, rights) = (next, rights & prot),
            Step::Leaf(base, prot) => {
                let page = (base + (addr & ((1 << shift) - 1))).align_down(PAGE_SIZE);
                return Ok(Found {
                    page,
                    prot: rights & prot,
                    level,
                    entry,
                });
            }
        }
    }
    unreachable!("level 1 has no tables below")
}

/// What the guest does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Loads the word at an address into RAX.
    Load(u64),
    /// Stores a word at an address.
    Store(u64, u64),
    /// Executes what is at an address.
    Fetch(u64),
    /// Waits for an interrupt.
    Halt,
    /// VMFUNC: switches to the root with this number.
    Switch(u16),
    /// Goes on where #VE was raised, with the access that it was raised for.
    Return,
    /// A hypercall: RAX, RDI, RSI, RDX, R10.
    Call([u64; 5]),
}

/// How violations of a guest come to it.
#[derive(Debug)]
struct Diverted {
    info: PhysAddr,
    roots: Vec<Pfn>,
}

/// A vCPU. Its guest's RIP is the number of the next step of the script; past the end, it halts.
#[derive(Debug)]
pub struct SoftVcpu<F> {
    root: Pfn,
    diverted: Option<Diverted>,
    /// Which of the roots is in force.
    view: u16,
    /// Number of the step that #VE leads to, and of that which it was raised in.
    pub handler: u64,
    interrupted: u64,
    state: SystemState,
    /// By root and page. Nothing is ever dropped but by a violation there, and by a flush.
    cached: BTreeMap<(Pfn, u64), Found>,
    /// Pages that were stored to by way of a cached translation: their dirty bit is not set again.
    dirty: BTreeMap<(Pfn, u64), ()>,
    /// What the guest does.
    pub script: Vec<Op>,
    /// Whether the use of a translation that the tables no longer hold fails the test. Not while others change them.
    pub strict: bool,
    /// Whether stores set dirty bits, and loads accessed bits.
    pub notes_use: bool,
    format: PhantomData<fn() -> F>,
}

/// The vendor.
pub struct Soft<F>(PhantomData<fn() -> F>);

impl<F: SoftFormat> fmt::Debug for Soft<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(F::NAME)
    }
}

impl<F: SoftFormat> SoftVcpu<F> {
    /// What the CPU makes of an access: from its cache, or by a walk. `None` for a violation.
    fn translate(&mut self, addr: u64, access: Access) -> Option<PhysAddr> {
        let (page, store) = (addr & !(PAGE_SIZE - 1), access == Access::Write);
        let root = self.root();
        let key = (root, page);
        if let Some(cached) = self.cached.get(&key) {
            let hit = cached.prot.contains(access.right()) && (!store || self.dirty.contains_key(&key));
            if hit {
                let now = walk::<F>(root, addr);
                let fresh = now.is_some_and(|now| now.page == cached.page && now.prot.contains(cached.prot));
                assert!(
                    fresh || !self.strict,
                    "a stale translation of {addr:#x} was used: {cached:?}, now {now:?}"
                );
                return Some(cached.page + (addr - page));
            }
            self.cached.remove(&key);
            self.dirty.remove(&key);
        }
        let found = walk::<F>(root, addr)?;
        if !found.prot.contains(access.right()) {
            return None;
        }
        if self.notes_use {
            let (accessed, dirty) = F::USED;
            let word = SoftMachine::current().word(found.entry)?;
            word.fetch_or(accessed | if store { dirty } else { 0 }, Ordering::AcqRel);
        }
        if store {
            self.dirty.insert(key, ());
        }
        self.cached.insert(key, found);
        Some(found.page + (addr - page))
    }

    fn step(&mut self, op: Op, registers: &mut Registers) -> Result<(), Exit> {
        let (addr, access) = match op {
            Op::Load(addr) => (addr, Access::Read),
            Op::Store(addr, _) => (addr, Access::Write),
            Op::Fetch(addr) => (addr, Access::Execute),
            Op::Halt => return Err(Exit::Halt { len: 1 }),
            Op::Call([rax, rdi, rsi, rdx, r10]) => {
                *registers = Registers {
                    rax,
                    rdi,
                    rsi,
                    rdx,
                    r10,
                    ..*registers
                };
                return Err(Exit::Hypercall { user: false, len: 1 });
            }
            Op::Switch(view) => {
                let roots = self.diverted.as_ref().map_or(&[][..], |diverted| &diverted.roots);
                if usize::from(view) >= roots.len() {
                    return Err(Exit::Privileged("VMFUNC"));
                }
                self.view = view;
                registers.rip += 1;
                return Ok(());
            }
            Op::Return => {
                registers.rip = self.interrupted;
                return Ok(());
            }
        };
        let violation = Exit::Violation(Violation {
            addr: GuestPhysAddr::new(addr),
            access,
            linear: None,
            walk: false,
            present: walk::<F>(self.root(), addr).is_some(),
            root: self.view,
            in_delivery: false,
        });
        let Some(at) = self.translate(addr, access) else {
            if !self.raises_exception(addr, access) {
                return Err(violation);
            }
            self.interrupted = core::mem::replace(&mut registers.rip, self.handler);
            return Ok(());
        };
        let word = SoftMachine::current().word(at).expect("leaves lie in RAM");
        match op {
            Op::Store(_, value) => word.store(value, Ordering::Release),
            _ => registers.rax = word.load(Ordering::Acquire),
        }
        registers.rip += 1;
        Ok(())
    }

    /// The root in force.
    fn root(&self) -> Pfn {
        let listed = |diverted: &Diverted| diverted.roots.get(usize::from(self.view)).copied();
        self.diverted.as_ref().and_then(listed).unwrap_or(self.root)
    }

    /// Describes a violation in the information page, if it is convertible and the page is free (SDM vol. 3C, 26.5.7).
    fn raises_exception(&self, addr: u64, access: Access) -> bool {
        const REASON: u64 = 48;
        let (Some(suppresses), Some(diverted)) = (F::SUPPRESSES, &self.diverted) else {
            return false;
        };
        let last = walk_to_end::<F>(self.root(), addr);
        let word = |offset| {
            SoftMachine::current()
                .word(diverted.info + offset)
                .expect("it lies in RAM")
        };
        if last.map_or_else(|raw| raw & suppresses != 0, |_| true)
            || word(0).load(Ordering::Acquire) >> 32 != 0
        {
            return false;
        }
        let qualification = match access {
            Access::Read => 1,
            Access::Write => 2,
            Access::Execute => 4,
        };
        word(8).store(qualification, Ordering::Release);
        word(24).store(addr, Ordering::Release);
        word(32).store(self.view.into(), Ordering::Release);
        word(0).store(REASON | u64::from(u32::MAX) << 32, Ordering::Release);
        true
    }
}

impl<F: SoftFormat> Vendor for Soft<F> {
    type Format = F;
    type Vcpu = SoftVcpu<F>;
    const NAME: &'static str = F::NAME;
    const HYPERCALL: [u8; 3] = [0x0f, 0x01, 0xd9];

    fn enable() -> Result<Features, Unavailable> {
        Ok(Features {
            accessed_dirty: true,
            violation_exceptions: F::SUPPRESSES.is_some(),
            root_switching: F::SUPPRESSES.is_some(),
            physical_bits: 46,
            ..Features::default()
        })
    }

    fn create(root: Pfn) -> Result<Self::Vcpu, OutOfFrames> {
        Ok(SoftVcpu {
            root,
            diverted: None,
            view: 0,
            handler: 0,
            interrupted: 0,
            state: SystemState::default(),
            cached: BTreeMap::new(),
            dirty: BTreeMap::new(),
            script: Vec::new(),
            strict: true,
            notes_use: true,
            format: PhantomData,
        })
    }

    fn save(vcpu: &mut Self::Vcpu) -> SystemState {
        vcpu.state
    }

    fn load(vcpu: &mut Self::Vcpu, state: &SystemState) {
        vcpu.state = *state;
    }

    fn run(vcpu: &mut Self::Vcpu, registers: &mut Registers, flush: bool) -> Stopped {
        if flush {
            vcpu.cached.clear();
            vcpu.dirty.clear();
        }
        let exit = loop {
            let op = vcpu.script.get(registers.rip as usize).copied();
            match vcpu.step(op.unwrap_or(Op::Halt), registers) {
                Ok(()) => {}
                Err(exit) => break exit,
            }
        };
        Stopped {
            exit,
            raw: Raw {
                code: 0,
                info: 0,
                more: 0,
            },
        }
    }

    fn inject(_: &mut Self::Vcpu, _: &Registers, _: Injection) -> Injected {
        Injected::NotNow
    }

    fn divert_violations(
        vcpu: &mut Self::Vcpu,
        how: Option<ViolationException<'_>>,
    ) -> Result<(), DivertError> {
        if how.is_some() && F::SUPPRESSES.is_none() {
            return Err(DivertError::NotSupported);
        }
        vcpu.view = 0;
        vcpu.diverted = how.map(|how| Diverted {
            info: how.info.start(),
            roots: how.roots.to_vec(),
        });
        Ok(())
    }
}
