//! What a test came to, read from what its program said.
//!
//! `uffd-unit-tests` prints a line for each test: `Testing NAME on MEMORY... done`, or `skipped [reason: WHY]`, or
//! `failed [reason: WHY]`. A line that ends after the dots is that of the test which took the program down.

use serde::Serialize;

use super::Outcomes;
use super::side::{End, Said};

const OPENING: &str = "Testing ";
/// KSFT_SKIP of Linux's kselftest.h.
const SKIPPED: u8 = 4;

/// What a test came to.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It passed.
    Done,
    /// It was not run; why.
    Skipped(String),
    /// It failed; why.
    Failed(String),
    /// Its program ended in the middle of it; how.
    Cut(String),
}

impl Outcome {
    /// Of a program whose exit status says everything.
    pub fn of_status(said: &Said) -> Self {
        let why = || match last_line(&said.err) {
            "" => last_line(&said.out).to_owned(),
            why => why.to_owned(),
        };
        match &said.end {
            End::Exited(0) => Self::Done,
            End::Exited(SKIPPED) => Self::Skipped(why()),
            End::Exited(status) => Self::Failed(format!("status {status}: {}", why())),
            End::Other(_) => Self::cut(said),
        }
    }

    /// Of a test in whose middle its program ended.
    pub fn cut(said: &Said) -> Self {
        match last_line(&said.err) {
            "" => Self::Cut(said.end.to_string()),
            last => Self::Cut(format!("{}; {last}", said.end)),
        }
    }

    /// Whether its program ended in the middle of it.
    pub const fn is_cut(&self) -> bool {
        matches!(self, Self::Cut(_))
    }

    /// Whether two tests came to the same, whatever the reasons.
    pub fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    /// One word.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Skipped(_) => "skipped",
            Self::Failed(_) => "failed",
            Self::Cut(_) => "cut off",
        }
    }

    /// Why, if there is a reason.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Done => None,
            Self::Skipped(why) | Self::Failed(why) | Self::Cut(why) => Some(why),
        }
    }
}

/// The outcomes of a run of `uffd-unit-tests`.
pub fn unit_outcomes(said: &Said) -> Outcomes {
    said.out
        .lines()
        .filter_map(|line| unit_outcome(line, said))
        .collect()
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or_default().trim()
}

fn unit_outcome(line: &str, said: &Said) -> Option<(String, Outcome)> {
    // A child of a test that printed without a newline may stand before it.
    let start = line.find(OPENING)? + OPENING.len();
    let (name, result) = line[start..].split_once("... ")?;
    let reason = |kind: &str| {
        let rest = result.strip_prefix(kind)?.trim();
        let inner = rest.strip_prefix("[reason: ").unwrap_or(rest);
        Some(inner.strip_suffix(']').unwrap_or(inner).to_owned())
    };
    let outcome = if result == "done" {
        Outcome::Done
    } else if let Some(why) = reason("skipped") {
        Outcome::Skipped(why)
    } else if let Some(why) = reason("failed") {
        Outcome::Failed(why)
    } else {
        Outcome::cut(said)
    };
    Some((name.to_owned(), outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(line: &str) -> Option<(String, Outcome)> {
        let said = Said {
            out: String::new(),
            err: "one\nERROR: no (errno=22, @x.c:1)\n".into(),
            end: End::Other("signal 11".into()),
        };
        unit_outcome(line, &said)
    }

    #[test]
    fn every_kind_of_line_is_read() {
        for (line, wanted) in [
            ("Testing move on anon... done", Outcome::Done),
            (
                "Testing wp-fork-pin on shmem... skipped [reason: CONFIG_GUP_TEST missing]",
                Outcome::Skipped("CONFIG_GUP_TEST missing".into()),
            ),
            (
                "Testing minor on shmem... failed [reason: page [3] differs]",
                Outcome::Failed("page [3] differs".into()),
            ),
            (
                "Testing events on hugetlb... ",
                Outcome::Cut("signal 11; ERROR: no (errno=22, @x.c:1)".into()),
            ),
            (
                "Testing events on hugetlb... half a",
                Outcome::Cut("signal 11; ERROR: no (errno=22, @x.c:1)".into()),
            ),
        ] {
            let (_, got) = outcome(line).unwrap();
            assert_eq!(got, wanted);
        }
        assert_eq!(
            outcome("Testing UFFDIO_API (with syscall)... done").unwrap().0,
            "UFFDIO_API (with syscall)"
        );
    }

    #[test]
    fn other_lines_are_passed_over() {
        for line in [
            "",
            "Userfaults unit tests: pass=56, skip=10, fail=0 (total=66)",
            "Testing",
        ] {
            assert_eq!(outcome(line), None, "{line}");
        }
    }

    #[test]
    fn a_status_is_read_as_kselftest_means_it() {
        let said = |end| Said {
            out: "bounces: 0\n".into(),
            err: "ERROR: it broke\n".into(),
            end,
        };
        assert_eq!(Outcome::of_status(&said(End::Exited(0))), Outcome::Done);
        assert_eq!(
            Outcome::of_status(&said(End::Exited(4))),
            Outcome::Skipped("ERROR: it broke".into())
        );
        assert_eq!(
            Outcome::of_status(&said(End::Exited(1))),
            Outcome::Failed("status 1: ERROR: it broke".into())
        );
        assert!(Outcome::of_status(&said(End::Other("not done after 9 s".into()))).is_cut());
    }
}
