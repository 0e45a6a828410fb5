//! Guests that were saved and go on in another machine with nothing of their delegated memory there.

use alloc::string::String;

use hv::fill::{Fill, Filled};
use hv::vcpu::Stop;
use kernel::abi::guest::Resumed;
use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::range::GuestRange;

use super::super::guest_test;
use super::{DELEGATED, Machine, STORE};
use crate::ensure;

const WORK: &str = "workload seed=3 tasks=3";
const PAGES: u64 = 48;

/// The result of the guest that nobody has interrupted.
fn undisturbed<V: hv::vendor::Vendor>() -> Result<String, String> {
    let mut guest = Machine::<V>::new(WORK, PAGES)?;
    guest.finish()?;
    guest.result()
}

guest_test!(
    fn guest_goes_on_elsewhere_while_its_owner_brings_its_pages<V>() -> Result<(), String> {
        let expected = undisturbed::<V>()?;
        let saved = Machine::<V>::new(WORK, PAGES)?.saved_at_mark()?;
        let mut guest = Machine::<V>::restored(&saved)?;
        guest.vcpu.vm().resume_as(Resumed::Restored);
        let mut served = 0;
        let stop = loop {
            match guest.run() {
                Stop::Userfault(fault) => {
                    let range = GuestRange::page(fault.addr);
                    let from = STORE + (fault.addr - DELEGATED);
                    let filled = guest.vcpu.vm().memory.fill(range, Fill::Copy { from });
                    let all = Filled {
                        bytes: PAGE_SIZE,
                        stop: None,
                    };
                    ensure!(filled == all, "{filled:?} at {}", fault.addr);
                    served += 1;
                }
                stop => break stop,
            }
        };
        ensure!(stop == Stop::Exited(0), "{stop:?}; printed:\n{}", guest.printed());
        ensure!(served == PAGES, "{served} faults for {PAGES} pages");
        let found = guest.result()?;
        ensure!(found == expected, "{found} instead of {expected}");
        Ok(())
    }
);
