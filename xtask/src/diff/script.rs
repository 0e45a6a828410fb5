//! Scripts for the player of `tests/guest`: what the generator makes, the shrinker cuts, and `--script` replays.

use std::fmt;

use anyhow::bail;

/// A case: steps that are played together, in a process of their own.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Case {
    /// Its name in the transcript.
    pub name: String,
    /// Its steps, `ACTOR: WHAT` each.
    pub steps: Vec<String>,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "case {}", self.name)?;
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

/// The cases as one text.
pub fn text(cases: &[Case]) -> String {
    cases.iter().map(Case::to_string).collect()
}

/// Reads a script. What the steps mean is the player's business.
///
/// # Errors
/// Names the line that is neither.
pub fn parse(text: &str) -> anyhow::Result<Vec<Case>> {
    let mut cases: Vec<Case> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        match (line.strip_prefix("case "), cases.last_mut()) {
            (Some(name), _) => cases.push(Case {
                name: name.trim().to_owned(),
                steps: Vec::new(),
            }),
            (None, Some(case)) if line.contains(": ") => case.steps.push(line.to_owned()),
            _ => bail!("line {}: neither a case nor a step: {line}", number + 1),
        }
    }
    Ok(cases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_back_as_it_was_written() {
        let cases = vec![
            Case {
                name: "1".into(),
                steps: vec!["m: map a0 8 anon rw".into(), "t0: w a3".into()],
            },
            Case {
                name: "empty".into(),
                steps: vec![],
            },
        ];
        assert_eq!(parse(&text(&cases)).unwrap(), cases);
    }

    #[test]
    fn remarks_and_empty_lines_say_nothing() {
        let cases = parse("# seed 1\n\ncase x # the first\n m: close 0\n").unwrap();
        assert_eq!(text(&cases), "case x\nm: close 0\n");
    }

    #[test]
    fn a_line_that_is_no_step_is_named() {
        assert!(parse("m: close 0\n").unwrap_err().to_string().contains("line 1"));
        assert!(
            parse("case x\nclose\n")
                .unwrap_err()
                .to_string()
                .contains("line 2")
        );
    }
}
