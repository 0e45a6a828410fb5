//! `guest-clone`: its options.

use clap::Args;

use super::Tokens;
use super::guest::Guest;
use crate::machine::Machine;

/// Options of `guest-clone`.
#[derive(Args, Clone, Debug, Default)]
pub struct GuestCloneArgs {
    /// Which guest.
    #[command(flatten)]
    pub guest: Guest,
    /// Guests that are started from the snapshot, at most 64; default: 4
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub clones: Option<u64>,
    /// Change a byte of this delegated page under all clones; it is then found wrong
    #[arg(long, value_name = "PAGE", allow_negative_numbers = true)]
    pub corrupt_page: Option<u64>,
}

impl GuestCloneArgs {
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
            .add_to(Tokens::new("guest-clone"))
            .opt("clones", self.clones)
            .opt("corrupt-page", self.corrupt_page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_becomes_the_token_of_its_name() {
        assert_eq!(GuestCloneArgs::default().tokens().finish(), "guest-clone");
        let args = GuestCloneArgs {
            guest: Guest::default(),
            clones: Some(3),
            corrupt_page: Some(4),
        };
        assert_eq!(args.tokens().finish(), "guest-clone clones=3 corrupt-page=4");
    }
}
