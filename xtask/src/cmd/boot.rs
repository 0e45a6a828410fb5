//! What `qemu` and `bochs` share: prepare a job, run it, judge it, show it.

use std::io::Write as _;

use anyhow::Context as _;

use crate::app::{App, FromFile, RestoreArgs};
use crate::elf::Kernel;
use crate::job::{self, Job, Location};
use crate::machine::{Launch, Machine};
use crate::paths::{RunDir, shown};
use crate::report::{PanicReport, RunReport, verdict_word};
use crate::session::{self, Limits, Outcome};
use crate::setup::{self, InstallOptions, Need, Tool};
use crate::status::{HELP, Status};
use crate::symbolize;
use crate::ui::Ui;
use crate::verdict::{Verdict, judge};

/// The arguments of a command that boots in a machine whose own options are `M`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = HELP, subcommand_value_name = "APP", subcommand_help_heading = "Applications")]
pub struct Args<M: clap::Args> {
    /// The machine's.
    #[command(flatten)]
    pub machine: M,
    /// The run's.
    #[command(flatten)]
    pub run: Options,
    /// What runs there; [`App::Restore`] as it is by default.
    #[command(subcommand)]
    pub app: Option<App>,
}

/// Options of every run.
#[derive(clap::Args, Clone, Debug)]
#[group(skip)]
pub struct Options {
    /// Seconds that the whole run may take; default: no limit
    #[arg(long, value_name = "S", global = true, help_heading = "Run", value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout: Option<u64>,
    /// Seconds without a word from the machine after which it counts as hung
    #[arg(long, value_name = "S", default_value_t = 120, global = true, help_heading = "Run", value_parser = clap::value_parser!(u64).range(1..))]
    pub silence: u64,
    /// Print every S seconds who waits for a page for longer than that, and why
    #[arg(long, value_name = "S", global = true, help_heading = "Run", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub watch: Option<u64>,
    /// Print the result as one JSON object on standard output, everything else on standard error
    #[arg(long, global = true, help_heading = "Run")]
    pub json: bool,
    /// Installing what is missing.
    #[command(flatten)]
    pub install: InstallOptions,
}

/// Does on `machine` what `args` ask for, and shows the result.
///
/// # Errors
/// When it could not be run at all.
pub fn execute<M: clap::Args>(
    args: &Args<M>,
    machine: &dyn Machine,
    disk: Option<Location>,
) -> anyhow::Result<Status> {
    let default = App::Restore(RestoreArgs::default());
    run(args.app.as_ref().unwrap_or(&default), machine, disk, &args.run)
}

fn run(
    app: &App,
    machine: &dyn Machine,
    disk: Option<Location>,
    options: &Options,
) -> anyhow::Result<Status> {
    job::check(app, machine, disk.as_ref())?;
    let mut needs = machine.needs();
    let reads_url = |from: FromFile<'_>| from.file.snapshot.is_none();
    if matches!(disk, Some(Location::Url(_))) && app.from_file().is_some_and(reads_url) {
        needs.push(Need::Tool(Tool::QemuImg));
    }
    setup::ensure(&needs, options.install)?;

    let mut ui = Ui::new(options.json);
    ui.note("building the kernel");
    let kernel = Kernel::build()?;
    let mut job = Job::new(app, machine, kernel, disk, &mut ui)?;
    if machine.keeps_time() {
        job.observe("deadline-ms", options.timeout.map(session::kernel_deadline));
    }
    job.observe("watch-ms", options.watch.map(|seconds| seconds * 1000));
    let dir = RunDir::take(&format!("{}-{}", job.name, machine.name()))?;
    let launch = machine.prepare(&job, &dir)?;
    ui.note(&launch.command.to_string());
    let limits = announce(&launch, options, &ui);

    ui.begin(&format!("{} on {}", job.name, machine.name()));
    let outcome = session::run(&launch, limits, &mut ui)?;
    ui.end();
    let mut verdict = judge(
        machine.exit_rule(),
        job.wants_report,
        &outcome.transcript,
        outcome.ended,
    );
    if verdict.status == Status::Died
        && let Some(cause) = machine.cause_of_death(&launch)
    {
        verdict.reason = format!("{}: {cause}", verdict.reason);
    }
    show(&job, machine, &launch, &outcome, &verdict, options, &ui)?;
    Ok(verdict.status)
}

/// A machine that waits for a debugger has no time limits.
fn announce(launch: &Launch, options: &Options, ui: &Ui) -> Limits {
    let Some(debugger) = &launch.debugger else {
        return Limits {
            total: options.timeout,
            silence: Some(options.silence),
        };
    };
    ui.note("the machine waits for a debugger; in another terminal, type:");
    ui.note(&format!("    {debugger}"));
    Limits {
        total: options.timeout,
        silence: None,
    }
}

fn show(
    job: &Job,
    machine: &dyn Machine,
    launch: &Launch,
    outcome: &Outcome,
    verdict: &Verdict,
    options: &Options,
    ui: &Ui,
) -> anyhow::Result<()> {
    let transcript = &outcome.transcript;
    let panic = named_panic(job, outcome, ui);
    let name = machine.name();
    let run = RunReport {
        app: &job.name,
        machine: &name,
        command: launch.command.to_string(),
        cmdline: &job.cmdline,
        verdict: verdict_word(verdict.status),
        exit_status: verdict.status.code(),
        message: &verdict.reason,
        seconds: outcome.elapsed.as_secs_f64(),
        report: transcript.report(),
        panic,
    };
    if let Some(panic) = &run.panic {
        ui.note(&render_panic(panic));
    }
    for defect in &transcript.malformed {
        ui.note(&format!(
            "warning: unreadable record ({}): {}",
            defect.reason, defect.line
        ));
    }
    if let Some(change) = job.snapshot.as_ref().and_then(|snapshot| snapshot.changed()) {
        ui.note(&format!("warning: {change}"));
    }
    if verdict.status == Status::Host || verdict.status == Status::Died {
        for line in launch.emulator_said() {
            ui.note(&line);
        }
    }
    if job.wants_report {
        ui.output(&format!("report: {}", shown(&run.save()?)));
    }
    ui.note(&closing_line(verdict, outcome));
    if options.json {
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&run)?)
            .context("cannot write the JSON object")?;
    }
    Ok(())
}

fn closing_line(verdict: &Verdict, outcome: &Outcome) -> String {
    let word = match verdict.status {
        Status::Success => "ok",
        Status::Panic => "KERNEL PANIC",
        Status::TimedOut => "TIME-OUT",
        Status::Deadline => "NOT DONE IN TIME",
        Status::Unsupported => "NOT ON THIS MACHINE",
        Status::Died => "DIED",
        Status::Interrupted => "INTERRUPTED",
        Status::Usage => "WRONG USAGE",
        _ => "FAILED",
    };
    format!(
        "{word}: {} ({:.1} s)",
        verdict.reason,
        outcome.elapsed.as_secs_f64()
    )
}

/// The panic of a run with its backtrace in names and lines.
pub fn named_panic(job: &Job, outcome: &Outcome, ui: &Ui) -> Option<PanicReport> {
    let panic = outcome.transcript.panic()?;
    let backtrace = match symbolize::backtrace(&job.kernel.path, &panic.backtrace) {
        Ok(frames) => frames.iter().map(ToString::to_string).collect(),
        Err(error) => {
            ui.note(&format!("warning: the backtrace stays in numbers: {error:#}"));
            panic
                .backtrace
                .iter()
                .map(|address| format!("{address:#018x}"))
                .collect()
        }
    };
    Some(PanicReport {
        message: panic.message,
        location: panic.location,
        task: panic.task,
        backtrace,
    })
}

/// A panic as text.
pub fn render_panic(panic: &PanicReport) -> String {
    let mut out = format!(
        "kernel panic: {}\n  at {} in task {}",
        panic.message, panic.location, panic.task
    );
    for frame in &panic.backtrace {
        out += &format!("\n  {frame}");
    }
    out
}
