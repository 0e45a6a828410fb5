//! All outstanding faults, over all contexts: those that are queued, and those that handlers are at.

use alloc::vec::Vec;
use core::time::Duration;

use super::{Page, Progress, Server, Waiting};
use crate::arch::{Clock, Machine};
use crate::mm::pt::{AttrFlags, Entry, Marker};
use crate::task::{self, Task};
use crate::uffd::classify::TrapKind;
use crate::uffd::ctx::{self, Ctx};
use crate::uffd::delivery::Delivery;
use crate::uffd::queue::{Queue, State};
use crate::uffd::slot::{FaultRecord, FaultState};

/// Every outstanding fault, contexts in the order in which they were made. Waits for locks and takes memory.
pub fn waiting() -> Vec<Waiting> {
    let now = Machine::ticks();
    let mut rows = Vec::new();
    for ctx in ctx::all() {
        let server = ctx.queue.lock().server(&ctx);
        for fault in ctx.outstanding_faults() {
            let page = page_of(&ctx, &fault);
            rows.push(row(&ctx, server, &fault.task, now, &fault, page));
        }
    }
    task::for_each(|task| {
        task.fault.calls.each(|call| {
            let page = Page::Unresolved;
            rows.push(row(&call.ctx, Server::Handler, task, now, &call.record(), page));
        });
    });
    rows
}

/// Calls `f` for every outstanding fault without waiting for a lock and without memory: for interrupt handlers and panics.
/// Says whether that could be done for all: where a lock is held, somebody is in the middle of something.
pub fn waiting_at_once(mut f: impl FnMut(&Waiting)) -> bool {
    let now = Machine::ticks();
    let mut whole = true;
    let contexts = ctx::look_at_each(|ctx| {
        let Some(queue) = ctx.queue.try_lock() else {
            whole = false;
            return;
        };
        let server = queue.server(ctx);
        for task in queue.pending.iter().chain(queue.read.iter()) {
            let fault = task.fault.record();
            let page = page_of_at_once(ctx, &fault);
            f(&row(ctx, server, task, now, &fault, page));
        }
    });
    let tasks = task::look_at_each(|task| {
        whole &= task.fault.calls.look_at_each(|call| {
            let page = Page::Unresolved;
            f(&row(&call.ctx, Server::Handler, task, now, &call.record(), page));
        });
    });
    whole && contexts && tasks
}

fn row(ctx: &Ctx, server: Server, task: &Task, now: u64, fault: &FaultRecord, page: Page) -> Waiting {
    let progress = match (fault.state, fault.read) {
        (FaultState::Called, _) => Progress::InHandler,
        (_, Some((by, at))) => Progress::Read {
            by,
            ago: between(at, now),
        },
        (_, None) => Progress::Unread,
    };
    Waiting {
        ctx: ctx.id(),
        server,
        task: task.id(),
        name: task.short_name(),
        stage: ctx.stage(),
        addr: fault.addr,
        trap: fault.trap,
        age: between(fault.since, now),
        progress,
        page,
    }
}

/// The time between two moments of the clock.
fn between(then: u64, now: u64) -> Duration {
    let ticks = u128::from(now.saturating_sub(then));
    let nanos = ticks * 1_000_000_000 / u128::from(Machine::frequency().max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

impl Queue {
    fn server(&self, ctx: &Ctx) -> Server {
        let monitor = self.monitor.as_ref().map(|monitor| monitor.id);
        match (&ctx.delivery, self.state, monitor) {
            (Delivery::Upcall(_), ..) => Server::Handler,
            (_, State::Orphaned(policy), monitor) => Server::Lost(monitor, policy),
            (_, _, Some(monitor)) => Server::Monitor(monitor),
            (_, _, None) => Server::Readers,
        }
    }
}

fn page_of(ctx: &Ctx, fault: &FaultRecord) -> Page {
    if let Some(delegated) = ctx.guest_delegates(fault.addr) {
        return if delegated {
            Page::Unresolved
        } else {
            Page::Resolved
        };
    }
    if !ctx.traps_at(fault.addr) {
        return Page::Unregistered;
    }
    match ctx.space() {
        Some(space) => judge(fault.trap.kind, space.entry(fault.addr).0),
        None => Page::Unknown,
    }
}

/// Without a look at the areas.
fn page_of_at_once(ctx: &Ctx, fault: &FaultRecord) -> Page {
    let entry = ctx.space().and_then(|space| space.entry_at_once(fault.addr));
    entry.map_or(Page::Unknown, |(entry, _)| judge(fault.trap.kind, entry))
}

/// What an access that was trapped as `kind` would come to at this entry.
fn judge(kind: TrapKind, entry: Entry) -> Page {
    match (kind, entry) {
        (_, Entry::Absent(Marker::Poison | Marker::Guard)) => Page::Resolved,
        (TrapKind::Missing | TrapKind::Minor, Entry::Leaf(_)) => Page::Resolved,
        (TrapKind::Missing | TrapKind::Minor, _) => Page::Unresolved,
        (TrapKind::WriteProtect, Entry::Leaf(leaf)) if leaf.attr.flags.contains(AttrFlags::UFFD_WP) => {
            Page::Unresolved
        }
        (TrapKind::WriteProtect, Entry::Absent(Marker::UffdWp)) => Page::Unresolved,
        (TrapKind::WriteProtect, _) => Page::Resolved,
    }
}
