//! The differences that are meant: `tests/guest/differences.toml`.
//!
//! ```toml
//! [[difference]]
//! program = "fdinfo"                    # the program; "random" for random cases; * stands for any text
//! linux = "flags of the lock -> *"      # what Linux prints
//! faultline = "flags of the lock -> 0"  # what Faultline prints
//! after = ["* lock *"]                  # rows that come before, in this order, with others between them
//! reason = "one sentence"
//! ```
//!
//! Without `linux` or `faultline` that side may print anything, or nothing. A difference of random cases does not come up in
//! every run.

use std::collections::HashSet;

use anyhow::{Context, bail};

/// One entry.
#[derive(Clone, Debug)]
struct Entry {
    program: String,
    linux: Option<String>,
    faultline: Option<String>,
    after: Vec<String>,
    reason: String,
    used: usize,
}

/// The name under which differences of random cases are listed.
pub const RANDOM: &str = "random";

/// The file's entries, and how often each was needed.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    entries: Vec<Entry>,
}

impl Listed {
    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be read, or an entry lacks a program or a reason, or has a word that means nothing.
    pub fn read(path: &std::path::Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// Reads the text of such a file.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let document: toml_edit::DocumentMut = text.parse()?;
        let mut entries = Vec::new();
        for (name, item) in document.iter() {
            let tables = match (name, item.as_array_of_tables()) {
                ("difference", Some(tables)) => tables,
                _ => bail!("only [[difference]] is known here, not {name}"),
            };
            for table in tables {
                let word = |name: &str| table.get(name).and_then(|item| item.as_str()).map(str::to_owned);
                if let Some((name, _)) = table
                    .iter()
                    .find(|(name, _)| !["program", "linux", "faultline", "after", "reason"].contains(name))
                {
                    bail!("a difference has no {name}");
                }
                entries.push(Entry {
                    program: word("program").context("a difference without a program")?,
                    linux: word("linux"),
                    faultline: word("faultline"),
                    after: patterns(table.get("after"))?,
                    reason: word("reason").context("a difference without a reason")?,
                    used: 0,
                });
            }
        }
        Ok(Self { entries })
    }

    /// Why this difference is meant, if it is; `before` are the rows in front of it.
    pub fn reason<'a>(
        &mut self,
        program: &str,
        linux: Option<&str>,
        faultline: Option<&str>,
        before: impl Iterator<Item = &'a str> + Clone,
    ) -> Option<String> {
        let fits = |pattern: &Option<String>, row: Option<&str>| match (pattern, row) {
            (None, _) => true,
            (Some(pattern), Some(row)) => matches(pattern, row),
            (Some(_), None) => false,
        };
        let entry = self.entries.iter_mut().find(|entry| {
            let mut before = before.clone();
            matches(&entry.program, program)
                && fits(&entry.linux, linux)
                && fits(&entry.faultline, faultline)
                && entry
                    .after
                    .iter()
                    .all(|pattern| before.any(|row| matches(pattern, row)))
        })?;
        entry.used += 1;
        Some(entry.reason.clone())
    }

    /// The entries that were not needed although their program ran, each as one line. What random cases come to is not known.
    pub fn stale(&self, ran: &HashSet<&str>) -> Vec<String> {
        let named = |program: &&&str| **program != RANDOM;
        let unused = |entry: &&Entry| {
            entry.used == 0
                && ran
                    .iter()
                    .filter(named)
                    .any(|program| matches(&entry.program, program))
        };
        self.entries
            .iter()
            .filter(unused)
            .map(|entry| {
                let row = entry.linux.as_ref().or(entry.faultline.as_ref());
                format!(
                    "{}: {} ({})",
                    entry.program,
                    row.map_or("any row", |row| row),
                    entry.reason
                )
            })
            .collect()
    }
}

/// The patterns of a list, if there is one.
fn patterns(item: Option<&toml_edit::Item>) -> anyhow::Result<Vec<String>> {
    let Some(item) = item else { return Ok(Vec::new()) };
    let list = item.as_array().context("`after` is a list of rows")?;
    list.iter()
        .map(|row| {
            row.as_str()
                .map(str::to_owned)
                .context("`after` is a list of rows")
        })
        .collect()
}

/// Whether the text has the pattern's form; `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|text| {
            // The rest may begin anywhere, also at the very end.
            text.char_indices()
                .map(|(at, _)| at)
                .chain([text.len()])
                .any(|at| matches(rest, &text[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        assert!(matches("a*c", "abc"));
        assert!(matches("a*", "a"));
        assert!(matches("*b*", "abc"));
        assert!(!matches("a*c", "abd"));
        assert!(!matches("abc", "abcd"));
    }

    #[test]
    fn an_entry_that_nothing_needed_is_stale_when_its_program_ran() {
        let text =
            "[[difference]]\nprogram = 'one'\nreason = 'r'\n[[difference]]\nprogram = 'two'\nreason = 's'\n";
        let mut listed = Listed::parse(text).unwrap();
        let nothing = core::iter::empty();
        assert_eq!(
            listed.reason("one", Some("x"), None, nothing).as_deref(),
            Some("r")
        );
        assert_eq!(listed.stale(&HashSet::from(["one"])).len(), 0);
        assert_eq!(listed.stale(&HashSet::from(["one", "two"])).len(), 1);
    }

    #[test]
    fn an_entry_may_ask_for_rows_before_it_in_their_order() {
        let text =
            "[[difference]]\nprogram = 'random'\nlinux = '* c *'\nafter = ['* a *', '* b *']\nreason = 'r'\n";
        let mut listed = Listed::parse(text).unwrap();
        let mut reason = |rows: &[&str]| listed.reason(RANDOM, Some("3 c -> 1"), None, rows.iter().copied());
        assert_eq!(reason(&["0 b -> 1", "1 a -> 1"]), None);
        assert!(reason(&["0 a -> 1", "1 x -> 1", "2 b -> 1"]).is_some());
        assert!(Listed::parse("[[difference]]\nprogram = 'p'\nafter = 'x'\nreason = 'r'\n").is_err());
    }

    #[test]
    fn what_random_cases_have_not_come_to_is_not_stale() {
        let listed = Listed::parse("[[difference]]\nprogram = 'random'\nreason = 'r'\n").unwrap();
        assert_eq!(listed.stale(&HashSet::from([RANDOM])).len(), 0);
    }

    #[test]
    fn an_entry_that_says_too_little_or_too_much_is_refused() {
        assert!(Listed::parse("[[difference]]\nprogram = 'p'\n").is_err());
        assert!(Listed::parse("[[difference]]\nreason = 'r'\n").is_err());
        assert!(Listed::parse("[[difference]]\nprogram = 'p'\nreason = 'r'\nrow = 'x'\n").is_err());
        assert!(Listed::parse("[other]\n").is_err());
        assert!(Listed::parse("").is_ok());
    }
}
