//! `guest-snapshot`: its options.

use clap::Args;

use super::Tokens;
use super::guest::Guest;
use super::imaging::Imaging;
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
    /// How the image is taken.
    #[command(flatten)]
    pub imaging: Imaging,
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
        let tokens = self
            .guest
            .add_to(Tokens::new("guest-snapshot"))
            .opt("after-mark", self.after_mark);
        self.imaging.add_to(tokens)
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
            imaging: Imaging {
                batch: Some(2),
                kill_monitor_after: Some(3),
                late_save: Some(4),
            },
        };
        assert_eq!(
            args.tokens().finish(),
            "guest-snapshot after-mark=1 batch=2 kill-monitor-after=3 late-save=4"
        );
    }
}
