//! `guest-clone`: many guests started from one snapshot, which share what they do not change.
//!
//! ```text
//!   guest ─► saved ─► end: the reference
//!              │
//!              ├─ clone 0   a machine of its own; its memory is private mappings of the saved objects:
//!              ├─ clone 1   a load maps the object's page, a store copies it
//!              └─ ...       all of them run at once, as tasks ─► each must come to the reference's end
//! ```
//!
//! A page of what was saved is in memory once as long as it is clean, whatever the number of clones, and so it stands in the
//! stage-2 tables of all. How many frames are in use in the end must be what that takes, exactly; when all is over, every frame
//! must have been given back.
//!
//! | file | what |
//! | --- | --- |
//! | `options` | the command line, checked |
//! | `instance` | a clone |
//! | `summary` | the report |

use alloc::vec::Vec;

use hv::vendor::{Features, Vendor};
use kernel::arch::{Clock, Machine};
use kernel::lab::samples::Samples;
use kernel::trace::cmdline::Cmdline;

use self::instance::{Finished, Held, Instance};
use self::options::Options;
use self::summary::{Clone, Run};
use super::common::{Draft, Frames, check_memory, join, start};
use super::guest::{Job, Reference, Unreturned, on_this_cpu};
use super::{App, AppError, AppResult, System, app};

mod instance;
mod options;
mod summary;

app!(
    GUEST_CLONE = App {
        name: "guest-clone",
        summary: "start guests from one snapshot; clean pages are in memory once",
        run,
    }
);

fn run(cmdline: &Cmdline<'static>, system: &'static System) -> AppResult {
    let options = Options::parse(cmdline, system)?;
    let draft = Draft::new(cmdline)?;
    // Delegated memory is what the workload changes in every clone.
    let layout = options.guest.layout;
    let private = options.clones * layout.delegated.pages();
    check_memory(
        "the guest and what its clones change",
        2 * layout.pages() + private,
    )?;
    on_this_cpu(Cloning { options, draft })?
}

struct Cloning {
    options: Options,
    draft: Draft,
}

impl Job for Cloning {
    type Out = AppResult;

    fn run<V: Vendor>(self, features: &Features) -> AppResult {
        let options = &self.options;
        let (unreturned, frames) = (Unreturned::since_now(options.clones as usize)?, Frames::new());
        let reference = Reference::of::<V>(features, &options.guest)?;
        if let Some(page) = options.corrupt {
            reference.saved.corrupt(page)?;
        }
        let run = clones::<V>(features, options, reference, &frames)?;
        Ok(run.done(self.draft, unreturned.failures()))
    }
}

/// Runs the clones to their ends, and looks at what they have come to. What was saved is gone then.
fn clones<V: Vendor>(
    features: &Features,
    options: &Options,
    reference: Reference,
    frames: &Frames,
) -> Result<Run, AppError> {
    let saved = &reference.saved;
    let limit = options.guest.limit.times(options.clones);
    let mut started = Samples::with_capacity(options.clones as usize);
    let mut running = Vec::new();
    for number in 0..options.clones {
        let before = Machine::ticks();
        let instance = Instance::<V>::new(features, saved, number)?;
        running.push(start("clone", None, move || instance.run(limit))?);
        started.record(Machine::ticks() - before);
    }
    let finished = running.into_iter().map(join).collect::<Result<Vec<_>, _>>()?;

    let (in_use, cached) = (frames.in_use(), saved.resident());
    let held: Vec<Held> = finished.iter().map(|clone| clone.memory.held()).collect();
    // Looking at what they hold takes pages that they did not have.
    let look = |(clone, held): (Finished, Held)| Clone {
        held,
        delegated: clone.memory.delegated(),
        ended: clone.ended,
        printed: clone.printed,
    };
    Ok(Run {
        vendor: V::NAME,
        options: *options,
        in_use,
        cached: cached.0 + cached.1,
        started,
        clones: finished.into_iter().zip(held).map(look).collect(),
        ended: reference.ended,
        printed: reference.printed,
        delegated: reference.delegated,
    })
}
