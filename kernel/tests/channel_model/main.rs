//! The channel against a model that is small enough to be obviously right: two address spaces, memory objects of every type
//! that both map, three contexts, six tasks.
//!
//! Tasks are driven by hand, one step of a fault at a time, so that a sequence plays the same way each time it is run and
//! proptest can shrink it. After every step all of this is compared: who waits where and in which order, what is
//! mapped and registered with whom and for what, what each cell holds, whether it is protected, which cells share a page, how
//! many frames are in use and how many huge pages are left. The whole sequence runs on one CPU of the software machine, which
//! misses no missing flush. `PROPTEST_CASES=20000` makes a long run of it.
//!
//! | file | what |
//! | --- | --- |
//! | `ops` | what can happen, and how sequences of it are made up |
//! | `play`, `areas` | an operation on both sides; what it comes to must be the same |
//! | `compare` | whether both are in the same state |
//! | `model` | the model |

#[path = "../common/mod.rs"]
mod common;

mod areas;
mod compare;
mod model;
mod ops;
mod play;

use std::sync::Arc;

use common::World;
use kernel::arch::host::Config;
use kernel::mm::cache::Object;
use kernel::mm::frame::allocator;
use kernel::mm::memtype::guest_memfd::GUEST_MEMFD;
use kernel::mm::memtype::hugetlb::HUGETLB;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::range::VirtRange;
use kernel::mm::space::{Privilege, Space, set_pages_around};
use kernel::task::Task;
use kernel::uffd::{Features, Uffd};
use model::Model;
use ops::{CONTEXT_SPACES, OBJECTS, ObjectType, POOL, SPACES, Span, TASK_SPACES, addr, granule, ops};
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
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn the_channel_does_what_the_model_does(ops in ops(80)) {
        // The model's cells have no neighbours.
        set_pages_around(1);
        let world = World::with(Config { memory: 24 << 20 }, Privilege::Kernel);
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
