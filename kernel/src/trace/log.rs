//! The `log` crate's backend: one line on the console per message, with the time since start.

use core::str::FromStr;

use log::{LevelFilter, Log, Metadata, Record};

use crate::arch::{Clock, Machine};
use crate::println;

struct ConsoleLog;

impl Log for ConsoleLog {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            let target = record.target();
            let target = target.strip_prefix("kernel::").unwrap_or(target);
            println!(
                "{} {:5} {target}: {}",
                Stamp::now(),
                record.level(),
                record.args()
            );
        }
    }

    fn flush(&self) {}
}

/// Seconds and microseconds since the clock started; blank while its frequency is unknown.
struct Stamp(Option<u64>);

impl Stamp {
    fn now() -> Self {
        let micros = |frequency| u128::from(Machine::ticks()) * 1_000_000 / u128::from(frequency);
        match Machine::frequency() {
            0 => Self(None),
            frequency => Self(Some(micros(frequency) as u64)),
        }
    }
}

impl core::fmt::Display for Stamp {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Some(micros) => write!(f, "[{:4}.{:06}]", micros / 1_000_000, micros % 1_000_000),
            None => f.write_str("[           ]"),
        }
    }
}

/// Sends what the kernel logs to the console, from `info` on.
pub fn start() {
    static LOG: ConsoleLog = ConsoleLog;
    // A second call finds the logger set, which is what it wants.
    let _ = log::set_logger(&LOG);
    set_level(Level(LevelFilter::Info));
}

/// How much is logged: `off`, `error`, `warn`, `info`, `debug` or `trace`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Level(LevelFilter);

impl FromStr for Level {
    type Err = log::ParseLevelError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        word.parse().map(Self)
    }
}

/// Chooses how much is logged.
pub fn set_level(level: Level) {
    log::set_max_level(level.0);
}
