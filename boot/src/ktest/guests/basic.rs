//! Instructions that stop a guest, and registers that are its own.
#![expect(unsafe_code, reason = "reads the host's MSRs")]

use alloc::string::String;

use hv::exit::{Exit, PortAccess};
use hv::state::Registers;
use x86_64::registers::model_specific::Msr;

use super::{CODE, FLAGS, Guest, expect_exit, guest_code, guest_test};
use crate::ensure;

guest_code!(halts: "hlt", "hlt");

guest_test!(
    fn halt_stops_the_guest<V>() -> Result<(), String> {
        let mut guest = Guest::<V>::new(halts())?;
        for instruction in 0..2 {
            expect_exit!(guest, Exit::Halt { len: 1 });
            ensure!(
                guest.registers.rip == CODE + instruction,
                "halted at {:#x}",
                guest.registers.rip
            );
            guest.skip(1);
        }
        Ok(())
    }
);

guest_code!(
    port_io:
    "mov eax, 0x12345678",
    "out 0xe9, al",
    "mov dx, 0x3f8",
    "out dx, ax",
    "in eax, dx",
    "hlt",
    "lea rsi, [rsp - 8]",
    "outsb",
);

guest_test!(
    fn port_accesses_come_with_their_port_and_size<V>() -> Result<(), String> {
        let mut guest = Guest::<V>::new(port_io())?;
        let access = |port, size, write, len| {
            Exit::Io(PortAccess {
                port,
                size,
                write,
                string: false,
                len,
            })
        };
        expect_exit!(guest, access(0xe9, 1, true, 2));
        ensure!(guest.registers.rax == 0x1234_5678, "out of {:?}", guest.registers);
        guest.skip(2);
        expect_exit!(guest, access(0x3f8, 2, true, 2));
        guest.skip(2);
        expect_exit!(guest, access(0x3f8, 4, false, 1));
        guest.registers.rax = 0xdead_beef;
        guest.skip(1);
        expect_exit!(guest, Exit::Halt { len: 1 });
        ensure!(
            guest.registers.rax == 0xdead_beef,
            "in gave {:?}",
            guest.registers
        );
        guest.skip(1);
        let stopped = guest.run();
        let string = Exit::Io(PortAccess {
            port: 0x3f8,
            size: 1,
            write: true,
            string: true,
            len: 1,
        });
        ensure!(
            stopped.exit == string,
            "{:?} ({}) for OUTS",
            stopped.exit,
            stopped.raw
        );
        Ok(())
    }
);

guest_code!(identify: "mov eax, 0x40000000", "xor ecx, ecx", "cpuid", "hlt");

guest_test!(
    fn cpuid_is_the_hypervisors<V>() -> Result<(), String> {
        let mut guest = Guest::<V>::new(identify())?;
        expect_exit!(guest, Exit::Cpuid { len: 2 });
        ensure!(
            guest.registers.rax == 0x4000_0000,
            "leaf {:#x}",
            guest.registers.rax
        );
        guest.registers.rbx = 0x1111;
        guest.skip(2);
        expect_exit!(guest, Exit::Halt { len: 1 });
        ensure!(guest.registers.rbx == 0x1111, "{:?}", guest.registers);
        Ok(())
    }
);

guest_code!(
    msrs:
    "mov ecx, 0xc0000080",
    "rdmsr",
    "mov ecx, 0x10",
    "mov eax, 1",
    "mov edx, 2",
    "wrmsr",
    "mov ecx, 0x12345678",
    "rdmsr",
);

guest_test!(
    fn msrs_beyond_a_guests_own_are_the_hypervisors<V>() -> Result<(), String> {
        let mut guest = Guest::<V>::new(msrs())?;
        for (number, write) in [(0xc000_0080, false), (0x10, true), (0x1234_5678, false)] {
            expect_exit!(guest, Exit::Msr { write, len: 2 });
            ensure!(
                guest.registers.rcx == number,
                "register {:#x}",
                guest.registers.rcx
            );
            guest.skip(2);
        }
        ensure!(
            (guest.registers.rax, guest.registers.rdx) == (1, 2),
            "{:?}",
            guest.registers
        );
        Ok(())
    }
);

guest_code!(
    bases:
    // The kernel's GS base, GS base, FS base.
    "mov ecx, 0xc0000102",
    "2: mov eax, ecx",
    "mov edx, 0xffff8000",
    "wrmsr",
    "dec ecx",
    "cmp ecx, 0xc0000100",
    "jae 2b",
    "swapgs",
    "vmmcall",
    "mov ecx, 0xc0000101",
    "rdmsr",
    "vmmcall",
);

guest_test!(
    fn bases_of_fs_and_gs_are_the_guests_own<V>() -> Result<(), String> {
        let before = host_bases();
        let mut guest = Guest::<V>::new(bases())?;
        for _ in 0..2 {
            expect_exit!(guest, Exit::Hypercall { user: false, len: 3 });
            ensure!(
                host_bases() == before,
                "the host's are {:x?} instead of {before:x?}",
                host_bases()
            );
            guest.skip(3);
        }
        let state = V::save(&mut guest.vcpu);
        let seen = [state.fs.base, state.gs.base, state.kernel_gs_base].map(|base| base as u32);
        ensure!(
            seen == [0xc000_0100, 0xc000_0102, 0xc000_0101],
            "the guest's are {seen:x?}"
        );
        let read = (guest.registers.rdx << 32) + guest.registers.rax;
        ensure!(read == 0xffff_8000_c000_0102, "GS base reads {read:#x}");
        Ok(())
    }
);

/// The host's own: STAR, LSTAR, CSTAR, SFMASK, and the bases of FS, GS and the other GS.
fn host_bases() -> [u64; 7] {
    let numbers = [
        0xc000_0081,
        0xc000_0082,
        0xc000_0083,
        0xc000_0084,
        0xc000_0100,
        0xc000_0101,
        0xc000_0102,
    ];
    numbers.map(|number| {
        // SAFETY: every CPU in 64-bit mode has these; reading them changes nothing.
        unsafe { Msr::new(number).read() }
    })
}

guest_code!(
    calls:
    "vmmcall",
    // To privilege level 3, where only the flat segments of the state are needed: by SYSRET.
    "lea rcx, [rip + 2f]",
    "mov r11, 2",
    "sysretq",
    "2:",
    "vmmcall",
);

guest_test!(
    fn hypercalls_come_from_both_levels<V>() -> Result<(), String> {
        let mut guest = Guest::<V>::new(calls())?;
        for page in [super::CODE, super::STACK] {
            guest.let_users_in(page);
        }
        let mut state = V::save(&mut guest.vcpu);
        // SCE, and the selectors that SYSRET goes to.
        state.efer |= 1;
        state.star = 0x10 << 48;
        V::load(&mut guest.vcpu, &state);
        expect_exit!(guest, Exit::Hypercall { user: false, len: 3 });
        guest.skip(3);
        expect_exit!(guest, Exit::Hypercall { user: true, len: 3 });
        let state = V::save(&mut guest.vcpu);
        ensure!(
            state.ss.rights >> 5 & 3 == 3 && state.cs.selector == 0x23,
            "in user mode with {:x?} and {:x?}",
            state.ss,
            state.cs
        );
        Ok(())
    }
);

guest_code!(
    change_registers:
    "add rax, 1",
    "add rbx, 2",
    "add rcx, 3",
    "add rdx, 4",
    "add rsi, 5",
    "add rdi, 6",
    "add rbp, 7",
    "add r8, 8",
    "add r9, 9",
    "add r10, 10",
    "add r11, 11",
    "add r12, 12",
    "add r13, 13",
    "add r14, 14",
    "add r15, 15",
    "add rsp, 16",
    "stc",
    "std",
    "vmmcall",
);

guest_test!(
    fn every_register_goes_in_and_comes_back<V>() -> Result<(), String> {
        const BASE: u64 = 0xfedc_ba98_0000_0000;
        let registers = |add: u64, rip, rsp, rflags| Registers {
            rax: BASE + 0x100 + add,
            rbx: BASE + 0x200 + 2 * add,
            rcx: BASE + 0x300 + 3 * add,
            rdx: BASE + 0x400 + 4 * add,
            rsi: BASE + 0x500 + 5 * add,
            rdi: BASE + 0x600 + 6 * add,
            rbp: BASE + 0x700 + 7 * add,
            r8: BASE + 0x800 + 8 * add,
            r9: BASE + 0x900 + 9 * add,
            r10: BASE + 0xa00 + 10 * add,
            r11: BASE + 0xb00 + 11 * add,
            r12: BASE + 0xc00 + 12 * add,
            r13: BASE + 0xd00 + 13 * add,
            r14: BASE + 0xe00 + 14 * add,
            r15: BASE + 0xf00 + 15 * add,
            rsp,
            rip,
            rflags,
        };
        let code = change_registers();
        let end = CODE + code.len() as u64 - 3;
        let mut guest = Guest::<V>::new(code)?;
        let top = guest.registers.rsp;
        guest.registers = registers(0, CODE, top - 16, FLAGS);
        expect_exit!(guest, Exit::Hypercall { user: false, len: 3 });
        // CF, DF; and AF, which the last addition left clear, as PF, ZF and SF.
        let flags = guest.registers.rflags & 0xcd5;
        ensure!(
            flags & 0x401 == 0x401,
            "flags {flags:#x}: carry and direction were set"
        );
        let expected = registers(1, end, top, guest.registers.rflags);
        ensure!(
            guest.registers == expected,
            "{:?} instead of {expected:?}",
            guest.registers
        );
        Ok(())
    }
);

guest_code!(triple_fault: "ud2");

guest_test!(
    fn triple_fault_is_a_shutdown<V>() -> Result<(), String> {
        let mut guest = Guest::<V>::new(triple_fault())?;
        expect_exit!(guest, Exit::Shutdown);
        Ok(())
    }
);

guest_code!(write_back: "wbinvd");
guest_code!(debug_register: "mov rax, dr0");
guest_code!(counter: "xor ecx, ecx", "rdpmc");
guest_code!(priority: "mov eax, 15", "mov cr8, rax");
// Bit 18: OSXSAVE. Not every CPU stops a guest right there.
guest_code!(extended: "mov rax, cr4", "bts rax, 18", "mov cr4, rax", "2: jmp 2b");

guest_test!(
    fn instructions_that_nobody_emulates_are_named<V>() -> Result<(), String> {
        for (code, name) in [
            (write_back as fn() -> &'static [u8], "WBINVD"),
            (debug_register, "MOV DR"),
            (counter, "RDPMC"),
            (priority, "MOV to CR8"),
            (extended, "MOV to CR4"),
        ] {
            let mut guest = Guest::<V>::new(code())?;
            expect_exit!(guest, Exit::Privileged(name));
        }
        Ok(())
    }
);

guest_test!(
    fn state_that_no_cpu_takes_is_refused<V>() -> Result<(), String> {
        let mut guest = Guest::<V>::new(halts())?;
        let good = V::save(&mut guest.vcpu);
        let mut bad = good;
        // Paging without protection.
        bad.cr0 &= !1;
        V::load(&mut guest.vcpu, &bad);
        expect_exit!(guest, Exit::EntryRefused);
        V::load(&mut guest.vcpu, &good);
        expect_exit!(guest, Exit::Halt { len: 1 });
        Ok(())
    }
);
