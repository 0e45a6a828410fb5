//! `cost`: what the bare path of a delegated fault costs.
//!
//! A task touches pages that nobody has touched, and the clock is read right before and right after each touch. The
//! source is a page in memory and the monitor a kernel task, so nothing is measured but the kernel. Under QEMU's icount a
//! tick of the clock is an instruction and two runs print the same figures; the two reads themselves are in every figure
//! (row "clock").
//!
//! Beside the figures stand a budget and Linux's medians: the same operation by a user process and a monitor thread on
//! Debian's Linux 6.12 in QEMU under icount; "lean" is without mitigations, security module, memory cgroups and audit.
//!
//! | file | what |
//! | --- | --- |
//! | `rows` | what is measured, on which memory: a line each |
//! | `operation` | the operations of the channel, and what they find |
//! | `bench` | regions, monitors, handlers, and the clock |
//! | `guest` | the same for a guest: what stage 2 costs |

use alloc::format;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Display;

use hv::vendor::Vendor;
use kernel::lab::samples::Samples;
use kernel::mm::frame::allocator;
use kernel::mm::space::{Privilege, Space};
use kernel::println;
use kernel::task::spawn::spawn_returning;
use kernel::trace::cmdline::Cmdline;
use kernel::trace::record::{Report, Table};

use self::bench::{Bench, CostError, HUGE_PAGES};
use self::guest::GuestCostError;
use self::rows::{Row, rows};
use super::guest::{Job, on_this_cpu};
use super::{App, AppError, AppResult, Done, System, app};

mod bench;
mod guest;
mod operation;
mod rows;

app!(
    COST = App {
        name: "cost",
        summary: "measure a delegated fault from the touch to the next instruction (pages=N)",
        run,
    }
);

/// Pages of each measurement unless `pages=` says otherwise.
const PAGES: u64 = 1024;
/// Most pages of a measurement.
const MAX_PAGES: u64 = 1 << 20;
/// The medians are what counts; the columns beside them say what they may cost and what Linux pays.
const COLUMNS: [&str; 7] = ["min", "p50", "p99", "max", "budget", "Linux", "lean"];

fn run(cmdline: &Cmdline<'static>, _: &'static System) -> AppResult {
    cmdline.allow(&["pages"])?;
    let pages = cmdline.number("pages", 1, MAX_PAGES)?.unwrap_or(PAGES);
    let unit = if cmdline.flag("icount")? {
        "instructions"
    } else {
        "TSC ticks"
    };

    allocator().reserve_huge(HUGE_PAGES).map_err(|_| {
        AppError::Failed(format!(
            "there is no room for {HUGE_PAGES} huge pages; give the machine more memory"
        ))
    })?;
    let space = Space::new(Privilege::Kernel).map_err(AppError::failed)?;
    let bench = Bench::new(&space, pages);
    let task = spawn_returning("toucher", Some(Arc::clone(&space)), move || measure(&bench));
    let joined = task.map_err(AppError::failed)?.join();
    let results =
        joined.map_err(|outcome| AppError::Failed(format!("the measuring task ended: {outcome:?}")))?;

    allocator().release_huge(HUGE_PAGES);
    let mut report = Report {
        app: "cost".into(),
        ..Report::default()
    };
    report.options.push(("pages".into(), pages.to_string()));
    report.figure("pages a measurement", pages, "pages");
    let count = results.len();
    let mut table = Table::new("touch to next instruction", unit, &COLUMNS);
    for (row, result) in results {
        add(&mut report, &mut table, &row.name, row.budget, row.linux, result);
    }
    report.tables.push(table);
    let count = count + measure_guests(pages, unit, &mut report);
    let message = format!("{count} operations measured");
    Ok(Done { report, message })
}

/// Measures stage 2, if this CPU runs guests; comes to how many rows there are.
fn measure_guests(pages: u64, unit: &str, report: &mut Report) -> usize {
    type Measured = (&'static guest::Row, Result<Samples, GuestCostError>);
    struct Rows(u64);
    impl Job for Rows {
        type Out = (&'static str, Vec<Measured>);

        fn run<V: Vendor>(self, features: &hv::vendor::Features) -> Self::Out {
            let measured =
                guest::rows(features).map(|row| (row, guest::measure::<V>(features, row.scene, self.0)));
            (V::NAME, measured.collect())
        }
    }
    let pages = pages.min(guest::MAX_PAGES);
    let (vendor, results) = match on_this_cpu(Rows(pages)) {
        Ok(measured) => measured,
        Err(why) => {
            let (AppError::Usage(why) | AppError::Failed(why) | AppError::Unsupported(why)) = why;
            println!("stage 2 is not measured: {why}");
            return 0;
        }
    };
    let title = format!("a guest's touch to its next instruction ({vendor})");
    let mut table = Table::new(&title, unit, &COLUMNS);
    let count = results.len();
    for (row, result) in results {
        add(report, &mut table, row.name, row.budget, row.linux, result);
    }
    report.tables.push(table);
    count
}

/// Adds what a row came to.
fn add(
    report: &mut Report,
    table: &mut Table,
    name: &str,
    budget: Option<u64>,
    linux: Option<[u64; 2]>,
    result: Result<Samples, impl Display>,
) {
    match result.map(Samples::summary) {
        Ok(Some(summary)) => {
            let [full, lean] = linux.map_or([None; 2], |linux| linux.map(Some));
            let here = [summary.min, summary.p50, summary.p99, summary.max].map(Some);
            table.sparse_row(name, &[&here[..], &[budget, full, lean]].concat());
        }
        Ok(None) => report.failures.push(format!("{name}: nothing was measured")),
        Err(error) => report.failures.push(format!("{name}: {error}")),
    }
}

/// What a row came to.
type Measured = (Row, Result<Samples, CostError>);

fn measure(bench: &Bench) -> Vec<Measured> {
    let measured = |row: Row| {
        let result = (row.run)(bench);
        (row, result)
    };
    rows().into_iter().map(measured).collect()
}
