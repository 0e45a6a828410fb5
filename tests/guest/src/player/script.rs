//! The text of a script.
//!
//! ```text
//! # from here to the end of the line: a remark
//! case 7            begins a case, up to the next one
//! m: map a0 8 anon rw
//! t0: w a3
//! ```

use super::control::ACTORS;

/// A script's cases, in order.
pub struct Script<'a> {
    pub cases: Vec<Case<'a>>,
}

/// Some steps that are played together, in a process of their own.
pub struct Case<'a> {
    pub name: &'a str,
    pub steps: Vec<Step<'a>>,
}

/// What one actor does.
pub struct Step<'a> {
    /// The index of the actor in [`ACTORS`].
    pub actor: usize,
    /// The line as it stands in the script.
    pub line: &'a str,
    /// What it does: the part behind the colon.
    pub what: &'a str,
}

impl<'a> Script<'a> {
    /// Reads the text. The error names the line.
    pub fn parse(text: &'a str) -> Result<Self, String> {
        let mut cases: Vec<Case<'a>> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let wrong = |what: &str| Err(format!("line {}: {what}: {line}", number + 1));
            if line.is_empty() {
                continue;
            }
            if let Some(name) = line.strip_prefix("case ") {
                cases.push(Case {
                    name: name.trim(),
                    steps: Vec::new(),
                });
                continue;
            }
            let Some((actor, what)) = line.split_once(':') else {
                return wrong("neither a case nor a step");
            };
            let Some(actor) = ACTORS.iter().position(|name| *name == actor) else {
                return wrong("no such actor");
            };
            match cases.last_mut() {
                Some(case) => case.steps.push(Step {
                    actor,
                    line,
                    what: what.trim(),
                }),
                None => return wrong("a step before the first case"),
            }
        }
        Ok(Self { cases })
    }
}
