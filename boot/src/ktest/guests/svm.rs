//! What only AMD's guests can try.

use alloc::string::String;

use hv::exit::Exit;
use hv::svm::Svm;
use hv::vendor::Vendor;

use super::{Guest, Kind, expect_exit, guest_code, kind};
use crate::{ensure, kernel_test};

guest_code!(runs: "mov eax, 0x1000", "vmrun rax");
guest_code!(loads: "mov eax, 0x1000", "vmload rax");
guest_code!(saves: "mov eax, 0x1000", "vmsave rax");
guest_code!(lets_interrupts_in: "stgi");
guest_code!(keeps_interrupts_out: "clgi");
guest_code!(invalidates: "xor eax, eax", "mov ecx, 1", "invlpga rax, ecx");

kernel_test!(
    fn guests_do_not_control_the_cpus_virtualisation() -> Result<(), String> {
        if !matches!(kind(), Some(Kind::Svm)) {
            return Ok(());
        }
        for (code, name) in [
            (runs as fn() -> &'static [u8], "VMRUN"),
            (loads, "VMLOAD"),
            (saves, "VMSAVE"),
            (lets_interrupts_in, "STGI"),
            (keeps_interrupts_out, "CLGI"),
            (invalidates, "INVLPGA"),
        ] {
            let mut guest = Guest::<Svm>::new(code())?;
            let state = Svm::save(&mut guest.vcpu);
            ensure!(state.efer & 1 << 12 == 0, "{name}: guests see EFER.SVME");
            expect_exit!(guest, Exit::Privileged(name));
        }
        Ok(())
    }
);
