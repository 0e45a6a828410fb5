//! What can happen to two contexts, and how sequences of it are made up.

use kernel::mm::addr::{PAGE_SIZE, VirtAddr};
use kernel::mm::pt::Prot;
use kernel::uffd::{FillMode, Modes};
use proptest::prelude::*;

use crate::common::RW;

pub const PAGES: usize = 40;
pub const TASKS: usize = 6;
pub const CONTEXTS: usize = 2;
pub const BASE: VirtAddr = VirtAddr::new(0x5000_0000 - 8 * PAGE_SIZE);

#[derive(Clone, Copy, Debug)]
pub enum Op {
    Map(Span, Prot),
    Unmap(Span),
    Protect(Span, Prot),
    Discard(Span),
    Register(usize, Span, Modes),
    Unregister(usize, Span),
    /// Task, page, whether it stores.
    Touch(usize, usize, bool),
    Read(usize),
    /// Context, where, pages that the source is too short, how.
    Copy(usize, Span, usize, FillMode),
    Zeropage(usize, Span, FillMode),
    Poison(usize, Span, FillMode),
    WriteProtect(usize, Span),
    Unprotect(usize, Span, FillMode),
    Wake(usize, Span),
    /// The context's monitor is this task from now on, or nobody.
    Attach(usize, Option<usize>),
    /// Closes the context and makes a new one in its place.
    Close(usize),
}

/// Pages `[.0, .1)`.
#[derive(Clone, Copy, Debug)]
pub struct Span(pub usize, pub usize);

impl Span {
    pub fn pages(self) -> std::ops::Range<usize> {
        self.0..self.1
    }
}

pub fn ops() -> impl Strategy<Value = Vec<Op>> {
    let span = || {
        prop_oneof![
            4 => (0..PAGES, 1..6usize).prop_map(|(start, len)| Span(start, (start + len).min(PAGES))),
            2 => (0..PAGES, 1..30usize).prop_map(|(start, len)| Span(start, (start + len).min(PAGES))),
            1 => Just(Span(0, PAGES)),
        ]
    };
    let prot = || proptest::sample::select(vec![RW, RW, RW, Prot::READ, Prot::empty()]);
    let ctx = 0..CONTEXTS;
    let both = Modes::MISSING | Modes::WP;
    let modes = || proptest::sample::select(vec![Modes::MISSING, Modes::MISSING, Modes::WP, both, both]);
    let mode = || proptest::sample::select(vec![FillMode::empty(), FillMode::DONTWAKE]);
    let wp = proptest::sample::select(vec![FillMode::empty(), FillMode::WP]);
    let op = prop_oneof![
        3 => (span(), prot()).prop_map(|(span, prot)| Op::Map(span, prot)),
        1 => span().prop_map(Op::Unmap),
        1 => (span(), prot()).prop_map(|(span, prot)| Op::Protect(span, prot)),
        1 => span().prop_map(Op::Discard),
        4 => (ctx.clone(), span(), modes()).prop_map(|(ctx, span, modes)| Op::Register(ctx, span, modes)),
        1 => (ctx.clone(), span()).prop_map(|(ctx, span)| Op::Unregister(ctx, span)),
        16 => (0..TASKS, 0..PAGES, any::<bool>()).prop_map(|(task, page, store)| Op::Touch(task, page, store)),
        4 => ctx.clone().prop_map(Op::Read),
        4 => (ctx.clone(), span(), 0..3usize, mode(), wp)
            .prop_map(|(ctx, span, short, mode, wp)| Op::Copy(ctx, span, short.saturating_sub(1), mode | wp)),
        3 => (ctx.clone(), span(), mode()).prop_map(|(ctx, span, mode)| Op::Zeropage(ctx, span, mode)),
        1 => (ctx.clone(), span(), mode()).prop_map(|(ctx, span, mode)| Op::Poison(ctx, span, mode)),
        4 => (ctx.clone(), span()).prop_map(|(ctx, span)| Op::WriteProtect(ctx, span)),
        2 => (ctx.clone(), span(), mode()).prop_map(|(ctx, span, mode)| Op::Unprotect(ctx, span, mode)),
        2 => (ctx.clone(), span()).prop_map(|(ctx, span)| Op::Wake(ctx, span)),
        1 => (ctx.clone(), proptest::option::of(0..TASKS)).prop_map(|(ctx, task)| Op::Attach(ctx, task)),
        1 => ctx.prop_map(Op::Close),
    ];
    // Most sequences begin with memory to play with.
    (proptest::collection::vec(op, 1..60), modes()).prop_map(|(mut ops, modes)| {
        ops.insert(0, Op::Map(Span(4, PAGES - 4), RW));
        ops.insert(1, Op::Register(0, Span(6, 30), modes));
        ops
    })
}
