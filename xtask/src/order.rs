//! The order in which a workload touches the pages of its region.
//!
//! A custom order is a text file of page numbers, counted from 0, parted by white space or commas; `#` starts a
//! comment. It is checked here, where the file and the line can be named, and travels as the ramdisk entry `order`,
//! one decimal number a line.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::status::usage;

/// `--order`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Order {
    /// From the first page to the last.
    Sequential,
    /// A permutation drawn from the seed.
    Random,
    /// From the last page to the first.
    Reverse,
    /// The page numbers in a file.
    File(PathBuf),
}

impl FromStr for Order {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "sequential" => Self::Sequential,
            "random" => Self::Random,
            "reverse" => Self::Reverse,
            file => Self::File(file.into()),
        })
    }
}

impl Order {
    /// The value of the kernel's `order=` token.
    pub const fn token(&self) -> &'static str {
        match self {
            Self::Sequential => "sequential",
            Self::Random => "random",
            Self::Reverse => "reverse",
            Self::File(_) => "file",
        }
    }
}

/// The ramdisk's entry for an order that is a file.
///
/// # Errors
/// As [`read`].
pub fn entry(order: Option<&Order>, pages: u64) -> anyhow::Result<Option<String>> {
    match order {
        Some(Order::File(path)) => read(path, pages).map(Some),
        _ => Ok(None),
    }
}

/// Reads an order file for a region of `pages` pages; returns the ramdisk entry.
///
/// # Errors
/// A usage error that names file and line: not a number, or a page outside the region; no number at all. What is no
/// regular file is refused unread: a pipe may block for ever, and the file is read more than once.
pub fn read(path: &Path, pages: u64) -> anyhow::Result<String> {
    let unreadable = |error: std::io::Error| {
        let path = path.display();
        usage(format!(
            "--order {path}: neither sequential, random or reverse, nor a readable file: {error}"
        ))
    };
    let kind = std::fs::metadata(path).map_err(unreadable)?.file_type();
    if !kind.is_file() && !kind.is_dir() {
        return Err(usage(format!(
            "--order {} is not a regular file; copy it into one first",
            path.display()
        )));
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let mut entry = String::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        for word in line.split([' ', '\t', ',']).filter(|word| !word.is_empty()) {
            let place = format!("{}:{}", path.display(), number + 1);
            let page: u64 = word
                .parse()
                .map_err(|_| usage(format!("{place}: {word:?} is no page number")))?;
            if page >= pages {
                return Err(usage(format!(
                    "{place}: page {page} is outside the region's {pages} pages (0 to {})",
                    pages - 1
                )));
            }
            writeln!(entry, "{page}").expect("writing to a String cannot fail");
        }
    }
    if entry.is_empty() {
        return Err(usage(format!("{}: no page number in it", path.display())));
    }
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{self, Status};

    fn read_text(text: &str, pages: u64) -> anyhow::Result<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("order");
        std::fs::write(&path, text).unwrap();
        read(&path, pages)
    }

    #[test]
    fn numbers_are_taken_in_every_layout() {
        assert_eq!(
            read_text("3 1,2\t0\n# none 9\n 3 # again\n", 4).unwrap(),
            "3\n1\n2\n0\n3\n"
        );
    }

    #[test]
    fn defects_are_usage_errors_that_name_the_line() {
        for (text, wanted) in [
            ("1\nx\n", ":2: \"x\""),
            ("0\n1\n4\n", ":3: page 4"),
            ("-1", ":1"),
            ("# only\n", "no page number"),
        ] {
            let error = read_text(text, 4).unwrap_err();
            assert!(error.to_string().contains(wanted), "{error}");
            assert_eq!(status::of_error(&error), Status::Usage);
        }
    }

    #[test]
    fn a_missing_file_is_a_usage_error_too() {
        let error = read(Path::new("/nonexistent/sequentail"), 4).unwrap_err();
        assert_eq!(status::of_error(&error), Status::Usage);
    }

    #[test]
    #[cfg(unix)]
    fn what_is_no_regular_file_is_refused_unread() {
        let error = read(Path::new("/dev/zero"), 4).unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
        assert_eq!(status::of_error(&error), Status::Usage);
    }

    #[test]
    fn words_are_orders_and_anything_else_is_a_file() {
        assert_eq!("random".parse(), Ok(Order::Random));
        assert_eq!("pages.txt".parse(), Ok(Order::File("pages.txt".into())));
    }
}
