//! Guests that do what they must not: each ends, and says why; the host goes on.

use alloc::string::String;

use hv::ring::RingError;
use hv::userfault::Outcome;
use hv::vcpu::{Fatal, Stop};
use kernel::mm::addr::GuestPhysAddr;
use kernel::mm::fault::Access;

use super::super::guest_test;
use super::{MEMORY, Machine, STORE};
use crate::ensure;

/// Runs the guest with this command line to its bad end.
fn end_of<V: hv::vendor::Vendor>(cmdline: &str) -> Result<Fatal, String> {
    let mut guest = Machine::<V>::new(cmdline, 4)?;
    if cmdline.starts_with("lying-ring") {
        guest.bitmap.set_all();
    }
    match guest.run() {
        Stop::Broken(broken) => Ok(broken.why),
        stop => Err(alloc::format!(
            "{stop:?} after `{cmdline}`; printed:\n{}",
            guest.printed()
        )),
    }
}

macro_rules! ends {
    ($($name:ident: $cmdline:literal => $why:expr;)+) => {$(
        guest_test!(
            fn $name<V>() -> Result<(), String> {
                let (found, expected) = (end_of::<V>($cmdline)?, $why);
                ensure!(found == expected, "{found:?} instead of {expected:?}");
                Ok(())
            }
        );
    )+};
}

ends! {
    triple_fault_ends_the_guest: "triple-fault" => Fatal::Shutdown;
    halt_without_interrupts_ends_the_guest: "halt" => Fatal::Halted;
    instruction_that_is_the_hosts_alone_ends_the_guest: "privileged" => Fatal::Privileged("RDPMC");
    string_access_to_a_port_ends_the_guest: "string-port" => Fatal::StringPort(0xe9);
    touch_of_nothing_ends_the_guest: "unbacked at=0x300000000" => unbacked(3 << 32, Access::Read);
    store_to_nothing_ends_the_guest: "unbacked at=0x300000000 write=1" => unbacked(3 << 32, Access::Write);
    touch_right_behind_its_memory_ends_the_guest: "unbacked at=0x800000" => unbacked(MEMORY, Access::Read);
    store_to_a_read_only_slot_ends_the_guest: "read-only" => Fatal::Memory {
        addr: STORE,
        access: Access::Write,
        why: Outcome::ReadOnly,
    };
    ring_that_lies_ends_the_guest: "lying-ring tail=12345" => Fatal::Ring(RingError::Lie { head: 0, tail: 12345 });
    ring_that_says_it_is_full_ends_the_guest: "lying-ring tail=0xffffff80" => Fatal::Ring(RingError::Full);
}

fn unbacked(addr: u64, access: Access) -> Fatal {
    Fatal::Memory {
        addr: GuestPhysAddr::new(addr),
        access,
        why: Outcome::Unbacked,
    }
}

guest_test!(
    fn guests_that_never_end_are_stopped_by_their_deadline<V>() -> Result<(), String> {
        for cmdline in ["spin", "deaf"] {
            let mut guest = Machine::<V>::new(cmdline, 1)?;
            let stop = guest.run_for(100);
            ensure!(stop == Stop::Deadline, "{stop:?} after `{cmdline}`");
            // It would go on.
            let stop = guest.run_for(20);
            ensure!(stop == Stop::Deadline, "{stop:?} the second time");
        }
        Ok(())
    }
);
