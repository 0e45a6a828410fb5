//! What is delivered to a guest, and what ends its run from outside.

use alloc::string::String;

use hv::exit::{Exit, Violation};
use hv::state::Injection;
use hv::vendor::Injected;
use kernel::arch::{Clock, Machine};
use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::fault::Access;
use kernel::mm::pt::Prot;

use super::{CODE, DATA, Guest, INTERRUPT_FLAG, STACK, expect_exit, guest_code, guest_test};
use crate::ensure;

/// Where the handlers of these guests begin: 16 bytes after the code.
const HANDLER: u64 = CODE + 0x40;
/// A vector for injected interrupts.
const VECTOR: u8 = 0x50;
/// General protection, which has an error code.
const PROTECTION: u8 = 13;

guest_code!(loops: "2: jmp 2b");

guest_test!(
    fn loop_ends_with_the_hosts_interrupts<V>() -> Result<(), String> {
        let mut guest = Guest::<V>::new(loops())?;
        // Each run ends with a tick, or with another interrupt of the host's; its flag does not concern the guest.
        let start = Machine::ticks();
        for flags in [0, INTERRUPT_FLAG, 0, INTERRUPT_FLAG] {
            guest.registers.rflags = super::FLAGS | flags;
            let stopped = V::run(&mut guest.vcpu, &mut guest.registers, false);
            ensure!(
                stopped.exit == Exit::HostInterrupt,
                "{:?} ({})",
                stopped.exit,
                stopped.raw
            );
        }
        // Three whole periods of 10 ms lie between the four.
        let passed = (Machine::ticks() - start) * 1000 / Machine::frequency();
        ensure!(passed >= 20, "four ticks in {passed} ms");
        Ok(())
    }
);

guest_code!(
    takes_interrupts:
    "hlt",
    "sti",
    "nop",
    "hlt",
    ".org 0x40",
    "pop rbx",
    "mov rcx, 0x77",
    "vmmcall",
);

guest_test!(
    fn interrupt_waits_for_the_window<V>() -> Result<(), String> {
        let mut guest = Guest::<V>::new(takes_interrupts())?;
        guest.set_gate(VECTOR, HANDLER)?;
        expect_exit!(guest, Exit::Halt { len: 1 });
        guest.skip(1);
        let vector = Injection::Interrupt(VECTOR);
        let taken = V::inject(&mut guest.vcpu, &guest.registers, vector);
        ensure!(taken == Injected::NotNow, "an interrupt with IF clear: {taken:?}");
        expect_exit!(guest, Exit::InterruptWindow);
        // Not in the shadow of STI, but after the instruction behind it.
        ensure!(
            guest.registers.rip == CODE + 3 && guest.registers.rflags & INTERRUPT_FLAG != 0,
            "window at {:?}",
            guest.registers
        );
        let taken = V::inject(&mut guest.vcpu, &guest.registers, vector);
        ensure!(taken == Injected::Queued, "an interrupt in the window: {taken:?}");
        expect_exit!(guest, Exit::Hypercall { user: false, len: 3 });
        ensure!(
            guest.registers.rcx == 0x77 && guest.registers.rbx == CODE + 3,
            "delivered with {:?}",
            guest.registers
        );
        ensure!(
            guest.registers.rflags & INTERRUPT_FLAG == 0,
            "an interrupt gate left IF set"
        );
        Ok(())
    }
);

guest_test!(
    fn interrupt_is_taken_at_once_where_it_can_be<V>() -> Result<(), String> {
        let mut guest = Guest::<V>::new(takes_interrupts())?;
        guest.set_gate(VECTOR, HANDLER)?;
        guest.registers.rflags |= INTERRUPT_FLAG;
        expect_exit!(guest, Exit::Halt { len: 1 });
        guest.skip(1);
        let taken = V::inject(&mut guest.vcpu, &guest.registers, Injection::Interrupt(VECTOR));
        ensure!(taken == Injected::Queued, "{taken:?}");
        let again = V::inject(&mut guest.vcpu, &guest.registers, Injection::Interrupt(VECTOR));
        ensure!(again == Injected::NotNow, "a second at the same time: {again:?}");
        expect_exit!(guest, Exit::Hypercall { user: false, len: 3 });
        ensure!(guest.registers.rbx == CODE + 1, "{:?}", guest.registers);
        // The handler turns interrupts on: the window that the second has asked for.
        guest.skip(3);
        guest.registers.rflags |= INTERRUPT_FLAG;
        expect_exit!(guest, Exit::InterruptWindow);
        Ok(())
    }
);

guest_code!(
    shadowed:
    "sti",
    "hlt",
    "nop",
    "hlt",
    ".org 0x40",
    "pop rbx",
    "vmmcall",
);

guest_test!(
    fn halt_behind_sti_can_be_ended_by_an_interrupt<V>() -> Result<(), String> {
        let mut guest = Guest::<V>::new(shadowed())?;
        guest.set_gate(VECTOR, HANDLER)?;
        expect_exit!(guest, Exit::Halt { len: 1 });
        // At the HLT itself the guest is in STI's shadow; behind it no more.
        let vector = Injection::Interrupt(VECTOR);
        let state = V::save(&mut guest.vcpu);
        ensure!(state.interrupt_shadow == 1, "no shadow behind STI");
        guest.skip(1);
        let taken = V::inject(&mut guest.vcpu, &guest.registers, vector);
        ensure!(taken == Injected::Queued, "behind HLT: {taken:?}");
        expect_exit!(guest, Exit::Hypercall { user: false, len: 3 });
        ensure!(
            guest.registers.rbx == CODE + 2,
            "woken at {:#x}",
            guest.registers.rbx
        );
        Ok(())
    }
);

guest_test!(
    fn exception_comes_with_its_error_code<V>() -> Result<(), String> {
        let mut guest = Guest::<V>::new(takes_interrupts())?;
        guest.set_gate(PROTECTION, HANDLER)?;
        let what = Injection::Exception {
            vector: PROTECTION,
            code: Some(0x1234),
        };
        let taken = V::inject(&mut guest.vcpu, &guest.registers, what);
        ensure!(taken == Injected::Queued, "{taken:?}");
        expect_exit!(guest, Exit::Hypercall { user: false, len: 3 });
        ensure!(
            guest.registers.rbx == 0x1234,
            "error code {:#x}",
            guest.registers.rbx
        );
        let stack = guest.registers.rsp;
        let back = guest.peek(stack);
        ensure!(back == CODE, "comes back to {back:#x}");
        Ok(())
    }
);

guest_test!(
    fn loading_state_forgets_what_was_to_be_delivered<V>() -> Result<(), String> {
        let mut guest = Guest::<V>::new(takes_interrupts())?;
        let state = V::save(&mut guest.vcpu);
        let what = Injection::Exception {
            vector: PROTECTION,
            code: Some(0),
        };
        let taken = V::inject(&mut guest.vcpu, &guest.registers, what);
        ensure!(taken == Injected::Queued, "{taken:?}");
        let taken = V::inject(&mut guest.vcpu, &guest.registers, Injection::Interrupt(VECTOR));
        ensure!(taken == Injected::NotNow, "{taken:?}");
        V::load(&mut guest.vcpu, &state);
        for at in [CODE, CODE + 3] {
            expect_exit!(guest, Exit::Halt { len: 1 });
            ensure!(guest.registers.rip == at, "halted at {:#x}", guest.registers.rip);
            guest.skip(1);
        }
        Ok(())
    }
);

/// A stack that stage 2 does not have.
const ABSENT_STACK: u64 = DATA + 2 * PAGE_SIZE;

guest_code!(
    own_events:
    "int3",
    "int 0x50",
    "ud2",
    ".org 0x40",
    "pop rbx",
    "vmmcall",
);

guest_test!(
    fn event_whose_delivery_found_no_stack_is_delivered_again<V>() -> Result<(), String> {
        const EVENTS: [(&str, u8, u64, Option<Injection>); 5] = [
            (
                "an injected interrupt",
                VECTOR,
                0,
                Some(Injection::Interrupt(VECTOR)),
            ),
            (
                "an injected breakpoint",
                3,
                0,
                Some(Injection::Exception {
                    vector: 3,
                    code: None,
                }),
            ),
            ("a breakpoint", 3, 0, None),
            ("a software interrupt", VECTOR, 1, None),
            ("an invalid instruction", 6, 3, None),
        ];
        for ((name, vector, at, injected), moved) in EVENTS
            .into_iter()
            .flat_map(|event| [(event, false), (event, true)])
        {
            let mut guest = Guest::<V>::new(own_events())?;
            guest.set_gate(vector, HANDLER)?;
            guest.registers.rip = CODE + at;
            guest.registers.rsp = ABSENT_STACK + PAGE_SIZE;
            guest.registers.rflags |= INTERRUPT_FLAG;
            // What an instruction of its own leads to comes back to behind it; what was injected, and a fault, to itself.
            let back = match (name, injected) {
                (_, Some(_)) => CODE,
                ("a breakpoint", _) => CODE + 1,
                ("a software interrupt", _) => CODE + 3,
                _ => CODE + 3,
            };
            if let Some(what) = injected {
                let taken = V::inject(&mut guest.vcpu, &guest.registers, what);
                ensure!(taken == Injected::Queued, "{name}: {taken:?}");
            }
            let stopped = guest.run();
            let Exit::Violation(violation) = stopped.exit else {
                return Err(alloc::format!("{name}: {:?} ({})", stopped.exit, stopped.raw));
            };
            let page = violation.addr.align_down(PAGE_SIZE).as_u64();
            ensure!(
                page == ABSENT_STACK && violation.access == Access::Write && violation.in_delivery,
                "{name}: {violation:?}"
            );
            guest.add(ABSENT_STACK, Prot::READ | Prot::WRITE)?;
            if moved {
                // Another vCPU goes on: what waits is part of the state.
                let state = V::save(&mut guest.vcpu);
                guest.replace_vcpu(&state)?;
            }
            expect_exit!(guest, Exit::Hypercall { user: false, len: 3 });
            ensure!(
                guest.registers.rbx == back,
                "{name} comes back to {:#x} instead of {back:#x}",
                guest.registers.rbx
            );
            let used = ABSENT_STACK + PAGE_SIZE - guest.registers.rsp;
            ensure!(used == 32, "{name} was delivered with {used} bytes on the stack");
        }
        Ok(())
    }
);

guest_test!(
    fn exception_goes_before_an_interrupt_that_was_cut_short<V>() -> Result<(), String> {
        let mut guest = Guest::<V>::new(takes_interrupts())?;
        guest.set_gate(VECTOR, HANDLER)?;
        guest.set_gate(PROTECTION, HANDLER)?;
        guest.registers.rsp = ABSENT_STACK + PAGE_SIZE;
        guest.registers.rflags |= INTERRUPT_FLAG;
        let taken = V::inject(&mut guest.vcpu, &guest.registers, Injection::Interrupt(VECTOR));
        ensure!(taken == Injected::Queued, "{taken:?}");
        let stopped = guest.run();
        let Exit::Violation(Violation {
            in_delivery: true, ..
        }) = stopped.exit
        else {
            return Err(alloc::format!("{:?} ({})", stopped.exit, stopped.raw));
        };
        guest.registers.rsp = STACK + PAGE_SIZE;
        let what = Injection::Exception {
            vector: PROTECTION,
            code: Some(0x99),
        };
        let taken = V::inject(&mut guest.vcpu, &guest.registers, what);
        ensure!(taken == Injected::Queued, "{taken:?}");
        expect_exit!(guest, Exit::Hypercall { user: false, len: 3 });
        ensure!(guest.registers.rbx == 0x99, "first {:?}", guest.registers);
        // The handler's gate has cleared IF. As soon as it is set again, the interrupt comes, and its owner is not asked.
        guest.skip(3);
        guest.registers.rip = CODE + 1;
        expect_exit!(guest, Exit::Hypercall { user: false, len: 3 });
        ensure!(
            guest.registers.rbx == CODE + 3,
            "then back to {:#x}",
            guest.registers.rbx
        );
        Ok(())
    }
);
