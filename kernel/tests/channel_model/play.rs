//! Has the kernel and the model do the same thing.

use std::sync::Arc;

use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::fault::{Access, FaultError, FaultInfo, Origin, Verdict};
use kernel::mm::uaccess;
use kernel::task::Task;
use kernel::uffd::{Event, Features, FillMode, MoveMode, Outcome, ReadError, Refusal, Uffd};

use crate::model::{Cell, Fill, Queues, Touched};
use crate::ops::{BASE_CELLS, CELLS, CONTEXT_SPACES, Op, Span, TASK_SPACES, addr, granule};
use crate::{Check, features, range};

impl Check<'_> {
    /// Plays one operation on both sides; what it comes to must be the same.
    pub fn play(&mut self, op: Op) {
        for (space, begins) in self.spaces.iter().zip(&mut self.model.begins) {
            for (number, begins) in begins.iter_mut().enumerate() {
                *begins = space
                    .query(addr(number))
                    .is_some_and(|vma| vma.range.start == addr(number));
            }
        }
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
        let plain = |cell| {
            self.spaces[0]
                .query(addr(cell))
                .is_none_or(|vma| vma.anon.is_unset())
        };
        self.model.fork(plain);
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
        let mut verdict = self.spaces[space].step(&info, &self.tasks[task]);
        if matches!(verdict, Verdict::Retry) {
            // What was protected without a page has one now.
            verdict = self.spaces[space].step(&info, &self.tasks[task]);
        }
        let found = match verdict {
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
}
