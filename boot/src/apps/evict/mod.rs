//! `evict`: a region larger than the memory it may take.
//!
//! ```text
//!   worker (task in the space)        pager (task in the space)
//!   touches a page ── missing ──────► staged: MOVE it back
//!                                     stored: make room, COPY it        make room: MOVE the oldest pages out into the
//!   goes on ◄─────── woken ────────── untouched: make room, COPY zeros             staging area, write the oldest of those to
//!                                                                                  the store, discard them
//! ```
//!
//! Cold pages leave the region by MOVE: at once and whole, whoever else runs, so a store is either in what was moved or waits
//! for the page to come back. What is written to the store afterwards, nobody can change. The store is kernel memory here and stands
//! for whatever is slower.
//!
//! Workers read, check and change pages for many rounds and keep a digest of what every page should hold; how many frames tasks
//! have in use is asked of the allocator, and must never be more than the budget.
//!
//! | file | what |
//! | --- | --- |
//! | `options` | the command line, checked |
//! | `job` | what the tasks share; counting frames |
//! | `worker` | touching, checking, changing |
//! | `pager` | serving faults, making room |
//! | `summary` | the report |

use alloc::sync::Arc;
use alloc::vec::Vec;

use kernel::trace::cmdline::Cmdline;

use self::job::Job;
use self::options::Options;
use self::pager::Pager;
use self::summary::Run;
use self::worker::Worker;
use super::common::{Draft, check_memory, join, start};
use super::{App, AppError, AppResult, System, app};

mod job;
mod options;
mod pager;
mod summary;
mod worker;

app!(
    EVICT = App {
        name: "evict",
        summary: "work on a region larger than its memory; pages are moved out and back",
        run,
    }
);

fn run(cmdline: &Cmdline<'static>, _: &'static System) -> AppResult {
    let options = Options::parse(cmdline)?;
    let draft = Draft::new(cmdline)?;
    check_memory("the store and the budget", options.pages + options.budget)?;
    let job = Arc::new(Job::new(&options)?);
    let space = &job.region.space;

    let pager = Pager::new(&job, &options).map_err(AppError::failed)?;
    let pager = start("pager", Some(space), move || pager.run())?;
    job.uffd.attach_monitor(pager.task());
    let mut workers = Vec::new();
    for number in 0..options.tasks {
        let worker = Worker::new(&job, number, &options);
        workers.push(start("worker", Some(space), move || worker.run())?);
    }
    let mut worked = Vec::new();
    for worker in workers {
        worked.push(join(worker)?);
    }
    let in_use = job.frames.in_use();

    // With the context closed the pager's read ends, and so does the pager.
    job.uffd.close();
    let paged = join(pager)?;
    let run = Run {
        options: &options,
        job: &job,
        in_use,
        worked,
        paged,
    };
    Ok(run.done(draft))
}
