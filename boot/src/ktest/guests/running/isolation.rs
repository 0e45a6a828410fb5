//! What one guest leaves behind is not there for another one, and nothing of the host is there for any.

use alloc::format;
use alloc::string::String;

use hv::state::Registers;
use hv::vcpu::{Fatal, Stop};
use hv::vendor::Vendor;
use kernel::mm::addr::{GuestPhysAddr, PAGE_SIZE};
use kernel::mm::pt::Entry;
use kernel::mm::uaccess;
use kernel::task::yield_now;

use super::super::{guest_code, guest_test};
use super::{Host, OWN, REGION, next_mark, reads_for_ever, run, stores, vcpu_of};
use crate::ensure;
use crate::ktest::common::{joined, map_pages, task, text};

guest_code! {
    /// Tells what XMM15 is, then fills it with RCX, for ever.
    fills_vector_registers:
    "2: movq rdi, xmm15",
    "mov eax, 0x464c0001",
    "vmmcall",
    "movq xmm15, rcx",
    "jmp 2b",
}

guest_code! {
    /// Stores a word in every page that its tables reach, from RBX on, in steps of RCX.
    stores_everywhere:
    "2: mov [rbx], rbx",
    "add rbx, rcx",
    "jmp 2b",
}

guest_test!(
    fn vector_registers_are_each_guests_own<V>() -> Result<(), String> {
        let host = Host::<V>::new(fills_vector_registers())?;
        let with = |rcx| {
            host.vcpu(Registers {
                rcx,
                ..Registers::default()
            })
        };
        let (mut one, mut other) = (with(0x1111)?, with(0x2222)?);
        ensure!(
            next_mark(&mut one)? == 0,
            "the first guest does not begin with zeros"
        );
        ensure!(next_mark(&mut one)? == 0x1111, "its own value is gone");
        let found = next_mark(&mut other)?;
        ensure!(found == 0, "the second guest begins with {found:#x}");
        for _ in 0..3 {
            let found = next_mark(&mut other)?;
            ensure!(found == 0x2222, "the second guest finds {found:#x}");
            let found = next_mark(&mut one)?;
            ensure!(found == 0x1111, "the first guest finds {found:#x}");
        }
        drop(one);
        // A new one, perhaps where an old one was.
        let mut third = with(0x3333)?;
        let found = next_mark(&mut third)?;
        ensure!(found == 0, "the third guest begins with {found:#x}");
        Ok(())
    }
);

guest_test!(
    fn general_registers_are_each_guests_own<V>() -> Result<(), String> {
        let host = Host::<V>::new(stores())?;
        host.show(REGION, map_pages(&host.space, 1)?)?;
        let with = |rcx| {
            host.vcpu(Registers {
                rbx: REGION,
                rcx,
                r15: rcx << 8,
                ..Registers::default()
            })
        };
        let (mut one, mut other) = (with(100)?, with(200)?);
        for step in 0..5 {
            ensure!(
                next_mark(&mut one)? == 100 + step,
                "the first guest's RCX at step {step}"
            );
            ensure!(
                next_mark(&mut other)? == 200 + step,
                "the second guest's RCX at step {step}"
            );
        }
        ensure!(
            one.registers.r15 == 100 << 8 && other.registers.r15 == 200 << 8,
            "R15"
        );
        Ok(())
    }
);

guest_test!(
    fn vcpus_of_one_machine_are_tasks_and_share_its_memory<V>() -> Result<(), String> {
        let host = Host::<V>::new(stores())?;
        let region = map_pages(&host.space, 3)?;
        host.show(REGION, region)?;
        let vm = host.machine();
        let mut tasks = alloc::vec::Vec::new();
        for number in 0..3 {
            let mut vcpu = vcpu_of(
                &vm,
                Registers {
                    rbx: REGION + number * PAGE_SIZE,
                    rcx: number << 32,
                    ..Registers::default()
                },
            )?;
            tasks.push(task(&host.space, move || {
                for step in 0..20 {
                    let found = next_mark(&mut vcpu)?;
                    ensure!(found == (number << 32) + step, "vCPU {number} stored {found:#x}");
                    yield_now();
                }
                Ok(())
            })?);
        }
        for task in tasks {
            joined(task)??;
        }
        let reading = task(&host.space, move || {
            (0..3)
                .map(|number| uaccess::load(region.start + number * PAGE_SIZE))
                .collect::<Result<alloc::vec::Vec<_>, _>>()
        })?;
        let found = joined(reading)?.map_err(text)?;
        let expected: alloc::vec::Vec<u64> = (0..3).map(|number| (number << 32) + 19).collect();
        ensure!(found == expected, "{found:x?} instead of {expected:x?}");
        Ok(())
    }
);

/// Every frame that the guest's tables lead to is one that its slots have at that address.
fn leads_nowhere_else<V: Vendor>(
    host: &Host<V>,
    slots: &[(u64, kernel::mm::range::VirtRange)],
) -> Result<u64, String> {
    let mut leaves = 0;
    // All that 48 bits name, in steps of whatever the tables have there.
    let mut at = GuestPhysAddr::new(0);
    while at.as_u64() < 1 << 48 {
        let (entry, level) = host.memory.stage2().entry(at);
        if let Entry::Leaf(leaf) = entry {
            let inside = slots
                .iter()
                .find(|(start, range)| (*start..*start + range.len()).contains(&at.as_u64()));
            let (start, range) = inside.ok_or_else(|| format!("a leaf at {at}, where no slot is"))?;
            let (backing, _) = host.space.entry(range.start + (at.as_u64() - start));
            let Entry::Leaf(backing) = backing else {
                return Err(format!("a leaf at {at}, behind which the space has {backing:?}"));
            };
            ensure!(
                backing.frame == leaf.frame,
                "{at} leads to {:?}, the space has {:?}",
                leaf.frame,
                backing.frame
            );
            leaves += 1;
        }
        at = at.align_down(level.size()) + level.size();
    }
    Ok(leaves)
}

guest_test!(
    fn guest_reaches_its_slots_and_nothing_else<V>() -> Result<(), String> {
        let host = Host::<V>::new(stores_everywhere())?;
        let region = map_pages(&host.space, 8)?;
        host.show(REGION, region)?;
        let mut vcpu = host.vcpu(Registers {
            rbx: REGION,
            rcx: PAGE_SIZE,
            ..Registers::default()
        })?;
        let behind = GuestPhysAddr::new(REGION + 8 * PAGE_SIZE);
        match run(&mut vcpu) {
            Stop::Broken(broken) => {
                let at_the_end = matches!(broken.why, Fatal::Memory { addr, .. } if addr == behind);
                ensure!(at_the_end, "{broken}");
            }
            stop => return Err(format!("{stop:?}")),
        }
        let own = kernel::mm::range::VirtRange::new(host.own(0), host.own(OWN));
        let leaves = leads_nowhere_else(&host, &[(0, own), (REGION, region)])?;
        ensure!(leaves > 8, "only {leaves} leaves");
        Ok(())
    }
);

guest_test!(
    fn slots_of_a_read_only_area_cannot_be_stored_to<V>() -> Result<(), String> {
        let host = Host::<V>::new(stores())?;
        let region = map_pages(&host.space, 1)?;
        host.show(REGION, region)?;
        host.space
            .protect(region, kernel::mm::pt::Prot::READ)
            .map_err(text)?;
        let mut vcpu = host.vcpu(Registers {
            rbx: REGION,
            ..Registers::default()
        })?;
        match run(&mut vcpu) {
            Stop::Broken(broken) if matches!(broken.why, Fatal::Memory { .. }) => {}
            stop => return Err(format!("{stop:?}")),
        }
        let mut reader = Host::<V>::new(reads_for_ever())?.vcpu(Registers {
            rbx: super::CODE,
            ..Registers::default()
        })?;
        next_mark(&mut reader).map(drop)
    }
);
