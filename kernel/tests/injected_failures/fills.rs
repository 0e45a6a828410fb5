//! What a monitor puts into absent pages, and takes from elsewhere.

use kernel::mm::addr::PAGE_SIZE;
use kernel::uffd::{FillMode, MoveMode, Outcome, WriteProtectError};

use crate::Scenario;
use crate::scene::{
    GUEST, HUGE, HUGE_PRIVATE, HUGE_SHARED, Left, OWN, PRIVATE, SHARED, Scene, Stop, in_parts,
};

const NOW: FillMode = FillMode::empty();
const KNOWN: &[&str] = &["OutOfMemory", "PoolEmpty"];

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "COPY",
        sorts: &[OWN, SHARED, PRIVATE, HUGE, HUGE_SHARED, HUGE_PRIVATE, GUEST],
        ready: |sort| Scene::bare(sort).registered(),
        act: |scene, skip| copy(scene, skip, NOW),
        knows: KNOWN,
        allocates: 6,
    },
    Scenario {
        name: "COPY of one page",
        sorts: &[OWN, SHARED, PRIVATE, HUGE, HUGE_SHARED, HUGE_PRIVATE, GUEST],
        ready: |sort| Scene::bare(sort).registered(),
        act: |scene, _| {
            let len = scene.sort.granule();
            let source = source(scene, 0, len);
            outcome(scene.uffd.copy(scene.range.start, &source, len, NOW), 0)
        },
        knows: KNOWN,
        allocates: 3,
    },
    Scenario {
        name: "COPY with write protection",
        sorts: &[OWN, SHARED, PRIVATE, HUGE, HUGE_SHARED],
        ready: |sort| Scene::bare(sort).registered(),
        act: |scene, skip| copy(scene, skip, FillMode::WP),
        knows: KNOWN,
        allocates: 6,
    },
    Scenario {
        name: "COPY out of memory of the task that asks",
        sorts: &[OWN, SHARED, PRIVATE, GUEST],
        ready: |sort| Scene::bare(sort).full_aside().registered(),
        act: |scene, skip| {
            let (rest, from) = (scene.rest(skip), scene.aside.start + skip);
            let copy = || scene.uffd.copy_from_task(rest.start, from, rest.len(), NOW);
            outcome(scene.world.run(copy), skip)
        },
        knows: KNOWN,
        allocates: 40,
    },
    Scenario {
        name: "COPY out of memory that was never touched",
        sorts: &[OWN],
        ready: |sort| Scene::bare(sort).registered(),
        act: |scene, skip| {
            let (rest, from) = (scene.rest(skip), scene.aside.start + skip);
            let copy = || scene.uffd.copy_from_task(rest.start, from, rest.len(), NOW);
            outcome(scene.world.run(copy), skip).map_err(|stop| Stop {
                left: Left::Touched(stop.left.bytes()),
                ..stop
            })
        },
        knows: &["OutOfMemory", "BadSource"],
        allocates: 40,
    },
    Scenario {
        name: "ZEROPAGE",
        sorts: &[OWN, SHARED, PRIVATE],
        ready: |sort| Scene::bare(sort).registered(),
        act: |scene, skip| outcome(scene.uffd.zeropage(scene.rest(skip), NOW), skip),
        knows: KNOWN,
        allocates: 6,
    },
    Scenario {
        name: "CONTINUE",
        sorts: &[SHARED, PRIVATE, HUGE_SHARED, HUGE_PRIVATE, GUEST],
        ready: |sort| Scene::bare(sort).cached().registered(),
        act: |scene, skip| outcome(scene.uffd.cont(scene.rest(skip), NOW), skip),
        knows: KNOWN,
        allocates: 4,
    },
    Scenario {
        name: "POISON",
        sorts: &[OWN, SHARED, PRIVATE, HUGE, HUGE_SHARED, HUGE_PRIVATE, GUEST],
        ready: |sort| Scene::bare(sort).registered(),
        act: |scene, skip| outcome(scene.uffd.poison(scene.rest(skip), NOW), skip),
        knows: KNOWN,
        allocates: 4,
    },
    Scenario {
        name: "MOVE",
        sorts: &[OWN],
        ready: |sort| Scene::bare(sort).full_aside().registered(),
        act: move_pages,
        knows: KNOWN,
        allocates: 6,
    },
    Scenario {
        name: "MOVE of the page of zeros and of holes",
        sorts: &[OWN],
        ready: |sort| {
            let scene = Scene::bare(sort).registered();
            scene.world.run(|| {
                for i in [1, 3, 30] {
                    let at = scene.aside.start + i * PAGE_SIZE;
                    kernel::mm::uaccess::load(at).expect("mapped");
                }
            });
            scene
        },
        act: move_pages,
        knows: KNOWN,
        allocates: 6,
    },
    Scenario {
        name: "WRITEPROTECT of what is not there",
        sorts: &[OWN, SHARED, PRIVATE, HUGE, HUGE_SHARED, HUGE_PRIVATE],
        ready: |sort| Scene::bare(sort).registered(),
        act: write_protect,
        knows: KNOWN,
        allocates: 4,
    },
    Scenario {
        name: "WRITEPROTECT of what is there in part",
        sorts: &[OWN, SHARED, PRIVATE],
        ready: |sort| {
            let scene = Scene::bare(sort);
            scene.world.run(|| {
                // Nothing on the other side of the border.
                for i in (0..20).step_by(3) {
                    kernel::mm::uaccess::store(scene.at(i), i).expect("mapped");
                }
            });
            scene.registered()
        },
        act: write_protect,
        knows: KNOWN,
        allocates: 3,
    },
];

/// Granules from `skip` bytes on that begin with a number each.
fn source(scene: &Scene, skip: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    for at in (0..len).step_by(PAGE_SIZE as usize) {
        bytes[at as usize..][..8].copy_from_slice(&(skip + at + 1).to_ne_bytes());
    }
    assert!(scene.range.len() >= skip + len);
    bytes
}

fn copy(scene: &Scene, skip: u64, mode: FillMode) -> Result<(), Stop> {
    let rest = scene.rest(skip);
    let source = source(scene, skip, rest.len());
    outcome(scene.uffd.copy(rest.start, &source, rest.len(), mode), skip)
}

fn move_pages(scene: &Scene, skip: u64) -> Result<(), Stop> {
    let (rest, from) = (scene.rest(skip), scene.aside.start + skip);
    let mode = MoveMode::ALLOW_SRC_HOLES;
    let moved = scene
        .uffd
        .move_pages(scene.space(), rest.start, from, rest.len(), mode);
    outcome(moved, skip)
}

fn write_protect(scene: &Scene, _: u64) -> Result<(), Stop> {
    scene
        .uffd
        .write_protect(scene.range)
        .map_err(|error| match error {
            WriteProtectError::OutOfMemory => in_parts(error),
            other => panic!("{other:?}"),
        })
}

/// What a fill says that it did, after `skip` bytes that another has done.
fn outcome(outcome: Outcome, skip: u64) -> Result<(), Stop> {
    let (bytes, why) = match outcome {
        Outcome::Done => return Ok(()),
        Outcome::Partial { bytes, why } => (bytes, why),
        Outcome::Refused(why) => (0, why),
    };
    Err(Stop {
        why: format!("{why:?}"),
        left: Left::Bytes(skip + bytes),
    })
}
