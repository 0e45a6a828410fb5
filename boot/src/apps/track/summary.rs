//! The report of a tracking run.

use alloc::format;
use alloc::vec::Vec;

use kernel::mm::addr::PAGE_SIZE;
use kernel::trace::record::Table;

use super::collect::Collector;
use super::live::Live;
use super::options::Options;
use super::rounds::Known;
use crate::apps::Done;
use crate::apps::common::Draft;

/// Everything that is known at the end of a run.
pub struct Run<'a> {
    /// What was asked for.
    pub options: &'a Options,
    /// The first part.
    pub known: Known,
    /// The second part; nothing if the first one failed.
    pub live: Live,
    /// Who collected in both.
    pub collector: Collector,
    /// Whether the channel delivered anything.
    pub messages: bool,
}

impl Run<'_> {
    /// Tells it all.
    pub fn done(self, mut report: Draft) -> Done {
        let Self {
            options,
            known,
            live,
            collector,
            messages,
        } = self;
        report.failures(known.failures);
        report.failures(live.failures);
        if messages {
            report.failures(["a message was delivered, and tracked stores deliver none".into()]);
        }
        let reported: u64 = known.rounds.iter().map(|[_, reported]| reported).sum();
        let copied: u64 = live.copied.iter().sum();
        report.figure("region", options.pages, "pages");
        report.figure(
            "never touched before",
            options.pages - options.populate as u64,
            "pages",
        );
        report.figure(
            "known stores",
            (known.times.first.len() + known.times.again.len()) as u64,
            "stores",
        );
        report.figure("reported after known stores", reported, "pages");
        report.figure("live stores", live.stores, "stores");
        report.figure("copied live", copied * PAGE_SIZE, "bytes");
        report.figure(
            "left when the writer ended",
            live.copied.last().copied().unwrap_or(0),
            "pages",
        );
        report.figure("scans", collector.scans, "calls");
        report.figure("verified", live.verified, "pages");
        let rounds = known.rounds.len().saturating_sub(1);
        report.latencies(
            "touch to next instruction",
            [
                ("store, page protected", known.times.first),
                ("store, page written before", known.times.again),
                ("load", known.times.loads),
            ],
        );
        report.latencies(
            "collection of the region",
            [("scan and protect", collector.times)],
        );
        report.table(per_round(
            "known writes",
            &["written", "reported"],
            ["arming", ""],
            &known.rounds,
        ));
        let copied: Vec<[u64; 1]> = live.copied.iter().map(|pages| [*pages]).collect();
        report.table(per_round("live", &["copied"], ["all", "writer ended"], &copied));
        report.done(format!(
            "{rounds} rounds of known writes were found, and no others; {} pages followed live and verified",
            live.verified
        ))
    }
}

/// A row for each round. What comes before them has the name `around[0]`; what comes after them, if it has one, `around[1]`.
fn per_round<const N: usize>(
    title: &str,
    columns: &[&str; N],
    [before, after]: [&str; 2],
    rounds: &[[u64; N]],
) -> Table {
    let mut table = Table::new(title, "pages", columns);
    for (round, pages) in rounds.iter().enumerate() {
        match round {
            0 => table.row(before, pages),
            _ if round + 1 == rounds.len() && !after.is_empty() => table.row(after, pages),
            _ => table.row(&format!("round {round}"), pages),
        }
    }
    table
}
