//! The host's state: what an exit loads.
//!
//! Most of it is the same for as long as the CPU runs, and is written when a vCPU first comes to it. (What varies by task is
//! written before a run.)
#![expect(unsafe_code, reason = "registers and tables that describe the host")]

use core::arch::asm;

use x86_64::VirtAddr;
use x86_64::instructions::tables::{sgdt, sidt};
use x86_64::registers::control::{Cr0, Cr4, Cr4Flags, Efer};
use x86_64::registers::model_specific::{GsBase, Msr};
use x86_64::registers::segmentation::{CS, SS, Segment};
use x86_64::structures::DescriptorTablePointer;

use super::control::Current;
use super::fields;
use super::switched::host_syscall;

/// What a CPU's host state is, besides what is in fields.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// Number of the CPU.
    pub cpu: usize,
    /// GDTR. An exit leaves a limit of 64 KiB; IDTR has that too, but no vector lies beyond its table.
    pub gdtr: DescriptorTablePointer,
    /// The registers of SYSCALL: set when the CPU was started, and not since.
    pub syscall: [u64; 4],
    /// RDFSBASE works.
    pub has_base_instructions: bool,
}

impl Host {
    /// No CPU's number.
    pub const NOWHERE: usize = usize::MAX;

    /// Of a vCPU that has not come to any.
    pub const fn nowhere() -> Self {
        Self {
            cpu: Self::NOWHERE,
            gdtr: DescriptorTablePointer {
                limit: 0,
                base: VirtAddr::zero(),
            },
            syscall: [0; 4],
            has_base_instructions: false,
        }
    }
}

impl Current<'_> {
    /// Writes what the host's state is on this CPU, and stays so.
    pub fn settle_on(&mut self, cpu: usize) {
        let (gdtr, idtr) = (sgdt(), sidt());
        let task = task_register();
        // SAFETY: every CPU with VMX has these.
        let [cs, esp, eip, pat] = [0x174, 0x175, 0x176, 0x277].map(|msr| unsafe { Msr::new(msr).read() });
        for (field, value) in [
            (fields::HOST_CR0, Cr0::read_raw()),
            (fields::HOST_CR4, Cr4::read_raw()),
            (fields::HOST_EFER, Efer::read_raw()),
            (fields::HOST_PAT, pat),
            (fields::HOST_CS, CS::get_reg().0.into()),
            (fields::HOST_SS, SS::get_reg().0.into()),
            (fields::HOST_DS, SS::get_reg().0.into()),
            (fields::HOST_ES, SS::get_reg().0.into()),
            (fields::HOST_FS, 0),
            (fields::HOST_GS, 0),
            (fields::HOST_TR, task.into()),
            (fields::HOST_TR_BASE, segment_base(&gdtr, task)),
            (fields::HOST_GDTR_BASE, gdtr.base.as_u64()),
            (fields::HOST_IDTR_BASE, idtr.base.as_u64()),
            (fields::HOST_GS_BASE, GsBase::read().as_u64()),
            (fields::HOST_FS_BASE, 0),
            (fields::HOST_SYSENTER_CS, cs),
            (fields::HOST_SYSENTER_ESP, esp),
            (fields::HOST_SYSENTER_EIP, eip),
        ] {
            self.write(field, value);
        }
        self.vcpu.host = Host {
            cpu,
            gdtr,
            syscall: host_syscall(),
            has_base_instructions: Cr4::read().contains(Cr4Flags::FSGSBASE),
        };
    }
}

/// The selector in TR.
fn task_register() -> u16 {
    let selector: u16;
    // SAFETY: reads a register.
    unsafe { asm!("str {0:x}", out(reg) selector, options(nomem, nostack, preserves_flags)) };
    selector
}

/// The base of a system segment, of 16 bytes in the descriptor table (SDM vol. 3A, figure 9-4).
fn segment_base(gdtr: &DescriptorTablePointer, selector: u16) -> u64 {
    let at = gdtr.base.as_ptr::<u64>().wrapping_add(usize::from(selector) / 8);
    // SAFETY: the selector is the one in TR, so the table has its descriptor, and the table is never moved.
    let [low, high] = unsafe { [at.read(), at.add(1).read()] };
    low >> 16 & 0xff_ffff | low >> 32 & 0xff00_0000 | high << 32
}
