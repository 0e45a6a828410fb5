//! One run of a machine: start it, follow what it says, enforce the limits, leave nothing running.
//!
//! A reader thread carries the emulator's standard output to the loop in [`run`]; the other channel is a file that
//! the loop follows. The loop ends when the process ends, a limit runs out, or a signal arrives; in each case the
//! process is gone afterwards ([`Guard`] sees to it on every path).

use std::fs::File;
use std::io::{self, Read};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use crate::record::Record;
use anyhow::Context;

use crate::interrupt;
use crate::machine::{Channel, Launch};
use crate::protocol::{Reader, Transcript};
use crate::verdict::{Ended, Limit};

/// Pause between two looks at the machine.
const POLL: Duration = Duration::from_millis(5);
/// How long an emulator may take to go after the closing record.
const GRACE: Duration = Duration::from_secs(10);

/// Seconds that a run may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// For the whole run.
    pub total: Option<u64>,
    /// Without a byte from the machine.
    pub silence: Option<u64>,
}

/// Who listens to a run.
pub trait Listener {
    /// A line of the serial console, without its end.
    fn serial(&mut self, line: &str);
    /// A record.
    fn record(&mut self, record: &Record);
    /// Called often, for clocks and progress bars.
    fn tick(&mut self) {}
}

/// A listener that hears nothing.
impl Listener for () {
    fn serial(&mut self, _: &str) {}
    fn record(&mut self, _: &Record) {}
}

/// A finished run.
#[derive(Clone, PartialEq, Debug)]
pub struct Outcome {
    /// What was said.
    pub transcript: Transcript,
    /// How the process ended.
    pub ended: Ended,
    /// How long it took.
    pub elapsed: Duration,
}

/// Runs a machine to its end.
///
/// # Errors
/// When the emulator cannot be started or its output cannot be read; not when the run fails.
pub fn run(launch: &Launch, limits: Limits, listener: &mut dyn Listener) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let mut guard = Guard(spawn(launch)?);
    let stdout = follow_stdout(&mut guard.0);
    let mut serial = Stream::open(&launch.serial)?;
    let mut records = Stream::open(&launch.records)?;
    let mut hearing = Hearing::new(listener);
    let mut heard_last = started;
    let mut closed_at = None;

    let ended = loop {
        // The process is looked at before its output, so that its last words are not missed.
        let exited = guard.0.try_wait().context("cannot wait for the emulator")?;
        if exited.is_some() {
            // The pipe's end is the reader thread's end: everything has been sent once it is closed.
            hearing.drain_pipe(&stdout, &mut serial, &mut records);
        }
        let heard = hearing.listen(&stdout, &mut serial, &mut records)?;
        if heard > 0 {
            heard_last = Instant::now();
        }
        if interrupt::requested() {
            break Ended::Interrupted;
        }
        if let Some(status) = exited {
            break ended(status);
        }
        if closed_at.is_none() && hearing.transcript.end().is_some() {
            closed_at = Some(Instant::now());
        }
        if closed_at.is_some_and(|at| at.elapsed() > GRACE) {
            break Ended::Lingered;
        }
        if let Some(limit) = limits.exceeded(started, heard_last) {
            break Ended::TimedOut(limit);
        }
        hearing.listener.tick();
        if heard == 0 {
            thread::sleep(POLL);
        }
    };
    drop(guard);
    Ok(Outcome {
        transcript: hearing.finish(),
        ended,
        elapsed: started.elapsed(),
    })
}

impl Limits {
    fn exceeded(self, started: Instant, heard_last: Instant) -> Option<Limit> {
        let over = |since: Instant, seconds: u64| since.elapsed() > Duration::from_secs(seconds);
        match (self.total, self.silence) {
            (Some(total), _) if over(started, total) => Some(Limit::Total(total)),
            (_, Some(silence)) if over(heard_last, silence) => Some(Limit::Silence(silence)),
            _ => None,
        }
    }
}

/// Kills the process when it goes out of scope.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // Both fail only when the process is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(launch: &Launch) -> anyhow::Result<Child> {
    let log = File::create(&launch.log).with_context(|| format!("cannot write {}", launch.log.display()))?;
    let mut command = launch.command.command();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        // A group of its own: Ctrl-C reaches xtask alone, which then ends the emulator in order.
        command.process_group(0);
    }
    command
        .spawn()
        .with_context(|| format!("cannot start {}", launch.command.program()))
}

#[cfg(unix)]
fn ended(status: ExitStatus) -> Ended {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Exited(code),
        (None, signal) => Ended::Signal(signal.unwrap_or(0)),
    }
}

#[cfg(not(unix))]
fn ended(status: ExitStatus) -> Ended {
    Ended::Exited(status.code().unwrap_or(-1))
}

fn follow_stdout(child: &mut Child) -> Receiver<Vec<u8>> {
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
enum Stream {
    Stdout { pending: Vec<u8> },
    File(File),
}

impl Stream {
    fn open(channel: &Channel) -> anyhow::Result<Self> {
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
struct Hearing<'a> {
    listener: &'a mut dyn Listener,
    transcript: Transcript,
    reader: Reader,
    line: Vec<u8>,
}

impl<'a> Hearing<'a> {
    fn new(listener: &'a mut dyn Listener) -> Self {
        Self {
            listener,
            transcript: Transcript::default(),
            reader: Reader::default(),
            line: Vec::new(),
        }
    }

    /// Waits for the end of the pipe, but not for ever: a grandchild could hold it open.
    fn drain_pipe(&mut self, stdout: &Receiver<Vec<u8>>, serial: &mut Stream, records: &mut Stream) {
        while let Ok(bytes) = stdout.recv_timeout(Duration::from_secs(1)) {
            serial.push(&bytes);
            records.push(&bytes);
        }
    }

    /// Handles everything that has come; returns how many bytes that was.
    fn listen(
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

    fn finish(mut self) -> Transcript {
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
    use crate::process::CommandLine;

    #[derive(Default)]
    struct Ears(Vec<String>);

    impl Listener for Ears {
        fn serial(&mut self, line: &str) {
            self.0.push(line.to_owned());
        }
        fn record(&mut self, record: &Record) {
            self.0.push(format!("{record:?}"));
        }
    }

    /// Runs a shell script as the emulator: serial on standard output, records to `$RECORDS`.
    fn play(script: &str, limits: Limits) -> (Outcome, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let records = dir.path().join("records");
        File::create(&records).unwrap();
        let launch = Launch {
            command: CommandLine::new("sh")
                .arg("-c")
                .arg(script)
                .var("RECORDS", &records),
            serial: Channel::Stdout,
            records: Channel::File(records),
            log: dir.path().join("log"),
            debugger: None,
        };
        let mut ears = Ears::default();
        let outcome = run(&launch, limits, &mut ears).unwrap();
        (outcome, ears.0)
    }

    const END: &str = r#"echo '{"End":{"status":"Success","message":"done"}}' >> $RECORDS"#;

    #[test]
    fn both_channels_and_the_status_arrive() {
        let (outcome, heard) = play(
            &format!("printf 'one\\r\\n\\033[2Jtwo'; {END}; exit 33"),
            Limits::default(),
        );
        assert_eq!(outcome.ended, Ended::Exited(33));
        assert!(outcome.transcript.end().is_some());
        assert!(
            heard.contains(&"one".to_owned()) && heard.contains(&"two".to_owned()),
            "{heard:?}"
        );
    }

    #[test]
    fn a_machine_that_says_nothing_is_killed_after_the_silence_limit() {
        let limits = Limits {
            total: Some(60),
            silence: Some(1),
        };
        let (outcome, _) = play("sleep 50", limits);
        assert_eq!(outcome.ended, Ended::TimedOut(Limit::Silence(1)));
        assert!(outcome.elapsed < Duration::from_secs(30));
    }

    #[test]
    fn a_machine_that_never_stops_talking_is_killed_after_the_total_limit() {
        let limits = Limits {
            total: Some(2),
            silence: Some(1),
        };
        let (outcome, _) = play("while true; do echo x; sleep 0.1; done", limits);
        assert_eq!(outcome.ended, Ended::TimedOut(Limit::Total(2)));
    }

    #[test]
    fn death_by_signal_is_told_from_an_exit() {
        let (outcome, _) = play("kill -9 $$", Limits::default());
        assert_eq!(outcome.ended, Ended::Signal(9));
    }

    #[test]
    fn a_missing_program_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let launch = Launch {
            command: CommandLine::new("faultline-no-such-program"),
            serial: Channel::Stdout,
            records: Channel::Stdout,
            log: dir.path().join("log"),
            debugger: None,
        };
        let error = run(&launch, Limits::default(), &mut ()).unwrap_err();
        assert!(error.to_string().contains("faultline-no-such-program"));
    }
}
