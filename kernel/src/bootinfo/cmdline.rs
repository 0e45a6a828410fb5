//! The command line as a loader leaves it: bytes.

use core::fmt;
use core::str;

use arrayvec::ArrayString;

use super::MAX_CMDLINE;

/// What is wrong with the loader's command line. The part before it is kept, since it may say how the run ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CmdlineProblem {
    /// Longer than [`MAX_CMDLINE`].
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// Not UTF-8.
    NotUtf8 {
        /// Offset of the first offending byte.
        at: usize,
    },
}

impl fmt::Display for CmdlineProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { len } => {
                write!(
                    f,
                    "the command line has {len} bytes; at most {MAX_CMDLINE} are possible"
                )
            }
            Self::NotUtf8 { at } => write!(f, "the command line is not UTF-8 from byte {at} on"),
        }
    }
}

/// Takes over a command line, without white space and zero bytes around it.
pub fn parse(bytes: &[u8]) -> (ArrayString<MAX_CMDLINE>, Option<CmdlineProblem>) {
    let (text, problem) = match str::from_utf8(bytes) {
        Ok(text) => (text, None),
        Err(error) => {
            let at = error.valid_up_to();
            (
                str::from_utf8(&bytes[..at]).unwrap_or_default(),
                Some(CmdlineProblem::NotUtf8 { at }),
            )
        }
    };
    let text = text.trim_matches(|c: char| c == '\0' || c.is_whitespace());
    let problem =
        problem.or((text.len() > MAX_CMDLINE).then_some(CmdlineProblem::TooLong { len: text.len() }));
    let fitting = text.floor_char_boundary(MAX_CMDLINE);
    (ArrayString::from(&text[..fitting]).unwrap_or_default(), problem)
}

#[cfg(test)]
mod tests {
    use std::string::String;

    use super::*;

    #[test]
    fn text_is_taken_over_without_surrounding_blanks() {
        let (text, problem) = parse(b"  restore exit=qemu\n\0\0");
        assert_eq!((text.as_str(), problem), ("restore exit=qemu", None));
        assert_eq!(parse(b"").0.as_str(), "");
    }

    #[test]
    fn longest_line_fits_and_one_byte_more_is_reported() {
        let longest = "x".repeat(MAX_CMDLINE);
        assert_eq!(
            parse(longest.as_bytes()),
            (ArrayString::from(&longest).unwrap(), None)
        );
        let longer = longest.clone() + "y";
        let (text, problem) = parse(longer.as_bytes());
        assert_eq!(text.as_str(), longest);
        assert_eq!(problem, Some(CmdlineProblem::TooLong { len: MAX_CMDLINE + 1 }));
    }

    #[test]
    fn long_line_is_not_cut_inside_a_character() {
        let long = String::from("é").repeat(MAX_CMDLINE);
        let (text, problem) = parse(&long.as_bytes()[..long.len() - 1]);
        assert!(text.chars().all(|c| c == 'é'));
        assert!(matches!(problem, Some(CmdlineProblem::NotUtf8 { .. })));
    }

    #[test]
    fn bytes_that_are_not_text_are_reported_and_what_precedes_them_is_kept() {
        let (text, problem) = parse(b"exit=qemu \xff\xfe");
        assert_eq!(
            (text.as_str(), problem),
            ("exit=qemu", Some(CmdlineProblem::NotUtf8 { at: 10 }))
        );
    }
}
