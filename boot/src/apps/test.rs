//! `test` and `test-list`: the tests that run inside the image.
//!
//! A test is a function registered with [`kernel_test!`](crate::ktest). Each runs in a task of its own, one after the
//! other, in the order of their names, and is announced before it starts, so that a test that panics or hangs is known by
//! name. After each the frames in use are compared with those before: a test that passes and leaks has failed.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use kernel::arch::{Clock, Machine};
use kernel::mm::frame::{self, Kind, Stats};
use kernel::println;
use kernel::task::spawn;
use kernel::trace::cmdline::Cmdline;
use kernel::trace::emit;
use kernel::trace::record::{Record, Report};

use super::{App, AppError, AppResult, Done, System, app};
use crate::ktest::{KERNEL_TESTS, KernelTest, guests};

app!(
    TEST = App {
        name: "test",
        summary: "run the tests of the image (filter=PART skip=NAME,NAME)",
        run,
    }
);

app!(
    LIST = App {
        name: "test-list",
        summary: "name the tests of the image (filter=PART skip=NAME,NAME)",
        run: list,
    }
);

/// Kinds of frames that a test gives back. Only the heap keeps what it has grown to, and the nodes that map that.
const COUNTED: [Kind; 5] = [Kind::Table, Kind::Anon, Kind::Stack, Kind::Dma, Kind::KernelData];

/// Pages that one node of the kernel's tables maps.
const ENTRIES_OF_A_NODE: u64 = 512;

/// The tests that the command line asks for, by name.
fn selected(cmdline: &Cmdline<'static>) -> Result<Vec<&'static KernelTest>, AppError> {
    cmdline.allow(&["filter", "skip"])?;
    let filter = cmdline.get("filter").unwrap_or_default();
    let skip = cmdline.get("skip").unwrap_or_default();
    let skipped = |name: &str| skip.split(',').any(|other| other == name);
    let mut tests: Vec<&KernelTest> = KERNEL_TESTS
        .iter()
        .filter(|test| test.name().contains(filter) && !skipped(test.name()))
        .collect();
    tests.sort_by_key(|test| test.name());
    Ok(tests)
}

fn list(cmdline: &Cmdline<'static>, _: &'static System) -> AppResult {
    let tests = selected(cmdline)?;
    for test in &tests {
        println!("{}", test.name());
        emit(&Record::TestKnown {
            name: test.name().into(),
        });
    }
    let message = format!("{} tests", tests.len());
    Ok(Done {
        report: Report {
            app: "test-list".into(),
            ..Report::default()
        },
        message,
    })
}

fn run(cmdline: &Cmdline<'static>, _: &'static System) -> AppResult {
    let tests = selected(cmdline)?;
    let mut report = Report {
        app: "test".into(),
        ..Report::default()
    };
    // The CPU keeps the frames that it needs to run guests: they are no test's.
    guests::prepare();
    for test in &tests {
        let name = test.name();
        emit(&Record::TestBegin { name: name.into() });
        let start = Machine::ticks();
        let failure = run_one(test);
        let ticks = Machine::ticks() - start;
        println!(
            "test {name} ... {}",
            if failure.is_none() { "ok" } else { "FAILED" }
        );
        if let Some(failure) = &failure {
            println!("     {failure}");
            report.failures.push(format!("{name}: {failure}"));
        }
        emit(&Record::TestEnd {
            name: name.into(),
            failure,
            ticks,
        });
    }
    let failed = report.failures.len();
    report.figure("passed", (tests.len() - failed) as u64, "tests");
    report.figure("failed", failed as u64, "tests");
    Ok(Done {
        report,
        message: format!("{} tests passed", tests.len()),
    })
}

/// Runs a test in a task of its own; says why it failed.
fn run_one(test: &'static KernelTest) -> Option<String> {
    let before = frame::allocator().stats();
    let joined = match spawn::spawn_returning(test.name(), None, test.run) {
        Ok(task) => task.join(),
        Err(error) => return Some(format!("its task could not be started: {error}")),
    };
    match joined {
        Ok(Ok(())) => leak(&before, &frame::allocator().stats()),
        Ok(Err(failure)) => Some(failure),
        Err(outcome) => Some(format!("its task ended without a result: {outcome:?}")),
    }
}

/// What a test that passed has left behind.
fn leak(before: &Stats, after: &Stats) -> Option<String> {
    let heap_growth = after.of(Kind::Heap).saturating_sub(before.of(Kind::Heap));
    COUNTED.iter().find_map(|&kind| {
        let allowed = match kind {
            Kind::Table => heap_growth.div_ceil(ENTRIES_OF_A_NODE),
            _ => 0,
        };
        let (had, has) = (before.of(kind), after.of(kind));
        let kept = (had..=had + allowed).contains(&has);
        (!kept).then(|| format!("{} frames: {had} before the test, {has} after it", kind.name()))
    })
}
