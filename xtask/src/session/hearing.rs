//! What comes out of a running machine: bytes from a pipe and a file, cut into serial lines and records.

use std::fs::File;
use std::io::{self, Read};
use std::process::Child;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyhow::Context;

use super::Listener;
use crate::machine::Channel;
use crate::protocol::{Reader, Transcript};

/// Carries the standard output of `child` to a channel, which closes when the output does.
pub fn follow_stdout(child: &mut Child) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    let mut stdout = child.stdout.take().expect("spawn pipes the standard output");
    thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(n @ 1..) = stdout.read(&mut buffer) {
            if sender.send(buffer[..n].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// A channel being read.
pub enum Stream {
    /// Standard output, with what has come and was not taken.
    Stdout {
        /// The bytes.
        pending: Vec<u8>,
    },
    /// A file that grows.
    File(File),
}

impl Stream {
    /// Opens it.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(channel: &Channel) -> anyhow::Result<Self> {
        Ok(match channel {
            Channel::Stdout => Self::Stdout { pending: Vec::new() },
            Channel::File(path) => {
                Self::File(File::open(path).with_context(|| format!("cannot read {}", path.display()))?)
            }
        })
    }

    /// What has come since the last call.
    fn take(&mut self) -> io::Result<Vec<u8>> {
        match self {
            Self::Stdout { pending } => Ok(std::mem::take(pending)),
            Self::File(file) => {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes)?;
                Ok(bytes)
            }
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        if let Self::Stdout { pending } = self {
            pending.extend_from_slice(bytes);
        }
    }
}

/// Turns bytes into lines and records, and tells the listener.
pub struct Hearing<'a> {
    /// Who is told.
    pub listener: &'a mut dyn Listener,
    /// What was said so far.
    pub transcript: Transcript,
    reader: Reader,
    line: Vec<u8>,
}

impl<'a> Hearing<'a> {
    /// Nothing heard so far.
    pub fn new(listener: &'a mut dyn Listener) -> Self {
        Self {
            listener,
            transcript: Transcript::default(),
            reader: Reader::default(),
            line: Vec::new(),
        }
    }

    /// Waits for the end of the pipe, but not for ever: a grandchild could hold it open.
    pub fn drain_pipe(&mut self, stdout: &Receiver<Vec<u8>>, serial: &mut Stream, records: &mut Stream) {
        while let Ok(bytes) = stdout.recv_timeout(Duration::from_secs(1)) {
            serial.push(&bytes);
            records.push(&bytes);
        }
    }

    /// Handles everything that has come; returns how many bytes that was.
    pub fn listen(
        &mut self,
        stdout: &Receiver<Vec<u8>>,
        serial: &mut Stream,
        records: &mut Stream,
    ) -> anyhow::Result<usize> {
        for bytes in stdout.try_iter() {
            serial.push(&bytes);
            records.push(&bytes);
        }
        let text = serial.take().context("cannot read the serial output")?;
        let lines = records.take().context("cannot read the debug console")?;
        self.hear_serial(&text);
        self.hear_records(&lines);
        Ok(text.len() + lines.len())
    }

    fn hear_serial(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => self.flush_line(),
                b'\r' => {}
                byte => self.line.push(*byte),
            }
        }
    }

    fn flush_line(&mut self) {
        let line = printable(&std::mem::take(&mut self.line));
        self.listener.serial(line.trim_end());
    }

    fn hear_records(&mut self, bytes: &[u8]) {
        for item in self.reader.feed(bytes) {
            match item {
                Ok(record) => {
                    self.listener.record(&record);
                    self.transcript.records.push(record);
                }
                Err(defect) => self.transcript.malformed.push(defect),
            }
        }
    }

    /// Everything has been heard; what was cut off is told too.
    pub fn finish(mut self) -> Transcript {
        if !self.line.is_empty() {
            self.flush_line();
        }
        self.transcript.malformed.extend(self.reader.finish());
        self.transcript
    }
}

/// A line without terminal control sequences, which firmware sends plenty of.
fn printable(line: &[u8]) -> String {
    let mut out = String::new();
    let text = String::from_utf8_lossy(line);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' && chars.next_if_eq(&'[').is_some() {
            // A control sequence ends with a character from `@` to `~` (ECMA-48, 5.4).
            for c in chars.by_ref() {
                if ('@'..='~').contains(&c) {
                    break;
                }
            }
        } else if !c.is_control() || c == '\t' {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_sequences_are_dropped_and_text_stays() {
        assert_eq!(
            printable(b"\x1b[2J\x1b[01;31mBdsDxe\x1b[0m: \x07a\tb"),
            "BdsDxe: a\tb"
        );
        assert_eq!(printable(b"\xff\x1b"), "\u{fffd}");
    }
}
