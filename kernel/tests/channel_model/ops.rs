//! What can happen to spaces, objects and contexts, and how sequences of it are made up.

use kernel::mm::addr::{PAGE_SIZE, VirtAddr};
use kernel::mm::memtype::Granule;
use kernel::mm::pt::Prot;
use kernel::uffd::{FillMode, Modes};
use proptest::prelude::*;

use crate::common::RW;

/// Cells of a space that are 4 KiB, and after them those that are 2 MiB.
pub const BASE_CELLS: usize = 22;
pub const HUGE_CELLS: usize = 4;
pub const CELLS: usize = BASE_CELLS + HUGE_CELLS;
/// Where most happens, so that much happens to one cell. A node of the tables ends in the middle.
const BUSY: std::ops::Range<usize> = 6..10;
/// Huge pages in the pool: fewer than could be wanted.
pub const POOL: usize = 4;

/// Where the cells are, in every space.
const BASE: VirtAddr = VirtAddr::new(0x5000_0000 - 8 * PAGE_SIZE);
const HUGE_BASE: VirtAddr = VirtAddr::new(0x6000_0000);

/// Spaces, and which of them each context and each task belongs to.
pub const SPACES: usize = 2;
pub const CONTEXT_SPACES: [usize; 3] = [0, 0, 1];
pub const TASK_SPACES: [usize; 6] = [0, 0, 0, 0, 1, 1];

/// Memory objects: what they are, and how many cells they begin with.
pub const OBJECTS: [(ObjectType, usize); 4] = [
    (ObjectType::Shared, 6),
    (ObjectType::Shared, 3),
    (ObjectType::Guest, 4),
    (ObjectType::Huge, 3),
];
/// No object gets larger than this.
pub const MAX_OBJECT_CELLS: usize = 8;

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum ObjectType {
    Shared,
    Guest,
    Huge,
}

/// The size of a cell.
pub fn granule(cell: usize) -> u64 {
    if cell < BASE_CELLS {
        PAGE_SIZE
    } else {
        Granule::Huge.size()
    }
}

/// The address of a cell, or of the end of the last one of its size.
pub fn addr(cell: usize) -> VirtAddr {
    if cell < BASE_CELLS {
        BASE + cell as u64 * PAGE_SIZE
    } else {
        HUGE_BASE + (cell - BASE_CELLS) as u64 * Granule::Huge.size()
    }
}

/// Cells `[.0, .1)`, not empty and of one size.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Span(pub usize, pub usize);

impl Span {
    pub fn cells(self) -> std::ops::Range<usize> {
        self.0..self.1
    }

    pub fn len(self) -> usize {
        self.1 - self.0
    }
}

/// What is mapped.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Memory {
    Anonymous,
    /// An object from a cell of it on; shared or private.
    Object(usize, usize, bool),
}

#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// The first number is the space.
    Map(usize, Span, Memory, Prot),
    Unmap(usize, Span),
    Protect(usize, Span, Prot),
    Discard(usize, Span),
    /// The first number is the context.
    Register(usize, Span, Modes),
    Unregister(usize, Span),
    /// Task, cell, whether it stores.
    Touch(usize, usize, bool),
    Read(usize),
    /// Context, where, cells that the source is too short, how.
    Copy(usize, Span, usize, FillMode),
    Zeropage(usize, Span, FillMode),
    Continue(usize, Span, FillMode),
    Poison(usize, Span, FillMode),
    WriteProtect(usize, Span),
    Unprotect(usize, Span, FillMode),
    Wake(usize, Span),
    /// The context's monitor is this task from now on, or nobody.
    Attach(usize, Option<usize>),
    /// Closes the context and makes a new one in its place.
    Close(usize),
    /// Context, where to, where from (as many cells), whether holes count as moved.
    Move(usize, Span, usize, bool),
    /// The second space becomes a fork of the first.
    Fork,
    /// Object, cell.
    Write(usize, usize),
    /// Object, first cell, cells.
    Punch(usize, usize, usize),
    /// Object, cells that it has from now on.
    Truncate(usize, usize),
}

fn span() -> impl Strategy<Value = Span> {
    prop_oneof![
        6 => (BUSY, 1..5usize).prop_map(|(start, len)| Span(start, start + len)),
        3 => (0..BASE_CELLS, 1..5usize).prop_map(|(start, len)| Span(start, (start + len).min(BASE_CELLS))),
        2 => (0..BASE_CELLS, 1..20usize).prop_map(|(start, len)| Span(start, (start + len).min(BASE_CELLS))),
        3 => (BASE_CELLS..CELLS, 1..3usize).prop_map(|(start, len)| Span(start, (start + len).min(CELLS))),
        1 => Just(Span(0, BASE_CELLS)),
        1 => Just(Span(BASE_CELLS, CELLS)),
    ]
}

fn cell() -> impl Strategy<Value = usize> {
    prop_oneof![3 => BUSY, 2 => 0..BASE_CELLS, 2 => BASE_CELLS..CELLS]
}

/// A place and what is mapped there: huge pages where the cells are huge.
fn mapping() -> impl Strategy<Value = (Span, Memory)> {
    (span(), 0..3usize, 0..3usize, any::<bool>(), 0..3u8).prop_map(
        |(span, object, offset, shared, anonymous)| {
            let memory = if span.0 >= BASE_CELLS {
                Memory::Object(3, offset, shared)
            } else if anonymous == 0 {
                Memory::Anonymous
            } else {
                // Guest memory is shared or not mapped at all.
                Memory::Object(object, offset, shared || OBJECTS[object].0 == ObjectType::Guest)
            };
            (span, memory)
        },
    )
}

/// A sequence.
pub fn ops(longest: usize) -> impl Strategy<Value = Vec<Op>> {
    let prot = || proptest::sample::select(vec![RW, RW, RW, RW, Prot::READ, Prot::empty()]);
    let space = || proptest::sample::select(vec![0, 0, 0, 1]);
    let ctx = || proptest::sample::select(vec![0, 0, 0, 1, 1, 2]);
    let modes = || (1..8u8).prop_map(Modes::from_bits_truncate);
    let mode = || proptest::sample::select(vec![FillMode::empty(), FillMode::empty(), FillMode::DONTWAKE]);
    let wp = || proptest::sample::select(vec![FillMode::empty(), FillMode::empty(), FillMode::WP]);
    let op = prop_oneof![
        4 => (space(), mapping(), prot()).prop_map(|(space, (span, memory), prot)| Op::Map(space, span, memory, prot)),
        2 => (space(), span()).prop_map(|(space, span)| Op::Unmap(space, span)),
        1 => (space(), span(), prot()).prop_map(|(space, span, prot)| Op::Protect(space, span, prot)),
        2 => (space(), span()).prop_map(|(space, span)| Op::Discard(space, span)),
        5 => (ctx(), span(), modes()).prop_map(|(ctx, span, modes)| Op::Register(ctx, span, modes)),
        1 => (ctx(), span()).prop_map(|(ctx, span)| Op::Unregister(ctx, span)),
        20 => (0..TASK_SPACES.len(), cell(), any::<bool>())
            .prop_map(|(task, cell, store)| Op::Touch(task, cell, store)),
        5 => ctx().prop_map(Op::Read),
        4 => (ctx(), span(), 0..4usize, mode(), wp())
            .prop_map(|(ctx, span, short, mode, wp)| Op::Copy(ctx, span, short.saturating_sub(2), mode | wp)),
        2 => (ctx(), span(), mode()).prop_map(|(ctx, span, mode)| Op::Zeropage(ctx, span, mode)),
        4 => (ctx(), span(), mode(), wp()).prop_map(|(ctx, span, mode, wp)| Op::Continue(ctx, span, mode | wp)),
        1 => (ctx(), span(), mode()).prop_map(|(ctx, span, mode)| Op::Poison(ctx, span, mode)),
        4 => (ctx(), span()).prop_map(|(ctx, span)| Op::WriteProtect(ctx, span)),
        2 => (ctx(), span(), mode()).prop_map(|(ctx, span, mode)| Op::Unprotect(ctx, span, mode)),
        2 => (ctx(), span()).prop_map(|(ctx, span)| Op::Wake(ctx, span)),
        1 => (ctx(), proptest::option::of(0..TASK_SPACES.len())).prop_map(|(ctx, task)| Op::Attach(ctx, task)),
        1 => ctx().prop_map(Op::Close),
        4 => (ctx(), span(), 0..BASE_CELLS, any::<bool>())
            .prop_map(|(ctx, span, from, holes)| Op::Move(ctx, span, from, holes)),
        1 => Just(Op::Fork),
        2 => (0..2usize, 0..MAX_OBJECT_CELLS).prop_map(|(object, cell)| Op::Write(object, cell)),
        1 => (0..OBJECTS[2].1).prop_map(|cell| Op::Write(2, cell)),
        1 => (0..4usize, 0..6usize, 1..4usize).prop_map(|(object, cell, cells)| Op::Punch(object, cell, cells)),
        // Guest memory keeps its size.
        1 => (proptest::sample::select(vec![0, 1, 3]), 0..=MAX_OBJECT_CELLS)
            .prop_map(|(object, cells)| Op::Truncate(object, cells)),
    ];
    // Most sequences begin with memory to play with.
    let begin = proptest::collection::vec((space(), mapping(), modes(), ctx()), 2..5);
    (begin, proptest::collection::vec(op, 1..longest)).prop_map(|(begin, ops)| {
        let mut all = Vec::new();
        for (space, (span, memory), modes, ctx) in begin {
            all.push(Op::Map(space, span, memory, RW));
            all.push(Op::Register(ctx, span, modes));
        }
        all.extend(ops);
        all
    })
}
