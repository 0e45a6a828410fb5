//! What a guest is told about its CPU.
//!
//! The host's answers, without what a guest does not have here: virtualisation, the extended states (AVX and what comes with
//! XSAVE), APICs and their timers, monitors, performance counters, thermal and power interfaces, memory-type ranges.
//! Leaves that describe those, and those that nobody here knows, are empty.

use kernel::abi::guest::{CPUID_SIGNATURE, SIGNATURE};

/// EAX, EBX, ECX, EDX.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "the registers' names")]
pub struct Answer {
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
}

/// Bits of leaf 1, ECX, that a guest may have: SSE3, PCLMULQDQ, SSSE3, CX16, SSE4.1, SSE4.2, MOVBE, POPCNT, AES, RDRAND.
const LEAF_1_ECX: u32 =
    1 | 1 << 1 | 1 << 9 | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 22 | 1 << 23 | 1 << 25 | 1 << 30;
/// Runs under a hypervisor.
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1, EDX: all but machine checks (7, 14), the APIC (9), memory-type ranges (12), debug store and power (21, 22),
/// hyper-threading and what belongs to power (28-31).
const LEAF_1_EDX: u32 = !(1 << 7 | 1 << 9 | 1 << 12 | 1 << 14 | 1 << 21 | 1 << 22 | 0xf << 28);
/// Leaf 7, EBX: FSGSBASE, BMI1, SMEP, BMI2, ERMS, RDSEED, ADX, SMAP, CLFLUSHOPT, SHA.
const LEAF_7_EBX: u32 =
    1 | 1 << 3 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 18 | 1 << 19 | 1 << 20 | 1 << 23 | 1 << 29;
/// Leaf 7, ECX: UMIP. Not RDPID: it reads IA32_TSC_AUX, which a guest does not have.
const LEAF_7_ECX: u32 = 1 << 2;
/// Leaf 7, EDX: fast short REP MOV.
const LEAF_7_EDX: u32 = 1 << 4;
/// Leaf 8000_0001, ECX: LAHF, LZCNT, SSE4A, PREFETCHW.
const EXTENDED_1_ECX: u32 = 1 | 1 << 5 | 1 << 6 | 1 << 8;
/// Leaf 8000_0001, EDX: as leaf 1 has it, and SYSCALL, NX, 1 GiB pages, RDTSCP is not among them, long mode.
const EXTENDED_1_EDX: u32 = LEAF_1_EDX & !(1 << 27) | 1 << 29;
/// Leaf 8000_0007, EDX: the TSC ticks at one rate.
const INVARIANT_TSC: u32 = 1 << 8;

/// The answer for `leaf` and `subleaf`, given the host's.
pub fn filter(leaf: u32, subleaf: u32, host: Answer) -> Answer {
    match leaf {
        0 => Answer {
            eax: host.eax.min(7),
            ..host
        },
        // One processor with number 0.
        1 => Answer {
            eax: host.eax,
            ebx: host.ebx & 0xff00 | 1 << 16,
            ecx: host.ecx & LEAF_1_ECX | HYPERVISOR,
            edx: host.edx & LEAF_1_EDX,
        },
        2 => host,
        7 if subleaf == 0 => Answer {
            eax: 0,
            ebx: host.ebx & LEAF_7_EBX,
            ecx: host.ecx & LEAF_7_ECX,
            edx: host.edx & LEAF_7_EDX,
        },
        CPUID_SIGNATURE => Answer {
            eax: CPUID_SIGNATURE,
            ebx: SIGNATURE[0],
            ecx: SIGNATURE[1],
            edx: SIGNATURE[2],
        },
        0x8000_0000 => Answer {
            eax: host.eax.min(0x8000_0008),
            ..host
        },
        0x8000_0001 => Answer {
            ecx: host.ecx & EXTENDED_1_ECX,
            edx: host.edx & EXTENDED_1_EDX,
            ..host
        },
        0x8000_0002..=0x8000_0006 => host,
        0x8000_0007 => Answer {
            edx: host.edx & INVARIANT_TSC,
            ..Answer::default()
        },
        // Address widths; one thread.
        0x8000_0008 => Answer {
            eax: host.eax & 0xffff,
            ..Answer::default()
        },
        _ => Answer::default(),
    }
}

/// What this CPU answers the host.
pub fn host(leaf: u32, subleaf: u32) -> Answer {
    let answer = raw_cpuid::cpuid!(leaf, subleaf);
    Answer {
        eax: answer.eax,
        ebx: answer.ebx,
        ecx: answer.ecx,
        edx: answer.edx,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Answer = Answer {
        eax: u32::MAX,
        ebx: u32::MAX,
        ecx: u32::MAX,
        edx: u32::MAX,
    };

    #[test]
    fn a_guest_has_neither_virtualisation_nor_extended_states() {
        let basic = filter(1, 0, ALL);
        for (bit, what) in [
            (3, "MONITOR"),
            (5, "VMX"),
            (12, "FMA"),
            (17, "PCID"),
            (21, "x2APIC"),
            (24, "TSC deadline"),
            (26, "XSAVE"),
            (27, "OSXSAVE"),
            (28, "AVX"),
            (29, "F16C"),
        ] {
            assert_eq!(basic.ecx >> bit & 1, 0, "{what}");
        }
        assert_eq!(basic.edx >> 9 & 1, 0, "APIC");
        assert_eq!(filter(0x8000_0001, 0, ALL).ecx >> 2 & 1, 0, "SVM");
        assert_eq!(filter(7, 0, ALL).ebx >> 5 & 1, 0, "AVX2");
        assert_eq!(filter(7, 0, ALL).ebx >> 16 & 1, 0, "AVX-512");
        for leaf in [0xa, 0xb, 0xd, 0x14, 0x1f, 0x8000_000a, 0x4000_0001, 0x1234_5678] {
            assert_eq!(filter(leaf, 0, ALL), Answer::default(), "leaf {leaf:#x}");
        }
        assert_eq!(filter(7, 1, ALL), Answer::default());
    }

    #[test]
    fn it_is_told_who_runs_it() {
        assert_eq!(filter(1, 0, Answer::default()).ecx, HYPERVISOR);
        let answer = filter(CPUID_SIGNATURE, 0, ALL);
        let words = [answer.ebx, answer.ecx, answer.edx].map(u32::to_le_bytes);
        assert_eq!(words.as_flattened(), b"FaultlineHv\0");
    }

    #[test]
    fn ranges_of_leaves_end_where_the_answers_do() {
        assert_eq!(filter(0, 0, ALL).eax, 7);
        assert_eq!(filter(0x8000_0000, 0, ALL).eax, 0x8000_0008);
        let long_mode_and_nx = 1 << 29 | 1 << 20;
        assert_eq!(
            filter(0x8000_0001, 0, ALL).edx & long_mode_and_nx,
            long_mode_and_nx
        );
    }
}
