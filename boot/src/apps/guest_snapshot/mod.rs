//! `guest-snapshot`: a live snapshot of a guest, vCPU and memory, by stage-2 write protection.
//!
//! ```text
//!   guest runs ─► an instant between two runs: vCPU saved, memory write-protected (armed) ─► runs on ─────► end
//!                                                  │ monitor: each page before its first store ║            ║
//!                                                  │ sweep: the others                          ║ the same  ║
//!                                                  ▼                                            ║            ║
//!                                                image ─► a second machine, restored ─► runs ───────────► end
//! ```
//!
//! All of the guest's memory is one region of a space, registered for write protection. Protecting it takes the right to store
//! from the stage-2 leaves too, so the guest's first store to a page is a WP message like any task's; the vCPU's task
//! sleeps until the page is saved. Image, monitor and sweep are those of `snapshot` ([`common`](super::common)).
//!
//! That the image is the guest's memory at the instant of arming is checked against digests that were taken then; that it is
//! enough to go on from, by restoring it: the second machine must come to the same end as the first.
//!
//! | file | what |
//! | --- | --- |
//! | `options` | the command line, checked |
//! | `machine` | a guest whose memory is one region |
//! | `verify` | what the image holds |
//! | `summary` | the report |

use alloc::sync::Arc;

use hv::vcpu::Image;
use hv::vendor::{Features, Vendor};
use kernel::abi::guest::Resumed;
use kernel::lab::digest::DigestList;
use kernel::trace::cmdline::Cmdline;

use self::machine::OneRegion;
use self::options::Options;
use self::summary::{End, Run};
use super::common::{Draft, Live, Region, Taken, check_memory, join, start, sweep};
use super::guest::{Console, Ended, GuestError, Job, Unreturned, on_this_cpu, run_to_end, run_to_point};
use super::{App, AppError, AppResult, System, app};

mod machine;
mod options;
mod summary;
mod verify;

app!(
    GUEST_SNAPSHOT = App {
        name: "guest-snapshot",
        summary: "take a consistent snapshot of a guest while it runs; restore it and compare",
        run,
    }
);

fn run(cmdline: &Cmdline<'static>, system: &'static System) -> AppResult {
    let options = Options::parse(cmdline, system)?;
    let draft = Draft::new(cmdline)?;
    check_memory("the guest and its image", 2 * options.guest.layout.pages())?;
    on_this_cpu(Snapshot { options, draft })?
}

struct Snapshot {
    options: Options,
    draft: Draft,
}

impl Job for Snapshot {
    type Out = AppResult;

    fn run<V: Vendor>(self, features: &Features) -> AppResult {
        let options = &self.options;
        let frames = Unreturned::since_now(3)?;
        let live = Arc::new(Live::new(options.guest.layout.pages())?);
        let (mut run, image) = snapshot::<V>(features, options, &live)?;
        if live.image.is_whole() {
            run.restored = Some(restored::<V>(features, options, &live, &image)?);
        }
        drop(live);
        Ok(run.done(self.draft, frames.failures()))
    }
}

/// Runs the guest, takes its snapshot, and has it go on to its end.
fn snapshot<V: Vendor>(
    features: &Features,
    options: &Options,
    live: &Arc<Live>,
) -> Result<(Run, Image), AppError> {
    let guest = &options.guest;
    let console = Console::new("guest");
    let region = &live.region;
    let mut machine = OneRegion::<V>::load(features, guest, region, &console)?;
    run_to_point(&mut machine.vcpu, guest.point, guest.limit).map_err(AppError::failed)?;
    machine.vcpu.vm().flush_console();
    console.take();
    let then = live.digests()?;
    let monitor = live.start_monitor(&options.image)?;

    let image = machine.vcpu.image();
    let armed = live.arm();
    let sweeper = {
        let (live, batch) = (Arc::clone(live), options.image.batch);
        start("sweep", Some(&region.space), move || sweep(&live, batch))?
    };
    let ended = run_to_end(&mut machine.vcpu, guest.limit, unserved);
    let swept = join(sweeper)?;
    // With the context closed the monitor's read ends, and so does the monitor.
    live.uffd.close();
    let served = join(monitor)?;
    let violations = machine.violations();
    let run = Run {
        vendor: V::NAME,
        layout: guest.layout,
        taken: Taken::of(live, armed, served, swept),
        verified: verify::image(live, &then.digests),
        then,
        violations,
        ended: End {
            delegated: delegated(&machine, region, &ended)?,
            ended,
            printed: console.take(),
        },
        restored: None,
    };
    Ok((run, image))
}

/// Restores the image into another machine and runs it to its end.
fn restored<V: Vendor>(
    features: &Features,
    options: &Options,
    live: &Live,
    image: &Image,
) -> Result<End, AppError> {
    let guest = &options.guest;
    let console = Console::new("restored guest");
    let region = Region::new(guest.layout.pages())?;
    machine::write_back(live, &region)?;
    let mut machine = OneRegion::<V>::with(features, guest.layout, &region, &console, image)?;
    machine.vcpu.vm().resume_as(Resumed::Restored);
    let ended = run_to_end(&mut machine.vcpu, guest.limit, unserved);
    Ok(End {
        delegated: delegated(&machine, &region, &ended)?,
        ended,
        printed: console.take(),
    })
}

fn unserved(fault: hv::userfault::MemoryFault) -> Result<(), GuestError> {
    Err(GuestError::Unserved(fault.addr))
}

/// The digests of the delegated memory of a guest that has come to its end.
fn delegated<V: Vendor>(
    machine: &OneRegion<V>,
    region: &Region,
    ended: &Result<Ended, GuestError>,
) -> Result<DigestList, AppError> {
    match ended {
        Ok(_) => verify::digests_from(region, machine.first_delegated),
        Err(_) => Ok(DigestList::default()),
    }
}
