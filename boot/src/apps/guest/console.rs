//! What a guest prints.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use hv::ports::Sink;
use kernel::lab::digest;
use kernel::println;
use kernel::sync::SpinLock;

/// Lines that are kept as they are; more are counted and digested.
const KEPT: usize = 256;

/// The console of one guest: prints its lines at the host's, and remembers them.
#[derive(Debug)]
pub struct Console {
    name: String,
    printed: SpinLock<Printed>,
}

/// Lines of a guest.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Printed {
    /// How many.
    pub count: u64,
    /// Of all of them, in order.
    digest: u128,
    /// The first [`KEPT`].
    first: Vec<String>,
}

impl Console {
    /// The console of the guest that is called `name`.
    pub fn new(name: impl Into<String>) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            printed: SpinLock::new(Printed::default()),
        })
    }

    /// Where its machine sends lines.
    pub fn sink(self: &Arc<Self>) -> Sink {
        let console = Arc::clone(self);
        Box::new(move |line| console.line(line))
    }

    fn line(&self, line: &str) {
        println!("{}: {line}", self.name);
        let mut printed = self.printed.lock();
        let mut chain = Vec::from(printed.digest.to_le_bytes());
        chain.extend_from_slice(line.as_bytes());
        printed.digest = digest::of(&chain);
        printed.count += 1;
        if printed.first.len() < KEPT {
            printed.first.push(line.into());
        }
    }

    /// What was printed since this was last asked.
    pub fn take(&self) -> Printed {
        core::mem::take(&mut *self.printed.lock())
    }
}

impl Printed {
    /// In one sentence, where these lines differ from those that were `expected`; `None` if they do not.
    pub fn difference(&self, expected: &Self) -> Option<String> {
        if self == expected {
            return None;
        }
        let mut both = self.first.iter().zip(&expected.first).enumerate();
        if let Some((line, (found, expected))) = both.find(|(_, (found, expected))| found != expected) {
            let line = line + 1;
            return Some(format!("line {line} is {found:?}, expected {expected:?}"));
        }
        if self.count != expected.count {
            return Some(format!(
                "{} lines were printed, expected {}",
                self.count, expected.count
            ));
        }
        Some(format!(
            "one of {} lines behind the first {KEPT} is another",
            self.count
        ))
    }
}
