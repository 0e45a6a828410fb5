//! The debug console's side of the host: bytes in, records out, live.
//!
//! The kernel writes one JSON record a line. Bytes arrive in pieces, so a line is taken only when its newline has
//! come. On Bochs other text shares the stream (the debugger's prompt may even stand before a record on the same
//! line); it is passed over. What begins like a record and is none is counted: such a run is no success.

use crate::record::{ExitStatus, Record, Report};

/// How every record's line begins.
const OPENING: &str = "{\"";

/// A line that should have been a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Malformed {
    /// The line, shortened.
    pub line: String,
    /// Why it is no record.
    pub reason: String,
}

/// Cuts a stream of bytes into records.
#[derive(Debug, Default)]
pub struct Reader {
    partial: Vec<u8>,
}

impl Reader {
    /// Takes the next bytes of the stream; returns the records that they completed.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Result<Record, Malformed>> {
        self.partial.extend_from_slice(bytes);
        let Some(last) = self.partial.iter().rposition(|byte| *byte == b'\n') else {
            return Vec::new();
        };
        let rest = self.partial.split_off(last + 1);
        let whole = std::mem::replace(&mut self.partial, rest);
        whole
            .split(|byte| *byte == b'\n')
            .filter_map(parse_line)
            .collect()
    }

    /// The stream has ended: what is left without a newline was cut off.
    pub fn finish(self) -> Option<Malformed> {
        match parse_line(&self.partial)? {
            Ok(_) => Some(malformed(&self.partial, "cut off before the end of its line")),
            Err(defect) => Some(defect),
        }
    }
}

fn parse_line(line: &[u8]) -> Option<Result<Record, Malformed>> {
    let text = String::from_utf8_lossy(line);
    let start = text.find(OPENING)?;
    let record = text[start..].trim_end();
    Some(serde_json::from_str(record).map_err(|error| malformed(record.as_bytes(), &error.to_string())))
}

fn malformed(line: &[u8], reason: &str) -> Malformed {
    let line: String = String::from_utf8_lossy(line).chars().take(200).collect();
    Malformed {
        line,
        reason: reason.to_owned(),
    }
}

/// A panic as the kernel told it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Panic {
    /// The message.
    pub message: String,
    /// Source place, if known.
    pub location: String,
    /// The task that ran.
    pub task: String,
    /// Return addresses, innermost first.
    pub backtrace: Vec<u64>,
}

/// All that was said in one run.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Transcript {
    /// The records in order.
    pub records: Vec<Record>,
    /// Lines that should have been records.
    pub malformed: Vec<Malformed>,
}

impl Transcript {
    /// Whether the kernel reported that it owns the machine.
    pub fn booted(&self) -> bool {
        self.records
            .iter()
            .any(|record| matches!(record, Record::Booted { .. }))
    }

    /// The first panic.
    pub fn panic(&self) -> Option<Panic> {
        self.records.iter().find_map(|record| match record {
            Record::Panic {
                message,
                location,
                task,
                backtrace,
            } => Some(Panic {
                message: message.clone(),
                location: location.clone(),
                task: task.clone(),
                backtrace: backtrace.clone(),
            }),
            _ => None,
        })
    }

    /// The application's report.
    pub fn report(&self) -> Option<&Report> {
        self.records.iter().find_map(|record| match record {
            Record::Report(report) => Some(report),
            _ => None,
        })
    }

    /// The closing record, which must be the last one.
    pub fn end(&self) -> Option<(ExitStatus, &str)> {
        match self.records.last()? {
            Record::End { status, message } => Some((*status, message)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: &str = "{\"End\":{\"status\":\"Success\",\"message\":\"done\"}}\n";
    const KNOWN: &str = "{\"TestKnown\":{\"name\":\"a::b\"}}\n";

    fn known() -> Record {
        Record::TestKnown { name: "a::b".into() }
    }

    fn end() -> Record {
        Record::End {
            status: ExitStatus::Success,
            message: "done".into(),
        }
    }

    #[test]
    fn records_come_out_whatever_the_pieces_are() {
        let stream = format!("{KNOWN}{END}");
        for size in 1..stream.len() {
            let mut reader = Reader::default();
            let records: Vec<Record> = stream
                .as_bytes()
                .chunks(size)
                .flat_map(|piece| reader.feed(piece))
                .map(Result::unwrap)
                .collect();
            assert_eq!(records, [known(), end()], "pieces of {size}");
            assert_eq!(reader.finish(), None);
        }
    }

    #[test]
    fn other_text_is_passed_over_even_on_the_same_line() {
        let mut reader = Reader::default();
        let records =
            reader.feed(format!("Bochs says hello\r\n<bochs:1> {KNOWN}\n(0) [{{0x1}}]\n").as_bytes());
        assert_eq!(records, [Ok(known())]);
    }

    #[test]
    fn a_torn_line_is_reported_and_the_next_one_is_read() {
        let mut reader = Reader::default();
        let records = reader.feed(format!("{{\"TestKnown\":{{\"na\n{END}").as_bytes());
        assert!(
            records[0]
                .as_ref()
                .is_err_and(|defect| defect.line == "{\"TestKnown\":{\"na")
        );
        assert_eq!(records[1], Ok(end()));
    }

    #[test]
    fn an_unknown_record_is_malformed() {
        let records = Reader::default().feed(b"{\"Surprise\":{}}\n");
        assert!(
            records[0]
                .as_ref()
                .is_err_and(|defect| defect.reason.contains("Surprise"))
        );
    }

    #[test]
    fn a_last_line_without_newline_was_cut_off() {
        let mut reader = Reader::default();
        assert!(reader.feed(END.trim_end().as_bytes()).is_empty());
        assert!(
            reader
                .finish()
                .is_some_and(|defect| defect.reason.contains("cut off"))
        );
        let mut reader = Reader::default();
        reader.feed(b"Bochs prompt");
        assert_eq!(reader.finish(), None);
    }

    #[test]
    fn bytes_that_are_no_text_do_no_harm() {
        let records = Reader::default().feed(b"\xff\xfe{\"TestKnown\":{\"name\":\"a::b\"}}\n");
        assert_eq!(records, [Ok(known())]);
    }

    #[test]
    fn end_counts_only_as_the_last_record() {
        let records = vec![end(), known()];
        assert_eq!(
            Transcript {
                records,
                malformed: vec![]
            }
            .end(),
            None
        );
    }
}
