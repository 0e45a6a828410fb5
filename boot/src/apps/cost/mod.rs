//! `cost`: what the bare path of a delegated fault costs.
//!
//! A task touches pages that nobody has touched, and the clock is read right before and right after each touch. The
//! source is a page in memory and the monitor a kernel task, so nothing is measured but the kernel. Under QEMU's icount a
//! tick of the clock is an instruction and two runs print the same figures; the two reads themselves are in every figure
//! (row "clock").
//!
//! Beside the medians stand a budget and Linux's figures: the same operation by a user process and a monitor thread on
//! Debian's Linux 6.12 in QEMU under icount; "lean" is without mitigations, security module, memory cgroups and audit.

use alloc::format;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kernel::lab::samples::{Samples, Summary};
use kernel::mm::space::{Privilege, Space};
use kernel::task::spawn::spawn_returning;
use kernel::trace::cmdline::Cmdline;
use kernel::trace::record::{Report, Table};

use self::bench::{Bench, CostError};
use super::{App, AppError, AppResult, Done, System, app};

mod bench;

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

/// One measurement.
struct Case {
    name: &'static str,
    run: fn(&Bench) -> Result<Samples, CostError>,
    /// Budget, Linux, lean Linux, where there is something to compare with.
    beside: Option<[u64; 3]>,
}

const CASES: &[Case] = &[
    Case {
        name: "clock",
        run: Bench::clock,
        beside: None,
    },
    Case {
        name: "present page, load",
        run: Bench::present,
        beside: None,
    },
    Case {
        name: "first touch, load",
        run: Bench::demand_load,
        beside: None,
    },
    Case {
        name: "first touch, store",
        run: Bench::demand_store,
        beside: Some([900, 3194, 2891]),
    },
    Case {
        name: "MISSING + ZEROPAGE, load",
        run: Bench::missing_zeropage,
        beside: Some([1100, 11741, 10625]),
    },
    Case {
        name: "MISSING + COPY, load",
        run: Bench::missing_copy_load,
        beside: None,
    },
    Case {
        name: "MISSING + COPY, store",
        run: Bench::missing_copy_store,
        beside: Some([1200, 15849, 13792]),
    },
    Case {
        name: "WP fault + clear, store",
        run: Bench::write_protected,
        beside: Some([500, 12408, 11163]),
    },
    Case {
        name: "COPY, 1 page a call",
        run: |bench| bench.bulk_copy(1),
        beside: None,
    },
    Case {
        name: "COPY, 64 pages a call, per page",
        run: |bench| bench.bulk_copy(64),
        beside: None,
    },
    Case {
        name: "COPY, 512 pages a call, per page",
        run: |bench| bench.bulk_copy(512),
        beside: Some([620, 3042, 2249]),
    },
    Case {
        name: "ZEROPAGE, 512 pages a call, per page",
        run: |bench| bench.bulk_zeropage(512),
        beside: None,
    },
    Case {
        name: "WRITEPROTECT, 512 pages a call, per page",
        run: |bench| bench.bulk_protect(512),
        beside: Some([15, 150, 150]),
    },
    Case {
        name: "WRITEPROTECT ends, 512 pages a call, per page",
        run: |bench| bench.bulk_unprotect(512),
        beside: None,
    },
    Case {
        name: "MOVE, 1 page a call",
        run: |bench| bench.bulk_move(1),
        beside: None,
    },
    Case {
        name: "MOVE, 64 pages a call, per page",
        run: |bench| bench.bulk_move(64),
        beside: None,
    },
    Case {
        name: "MOVE, 512 pages a call, per page",
        run: |bench| bench.bulk_move(512),
        beside: None,
    },
];

fn run(cmdline: &Cmdline<'static>, _: &'static System) -> AppResult {
    cmdline.allow(&["pages"])?;
    let pages = cmdline.number("pages", 1, MAX_PAGES)?.unwrap_or(PAGES);
    let unit = if cmdline.flag("icount")? {
        "instructions"
    } else {
        "TSC ticks"
    };

    let space = Space::new(Privilege::Kernel).map_err(AppError::failed)?;
    let bench = Bench::new(&space, pages);
    let task = spawn_returning("toucher", Some(Arc::clone(&space)), move || measure(&bench));
    let joined = task.map_err(AppError::failed)?.join();
    let results =
        joined.map_err(|outcome| AppError::Failed(format!("the measuring task ended: {outcome:?}")))?;

    let mut report = Report {
        app: "cost".into(),
        ..Report::default()
    };
    report.options.push(("pages".into(), pages.to_string()));
    report.figure("pages a measurement", pages, "pages");
    let mut all = Table::new("touch to next instruction", unit, &Summary::COLUMNS);
    let mut beside = Table::new("medians", unit, &["here", "budget", "Linux 6.12", "lean Linux"]);
    for (case, result) in results {
        match result.map(Samples::summary) {
            Ok(Some(summary)) => {
                all.row(case.name, &summary.row());
                if let Some([budget, linux, lean]) = case.beside {
                    beside.row(case.name, &[summary.p50, budget, linux, lean]);
                }
            }
            Ok(None) => report
                .failures
                .push(format!("{}: nothing was measured", case.name)),
            Err(error) => report.failures.push(format!("{}: {error}", case.name)),
        }
    }
    report.tables.extend([all, beside]);
    let message = format!("{} operations measured on {pages} pages each", CASES.len());
    Ok(Done { report, message })
}

fn measure(bench: &Bench) -> Vec<(&'static Case, Result<Samples, CostError>)> {
    CASES.iter().map(|case| (case, (case.run)(bench))).collect()
}
