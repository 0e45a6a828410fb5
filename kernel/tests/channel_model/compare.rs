//! Whether the kernel and the model are in the same state.

use std::collections::BTreeMap;
use std::sync::Arc;

use kernel::mm::addr::Pfn;
use kernel::mm::cache::Lookup;
use kernel::mm::frame::{Kind, allocator};
use kernel::mm::kernel as mm;
use kernel::mm::pt::{AttrFlags, Entry, Marker};
use kernel::mm::vma::Sharing;
use kernel::uffd::slot::FaultState;

use crate::Check;
use crate::model::{Area, Content, Object, Owner, PageId, Queues, Waiting};
use crate::ops::{CELLS, Memory, POOL, SPACES, addr, granule};

impl Check<'_> {
    /// Compares everything that there is to see.
    pub fn compare(&self) {
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

    fn compare_object(&self, number: usize, object: &Object, frames: &mut BTreeMap<PageId, Pfn>) {
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
