//! `info`: what the machine is.

use alloc::format;

use kernel::arch::{Clock, Machine};
use kernel::bootinfo::RegionKind;
use kernel::drivers::block::{BlockDevice, SECTOR};
use kernel::mm::frame;
use kernel::println;
use kernel::trace::cmdline::Cmdline;
use kernel::trace::record::{Report, Table};

use super::{App, AppResult, Done, System, app};

app!(
    INFO = App {
        name: "info",
        summary: "print what the machine is: memory, PCI functions, disks, ramdisk",
        run,
    }
);

fn run(cmdline: &Cmdline<'static>, system: &'static System) -> AppResult {
    cmdline.allow(&[])?;
    let mut report = Report {
        app: "info".into(),
        ..Report::default()
    };
    let stats = frame::allocator().stats();
    report.figure("usable memory", system.info.usable(), "bytes");
    report.figure("frames managed", stats.managed, "frames");
    report.figure("frames free", stats.free, "frames");
    let huge = frame::allocator().huge_pages();
    report.figure("huge pages set aside", huge.total, "pages");
    report.figure("clock", Machine::frequency(), "ticks/s");
    report.figure("PCI functions", system.functions.len() as u64, "functions");
    report.figure("disks", system.disks.len() as u64, "disks");
    report.tables.push(memory_map(system));
    report.tables.push(disks(system));
    report.tables.push(ramdisk(system));

    for function in &system.functions {
        println!("pci {function}");
        for bar in function.bars() {
            println!("      {bar}");
        }
    }
    let message = format!("started through {:?}", system.info.door);
    Ok(Done { report, message })
}

fn memory_map(system: &System) -> Table {
    let mut table = Table::new("memory map", "bytes", &["start", "length"]);
    for region in &system.info.memory {
        let kind = match region.kind {
            RegionKind::Usable => "usable",
            RegionKind::Reserved => "reserved",
            RegionKind::Other => "not RAM",
        };
        table.row(kind, &[region.start.as_u64(), region.end - region.start]);
    }
    table
}

fn disks(system: &System) -> Table {
    let mut table = Table::new("disks", "bytes", &["capacity"]);
    for disk in &system.disks {
        table.row(
            &format!("virtio disk at {}", disk.function().at),
            &[disk.capacity_sectors() * SECTOR as u64],
        );
    }
    table
}

fn ramdisk(system: &System) -> Table {
    let mut table = Table::new("ramdisk", "bytes", &["size"]);
    for file in system.ramdisk.files() {
        table.row(file.name, &[file.data.len() as u64]);
    }
    table
}
