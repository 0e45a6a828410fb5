//! `guest-snapshot`: its options.

use clap::Args;

use super::Tokens;
use super::guest::Guest;
use super::region::pages_from;
use crate::machine::Machine;

/// Options of `guest-snapshot`.
#[derive(Args, Clone, Debug, Default)]
pub struct GuestSnapshotArgs {
    /// Which guest.
    #[command(flatten)]
    pub guest: Guest,
    /// Ticks between the guest's mark 1 and the snapshot; default: 0
    #[arg(
        long,
        value_name = "TICKS",
        allow_negative_numbers = true,
        conflicts_with = "mark_after"
    )]
    pub after_mark: Option<u64>,
    /// Pages that the sweep saves, and unprotects in one call, between two turns of the guest; default: 8
    #[arg(long, value_name = "PAGES", allow_negative_numbers = true, value_parser = pages_from(1))]
    pub batch: Option<u64>,
    /// Kill the monitor after it has served N faults
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub kill_monitor_after: Option<u64>,
    /// Let the monitor save the page of the Nth fault only after the guest went on; the image is then found wrong
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub late_save: Option<u64>,
}

impl GuestSnapshotArgs {
    /// Checks what can be checked before anything is built.
    ///
    /// # Errors
    /// What is wrong with the guest's file or a size.
    pub fn check(&self, machine: &dyn Machine) -> anyhow::Result<()> {
        self.guest.check(2, machine)
    }

    /// The command line.
    pub fn tokens(&self) -> Tokens {
        self.guest
            .add_to(Tokens::new("guest-snapshot"))
            .opt("after-mark", self.after_mark)
            .opt("batch", self.batch)
            .opt("kill-monitor-after", self.kill_monitor_after)
            .opt("late-save", self.late_save)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_becomes_the_token_of_its_name() {
        assert_eq!(GuestSnapshotArgs::default().tokens().finish(), "guest-snapshot");
        let args = GuestSnapshotArgs {
            guest: Guest::default(),
            after_mark: Some(1),
            batch: Some(2),
            kill_monitor_after: Some(3),
            late_save: Some(4),
        };
        assert_eq!(
            args.tokens().finish(),
            "guest-snapshot after-mark=1 batch=2 kill-monitor-after=3 late-save=4"
        );
    }
}
