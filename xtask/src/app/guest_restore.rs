//! `guest-restore`: its options.

use clap::{Args, ValueEnum};

use super::Tokens;
use super::guest::Guest;
use crate::machine::Machine;

/// Options of `guest-restore`.
#[derive(Args, Clone, Debug, Default)]
pub struct GuestRestoreArgs {
    /// Which guest.
    #[command(flatten)]
    pub guest: Guest,
    /// Who serves the delegated memory of the restored guest; default: inject
    #[arg(long, value_name = "HOW")]
    pub delivery: Option<Delivery>,
    /// Kill the monitor of ordinary memory after it has served N faults
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub kill_monitor_after: Option<u64>,
    /// Change a byte of this delegated page in what the guest is restored from; it is then found wrong
    #[arg(long, value_name = "PAGE", allow_negative_numbers = true)]
    pub corrupt_page: Option<u64>,
    /// Say that this delegated page is resolved without having filled it (--delivery exit); it is then found wrong
    #[arg(long, value_name = "PAGE", allow_negative_numbers = true)]
    pub skip_page: Option<u64>,
    /// When this delegated page is touched, resolve the one behind it instead (--delivery exit); that is then found
    #[arg(long, value_name = "PAGE", allow_negative_numbers = true)]
    pub wrong_page: Option<u64>,
}

/// `--delivery`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// The guest's own monitor, told by an injected interrupt.
    Inject,
    /// The guest's own monitor, told by a virtualisation exception (#VE); VMX only.
    Ve,
    /// The owner of the vCPU, outside.
    Exit,
}

impl Delivery {
    const fn token(self) -> &'static str {
        match self {
            Self::Inject => "inject",
            Self::Ve => "ve",
            Self::Exit => "exit",
        }
    }
}

impl GuestRestoreArgs {
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
            .add_to(Tokens::new("guest-restore"))
            .opt("delivery", self.delivery.map(Delivery::token))
            .opt("kill-monitor-after", self.kill_monitor_after)
            .opt("corrupt-page", self.corrupt_page)
            .opt("skip-page", self.skip_page)
            .opt("wrong-page", self.wrong_page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::size::{MIB, MemSize};

    #[test]
    fn every_option_becomes_the_token_of_its_name() {
        assert_eq!(GuestRestoreArgs::default().tokens().finish(), "guest-restore");
        let args = GuestRestoreArgs {
            guest: Guest {
                guest: None,
                guest_cmdline: None,
                guest_mem: Some(MemSize(16 * MIB)),
                delegated: Some(MemSize(MIB)),
                mark_after: Some(5),
                guest_deadline: Some(6),
            },
            delivery: Some(Delivery::Ve),
            kill_monitor_after: Some(1),
            corrupt_page: Some(2),
            skip_page: Some(3),
            wrong_page: Some(4),
        };
        assert_eq!(
            args.tokens().finish(),
            "guest-restore guest-mem=16777216 delegated=1048576 mark-after=5 guest-deadline=6 delivery=ve \
             kill-monitor-after=1 corrupt-page=2 skip-page=3 wrong-page=4"
        );
    }
}
