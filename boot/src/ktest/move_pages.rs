//! MOVE on the real machine: a page that changes its address under the eyes of tasks that use it.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

use kernel::mm::addr::{PAGE_SIZE, VirtAddr};
use kernel::mm::frame::{Kind, allocator};
use kernel::mm::pt::Entry;
use kernel::mm::range::VirtRange;
use kernel::mm::space::Space;
use kernel::mm::uaccess;
use kernel::task::spawn::JoinHandle;
use kernel::uffd::{Event, Features, Modes, MoveMode, Outcome, Refusal, Uffd};

use super::common::{joined, map_pages, mapped, page, task, text};
use crate::{ensure, kernel_test};

/// A space with memory that is not registered, with a word of its own in every page, and memory that is, with nothing in it.
struct Fixture {
    space: Arc<Space>,
    plain: VirtRange,
    registered: VirtRange,
    uffd: Arc<Uffd>,
}

impl Fixture {
    fn new(pages: u64) -> Result<Self, String> {
        let (space, plain) = mapped(pages)?;
        let registered = map_pages(&space, pages)?;
        let uffd = Arc::new(Uffd::new(&space, Features::empty()));
        uffd.register(registered, Modes::MISSING).map_err(text)?;
        let fixture = Self {
            space,
            plain,
            registered,
            uffd,
        };
        let filled = fixture.task(move || {
            (0..pages).try_for_each(|number| uaccess::store(page(plain, number), number + 1).map_err(text))
        })?;
        joined(filled)??;
        Ok(fixture)
    }

    /// A task in the space.
    fn task<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>, String> {
        task(&self.space, job)
    }

    fn move_pages(&self, dst: VirtAddr, src: VirtAddr, pages: u64) -> Outcome {
        let (space, len) = (&self.space, pages * PAGE_SIZE);
        self.uffd.move_pages(space, dst, src, len, MoveMode::empty())
    }
}

kernel_test!(
    fn missing_pages_are_resolved_by_moving_others_there() -> Result<(), String> {
        const PAGES: u64 = 600;
        let fixture = Fixture::new(PAGES)?;
        let before = allocator().stats().of(Kind::Anon);
        let range = fixture.registered;
        let toucher = fixture.task(move || {
            (0..PAGES).try_for_each(|number| match uaccess::load(page(range, number)) {
                Ok(word) if word == number + 1 => Ok(()),
                found => Err(format!("page {number}: {found:?}")),
            })
        })?;
        // The first by itself, the others all at once.
        let event = fixture.uffd.read_event().map_err(text)?;
        ensure!(
            matches!(event, Event::Pagefault { addr, .. } if addr == range.start),
            "{event:?}"
        );
        let first = fixture.move_pages(range.start, fixture.plain.start, 1);
        let rest = fixture.move_pages(page(range, 1), page(fixture.plain, 1), PAGES - 1);
        ensure!(
            (first, rest) == (Outcome::Done, Outcome::Done),
            "{first:?}, {rest:?}"
        );
        joined(toucher)??;
        ensure!(
            (0..PAGES).all(|number| fixture.space.entry(page(fixture.plain, number)).0 == Entry::EMPTY),
            "something is left at the source"
        );
        let again = fixture.move_pages(range.start, fixture.plain.start, 1);
        ensure!(again == Outcome::Refused(Refusal::Exists), "{again:?}");
        let after = allocator().stats().of(Kind::Anon);
        ensure!(before == after, "{before} pages became {after}");
        Ok(())
    }
);

kernel_test!(
    fn storer_stops_when_its_page_moves_away_and_goes_on_when_it_is_back() -> Result<(), String> {
        const STORES: u64 = 40;
        let fixture = Fixture::new(2)?;
        let (home, away) = (fixture.registered.start, fixture.registered.start + PAGE_SIZE);
        let brought = fixture.move_pages(home, fixture.plain.start, 1);
        ensure!(brought == Outcome::Done, "{brought:?}");
        // It has the page in its translation cache whenever it lets others run.
        let storer = fixture.task(move || {
            (0..STORES).try_for_each(|i| {
                uaccess::store(home, i).map_err(text)?;
                kernel::task::yield_now();
                match uaccess::load(home) {
                    Ok(found) if found == i => Ok(()),
                    found => Err(format!("stored {i}, found {found:?}")),
                }
            })
        })?;
        let (space, uffd) = (Arc::clone(&fixture.space), Arc::clone(&fixture.uffd));
        let mover = fixture.task(move || {
            let go = |dst, src| match uffd.move_pages(&space, dst, src, PAGE_SIZE, MoveMode::empty()) {
                Outcome::Done => Ok(()),
                outcome => Err(text(outcome)),
            };
            for _ in 0..STORES / 4 {
                go(away, home)?;
                let seen = uaccess::load(away).map_err(text)?;
                let event = uffd.read_event().map_err(text)?;
                ensure!(
                    matches!(event, Event::Pagefault { addr, .. } if addr == home),
                    "{event:?}"
                );
                let still = uaccess::load(away).map_err(text)?;
                ensure!(
                    seen == still,
                    "{seen} became {still} at an address that nobody uses"
                );
                go(home, away)?;
                kernel::task::yield_now();
            }
            Ok(())
        })?;
        joined(mover)??;
        joined(storer)?
    }
);
