//! `guest-restore`: a lazy restore of a guest, vCPU and memory.
//!
//! ```text
//!   first machine    ELF ──► runs ──► mark: saved ──► goes on ──► end: exit status, lines, delegated memory
//!                                       │                                           ║ must be the same
//!   second machine   nothing there ◄────┘ runs at once ─────────► end: exit status, lines, delegated memory
//!                      ordinary memory: MISSING messages to a monitor task of the host's, COPY
//!                      delegated memory: a set bit of the slot's userfault bitmap
//!                         exit        the owner writes the page into the object and clears the bit
//!                         inject, ve  the guest's own monitor is told, and fills from the store by hypercall
//! ```
//!
//! The guest goes on in the second machine with no page of either memory there. When the guest's own monitor cannot be told
//! of a fault, with interrupts off for example, the owner is, and resolves it.
//!
//! | file | what |
//! | --- | --- |
//! | `options` | the command line, checked |
//! | `target` | the second machine |
//! | `monitor` | serving ordinary memory |
//! | `owner` | serving delegated memory |
//! | `verify` | what delegated memory holds in the end |
//! | `summary` | the report |

use alloc::sync::Arc;

use hv::vendor::{Features, Vendor};
use kernel::arch::{Clock, Machine};
use kernel::trace::cmdline::Cmdline;

use self::monitor::Monitor;
use self::options::{Delivery, Injury, Options};
use self::owner::Owner;
use self::summary::{Restored, Run};
use self::target::Target;
use super::common::{Draft, check_memory, join, start};
use super::guest::{Console, Job, Reference, Unreturned, on_this_cpu, run_to_end};
use super::{App, AppError, AppResult, System, app};

mod monitor;
mod options;
mod owner;
mod summary;
mod target;
mod verify;

app!(
    GUEST_RESTORE = App {
        name: "guest-restore",
        summary: "restore a guest lazily; its faults are served by its own monitor or from outside",
        run,
    }
);

fn run(cmdline: &Cmdline<'static>, system: &'static System) -> AppResult {
    let options = Options::parse(cmdline, system)?;
    let draft = Draft::new(cmdline)?;
    // One machine at a time, and what is saved.
    check_memory(
        "the guest and what is saved of it",
        2 * options.guest.layout.pages(),
    )?;
    on_this_cpu(Restore { options, draft })?
}

struct Restore {
    options: Options,
    draft: Draft,
}

impl Job for Restore {
    type Out = AppResult;

    fn run<V: Vendor>(self, features: &Features) -> AppResult {
        let options = &self.options;
        if options.delivery == Delivery::Exception && !features.violation_exceptions {
            return Err(AppError::Unsupported(alloc::format!(
                "--delivery ve needs virtualisation exceptions (#VE), which {} does not have here; use inject or exit",
                V::NAME
            )));
        }
        let frames = Unreturned::since_now(1)?;
        let reference = Reference::of::<V>(features, &options.guest)?;
        if let Some(Injury::Corrupt(page)) = options.injury {
            reference.saved.corrupt(page)?;
        }
        let restored = restored::<V>(features, options, &reference)?;
        let run = Run {
            options,
            vendor: V::NAME,
            saved: reference.saved.resident(),
            ended: reference.ended,
            printed: reference.printed,
            restored,
        };
        drop(reference.delegated);
        drop(reference.saved);
        Ok(run.done(self.draft, frames.failures()))
    }
}

/// Restores the guest and runs it to its end.
fn restored<V: Vendor>(
    features: &Features,
    options: &Options,
    reference: &Reference,
) -> Result<Restored, AppError> {
    let saved = &reference.saved;
    let console = Console::new("restored guest");
    let begin = Machine::ticks();
    let mut target = Target::<V>::new(features, saved, &console)?;
    let monitor = Monitor {
        region: target.ordinary.clone(),
        uffd: Arc::clone(&target.uffd),
        saved: Arc::clone(&saved.ordinary),
        kill_after: options.kill_monitor_after,
    };
    let uffd = Arc::clone(&target.uffd);
    let monitor = start("monitor", None, move || monitor.run())?;
    uffd.attach_monitor(monitor.task());
    let mut owner = Owner::new(
        &target.delegated,
        &target.bitmap,
        &saved.delegated,
        options.injury,
    );
    let vm = Arc::clone(target.vcpu.vm());
    vm.resume_as(options.delivery.resumed());
    let at_resume = target.resident();

    let resumed = Machine::ticks();
    let ended = run_to_end(&mut target.vcpu, options.guest.limit, |fault| owner.serve(&fault));
    let resident = target.resident();
    // With the context closed the monitor's read ends, and so does the monitor.
    uffd.close();
    let served = join(monitor)?;
    // Where it did not come to its end, there is nothing to compare.
    let verified = match &ended {
        Ok(_) => verify::verify(
            &target.delegated,
            &target.bitmap,
            &saved.delegated,
            &reference.delegated,
        ),
        Err(_) => verify::Verified::default(),
    };
    Ok(Restored {
        ended,
        printed: console.take(),
        until_resumed: resumed - begin,
        at_resume,
        resident,
        counts: summary::Counts::of(&vm.counters),
        served,
        owner: owner.served(),
        verified,
    })
}
