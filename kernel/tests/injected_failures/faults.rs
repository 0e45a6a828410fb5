//! Touches that nothing traps.

use kernel::mm::fault::FaultError;
use kernel::mm::uaccess::{self, AccessError};

use crate::Scenario;
use crate::scene::{GUEST, HUGE, HUGE_PRIVATE, HUGE_SHARED, Left, OWN, PRIVATE, SHARED, Scene, Sort, Stop};

const ALL: &[Sort] = &[OWN, SHARED, PRIVATE, HUGE, HUGE_SHARED, HUGE_PRIVATE, GUEST];
const KNOWN: &[&str] = &["OutOfMemory", "PoolEmpty"];

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "a load of what was never touched",
        sorts: ALL,
        ready: Scene::bare,
        act: load_all,
        knows: KNOWN,
        allocates: 6,
    },
    Scenario {
        name: "a store to what was never touched",
        sorts: ALL,
        ready: Scene::bare,
        act: store_all,
        knows: KNOWN,
        allocates: 6,
    },
    Scenario {
        name: "a load of what the cache has",
        sorts: &[SHARED, PRIVATE, HUGE_SHARED, HUGE_PRIVATE, GUEST],
        ready: |sort| Scene::bare(sort).cached(),
        act: load_all,
        knows: KNOWN,
        allocates: 4,
    },
    Scenario {
        name: "a store to what the cache has",
        sorts: &[PRIVATE, HUGE_PRIVATE],
        ready: |sort| Scene::bare(sort).cached(),
        act: store_all,
        knows: KNOWN,
        allocates: 6,
    },
    Scenario {
        name: "a store to the page of zeros",
        sorts: &[OWN],
        ready: |sort| {
            let scene = Scene::bare(sort);
            load_all(&scene, 0).expect("RAM is plenty");
            scene
        },
        act: store_all,
        knows: KNOWN,
        allocates: 40,
    },
    Scenario {
        name: "a store after a fork",
        sorts: &[OWN, PRIVATE, HUGE],
        ready: |sort| Scene::bare(sort).full().forked(),
        act: store_all,
        knows: KNOWN,
        allocates: 2,
    },
];

fn load_all(scene: &Scene, skip: u64) -> Result<(), Stop> {
    touch_all(scene, skip, |at, _| uaccess::load(at).map(drop))
}

fn store_all(scene: &Scene, skip: u64) -> Result<(), Stop> {
    touch_all(scene, skip, |at, i| uaccess::store(at, 100 + i))
}

/// Touches one granule after the other, and stops at the first that fails.
fn touch_all(
    scene: &Scene,
    skip: u64,
    touch: impl Fn(kernel::mm::addr::VirtAddr, u64) -> Result<(), AccessError>,
) -> Result<(), Stop> {
    let granule = scene.sort.granule();
    scene.world.run(|| {
        for i in skip / granule..scene.sort.granules() {
            touch(scene.at(i), i).map_err(|error| stopped(error.why, i * granule))?;
        }
        Ok(())
    })
}

fn stopped(why: FaultError, bytes: u64) -> Stop {
    Stop {
        why: format!("{why:?}"),
        left: Left::Touched(bytes),
    }
}
