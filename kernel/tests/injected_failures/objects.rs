//! Memory objects past any mapping.

use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::cache::{AllocateError, WriteError};

use crate::Scenario;
use crate::scene::{GUEST, HUGE_SHARED, Left, SHARED, Scene, Stop, in_parts, undone};

const KNOWN: &[&str] = &["OutOfMemory", "PoolEmpty"];

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "write",
        sorts: &[SHARED, GUEST],
        ready: Scene::bare,
        act: write,
        knows: KNOWN,
        allocates: 40,
    },
    Scenario {
        name: "write to what is there in part",
        sorts: &[SHARED, GUEST],
        ready: |sort| {
            let scene = Scene::bare(sort);
            for at in [0, 5, 17] {
                let (written, result) = scene.object().write(at * PAGE_SIZE, &[9; 100]);
                assert_eq!((written, result), (100, Ok(())));
            }
            scene
        },
        act: write,
        knows: KNOWN,
        allocates: 37,
    },
    Scenario {
        name: "allocate",
        sorts: &[SHARED, HUGE_SHARED, GUEST],
        ready: Scene::bare,
        act: |scene, _| allocate(scene, true),
        knows: KNOWN,
        allocates: 2,
    },
    Scenario {
        name: "allocate and grow",
        sorts: &[SHARED, HUGE_SHARED],
        ready: |sort| {
            let scene = Scene::bare(sort);
            scene
                .object()
                .truncate(sort.granule())
                .expect("its size may change");
            scene
        },
        act: |scene, _| allocate(scene, false),
        knows: KNOWN,
        allocates: 2,
    },
    Scenario {
        name: "truncate, with protection that is to be remembered",
        sorts: &[SHARED, HUGE_SHARED],
        ready: |sort| {
            let scene = Scene::bare(sort).full().registered();
            scene.uffd.write_protect(scene.range).expect("RAM is plenty");
            scene
        },
        act: |scene, _| {
            let kept = scene.range.len() / 2;
            scene.object().truncate(kept).map_err(in_parts)
        },
        knows: &[],
        allocates: 0,
    },
];

fn write(scene: &Scene, skip: u64) -> Result<(), Stop> {
    let bytes: Vec<u8> = (skip..scene.range.len())
        .map(|at| (at / PAGE_SIZE) as u8 + 1)
        .collect();
    let (written, result) = scene.object().write(skip, &bytes);
    result.map_err(|error| match error {
        WriteError::NoPage(why) => Stop {
            why: format!("{why:?}"),
            left: Left::Bytes(skip + written),
        },
        other => panic!("{other:?}"),
    })
}

fn allocate(scene: &Scene, keep_size: bool) -> Result<(), Stop> {
    let allocated = scene.object().allocate(0, scene.range.len(), keep_size);
    allocated.map_err(|error| match error {
        AllocateError::NoPage(why) => undone(why),
        other => panic!("{other:?}"),
    })
}
