//! The shortest case that still differs.
//!
//! A round tries to leave out each stretch of a length, all as cases of one script, because a machine that boots for each
//! of them would take most of the time. What can be left out together is left out; otherwise the first that can. Then
//! stretches of half the length are tried.

use super::script::Case;

/// Leaves steps out of `case`, which differs, as long as `differ` says of what is left that it still does. `differ` is
/// given many candidates at once and answers for each.
///
/// # Errors
/// What `differ` reports.
pub fn shrink(
    case: &Case,
    mut differ: impl FnMut(&[Case]) -> anyhow::Result<Vec<bool>>,
) -> anyhow::Result<Case> {
    let mut best = case.clone();
    let mut stretch = best.steps.len().div_ceil(2);
    while stretch > 0 {
        let starts: Vec<usize> = (0..best.steps.len()).step_by(stretch).collect();
        let candidates: Vec<Case> = starts
            .iter()
            .enumerate()
            .map(|(number, start)| without(&best, &[*start], stretch, number))
            .collect();
        let verdicts = differ(&candidates)?;
        let spare: Vec<usize> = starts
            .iter()
            .zip(&verdicts)
            .filter(|(_, differs)| **differs)
            .map(|(start, _)| *start)
            .collect();
        let next = match &*spare {
            [] => None,
            [one] => Some(without(&best, &[*one], stretch, 0)),
            [first, ..] => {
                // From all of them down to one, whatever still differs.
                let mut tries = Vec::new();
                let mut count = spare.len();
                while count > 1 {
                    tries.push(without(&best, &spare[..count], stretch, tries.len()));
                    count = count.div_ceil(2).min(count - 1);
                }
                let verdicts = differ(&tries)?;
                let found = tries.into_iter().zip(verdicts).find(|(_, differs)| *differs);
                Some(found.map_or_else(|| without(&best, &[*first], stretch, 0), |(case, _)| case))
            }
        };
        match next {
            Some(shorter) => {
                best.steps = shorter.steps;
                stretch = stretch.min(best.steps.len());
            }
            None => stretch /= 2,
        }
    }
    Ok(best)
}

/// The case without the stretches that begin at these steps.
fn without(case: &Case, starts: &[usize], stretch: usize, number: usize) -> Case {
    let kept = |index: usize| {
        !starts
            .iter()
            .any(|start| (*start..*start + stretch).contains(&index))
    };
    Case {
        name: format!("{}-{number}", case.name),
        steps: case
            .steps
            .iter()
            .enumerate()
            .filter(|(index, _)| kept(*index))
            .map(|(_, step)| step.clone())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(steps: usize) -> Case {
        Case {
            name: "c".into(),
            steps: (0..steps).map(|step| step.to_string()).collect(),
        }
    }

    /// Shrinks a case that differs as long as it holds all of these steps; also answers how many rounds that took.
    fn shrunk(steps: usize, needed: &[&str]) -> (Vec<String>, usize) {
        let mut rounds = 0;
        let shortest = shrink(&case(steps), |cases| {
            rounds += 1;
            let holds = |case: &Case| {
                needed
                    .iter()
                    .all(|step| case.steps.iter().any(|other| other == step))
            };
            Ok(cases.iter().map(holds).collect())
        });
        (shortest.unwrap().steps, rounds)
    }

    #[test]
    fn only_what_is_needed_is_left() {
        assert_eq!(shrunk(40, &["3", "17", "39"]).0, ["3", "17", "39"]);
        assert_eq!(shrunk(1, &["0"]).0, ["0"]);
        assert_eq!(shrunk(7, &["0", "6"]).0, ["0", "6"]);
    }

    #[test]
    fn many_candidates_go_into_one_round() {
        let (_, rounds) = shrunk(60, &["3", "17", "39"]);
        assert!(rounds < 25, "{rounds}");
    }

    #[test]
    fn a_case_that_differs_without_any_step_shrinks_to_none() {
        assert_eq!(shrunk(5, &[]).0.len(), 0);
    }

    #[test]
    fn an_error_of_the_comparison_is_passed_on() {
        assert!(shrink(&case(3), |_| anyhow::bail!("no machine")).is_err());
    }
}
