//! `clone`: many address spaces started from one snapshot, which share what they do not change.
//!
//! ```text
//!   worker of a clone                 its monitor                        memory object            source
//!   touches a page ── missing ──────► fetches it, writes it ───────────► into the cache ◄──────── disk or ramdisk
//!                  ── minor ────────► (another clone had it fetched)
//!   goes on ◄──────── woken ───────── CONTINUE: maps the page of the cache
//!   stores to a page: the kernel copies it, and tells nobody
//! ```
//!
//! Each clone is an address space that maps the object privately, with a context, a monitor and a worker of its own. A page is read
//! from the snapshot once, by whoever needs it first, and is in memory once as long as it is clean, whatever the number of clones.
//!
//! Workers check every page that they touch against the host's digests, change some, and in the end look at all of them: what they
//! changed must be as they left it, all else as in the snapshot. How many frames are in use must be what that takes, exactly: the
//! pages of the cache, and the private copies.
//!
//! | file | what |
//! | --- | --- |
//! | `options` | the command line and the ramdisk's entries, checked |
//! | `job` | what the clones share: the object, and fetching into it |
//! | `instance` | a clone |
//! | `worker` | touching, changing, checking |
//! | `monitor` | serving faults |
//! | `summary` | the report |

use alloc::sync::Arc;
use alloc::vec::Vec;

use kernel::arch::{Clock, Machine};
use kernel::lab::samples::Samples;
use kernel::mm::addr::PAGE_SIZE;
use kernel::task::spawn::JoinHandle;
use kernel::trace::cmdline::Cmdline;

use self::instance::Instance;
use self::job::Job;
use self::monitor::{Monitor, Served};
use self::options::Options;
use self::summary::Run;
use self::worker::{Worked, Worker};
use super::common::{Draft, Frames, check_memory, join, run_in, start};
use super::{App, AppError, AppResult, System, app};

mod instance;
mod job;
mod monitor;
mod options;
mod summary;
mod worker;

app!(
    CLONE = App {
        name: "clone",
        summary: "start address spaces from one snapshot; clean pages are in memory once",
        run,
    }
);

/// A clone that runs.
struct Running {
    instance: Arc<Instance>,
    monitor: JoinHandle<Served>,
    worker: JoinHandle<Worked>,
}

fn run(cmdline: &Cmdline<'static>, system: &'static System) -> AppResult {
    let options = Options::parse(cmdline, system)?;
    let draft = Draft::new(cmdline)?;
    let pages = options.snapshot.source.pages();
    // Tables, samples and what is noted of every page; stacks.
    let of_each = options.writes.min(pages) + pages / 64 + 64;
    check_memory(
        "the snapshot's pages and what each clone has to itself",
        pages + options.clones * of_each,
    )?;
    let frames = Frames::new();
    let job = Arc::new(Job::new(&options));

    let mut started = Samples::with_capacity(options.clones as usize);
    let mut clones = Vec::new();
    for number in 0..options.clones {
        let before = Machine::ticks();
        clones.push(begin(&job, &options, number, before)?);
        started.record(Machine::ticks() - before);
    }
    let mut instances = Vec::new();
    let mut worked = Vec::new();
    for clone in clones {
        worked.push(join(clone.worker)?);
        instances.push((clone.instance, clone.monitor));
    }
    let (in_use, cached) = (frames.in_use(), job.object.resident() / PAGE_SIZE);
    let fetched = job.fetched();

    let spoiled = options.spoil.map_or(Ok(()), |page| job.spoil(page));
    let mut served = Vec::new();
    for (number, (instance, monitor)) in instances.into_iter().enumerate() {
        let mine = core::mem::take(&mut worked[number]);
        let (job, of) = (Arc::clone(&job), Arc::clone(&instance));
        worked[number] = match mine.error {
            None => run_in(&instance.region.space, "verify", move || mine.verify(&job, &of))?,
            Some(_) => mine,
        };
        // With the context closed the monitor's read ends, and so does the monitor.
        instance.uffd.close();
        served.push(join(monitor)?);
    }
    let run = Run {
        options: &options,
        in_use,
        cached,
        fetched,
        started,
        worked,
        served,
        spoiled,
    };
    Ok(run.done(draft))
}

/// Starts a clone; `since` is when that began.
fn begin(job: &Arc<Job>, options: &Options, number: u64, since: u64) -> Result<Running, AppError> {
    let instance = Arc::new(Instance::new(job)?);
    let monitor = Monitor::new(job, &instance, options.kill_monitor_after.filter(|_| number == 0));
    let monitor = start("monitor", None, move || monitor.run())?;
    instance.uffd.attach_monitor(monitor.task());
    let worker = Worker::new(job, &instance, options, number, since)?;
    let worker = start("worker", Some(&instance.region.space), move || worker.run())?;
    Ok(Running {
        instance,
        monitor,
        worker,
    })
}
