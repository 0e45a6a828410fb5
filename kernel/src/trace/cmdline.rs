//! The command line: `app key=value key=value ...`.
//!
//! Tokens are separated by white space and there is no quoting: no value has a space in it. The first token without
//! `=` names the application; keys come in any order, each once. Numbers are decimal or `0x` hexadecimal and take a
//! binary suffix `K`, `M` or `G`.
//!
//! The getters are typed and refuse with a [`CmdlineError`] that says which token is wrong and what would be right.
//! An application declares its keys with [`Cmdline::allow`], so a misspelt key is an error and never a silent default.
//! Nothing here allocates: `exit=` is read before there is a heap.

use core::fmt;

/// Keys that every application takes.
pub const COMMON_KEYS: [&str; 6] = ["deadline-ms", "exit", "hugepages", "icount", "log", "watch-ms"];

/// What is wrong with a command line; borrowed from it, printed as one sentence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CmdlineError<'a> {
    /// A word that is neither the application nor `key=value`.
    StrayWord(&'a str),
    /// A token with nothing before its `=`.
    NoKey(&'a str),
    /// A key that stands twice.
    Repeated(&'a str),
    /// A key that the application does not know.
    UnknownKey {
        /// The key.
        key: &'a str,
        /// Keys that it does know.
        known: &'static [&'static str],
    },
    /// A key that the application cannot do without.
    Missing(&'static str),
    /// A value that is no number, or one that does not fit.
    BadNumber {
        /// The key.
        key: &'static str,
        /// What stands there.
        value: &'a str,
        /// Smallest and largest number that are taken.
        range: (u64, u64),
    },
    /// A value that is none of the words that the key takes.
    BadChoice {
        /// The key.
        key: &'static str,
        /// What stands there.
        value: &'a str,
        /// What could stand there.
        choices: &'static [&'static str],
    },
}

impl fmt::Display for CmdlineError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::StrayWord(word) => write!(
                f,
                "`{word}` is no key=value; the application's name comes first, once"
            ),
            Self::NoKey(token) => write!(f, "`{token}` has no key before its `=`"),
            Self::Repeated(key) => write!(f, "`{key}=` stands twice; give it once"),
            Self::UnknownKey { key, known } => {
                write!(f, "`{key}=` is unknown; known are {}", Words(known))?;
                if !known.is_empty() {
                    f.write_str(", ")?;
                }
                write!(f, "{}", Words(&COMMON_KEYS))
            }
            Self::Missing(key) => write!(f, "`{key}=` is missing and has no default"),
            Self::BadNumber {
                key,
                value,
                range: (low, high),
            } => {
                write!(
                    f,
                    "`{key}={value}`: give a number from {low} to {high} (decimal, 0x.., suffix K, M or G)"
                )
            }
            Self::BadChoice { key, value, choices } => {
                write!(f, "`{key}={value}`: give one of {}", Words(choices))
            }
        }
    }
}

impl core::error::Error for CmdlineError<'_> {}

struct Words<'a>(&'a [&'static str]);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(index, word)| {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{word}")
        })
    }
}

/// The value of the first `key=` in `text`, with no check of the rest; for what must be known before all else.
pub fn lookup<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    pairs(text).find(|(name, _)| *name == key).map(|(_, value)| value)
}

fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split_ascii_whitespace()
        .filter_map(|token| token.split_once('='))
}

/// A well-formed command line.
#[derive(Clone, Copy, Debug)]
pub struct Cmdline<'a> {
    text: &'a str,
    app: Option<&'a str>,
}

impl<'a> Cmdline<'a> {
    /// Checks the form of `text`.
    ///
    /// # Errors
    /// A second word without `=`, a token that begins with `=`, a key that stands twice.
    pub fn parse(text: &'a str) -> Result<Self, CmdlineError<'a>> {
        let mut app = None;
        for (index, token) in text.split_ascii_whitespace().enumerate() {
            match token.split_once('=') {
                None if index == 0 => app = Some(token),
                None => return Err(CmdlineError::StrayWord(token)),
                Some(("", _)) => return Err(CmdlineError::NoKey(token)),
                Some((key, _)) if pairs(text).filter(|(name, _)| *name == key).count() > 1 => {
                    return Err(CmdlineError::Repeated(key));
                }
                Some(_) => {}
            }
        }
        Ok(Self { text, app })
    }

    /// The application that is asked for.
    pub fn app(&self) -> Option<&'a str> {
        self.app
    }

    /// The whole line.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// The keys and values, in the order they stand.
    pub fn pairs(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        pairs(self.text)
    }

    /// Refuses every key that is neither in `known` nor one of [`COMMON_KEYS`].
    ///
    /// # Errors
    /// The first such key.
    pub fn allow(&self, known: &'static [&'static str]) -> Result<(), CmdlineError<'a>> {
        let stranger = self
            .pairs()
            .find(|(key, _)| !known.contains(key) && !COMMON_KEYS.contains(key));
        match stranger {
            Some((key, _)) => Err(CmdlineError::UnknownKey { key, known }),
            None => Ok(()),
        }
    }

    /// The value of `key` as it stands.
    pub fn get(&self, key: &str) -> Option<&'a str> {
        lookup(self.text, key)
    }

    /// The value of a key that must be there.
    ///
    /// # Errors
    /// It is not there.
    pub fn required(&self, key: &'static str) -> Result<&'a str, CmdlineError<'a>> {
        self.get(key).ok_or(CmdlineError::Missing(key))
    }

    /// The number at `key`, from `low` to `high`; `None` when the key is not there.
    ///
    /// # Errors
    /// The value is no number or outside the range.
    pub fn number(&self, key: &'static str, low: u64, high: u64) -> Result<Option<u64>, CmdlineError<'a>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match parse_number(value) {
            Some(number) if (low..=high).contains(&number) => Ok(Some(number)),
            _ => Err(CmdlineError::BadNumber {
                key,
                value,
                range: (low, high),
            }),
        }
    }

    /// The number at a key that must be there.
    ///
    /// # Errors
    /// As [`number`](Self::number), or the key is not there.
    pub fn required_number(&self, key: &'static str, low: u64, high: u64) -> Result<u64, CmdlineError<'a>> {
        self.number(key, low, high)?.ok_or(CmdlineError::Missing(key))
    }

    /// Whether `key=1`; `key=0` and no key at all mean no.
    ///
    /// # Errors
    /// Any other value.
    pub fn flag(&self, key: &'static str) -> Result<bool, CmdlineError<'a>> {
        match self.get(key) {
            None | Some("0") => Ok(false),
            Some("1") => Ok(true),
            Some(value) => Err(CmdlineError::BadChoice {
                key,
                value,
                choices: &["0", "1"],
            }),
        }
    }

    /// Which of `choices` stands at `key`, as an index; `None` when the key is not there.
    ///
    /// # Errors
    /// The value is none of them.
    pub fn choice(
        &self,
        key: &'static str,
        choices: &'static [&'static str],
    ) -> Result<Option<usize>, CmdlineError<'a>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match choices.iter().position(|choice| *choice == value) {
            Some(index) => Ok(Some(index)),
            None => Err(CmdlineError::BadChoice { key, value, choices }),
        }
    }
}

/// A number as a person writes it; `None` when it is none or does not fit into 64 bits.
fn parse_number(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 10),
        b'm' | b'M' => (&text[..text.len() - 1], 20),
        b'g' | b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number = match digits.strip_prefix("0x") {
        Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => u64::from_str_radix(hex, 16).ok()?,
        None if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok()?,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec::Vec;

    use super::*;

    fn line(text: &str) -> Cmdline<'_> {
        Cmdline::parse(text).unwrap()
    }

    #[test]
    fn first_word_is_the_app_and_pairs_keep_their_order() {
        let line = line("  restore  b=2\ta=1=x c= ");
        assert_eq!(line.app(), Some("restore"));
        assert_eq!(
            line.pairs().collect::<Vec<_>>(),
            [("b", "2"), ("a", "1=x"), ("c", "")]
        );
        assert_eq!(line.get("a"), Some("1=x"));
        assert_eq!(line.get("d"), None);
    }

    #[test]
    fn app_may_be_absent() {
        assert_eq!(line("").app(), None);
        assert_eq!(line("exit=qemu").app(), None);
        assert_eq!(line("exit=qemu").get("exit"), Some("qemu"));
    }

    #[test]
    fn malformed_lines_are_refused_by_name() {
        assert_eq!(
            Cmdline::parse("cost now").unwrap_err(),
            CmdlineError::StrayWord("now")
        );
        assert_eq!(
            Cmdline::parse("a=1 cost").unwrap_err(),
            CmdlineError::StrayWord("cost")
        );
        assert_eq!(Cmdline::parse("cost =3").unwrap_err(), CmdlineError::NoKey("=3"));
        assert_eq!(
            Cmdline::parse("cost a=1 b=2 a=1").unwrap_err(),
            CmdlineError::Repeated("a")
        );
    }

    #[test]
    fn unknown_key_is_refused_and_common_keys_pass() {
        const KNOWN: &[&str] = &["pages"];
        assert_eq!(
            line("cost pages=1 exit=qemu icount=1 log=info").allow(KNOWN),
            Ok(())
        );
        let error = line("cost page=1").allow(KNOWN).unwrap_err();
        assert_eq!(
            error,
            CmdlineError::UnknownKey {
                key: "page",
                known: KNOWN
            }
        );
        assert_eq!(
            error.to_string(),
            "`page=` is unknown; known are pages, deadline-ms, exit, hugepages, icount, log, watch-ms"
        );
    }

    #[test]
    fn numbers_are_read_in_every_notation() {
        for (text, value) in [
            ("0", 0),
            ("1024", 1024),
            ("0xffffffffffffffff", u64::MAX),
            ("18446744073709551615", u64::MAX),
            ("64K", 64 << 10),
            ("64m", 64 << 20),
            ("0x10G", 16 << 30),
        ] {
            assert_eq!(parse_number(text), Some(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in [
            "",
            "K",
            "-1",
            "+1",
            "1.5",
            "0x",
            "0xK",
            "0x+1",
            "1KK",
            "18446744073709551616",
            "17179869184G",
            "é",
        ] {
            assert_eq!(parse_number(text), None, "{text}");
        }
    }

    #[test]
    fn number_outside_its_range_names_key_value_and_range() {
        let line = line("cost pages=0 n=7");
        let error = line.number("pages", 1, 9).unwrap_err();
        assert_eq!(
            error,
            CmdlineError::BadNumber {
                key: "pages",
                value: "0",
                range: (1, 9)
            }
        );
        assert_eq!(
            error.to_string(),
            "`pages=0`: give a number from 1 to 9 (decimal, 0x.., suffix K, M or G)"
        );
        assert_eq!(line.number("n", 7, 7), Ok(Some(7)));
        assert_eq!(line.number("m", 1, 9), Ok(None));
        assert_eq!(line.required_number("m", 1, 9), Err(CmdlineError::Missing("m")));
        assert_eq!(line.required("m"), Err(CmdlineError::Missing("m")));
        assert_eq!(line.required("n"), Ok("7"));
    }

    #[test]
    fn flags_and_choices_take_their_words_only() {
        let line = line("x a=1 b=0 c=yes d=random");
        assert_eq!(line.flag("a"), Ok(true));
        assert_eq!(line.flag("b"), Ok(false));
        assert_eq!(line.flag("z"), Ok(false));
        assert!(line.flag("c").is_err());
        const ORDERS: &[&str] = &["sequential", "random"];
        assert_eq!(line.choice("d", ORDERS), Ok(Some(1)));
        assert_eq!(line.choice("z", ORDERS), Ok(None));
        let error = line.choice("c", ORDERS).unwrap_err();
        assert_eq!(error.to_string(), "`c=yes`: give one of sequential, random");
    }
}
