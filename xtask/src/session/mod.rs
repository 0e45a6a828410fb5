//! One run of a machine: start it, follow what it says, enforce the limits, leave nothing running.
//!
//! A reader thread carries the emulator's standard output to the loop in [`run`]; the other channel is a file that
//! the loop follows. The loop ends when the process ends, a limit runs out, or a signal arrives; in each case the
//! process is gone afterwards (`Guard` sees to it on every path).

use std::fs::File;
use std::process::{Child, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

use self::hearing::{Hearing, Stream, follow_stdout};
use crate::interrupt;
use crate::machine::Launch;
use crate::protocol::Transcript;
use crate::record::Record;
use crate::verdict::{Ended, Limit};

mod hearing;

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
    /// Whether the run has lost its purpose. It ends as if it had been interrupted.
    fn is_over(&self) -> bool {
        false
    }
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
        if interrupt::requested() || hearing.listener.is_over() {
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

/// Milliseconds after power-on at which the kernel ends a run that may take so many seconds: enough before the end for it to
/// say why, and for an emulator that started late.
pub fn kernel_deadline(timeout: u64) -> u64 {
    let all = timeout.saturating_mul(1000);
    all - (all / 4).min(5000)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Channel;
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
            total: Some(6),
            silence: Some(5),
        };
        let (outcome, _) = play("while true; do echo x; sleep 0.1; done", limits);
        assert_eq!(outcome.ended, Ended::TimedOut(Limit::Total(6)));
    }

    #[test]
    fn death_by_signal_is_told_from_an_exit() {
        let (outcome, _) = play("kill -9 $$", Limits::default());
        assert_eq!(outcome.ended, Ended::Signal(9));
    }

    #[test]
    fn a_listener_ends_a_run_that_has_lost_its_purpose() {
        struct Bored;
        impl Listener for Bored {
            fn serial(&mut self, _: &str) {}
            fn record(&mut self, _: &Record) {}
            fn is_over(&self) -> bool {
                true
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let launch = Launch {
            command: CommandLine::new("sleep").arg("50"),
            serial: Channel::Stdout,
            records: Channel::Stdout,
            log: dir.path().join("log"),
            debugger: None,
        };
        let outcome = run(&launch, Limits::default(), &mut Bored).unwrap();
        assert_eq!(outcome.ended, Ended::Interrupted);
    }

    #[test]
    fn the_kernels_deadline_is_a_quarter_earlier_but_no_more_than_five_seconds() {
        for (timeout, ms) in [
            (1, 750),
            (4, 3000),
            (20, 15_000),
            (120, 115_000),
            (u64::MAX, u64::MAX - 5000),
        ] {
            assert_eq!(kernel_deadline(timeout), ms, "{timeout} s");
        }
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
