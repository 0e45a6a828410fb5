//! `workload`: work on delegated memory whose result says whether every page was right.
//!
//! ```text
//!   fill every page from the seed ─► compute ─► Mark(1) ─► rounds: every task takes its part of the pages, in the seed's order:
//!                                                          load all of a page, compare, store one word or none
//!                                                       ─► digest of all pages ─► exit
//! ```
//!
//! Restored with delegated memory that it is to serve itself, it starts its monitor ([`serve`]) before the rounds.
//!
//! What it prints is the same however it is restored; with `counts=1` its monitor says besides what it has done.
//!
//! The result depends on the seed, the numbers on the command line and nothing else. So a guest that was saved at the mark
//! and goes on elsewhere, with its delegated memory absent, has to come to the same digest as one that was not.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use kernel::abi::guest::{BootInfo, Delivery, PAGE, Resumed};
use kernel::arch::{Irq, Machine};
use kernel::guest::calls;
use kernel::lab::digest;
use kernel::lab::order::Order;
use kernel::lab::rng::SplitMix64;
use kernel::println;
use kernel::sync::SpinLock;
use kernel::task::spawn::{JoinHandle, spawn_returning};
use kernel::task::{Completion, WaitReason};
use kernel::trace::cmdline::Cmdline;

use crate::commands::{Command, Failure};
use crate::delegated::{WORDS, Window};
use crate::serve::{self, Manner, Plan};

/// See the module.
pub const COMMANDS: &[Command] = &[Command {
    name: "workload",
    run,
}];

const KEYS: &[&str] = &[
    "seed", "tasks", "rounds", "compute", "writes", "monitor", "counts", "exempt", "views", "held",
];

/// The mark at which the machine can be saved.
pub const MARK: u64 = 1;

type Page = [u64; WORDS];

static GO: WaitReason = WaitReason::new("the start of the rounds");

/// What a task holds while it loads a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Held {
    Nothing,
    /// A lock: it may not sleep.
    Lock,
    /// Interrupts are off: it cannot even be told.
    Interrupts,
}

impl Held {
    const ALL: [Self; 3] = [Self::Nothing, Self::Lock, Self::Interrupts];
    const WORDS: &[&str] = &["nothing", "lock", "interrupts"];

    /// Does `work` with it held.
    fn during<R>(self, work: impl FnOnce() -> R) -> R {
        static LOCK: SpinLock<()> = SpinLock::new(());
        match self {
            Self::Nothing => work(),
            Self::Lock => {
                let _held = LOCK.lock();
                work()
            }
            Self::Interrupts => {
                let flags = Machine::disable();
                let result = work();
                Machine::restore(flags);
                result
            }
        }
    }
}

/// What the tasks work on.
struct Work {
    memory: Window,
    seed: u64,
    /// The pages, in the order in which they are touched.
    order: Vec<u32>,
    tasks: usize,
    rounds: u64,
    /// How many of a hundred visits change the page; its contents decide which.
    writes: u64,
    /// What each page has to be.
    digests: SpinLock<Vec<u128>>,
    held: Held,
    /// Pages that were something else.
    wrong: AtomicU64,
    go: Completion,
}

fn run(line: &Cmdline<'_>, given: &'static BootInfo) -> Result<String, Failure> {
    line.allow(KEYS)?;
    let seed = line.number("seed", 0, u64::MAX)?.unwrap_or(1);
    let tasks = line.number("tasks", 1, 64)?.unwrap_or(2) as usize;
    let rounds = line.number("rounds", 1, 1 << 32)?.unwrap_or(1);
    let writes = line.number("writes", 0, 100)?.unwrap_or(100);
    let compute = line.number("compute", 0, 1 << 40)?.unwrap_or(10_000);

    let counts = line.flag("counts")?;
    let plan = Plan {
        manner: Manner::ALL[line.choice("monitor", Manner::WORDS)?.unwrap_or(0)],
        exempt: line.number("exempt", 0, given.delegated_len / PAGE)?.unwrap_or(0),
        views: line.flag("views")?,
    };
    let memory = Window::delegated(given)?;
    let pages = u32::try_from(memory.pages()).map_err(Failure::failed)?;
    let order = Order::Random { seed }.pages(pages, usize::MAX);
    let work = Arc::new(Work {
        memory,
        seed,
        order: order.map_err(Failure::failed)?,
        tasks,
        rounds,
        writes,
        digests: SpinLock::new(
            (0..memory.pages())
                .map(|page| fill(&memory, seed, page))
                .collect(),
        ),
        held: Held::ALL[line.choice("held", Held::WORDS)?.unwrap_or(0)],
        wrong: AtomicU64::new(0),
        go: Completion::new(&GO),
    });
    let workers = (0..tasks)
        .map(|number| work.start(number))
        .collect::<Result<Vec<_>, _>>()?;
    let computed = mix(seed, compute);

    let resumed = calls::mark(MARK).map_err(Failure::failed)?;
    println!("mark {MARK} passed");
    let delivery = match resumed {
        Resumed::AsBefore | Resumed::Restored => None,
        Resumed::ToServeInjected => Some(Delivery::Injected),
        Resumed::ToServeExceptions => Some(Delivery::VirtualizationException),
    };
    let server = delivery
        .map(|delivery| serve::start(given, delivery, plan))
        .transpose()?;

    work.go.complete();
    for worker in workers {
        worker
            .join()
            .map_err(|outcome| Failure::Failed(format!("a task ended early: {outcome:?}")))?;
    }
    if let Some(server) = server.filter(|_| counts) {
        println!("{}", server.summary());
    }
    work.result(computed)
}

impl Work {
    fn start(self: &Arc<Self>, number: usize) -> Result<JoinHandle<()>, Failure> {
        let work = Arc::clone(self);
        spawn_returning(&format!("worker {number}"), None, move || work.work(number)).map_err(Failure::failed)
    }

    /// What task `number` does.
    fn work(&self, number: usize) {
        self.go.wait();
        for _ in 0..self.rounds {
            for page in self.order.iter().skip(number).step_by(self.tasks) {
                self.visit(u64::from(*page));
            }
        }
    }

    /// Compares a page with what it was left as, and changes a word of it.
    fn visit(&self, page: u64) {
        let mut words: Page = self
            .held
            .during(|| core::array::from_fn(|word| self.memory.load(page, word)));
        let found = digest_of(&words);
        if found != self.digests.lock()[page as usize] && self.wrong.fetch_add(1, Ordering::Relaxed) == 0 {
            println!("page {page} is not what it was left as; further ones are only counted");
        }
        if (found >> 64) as u64 % 100 >= self.writes {
            return;
        }
        let word = (found % WORDS as u128) as usize;
        let value = found as u64 ^ self.seed;
        self.memory.store(page, word, value);
        words[word] = value;
        self.digests.lock()[page as usize] = digest_of(&words);
    }

    /// The end: what memory holds now, in one number.
    fn result(&self, computed: u64) -> Result<String, Failure> {
        let digests = self.digests.lock();
        let mut all = Vec::with_capacity((digests.len() + 1) * digest::DIGEST);
        all.extend(computed.to_le_bytes());
        digests.iter().for_each(|digest| all.extend(digest.to_le_bytes()));
        let (pages, tasks, rounds) = (digests.len(), self.tasks, self.rounds);
        let wrong = self.wrong.load(Ordering::Relaxed);
        println!(
            "result digest={:032x} pages={pages} tasks={tasks} rounds={rounds} wrong={wrong}",
            digest::of(&all)
        );
        match wrong {
            0 => Ok(format!("{pages} pages were what they were left as")),
            _ => Err(Failure::Failed(format!(
                "{wrong} visits found a page that is not what it was left as"
            ))),
        }
    }
}

/// Fills a page with what the seed says; its digest.
fn fill(memory: &Window, seed: u64, page: u64) -> u128 {
    let mut rng = SplitMix64::new(seed.wrapping_add(page.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    let words: Page = core::array::from_fn(|_| rng.draw());
    for (word, value) in words.iter().enumerate() {
        memory.store(page, word, *value);
    }
    digest_of(&words)
}

fn digest_of(words: &Page) -> u128 {
    let bytes: [[u8; 8]; WORDS] = words.map(u64::to_le_bytes);
    digest::of(bytes.as_flattened())
}

/// Some work that is all in registers.
fn mix(seed: u64, steps: u64) -> u64 {
    let mut rng = SplitMix64::new(seed);
    (0..steps).fold(0, |mixed: u64, _| mixed.rotate_left(7) ^ rng.draw())
}
