//! What the restore of a guest is told: keys of the command line, besides those of every guest
//! ([`Guest`]).
//!
//! | key | what | default |
//! | --- | --- | --- |
//! | `delivery` | who serves the delegated memory: the guest, told by `inject` or `ve`, or its owner (`exit`) | `inject` |
//! | `kill-monitor-after` | the ordinary memory's monitor ends after so many faults | never |
//! | `corrupt-page` | a byte of this delegated page is changed in what the guest is restored from | none |
//! | `skip-page` | this delegated page is said to be resolved, and was not filled | none |
//! | `wrong-page` | when this delegated page is touched, the one behind it is resolved | none |

use alloc::format;

use kernel::abi::guest::Resumed;
use kernel::mm::range::GuestRange;
use kernel::trace::cmdline::Cmdline;

use crate::apps::guest::Guest;
use crate::apps::{AppError, System};

const KEYS: &[&str] = &[
    "guest-mem",
    "delegated",
    "mark-after",
    "guest-deadline",
    "delivery",
    "kill-monitor-after",
    "corrupt-page",
    "skip-page",
    "wrong-page",
];
/// An injury to a page.
type Make = fn(u64) -> Injury;
/// Keys whose value is the page that something is done to.
const INJURIES: [(&str, Make); 3] = [
    ("corrupt-page", Injury::Corrupt),
    ("skip-page", Injury::Skip),
    ("wrong-page", Injury::Wrong),
];
/// What the built-in guest does unless it is told otherwise.
const WORKLOAD: &str = "workload";
const DELIVERIES: &[&str] = &["inject", "ve", "exit"];

/// Who serves the delegated memory of the restored guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// The guest's own monitor, told by an injected vector.
    Inject,
    /// The guest's own monitor, told by #VE.
    Exception,
    /// The owner of the vCPU.
    Exit,
}

/// What is done wrong, to see it found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Injury {
    /// This page is not what was saved.
    Corrupt(u64),
    /// This page is resolved without having been filled.
    Skip(u64),
    /// Instead of this page the next one is resolved.
    Wrong(u64),
}

/// A restore, as it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The guest.
    pub guest: Guest,
    /// Who serves its delegated memory.
    pub delivery: Delivery,
    /// When the ordinary memory's monitor ends for no reason.
    pub kill_monitor_after: Option<u64>,
    /// What is done wrong.
    pub injury: Option<Injury>,
}

impl Delivery {
    const ALL: [Self; 3] = [Self::Inject, Self::Exception, Self::Exit];

    /// What the guest is told of it when it goes on.
    pub const fn resumed(self) -> Resumed {
        match self {
            Self::Inject => Resumed::ToServeInjected,
            Self::Exception => Resumed::ToServeExceptions,
            Self::Exit => Resumed::Restored,
        }
    }
}

impl Injury {
    /// The page that it is done to.
    pub const fn page(self) -> u64 {
        match self {
            Self::Corrupt(page) | Self::Skip(page) | Self::Wrong(page) => page,
        }
    }
}

impl Options {
    /// Reads and checks them.
    ///
    /// # Errors
    /// A key or value that makes no sense, alone or with another; no guest in the ramdisk.
    pub fn parse(cmdline: &Cmdline<'static>, system: &'static System) -> Result<Self, AppError> {
        cmdline.allow(KEYS)?;
        let guest = Guest::parse(cmdline, system, WORKLOAD)?;
        let delivery = cmdline
            .choice("delivery", DELIVERIES)?
            .map_or(Delivery::Inject, |index| Delivery::ALL[index]);
        Ok(Self {
            guest,
            delivery,
            kill_monitor_after: cmdline.number("kill-monitor-after", 0, u64::MAX)?,
            injury: injury(cmdline, guest.layout.delegated, delivery)?,
        })
    }
}

fn injury(
    cmdline: &Cmdline<'static>,
    delegated: GuestRange,
    delivery: Delivery,
) -> Result<Option<Injury>, AppError> {
    let mut found = None;
    for (key, injury) in INJURIES {
        let Some(page) = cmdline.number(key, 0, delegated.pages() - 1)? else {
            continue;
        };
        let injury = injury(page);
        if !matches!(injury, Injury::Corrupt(_)) && delivery != Delivery::Exit {
            return Err(AppError::Usage(format!(
                "{key}={page} is a mistake of the owner's: it needs delivery=exit, where the owner serves"
            )));
        }
        if found.replace(injury).is_some() {
            return Err(AppError::Usage(format!(
                "{key}={page}: only one page can be treated badly at a time"
            )));
        }
    }
    Ok(found)
}
