//! `cargo xtask diff`: the same programs on the Linux it stands on and on Faultline, row by row.

use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::Context as _;

use crate::diff::again;
use crate::diff::compare::{Comparison, Rows, compare};
use crate::diff::generate::Generator;
use crate::diff::listed::{Listed, RANDOM};
use crate::diff::report::{Comes, Divergence, Report};
use crate::diff::script::{self, Case};
use crate::diff::shrink::shrink;
use crate::diff::side::{self, Faultline, Host, Side};
use crate::diff::transcript::{self, Section};
use crate::paths;
use crate::setup::{self, InstallOptions, Need};
use crate::status::{HELP, Status, usage};
use crate::ui::Ui;

/// Cases that are played before the next look for divergences.
const BATCH: u64 = 100;
/// Divergences that are shrunk. More of them are only counted.
const SHRUNK: usize = 3;
/// Free huge pages that the random cases want to find.
const HUGE_PAGES: u64 = 24;

/// The command's arguments.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct Args {
    /// Programs of tests/guest by name; default: all that a Linux machine survives
    names: Vec<String>,
    /// What decides the random cases
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// The number of the first random case
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: u64,
    /// How many random cases
    #[arg(long, value_name = "N", default_value_t = 250)]
    cases: u64,
    /// Steps of a random case
    #[arg(long, value_name = "K", default_value_t = 40, value_parser = clap::value_parser!(u64).range(8..=1000))]
    steps: u64,
    /// No named programs
    #[arg(long, conflicts_with_all = ["names", "named_only"])]
    random_only: bool,
    /// No random cases
    #[arg(long)]
    named_only: bool,
    /// Play the cases in this file, and nothing else
    #[arg(long, value_name = "FILE", conflicts_with_all = ["names", "named_only", "random_only"])]
    script: Option<PathBuf>,
    /// Run everything on this Linux twice: what differs then is the programs' own doing
    #[arg(long)]
    against_itself: bool,
    #[command(flatten)]
    install: InstallOptions,
}

/// Compares.
///
/// # Errors
/// When one of the sides could not be run at all.
pub fn run(args: &Args) -> anyhow::Result<Status> {
    let script = match &args.script {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| usage(format!("cannot read {}: {error}", path.display())))?;
            Some(script::parse(&text).map_err(|error| usage(format!("{}: {error}", path.display())))?)
        }
        None => None,
    };
    setup::ensure(&[Need::BareMetalTarget, Need::LinuxTarget], args.install)?;
    let program = side::programs()?;
    let mut diff = Diff {
        ui: Ui::new(false),
        linux: Box::new(Host::new(&program)?),
        faultline: if args.against_itself {
            Box::new(Host::new(&program)?)
        } else {
            Box::new(Faultline::new(&program, HUGE_PAGES, args.install)?)
        },
        listed: Listed::read(&paths::workspace().join("tests/guest/differences.toml"))?,
        report: Report::default(),
        ran: HashSet::new(),
    };
    if let Some(reason) = diff.no_userfaultfd()? {
        diff.ui
            .output(&format!("skipped: this Linux gives no userfaultfd: {reason}"));
        return Ok(Status::Unsupported);
    }
    match script {
        Some(cases) => diff.script(&cases)?,
        None => {
            if !args.random_only {
                diff.named(&args.names)?;
            }
            if !args.named_only && args.names.is_empty() {
                diff.random(args)?;
            }
        }
    }
    diff.finish(args)
}

struct Diff {
    ui: Ui,
    linux: Box<dyn Side>,
    faultline: Box<dyn Side>,
    listed: Listed,
    report: Report,
    /// Names under which differences may be listed, and that ran.
    ran: HashSet<String>,
}

impl Diff {
    /// Why there is no userfaultfd with everything that the programs want of it, if there is none.
    fn no_userfaultfd(&mut self) -> anyhow::Result<Option<String>> {
        let probe = script::parse("case probe\nm: uffd 0 0x800 0x2\n")?;
        let sections = self.linux.play(&probe)?;
        let row = sections.first().and_then(|section| section.rows.first());
        let row = row.context("the player of tests/guest says nothing")?;
        let answer = row.split_once(" -> ").map_or(&**row, |(_, answer)| answer);
        Ok((!answer.starts_with("ok ok")).then(|| answer.to_owned()))
    }

    fn named(&mut self, names: &[String]) -> anyhow::Result<()> {
        let mut args = vec![if names.is_empty() { "all" } else { "run" }];
        args.extend(names.iter().map(String::as_str));
        self.ui.note("named programs");
        let linux = transcript::parse(&self.linux.run(&args, None)?.output);
        if linux.is_empty() {
            return Err(usage(format!("no such program: {}", names.join(" "))));
        }
        let run = self.faultline.run(&args, None)?;
        let mut faultline = transcript::parse(&run.output);
        if let Some(last) = faultline.last_mut().filter(|last| last.end.is_none()) {
            last.end = Some(run.ended);
        }
        for section in &linux {
            let one = std::slice::from_ref(section);
            let found = compare(one, &faultline, Rows::Each, None, &mut self.listed);
            self.report.part(section.name.clone(), found);
            self.ran.insert(section.name.clone());
        }
        Ok(())
    }

    fn script(&mut self, cases: &[Case]) -> anyhow::Result<()> {
        let (linux, faultline) = (self.linux.play(cases)?, self.faultline.play(cases)?);
        let found = self.compare_cases(&linux, &faultline);
        for row in found.unlisted() {
            let at = |sections: &[Section]| {
                sections
                    .iter()
                    .find(|section| section.name == row.section)
                    .cloned()
            };
            let case = cases.iter().find(|case| case.name == row.section);
            if let (Some(case), Some(linux)) = (case, at(&linux)) {
                let faultline = at(&faultline).unwrap_or_default();
                self.tell(Divergence::new(None, Comes::Always, case, &linux, &faultline));
            }
        }
        self.report.part("the script", found);
        Ok(())
    }

    fn random(&mut self, args: &Args) -> anyhow::Result<()> {
        let huge = free_huge_pages() >= HUGE_PAGES;
        if !huge {
            self.report.skipped.push(format!(
                "huge pages in random cases: this Linux has fewer than {HUGE_PAGES} free ones (vm.nr_hugepages)"
            ));
        }
        let generator = Generator {
            seed: args.seed,
            steps: args.steps as usize,
            huge,
        };
        let mut all = Comparison::default();
        let end = args.from.saturating_add(args.cases);
        for first in (args.from..end).step_by(BATCH as usize) {
            let cases: Vec<Case> = (first..end.min(first + BATCH))
                .map(|index| generator.case(index))
                .collect();
            self.ui.note(&format!(
                "random cases {first} to {} of seed {}",
                first + cases.len() as u64 - 1,
                args.seed
            ));
            let (linux, faultline) = (self.linux.play(&cases)?, self.faultline.play(&cases)?);
            if let Some(row) = linux
                .iter()
                .flat_map(|section| &section.rows)
                .find(|row| row.contains("bad step"))
            {
                anyhow::bail!("the player does not understand a step: {row}");
            }
            let mut found = self.compare_cases(&linux, &faultline);
            for row in found.differences.iter_mut().filter(|row| row.reason.is_none()) {
                if self.report.shrunk() == SHRUNK {
                    break;
                }
                if let Some(case) = cases.iter().find(|case| case.name == row.section) {
                    let at = |sections: &[Section]| {
                        sections
                            .iter()
                            .find(|section| section.name == row.section)
                            .cloned()
                            .unwrap_or_default()
                    };
                    self.ui.note(&format!("differs: case {row}"));
                    let (linux, faultline) = (at(&linux), at(&faultline));
                    let seen = |comes| Divergence::new(Some(args.seed), comes, case, &linux, &faultline);
                    if !args.against_itself && self.was_chance(case, &faultline)? {
                        row.reason = Some(again::REASON.into());
                        self.tell(seen(Comes::OnceOnLinux));
                    } else {
                        let shortest = self.shortest(args.seed, case)?;
                        self.tell(shortest.unwrap_or_else(|| seen(Comes::Once)));
                    }
                }
            }
            all.add(found);
        }
        self.ran.insert(RANDOM.into());
        self.report.part(format!("random, seed {}", args.seed), all);
        Ok(())
    }

    fn compare_cases(&mut self, linux: &[Section], faultline: &[Section]) -> Comparison {
        compare(
            linux,
            faultline,
            Rows::UpToTheFirst,
            Some(RANDOM),
            &mut self.listed,
        )
    }

    /// Plays a case that differs again and again, and says whether it was Linux alone that said something else the first time.
    fn was_chance(&mut self, case: &Case, faultline: &Section) -> anyhow::Result<bool> {
        let cases = again::plays(case);
        let again = [self.linux.play(&cases)?, self.faultline.play(&cases)?].concat();
        Ok(again::all_say(&again, faultline))
    }

    /// Shrinks a case that differs; none if it does not do so again.
    fn shortest(&mut self, seed: u64, case: &Case) -> anyhow::Result<Option<Divergence>> {
        self.ui
            .note(&format!("looking for the shortest form of case {}", case.name));
        let mut rounds = 0;
        let shortest = shrink(case, |candidates| {
            rounds += 1;
            let (linux, faultline) = (self.linux.play(candidates)?, self.faultline.play(candidates)?);
            let found = self.compare_cases(&linux, &faultline);
            let differs = |case: &Case| found.unlisted().any(|row| row.section == case.name);
            Ok(candidates.iter().map(differs).collect())
        })?;
        let alone = std::slice::from_ref(&shortest);
        let (linux, faultline) = (self.linux.play(alone)?, self.faultline.play(alone)?);
        let again = self.compare_cases(&linux, &faultline).unlisted().next().is_some();
        let section = |sections: Vec<Section>| sections.into_iter().next().unwrap_or_default();
        Ok(again.then(|| {
            let shortest = Case {
                name: case.name.clone(),
                ..shortest
            };
            Divergence::new(
                Some(seed),
                Comes::Always,
                &shortest,
                &section(linux),
                &section(faultline),
            )
        }))
    }

    /// Shows a divergence, and keeps it for the report.
    fn tell(&mut self, divergence: Divergence) {
        self.ui.output(&divergence.to_string());
        self.report.divergences.push(divergence);
    }

    /// Shows what was found.
    fn finish(mut self, args: &Args) -> anyhow::Result<Status> {
        let ran: HashSet<&str> = self.ran.iter().map(String::as_str).collect();
        if !args.against_itself {
            self.report.stale = self.listed.stale(&ran);
        }
        let path = self.report.save()?;
        self.ui.output(&self.report.to_string());
        self.ui.note(&format!("report: {}", paths::shown(&path)));
        Ok(if self.report.is_good() {
            Status::Success
        } else {
            Status::Failed
        })
    }
}

/// Free huge pages of this Linux.
fn free_huge_pages() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let count = text.lines().find_map(|line| line.strip_prefix("HugePages_Free:"));
    count
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or_default()
}
