//! A vCPU's control structure: its frame, its fields, and making it current.
//!
//! VMREAD and VMWRITE act on the VMCS that is *current* on the CPU, and a CPU may keep parts of a VMCS to itself until
//! VMCLEAR. So fields are reached through [`Current`] alone: while it lives, interrupts are off, the task stays, and the vCPU's
//! VMCS is current. It stays current afterwards, until another one has to be.
//!
//! | field | written |
//! | --- | --- |
//! | controls, MSR bitmap, masks | once ([`Vcpu::new`]); some by `divert_violations` and for interrupt windows |
//! | host: control registers, selectors, tables, SYSENTER, PAT, EFER, GS base | once for a CPU |
//! | host: CR3, FS base, RSP | when they differ from last time: they vary by task |
//! | guest: RIP, RSP, RFLAGS | when they differ from what the exit left |
//! | guest: the rest | by `load` |
#![expect(unsafe_code, reason = "VMX instructions")]

use core::arch::asm;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use kernel::arch::{Clock, Cpu, Irq, MAX_CPUS, Machine};
use kernel::mm::addr::Pfn;
use kernel::mm::frame::{Frame, KernelData, OutOfFrames};
use kernel::mm::phys;

use super::cr::{CR0_MASK, CR4_MASK};
use super::detect::{Controls, Invept, SECONDARY_VPID};
use super::divert::Diverted;
use super::enable::{enabled, region_of};
use super::events::Events;
use super::exits::{EXCEPTIONS, Fields};
use super::fields::{self, Field};
use super::host::Host;
use super::switched::Switched;
use super::vpid::Vpid;

/// The current VMCS of each CPU, by address; 0: none.
static CURRENT: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

/// What fields hold, so that they are not written again with the same.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// GUEST_RIP.
    pub rip: u64,
    /// GUEST_RSP.
    pub rsp: u64,
    /// GUEST_RFLAGS.
    pub rflags: u64,
    /// HOST_CR3.
    pub host_cr3: u64,
    /// HOST_FS_BASE.
    pub host_fs_base: u64,
    /// HOST_RSP; HOST_RIP was written with it.
    pub host_rsp: u64,
    /// Whether PRIMARY_CONTROLS ask for the interrupt window.
    pub window: bool,
}

/// A vCPU.
pub struct Vcpu {
    region: Frame<KernelData>,
    /// What was decided for this machine.
    pub controls: &'static Controls,
    /// SECONDARY_CONTROLS, without those for diverted violations.
    pub secondary: u32,
    /// Its tag of linear and combined translations; without one, every entry and exit drops those of guest and host.
    vpid: Option<Vpid>,
    /// How its violations are diverted.
    pub diverted: Diverted,
    /// The root of its stage-2 tables.
    pub root: Pfn,
    /// What waits to be delivered.
    pub events: Events,
    /// What no field holds.
    pub switched: Switched,
    /// What fields hold.
    pub held: Held,
    /// What it is on the CPU that it belongs to.
    pub host: Host,
    /// Something is to be done before the next run besides entering: `fresh`, `stale`, an event, a window.
    pub attention: bool,
    /// It has been launched since its VMCS was cleared.
    pub launched: bool,
    /// What its tables held may be cached: another's, at the same place, from before.
    pub fresh: bool,
    /// Translations of its tag may be cached that are not its own, or not any more: its paging was changed from outside.
    pub stale: bool,
}

impl fmt::Debug for Vcpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vcpu")
            .field("region", &self.region.pfn())
            .field("root", &self.root)
            .field("events", &self.events)
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}

/// Which MSRs a guest reaches without an exit: those that entry and exit switch. The first pair of bitmaps is for reading,
/// the second for writing; in each, 1 KiB for MSRs from 0 on and 1 KiB for those from 0xc0000000 on (SDM vol. 3C, 25.6.9).
///
/// # Errors
/// No frame for it.
pub fn msr_bitmap() -> Result<Frame<KernelData>, OutOfFrames> {
    /// SYSENTER's three, PAT, FS and GS base: in fields. The last one, kernel GS base, is in [`Switched`].
    const OWN: [u32; 7] = [0x174, 0x175, 0x176, 0x277, 0xc000_0100, 0xc000_0101, 0xc000_0102];
    const WRITES: usize = 2048;
    let mut frame = Frame::alloc()?;
    let bitmap = phys::bytes_mut(&mut frame);
    bitmap.fill(0xff);
    let byte = |msr: u32| (msr >> 31) as usize * 1024 + (msr & 0x1fff) as usize / 8;
    for msr in OWN {
        bitmap[byte(msr)] &= !(1 << (msr % 8));
        bitmap[WRITES + byte(msr)] &= !(1 << (msr % 8));
    }
    Ok(frame)
}

/// How often a run is ended if nothing else ends it: about as often as by the host's timer.
const TIMER_FREQUENCY: u64 = 100;

impl Vcpu {
    /// A vCPU whose stage-2 tables have their root at `root`.
    ///
    /// # Errors
    /// No frame for its VMCS.
    pub fn new(root: Pfn) -> Result<Self, OutOfFrames> {
        let machine = enabled();
        let controls = &machine.controls;
        let vpid = match controls.secondary & SECONDARY_VPID != 0 {
            true => Vpid::take(),
            false => None,
        };
        let mut vcpu = Self {
            region: region_of(controls.revision)?,
            controls,
            secondary: match vpid {
                Some(_) => controls.secondary,
                None => controls.secondary & !SECONDARY_VPID,
            },
            vpid,
            diverted: Diverted::default(),
            root,
            events: Events::default(),
            switched: Switched::default(),
            held: Held {
                rip: 0,
                rsp: 0,
                rflags: 0,
                host_cr3: 0,
                host_fs_base: 0,
                host_rsp: 0,
                window: false,
            },
            host: Host::nowhere(),
            attention: true,
            launched: false,
            fresh: true,
            stale: true,
        };
        clear(vcpu.region.pfn());
        let (pointer, secondary) = (controls.pointer_to(root), vcpu.secondary);
        let tag = vcpu.vpid.as_ref().map(Vpid::number);
        let mut current = vcpu.current();
        for (field, value) in [
            (fields::PIN_CONTROLS, controls.pin.into()),
            (fields::PRIMARY_CONTROLS, controls.primary.into()),
            (fields::SECONDARY_CONTROLS, secondary.into()),
            (fields::EXIT_CONTROLS, controls.exit.into()),
            (fields::ENTRY_CONTROLS, controls.entry.into()),
            (fields::EXCEPTION_BITMAP, EXCEPTIONS.into()),
            (fields::PAGE_FAULT_MASK, 0),
            (fields::PAGE_FAULT_MATCH, 0),
            (fields::CR3_TARGETS, 0),
            (fields::EXIT_MSR_STORES, 0),
            (fields::EXIT_MSR_LOADS, 0),
            (fields::ENTRY_MSR_LOADS, 0),
            (fields::ENTRY_EVENT, 0),
            (fields::MSR_BITMAP, machine.msr_bitmap.pfn().start().as_u64()),
            (fields::EPT_POINTER, pointer),
            (fields::CR0_MASK, CR0_MASK),
            (fields::CR4_MASK, CR4_MASK),
            (fields::LINK_POINTER, u64::MAX),
            (fields::GUEST_DEBUGCTL, 0),
            (fields::GUEST_RIP, 0),
            (fields::GUEST_RSP, 0),
            (fields::GUEST_RFLAGS, 0),
        ] {
            current.write(field, value);
        }
        if let Some(tag) = tag {
            current.write(fields::VPID, tag.into());
        }
        if let Some(shift) = controls.timer_shift {
            let value = (Machine::frequency() / TIMER_FREQUENCY) >> shift;
            current.write(fields::PREEMPTION_TIMER, value.min(u32::MAX.into()));
        }
        drop(current);
        Ok(vcpu)
    }

    /// Makes its VMCS current.
    ///
    /// # Panics
    /// It has run on another CPU, which may keep parts of its VMCS: nobody can have that CPU let go of them.
    #[inline]
    pub fn current(&mut self) -> Current<'_> {
        let irq = Machine::disable();
        let cpu = Machine::id();
        if CURRENT[cpu].load(Ordering::Relaxed) != self.region.pfn().start().as_u64() {
            self.make_current(cpu);
        }
        Current { vcpu: self, irq }
    }

    #[cold]
    fn make_current(&mut self, cpu: usize) {
        let at = self.region.pfn().start().as_u64();
        let failed: u8;
        // SAFETY: the frame is a VMCS of this CPU's revision (`region_of`) that is used as nothing else, and lives until it is
        // cleared (`Drop`).
        unsafe {
            asm!("vmptrld [{at}]", "setna {failed}", at = in(reg) &raw const at, failed = out(reg_byte) failed,
                 options(nostack));
        }
        assert!(failed == 0, "VMPTRLD of {at:#x} failed");
        CURRENT[cpu].store(at, Ordering::Relaxed);
        match self.host.cpu {
            Host::NOWHERE => self.current().settle_on(cpu),
            home => assert_eq!(home, cpu, "a vCPU on another CPU than before"),
        }
    }
}

impl Drop for Vcpu {
    fn drop(&mut self) {
        clear(self.region.pfn());
    }
}

/// Has this CPU write back what it keeps of a VMCS, and forget it.
fn clear(region: Pfn) {
    let irq = Machine::disable();
    let at = region.start().as_u64();
    let failed: u8;
    // SAFETY: the frame is a VMCS, or is about to become one; it is used as nothing else.
    unsafe {
        asm!("vmclear [{at}]", "setna {failed}", at = in(reg) &raw const at,
             failed = out(reg_byte) failed, options(nostack));
    }
    assert!(failed == 0, "VMCLEAR of {at:#x} failed");
    let current = &CURRENT[Machine::id()];
    if current.load(Ordering::Relaxed) == at {
        current.store(0, Ordering::Relaxed);
    }
    Machine::restore(irq);
}

/// A vCPU whose VMCS is current on this CPU; interrupts are off.
pub struct Current<'a> {
    /// The vCPU.
    pub vcpu: &'a mut Vcpu,
    irq: <Machine as Irq>::Flags,
}

impl Drop for Current<'_> {
    fn drop(&mut self) {
        Machine::restore(self.irq);
    }
}

impl Fields for Current<'_> {
    #[inline]
    fn read(&self, field: Field) -> u64 {
        let value: u64;
        // SAFETY: reads a field of the current VMCS. If the CPU has no such field, which nobody asks for, UD2 says so.
        unsafe {
            asm!("vmread {value}, {field}", "ja 2f", "ud2", "2:", field = in(reg) u64::from(field.0),
                 value = out(reg) value, options(nostack));
        }
        value
    }

    fn root(&self) -> u16 {
        match self.vcpu.diverted.can_switch() {
            true => self.read(fields::ROOT_INDEX) as u16,
            false => 0,
        }
    }
}

impl Current<'_> {
    /// Writes a field that the CPU has, and that can be written.
    #[inline]
    pub fn write(&mut self, field: Field, value: u64) {
        // SAFETY: changes the current VMCS, which is this vCPU's. What its fields may be is checked by the CPU on entry; those
        // that the host's safety rests on are written by this module, `state` and `entry` from what they own. UD2 as in `read`.
        unsafe {
            asm!("vmwrite {field}, {value}", "ja 2f", "ud2", "2:", field = in(reg) u64::from(field.0),
                 value = in(reg) value, options(nostack));
        }
    }

    /// Drops what the CPU has cached of the tables that the vCPU may run with.
    pub fn forget_tables(&mut self) {
        let controls = self.vcpu.controls;
        match controls.invept {
            Invept::All => invept(Invept::All, 0),
            Invept::Single => {
                invept(Invept::Single, controls.pointer_to(self.vcpu.root));
                for pointer in self.vcpu.diverted.pointers() {
                    invept(Invept::Single, pointer);
                }
            }
        }
    }

    /// Drops what the CPU has cached with the vCPU's tag. Without one there is nothing: an entry drops it.
    pub fn forget_linear(&mut self) {
        if let Some(vpid) = &self.vcpu.vpid {
            invvpid(vpid.number());
        }
    }
}

fn invept(kind: Invept, pointer: u64) {
    let descriptor = [pointer, 0u64];
    let failed: u8;
    // SAFETY: dropping cached translations is always allowed.
    unsafe {
        asm!("invept {kind}, [{descriptor}]", "setna {failed}", kind = in(reg) kind as u64,
             descriptor = in(reg) &raw const descriptor, failed = out(reg_byte) failed, options(nostack));
    }
    assert!(failed == 0, "INVEPT of {pointer:#x} failed");
}

/// Of a single context.
fn invvpid(tag: u16) {
    const SINGLE: u64 = 1;
    let descriptor = [u64::from(tag), 0];
    let failed: u8;
    // SAFETY: dropping cached translations is always allowed.
    unsafe {
        asm!("invvpid {kind}, [{descriptor}]", "setna {failed}", kind = in(reg) SINGLE,
             descriptor = in(reg) &raw const descriptor, failed = out(reg_byte) failed, options(nostack));
    }
    assert!(failed == 0, "INVVPID of {tag} failed");
}
