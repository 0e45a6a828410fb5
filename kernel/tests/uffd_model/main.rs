//! The channel against a model that is small enough to be obviously right: two contexts, six tasks, a few pages.
//!
//! Tasks are driven by hand, one step of a fault at a time, so that a sequence plays the same way each time it is run and
//! proptest can shrink it. After every step all of this is compared: who waits where and in which order, what is
//! registered with whom and for what, what each page holds and whether it is protected, how many frames are in use. The whole sequence runs on one CPU of the
//! software machine, which misses no missing flush. `PROPTEST_CASES=10000` makes a long run of it.

#[path = "../common/mod.rs"]
mod common;
mod model;
mod ops;

use std::sync::Arc;

use common::{World, page, part};
use kernel::mm::addr::{PAGE_SIZE, VirtAddr};
use kernel::mm::fault::{Access, FaultError, FaultInfo, Origin, Verdict};
use kernel::mm::frame::{Kind, allocator};
use kernel::mm::kernel as mm;
use kernel::mm::memtype::anon::ANON;
use kernel::mm::pt::{AttrFlags, Entry, Marker, Prot};
use kernel::mm::range::VirtRange;
use kernel::mm::space::{DiscardError, MapError, MapRequest, Memory, ProtectError};
use kernel::mm::uaccess;
use kernel::task::Task;
use kernel::uffd::slot::FaultState;
use kernel::uffd::{Event, Features, FillMode, Modes, ReadError, RegisterError, Uffd, UnregisterError};
use model::{Area, Content, Model, Owner, Page, Queues, Touched, Waiting};
use ops::{BASE, CONTEXTS, Op, PAGES, Span, TASKS, ops};
use proptest::prelude::*;

/// The kernel and the model side by side.
struct Check<'a> {
    world: &'a World,
    model: Model,
    uffds: [Uffd; CONTEXTS],
    tasks: [Arc<Task>; TASKS],
    /// Makes every stored word another one.
    next_word: u64,
}

fn range(span: Span) -> VirtRange {
    let all = VirtRange::new(BASE, BASE + PAGES as u64 * PAGE_SIZE);
    part(all, span.0 as u64, (span.1 - span.0) as u64)
}

fn addr(number: usize) -> VirtAddr {
    page(range(Span(0, 1)), number as u64)
}

/// What a context is made with: the second one protects absent pages too.
fn features(ctx: usize) -> Features {
    if ctx == 1 {
        Features::WP_UNPOPULATED
    } else {
        Features::empty()
    }
}

impl Check<'_> {
    fn play(&mut self, op: Op) {
        match op {
            Op::Map(span, prot) => self.map(span, prot),
            Op::Unmap(span) => {
                assert_eq!(self.world.space.unmap(range(span)), Ok(()));
                self.model.pages[span.pages()].fill(Page::UNMAPPED);
            }
            Op::Protect(span, prot) => self.protect(span, prot),
            Op::Discard(span) => self.discard(span),
            Op::Register(ctx, span, modes) => self.register(ctx, span, modes),
            Op::Unregister(ctx, span) => self.unregister(ctx, span),
            Op::Touch(task, page, store) => self.touch(task, page, store),
            Op::Read(ctx) => self.read(ctx),
            Op::Copy(ctx, span, short, mode) => self.copy(ctx, span, short, mode),
            Op::Zeropage(ctx, span, mode) => {
                let outcome = self.uffds[ctx].zeropage(range(span), mode);
                assert_eq!(
                    outcome,
                    self.model.fill(ctx, span, mode, |_| Some(Content::Zeros))
                );
            }
            Op::Poison(ctx, span, mode) => {
                let outcome = self.uffds[ctx].poison(range(span), mode);
                assert_eq!(
                    outcome,
                    self.model.fill(ctx, span, mode, |_| Some(Content::Poisoned))
                );
            }
            Op::WriteProtect(ctx, span) => {
                let covers = |owner| features(owner).contains(Features::WP_UNPOPULATED);
                let expected = self.model.write_protect(span, covers, true);
                assert_eq!(self.uffds[ctx].write_protect(range(span)), expected);
            }
            Op::Unprotect(ctx, span, mode) => {
                let expected = self.model.write_protect(span, |_| false, false);
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
            Op::Close(ctx) => {
                self.uffds[ctx].close();
                self.uffds[ctx] = Uffd::new(&self.world.space, features(ctx));
                self.model.contexts[ctx] = Queues::default();
                for page in &mut self.model.pages {
                    page.unregister(ctx);
                }
            }
        }
    }

    fn map(&mut self, span: Span, prot: Prot) {
        let free = self.model.pages[span.pages()]
            .iter()
            .all(|page| page.area.is_none());
        let request = MapRequest {
            at: Some(addr(span.0)),
            len: range(span).len(),
            prot,
            memory: Memory::Own(&ANON),
        };
        let expected = if free {
            Ok(range(span))
        } else {
            Err(MapError::Occupied)
        };
        assert_eq!(self.world.space.map(request), expected);
        if free {
            let page = Page {
                area: Some(Area { prot, owner: None }),
                ..Page::UNMAPPED
            };
            self.model.pages[span.pages()].fill(page);
        }
    }

    fn protect(&mut self, span: Span, prot: Prot) {
        let whole = self.model.pages[span.pages()]
            .iter()
            .all(|page| page.area.is_some());
        let expected = if whole {
            Ok(())
        } else {
            Err(ProtectError::NotMapped)
        };
        assert_eq!(self.world.space.protect(range(span), prot), expected);
        if whole {
            let areas = self.model.pages[span.pages()]
                .iter_mut()
                .filter_map(|page| page.area.as_mut());
            areas.for_each(|area| area.prot = prot);
        }
    }

    fn discard(&mut self, span: Span) {
        let hole = span.pages().any(|page| self.model.pages[page].area.is_none());
        let expected = if hole {
            Err(DiscardError::NotMapped)
        } else {
            Ok(())
        };
        assert_eq!(self.world.space.discard(range(span)), expected);
        for page in span.pages() {
            self.model.pages[page].discard();
        }
    }

    fn register(&mut self, ctx: usize, span: Span, modes: Modes) {
        let mut areas = self.model.pages[span.pages()]
            .iter()
            .filter_map(|page| page.area)
            .peekable();
        let expected = if areas.peek().is_none() {
            Err(RegisterError::NotMapped)
        } else if areas.any(|area| area.owner.is_some_and(|owner| owner.ctx != ctx)) {
            Err(RegisterError::Busy)
        } else {
            Ok(())
        };
        let result = self.uffds[ctx].register(range(span), modes);
        assert_eq!(result.map(drop), expected);
        if expected.is_ok() {
            let areas = self.model.pages[span.pages()]
                .iter_mut()
                .filter_map(|page| page.area.as_mut());
            // Less than there is changes nothing; anything else replaces it.
            areas
                .filter(|area| !area.owner.is_some_and(|owner| owner.modes.contains(modes)))
                .for_each(|area| area.owner = Some(Owner { ctx, modes }));
        }
    }

    fn unregister(&mut self, ctx: usize, span: Span) {
        let mut areas = self.model.pages[span.pages()]
            .iter()
            .filter_map(|page| page.area)
            .peekable();
        let expected = if areas.peek().is_none() {
            Err(UnregisterError::NotMapped)
        } else if areas.any(|area| area.owner.is_some_and(|owner| owner.ctx != ctx)) {
            Err(UnregisterError::NotOurs)
        } else {
            Ok(())
        };
        assert_eq!(self.uffds[ctx].unregister(range(span)), expected);
        for number in span.pages().filter(|_| expected.is_ok()) {
            let modes = self.model.pages[number].unregister(ctx);
            if modes.is_some_and(|modes| modes.contains(Modes::MISSING)) {
                self.model.wake(ctx, Span(number, number + 1));
            }
        }
    }

    fn touch(&mut self, task: usize, number: usize, store: bool) {
        if self.model.waits(task) {
            return;
        }
        let access = if store { Access::Write } else { Access::Read };
        let info = FaultInfo {
            addr: addr(number) + 8,
            access,
            origin: Origin::Task,
        };
        let found = match self.world.space.step(&info, &self.tasks[task]) {
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
            self.access(number, store);
        }
    }

    /// Makes an access that does not block, through the MMU and its translation cache.
    fn access(&mut self, number: usize, store: bool) {
        let page = &mut self.model.pages[number];
        if store {
            self.next_word += 1;
            assert_eq!(uaccess::store(addr(number), self.next_word), Ok(()));
            page.access(Some(self.next_word));
        } else {
            let expected = if let Content::Own(word) = page.content {
                word
            } else {
                0
            };
            assert_eq!(uaccess::load(addr(number)), Ok(expected));
            page.access(None);
        }
    }

    fn read(&mut self, ctx: usize) {
        let queues = &mut self.model.contexts[ctx];
        let expected = match queues.unread.pop_front() {
            None => Err(ReadError::WouldBlock),
            Some(waiting) => {
                queues.read.push_back(waiting);
                let Waiting {
                    page,
                    store: write,
                    kind,
                    ..
                } = waiting;
                Ok(Event::Pagefault {
                    kind,
                    write,
                    addr: addr(page),
                    thread: None,
                })
            }
        };
        assert_eq!(self.uffds[ctx].try_read_event(), expected);
    }

    fn copy(&mut self, ctx: usize, span: Span, short: usize, mode: FillMode) {
        let whole = span.1 - span.0 - short.min(span.1 - span.0);
        let first = self.next_word + 1;
        self.next_word += whole as u64;
        let word = |page: usize| first + (page - span.0) as u64;
        let bytes: Vec<u8> = span
            .pages()
            .take(whole)
            .flat_map(|p| word(p).to_ne_bytes().repeat(512))
            .collect();
        let outcome = self.uffds[ctx].copy(addr(span.0), &bytes, range(span).len(), mode);
        let source = |page| (page - span.0 < whole).then(|| Content::Own(word(page)));
        assert_eq!(outcome, self.model.fill(ctx, span, mode, source));
    }

    fn compare(&self) {
        for number in 0..PAGES {
            self.compare_page(number);
        }
        for (ctx, queues) in self.model.contexts.iter().enumerate() {
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
            let row = |w: &Waiting, state| (w.task, addr(w.page) + 8, w.store, w.kind, state);
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
        for (number, task) in self.tasks.iter().enumerate() {
            assert_eq!(
                task.fault.is_waiting(),
                self.model.waits(number),
                "task {number} waits"
            );
        }
        let own = self
            .model
            .pages
            .iter()
            .filter(|page| matches!(page.content, Content::Own(_)))
            .count();
        assert_eq!(allocator().stats().of(Kind::Anon), own as u64, "frames in use");
    }

    fn compare_page(&self, number: usize) {
        let page = &self.model.pages[number];
        let vma = self.world.space.query(addr(number));
        let area = vma.map(|vma| Area {
            prot: vma.prot,
            owner: vma.uffd.map(|registration| Owner {
                ctx: self
                    .uffds
                    .iter()
                    .position(|uffd| Arc::ptr_eq(&registration.ctx, uffd.ctx()))
                    .expect("one of ours"),
                modes: registration.modes,
            }),
        });
        assert_eq!(area, page.area, "area at page {number}");
        let (content, protected) = match self.world.space.entry(addr(number)).0 {
            Entry::Leaf(leaf) => {
                let content = if leaf.frame == mm::get().zero_frame() {
                    Content::Zeros
                } else {
                    Content::Own(self.world.machine.peek(leaf.frame.start()).expect("in RAM"))
                };
                (content, leaf.attr.flags.contains(AttrFlags::UFFD_WP))
            }
            Entry::Absent(Marker::UffdWp) => (Content::Marked, false),
            Entry::Absent(Marker::Poison) => (Content::Poisoned, false),
            _ => (Content::Nothing, false),
        };
        assert_eq!(
            (content, protected),
            (page.content, page.protected),
            "content and protection of page {number}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn the_channel_does_what_the_model_does(ops in ops()) {
        let world = World::with(kernel::arch::host::Config { memory: 1 << 20 }, kernel::mm::space::Privilege::Kernel);
        let mut check = Check {
            world: &world,
            model: Model { pages: [Page::UNMAPPED; PAGES], contexts: [(); CONTEXTS].map(|()| Queues::default()) },
            uffds: [0, 1].map(|ctx| Uffd::new(&world.space, features(ctx))),
            tasks: [(); TASKS].map(|()| Task::detached_in("toucher", Arc::clone(&world.space))),
            next_word: 0,
        };
        world.run(|| {
            for op in ops {
                check.play(op);
                check.compare();
            }
        });
    }
}
