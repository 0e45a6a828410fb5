//! CR0 and CR4: which bits a guest changes by itself, and what becomes of a write that would change another.
//!
//! The host's bits (those in the masks) read as the guest has set them, whatever they really are. A write that would change
//! one exits. That ends the guest, with one exception: CR4.MCE, which is really always set, because without it a machine check
//! in the guest would shut the machine down. Kernels set it, so a write that changes no other bit of the host's is carried out.

use crate::state::Registers;

/// Bits of CR0 that a guest may change: MP, EM, TS, ET, WP, AM. The others are fixed by VMX, or (CD, NW) are the CPU's own and
/// not switched by an entry.
const CR0_GUEST: u64 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 16 | 1 << 18;
const CR4_PAE: u64 = 1 << 5;
const CR4_MCE: u64 = 1 << 6;
/// Bits of CR4 that a guest may change: VME, PVI, TSD, DE, PSE, PAE, PGE, PCE, OSFXSR, OSXMMEXCPT, UMIP, FSGSBASE, SMEP, SMAP.
const CR4_GUEST: u64 = 0xfff & !CR4_MCE | 1 << 16 | 1 << 20 | 1 << 21;

/// The bits of CR0 that are the host's.
pub const CR0_MASK: u64 = !CR0_GUEST;
/// The bits of CR4 that are the host's.
pub const CR4_MASK: u64 = !CR4_GUEST;

/// What CR4 really is when the guest has set `shown`, and VMX fixes `ones`.
pub const fn real_cr4(shown: u64, ones: u64) -> u64 {
    shown | ones | CR4_MCE
}

/// Whether a write that exited is carried out: CR4 was shown as `old`, and the CPU has the bits `allowed`.
pub const fn is_carried_out(old: u64, new: u64, allowed: u64) -> bool {
    let changed = old ^ new;
    let own = CR4_GUEST & !CR4_PAE | CR4_MCE;
    changed & !own == 0 && new & !allowed == 0
}

/// The register that MOV to CR4 takes, if an exit on an access to a control register was that one (SDM vol. 3C, table 28-3).
pub fn written_to_cr4(qualification: u64, registers: &Registers) -> Option<u64> {
    const TO_CR4: u64 = 4;
    let Registers {
        rax,
        rbx,
        rcx,
        rdx,
        rsi,
        rdi,
        rbp,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
        rsp,
        ..
    } = *registers;
    let all = [
        rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15,
    ];
    (qualification & 0x3f == TO_CR4).then(|| all[(qualification >> 8) as usize & 15])
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: u64 = 0x620;
    const ALLOWED: u64 = 0x0037_27ff;

    #[test]
    fn machine_checks_come_with_whatever_else_the_guest_may_change() {
        for new in [
            OLD | CR4_MCE,
            OLD | CR4_MCE | 1 << 7 | 1 << 20 | 1 << 21,
            OLD & !0x600 | CR4_MCE,
        ] {
            assert!(is_carried_out(OLD, new, ALLOWED), "{new:#x}");
            assert!(is_carried_out(new, OLD, ALLOWED), "{new:#x}, back");
            assert_eq!(real_cr4(new, 1 << 13), new | 1 << 13 | CR4_MCE);
        }
        assert_eq!(
            real_cr4(OLD, 0),
            OLD | CR4_MCE,
            "it is on before the guest turns it on"
        );
    }

    #[test]
    fn what_is_the_hosts_stays_as_it_is() {
        for (bit, what) in [
            (12, "LA57"),
            (13, "VMXE"),
            (14, "SMXE"),
            (17, "PCIDE"),
            (18, "OSXSAVE"),
            (22, "PKE"),
        ] {
            assert!(!is_carried_out(OLD, OLD | CR4_MCE | 1 << bit, u64::MAX), "{what}");
        }
        assert!(
            !is_carried_out(OLD, OLD & !CR4_PAE | CR4_MCE, ALLOWED),
            "long mode needs PAE"
        );
        assert!(
            !is_carried_out(OLD, OLD | CR4_MCE | 1 << 11, ALLOWED),
            "this CPU has no UMIP"
        );
    }

    #[test]
    fn the_masks_leave_each_bit_to_one_side() {
        assert_eq!(CR4_MASK & CR4_MCE, CR4_MCE);
        // PE, NE, PG, CD, NW.
        let fixed = 1 | 1 << 5 | 1 << 31 | 1 << 30 | 1 << 29;
        assert_eq!(CR0_MASK & fixed, fixed);
        assert_eq!(CR0_MASK & (1 << 3 | 1 << 16), 0, "TS and WP are the guest's");
    }

    #[test]
    fn the_register_is_found_by_its_number() {
        let registers = Registers {
            rax: 1,
            rbx: 2,
            rsp: 3,
            r15: 4,
            ..Registers::default()
        };
        for (number, value) in [(0, 1), (3, 2), (4, 3), (15, 4)] {
            assert_eq!(written_to_cr4(number << 8 | 4, &registers), Some(value));
        }
        assert_eq!(written_to_cr4(0, &registers), None, "CR0");
        assert_eq!(written_to_cr4(0x14, &registers), None, "from CR4");
        assert_eq!(written_to_cr4(0x34, &registers), None, "LMSW");
    }
}
