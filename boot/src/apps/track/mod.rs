//! `track`: dirty tracking with WP_ASYNC, against writes that are known.
//!
//! ```text
//!   writer (task in the space)            collector
//!   stores ── protection ends, no message
//!                                         scan: what is not protected was written; protects it again, in one step
//! ```
//!
//! The run has two parts. In the first the writer stores to pages of its choice, loads others, and stops; then the pages that
//! were written are collected: they must be exactly those that it has stored to, round after round. In the second the writer
//! never stops: each page that is collected is copied, while stores go on, until the writer ends and one last collection has
//! copied the rest; then the copy must be the region, so that no store fell between two collections. That is what a
//! migration by pre-copy does.
//!
//! | file | what |
//! | --- | --- |
//! | `options` | the command line, checked |
//! | `collect` | collecting what was written |
//! | `rounds` | the first part |
//! | `live` | the second part |
//! | `summary` | the report |

use alloc::sync::Arc;

use kernel::trace::cmdline::Cmdline;
use kernel::uffd::{Features, Modes};

use self::collect::Collector;
use self::live::Live;
use self::options::Options;
use self::summary::Run;
use super::common::{Draft, Region, check_memory, populate};
use super::{App, AppResult, System, app};

mod collect;
mod live;
mod options;
mod rounds;
mod summary;

app!(
    TRACK = App {
        name: "track",
        summary: "find the pages that were written, and no others, round after round",
        run,
    }
);

fn run(cmdline: &Cmdline<'static>, _: &'static System) -> AppResult {
    let options = Options::parse(cmdline)?;
    let draft = Draft::new(cmdline)?;
    check_memory("the region and its copy", 2 * options.pages)?;
    let region = Region::new(options.pages)?;
    let uffd = Arc::new(region.delegate(Modes::WP, Features::WP_ASYNC)?);
    populate(&region, options.populate, options.seed)?;

    let mut collector = Collector::new(&region, &uffd, options.runs);
    let known = rounds::run(&region, &mut collector, &options)?;
    let (live, collector) = match known.failures.is_empty() {
        true => live::run(&region, collector, &options)?,
        false => (Live::default(), collector),
    };
    let run = Run {
        options: &options,
        known,
        live,
        collector,
        messages: uffd.try_read_event().is_ok(),
    };
    Ok(run.done(draft))
}
