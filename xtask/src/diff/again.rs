//! Differences that are Linux's chance.
//!
//! A busy Linux now and then says of a case what it does not say again: a thread looked at an entry of the page tables while
//! another one replaced it, or fell asleep where it mostly does not. So a case that differs is played more often, on both
//! sides. When everybody then says what Faultline said at first, it was Linux that said something else by chance. When
//! Faultline is the one that changes its mind, that is a difference like any other.

use super::script::Case;
use super::transcript::Section;

/// Plays that decide.
const PLAYS: usize = 6;

/// Why such a difference does not count.
pub const REASON: &str = "Linux said so once; played six times more, both sides say what Faultline said";

/// A case as many times as it takes.
pub fn plays(case: &Case) -> Vec<Case> {
    (0..PLAYS)
        .map(|number| Case {
            name: format!("{}-{number}", case.name),
            steps: case.steps.clone(),
        })
        .collect()
}

/// Whether the plays of both sides, `all` of them, say what Faultline said at first.
pub fn all_say(all: &[Section], first: &Section) -> bool {
    all.len() == 2 * PLAYS
        && all
            .iter()
            .all(|section| section.rows == first.rows && section.end == first.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(row: &str) -> Section {
        Section {
            name: "7-1".into(),
            rows: vec![row.into()],
            end: Some("exit 0".into()),
        }
    }

    #[test]
    fn it_was_chance_only_when_everybody_says_what_faultline_said_at_first() {
        let first = section("w a0 -> ok");
        let mut all = vec![first.clone(); 2 * PLAYS];
        assert!(all_say(&all, &first));
        assert!(
            !all_say(&all, &section("w a0 -> waits S")),
            "Faultline changed its mind"
        );
        all[PLAYS - 1] = section("w a0 -> waits D");
        assert!(!all_say(&all, &first), "Linux says it more often");
    }

    #[test]
    fn a_play_that_is_missing_or_broken_off_decides_nothing_in_favour_of_anybody() {
        let first = section("w a0 -> ok");
        let mut all = vec![first.clone(); 2 * PLAYS];
        all[3].end = None;
        assert!(!all_say(&all, &first));
        all.remove(3);
        assert!(!all_say(&all, &first));
    }

    #[test]
    fn a_case_is_played_under_names_of_its_own() {
        let case = Case {
            name: "7".into(),
            steps: vec!["m: vmas a0 1".into()],
        };
        let plays = plays(&case);
        assert_eq!(plays.len(), PLAYS);
        assert!(plays.iter().all(|play| play.steps == case.steps));
        let names: std::collections::HashSet<_> = plays.iter().map(|play| &play.name).collect();
        assert_eq!(names.len(), PLAYS);
    }
}
