//! Both systems' results beside each other.

use std::fmt;

use serde::Serialize;

use super::Outcomes;
use super::outcome::Outcome;

/// A test on both sides; `None` where it was not run.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// On the Linux under us.
    pub linux: Option<Outcome>,
    /// On Faultline.
    pub faultline: Option<Outcome>,
}

impl Row {
    /// Whether it came to the same on both sides.
    pub fn is_alike(&self) -> bool {
        match (&self.linux, &self.faultline) {
            (Some(linux), Some(faultline)) => linux.is_like(faultline),
            _ => false,
        }
    }
}

/// All tests.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct Table {
    /// What the tests were built from.
    pub source: String,
    /// The name of the Linux under us.
    pub linux: String,
    /// The tests, in Linux's order.
    pub rows: Vec<Row>,
    /// What Faultline's kernel said of system calls that are not there.
    pub remarks: Vec<String>,
}

impl Table {
    /// Puts the two sides' outcomes together.
    pub fn new(source: String, linux: (String, Outcomes), faultline: Outcomes, remarks: Vec<String>) -> Self {
        let (linux, ours) = linux;
        let mut rows: Vec<Row> = ours
            .into_iter()
            .map(|(name, outcome)| Row {
                name,
                linux: Some(outcome),
                faultline: None,
            })
            .collect();
        for (name, outcome) in faultline {
            match rows.iter_mut().find(|row| row.name == name) {
                Some(row) => row.faultline = Some(outcome),
                None => rows.push(Row {
                    name,
                    linux: None,
                    faultline: Some(outcome),
                }),
            }
        }
        Self {
            source,
            linux,
            rows,
            remarks,
        }
    }

    /// The tests that came to something else on Faultline.
    pub fn differences(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| !row.is_alike())
    }
}

fn word(outcome: Option<&Outcome>) -> &str {
    outcome.map_or("not run", Outcome::word)
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.rows.iter().map(|row| row.name.len());
        let width = names.max().unwrap_or(0).max(self.source.len());
        let middle = self.linux.len().max(8);
        writeln!(f, "{:width$}  {:middle$}  Faultline", self.source, self.linux)?;
        for row in &self.rows {
            let (linux, faultline) = (word(row.linux.as_ref()), word(row.faultline.as_ref()));
            let mark = if row.is_alike() { "" } else { "  <--" };
            writeln!(f, "{:width$}  {linux:middle$}  {faultline}{mark}", row.name)?;
        }
        for row in self.differences() {
            writeln!(f, "\n{}:", row.name)?;
            for (system, outcome) in [(&*self.linux, &row.linux), ("Faultline", &row.faultline)] {
                let reason = outcome.as_ref().and_then(Outcome::reason);
                let reason = reason.map_or(String::new(), |reason| format!(": {reason}"));
                writeln!(f, "    {system}: {}{reason}", word(outcome.as_ref()))?;
            }
        }
        if !self.remarks.is_empty() {
            writeln!(f, "\nFaultline's kernel said:")?;
        }
        for line in &self.remarks {
            writeln!(f, "    {line}")?;
        }
        let differing = self.differences().count();
        write!(
            f,
            "\n{} alike, {differing} different",
            self.rows.len() - differing
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let linux = vec![
            ("a".to_owned(), Outcome::Done),
            ("b".to_owned(), Outcome::Skipped("one".into())),
            ("c".to_owned(), Outcome::Done),
            ("d".to_owned(), Outcome::Done),
        ];
        let faultline = vec![
            ("a".to_owned(), Outcome::Done),
            ("b".to_owned(), Outcome::Skipped("another".into())),
            ("d".to_owned(), Outcome::Failed("because".into())),
        ];
        Table::new("source".into(), ("Linux 6".into(), linux), faultline, vec![])
    }

    #[test]
    fn a_test_that_one_side_did_not_run_differs_and_a_reason_alone_does_not() {
        let differing: Vec<String> = table().differences().map(|row| row.name.clone()).collect();
        assert_eq!(differing, ["c", "d"]);
    }

    #[test]
    fn differences_are_shown_with_their_reasons() {
        let text = table().to_string();
        assert!(text.contains("Faultline: failed: because"), "{text}");
        assert!(text.contains("Faultline: not run"), "{text}");
        assert!(text.ends_with("2 alike, 2 different"), "{text}");
    }
}
