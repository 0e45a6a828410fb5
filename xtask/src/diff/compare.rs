//! Where two transcripts of the same programs differ.

use std::collections::HashMap;

use super::listed::Listed;
use super::transcript::Section;

/// How rows are held against each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rows {
    /// Each for itself: a program's checks do not depend on one another.
    Each,
    /// Up to the first that differs: what comes after it in a random case is its consequence.
    UpToTheFirst,
}

/// A row that is not the same on both sides.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Difference {
    /// The program or case.
    pub section: String,
    /// What Linux printed; none where it printed no such row.
    pub linux: Option<String>,
    /// What Faultline printed.
    pub faultline: Option<String>,
    /// Why it is meant to be so, if it is.
    pub reason: Option<String>,
}

/// What a comparison has found.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Programs or cases that were compared.
    pub sections: usize,
    /// Rows that were compared.
    pub rows: usize,
    /// Rows that differ.
    pub differences: Vec<Difference>,
}

impl Comparison {
    /// The differences that nobody means.
    pub fn unlisted(&self) -> impl Iterator<Item = &Difference> {
        self.differences
            .iter()
            .filter(|difference| difference.reason.is_none())
    }

    /// Takes another comparison's findings in.
    pub fn add(&mut self, other: Self) {
        self.sections += other.sections;
        self.rows += other.rows;
        self.differences.extend(other.differences);
    }
}

/// Compares the sections of the same name. `program` is the name under which differences are listed; none: the section's.
pub fn compare(
    linux: &[Section],
    faultline: &[Section],
    rows: Rows,
    program: Option<&str>,
    listed: &mut Listed,
) -> Comparison {
    let there: HashMap<&str, &Section> = faultline
        .iter()
        .map(|section| (&*section.name, section))
        .collect();
    let mut found = Comparison::default();
    for section in linux {
        found.sections += 1;
        let mut pairs = match there.get(&*section.name) {
            Some(other) => paired(&ended(section), &ended(other)),
            None => vec![(
                section.rows.first().cloned().or_else(|| section.end.clone()),
                None,
            )],
        };
        let different = |(one, other): &(Option<String>, Option<String>)| one != other;
        if rows == Rows::UpToTheFirst
            && let Some(first) = pairs.iter().position(different)
        {
            pairs.truncate(first + 1);
        }
        found.rows += pairs.len();
        for (index, pair) in pairs.iter().enumerate().filter(|(_, pair)| different(pair)) {
            let (linux, faultline) = pair;
            let name = program.unwrap_or(&section.name);
            let before = pairs[..index].iter().filter_map(|(linux, _)| linux.as_deref());
            let reason = listed.reason(name, linux.as_deref(), faultline.as_deref(), before);
            found.differences.push(Difference {
                section: section.name.clone(),
                linux: linux.clone(),
                faultline: faultline.clone(),
                reason,
            });
        }
    }
    found
}

/// The rows and the end, as one more row.
fn ended(section: &Section) -> Vec<String> {
    let end = section.end.as_deref().unwrap_or("breaks off");
    section
        .rows
        .iter()
        .cloned()
        .chain([format!("end -> {end}")])
        .collect()
}

/// What a row is about: the part before the arrow.
fn subject(row: &str) -> &str {
    row.split_once(" -> ").map_or(row, |(subject, _)| subject)
}

/// Puts the rows beside each other that are about the same. A row that the other side has not stands alone.
fn paired(linux: &[String], faultline: &[String]) -> Vec<(Option<String>, Option<String>)> {
    let mut pairs = Vec::new();
    let (mut one, mut other) = (linux.iter(), faultline.iter());
    loop {
        match (one.as_slice(), other.as_slice()) {
            ([], []) => return pairs,
            ([first, ..], []) => {
                one.next();
                pairs.push((Some(first.clone()), None));
            }
            ([], [first, ..]) => {
                other.next();
                pairs.push((None, Some(first.clone())));
            }
            ([first, rest @ ..], [second, others @ ..]) => {
                let ahead = |rows: &[String], row: &String| {
                    rows.iter()
                        .position(|candidate| subject(candidate) == subject(row))
                };
                if subject(first) != subject(second) {
                    // The nearer of the two is where both sides meet again.
                    let (here, there) = (ahead(rest, second), ahead(others, first));
                    if here.is_some_and(|here| there.is_none_or(|there| here <= there)) {
                        one.next();
                        pairs.push((Some(first.clone()), None));
                        continue;
                    }
                    if there.is_some() {
                        other.next();
                        pairs.push((None, Some(second.clone())));
                        continue;
                    }
                }
                one.next();
                other.next();
                pairs.push((Some(first.clone()), Some(second.clone())));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(name: &str, rows: &[&str]) -> Section {
        Section {
            name: name.into(),
            rows: rows.iter().map(|row| (*row).to_owned()).collect(),
            end: Some("exit 0".into()),
        }
    }

    fn both(linux: &[&str], faultline: &[&str], rows: Rows) -> Comparison {
        let mut listed = Listed::default();
        compare(
            &[section("p", linux)],
            &[section("p", faultline)],
            rows,
            None,
            &mut listed,
        )
    }

    #[test]
    fn equal_transcripts_have_no_difference() {
        let found = both(&["a -> 1", "b -> 2"], &["a -> 1", "b -> 2"], Rows::Each);
        assert_eq!((found.rows, found.differences.len()), (3, 0));
    }

    #[test]
    fn rows_are_compared_by_what_they_are_about() {
        let found = both(
            &["a -> 1", "b -> 2", "c -> 3"],
            &["a -> 1", "x -> 9", "c -> 4"],
            Rows::Each,
        );
        let pairs: Vec<_> = found
            .differences
            .iter()
            .map(|row| (row.linux.as_deref(), row.faultline.as_deref()))
            .collect();
        assert_eq!(
            pairs,
            [(Some("b -> 2"), Some("x -> 9")), (Some("c -> 3"), Some("c -> 4"))]
        );
    }

    #[test]
    fn a_row_that_is_missing_shifts_nothing() {
        let found = both(&["a -> 1", "b -> 2", "c -> 3"], &["a -> 1", "c -> 3"], Rows::Each);
        assert_eq!(found.differences.len(), 1);
        assert_eq!(found.differences[0].linux.as_deref(), Some("b -> 2"));
        let found = both(&["a -> 1", "c -> 3"], &["a -> 1", "b -> 2", "c -> 3"], Rows::Each);
        assert_eq!(found.differences.len(), 1);
        assert_eq!(found.differences[0].faultline.as_deref(), Some("b -> 2"));
    }

    #[test]
    fn what_follows_the_first_difference_of_a_case_is_not_held_against_it() {
        let found = both(&["a -> 1", "b -> 2"], &["a -> 9", "b -> 9"], Rows::UpToTheFirst);
        assert_eq!((found.rows, found.differences.len()), (1, 1));
    }

    #[test]
    fn a_program_that_is_missing_or_broken_off_differs() {
        let mut listed = Listed::default();
        let linux = [section("p", &["a -> 1"])];
        assert_eq!(
            compare(&linux, &[], Rows::Each, None, &mut listed)
                .differences
                .len(),
            1
        );
        let broken = [Section {
            end: None,
            ..section("p", &["a -> 1"])
        }];
        let found = compare(&linux, &broken, Rows::Each, None, &mut listed);
        assert_eq!(
            found.differences[0].faultline.as_deref(),
            Some("end -> breaks off")
        );
    }

    #[test]
    fn a_listed_difference_carries_its_reason() {
        let mut listed = Listed::parse(
            "[[difference]]\nprogram = 'p'\nlinux = 'a -> *'\nfaultline = 'a -> 2'\nreason = 'because'\n",
        )
        .unwrap();
        let found = compare(
            &[section("p", &["a -> 1", "b -> 1"])],
            &[section("p", &["a -> 2", "b -> 2"])],
            Rows::Each,
            None,
            &mut listed,
        );
        assert_eq!(found.differences[0].reason.as_deref(), Some("because"));
        assert_eq!(found.unlisted().count(), 1);
    }
}
