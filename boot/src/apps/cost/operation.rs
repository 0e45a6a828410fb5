//! What is measured: an operation of the channel, and how a region must look for it.

use alloc::sync::Arc;

use kernel::mm::addr::VirtAddr;
use kernel::mm::range::VirtRange;
use kernel::mm::space::Space;
use kernel::uffd::{FillMode, Modes, MoveMode, Outcome, Resolver};

use super::bench::CostError;

/// What a region holds before the measurement.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing.
    Empty,
    /// Nothing, but the object behind it has all its pages.
    Cached,
    /// Pages that were stored to.
    Present,
    /// The same, write-protected by the channel.
    Protected,
}

/// What an operation needs beside the range.
#[derive(Clone)]
pub struct Means {
    /// The space of the region.
    pub space: Arc<Space>,
    /// Bytes to copy, no zeros.
    pub source: Arc<[u8]>,
    /// The region, and one of the same size with pages to move.
    pub region: VirtAddr,
    pub staging: VirtAddr,
}

/// An operation of the channel.
pub trait Operation: 'static {
    /// What it is called.
    const NAME: &'static str;
    /// What the region is registered for.
    const MODES: Modes;
    /// What it finds.
    const START: State;
    /// Whether it takes pages out of the staging region.
    const STAGED: bool = false;

    /// Does it on `range`.
    ///
    /// # Errors
    /// It was not done.
    fn call(on: &Resolver, means: &Means, range: VirtRange) -> Result<(), CostError>;
}

/// COPY.
pub struct Copy;
/// ZEROPAGE.
pub struct Zeropage;
/// CONTINUE.
pub struct Continue;
/// POISON.
pub struct Poison;
/// WRITEPROTECT that begins.
pub struct Protect;
/// WRITEPROTECT that ends.
pub struct Unprotect;
/// MOVE.
pub struct Move;

impl Operation for Copy {
    const NAME: &'static str = "COPY";
    const MODES: Modes = Modes::MISSING;
    const START: State = State::Empty;

    #[inline]
    fn call(on: &Resolver, means: &Means, range: VirtRange) -> Result<(), CostError> {
        filled(on.copy(range.start, &means.source, range.len(), FillMode::empty()))
    }
}

impl Operation for Zeropage {
    const NAME: &'static str = "ZEROPAGE";
    const MODES: Modes = Modes::MISSING;
    const START: State = State::Empty;

    #[inline]
    fn call(on: &Resolver, _: &Means, range: VirtRange) -> Result<(), CostError> {
        filled(on.zeropage(range, FillMode::empty()))
    }
}

impl Operation for Continue {
    const NAME: &'static str = "CONTINUE";
    const MODES: Modes = Modes::MINOR;
    const START: State = State::Cached;

    #[inline]
    fn call(on: &Resolver, _: &Means, range: VirtRange) -> Result<(), CostError> {
        filled(on.cont(range, FillMode::empty()))
    }
}

impl Operation for Poison {
    const NAME: &'static str = "POISON";
    const MODES: Modes = Modes::MISSING;
    const START: State = State::Empty;

    #[inline]
    fn call(on: &Resolver, _: &Means, range: VirtRange) -> Result<(), CostError> {
        filled(on.poison(range, FillMode::empty()))
    }
}

impl Operation for Protect {
    const NAME: &'static str = "WRITEPROTECT";
    const MODES: Modes = Modes::WP;
    const START: State = State::Present;

    #[inline]
    fn call(on: &Resolver, _: &Means, range: VirtRange) -> Result<(), CostError> {
        on.write_protect(range).map_err(CostError::Protect)
    }
}

impl Operation for Unprotect {
    const NAME: &'static str = "clear";
    const MODES: Modes = Modes::WP;
    const START: State = State::Protected;

    #[inline]
    fn call(on: &Resolver, _: &Means, range: VirtRange) -> Result<(), CostError> {
        on.remove_write_protection(range, FillMode::empty())
            .map_err(CostError::Protect)
    }
}

impl Operation for Move {
    const NAME: &'static str = "MOVE";
    const MODES: Modes = Modes::MISSING;
    const START: State = State::Empty;
    const STAGED: bool = true;

    #[inline]
    fn call(on: &Resolver, means: &Means, range: VirtRange) -> Result<(), CostError> {
        let src = means.staging + (range.start - means.region);
        filled(on.move_pages(&means.space, range.start, src, range.len(), MoveMode::empty()))
    }
}

#[inline]
fn filled(outcome: Outcome) -> Result<(), CostError> {
    match outcome {
        Outcome::Done => Ok(()),
        outcome => Err(CostError::Fill(outcome)),
    }
}
