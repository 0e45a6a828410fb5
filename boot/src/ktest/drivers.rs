//! The drivers on the machine's own devices.
#![expect(
    unsafe_code,
    reason = "plays the part of virtio-drivers towards its hardware interface"
)]

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::ptr::NonNull;
use core::slice;

use kernel::arch::{Machine, Memory};
use kernel::drivers::block::{BlockDevice, BlockError, SECTOR};
use kernel::drivers::pci;
use kernel::drivers::virtio::hal::{BufferDirection, Hal, Kernel};
use kernel::mm::addr::PhysAddr;
use kernel::mm::frame::{Dma, Frame};
use kernel::mm::phys;

use crate::apps::system;
use crate::{ensure, kernel_test};

kernel_test!(
    fn pci_scan_finds_the_host_bridge_and_no_function_twice() -> Result<(), String> {
        let functions = &system().functions;
        ensure!(
            functions
                .iter()
                .any(|f| f.info.class == 6 && f.info.subclass == 0),
            "no host bridge among {functions:?}"
        );
        for (index, function) in functions.iter().enumerate() {
            let twice = functions[..index].iter().any(|other| other.at == function.at);
            ensure!(!twice, "{function} is listed twice");
        }
        Ok(())
    }
);

kernel_test!(
    fn pci_sizing_leaves_base_addresses_as_they_were() -> Result<(), String> {
        for function in system().functions.iter().filter(|f| f.info.class != 6) {
            let (first, second) = (function.bars(), function.bars());
            ensure!(first == second, "{function}: {first:?}, then {second:?}");
        }
        let here = pci::scan().len();
        ensure!(
            here == system().functions.len(),
            "{here} functions now, {} before",
            system().functions.len()
        );
        Ok(())
    }
);

kernel_test!(
    fn disk_reads_the_same_however_it_is_cut() -> Result<(), String> {
        let Some(disk) = system().disks.first() else {
            return Ok(());
        };
        let sectors = disk.capacity_sectors().min(1024) as usize;
        let mut whole = vec![0; sectors * SECTOR];
        disk.read(0, &mut whole).map_err(|error| error.to_string())?;
        for step in [1, 7, 8, 255, 300] {
            let mut pieces = vec![0xaa; whole.len()];
            for (index, piece) in pieces.chunks_mut(step * SECTOR).enumerate() {
                disk.read((index * step) as u64, piece)
                    .map_err(|error| error.to_string())?;
            }
            ensure!(
                pieces == whole,
                "read in steps of {step} sectors the content differs"
            );
        }
        Ok(())
    }
);

kernel_test!(
    fn disk_refuses_what_lies_past_its_end() -> Result<(), String> {
        let Some(disk) = system().disks.first() else {
            return Ok(());
        };
        let capacity = disk.capacity_sectors();
        let refused = disk.read(capacity, &mut vec![0; SECTOR]);
        let expected = Err(BlockError::BeyondEnd {
            sector: capacity,
            count: 1,
            capacity,
        });
        ensure!(refused == expected, "{refused:?}");
        let refused = disk.read(0, &mut [0; 100]);
        ensure!(
            refused == Err(BlockError::PartialSector { bytes: 100 }),
            "{refused:?}"
        );
        Ok(())
    }
);

kernel_test!(
    fn disk_serves_several_readers_at_once() -> Result<(), String> {
        let Some(disk) = system().disks.first() else {
            return Ok(());
        };
        let sectors = disk.capacity_sectors().min(4096);
        let mut readers = Vec::new();
        for reader in 0..6 {
            let job = move || -> Result<Vec<u8>, BlockError> {
                let mut all = Vec::new();
                for sector in (0..sectors).skip(reader).step_by(97) {
                    let mut buffer = [0; SECTOR];
                    disk.read(sector, &mut buffer)?;
                    all.extend(buffer);
                }
                Ok(all)
            };
            let task = kernel::task::spawn::spawn_returning("reader", None, job)
                .map_err(|error| error.to_string())?;
            readers.push((reader, task));
        }
        let mut whole = vec![0; sectors as usize * SECTOR];
        disk.read(0, &mut whole).map_err(|error| error.to_string())?;
        for (reader, task) in readers {
            let read = task
                .join()
                .map_err(|outcome| format!("{outcome:?}"))?
                .map_err(|error| error.to_string())?;
            let expected: Vec<u8> = whole
                .chunks_exact(SECTOR)
                .skip(reader)
                .step_by(97)
                .flatten()
                .copied()
                .collect();
            ensure!(read == expected, "reader {reader} got something else");
        }
        Ok(())
    }
);

kernel_test!(
    fn buffer_outside_the_direct_map_is_lent_as_a_copy() -> Result<(), String> {
        let mut buffer = vec![7u8; 5000];
        let shared = NonNull::from(buffer.as_mut_slice());
        // SAFETY: the buffer is valid and nobody else touches it.
        let at = unsafe { Kernel::share(shared, BufferDirection::Both) };
        let copy = Machine::direct_map(PhysAddr::new(at));
        // SAFETY: the copy is at least as long as the buffer and lies in the direct map until `unshare`.
        let lent = unsafe { slice::from_raw_parts_mut(copy, buffer.len()) };
        ensure!(lent == [7; 5000], "the device would see something else");
        lent.fill(9);
        ensure!(buffer == [7; 5000], "the buffer changed while it was lent");
        // SAFETY: as for `share`, with the address that it returned.
        unsafe { Kernel::unshare(at, shared, BufferDirection::Both) };
        ensure!(buffer == [9; 5000], "what the device wrote did not arrive");
        Ok(())
    }
);

kernel_test!(
    fn buffer_in_the_direct_map_is_lent_as_it_is() -> Result<(), String> {
        let mut frame = Frame::<Dma>::alloc().map_err(|error| error.to_string())?;
        let shared = NonNull::from(phys::bytes_mut(&mut frame));
        // SAFETY: the frame is ours and nobody else touches it.
        let at = unsafe { Kernel::share(shared, BufferDirection::DeviceToDriver) };
        ensure!(
            at == frame.pfn().start().as_u64(),
            "lent at {at:#x}, the frame is {:?}",
            frame.pfn()
        );
        // SAFETY: as for `share`, with the address that it returned.
        unsafe { Kernel::unshare(at, shared, BufferDirection::DeviceToDriver) };
        Ok(())
    }
);
