//! Stage 2: what it refuses, and whether a change is seen.

use alloc::string::String;

use hv::exit::{Exit, Violation};
use kernel::mm::addr::{GuestPhysAddr, PAGE_SIZE};
use kernel::mm::fault::Access;
use kernel::mm::frame::{Frame, KernelData};
use kernel::mm::phys;
use kernel::mm::pt::Prot;

use super::{CODE, DATA, Guest, TABLES, expect_exit, guest_code, guest_test};
use crate::ensure;
use crate::ktest::common::text;

/// Nothing is there at stage 2.
const ABSENT: u64 = DATA + PAGE_SIZE;

guest_code!(
    touches:
    "mov rax, [rbx]",
    "vmmcall",
    ".org 0x10",
    "mov [rbx], rax",
    "vmmcall",
    ".org 0x20",
    "jmp rbx",
);
const LOAD: u64 = CODE;
const STORE: u64 = CODE + 0x10;
const JUMP: u64 = CODE + 0x20;

/// Runs into a violation.
macro_rules! violation {
    ($guest:expr) => {{
        let stopped = $guest.run();
        match stopped.exit {
            Exit::Violation(violation) => violation,
            other => return Err(alloc::format!("{other:?} ({})", stopped.raw)),
        }
    }};
}

guest_test!(
    fn absent_page_is_a_violation_for_each_access<V>() -> Result<(), String> {
        for (at, access, offset) in [
            (LOAD, Access::Read, 0x18),
            (STORE, Access::Write, 0xff8),
            (JUMP, Access::Execute, 5),
        ] {
            let mut guest = Guest::<V>::new(touches())?;
            guest.registers.rip = at;
            guest.registers.rbx = ABSENT + offset;
            let seen = violation!(guest);
            let expected = Violation {
                addr: GuestPhysAddr::new(ABSENT + offset),
                access,
                linear: seen.linear,
                walk: false,
                present: false,
                root: 0,
                in_delivery: false,
            };
            ensure!(seen == expected, "{seen:?} instead of {expected:?}");
            let linear = seen.linear.map(|linear| linear.as_u64());
            ensure!(
                linear.is_none_or(|linear| linear == ABSENT + offset),
                "at {linear:x?}"
            );
            let expected = if access == Access::Execute {
                ABSENT + offset
            } else {
                at
            };
            ensure!(guest.registers.rip == expected, "stands at {:?}", guest.registers);
        }
        Ok(())
    }
);

guest_test!(
    fn access_goes_on_when_the_page_is_there<V>() -> Result<(), String> {
        let mut guest = Guest::<V>::new(touches())?;
        guest.registers.rbx = ABSENT + 8;
        let seen = violation!(guest);
        ensure!(seen.access == Access::Read, "{seen:?}");
        guest.add(ABSENT, Prot::READ)?;
        guest.poke(ABSENT + 8, 0x5eed);
        expect_exit!(guest, Exit::Hypercall { user: false, len: 3 });
        ensure!(guest.registers.rax == 0x5eed, "read {:#x}", guest.registers.rax);
        Ok(())
    }
);

guest_test!(
    fn missing_right_is_a_violation_of_a_page_that_is_there<V>() -> Result<(), String> {
        for (at, access) in [(STORE, Access::Write), (JUMP, Access::Execute)] {
            let mut guest = Guest::<V>::new(touches())?;
            guest.add(ABSENT, Prot::READ)?;
            guest.registers.rip = at;
            guest.registers.rbx = ABSENT;
            let seen = violation!(guest);
            ensure!(
                seen.addr.as_u64() == ABSENT && seen.access == access && seen.present && !seen.walk,
                "{seen:?}"
            );
        }
        Ok(())
    }
);

guest_test!(
    fn walk_of_the_guests_tables_is_told_apart<V>() -> Result<(), String> {
        let mut guest = Guest::<V>::new(touches())?;
        // The root's second entry leads to a table that stage 2 does not have.
        guest.poke(TABLES + 8, ABSENT | 3);
        guest.registers.rbx = (1 << 39) + (3 << 30);
        let seen = violation!(guest);
        ensure!(
            seen.addr.as_u64() == ABSENT + 3 * 8 && seen.walk && !seen.present,
            "{seen:?}"
        );
        Ok(())
    }
);

guest_test!(
    fn guests_own_page_fault_stays_its_own<V>() -> Result<(), String> {
        let mut guest = Guest::<V>::new(touches())?;
        guest.set_gate(14, STORE + 3)?;
        guest.poke(Guest::<V>::entry_of(DATA), 0);
        guest.registers.rbx = DATA + 0x123;
        expect_exit!(guest, Exit::Hypercall { user: false, len: 3 });
        let state = V::save(&mut guest.vcpu);
        ensure!(state.cr2 == DATA + 0x123, "CR2 is {:#x}", state.cr2);
        Ok(())
    }
);

guest_test!(
    fn flush_shows_the_guest_another_frame<V>() -> Result<(), String> {
        let frame = |word: u64| {
            let mut frame = Frame::<KernelData>::alloc_zeroed().map_err(text)?;
            phys::fill(&mut frame, &word.to_le_bytes());
            Ok::<_, String>(frame)
        };
        let (old, new) = (frame(1)?, frame(2)?);
        let mut guest = Guest::<V>::new(touches())?;
        guest.map(ABSENT, old.pfn(), Prot::READ)?;
        guest.registers.rbx = ABSENT;
        expect_exit!(guest, Exit::Hypercall { user: false, len: 3 });
        ensure!(guest.registers.rax == 1, "read {}", guest.registers.rax);
        guest.unmap(ABSENT);
        guest.map(ABSENT, new.pfn(), Prot::READ)?;
        guest.registers.rip = LOAD;
        let stopped = guest.run_flushed();
        ensure!(
            stopped.exit == (Exit::Hypercall { user: false, len: 3 }),
            "{:?} ({})",
            stopped.exit,
            stopped.raw
        );
        ensure!(guest.registers.rax == 2, "then read {}", guest.registers.rax);
        // And gone.
        guest.unmap(ABSENT);
        guest.registers.rip = LOAD;
        let stopped = guest.run_flushed();
        ensure!(
            matches!(stopped.exit, Exit::Violation(Violation { present: false, .. })),
            "{:?} ({})",
            stopped.exit,
            stopped.raw
        );
        Ok(())
    }
);

guest_test!(
    fn many_guests_with_flushes_keep_their_memory_apart<V>() -> Result<(), String> {
        // More than some CPUs have address-space identifiers.
        let mut guests = alloc::vec::Vec::new();
        for number in 0..20 {
            let mut guest = Guest::<V>::new(touches())?;
            guest.registers.rbx = DATA;
            guest.poke(DATA, number);
            guests.push(guest);
        }
        for round in 0..3 {
            for (number, guest) in guests.iter_mut().enumerate() {
                guest.registers.rip = LOAD;
                let stopped = if round == 1 {
                    guest.run_flushed()
                } else {
                    guest.run()
                };
                ensure!(
                    stopped.exit == (Exit::Hypercall { user: false, len: 3 }),
                    "{:?} ({})",
                    stopped.exit,
                    stopped.raw
                );
                ensure!(
                    guest.registers.rax == number as u64,
                    "guest {number} read {} in round {round}",
                    guest.registers.rax
                );
            }
        }
        Ok(())
    }
);

guest_test!(
    fn state_comes_back_as_it_was_loaded<V>() -> Result<(), String> {
        let mut guest = Guest::<V>::new(touches())?;
        let mut state = V::save(&mut guest.vcpu);
        state.fs.base = 0x1111_0000;
        state.gs.base = 0xffff_8000_0000_1000;
        state.kernel_gs_base = 0x2222_0000;
        state.star = 0x0023_0010 << 32;
        state.lstar = 0xffff_8000_0000_2000;
        state.cstar = 0xffff_8000_0000_3000;
        state.sfmask = 0x4_7700;
        state.sysenter_cs = 8;
        state.sysenter_esp = 0xffff_8000_0000_4000;
        state.sysenter_eip = 0xffff_8000_0000_5000;
        state.cr2 = 0xabc;
        state.gdtr.base = DATA;
        state.gdtr.limit = 0x27;
        state.idtr.base = DATA + 0x800;
        state.idtr.limit = 0x7ff;
        state.tr.base = DATA + 0x400;
        V::load(&mut guest.vcpu, &state);
        ensure!(V::save(&mut guest.vcpu) == state, "changed by loading");
        guest.registers.rbx = DATA;
        expect_exit!(guest, Exit::Hypercall { user: false, len: 3 });
        let seen = V::save(&mut guest.vcpu);
        ensure!(
            seen == state,
            "changed by running: {seen:x?} instead of {state:x?}"
        );
        Ok(())
    }
);
