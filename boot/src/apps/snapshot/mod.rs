//! `snapshot`: a live, consistent snapshot of a region, by write protection.
//!
//! ```text
//!   writer (task in the space)          monitor (task in the space)         sweep (task in the space)
//!   stores to a page ── WP: message ──► saves the page as it is             saves pages nobody has stored to,
//!   goes on ◄────────── woken ───────── ends its protection                 a batch at a time; ends their protection
//! ```
//!
//! The writer writes for a while and waits; the whole region is write-protected (the snapshot is *armed*); the writer goes on
//! at once, while monitor and sweep ([`common`](super::common)) save every page as it was at that instant: a page is saved before its protection ends. Each
//! page is saved once, into memory.
//!
//! What is claimed is checked by other means than those that were used: at the instant of arming a digest of every page is
//! taken, and the image must have the same; the region as it is afterwards must differ from them in exactly the pages that the
//! writer has stored to since. Pages that nobody had touched before are protected too, and are zeros in the image.
//!
//! | file | what |
//! | --- | --- |
//! | `options` | the command line, checked |
//! | `job` | what the tasks share |
//! | `writer` | storing, and how long each store took |
//! | `verify` | what image and region hold in the end |
//! | `summary` | the report |

use alloc::sync::Arc;

use kernel::trace::cmdline::Cmdline;

use self::job::Job;
use self::options::Options;
use self::summary::Run;
use self::writer::Writer;
use super::common::{Draft, Swept, Taken, check_memory, join, populate, run_in, start, sweep};
use super::{App, AppError, AppResult, System, app};

mod job;
mod options;
mod summary;
mod verify;
mod writer;

app!(
    SNAPSHOT = App {
        name: "snapshot",
        summary: "take a consistent snapshot of a region while a writer goes on",
        run,
    }
);

fn run(cmdline: &Cmdline<'static>, system: &'static System) -> AppResult {
    let options = Options::parse(cmdline, system)?;
    let draft = Draft::new(cmdline)?;
    let order = options
        .order
        .pages(options.pages as u32, usize::MAX)
        .map_err(AppError::usage)?;
    check_memory("the region and its image", 2 * options.pages)?;
    let job = Arc::new(Job::new(options.pages)?);
    let space = &job.live.region.space;
    populate(&job.live.region, options.populate, options.seed)?;

    let writer = Writer::new(&job, order, &options);
    let writer = start("writer", Some(space), move || writer.run())?;
    job.ready.wait();
    let then = job.live.digests()?;
    let monitor = job.live.start_monitor(&options.image)?;

    let armed = job.live.arm();
    job.armed.complete();
    let swept = match armed.result {
        Ok(()) => {
            let (live, batch) = (Arc::clone(&job.live), options.image.batch);
            run_in(space, "sweep", move || sweep(&live, batch))?
        }
        Err(_) => Swept::default(),
    };
    let written = join(writer)?;

    // With the context closed the monitor's read ends, and so does the monitor.
    job.live.uffd.close();
    let served = join(monitor)?;
    let verified = {
        let (job, written) = (Arc::clone(&job), written.pages.clone());
        let then = then.clone();
        run_in(space, "verify", move || {
            verify::verify(&job, &then.digests, &written)
        })?
    };
    let run = Run {
        taken: Taken::of(&job.live, armed, served, swept),
        job: &job,
        then,
        written,
        verified,
    };
    Ok(run.done(draft))
}
