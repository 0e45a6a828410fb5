//! The result of an application, for people and for xtask.

use kernel::print;
use kernel::trace::record::{Record, Report};

/// Prints `report` on the console and sends it as a record.
pub fn publish(report: Report) {
    print!("\n{report}");
    kernel::trace::emit(&Record::Report(report));
}
