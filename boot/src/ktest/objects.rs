//! Memory objects on the real machine: several spaces, real translations, huge pages.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;

use kernel::mm::addr::{PAGE_SIZE, VirtAddr};
use kernel::mm::cache::Object;
use kernel::mm::fault::FaultError;
use kernel::mm::frame::{Kind, allocator};
use kernel::mm::memtype::guest_memfd::GUEST_MEMFD_WRITTEN;
use kernel::mm::memtype::hugetlb::HUGETLB;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::memtype::{Granule, MemType};
use kernel::mm::range::VirtRange;
use kernel::mm::space::{Memory, Space};
use kernel::mm::uaccess;
use kernel::task::spawn::JoinHandle;
use kernel::uffd::{Event, Features, FillMode, Modes, Outcome, TrapKind, Uffd};

use super::common::{empty_space, joined, map, task, text};
use crate::{ensure, kernel_test};

const HUGE: u64 = Granule::Huge.size();
const NOW: FillMode = FillMode::empty();

/// A space that maps an object.
struct Mapping {
    space: Arc<Space>,
    region: VirtRange,
}

/// What a task of the space came to.
type Access = Result<u64, FaultError>;

impl Mapping {
    fn new(memory: Memory, bytes: u64) -> Result<Self, String> {
        let space = empty_space()?;
        let region = map(&space, memory, bytes)?;
        Ok(Self { space, region })
    }

    fn at(&self, offset: u64) -> VirtAddr {
        self.region.start + offset
    }

    fn task<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>, String> {
        task(&self.space, job)
    }

    fn loader(&self, offset: u64) -> Result<JoinHandle<Access>, String> {
        let addr = self.at(offset);
        self.task(move || uaccess::load(addr).map_err(|error| error.why))
    }

    fn load(&self, offset: u64) -> Result<Access, String> {
        joined(self.loader(offset)?)
    }

    fn store(&self, offset: u64, value: u64) -> Result<(), String> {
        let addr = self.at(offset);
        joined(self.task(move || uaccess::store(addr, value))?)?.map_err(text)
    }

    fn uffd(&self, modes: Modes) -> Result<Uffd, String> {
        let uffd = Uffd::new(&self.space, Features::empty());
        uffd.register(self.region, modes).map_err(text)?;
        Ok(uffd)
    }
}

impl Drop for Mapping {
    /// A task that has ended keeps its space until it is reaped; what is mapped must be back when the test is over.
    fn drop(&mut self) {
        self.space.unmap(self.region).expect("it is mapped");
    }
}

/// Runs a test on an object; its pages must be back afterwards.
fn with_object(
    ty: &'static MemType,
    bytes: u64,
    test: impl FnOnce(&Arc<Object>) -> Result<(), String>,
) -> Result<(), String> {
    let taken = || {
        let stats = allocator().stats();
        stats.of(Kind::Anon) + stats.of(Kind::Pooled)
    };
    let before = taken();
    let object = Object::new(ty, bytes);
    test(&object)?;
    drop(object);
    ensure!(
        taken() == before,
        "{before} frames were taken before, {} are now",
        taken()
    );
    Ok(())
}

kernel_test!(
    fn spaces_that_share_an_object_see_each_others_stores_and_every_write() -> Result<(), String> {
        with_object(&SHMEM, 4 * PAGE_SIZE, |object| {
            let one = Mapping::new(Memory::shared(object), 4 * PAGE_SIZE)?;
            let two = Mapping::new(Memory::shared(object), 4 * PAGE_SIZE)?;
            one.store(PAGE_SIZE, 11)?;
            let seen = two.load(PAGE_SIZE)?;
            ensure!(seen == Ok(11), "the other space sees {seen:?}");
            let (written, outcome) = object.write(PAGE_SIZE - 4, &[0x22; 16]);
            ensure!((written, outcome) == (16, Ok(())), "{written}, {outcome:?}");
            for mapping in [&one, &two] {
                let seen = mapping.load(PAGE_SIZE)?;
                ensure!(seen == Ok(0x2222_2222_2222_2222), "a space sees {seen:x?}");
            }
            two.store(PAGE_SIZE + 8, 33)?;
            let mut bytes = [0; 8];
            object.read(PAGE_SIZE + 8, &mut bytes);
            ensure!(bytes == 33_u64.to_le_bytes(), "read() sees {bytes:?}");
            Ok(())
        })
    }
);

kernel_test!(
    fn what_is_taken_from_an_object_is_gone_from_every_translation() -> Result<(), String> {
        with_object(&SHMEM, 200 * PAGE_SIZE, |object| {
            let one = Mapping::new(Memory::shared(object), 200 * PAGE_SIZE)?;
            let two = Mapping::new(Memory::shared(object), 200 * PAGE_SIZE)?;
            let (from, to) = (one.at(0), two.at(0));
            let holes = Arc::clone(object);
            // One task that keeps its translations while another space's contents change, then its own.
            let toucher = one.task(move || {
                for page in 0..200 {
                    uaccess::store(from + page * PAGE_SIZE, page + 1).map_err(text)?;
                }
                holes.punch(50 * PAGE_SIZE, 100 * PAGE_SIZE).map_err(text)?;
                for page in 0..200 {
                    let expected = if (50..150).contains(&page) { 0 } else { page + 1 };
                    let seen = uaccess::load(from + page * PAGE_SIZE).map_err(text)?;
                    ensure!(seen == expected, "page {page} holds {seen} beside the hole");
                }
                holes.truncate(10 * PAGE_SIZE + 4).map_err(text)?;
                let seen = uaccess::load(from + 11 * PAGE_SIZE).map_err(|error| error.why);
                ensure!(
                    seen == Err(FaultError::BeyondEnd),
                    "behind the end there is {seen:?}"
                );
                let seen = uaccess::load(from + 10 * PAGE_SIZE).map_err(text)?;
                ensure!(seen == 11, "the last page holds {seen}");
                Ok(())
            })?;
            joined(toucher)??;
            let seen = joined(two.task(move || uaccess::load(to + 3 * PAGE_SIZE))?)?.map_err(text)?;
            ensure!(seen == 4, "the other space sees {seen}");
            let seen = two.load(60 * PAGE_SIZE)?;
            ensure!(
                seen == Err(FaultError::BeyondEnd),
                "the other space sees {seen:?} behind the end"
            );
            ensure!(
                object.resident() == 11 * PAGE_SIZE,
                "{} bytes stay",
                object.resident()
            );
            Ok(())
        })
    }
);

kernel_test!(
    fn a_private_mapping_keeps_its_copies_when_a_hole_is_punched() -> Result<(), String> {
        with_object(&SHMEM, 2 * PAGE_SIZE, |object| {
            let shared = Mapping::new(Memory::shared(object), 2 * PAGE_SIZE)?;
            let private = Mapping::new(Memory::private(object), 2 * PAGE_SIZE)?;
            shared.store(0, 1)?;
            shared.store(PAGE_SIZE, 2)?;
            private.store(0, 9)?;
            let seen = private.load(PAGE_SIZE)?;
            ensure!(seen == Ok(2), "an untouched page holds {seen:?}");
            object.punch(0, 2 * PAGE_SIZE).map_err(text)?;
            let seen = (private.load(0)?, private.load(PAGE_SIZE)?, shared.load(0)?);
            ensure!(
                seen == (Ok(9), Ok(0), Ok(0)),
                "copy, page and object hold {seen:?}"
            );
            Ok(())
        })
    }
);

kernel_test!(
    fn protection_outlives_the_page_in_an_objects_mapping() -> Result<(), String> {
        with_object(&SHMEM, PAGE_SIZE, |object| {
            let mapping = Mapping::new(Memory::shared(object), PAGE_SIZE)?;
            let uffd = mapping.uffd(Modes::WP)?;
            mapping.store(0, 1)?;
            uffd.write_protect(mapping.region).map_err(text)?;
            object.truncate(0).map_err(text)?;
            object.truncate(PAGE_SIZE).map_err(text)?;
            let addr = mapping.at(8);
            let writer = mapping.task(move || uaccess::store(addr, 7))?;
            let event = uffd.read_event().map_err(text)?;
            let protected = matches!(
                event,
                Event::Pagefault {
                    kind: TrapKind::WriteProtect,
                    ..
                }
            );
            ensure!(protected, "the store raised {event:?}");
            uffd.remove_write_protection(mapping.region, NOW).map_err(text)?;
            joined(writer)?.map_err(text)?;
            let seen = mapping.load(8)?;
            ensure!(seen == Ok(7), "the page holds {seen:?}");
            Ok(())
        })
    }
);

kernel_test!(
    fn guest_memory_is_filled_by_write_and_continued_while_a_task_waits() -> Result<(), String> {
        with_object(&GUEST_MEMFD_WRITTEN, PAGE_SIZE, |object| {
            let mapping = Mapping::new(Memory::shared(object), PAGE_SIZE)?;
            let uffd = mapping.uffd(Modes::MISSING | Modes::MINOR)?;
            let reader = mapping.loader(0)?;
            let event = uffd.read_event().map_err(text)?;
            let missing = matches!(
                event,
                Event::Pagefault {
                    kind: TrapKind::Missing,
                    ..
                }
            );
            ensure!(missing, "the load raised {event:?}");
            let (written, outcome) = object.write(0, &[0x44; PAGE_SIZE as usize]);
            ensure!(
                (written, outcome) == (PAGE_SIZE, Ok(())),
                "{written}, {outcome:?}"
            );
            let outcome = uffd.cont(mapping.region, NOW);
            ensure!(outcome == Outcome::Done, "CONTINUE came to {outcome:?}");
            let seen = joined(reader)?;
            ensure!(seen == Ok(0x4444_4444_4444_4444), "the task read {seen:x?}");
            Ok(())
        })
    }
);

kernel_test!(
    fn huge_pages_come_from_the_pool_and_go_back() -> Result<(), String> {
        allocator().reserve_huge(2).map_err(text)?;
        let outcome = with_object(&HUGETLB, 2 * HUGE, |object| {
            let mapping = Mapping::new(Memory::shared(object), 2 * HUGE)?;
            let uffd = mapping.uffd(Modes::MISSING)?;
            let last = HUGE - 8;
            let reader = mapping.loader(last)?;
            let page = VirtRange::new(mapping.at(0), mapping.at(HUGE));
            let event = uffd.read_event().map_err(text)?;
            ensure!(
                matches!(event, Event::Pagefault { addr, .. } if page.contains(addr)),
                "the load raised {event:?}"
            );
            let outcome = uffd.copy(page.start, &vec![0x55; HUGE as usize], HUGE, NOW);
            ensure!(outcome == Outcome::Done, "COPY came to {outcome:?}");
            let seen = joined(reader)?;
            ensure!(seen == Ok(0x5555_5555_5555_5555), "the task read {seen:x?}");
            let pool = allocator().huge_pages();
            ensure!(pool.total - pool.free == 1, "the pool says {pool:?}");
            object.punch(0, HUGE).map_err(text)?;
            let pool = allocator().huge_pages();
            ensure!(pool.total == pool.free, "after the hole the pool says {pool:?}");
            Ok(())
        });
        allocator().release_huge(2);
        outcome
    }
);
