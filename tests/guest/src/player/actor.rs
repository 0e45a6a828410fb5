//! Those who carry steps out.

use std::sync::atomic::Ordering;

use guest_tests::sys;

use super::control::{ACTORS, Control, THREADS};
use super::script::Case;
use super::steps::{self, Stage};

/// Starts the actors that are threads, and waits until each is ready.
pub fn start(case: &'static Case<'static>, control: &'static Control) -> std::io::Result<()> {
    for (actor, name) in ACTORS.iter().enumerate().take(THREADS) {
        std::thread::Builder::new()
            .name((*name).into())
            .stack_size(256 << 10)
            .spawn(move || {
                live(Stage {
                    case,
                    control,
                    me: actor,
                })
            })?;
    }
    for actor in 0..THREADS {
        while control.slot(actor).tid.load(Ordering::Acquire) == 0 {
            let _ = sys::call(libc::SYS_sched_yield, &[]);
        }
    }
    Ok(())
}

/// Carries out what is posted, for ever. A thread that forks goes on as itself in the parent, and as the child's actor in
/// the child: the stage says who it is.
fn live(mut stage: Stage) {
    let mut ready = false;
    loop {
        let slot = stage.control.slot(stage.me);
        if !std::mem::replace(&mut ready, true) {
            let tid = sys::call(libc::SYS_gettid, &[]).unwrap_or_default();
            slot.tid.store(tid as u32, Ordering::Release);
        }
        let step = slot.wait();
        match steps::carry_out(&stage, &stage.case.steps[step], step, slot.answer_sheet()) {
            None => slot.finish(),
            // Here the step was never begun: the mailbox it lay in is the parent's.
            Some(actor) => {
                stage.me = actor;
                ready = false;
            }
        }
    }
}
