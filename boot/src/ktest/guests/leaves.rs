//! Stage-2 leaves of every size, and what the CPU notes in them.

use alloc::string::String;

use hv::exit::Exit;
use hv::stage2::caps;
use hv::vendor::Vendor;
use kernel::mm::addr::{GuestPhysAddr, PAGE_SIZE, Pfn};
use kernel::mm::frame::{Frame, KernelData, ORDER_2M};
use kernel::mm::phys;
use kernel::mm::pt::{AttrFlags, Entry, Level, Prot};

use super::{DATA, Guest, expect_exit, guest_code, guest_test};
use crate::ensure;
use crate::ktest::common::text;

guest_code!(
    copies_up:
    "mov rax, [rbx]",
    "vmmcall",
    "mov [rbx + 8], rax",
    "vmmcall",
);

/// Behind everything that the guest has in its first 2 MiB.
const LARGE: u64 = 4 << 20;
const HUGE: u64 = 1 << 30;

guest_test!(
    fn large_leaf_is_one_translation<V>() -> Result<(), String> {
        // Not at the beginning: the offset has to come from the address.
        const OFFSET: u64 = 0x12_3000;
        let mut block = Frame::<KernelData>::alloc_order(ORDER_2M).map_err(text)?;
        phys::bytes_mut(&mut block)[OFFSET as usize..][..16].copy_from_slice(&[0x5a; 16]);
        let mut guest = Guest::<V>::new(copies_up())?;
        guest.map_leaf(Level::MID, LARGE, block.pfn(), Prot::READ | Prot::WRITE)?;
        guest.point_to(DATA, LARGE + OFFSET);
        guest.registers.rbx = DATA;
        expect_exit!(guest, Exit::Hypercall { user: false, len: 3 });
        ensure!(
            guest.registers.rax == 0x5a5a_5a5a_5a5a_5a5a,
            "read {:#x}",
            guest.registers.rax
        );
        guest.registers.rax = 7;
        guest.skip(3);
        expect_exit!(guest, Exit::Hypercall { user: false, len: 3 });
        let written = &phys::bytes(&block)[OFFSET as usize + 8..][..8];
        ensure!(written == 7u64.to_le_bytes(), "wrote {written:?}");
        Ok(())
    }
);

guest_test!(
    fn huge_leaf_is_one_translation_where_the_cpu_has_them<V>() -> Result<(), String> {
        let mut frame = Frame::<KernelData>::alloc_zeroed().map_err(text)?;
        phys::fill(&mut frame, &0xb16_b00_u64.to_le_bytes());
        let mut guest = Guest::<V>::new(copies_up())?;
        if !caps().leaves_1g {
            return Ok(());
        }
        // The machine's own GiB that holds the frame, to be read.
        let frames = Level::UPPER.frames();
        let first = frame.pfn().as_u64() / frames * frames;
        guest.map_leaf(Level::UPPER, HUGE, Pfn::new(first), Prot::READ)?;
        guest.point_to(DATA, HUGE + (frame.pfn().as_u64() - first) * PAGE_SIZE);
        guest.registers.rbx = DATA;
        expect_exit!(guest, Exit::Hypercall { user: false, len: 3 });
        ensure!(
            guest.registers.rax == 0xb16_b00,
            "read {:#x}",
            guest.registers.rax
        );
        guest.skip(3);
        let stopped = guest.run();
        let Exit::Violation(violation) = stopped.exit else {
            return Err(alloc::format!("{:?} ({})", stopped.exit, stopped.raw));
        };
        ensure!(violation.present, "{violation:?}");
        Ok(())
    }
);

guest_test!(
    fn cpu_notes_what_was_used_and_what_was_written<V>() -> Result<(), String> {
        let features = V::enable().map_err(text)?;
        if !features.accessed_dirty {
            return Ok(());
        }
        let mut guest = Guest::<V>::new(copies_up())?;
        guest.registers.rbx = DATA;
        let noted = AttrFlags::ACCESSED | AttrFlags::DIRTY;
        ensure!(
            guest.flags(DATA)? & noted == AttrFlags::empty(),
            "{:?} before its first use",
            guest.flags(DATA)?
        );
        expect_exit!(guest, Exit::Hypercall { user: false, len: 3 });
        let read = guest.flags(DATA)? & noted;
        ensure!(read == AttrFlags::ACCESSED, "{read:?} after a load");
        guest.skip(3);
        expect_exit!(guest, Exit::Hypercall { user: false, len: 3 });
        let written = guest.flags(DATA)? & noted;
        ensure!(written == noted, "{written:?} after a store");
        Ok(())
    }
);

impl<V: Vendor> Guest<V> {
    /// What the stage-2 leaf of a page says besides its rights.
    fn flags(&self, at: u64) -> Result<AttrFlags, String> {
        match self.stage2.lookup(GuestPhysAddr::new(at)) {
            (Entry::Leaf(leaf), _) => Ok(leaf.attr.flags),
            other => Err(text(other)),
        }
    }
}
