//! Linux's own tests of userfaultfd, here and on Faultline, side by side.
//!
//! ```text
//!   source: Debian's linux-source ──► a tree in the cache ──► build: uffd-unit-tests, uffd-stress, static
//!                                                                  │
//!                              side: this Linux ◄──────────────────┴──────────────────► side: Faultline
//!                                       └──► outcome, by the name of each test ◄──┘
//!                                                          │
//!                                                        table
//! ```
//!
//! Nothing of Linux's code is in this project's tree: it is fetched when it is wanted, and lies in the user's cache folder
//! ([`crate::paths::cache`]), so that it is fetched once.

use crate::interrupt;
use crate::selftests::outcome::{Outcome, unit_outcomes};
use crate::selftests::side::{Said, Side};
use crate::ui::Ui;

pub mod build;
pub mod outcome;
pub mod side;
pub mod source;
pub mod table;

pub use table::{Row, Table};

/// Huge pages of 2 MiB that Faultline sets aside for the tests: two areas of 32 MiB each, and copies of them.
pub const HUGE_PAGES: u64 = 96;

/// What `uffd-stress` is run with, as Linux's run_vmtests.sh does it: type of memory, MiB, rounds. The rounds on huge pages are
/// fewer, since a machine may have few of those.
const STRESS: [[&str; 3]; 5] = [
    ["anon", "20", "16"],
    ["shmem", "20", "16"],
    ["shmem-private", "20", "16"],
    ["hugetlb", "32", "8"],
    ["hugetlb-private", "32", "8"],
];

/// How `uffd-unit-tests` begins its last line.
const SUMMARY: &str = "Userfaults unit tests: ";

/// The outcomes of tests by their names, in the order in which they ran.
pub type Outcomes = Vec<(String, Outcome)>;

/// Runs the tests whose name contains `filter` on `side`.
///
/// # Errors
/// When they cannot be run at all.
pub fn run(
    side: &mut dyn Side,
    programs: &build::Programs,
    filter: Option<&str>,
    ui: &Ui,
) -> anyhow::Result<Outcomes> {
    let mut outcomes = unit_tests(side, programs, filter, ui)?;
    for args in STRESS {
        let name = format!("stress {}", args[0]);
        if filter.is_none_or(|filter| name.contains(filter)) && !interrupt::requested() {
            ui.note(&format!("{}: {name}", side.name()));
            let said = side.run(&programs.stress, &args)?;
            outcomes.push((name, Outcome::of_status(&said)));
        }
    }
    Ok(outcomes)
}

/// All unit tests at once; when one of them takes the program down, each test that has not been seen is run by itself.
fn unit_tests(
    side: &mut dyn Side,
    programs: &build::Programs,
    filter: Option<&str>,
    ui: &Ui,
) -> anyhow::Result<Outcomes> {
    let program = &programs.unit;
    let mut outcomes = Outcomes::new();
    ui.note(&format!("{}: unit tests", side.name()));
    let args: &[&str] = match filter {
        Some(filter) => &["-f", filter],
        None => &[],
    };
    let said = side.run(program, args)?;
    merge(&mut outcomes, unit_outcomes(&said));
    if is_whole(&said) {
        return Ok(outcomes);
    }
    if outcomes.is_empty() {
        // Not one test was begun: that is a result too, and would be the same for each by itself.
        outcomes.push(("uffd-unit-tests".into(), Outcome::cut(&said)));
        return Ok(outcomes);
    }
    for name in &programs.names {
        let is_wanted = filter.is_none_or(|filter| name.contains(filter));
        // What was cut off is the last of its test; its other types of memory are still to come.
        let is_seen = outcomes
            .iter()
            .any(|(seen, outcome)| test_of(seen) == name && !outcome.is_cut());
        let is_cut = outcomes
            .iter()
            .any(|(seen, outcome)| test_of(seen) == name && outcome.is_cut());
        if is_wanted && (!is_seen || is_cut) && !interrupt::requested() {
            ui.note(&format!("{}: {name}, by itself", side.name()));
            merge(&mut outcomes, unit_outcomes(&side.run(program, &["-f", name])?));
        }
    }
    Ok(outcomes)
}

/// Whether the program came to its end: a test that gives up ends it, too, with a status like any other.
fn is_whole(said: &Said) -> bool {
    said.out.contains(SUMMARY) || matches!(Outcome::of_status(said), Outcome::Skipped(_))
}

/// The test's name in `NAME on MEMORY`.
fn test_of(name: &str) -> &str {
    name.split_once(" on ").map_or(name, |(test, _)| test)
}

/// Adds what is new; a test that ended replaces one that was cut off.
fn merge(all: &mut Outcomes, more: Outcomes) {
    for (name, outcome) in more {
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) if known.is_cut() => *known = outcome,
            Some(_) => {}
            None => all.push((name, outcome)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::side::End;
    use super::*;

    /// Plays what a side would say, run after run.
    struct Script {
        asked: Vec<String>,
        answers: Vec<Said>,
    }

    impl Side for Script {
        fn name(&self) -> String {
            "a script".into()
        }

        fn run(&mut self, program: &Path, args: &[&str]) -> anyhow::Result<Said> {
            self.asked
                .push(format!("{} {}", program.display(), args.join(" ")));
            Ok(self.answers.remove(0))
        }
    }

    fn said(out: &str, end: End) -> Said {
        Said {
            out: out.into(),
            err: String::new(),
            end,
        }
    }

    fn programs() -> build::Programs {
        build::Programs {
            unit: PathBuf::from("unit"),
            stress: PathBuf::from("stress"),
            names: vec!["a".into(), "b".into(), "c".into()],
        }
    }

    fn unit(answers: Vec<Said>) -> (Outcomes, Vec<String>) {
        let mut script = Script {
            asked: Vec::new(),
            answers,
        };
        let outcomes = unit_tests(&mut script, &programs(), None, &Ui::new(true)).unwrap();
        (outcomes, script.asked)
    }

    #[test]
    fn a_run_that_comes_to_its_end_is_not_repeated() {
        let all = "Testing a on anon... done\nTesting b on anon... failed [reason: why]\n\
                   Userfaults unit tests: pass=1, skip=0, fail=1 (total=2)\n";
        let (outcomes, asked) = unit(vec![said(all, End::Exited(1))]);
        assert_eq!(asked, ["unit "]);
        assert_eq!(
            outcomes,
            [
                ("a on anon".into(), Outcome::Done),
                ("b on anon".into(), Outcome::Failed("why".into()))
            ]
        );
    }

    #[test]
    fn what_a_crash_hid_is_run_by_itself() {
        let (outcomes, asked) = unit(vec![
            said(
                "Testing a on anon... done\nTesting b on anon... ",
                End::Other("signal 11".into()),
            ),
            said("Testing b on anon... ", End::Other("signal 11".into())),
            said("Testing c on anon... done\n", End::Exited(0)),
        ]);
        assert_eq!(asked, ["unit ", "unit -f b", "unit -f c"]);
        let kinds: Vec<bool> = outcomes.iter().map(|(_, outcome)| outcome.is_cut()).collect();
        assert_eq!(kinds, [false, true, false]);
    }

    #[test]
    fn a_test_that_gives_up_is_cut_off_whatever_its_status() {
        let (outcomes, asked) = unit(vec![
            said("Testing a on anon... ERROR: no\n", End::Exited(1)),
            said("Testing a on anon... ERROR: no\n", End::Exited(1)),
            said("Testing b on anon... done\n", End::Exited(0)),
            said("Testing c on anon... done\n", End::Exited(0)),
        ]);
        assert_eq!(asked.len(), 4);
        assert!(outcomes[0].1.is_cut() && outcomes[2].1 == Outcome::Done);
    }

    #[test]
    fn a_program_that_begins_no_test_is_run_once() {
        let (outcomes, asked) = unit(vec![said("", End::Exited(127))]);
        assert_eq!(asked, ["unit "]);
        assert_eq!(
            outcomes,
            [(
                "uffd-unit-tests".to_owned(),
                Outcome::Cut("exited with status 127".into())
            )]
        );
    }

    #[test]
    fn a_stress_test_is_judged_by_its_status() {
        let mut script = Script {
            asked: Vec::new(),
            answers: vec![said(SUMMARY, End::Exited(0)), said("no memory\n", End::Exited(4))],
        };
        let filter = Some("stress hugetlb-private");
        let outcomes = run(&mut script, &programs(), filter, &Ui::new(true)).unwrap();
        assert_eq!(
            outcomes,
            [(
                "stress hugetlb-private".to_owned(),
                Outcome::Skipped("no memory".into())
            )]
        );
        assert_eq!(
            script.asked,
            ["unit -f stress hugetlb-private", "stress hugetlb-private 32 8"]
        );
    }
}
