//! `restore`: a lazy restore of a snapshot.
//!
//! ```text
//!   workload (task in the space)           monitor (kernel task)              source
//!   touches a page ── missing: message ──► reads it, reads the page(s) ◄───── disk or ramdisk
//!   goes on ◄───────── COPY wakes it ───── fills them in one call
//!   checks the digest
//! ```
//!
//! The run has three phases: the workload touches the pages it wants, in the order that was asked for; the rest of the region is
//! filled in ranges; the whole region is read once more and compared with the digests that the host computed from
//! the same file. Whatever goes wrong is a sentence in the report, with the page it concerns, and the run fails.
//!
//! | file | what |
//! | --- | --- |
//! | `options` | the command line and the ramdisk's entries, checked |
//! | `job` | what the tasks share |
//! | `workload` | touching and checking |
//! | `monitor` | serving faults, prefetching |
//! | `monitors` | the monitor's life, and its successor's |
//! | `complete` | the rest of the region |
//! | `summary` | the report |

use alloc::sync::Arc;

use kernel::arch::{Clock, Machine};
use kernel::mm::frame;
use kernel::trace::cmdline::Cmdline;

use self::job::Job;
use self::options::Options;
use self::summary::Run;
use super::common::{Draft, join, run_in};
use super::{App, AppError, AppResult, System, app};

mod complete;
mod job;
mod monitor;
mod monitors;
mod options;
mod summary;
mod workload;

app!(
    RESTORE = App {
        name: "restore",
        summary: "restore a snapshot lazily, a page at a time as a workload touches it",
        run,
    }
);

fn run(cmdline: &Cmdline<'static>, system: &'static System) -> AppResult {
    let options = Options::parse(cmdline, system)?;
    let draft = Draft::new(cmdline)?;
    let free = frame::allocator().stats().free;
    let job = Arc::new(Job::new(&options)?);
    let space = &job.region.space;
    let order = options
        .order
        .pages(job.pages.len() as u32, options.touch)
        .map_err(AppError::usage)?;

    job.uffd.on_monitor_death(options.on_monitor_death);
    let monitors = monitors::start(&job, &options)?;
    if let Some(frames) = options.fail_frames_after {
        frame::allocator().inject_failure(frames);
    }

    let begin = Machine::ticks();
    let since_begin = || Machine::ticks() - begin;
    let (work, touched) = {
        let job = Arc::clone(&job);
        let work = run_in(space, "workload", move || workload::touch(&job, &order, begin))?;
        (work, since_begin())
    };
    let counts = job.pages.counts();
    let rest = if work.error.is_none() {
        complete::fill_rest(&job)
    } else {
        Ok(())
    };
    let whole = since_begin();
    frame::allocator().stop_injection();

    // With the context closed the monitor's read ends, and so does the monitor.
    job.uffd.close();
    let served = join(monitors)??;
    let verified = match (&work.error, &rest) {
        (None, Ok(())) => {
            let job = Arc::clone(&job);
            run_in(space, "verify", move || workload::verify(&job))?
        }
        _ => workload::Verified::default(),
    };
    let run = Run {
        options: &options,
        free,
        work,
        served,
        rest,
        verified,
        counts,
        touched,
        whole,
    };
    Ok(run.done(draft))
}
