//! The channel against a model that is small enough to be obviously right: two address spaces, memory objects of every type
//! that both map, three contexts, six tasks.
//!
//! Tasks are driven by hand, one step of a fault at a time, so that a sequence plays the same way each time it is run and
//! proptest can shrink it. After every step all of this is compared: who waits where and in which order, what is
//! mapped and registered with whom and for what, what each cell holds, whether it is protected, which cells share a page, how
//! many frames are in use and how many huge pages are left. The whole sequence runs on one CPU of the software machine, which
//! misses no missing flush. `PROPTEST_CASES=20000` makes a long run of it.

#[path = "../common/mod.rs"]
mod common;
mod model;
mod ops;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::World;
use kernel::mm::addr::{PAGE_SIZE, Pfn};
use kernel::mm::cache::{Lookup, Object};
use kernel::mm::fault::{Access, FaultError, FaultInfo, Origin, Verdict};
use kernel::mm::frame::{Kind, allocator};
use kernel::mm::kernel as mm;
use kernel::mm::memtype::anon::ANON;
use kernel::mm::memtype::guest_memfd::GUEST_MEMFD;
use kernel::mm::memtype::hugetlb::HUGETLB;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::pt::{AttrFlags, Entry, Marker, Prot};
use kernel::mm::range::VirtRange;
use kernel::mm::space::{
    DiscardError, MapError, MapRequest, Memory as Mapped, Privilege, ProtectError, Space,
};
use kernel::mm::uaccess;
use kernel::mm::vma::Sharing;
use kernel::task::Task;
use kernel::uffd::slot::FaultState;
use kernel::uffd::{
    Event, Features, FillMode, Modes, MoveMode, Outcome, ReadError, Refusal, RegisterError, Uffd,
    UnregisterError,
};
use model::{Area, Cell, Content, Fill, Model, Owner, PageId, Queues, Touched, Waiting};
use ops::{
    BASE_CELLS, CELLS, CONTEXT_SPACES, Memory, OBJECTS, ObjectType, Op, POOL, SPACES, Span, TASK_SPACES,
    addr, granule, ops,
};
use proptest::prelude::*;

/// The kernel and the model side by side. What holds frames is dropped before the machine, which counts them.
struct Check<'a> {
    objects: Vec<Arc<Object>>,
    uffds: Vec<Uffd>,
    tasks: Vec<Arc<Task>>,
    spaces: [Arc<Space>; SPACES],
    model: Model,
    /// Makes every stored word another one.
    next_word: u64,
    world: &'a World,
}

fn range(span: Span) -> VirtRange {
    VirtRange::from_len(addr(span.0), span.len() as u64 * granule(span.0)).expect("far below the top")
}

/// What a context is made with: the second one protects absent pages too.
fn features(ctx: usize) -> Features {
    if ctx == 1 {
        Features::WP_UNPOPULATED
    } else {
        Features::empty()
    }
}

impl<'a> Check<'a> {
    fn new(world: &'a World) -> Self {
        let spaces = [
            Arc::clone(&world.space),
            Space::new(Privilege::Kernel).expect("RAM is plenty"),
        ];
        let object = |(ty, cells): (ObjectType, usize)| {
            let ty = match ty {
                ObjectType::Shared => &SHMEM,
                ObjectType::Guest => &GUEST_MEMFD,
                ObjectType::Huge => &HUGETLB,
            };
            Object::new(ty, cells as u64 * ty.granule().size())
        };
        let uffd = |ctx| Uffd::new(&spaces[CONTEXT_SPACES[ctx]], features(ctx));
        Self {
            objects: OBJECTS.into_iter().map(object).collect(),
            uffds: (0..CONTEXT_SPACES.len()).map(uffd).collect(),
            tasks: TASK_SPACES
                .map(|space| Task::detached_in("toucher", Arc::clone(&spaces[space])))
                .to_vec(),
            spaces,
            model: Model::new(),
            next_word: 0,
            world,
        }
    }

    fn play(&mut self, op: Op) {
        match op {
            Op::Map(space, span, memory, prot) => self.map(space, span, memory, prot),
            Op::Unmap(space, span) => {
                assert_eq!(self.spaces[space].unmap(range(span)), Ok(()));
                self.model.spaces[space][span.cells()].fill(Cell::UNMAPPED);
            }
            Op::Protect(space, span, prot) => self.protect(space, span, prot),
            Op::Discard(space, span) => self.discard(space, span),
            Op::Register(ctx, span, modes) => self.register(ctx, span, modes),
            Op::Unregister(ctx, span) => self.unregister(ctx, span),
            Op::Touch(task, cell, store) => self.touch(task, cell, store),
            Op::Read(ctx) => self.read(ctx),
            Op::Copy(ctx, span, short, mode) => self.copy(ctx, span, short, mode),
            Op::Zeropage(ctx, span, mode) => {
                let outcome = self.uffds[ctx].zeropage(range(span), mode);
                assert_eq!(outcome, self.model.fill(ctx, span, mode, &Fill::Zero));
            }
            Op::Continue(ctx, span, mode) => {
                let outcome = self.uffds[ctx].cont(range(span), mode);
                assert_eq!(outcome, self.model.fill(ctx, span, mode, &Fill::Continue));
            }
            Op::Poison(ctx, span, mode) => {
                let outcome = self.uffds[ctx].poison(range(span), mode);
                assert_eq!(outcome, self.model.fill(ctx, span, mode, &Fill::Poison));
            }
            Op::WriteProtect(ctx, span) => {
                let covers = |owner| features(owner).contains(Features::WP_UNPOPULATED);
                let space = CONTEXT_SPACES[ctx];
                let expected = self.model.write_protect(space, span, covers, true);
                assert_eq!(self.uffds[ctx].write_protect(range(span)), expected);
            }
            Op::Unprotect(ctx, span, mode) => {
                let space = CONTEXT_SPACES[ctx];
                let expected = self.model.write_protect(space, span, |_| false, false);
                assert_eq!(
                    self.uffds[ctx].remove_write_protection(range(span), mode),
                    expected
                );
                if expected.is_ok() && !mode.contains(FillMode::DONTWAKE) {
                    self.model.wake(ctx, span);
                }
            }
            Op::Wake(ctx, span) => {
                assert_eq!(self.uffds[ctx].wake(range(span)), Ok(()));
                self.model.wake(ctx, span);
            }
            Op::Attach(ctx, task) => {
                match task {
                    Some(task) => self.uffds[ctx].attach_monitor(&self.tasks[task]),
                    None => self.uffds[ctx].detach_monitor(),
                }
                self.model.contexts[ctx].monitor = task;
            }
            Op::Close(ctx) => self.close(ctx),
            Op::Move(ctx, dst, from, holes) => self.move_cells(ctx, dst, from, holes),
            Op::Fork => self.fork(),
            Op::Write(object, cell) => {
                self.next_word += 1;
                let bytes = self.next_word.to_ne_bytes().repeat(PAGE_SIZE as usize / 8);
                let offset = cell as u64 * PAGE_SIZE;
                assert_eq!(self.objects[object].write(offset, &bytes), (PAGE_SIZE, Ok(())));
                self.model.write(object, cell, self.next_word);
            }
            Op::Punch(object, first, cells) => {
                let size = self.objects[object].ty().granule().size();
                let (start, len) = (first as u64 * size, cells as u64 * size);
                assert_eq!(self.objects[object].punch(start, len), Ok(()));
                self.model.punch(object, first, cells);
            }
            Op::Truncate(object, cells) => {
                let size = cells as u64 * self.objects[object].ty().granule().size();
                assert_eq!(self.objects[object].truncate(size), Ok(()));
                self.model.truncate(object, cells);
            }
        }
    }

    fn move_cells(&mut self, ctx: usize, dst: Span, from: usize, holes: bool) {
        // Huge cells are refused like other memory that cannot be moved; the source then is of another size.
        let src = if dst.0 < BASE_CELLS { from } else { BASE_CELLS };
        let limit = if dst.0 < BASE_CELLS { BASE_CELLS } else { CELLS };
        let len = dst.len().min(limit - src);
        let (dst, src) = (Span(dst.0, dst.0 + len), Span(src, src + len));
        let mode = if holes {
            MoveMode::ALLOW_SRC_HOLES
        } else {
            MoveMode::empty()
        };
        let caller = &self.spaces[CONTEXT_SPACES[ctx]];
        let outcome = self.uffds[ctx].move_pages(caller, addr(dst.0), addr(src.0), range(dst).len(), mode);
        match self.model.move_cells(ctx, dst, src, holes) {
            Some(expected) => assert!(
                expected.contains(&outcome),
                "{outcome:?}, not one of {expected:?}"
            ),
            None => assert!(
                matches!(outcome, Outcome::Refused(Refusal::Immovable(_))),
                "{outcome:?}"
            ),
        }
    }

    fn fork(&mut self) {
        let child = self.spaces[0].fork().expect("RAM is plenty");
        for ctx in (0..CONTEXT_SPACES.len()).filter(|&ctx| CONTEXT_SPACES[ctx] == 1) {
            self.uffds[ctx].close();
            self.uffds[ctx] = Uffd::new(&child, features(ctx));
            self.model.contexts[ctx] = Queues::default();
        }
        for task in (0..TASK_SPACES.len()).filter(|&task| TASK_SPACES[task] == 1) {
            self.tasks[task] = Task::detached_in("toucher", Arc::clone(&child));
        }
        self.spaces[1] = child;
        self.model.fork();
    }

    fn map(&mut self, space: usize, span: Span, memory: Memory, prot: Prot) {
        let cells = &mut self.model.spaces[space][span.cells()];
        let free = cells.iter().all(|cell| cell.area.is_none());
        let request = MapRequest {
            at: Some(addr(span.0)),
            len: range(span).len(),
            prot,
            memory: match memory {
                Memory::Anonymous => Mapped::Own(&ANON),
                Memory::Object(object, offset, shared) => Mapped::Object {
                    object: Arc::clone(&self.objects[object]),
                    offset: offset as u64 * granule(span.0),
                    sharing: if shared { Sharing::Shared } else { Sharing::Private },
                    read_only: false,
                },
            },
        };
        let expected = if free {
            Ok(range(span))
        } else {
            Err(MapError::Occupied)
        };
        assert_eq!(self.spaces[space].map(request), expected);
        if free {
            for (index, cell) in cells.iter_mut().enumerate() {
                let memory = match memory {
                    Memory::Anonymous => Memory::Anonymous,
                    Memory::Object(object, offset, shared) => Memory::Object(object, offset + index, shared),
                };
                let owner = None;
                let area = Some(Area { prot, memory, owner });
                *cell = Cell {
                    area,
                    ..Cell::UNMAPPED
                };
            }
        }
    }

    fn protect(&mut self, space: usize, span: Span, prot: Prot) {
        let cells = &mut self.model.spaces[space][span.cells()];
        let whole = cells.iter().all(|cell| cell.area.is_some());
        let expected = if whole {
            Ok(())
        } else {
            Err(ProtectError::NotMapped)
        };
        assert_eq!(self.spaces[space].protect(range(span), prot), expected);
        if whole {
            let areas = cells.iter_mut().filter_map(|cell| cell.area.as_mut());
            areas.for_each(|area| area.prot = prot);
        }
    }

    fn discard(&mut self, space: usize, span: Span) {
        let hole = span
            .cells()
            .any(|cell| self.model.spaces[space][cell].area.is_none());
        let expected = if hole {
            Err(DiscardError::NotMapped)
        } else {
            Ok(())
        };
        assert_eq!(self.spaces[space].discard(range(span)), expected);
        self.model.discard(space, span);
    }

    /// The areas of `span` in the space of `ctx`.
    fn areas(&self, ctx: usize, span: Span) -> Vec<Area> {
        let cells = &self.model.spaces[CONTEXT_SPACES[ctx]][span.cells()];
        cells.iter().filter_map(|cell| cell.area).collect()
    }

    fn register(&mut self, ctx: usize, span: Span, modes: Modes) {
        let areas = self.areas(ctx, span);
        // The first area that refuses says why.
        let refusal = areas.iter().find_map(|area| {
            if !area.may().contains(modes) {
                Some(RegisterError::Unsupported)
            } else if area.owner.is_some_and(|owner| owner.ctx != ctx) {
                Some(RegisterError::Busy)
            } else {
                None
            }
        });
        let expected = match refusal {
            _ if areas.is_empty() => Err(RegisterError::NotMapped),
            Some(refusal) => Err(refusal),
            None => Ok(()),
        };
        let result = self.uffds[ctx].register(range(span), modes);
        assert_eq!(result.map(drop), expected);
        if expected.is_ok() {
            let cells = &mut self.model.spaces[CONTEXT_SPACES[ctx]][span.cells()];
            let areas = cells.iter_mut().filter_map(|cell| cell.area.as_mut());
            // Less than there is changes nothing; anything else replaces it.
            areas
                .filter(|area| !area.owner.is_some_and(|owner| owner.modes.contains(modes)))
                .for_each(|area| area.owner = Some(Owner { ctx, modes }));
        }
    }

    fn unregister(&mut self, ctx: usize, span: Span) {
        let areas = self.areas(ctx, span);
        let expected = if areas.is_empty() {
            Err(UnregisterError::NotMapped)
        } else if areas
            .iter()
            .any(|area| area.owner.is_some_and(|owner| owner.ctx != ctx))
        {
            Err(UnregisterError::NotOurs)
        } else {
            Ok(())
        };
        assert_eq!(self.uffds[ctx].unregister(range(span)), expected);
        for number in span.cells().filter(|_| expected.is_ok()) {
            let modes = self.model.spaces[CONTEXT_SPACES[ctx]][number].unregister(ctx);
            if modes.is_some_and(|modes| modes.contains(Modes::MISSING)) {
                self.model.wake(ctx, Span(number, number + 1));
            }
        }
    }

    fn close(&mut self, ctx: usize) {
        let space = CONTEXT_SPACES[ctx];
        self.uffds[ctx].close();
        self.uffds[ctx] = Uffd::new(&self.spaces[space], features(ctx));
        self.model.contexts[ctx] = Queues::default();
        for cell in &mut self.model.spaces[space] {
            cell.unregister(ctx);
        }
    }

    fn touch(&mut self, task: usize, number: usize, store: bool) {
        if self.model.waits(task) {
            return;
        }
        let space = TASK_SPACES[task];
        let access = if store { Access::Write } else { Access::Read };
        let info = FaultInfo {
            addr: addr(number) + 8,
            access,
            origin: Origin::Task,
        };
        let found = match self.spaces[space].step(&info, &self.tasks[task]) {
            Verdict::Resolved | Verdict::Retry => Touched::Resolved,
            Verdict::Delegated => Touched::Delegated,
            Verdict::Failed(FaultError::SelfFault { monitor }) => {
                assert_eq!(monitor, self.tasks[task].id());
                Touched::SelfFault
            }
            Verdict::Failed(why) => Touched::Failed(why),
        };
        assert_eq!(found, self.model.touch(task, number, store));
        if found == Touched::Resolved {
            self.access(space, number, store);
        }
    }

    /// Makes an access that does not block, through the MMU and its translation cache.
    fn access(&mut self, space: usize, number: usize, store: bool) {
        self.next_word += 1;
        let stored = store.then_some(self.next_word);
        let expected = self.model.access(space, number, stored);
        let at = addr(number);
        self.in_space(space, || {
            if let Some(word) = stored {
                assert_eq!(uaccess::store(at, word), Ok(()));
            }
            assert_eq!(uaccess::load(at).unwrap_or(expected), expected);
        });
    }

    /// Runs `f` as a task of the space. The first one is loaded already, and stays so.
    fn in_space(&self, space: usize, f: impl FnOnce()) {
        if space == 0 {
            return f();
        }
        Task::detached_in("other", Arc::clone(&self.spaces[space])).run_as(|| {
            self.spaces[space].activate();
            f();
            self.spaces[space].unload_here();
        });
        self.spaces[0].activate();
    }

    fn read(&mut self, ctx: usize) {
        let queues = &mut self.model.contexts[ctx];
        let expected = match queues.unread.pop_front() {
            None => Err(ReadError::WouldBlock),
            Some(waiting) => {
                queues.read.push_back(waiting);
                Ok(Event::Pagefault {
                    kind: waiting.kind,
                    write: waiting.store,
                    addr: addr(waiting.cell),
                    thread: None,
                })
            }
        };
        assert_eq!(self.uffds[ctx].try_read_event(), expected);
    }

    fn copy(&mut self, ctx: usize, span: Span, short: usize, mode: FillMode) {
        let whole = span.len() - short.min(span.len());
        let first = self.next_word + 1;
        self.next_word += whole as u64;
        let words: Vec<u64> = (first..=self.next_word).collect();
        let size = granule(span.0) as usize;
        let mut bytes = vec![0; whole * size];
        for (page, word) in bytes.chunks_mut(size).zip(&words) {
            page[..8].copy_from_slice(&word.to_ne_bytes());
        }
        let outcome = self.uffds[ctx].copy(addr(span.0), &bytes, range(span).len(), mode);
        assert_eq!(outcome, self.model.fill(ctx, span, mode, &Fill::Copy(words)));
    }

    fn compare(&self) {
        let mut frames = BTreeMap::new();
        for space in 0..SPACES {
            for number in 0..CELLS {
                self.compare_cell(space, number, &mut frames);
            }
        }
        for (number, object) in self.model.objects.iter().enumerate() {
            self.compare_object(number, object, &mut frames);
        }
        for (ctx, queues) in self.model.contexts.iter().enumerate() {
            self.compare_queues(ctx, queues);
        }
        for (number, task) in self.tasks.iter().enumerate() {
            assert_eq!(
                task.fault.is_waiting(),
                self.model.waits(number),
                "task {number} waits"
            );
        }
        let (base, huge) = self.model.alive();
        let stats = allocator().stats();
        assert_eq!(
            stats.of(Kind::Anon),
            (base.len() + 512 * huge.len()) as u64,
            "frames in use"
        );
        assert_eq!(
            allocator().huge_pages().free,
            (POOL - huge.len()) as u64,
            "huge pages left"
        );
    }

    fn compare_queues(&self, ctx: usize, queues: &Queues) {
        let listed: Vec<_> = self.uffds[ctx]
            .ctx()
            .outstanding_faults()
            .iter()
            .map(|fault| {
                let task = self.tasks.iter().position(|task| Arc::ptr_eq(task, &fault.task));
                (
                    task.expect("one of ours"),
                    fault.addr,
                    fault.trap.write,
                    fault.trap.kind,
                    fault.state,
                )
            })
            .collect();
        let row = |w: &Waiting, state| (w.task, addr(w.cell) + 8, w.store, w.kind, state);
        let unread = queues
            .unread
            .iter()
            .map(|waiting| row(waiting, FaultState::Pending));
        let read = queues.read.iter().map(|waiting| row(waiting, FaultState::Read));
        assert_eq!(
            listed,
            unread.chain(read).collect::<Vec<_>>(),
            "faults at context {ctx}"
        );
    }

    fn compare_cell(&self, space: usize, number: usize, frames: &mut BTreeMap<PageId, Pfn>) {
        let cell = &self.model.spaces[space][number];
        let (at, space) = (addr(number), &self.spaces[space]);
        let area = space.query(at).map(|vma| Area {
            prot: vma.prot,
            memory: match &vma.backing {
                None => Memory::Anonymous,
                Some(backing) => {
                    let found = self
                        .objects
                        .iter()
                        .position(|object| Arc::ptr_eq(object, &backing.object));
                    let offset = vma.offset_of(at) / granule(number);
                    Memory::Object(
                        found.expect("one of ours"),
                        offset as usize,
                        backing.sharing == Sharing::Shared,
                    )
                }
            },
            owner: vma.uffd.as_ref().map(|registration| Owner {
                ctx: self
                    .uffds
                    .iter()
                    .position(|uffd| Arc::ptr_eq(&registration.ctx, uffd.ctx()))
                    .expect("one of ours"),
                modes: registration.modes,
            }),
        });
        assert_eq!(area, cell.area, "area at cell {number}");
        let (content, protected) = match space.entry(at).0 {
            Entry::Leaf(leaf) => {
                let content = match cell.content {
                    _ if leaf.frame == mm::get().zero_frame() => Content::Zeros,
                    Content::Page(page) => {
                        self.compare_page(page, leaf.frame, frames);
                        Content::Page(page)
                    }
                    _ => Content::Page(PageId::MAX),
                };
                (content, leaf.attr.flags.contains(AttrFlags::UFFD_WP))
            }
            Entry::Absent(Marker::UffdWp) => (Content::Marked, false),
            Entry::Absent(Marker::Poison) => (Content::Poisoned, false),
            _ => (Content::Nothing, false),
        };
        assert_eq!(
            (content, protected),
            (cell.content, cell.protected),
            "content and protection of cell {number}"
        );
    }

    /// A page of the model is one frame wherever it is found, and no two pages are the same frame.
    fn compare_page(&self, page: PageId, frame: Pfn, frames: &mut BTreeMap<PageId, Pfn>) {
        let word = self.world.machine.peek(frame.start()).expect("in RAM");
        assert_eq!(word, self.model.words[page], "the bytes of page {page}");
        let before = frames.insert(page, frame);
        assert!(
            before.is_none_or(|before| before == frame),
            "page {page} is in two frames"
        );
        let users = frames.values().filter(|&&other| other == frame).count();
        assert_eq!(users, 1, "two pages are in one frame");
    }

    fn compare_object(&self, number: usize, object: &model::Object, frames: &mut BTreeMap<PageId, Pfn>) {
        let real = &self.objects[number];
        let size = real.ty().granule().size();
        assert_eq!(real.size(), object.size as u64 * size, "size of object {number}");
        for (cell, page) in object.pages.iter().enumerate().take(object.size) {
            match (real.lookup(cell as u64 * size), page) {
                (Lookup::Absent, None) => {}
                (Lookup::Present(folio), Some(page)) => self.compare_page(*page, folio.pfn(), frames),
                (found, page) => panic!("object {number}, cell {cell}: {found:?} for {page:?}"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn the_channel_does_what_the_model_does(ops in ops(80)) {
        let world = World::with(kernel::arch::host::Config { memory: 24 << 20 }, Privilege::Kernel);
        allocator().reserve_huge(POOL as u64).expect("RAM is plenty");
        let mut check = Check::new(&world);
        world.run(|| {
            for op in ops {
                check.play(op);
                check.compare();
            }
        });
    }
}
