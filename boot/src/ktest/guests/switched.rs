//! Registers that a guest shares with the host's CPU, each with a value of its own.

use alloc::string::String;

use hv::exit::Exit;
use hv::state::SystemState;
use hv::vendor::Vendor;
use x86_64::registers::model_specific::{GsBase, KernelGsBase, LStar, Msr, SFMask};

use super::{CODE, FLAGS, GDT, Guest, expect_exit, guest_code, guest_test};
use crate::ensure;

const CALL: Exit = Exit::Hypercall { user: false, len: 3 };
/// EFER.SCE: SYSCALL works.
const SYSCALL_ENABLE: u64 = 1;
/// Code 8 and stack 16 on the way in.
const STAR: u64 = 8 << 32;
const ENTRY: u64 = CODE + 0x20;
/// RFLAGS.DF and IF.
const MASK: u64 = 0x600;
const BASE: u64 = 0xffff_9000_1234_5000;
const OTHER_BASE: u64 = 0x7654_3000;

guest_code!(
    turns_machine_checks_on:
    "mov rax, cr4",
    "mov rbx, rax",
    "or rax, 0x40",
    "or rax, 0x80",
    "mov cr4, rax",
    "mov rcx, cr4",
    "vmmcall",
    "mov cr4, rbx",
    "mov rcx, cr4",
    "vmmcall",
);

guest_code!(
    calls_the_system:
    "syscall",
    ".org 0x20",
    "vmmcall",
    "swapgs",
    "vmmcall",
);

/// What the host has in these registers.
fn of_the_host() -> [u64; 6] {
    #[expect(unsafe_code, reason = "reads MSRs")]
    // SAFETY: every CPU with SYSCALL has STAR and CSTAR.
    let [star, cstar] = [0xc000_0081, 0xc000_0083].map(|msr| unsafe { Msr::new(msr).read() });
    [
        star,
        LStar::read().as_u64(),
        cstar,
        SFMask::read().bits(),
        KernelGsBase::read().as_u64(),
        GsBase::read().as_u64(),
    ]
}

fn change<V: Vendor>(guest: &mut Guest<V>, change: impl FnOnce(&mut SystemState)) {
    let mut state = V::save(&mut guest.vcpu);
    change(&mut state);
    V::load(&mut guest.vcpu, &state);
}

guest_test!(
    fn system_calls_and_bases_are_the_guests_own<V>() -> Result<(), String> {
        let host = of_the_host();
        let mut guest = Guest::<V>::new(calls_the_system())?;
        // Descriptors for the segments that SYSCALL names.
        guest.set_gate(6, CODE)?;
        change(&mut guest, |state| {
            state.efer |= SYSCALL_ENABLE;
            state.star = STAR;
            state.lstar = ENTRY;
            state.sfmask = MASK;
            state.gs.base = OTHER_BASE;
            state.kernel_gs_base = BASE;
        });
        guest.registers.rflags = FLAGS | MASK;
        expect_exit!(guest, CALL);
        let registers = guest.registers;
        ensure!(
            registers.rip == ENTRY && registers.rcx == CODE + 2,
            "{registers:?}"
        );
        ensure!(
            registers.r11 & MASK == MASK && registers.rflags & MASK == 0,
            "{registers:?}, r11 {:#x}",
            registers.r11
        );
        ensure!(of_the_host() == host, "{:x?} instead of {host:x?}", of_the_host());
        guest.skip(3);
        expect_exit!(guest, CALL);
        let state = V::save(&mut guest.vcpu);
        ensure!(
            (state.gs.base, state.kernel_gs_base) == (BASE, OTHER_BASE),
            "{state:x?}"
        );
        ensure!(
            (state.star, state.lstar, state.sfmask) == (STAR, ENTRY, MASK),
            "{state:x?}"
        );
        ensure!(state.gdtr.base == GDT, "{state:x?}");
        ensure!(of_the_host() == host, "{:x?} instead of {host:x?}", of_the_host());
        Ok(())
    }
);

guest_test!(
    fn guests_that_take_turns_keep_their_registers<V>() -> Result<(), String> {
        let mut guests = [
            Guest::<V>::new(calls_the_system())?,
            Guest::<V>::new(calls_the_system())?,
        ];
        for (n, guest) in guests.iter_mut().enumerate() {
            guest.registers.rip = ENTRY;
            change(guest, |state| {
                state.kernel_gs_base = BASE + n as u64;
                state.cr2 = OTHER_BASE + n as u64;
                state.lstar = ENTRY + n as u64;
            });
        }
        for instruction in 0..2 {
            for guest in &mut guests {
                expect_exit!(guest, CALL);
                guest.skip(3);
            }
            for (n, guest) in guests.iter_mut().enumerate() {
                let n = n as u64;
                let state = V::save(&mut guest.vcpu);
                let bases = match instruction {
                    0 => (0, BASE + n),
                    _ => (BASE + n, 0),
                };
                ensure!(
                    (state.gs.base, state.kernel_gs_base) == bases,
                    "guest {n}: {state:x?}"
                );
                ensure!(
                    (state.cr2, state.lstar) == (OTHER_BASE + n, ENTRY + n),
                    "guest {n}: {state:x?}"
                );
            }
        }
        Ok(())
    }
);

guest_test!(
    fn addresses_that_are_none_do_not_reach_the_host<V>() -> Result<(), String> {
        let host = of_the_host();
        let spoilers: [fn(&mut SystemState); 4] = [
            |state| state.lstar = 1 << 47,
            |state| state.cstar = 1 << 63,
            |state| state.kernel_gs_base = 0x1234 << 48,
            |state| state.sfmask = 1 << 32,
        ];
        for spoil in spoilers {
            let mut guest = Guest::<V>::new(calls_the_system())?;
            guest.registers.rip = ENTRY;
            change(&mut guest, |state| {
                state.efer |= SYSCALL_ENABLE;
                spoil(state);
            });
            // A CPU that takes what it should not is no harm as long as it gives it back.
            let stopped = guest.run();
            ensure!(matches!(stopped.exit, Exit::EntryRefused | CALL), "{stopped:?}");
            ensure!(of_the_host() == host, "{:x?} instead of {host:x?}", of_the_host());
        }
        Ok(())
    }
);

guest_test!(
    fn guest_turns_machine_checks_and_global_pages_on_and_off<V>() -> Result<(), String> {
        let mut guest = Guest::<V>::new(turns_machine_checks_on())?;
        expect_exit!(guest, CALL);
        let registers = guest.registers;
        ensure!(
            registers.rbx & 0xc0 == 0 && registers.rcx == registers.rbx | 0xc0,
            "{registers:?}"
        );
        ensure!(
            V::save(&mut guest.vcpu).cr4 == registers.rcx,
            "{:x?}",
            V::save(&mut guest.vcpu)
        );
        guest.skip(3);
        expect_exit!(guest, CALL);
        ensure!(guest.registers.rcx == registers.rbx, "{:?}", guest.registers);
        Ok(())
    }
);
