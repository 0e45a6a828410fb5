//! Options that experiments on a region share.

use clap::Args;
use clap::builder::RangedU64ValueParser;

use crate::machine::Machine;
use crate::order::{self, Order};
use crate::size::check_fits;
use crate::status::usage;

/// A number of pages, or of what there is at most as many of, from `least` on.
pub fn pages_from(least: u64) -> RangedU64ValueParser<u64> {
    clap::value_parser!(u64).range(least..=u32::MAX.into())
}

/// How large the region is.
#[derive(Args, Clone, Debug, Default)]
pub struct Region {
    /// Pages of the region; default: 2048
    #[arg(long, value_name = "PAGES", allow_negative_numbers = true, value_parser = pages_from(1))]
    pub pages: Option<u64>,
}

/// In which order its pages are touched.
#[derive(Args, Clone, Debug, Default)]
pub struct Orders {
    /// Order in which pages are touched, over and over: random (the default), sequential, reverse, or a file of page
    /// numbers
    #[arg(long, value_name = "ORDER")]
    pub order: Option<Order>,
    /// Seed of the random order and of the contents; default: 1
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub seed: Option<u64>,
}

impl Region {
    /// Checks that `machine` can hold `copies` times the region. A region of the default size is for the kernel to refuse.
    ///
    /// # Errors
    /// A usage error with both figures and the memory that would do.
    pub fn check_fits(&self, copies: u64, what: &str, machine: &dyn Machine) -> anyhow::Result<()> {
        let Some(pages) = self.pages else { return Ok(()) };
        check_fits(
            &format!("--pages {pages}: {what}"),
            pages * copies,
            machine.memory(),
        )
    }

    /// Checks an option that counts pages of the region.
    ///
    /// # Errors
    /// A usage error: the region has fewer.
    pub fn check_at_most(&self, option: &str, value: Option<u64>) -> anyhow::Result<()> {
        match (self.pages, value) {
            (Some(pages), Some(value)) if value > pages => {
                Err(usage(format!("{option} {value}: the region has {pages} pages")))
            }
            _ => Ok(()),
        }
    }
}

impl Orders {
    /// The value of the kernel's `order=` token.
    pub fn token(&self) -> Option<&'static str> {
        self.order.as_ref().map(Order::token)
    }

    /// The ramdisk's entry for an order that is a file.
    ///
    /// # Errors
    /// A usage error that names file and line.
    pub fn entry(&self, region: &Region) -> anyhow::Result<Option<String>> {
        order::entry(self.order.as_ref(), region.pages.unwrap_or(u32::MAX.into()))
    }
}
