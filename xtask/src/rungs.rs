//! Runs a test program, passes its listing on and counts what its closing lines say.
//!
//! The program gets a process group of its own. When xtask is interrupted the whole group is asked to end, so that
//! the emulators that a test has started are stopped by the test that started them.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::process::CommandLine;
use crate::{interrupt, paths};

/// Results over all rungs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed.
    pub failed: u64,
    /// Tests that were not run, a skipped rung counting as one.
    pub skipped: u64,
    /// Whether any test program had a test to run, or ended badly before it could say so.
    pub had_tests: bool,
    notes: Vec<String>,
}

/// What one test program said, and whether it ended well.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counted {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed.
    pub failed: u64,
    /// Tests that the program ignored.
    pub ignored: u64,
    /// Whether its exit status was 0.
    pub ended_well: bool,
}

impl Tally {
    /// Notes a rung that is not run.
    pub fn skip(&mut self, name: &str, reason: &str) {
        println!("\n== {name}: skipped: {reason}");
        self.skipped += 1;
        // What is missing, without the commands that install it: those were just printed.
        let first = reason.lines().next().unwrap_or_default();
        let what = first.trim_end_matches("; install with");
        self.notes.push(format!("skipped {name}: {what}"));
    }

    /// Adds what a test program counted. One that failed without a failed test (it did not compile, it crashed)
    /// counts as one failure.
    pub fn add(&mut self, name: &str, counted: Counted) {
        self.passed += counted.passed;
        self.skipped += counted.ignored;
        self.failed += counted.failed;
        self.had_tests |= counted != Counted::NOTHING;
        if counted.failed > 0 {
            self.notes.push(format!("failed: {} in {name}", counted.failed));
        } else if !counted.ended_well {
            self.failed += 1;
            self.notes.push(format!("failed: {name} ended with an error"));
        }
    }

    /// Runs a program whose exit status alone is the result.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn check(&mut self, name: &str, line: &CommandLine) -> anyhow::Result<()> {
        let counted = run_counted(line)?;
        let failed = u64::from(!counted.ended_well);
        println!(
            "test {name} ... {}",
            if counted.ended_well { "ok" } else { "FAILED" }
        );
        self.add(
            name,
            Counted {
                passed: 1 - failed,
                failed,
                ignored: 0,
                ended_well: counted.ended_well,
            },
        );
        Ok(())
    }

    /// What went wrong or was left out, then the counts as the last line.
    pub fn summary(&self) -> String {
        let mut lines = self.notes.clone();
        lines.push(format!(
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        ));
        lines.join("\n")
    }
}

/// Runs a test program in the workspace's root; its listing goes to standard output.
///
/// # Errors
/// When it cannot be started.
pub fn run_counted(line: &CommandLine) -> anyhow::Result<Counted> {
    let mut command = line.command();
    command
        .current_dir(paths::workspace())
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run {}", line.program()))?;
    let stdout = child.stdout.take().context("the standard output was not piped")?;
    let reader = thread::spawn(move || {
        let mut counted = Counted::default();
        for text in BufReader::new(stdout).lines().map_while(Result::ok) {
            println!("{text}");
            counted.count(&text);
        }
        counted
    });
    let ended_well = wait(&mut child)?;
    let counted = reader.join().unwrap_or_default();
    Ok(Counted {
        ended_well,
        ..counted
    })
}

fn wait(child: &mut Child) -> anyhow::Result<bool> {
    let mut asked: Option<Instant> = None;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for the test program")? {
            return Ok(status.success());
        }
        match asked {
            None if interrupt::requested() => {
                asked = Some(Instant::now());
                ask_group_to_end(child.id());
            }
            Some(at) if at.elapsed() > Duration::from_secs(10) => {
                // It may have ended in between; then there is nothing to kill.
                let _ = child.kill();
            }
            _ => {}
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn ask_group_to_end(group: u32) {
    let line = CommandLine::new("kill").args(["-TERM", "--", &format!("-{group}")]);
    if let Err(error) = line.command().status() {
        eprintln!("warning: cannot stop the tests: {error}");
    }
}

impl Counted {
    /// What a program says in which no test fits the filter.
    const NOTHING: Self = Self {
        passed: 0,
        failed: 0,
        ignored: 0,
        ended_well: true,
    };

    /// Counts a closing line: `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
    fn count(&mut self, line: &str) {
        let Some((_, result)) = line.split_once("test result:") else {
            return;
        };
        for part in result.split(['.', ';']) {
            let mut words = part.split_ascii_whitespace();
            if let (Some(Ok(number)), Some(word)) = (words.next().map(str::parse::<u64>), words.next()) {
                match word {
                    "passed" => self.passed += number,
                    "failed" => self.failed += number,
                    "ignored" => self.ignored += number,
                    _ => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(script: &str) -> Counted {
        run_counted(&CommandLine::new("sh").arg("-c").arg(script)).unwrap()
    }

    #[test]
    fn closing_lines_are_added_up() {
        let ok = "echo 'test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 9 filtered out; finished in 2.11s'";
        let bad = "echo 'test result: FAILED. 70 passed; 4 failed; 0 ignored'";
        let result = counted(&format!("{ok}; {bad}; echo 'test x ... ok'; exit 101"));
        assert_eq!(
            result,
            Counted {
                passed: 73,
                failed: 4,
                ignored: 1,
                ended_well: false
            }
        );
    }

    #[test]
    fn a_program_that_fails_without_a_failed_test_counts_as_a_failure() {
        let mut tally = Tally::default();
        tally.add("broken", counted("exit 101"));
        tally.add("fine", counted("echo 'test result: ok. 2 passed; 0 failed'"));
        tally.skip("bochs", "not installed; install with\n    apt-get install bochs");
        assert_eq!(
            tally.summary(),
            "failed: broken ended with an error\nskipped bochs: not installed\n2 passed, 1 failed, 1 skipped"
        );
    }

    #[test]
    fn programs_without_a_test_to_run_are_told_from_others() {
        let mut tally = Tally::default();
        tally.add(
            "other",
            counted("echo 'test result: ok. 0 passed; 0 failed; 0 ignored; 7 filtered out'"),
        );
        tally.skip("bochs", "not installed");
        assert!(!tally.had_tests);
        for script in [
            "echo 'test result: ok. 0 passed; 0 failed; 1 ignored'",
            "exit 101",
        ] {
            let mut tally = tally.clone();
            tally.add("this", counted(script));
            assert!(tally.had_tests, "{script}");
        }
    }

    #[test]
    fn a_check_is_one_test() {
        let mut tally = Tally::default();
        tally.check("lint::a", &CommandLine::new("true")).unwrap();
        tally.check("lint::b", &CommandLine::new("false")).unwrap();
        assert_eq!((tally.passed, tally.failed), (1, 1));
    }
}
