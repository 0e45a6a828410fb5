//! Conversions, on blocks that no CPU has seen.

use alloc::boxed::Box;

use kernel::mm::addr::{GuestPhysAddr, Pfn, PhysAddr};
use kernel::mm::fault::Access;

use super::control::let_through;
use super::events::{self, Events};
use super::exits;
use super::fields::Vmcb;
use crate::exit::{Exit, PortAccess, Violation};
use crate::state::{Injection, Registers, Segment, SystemState, TableRegister};
use crate::vendor::Injected;

const INTERRUPT_FLAG: u64 = 1 << 9;

fn block() -> Box<Vmcb> {
    let mut vmcb = Box::new(Vmcb::zeroed());
    vmcb.set_up(Pfn::new(0x123), PhysAddr::new(0x4000), PhysAddr::new(0x8000));
    vmcb
}

/// What a guest in user mode may have, no two registers alike.
fn state() -> SystemState {
    let segment = |selector, rights, base| Segment {
        selector,
        rights,
        limit: 0xffff_0000 | u32::from(selector),
        base,
    };
    SystemState {
        cs: segment(0x33, 0xa0fb, 1),
        ds: segment(0, 1 << 16, 2),
        es: segment(0x2b, 0xc0f3, 3),
        fs: segment(0x53, 0xd0f3, 4),
        gs: segment(0x2b, 0x40f3, 5),
        ss: segment(0x2b, 0xc0f3, 6),
        ldtr: segment(0x60, 0x82, 7),
        tr: segment(0x40, 0x8b, 8),
        gdtr: TableRegister { limit: 0x7f, base: 9 },
        idtr: TableRegister {
            limit: 0xfff,
            base: 10,
        },
        cr0: 11,
        cr2: 12,
        cr3: 13,
        cr4: 0x620,
        efer: 0xd01,
        star: 15,
        lstar: 16,
        cstar: 17,
        sfmask: 18,
        kernel_gs_base: 19,
        sysenter_cs: 20,
        sysenter_esp: 21,
        sysenter_eip: 22,
        pat: 23,
        dr6: 24,
        dr7: 25,
        interrupt_shadow: 1,
        event: 0,
        displaced: 0,
    }
}

#[test]
fn state_survives_the_block() {
    let mut vmcb = block();
    for state in [state(), SystemState::long_mode(0x5000)] {
        vmcb.load(&state);
        assert_eq!(vmcb.save(), state);
    }
}

#[test]
fn privilege_level_is_that_of_the_stack_segment() {
    let mut vmcb = block();
    vmcb.load(&state());
    assert_eq!(vmcb.cpl, 3);
    vmcb.cpl = 0;
    assert_eq!(
        vmcb.save().ss.rights,
        0xc093,
        "rights follow the level that the CPU keeps apart"
    );
}

#[test]
fn guests_do_not_see_that_svm_is_on() {
    let mut vmcb = block();
    vmcb.load(&state());
    assert_eq!(vmcb.efer & 1 << 12, 1 << 12);
    assert_eq!(vmcb.save().efer, 0xd01);
}

#[test]
fn lengths_come_from_the_cpu_or_from_the_plain_form() {
    let mut vmcb = block();
    vmcb.rip = 0x1000;
    for (code, plain, exit) in [
        (0x78, 1, (|len| Exit::Halt { len }) as fn(u8) -> Exit),
        (0x72, 2, |len| Exit::Cpuid { len }),
        (0x7c, 2, |len| Exit::Msr { write: false, len }),
        (0x81, 3, |len| Exit::Hypercall { user: false, len }),
    ] {
        vmcb.exit_code = code;
        vmcb.next_rip = 0;
        assert_eq!(exits::decode(&vmcb).exit, exit(plain));
        vmcb.next_rip = 0x1005;
        assert_eq!(exits::decode(&vmcb).exit, exit(5));
    }
}

#[test]
fn level_and_direction_are_told() {
    let mut vmcb = block();
    (vmcb.exit_code, vmcb.cpl) = (0x81, 3);
    assert_eq!(exits::decode(&vmcb).exit, Exit::Hypercall { user: true, len: 3 });
    (vmcb.exit_code, vmcb.exit_info_1) = (0x7c, 1);
    assert_eq!(exits::decode(&vmcb).exit, Exit::Msr { write: true, len: 2 });
}

#[test]
fn port_accesses_are_taken_apart() {
    let mut vmcb = block();
    (vmcb.exit_code, vmcb.rip, vmcb.exit_info_2) = (0x7b, 0x1000, 0x1002);
    let access = PortAccess {
        port: 0x3f8,
        size: 4,
        write: false,
        string: false,
        len: 2,
    };
    // Port in the upper half; address size 64 (bit 9), 32 bits (bit 6), IN (bit 0).
    vmcb.exit_info_1 = 0x3f8 << 16 | 0x241;
    assert_eq!(exits::decode(&vmcb).exit, Exit::Io(access));
    // 8 bits (bit 4), repeated (bit 3), of a string (bit 2), OUT.
    vmcb.exit_info_1 = 0x3f8 << 16 | 0x21c;
    let access = PortAccess {
        size: 1,
        write: true,
        string: true,
        ..access
    };
    assert_eq!(exits::decode(&vmcb).exit, Exit::Io(access));
}

#[test]
fn violations_tell_access_walk_presence_and_delivery() {
    let mut vmcb = block();
    (vmcb.exit_code, vmcb.exit_info_2) = (0x400, 0x1_2345_6789);
    let plain = Violation {
        addr: GuestPhysAddr::new(0x1_2345_6789),
        access: Access::Read,
        linear: None,
        walk: false,
        present: false,
        root: 0,
        in_delivery: false,
    };
    let walk = Violation {
        access: Access::Write,
        walk: true,
        ..plain
    };
    let of = |access, present| Violation {
        access,
        present,
        ..plain
    };
    for (info, expected) in [
        (0x1_0000_0004, plain),
        (0x1_0000_0006, of(Access::Write, false)),
        (0x1_0000_0007, of(Access::Write, true)),
        (0x1_0000_0015, of(Access::Execute, true)),
        (0x2_0000_0006, walk),
    ] {
        vmcb.exit_info_1 = info;
        assert_eq!(exits::decode(&vmcb).exit, Exit::Violation(expected), "{info:#x}");
    }
    vmcb.exit_interrupt = 0x8000_0050;
    let delivering = Violation {
        in_delivery: true,
        ..walk
    };
    assert_eq!(exits::decode(&vmcb).exit, Exit::Violation(delivering));
    vmcb.exit_info_1 = 0x1_0000_000d;
    assert_eq!(
        exits::decode(&vmcb).exit,
        Exit::Misconfigured(GuestPhysAddr::new(0x1_2345_6789))
    );
}

#[test]
fn every_other_exit_has_its_name() {
    let mut vmcb = block();
    for (code, exit) in [
        (0x60, Exit::HostInterrupt),
        (0x61, Exit::HostInterrupt),
        (0x62, Exit::HostInterrupt),
        (0x64, Exit::InterruptWindow),
        (0x7f, Exit::Shutdown),
        (0x08, Exit::Privileged("MOV from CR8")),
        (0x18, Exit::Privileged("MOV to CR8")),
        (0x20, Exit::Privileged("MOV DR")),
        (0x37, Exit::Privileged("MOV DR")),
        (0x80, Exit::Privileged("VMRUN")),
        (0x7a, Exit::Privileged("INVLPGA")),
        (0x8d, Exit::Privileged("XSETBV")),
        (u64::MAX, Exit::EntryRefused),
        (u64::from(u32::MAX), Exit::EntryRefused),
        (0x52, Exit::Unknown),
        (0x403, Exit::Unknown),
    ] {
        vmcb.exit_code = code;
        let stopped = exits::decode(&vmcb);
        assert_eq!(stopped.exit, exit, "{code:#x}");
        assert_eq!(stopped.raw.code, code);
    }
}

#[test]
fn bits_of_cr4_that_guests_do_not_have_end_them_at_the_next_uncommon_exit() {
    let mut vmcb = block();
    let with = |cr4| SystemState { cr4, ..state() };
    vmcb.load(&with(0x31_0620));
    vmcb.exit_code = 0x60;
    assert_eq!(exits::decode(&vmcb).exit, Exit::HostInterrupt);
    // OSXSAVE.
    vmcb.load(&with(0x4_0620));
    assert_eq!(exits::decode(&vmcb).exit, Exit::Privileged("MOV to CR4"));
    vmcb.exit_code = u64::MAX;
    assert_eq!(exits::decode(&vmcb).exit, Exit::EntryRefused);
    vmcb.exit_code = 0x81;
    assert_eq!(exits::decode(&vmcb).exit, Exit::Hypercall { user: true, len: 3 });
}

#[test]
fn guests_reach_their_own_msrs_and_no_others() {
    let mut map = [0xff; 0x2000];
    let_through(&mut map);
    let bits = |number: usize| {
        let index = if number < 0x2000 {
            number
        } else {
            number - 0xc000_0000 + 0x2000
        };
        map[index / 4] >> (index % 4 * 2) & 3
    };
    let own = [
        0x174,
        0x175,
        0x176,
        0xc000_0081,
        0xc000_0082,
        0xc000_0083,
        0xc000_0084,
        0xc000_0100,
        0xc000_0101,
        0xc000_0102,
    ];
    for number in (0..0x2000).chain(0xc000_0000..0xc000_2000) {
        let expected = if own.contains(&number) { 0 } else { 3 };
        assert_eq!(bits(number), expected, "{number:#x}");
    }
    assert!(map[0x1000..].iter().all(|&byte| byte == 0xff));
}

/// EVENTINJ as the manual spells it.
const INTERRUPT: u64 = 0x8000_0050;
const PAGE_FAULT: u64 = 0x0000_0002_8000_0b0e;
const NMI: u64 = 0x8000_0202;
const SOFTWARE: u64 = 0x8000_0480;
const BREAKPOINT: u64 = 0x8000_0303;

fn ready() -> Registers {
    Registers {
        rflags: INTERRUPT_FLAG,
        ..Registers::default()
    }
}

fn page_fault() -> Injection {
    Injection::Exception {
        vector: 14,
        code: Some(2),
    }
}

#[test]
fn injections_are_spelled_as_the_cpu_reads_them() {
    let (mut vmcb, mut events) = (block(), Events::default());
    assert_eq!(
        events.inject(&mut vmcb, &ready(), Injection::Interrupt(0x50)),
        Injected::Queued
    );
    assert_eq!(vmcb.event, INTERRUPT);
    vmcb.event = 0;
    assert_eq!(events.inject(&mut vmcb, &ready(), page_fault()), Injected::Queued);
    assert_eq!(vmcb.event, PAGE_FAULT);
    assert!(!events.has_displaced(), "nothing was displaced");
}

#[test]
fn interrupt_is_refused_with_a_window_while_flag_or_shadow_forbid_it() {
    let (mut vmcb, mut events) = (block(), Events::default());
    let vector = Injection::Interrupt(0x50);
    assert_eq!(
        events.inject(&mut vmcb, &Registers::default(), vector),
        Injected::NotNow
    );
    assert!(vmcb.awaits_window() && vmcb.event == 0);
    assert!(events.window(&mut vmcb), "its owner is told");
    assert!(!vmcb.awaits_window());

    let mut shadowed = SystemState::long_mode(0);
    shadowed.interrupt_shadow = 1;
    vmcb.load(&shadowed);
    assert_eq!(events.inject(&mut vmcb, &ready(), vector), Injected::NotNow);
    // As an exit leaves it; whoever emulated the instruction has moved on.
    vmcb.rip = 0x1000;
    let at = |rip| Registers { rip, ..ready() };
    assert_eq!(events.inject(&mut vmcb, &at(0x1000), vector), Injected::NotNow);
    assert_eq!(events.inject(&mut vmcb, &at(0x1001), vector), Injected::Queued);
    assert!(!vmcb.awaits_window(), "the window is not needed any more");
}

#[test]
fn shadow_ends_when_the_guest_goes_on_elsewhere() {
    let mut vmcb = block();
    vmcb.load(&state());
    vmcb.settle_shadow(0x1000);
    assert_eq!(
        vmcb.save().interrupt_shadow,
        1,
        "before the first run it is anywhere"
    );
    vmcb.rip = 0x1000;
    vmcb.settle_shadow(0x1000);
    assert_eq!(vmcb.save().interrupt_shadow, 1);
    vmcb.settle_shadow(0x1001);
    assert_eq!(vmcb.save().interrupt_shadow, 0);
}

#[test]
fn what_was_cut_short_is_delivered_again_unless_it_comes_by_itself() {
    let (mut vmcb, mut events) = (block(), Events::default());
    for (sent, cut_short, again) in [
        (0, INTERRUPT, INTERRUPT),
        (0, PAGE_FAULT, PAGE_FAULT),
        (0, NMI, NMI),
        (0, SOFTWARE, 0),
        (0, BREAKPOINT, 0),
        (BREAKPOINT, BREAKPOINT, BREAKPOINT),
        (INTERRUPT, BREAKPOINT, 0),
    ] {
        vmcb.event = 0;
        assert!(events::is_valid(cut_short));
        events.redeliver(&mut vmcb, sent, cut_short);
        assert_eq!(vmcb.event, again, "{cut_short:#x} after {sent:#x}");
    }
}

#[test]
fn exception_goes_first_and_the_interrupt_follows_in_its_own_window() {
    let (mut vmcb, mut events) = (block(), Events::default());
    vmcb.event = INTERRUPT;
    assert_eq!(events.inject(&mut vmcb, &ready(), page_fault()), Injected::Queued);
    assert!(vmcb.event == PAGE_FAULT && events.has_displaced());
    // The run with the exception waits for the window.
    events.offer(&mut vmcb, &ready());
    assert!(vmcb.event == PAGE_FAULT && vmcb.awaits_window());
    vmcb.event = 0;
    let handler = Registers::default();
    events.offer(&mut vmcb, &handler);
    assert!(vmcb.event == 0 && vmcb.awaits_window());
    assert!(!events.window(&mut vmcb), "nobody has asked");
    events.offer(&mut vmcb, &ready());
    assert!(vmcb.event == INTERRUPT && !vmcb.awaits_window() && !events.has_displaced());
}

#[test]
fn owner_that_waits_behind_a_displaced_interrupt_gets_the_window_after_it() {
    let (mut vmcb, mut events) = (block(), Events::default());
    vmcb.event = NMI;
    assert_eq!(events.inject(&mut vmcb, &ready(), page_fault()), Injected::Queued);
    vmcb.event = 0;
    assert_eq!(
        events.inject(&mut vmcb, &ready(), Injection::Interrupt(0x51)),
        Injected::NotNow
    );
    assert!(!events.window(&mut vmcb));
    events.offer(&mut vmcb, &ready());
    assert!(vmcb.event == NMI && vmcb.awaits_window());
    vmcb.event = 0;
    assert!(events.window(&mut vmcb));
}

#[test]
fn changes_take_their_clean_bits_away() {
    let mut vmcb = block();
    vmcb.clean = 0x3ff;
    vmcb.set_asid(5);
    assert_eq!(vmcb.clean, 0);
    vmcb.clean = 0x3ff;
    vmcb.open_window();
    assert_eq!(vmcb.clean, 0x3f6);
    vmcb.load(&state());
    assert_eq!(vmcb.clean, 0);
}

#[test]
fn what_waits_survives_a_state() {
    let (mut vmcb, mut events) = (block(), Events::default());
    vmcb.event = INTERRUPT;
    assert_eq!(events.inject(&mut vmcb, &ready(), page_fault()), Injected::Queued);
    let mut state = state();
    events.save(&vmcb, &mut state);
    assert_eq!((state.event, state.displaced), (PAGE_FAULT, INTERRUPT));
    let (mut other, mut others) = (block(), Events::default());
    others.load(&mut other, &state);
    assert_eq!((other.event, others), (vmcb.event, events));
}

#[test]
fn state_without_events_leaves_nothing_waiting() {
    let (mut vmcb, mut events) = (block(), Events::default());
    vmcb.event = PAGE_FAULT;
    assert_eq!(
        events.inject(&mut vmcb, &ready(), Injection::Interrupt(0x50)),
        Injected::NotNow
    );
    events.load(&mut vmcb, &state());
    assert!(vmcb.event == 0 && !vmcb.awaits_window() && events == Events::default());
}

#[test]
fn events_that_an_instruction_leads_to_again_are_not_taken_from_a_state() {
    let (mut vmcb, mut events) = (block(), Events::default());
    for (event, taken) in [
        (0x8002_0450, 0),
        (0x8001_0603, 0),
        (0x0000_0050, 0),
        (BREAKPOINT, BREAKPOINT),
        (INTERRUPT | 1 << 12, INTERRUPT),
    ] {
        let state = SystemState { event, ..state() };
        events.load(&mut vmcb, &state);
        assert_eq!(vmcb.event, taken, "{event:#x}");
    }
}
