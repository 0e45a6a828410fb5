//! Into the guest and back.
//!
//! ```text
//!   CLGI ── this CPU's area, address-space identifier ── VMSAVE host ── VMLOAD guest ── registers
//!        ── VMRUN ═══ the guest ═══ #VMEXIT ── registers ── VMSAVE guest ── VMLOAD host ── STGI ── decode
//! ```
//!
//! Between CLGI and STGI nothing of the host's comes in between, not even an NMI; so the CPU stays the same, and its area is
//! this run's alone. What was pending comes at STGI, before the exit is looked at (15.17).
//!
#![expect(unsafe_code, reason = "SVM's instructions")]

use core::arch::asm;
use core::mem::offset_of;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use kernel::arch::{Cpu, MAX_CPUS, Machine};
use kernel::mm::addr::{PAGE_SIZE, PhysAddr};
use kernel::mm::frame::{Frame, KernelData, OutOfFrames};
use kernel::mm::phys;
use kernel::sync::Once;

use super::Vcpu;
use super::asid::Asids;
use super::control::let_through;
use super::detect::{Found, Words, switch_on};
use super::fields::clean;
use super::{events, exits};
use crate::exit::Stopped;
use crate::stage2::{Caps, set_caps};
use crate::state::Registers;
use crate::vendor::{Features, Unavailable};

/// What a CPU needs to run guests.
struct Area {
    /// The page where VMRUN saves the host's state, and behind it the one for VMSAVE.
    frames: Once<Frame<KernelData>>,
    /// Where the second of them is.
    host_state: AtomicU64,
    asids: Asids,
}

/// log2 of the pages of an area's frames.
const AREA_ORDER: u8 = 1;

static AREAS: [Area; MAX_CPUS] = [const {
    Area {
        frames: Once::new(),
        host_state: AtomicU64::new(0),
        asids: Asids::new(),
    }
}; MAX_CPUS];

/// The permission maps, which are the same for every guest: that of ports, all intercepted, and behind it that of MSRs.
static MAPS: Once<Frame<KernelData>> = Once::new();
/// Pages of the map of ports.
const PORT_MAP_PAGES: u64 = 3;
/// log2 of the pages of both maps: 5, rounded up.
const MAPS_ORDER: u8 = 3;

/// Where the maps of ports and MSRs are.
pub(super) fn permission_maps() -> Result<(PhysAddr, PhysAddr), OutOfFrames> {
    let msr_map = (PORT_MAP_PAGES * PAGE_SIZE) as usize;
    let maps = MAPS.try_call_once(|| {
        let mut maps = Frame::alloc_order(MAPS_ORDER)?;
        let bytes = phys::bytes_mut(&mut maps);
        bytes.fill(0xff);
        let_through(&mut bytes[msr_map..]);
        Ok(maps)
    })?;
    let ports = maps.pfn().start();
    Ok((ports, ports + msr_map as u64))
}

/// See [`Vendor::enable`](crate::vendor::Vendor::enable).
pub(super) fn enable() -> Result<Features, Unavailable> {
    let found = Found::decide(&Words::ask())?;
    let out_of_frames = |OutOfFrames| Unavailable::OutOfFrames;
    permission_maps().map_err(out_of_frames)?;
    Machine::preempt_disable();
    let enabled = enable_here(&found).map_err(out_of_frames);
    Machine::preempt_enable();
    enabled?;
    set_caps(Caps {
        leaves_1g: found.leaves_1g,
        execute_only: false,
    });
    Ok(found.features())
}

/// Enables this CPU. Preemption is off.
fn enable_here(found: &Found) -> Result<(), OutOfFrames> {
    let id = Machine::id();
    let area = &AREAS[id];
    let frames = area.frames.try_call_once(|| Frame::alloc_order(AREA_ORDER))?;
    let save_area = frames.pfn().start();
    // SAFETY: the first page of the area's frames is for nothing else, and they are never freed.
    unsafe { switch_on(found, save_area) };
    area.host_state.store((save_area + PAGE_SIZE).as_u64(), Relaxed);
    area.asids.start(id, found);
    Ok(())
}

/// See [`Vendor::run`](crate::vendor::Vendor::run). On a CPU where SVM is not enabled, the first instruction is invalid.
#[inline(always)]
pub(super) fn run(vcpu: &mut Vcpu, registers: &mut Registers, flush: bool) -> Stopped {
    run_once(vcpu, registers, flush);
    if exits::is_common(&vcpu.block) {
        return exits::decode(&vcpu.block);
    }
    finish(vcpu, registers)
}

/// The rest of a run that ended for a reason which is not counted in instructions.
#[inline(never)]
fn finish(vcpu: &mut Vcpu, registers: &mut Registers) -> Stopped {
    // As long as the window is there for what was displaced, and nobody else is to be told, the guest gets that and goes on.
    while exits::is_window(&vcpu.block) && !vcpu.events.window(&mut vcpu.block) {
        run_once(vcpu, registers, false);
    }
    if exits::is_machine_check(&vcpu.block) {
        // SAFETY: the exit has swallowed it; its gate leads to the kernel's handler, which does not return.
        unsafe { asm!("int 18") };
    }
    exits::decode(&vcpu.block)
}

#[inline(always)]
fn run_once(vcpu: &mut Vcpu, registers: &mut Registers, flush: bool) {
    if vcpu.events.has_displaced() {
        vcpu.events.offer(&mut vcpu.block, registers);
    }
    let vmcb = &mut *vcpu.block;
    vmcb.settle_shadow(registers.rip);
    vmcb.rax = registers.rax;
    vmcb.rsp = registers.rsp;
    vmcb.rip = registers.rip;
    vmcb.rflags = registers.rflags;
    let sent = vmcb.event;

    // SAFETY: what would come now comes at STGI.
    unsafe { asm!("clgi", options(nostack, preserves_flags)) };
    let area = &AREAS[Machine::id()];
    vcpu.block.tlb_control = match area.asids.keep(&vcpu.tag, flush) {
        Some(control) => control,
        None => tag(vcpu, &area.asids),
    };
    // SAFETY: the vCPU's block is borrowed mutably, and complete since it was made; this CPU's page for VMSAVE is nobody else's
    // while nothing can come in between.
    unsafe {
        enter(vcpu, registers, area.host_state.load(Relaxed));
        asm!("stgi", options(nostack, preserves_flags));
    }

    let vmcb = &mut *vcpu.block;
    vmcb.event = 0;
    if exits::is_refused(vmcb) {
        // The guest has not run. What the block says about it now need not be what was loaded.
        vmcb.clean = 0;
        return;
    }
    vmcb.clean = clean::ALL;
    registers.rax = vmcb.rax;
    registers.rsp = vmcb.rsp;
    registers.rip = vmcb.rip;
    registers.rflags = vmcb.rflags;
    let cut_short = vmcb.exit_interrupt;
    if events::is_valid(cut_short) {
        vcpu.events.redeliver(vmcb, sent, cut_short);
    }
}

/// Gives a vCPU an identifier under which nothing is cached; says what VMRUN has to flush for that.
#[cold]
fn tag(vcpu: &mut Vcpu, asids: &Asids) -> u32 {
    let (tag, control) = asids.fresh();
    vcpu.tag = tag;
    vcpu.block.set_asid(tag.asid);
    control
}

/// Where the entry code finds a register.
macro_rules! at {
    ($register:ident) => {
        offset_of!(Registers, $register)
    };
}

/// Runs the guest once. All registers but RAX, RSP, RIP and RFLAGS, which are in the block, are taken from `registers` and put
/// back there.
///
/// # Safety
/// The global interrupt flag is clear. The vCPU's block holds what the guest may do and nothing more: above all its nested
/// root, which translates to the guest's memory alone. The page at `host_state` is this CPU's.
#[inline(always)]
unsafe fn enter(vcpu: &mut Vcpu, registers: &mut Registers, host_state: u64) {
    // SAFETY: by the caller's contract. VMRUN brings back the host's control registers, code and stack as they were; VMLOAD
    // what VMSAVE has saved before; RBX, RBP and the flags are on the stack, and the other registers are named as changed.
    //
    // The host's interrupts have to be on for them to stop the guest (15.21.1); none comes here yet. VMRUN does not follow STI
    // directly: the guest would inherit its shadow.
    unsafe {
        asm!(
            "pushfq",
            "sti",
            "push rbx",
            "push rbp",
            "push rdi",
            "push rax",
            "vmsave rax",
            "mov rax, rcx",
            "vmload rax",
            "mov rbx, [rdi + {rbx}]",
            "mov rcx, [rdi + {rcx}]",
            "mov rdx, [rdi + {rdx}]",
            "mov rsi, [rdi + {rsi}]",
            "mov rbp, [rdi + {rbp}]",
            "mov r8, [rdi + {r8}]",
            "mov r9, [rdi + {r9}]",
            "mov r10, [rdi + {r10}]",
            "mov r11, [rdi + {r11}]",
            "mov r12, [rdi + {r12}]",
            "mov r13, [rdi + {r13}]",
            "mov r14, [rdi + {r14}]",
            "mov r15, [rdi + {r15}]",
            "mov rdi, [rdi + {rdi}]",
            "vmrun rax",
            "push rdi",
            "mov rdi, [rsp + 16]",
            "pop qword ptr [rdi + {rdi}]",
            "mov [rdi + {rbx}], rbx",
            "mov [rdi + {rcx}], rcx",
            "mov [rdi + {rdx}], rdx",
            "mov [rdi + {rsi}], rsi",
            "mov [rdi + {rbp}], rbp",
            "mov [rdi + {r8}], r8",
            "mov [rdi + {r9}], r9",
            "mov [rdi + {r10}], r10",
            "mov [rdi + {r11}], r11",
            "mov [rdi + {r12}], r12",
            "mov [rdi + {r13}], r13",
            "mov [rdi + {r14}], r14",
            "mov [rdi + {r15}], r15",
            "vmsave rax",
            "pop rax",
            "vmload rax",
            "pop rdi",
            "pop rbp",
            "pop rbx",
            "popfq",
            rbx = const at!(rbx),
            rcx = const at!(rcx),
            rdx = const at!(rdx),
            rsi = const at!(rsi),
            rdi = const at!(rdi),
            rbp = const at!(rbp),
            r8 = const at!(r8),
            r9 = const at!(r9),
            r10 = const at!(r10),
            r11 = const at!(r11),
            r12 = const at!(r12),
            r13 = const at!(r13),
            r14 = const at!(r14),
            r15 = const at!(r15),
            inlateout("rax") host_state => _,
            inlateout("rcx") vcpu.block.address().as_u64() => _,
            inlateout("rdi") registers => _,
            out("rdx") _, out("rsi") _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            out("r12") _, out("r13") _, out("r14") _, out("r15") _,
        );
    }
}
