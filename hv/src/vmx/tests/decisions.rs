use crate::stage2::Caps;
use crate::vendor::{Features, Unavailable};
use crate::vmx::detect::{Fixed, Invept, Words, decide};

/// What Bochs's Skylake-X says.
const SKYLAKE: Words = Words {
    present: true,
    feature_control: 5,
    basic: 0x00d8_1000_0000_002b,
    pin: 0x0000_007f_0000_0016,
    primary: 0xf7f9_fffe_0400_6172,
    exit: 0x007f_ffff_0003_6dfb,
    entry: 0x0000_ffff_0000_11fb,
    secondary: 0x0217_7fff_0000_0000,
    ept_vpid: 0xf01_0633_4141,
    misc: 0x6004_01e0,
    functions: 1,
    cr0: Fixed {
        value: 0xe001_0033,
        ones: 0x8000_0021,
        allowed: 0xffff_ffff,
    },
    cr4: Fixed {
        value: 0x0031_26e0,
        ones: 0x2000,
        allowed: 0x0037_27ff,
    },
    physical_bits: 40,
};

fn refused(change: impl FnOnce(&mut Words)) -> Unavailable {
    let mut words = SKYLAKE;
    change(&mut words);
    decide(&words).expect_err("something is missing")
}

/// Takes bits out of those that may be 1.
fn forbid(word: &mut u64, bits: u32) {
    *word &= !(u64::from(bits) << 32);
}

#[test]
fn a_cpu_with_everything_gets_what_is_wanted_and_what_it_forces() {
    let controls = decide(&SKYLAKE).expect("it has everything");
    assert_eq!(controls.revision, 0x2b);
    for (name, word, capabilities) in [
        ("pin", controls.pin, SKYLAKE.pin),
        ("primary", controls.primary, SKYLAKE.primary),
        ("secondary", controls.secondary, SKYLAKE.secondary),
        ("exit", controls.exit, SKYLAKE.exit),
        ("entry", controls.entry, SKYLAKE.entry),
    ] {
        let (forced, allowed) = (capabilities as u32, (capabilities >> 32) as u32);
        assert_eq!(!word & forced, 0, "{name}: {word:#x}");
        assert_eq!(word & !allowed, 0, "{name}: {word:#x}");
    }
    // Nothing that reaches the host is left to the guest: interrupts, NMIs; HLT, CR8, ports.
    assert_eq!(controls.pin & 0x49, 0x49);
    assert_eq!(
        controls.primary & (1 << 7 | 1 << 19 | 1 << 20 | 1 << 24),
        1 << 7 | 1 << 19 | 1 << 20 | 1 << 24
    );
    // Nor is more trapped than needed: the window, RDTSC, CR3.
    assert_eq!(controls.primary & (1 << 2 | 1 << 12 | 1 << 15 | 1 << 16), 0);
    assert_eq!(controls.secondary, 1 << 1 | 1 << 5 | 1 << 6);
    assert_eq!(controls.entry & 1 << 9, 0, "long mode is the guest's");
    assert_eq!(controls.timer_shift, Some(0));
    assert_eq!(controls.pointer, 0x5e);
    assert_eq!(controls.invept, Invept::Single);
    assert_eq!(
        controls.caps,
        Caps {
            leaves_1g: true,
            execute_only: true
        }
    );
    assert_eq!(
        controls.features,
        Features {
            violation_exceptions: true,
            root_switching: true,
            accessed_dirty: true,
            modification_log: true,
            physical_bits: 40
        }
    );
}

#[test]
fn a_plain_cpu_goes_without_the_extras() {
    let mut words = SKYLAKE;
    words.ept_vpid = 0x411_4040;
    forbid(&mut words.secondary, !(1 << 1));
    forbid(&mut words.pin, 1 << 6);
    words.functions = 0;
    words.physical_bits = 52;
    let controls = decide(&words).expect("it has enough");
    assert_eq!(controls.secondary, 1 << 1);
    assert_eq!(controls.timer_shift, None);
    assert_eq!(controls.pointer, 0x1e);
    assert_eq!(controls.invept, Invept::All);
    assert_eq!(
        controls.caps,
        Caps {
            leaves_1g: false,
            execute_only: false
        }
    );
    assert_eq!(
        controls.features,
        Features {
            physical_bits: 48,
            ..Features::default()
        }
    );
}

#[test]
fn vpid_is_left_off_where_its_translations_cannot_be_dropped() {
    for bit in [32, 41] {
        let mut words = SKYLAKE;
        words.ept_vpid &= !(1 << bit);
        let controls = decide(&words).expect("it has enough");
        assert_eq!(controls.secondary & 1 << 5, 0, "without capability {bit}");
    }
}

#[test]
fn a_cpu_without_it_is_told_from_one_where_it_is_locked() {
    assert_eq!(refused(|words| words.present = false), Unavailable::Absent);
    assert_eq!(refused(|words| words.feature_control = 1), Unavailable::Locked);
    // Inside SMX operation only.
    assert_eq!(refused(|words| words.feature_control = 3), Unavailable::Locked);
    for unlocked in [0, 2, 4] {
        let words = Words {
            feature_control: unlocked,
            ..SKYLAKE
        };
        assert!(decide(&words).is_ok(), "nobody has locked {unlocked:#x}");
    }
}

#[test]
fn what_is_missing_is_named() {
    type Change = fn(&mut Words);
    let cases: [(&str, Change); 40] = [
        ("external-interrupt exiting", |w| forbid(&mut w.pin, 1)),
        ("NMI exiting", |w| forbid(&mut w.pin, 1 << 3)),
        ("HLT exiting", |w| forbid(&mut w.primary, 1 << 7)),
        ("MWAIT exiting", |w| forbid(&mut w.primary, 1 << 10)),
        ("RDPMC exiting", |w| forbid(&mut w.primary, 1 << 11)),
        ("CR8-load exiting", |w| forbid(&mut w.primary, 1 << 19)),
        ("CR8-store exiting", |w| forbid(&mut w.primary, 1 << 20)),
        ("MOV-DR exiting", |w| forbid(&mut w.primary, 1 << 23)),
        ("unconditional I/O exiting", |w| forbid(&mut w.primary, 1 << 24)),
        ("MSR bitmaps", |w| forbid(&mut w.primary, 1 << 28)),
        ("MONITOR exiting", |w| forbid(&mut w.primary, 1 << 29)),
        ("secondary controls", |w| forbid(&mut w.primary, 1 << 31)),
        ("interrupt-window exiting", |w| forbid(&mut w.primary, 1 << 2)),
        ("EPT", |w| forbid(&mut w.secondary, 1 << 1)),
        ("EPT", |w| w.secondary = 0),
        ("64-bit hosts", |w| forbid(&mut w.exit, 1 << 9)),
        ("saving debug controls", |w| forbid(&mut w.exit, 1 << 2)),
        ("saving the guest's PAT", |w| forbid(&mut w.exit, 1 << 18)),
        ("loading the host's PAT", |w| forbid(&mut w.exit, 1 << 19)),
        ("saving the guest's EFER", |w| forbid(&mut w.exit, 1 << 20)),
        ("loading the host's EFER", |w| forbid(&mut w.exit, 1 << 21)),
        ("loading debug controls", |w| forbid(&mut w.entry, 1 << 2)),
        ("64-bit guests", |w| forbid(&mut w.entry, 1 << 9)),
        ("loading the guest's PAT", |w| forbid(&mut w.entry, 1 << 14)),
        ("loading the guest's EFER", |w| forbid(&mut w.entry, 1 << 15)),
        ("loads of CR3 without an exit", |w| w.primary |= 1 << 15),
        ("stores of CR3 without an exit", |w| w.primary |= 1 << 16),
        ("INVLPG without an exit", |w| w.primary |= 1 << 9),
        ("RDTSC without an exit", |w| w.primary |= 1 << 12),
        ("EPT tables of four levels", |w| w.ept_vpid &= !(1 << 6)),
        ("EPT tables in write-back memory", |w| w.ept_vpid &= !(1 << 14)),
        ("EPT leaves of 2 MiB", |w| w.ept_vpid &= !(1 << 16)),
        ("INVEPT", |w| w.ept_vpid &= !(1 << 20)),
        ("a kind of INVEPT that is known", |w| w.ept_vpid &= !(3 << 25)),
        ("control structures in write-back memory", |w| {
            w.basic &= !(6 << 50)
        }),
        ("control structures above 4 GiB", |w| w.basic |= 1 << 48),
        ("control structures of one page", |w| w.basic |= 1 << 32),
        ("the CR0 that the kernel runs with", |w| w.cr0.value &= !(1 << 5)),
        ("the CR4 that the kernel runs with", |w| w.cr4.value &= !(1 << 13)),
        ("the CR4 that the kernel runs with", |w| {
            w.cr4.allowed &= !(1 << 20)
        }),
    ];
    for (what, change) in cases {
        assert_eq!(refused(change), Unavailable::Lacking(what));
    }
}
