//! `cargo xtask selftests [OPTIONS] [NAME]`: Linux's own tests of userfaultfd on both systems.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context;

use crate::elf::Kernel;
use crate::machine::Machine as _;
use crate::machine::qemu::{Door, Hardware, Qemu};
use crate::paths::{self, RunDir, shown};
use crate::selftests::build::Programs;
use crate::selftests::side::{Faultline, Host, Side as _};
use crate::selftests::source::{PACKAGE, Source};
use crate::selftests::{self, HUGE_PAGES, Table};
use crate::setup::{self, InstallOptions};
use crate::status::Status;
use crate::ui::Ui;
use crate::{interrupt, report};

/// The command's arguments.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Only tests whose name contains this: `move`, `stress anon`
    filter: Option<String>,
    /// A tree of Linux to take the tests from, instead of Debian's package
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
    /// Seconds that a test program may take on either system
    #[arg(long, value_name = "S", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Print the results as one JSON object on standard output, everything else on standard error
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hardware: Hardware,
    #[command(flatten)]
    install: InstallOptions,
}

/// Runs the tests on both systems and prints both results.
///
/// # Errors
/// When something could not be run at all.
pub fn run(args: &Args) -> anyhow::Result<Status> {
    let ui = Ui::new(args.json);
    let machine = Qemu::through(Door::Pvh, &args.hardware)?;
    let cache = paths::cache("selftests")?;
    let programs = match programs(args, &cache, &ui) {
        Ok(programs) => programs,
        Err(error) if error.is::<crate::status::UsageError>() => return Err(error),
        Err(_) if interrupt::requested() => return Ok(Status::Interrupted),
        Err(error) => {
            ui.note(&format!("skipped: selftests: {error:#}"));
            return Ok(Status::Missing);
        }
    };
    let (source, programs) = programs;
    setup::ensure(&machine.needs(), args.install)?;
    let kernel = Kernel::build()?;
    let filter = args.filter.as_deref();

    let mut host = Host {
        timeout: args.timeout,
        dir: RunDir::take("selftests-linux")?,
    };
    let linux = selftests::run(&mut host, &programs, filter, &ui)?;
    let mut faultline = Faultline {
        machine,
        kernel,
        timeout: args.timeout,
        huge_pages: HUGE_PAGES,
        remarks: Vec::new(),
    };
    let ours = selftests::run(&mut faultline, &programs, filter, &ui)?;
    if interrupt::requested() {
        return Ok(Status::Interrupted);
    }
    let table = Table::new(source.name, (host.name(), linux), ours, faultline.remarks);
    show(&table, args.json, &ui)?;
    Ok(if table.differences().next().is_none() {
        Status::Success
    } else {
        Status::Failed
    })
}

fn programs(args: &Args, cache: &std::path::Path, ui: &Ui) -> anyhow::Result<(Source, Programs)> {
    anyhow::ensure!(
        cfg!(all(target_os = "linux", target_arch = "x86_64")),
        "the tests are built and run on x86-64 Linux"
    );
    let (source, home) = match &args.source {
        Some(tree) => (Source::of_tree(tree, cache, ui)?, cache.join("own-tree")),
        None => (Source::of_package(cache, ui)?, cache.join(PACKAGE)),
    };
    let programs = Programs::build(&source, &home)?;
    Ok((source, programs))
}

fn show(table: &Table, json: bool, ui: &Ui) -> anyhow::Result<()> {
    ui.output(&table.to_string());
    let path = report::save("selftests", table)?;
    ui.note(&format!("report: {}", shown(&path)));
    if json {
        writeln!(std::io::stdout(), "{}", serde_json::to_string(table)?)
            .context("cannot write the JSON object")?;
    }
    Ok(())
}
