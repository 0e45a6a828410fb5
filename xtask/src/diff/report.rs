//! What `diff` shows: a table, the differences, and the same as JSON.

use std::fmt::{self, Write as _};
use std::path::PathBuf;

use anyhow::Context;
use serde::Serialize;

use super::again::REASON;
use super::compare::{Comparison, Difference};
use super::script::Case;
use super::transcript::Section;
use crate::paths;

/// Rows of a transcript that are shown around a difference.
const SHOWN: usize = 60;

/// How often a divergence comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Comes {
    /// Whenever its script is played.
    Always,
    /// Not when it was played again.
    Once,
    /// Not when it was played again, and it was Linux that had said something else.
    OnceOnLinux,
}

/// A case that differs; a random one at its shortest, if it does so always.
#[derive(Clone, Debug, Serialize)]
pub struct Divergence {
    /// The seed that makes it; none when it came from a file.
    pub seed: Option<u64>,
    /// The case of that seed.
    pub case: String,
    /// How often it comes.
    pub comes: Comes,
    /// The script that differs.
    pub script: String,
    /// What Linux printed for it.
    pub linux: Vec<String>,
    /// What Faultline printed.
    pub faultline: Vec<String>,
}

impl Divergence {
    /// Of a case and what both sides printed for it.
    pub fn new(seed: Option<u64>, comes: Comes, case: &Case, linux: &Section, faultline: &Section) -> Self {
        let rows = |section: &Section| {
            let end = format!("end -> {}", section.end.as_deref().unwrap_or("breaks off"));
            section.rows.iter().cloned().chain([end]).collect()
        };
        Self {
            seed,
            case: case.name.clone(),
            comes,
            script: case.to_string(),
            linux: rows(linux),
            faultline: rows(faultline),
        }
    }
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seed {
            Some(seed) => write!(f, "case {} of seed {seed} ", self.case)?,
            None => write!(f, "case {} ", self.case)?,
        }
        match (self.comes, self.seed) {
            (Comes::Always, Some(_)) => {
                writeln!(f, "differs; the shortest script that does so on every run:")?;
            }
            (Comes::Always, None) => writeln!(f, "differs:")?,
            (Comes::Once, _) => writeln!(f, "differed, and did not when it was played again:")?,
            (Comes::OnceOnLinux, _) => writeln!(f, "differed once, because of Linux ({REASON}):")?,
        }
        writeln!(f, "{}", indented(&self.script))?;
        for pair in 0..self.linux.len().max(self.faultline.len()).min(SHOWN) {
            let (linux, faultline) = (self.linux.get(pair), self.faultline.get(pair));
            if linux == faultline {
                writeln!(f, "      {}", linux.map_or("", |row| row))?;
                continue;
            }
            if let Some(row) = linux {
                writeln!(f, "    L {row}")?;
            }
            if let Some(row) = faultline {
                writeln!(f, "    F {row}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |row: &Option<String>| row.clone().unwrap_or_else(|| "(no such row)".into());
        writeln!(f, "{}", self.section)?;
        writeln!(f, "    L {}", row(&self.linux))?;
        write!(f, "    F {}", row(&self.faultline))
    }
}

fn indented(text: &str) -> String {
    text.lines().fold(String::new(), |mut all, line| {
        let _ = writeln!(all, "    {line}");
        all
    })
}

/// Everything that a run of `diff` has found. What it shows leaves out the divergences: each is shown when it is found,
/// because looking for the next may take long.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// What was compared, a line of the table each.
    pub parts: Vec<Part>,
    /// What was left out, and why.
    pub skipped: Vec<String>,
    /// Random cases that differ.
    pub divergences: Vec<Divergence>,
    /// Entries of the list that nothing needed.
    pub stale: Vec<String>,
}

/// A line of the table.
#[derive(Debug, Serialize)]
pub struct Part {
    /// The programs by name, or the random cases with their seed.
    pub what: String,
    /// Programs or cases.
    pub sections: usize,
    /// Rows that were compared.
    pub rows: usize,
    /// The rows that differ.
    pub differences: Vec<Difference>,
}

impl Report {
    /// Adds a line.
    pub fn part(&mut self, what: impl Into<String>, found: Comparison) {
        self.parts.push(Part {
            what: what.into(),
            sections: found.sections,
            rows: found.rows,
            differences: found.differences,
        });
    }

    /// Random cases that were cut down to their shortest form, or tried to.
    pub fn shrunk(&self) -> usize {
        let shrunk = |shown: &&Divergence| shown.comes != Comes::OnceOnLinux;
        self.divergences.iter().filter(shrunk).count()
    }

    /// Whether nothing differs that is not listed, and nothing is listed in vain.
    pub fn is_good(&self) -> bool {
        let unlisted = |part: &Part| part.differences.iter().any(|row| row.reason.is_none());
        self.stale.is_empty() && !self.parts.iter().any(unlisted)
    }

    /// Writes it to `target/faultline/reports/diff.json`; answers the path.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self) -> anyhow::Result<PathBuf> {
        let path = paths::folder("reports")?.join("diff.json");
        let text = serde_json::to_string_pretty(self).context("cannot write the report as JSON")?;
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = || self.parts.iter().flat_map(|part| &part.differences);
        let shrunk = |row: &&Difference| self.divergences.iter().any(|shown| shown.case == row.section);
        for row in all()
            .filter(|row| row.reason.is_none())
            .filter(|row| !shrunk(row))
        {
            writeln!(f, "{row}")?;
        }
        let mut reasons: Vec<(&str, usize)> = Vec::new();
        for reason in all().filter_map(|row| row.reason.as_deref()) {
            match reasons.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, count)) => *count += 1,
                None => reasons.push((reason, 1)),
            }
        }
        writeln!(
            f,
            "{:<32} {:>8} {:>9} {:>7} {:>9}",
            "", "compared", "rows", "listed", "different"
        )?;
        for part in &self.parts {
            let listed = part.differences.iter().filter(|row| row.reason.is_some()).count();
            let different = part.differences.len() - listed;
            writeln!(
                f,
                "{:<32} {:>8} {:>9} {listed:>7} {different:>9}",
                part.what, part.sections, part.rows
            )?;
        }
        for (reason, count) in reasons {
            writeln!(f, "listed, {count} times: {reason}")?;
        }
        for what in &self.skipped {
            writeln!(f, "skipped: {what}")?;
        }
        for entry in &self.stale {
            writeln!(f, "listed, but not seen: {entry}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(reason: Option<&str>) -> Report {
        let mut report = Report::default();
        report.part(
            "named programs",
            Comparison {
                sections: 1,
                rows: 2,
                differences: vec![Difference {
                    section: "p".into(),
                    linux: Some("a -> 1".into()),
                    faultline: None,
                    reason: reason.map(str::to_owned),
                }],
            },
        );
        report
    }

    #[test]
    fn a_difference_is_good_only_when_it_is_listed() {
        assert!(!report(None).is_good());
        assert!(report(Some("meant")).is_good());
        let stale = Report {
            stale: vec!["x".into()],
            ..report(Some("meant"))
        };
        assert!(!stale.is_good());
    }

    #[test]
    fn a_divergence_says_whether_it_came_up_again() {
        let case = Case {
            name: "3".into(),
            steps: vec!["m: vmas a0 1".into()],
        };
        let text = |comes| {
            let nothing = Section::default();
            Divergence::new(Some(7), comes, &case, &nothing, &nothing).to_string()
        };
        for (comes, expected) in [
            (Comes::Always, "case 3 of seed 7 differs; the shortest script"),
            (Comes::Once, "case 3 of seed 7 differed, and did not when"),
            (
                Comes::OnceOnLinux,
                "case 3 of seed 7 differed once, because of Linux",
            ),
        ] {
            let text = text(comes);
            assert!(text.starts_with(expected), "{text}");
        }
    }

    #[test]
    fn listed_differences_are_counted_and_told_with_their_reason() {
        let text = report(Some("meant so")).to_string();
        assert!(text.contains("listed, 1 times: meant so"), "{text}");
        assert!(!text.contains("L a -> 1"), "{text}");
        let text = report(None).to_string();
        assert!(
            text.contains("L a -> 1") && text.contains("F (no such row)"),
            "{text}"
        );
    }
}
