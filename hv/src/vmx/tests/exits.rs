use kernel::mm::addr::{GuestPhysAddr, VirtAddr};
use kernel::mm::fault::Access;

use crate::exit::{Exit, PortAccess, Stopped, Violation};
use crate::vmx::events::Event;
use crate::vmx::exits::{Beside, ENTRY_FAILED, Fields, beside, decode, has_event};
use crate::vmx::fields::{self, Field, segment};

/// The fields of one exit. Reading another is a mistake: on the machine it costs an instruction, or is not valid.
struct Scripted(&'static [(Field, u64)]);

impl Fields for Scripted {
    fn read(&self, field: Field) -> u64 {
        let found = self.0.iter().find(|(known, _)| *known == field);
        found
            .unwrap_or_else(|| panic!("{field:x?} does not belong to this exit"))
            .1
    }

    fn root(&self) -> u16 {
        3
    }
}

/// What an exit was, and what was beside it.
fn decoded(reason: u32, fields: &'static [(Field, u64)]) -> (Stopped, Beside) {
    let stopped = decode(reason, &Scripted(fields));
    assert_eq!(stopped.raw.code, reason.into());
    let beside = match has_event(&stopped) {
        true => beside(reason, &Scripted(fields)),
        false => Beside::default(),
    };
    (stopped, beside)
}

/// What an exit was that has nothing beside it.
fn exit(reason: u32, fields: &'static [(Field, u64)]) -> Exit {
    let (stopped, beside) = decoded(reason, fields);
    assert_eq!(beside, Beside::default());
    stopped.exit
}

const LEN: Field = fields::EXIT_INSTRUCTION_LENGTH;
const QUALIFICATION: Field = fields::EXIT_QUALIFICATION;
const VECTORING: Field = fields::VECTORING;

#[test]
fn intercepted_instructions_come_with_their_length() {
    assert_eq!(exit(12, &[(LEN, 1)]), Exit::Halt { len: 1 });
    assert_eq!(exit(10, &[(LEN, 2)]), Exit::Cpuid { len: 2 });
    assert_eq!(exit(31, &[(LEN, 2)]), Exit::Msr { write: false, len: 2 });
    assert_eq!(exit(32, &[(LEN, 3)]), Exit::Msr { write: true, len: 3 });
}

#[test]
fn a_hypercall_says_from_which_level_it_came() {
    assert_eq!(
        exit(18, &[(LEN, 3), (segment::SS.rights, 0xc093)]),
        Exit::Hypercall { user: false, len: 3 }
    );
    assert_eq!(
        exit(18, &[(LEN, 3), (segment::SS.rights, 0xc0f3)]),
        Exit::Hypercall { user: true, len: 3 }
    );
}

#[test]
fn port_accesses_are_taken_apart() {
    let plain = PortAccess {
        port: 0x3f8,
        size: 1,
        write: true,
        string: false,
        len: 1,
    };
    assert_eq!(
        exit(30, &[(QUALIFICATION, 0x03f8_0000), (LEN, 1)]),
        Exit::Io(plain)
    );
    let read = PortAccess {
        port: 0xcfc,
        size: 4,
        write: false,
        len: 2,
        ..plain
    };
    assert_eq!(
        exit(30, &[(QUALIFICATION, 0x0cfc_004b), (LEN, 2)]),
        Exit::Io(read)
    );
    let string = PortAccess {
        size: 2,
        string: true,
        len: 3,
        ..plain
    };
    assert_eq!(
        exit(30, &[(QUALIFICATION, 0x03f8_0031), (LEN, 3)]),
        Exit::Io(string)
    );
}

#[test]
fn violations_tell_how_and_where_and_whether_something_is_mapped() {
    let load = Violation {
        addr: GuestPhysAddr::new(0x4_0008),
        access: Access::Read,
        linear: Some(VirtAddr::new(0x7_0008)),
        walk: false,
        present: false,
        root: 3,
        in_delivery: false,
    };
    const PLAIN: u64 = 0x180;
    macro_rules! violation {
        ($qualification:expr) => {
            exit(
                48,
                &[
                    (VECTORING, 0),
                    (QUALIFICATION, $qualification),
                    (fields::EXIT_GUEST_PHYSICAL, 0x4_0008),
                    (fields::EXIT_LINEAR, 0x7_0008),
                ],
            )
        };
    }
    assert_eq!(violation!(PLAIN | 1), Exit::Violation(load));
    let store = Violation {
        access: Access::Write,
        present: true,
        ..load
    };
    assert_eq!(violation!(PLAIN | 2 | 1 << 3), Exit::Violation(store));
    // An execute-only page that is loaded from.
    assert_eq!(
        violation!(PLAIN | 1 | 1 << 5),
        Exit::Violation(Violation {
            present: true,
            ..load
        })
    );
    let fetch = Violation {
        access: Access::Execute,
        ..load
    };
    assert_eq!(violation!(PLAIN | 4), Exit::Violation(fetch));
    // The walk of a guest's tables with accessed and dirty bits on counts as both.
    let walk = Violation {
        access: Access::Write,
        walk: true,
        ..load
    };
    assert_eq!(violation!(0x80 | 3), Exit::Violation(walk));
    // Loads of page-directory pointers by MOV to CR3 have no address.
    let unnamed = Violation { linear: None, ..load };
    assert_eq!(violation!(1), Exit::Violation(unnamed));
}

#[test]
fn a_violation_in_the_middle_of_a_delivery_keeps_the_event() {
    let (stopped, beside) = decoded(
        48,
        &[
            (VECTORING, 0x8000_0b0e),
            (fields::VECTORING_ERROR_CODE, 2),
            (QUALIFICATION, 0x182),
            (fields::EXIT_GUEST_PHYSICAL, 0x2_0ff8),
            (fields::EXIT_LINEAR, 0x2_0ff8),
        ],
    );
    let Exit::Violation(violation) = stopped.exit else {
        panic!("{stopped:?}");
    };
    assert!(violation.in_delivery);
    assert_eq!(beside.cut_short, Some(Event::exception(14, Some(2))));
}

#[test]
fn an_event_that_is_cut_short_by_a_broken_entry_is_kept_too() {
    let (stopped, beside) = decoded(
        49,
        &[
            (VECTORING, 0x8000_0040),
            (QUALIFICATION, 0),
            (fields::EXIT_GUEST_PHYSICAL, 0x8000),
        ],
    );
    assert_eq!(stopped.exit, Exit::Misconfigured(GuestPhysAddr::new(0x8000)));
    assert_eq!(beside.cut_short, Some(Event::interrupt(0x40)));
}

#[test]
fn interrupts_of_the_hosts_are_told_from_windows_and_shutdown() {
    assert_eq!(exit(1, &[]), Exit::HostInterrupt);
    assert_eq!(exit(52, &[]), Exit::HostInterrupt);
    assert_eq!(exit(7, &[]), Exit::InterruptWindow);
    assert_eq!(exit(2, &[(QUALIFICATION, 0)]), Exit::Shutdown);
}

#[test]
fn nmis_and_machine_checks_are_raised_again() {
    const FIELDS: [&[(Field, u64)]; 2] = [
        &[(VECTORING, 0), (fields::EXIT_INTERRUPTION, 0x8000_0202)],
        &[(VECTORING, 0), (fields::EXIT_INTERRUPTION, 0x8000_0312)],
    ];
    for (fields, vector) in FIELDS.into_iter().zip([2, 18]) {
        let (stopped, beside) = decoded(0, fields);
        assert_eq!(stopped.exit, Exit::HostInterrupt);
        assert_eq!(stopped.raw.info as u8, vector);
        assert_eq!((beside.host_vector, beside.exception), (Some(vector), None));
    }
}

#[test]
fn debug_and_alignment_exceptions_go_back_to_the_guest() {
    let (stopped, alignment) = decoded(
        0,
        &[
            (VECTORING, 0x8000_0040),
            (fields::EXIT_INTERRUPTION, 0x8000_0b11),
            (fields::EXIT_ERROR_CODE, 0),
        ],
    );
    assert_eq!(stopped.exit, Exit::HostInterrupt);
    assert_eq!(alignment.exception, Some(Event::exception(17, Some(0))));
    assert_eq!(alignment.cut_short, Some(Event::interrupt(0x40)));
    let (_, step) = decoded(0, &[(VECTORING, 0), (fields::EXIT_INTERRUPTION, 0x8000_0301)]);
    assert_eq!(step.exception, Some(Event::exception(1, None)));
    assert_eq!(step.host_vector, None);
}

#[test]
fn an_exception_that_nobody_asked_for_is_unknown() {
    assert_eq!(
        exit(0, &[(VECTORING, 0), (fields::EXIT_INTERRUPTION, 0x8000_030d)]),
        Exit::Unknown
    );
}

#[test]
fn what_nobody_emulates_is_named() {
    for (reason, name) in [
        (13, "INVD"),
        (15, "RDPMC"),
        (27, "VMXON"),
        (29, "MOV DR"),
        (36, "MWAIT"),
        (39, "MONITOR"),
        (55, "XSETBV"),
        (59, "VMFUNC"),
    ] {
        assert_eq!(exit(reason, &[(QUALIFICATION, 0)]), Exit::Privileged(name));
    }
    let task_switch = exit(9, &[(VECTORING, 0), (QUALIFICATION, 0)]);
    assert_eq!(task_switch, Exit::Privileged("a task switch"));
}

#[test]
fn control_registers_are_named_with_the_access() {
    macro_rules! control {
        ($qualification:literal) => {
            exit(28, &[(QUALIFICATION, $qualification)])
        };
    }
    assert_eq!(control!(0x000), Exit::Privileged("MOV to CR0"));
    assert_eq!(control!(0x704), Exit::Privileged("MOV to CR4"));
    assert_eq!(control!(0x108), Exit::Privileged("MOV to CR8"));
    assert_eq!(control!(0x018), Exit::Privileged("MOV from CR8"));
    assert_eq!(control!(0x020), Exit::Privileged("CLTS"));
    assert_eq!(control!(0x030), Exit::Privileged("LMSW"));
}

#[test]
fn reasons_that_are_not_known_keep_their_number() {
    let (stopped, _) = decoded(77, &[(QUALIFICATION, 5)]);
    assert_eq!(stopped.exit, Exit::Unknown);
    assert_eq!((stopped.raw.code, stopped.raw.info), (77, 5));
}

#[test]
fn an_entry_that_failed_is_told_whatever_the_reason() {
    for reason in [33, 34, 41] {
        assert_eq!(
            exit(ENTRY_FAILED | reason, &[(QUALIFICATION, 4)]),
            Exit::EntryRefused
        );
    }
}
