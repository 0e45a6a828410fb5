//! JSON without a heap, for the two records that must get out when nothing else works.
//!
//! [`crate::trace::emit()`] serialises records with serde, which allocates. A panic may have happened inside the heap,
//! and a run may end before there is one; so `Panic` and `End` are also written here, straight into a
//! [`fmt::Write`]. The tests read the lines back with serde, so the two writers cannot drift apart.

use core::fmt::{self, Write};

use super::record::ExitStatus;

/// What a panic record carries, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Panic<'a> {
    /// The message.
    pub message: fmt::Arguments<'a>,
    /// Source place, if known.
    pub location: fmt::Arguments<'a>,
    /// The task that ran.
    pub task: &'a str,
    /// Return addresses, innermost first.
    pub backtrace: &'a [u64],
}

/// Passes text on with what JSON strings cannot hold escaped.
struct Escape<'a, W>(&'a mut W);

impl<W: Write> Write for Escape<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| match c {
            '"' => self.0.write_str("\\\""),
            '\\' => self.0.write_str("\\\\"),
            '\n' => self.0.write_str("\\n"),
            c if c < ' ' => write!(self.0, "\\u{:04x}", u32::from(c)),
            c => self.0.write_char(c),
        })
    }
}

fn field(out: &mut impl Write, name: &str, value: fmt::Arguments) -> fmt::Result {
    write!(out, "\"{name}\":\"")?;
    Escape(out).write_fmt(value)?;
    out.write_char('"')
}

/// Writes [`super::record::Record::Panic`] as one line.
///
/// # Errors
/// What `out` returns.
pub fn write_panic(out: &mut impl Write, panic: &Panic) -> fmt::Result {
    out.write_str("{\"Panic\":{")?;
    field(out, "message", panic.message)?;
    out.write_char(',')?;
    field(out, "location", panic.location)?;
    out.write_char(',')?;
    field(out, "task", format_args!("{}", panic.task))?;
    out.write_str(",\"backtrace\":[")?;
    for (index, address) in panic.backtrace.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(out, "{comma}{address}")?;
    }
    out.write_str("]}}\n")
}

/// Writes [`super::record::Record::End`] as one line.
///
/// # Errors
/// What `out` returns.
pub fn write_end(out: &mut impl Write, status: ExitStatus, message: &str) -> fmt::Result {
    write!(out, "{{\"End\":{{\"status\":\"{status:?}\",")?;
    field(out, "message", format_args!("{message}"))?;
    out.write_str("}}\n")
}

#[cfg(test)]
mod tests {
    use alloc::string::{String, ToString};
    use alloc::vec;

    use super::super::record::Record;
    use super::*;

    #[test]
    fn panic_line_reads_back_as_the_panic_record() {
        let mut line = String::new();
        let panic = Panic {
            message: format_args!("index {} \"out\" of\nrange\\\u{1}é", 7),
            location: format_args!("a/b.rs:{}", 12),
            task: "init",
            backtrace: &[1, u64::MAX],
        };
        write_panic(&mut line, &panic).unwrap();
        assert_eq!(line.matches('\n').count(), 1);
        let expected = Record::Panic {
            message: "index 7 \"out\" of\nrange\\\u{1}é".to_string(),
            location: "a/b.rs:12".to_string(),
            task: "init".to_string(),
            backtrace: vec![1, u64::MAX],
        };
        assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), expected);
    }

    #[test]
    fn panic_without_backtrace_reads_back() {
        let mut line = String::new();
        let panic = Panic {
            message: format_args!(""),
            location: format_args!("?"),
            task: "",
            backtrace: &[],
        };
        write_panic(&mut line, &panic).unwrap();
        assert!(
            matches!(serde_json::from_str(&line).unwrap(), Record::Panic { backtrace, .. } if backtrace.is_empty())
        );
    }

    #[test]
    fn end_line_reads_back_for_every_status() {
        for status in [
            ExitStatus::Success,
            ExitStatus::Failed,
            ExitStatus::Usage,
            ExitStatus::Panic,
        ] {
            let mut line = String::new();
            write_end(&mut line, status, "tab\there").unwrap();
            let expected = Record::End {
                status,
                message: "tab\there".to_string(),
            };
            assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), expected);
        }
    }
}
