//! Mappings that move, grow and shrink.

use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::pt::Prot;
use kernel::mm::range::VirtRange;
use kernel::mm::space::{RemapError, RemapRequest, RemapTo};
use kernel::uffd::Features;

use crate::Scenario;
use crate::scene::{
    HUGE, HUGE_PRIVATE, HUGE_SHARED, OWN, PRIVATE, SHARED, Scene, Sort, Stop, in_parts, undone,
};

const SMALL: &[Sort] = &[OWN, SHARED, PRIVATE];
const KNOWN: &[&str] = &["TooManyAreas", "OutOfMemory"];

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "move the middle to a gap",
        sorts: SMALL,
        ready: |sort| Scene::bare(sort).full().crowded(),
        act: |scene, _| go(scene, to_gap(scene)),
        knows: KNOWN,
        allocates: 5,
    },
    Scenario {
        name: "move the middle to a gap, and leave it mapped",
        sorts: SMALL,
        ready: |sort| Scene::bare(sort).full().crowded(),
        act: |scene, _| {
            let leave_mapped = true;
            go(
                scene,
                RemapRequest {
                    leave_mapped,
                    ..to_gap(scene)
                },
            )
        },
        knows: KNOWN,
        allocates: 5,
    },
    Scenario {
        name: "move huge pages to a gap",
        sorts: &[HUGE, HUGE_SHARED, HUGE_PRIVATE],
        ready: |sort| Scene::bare(sort).full().crowded(),
        act: |scene, _| {
            go(
                scene,
                request(scene.range, scene.range.len(), RemapTo::At(scene.gap.start)),
            )
        },
        knows: KNOWN,
        allocates: 4,
    },
    Scenario {
        name: "move the middle over what is there",
        sorts: SMALL,
        ready: |sort| Scene::bare(sort).full().full_aside().crowded(),
        act: |scene, _| {
            let place = RemapTo::At(scene.aside.start + 7 * PAGE_SIZE);
            let middle = scene.part(10, 20);
            go(scene, request(middle, middle.len(), place))
        },
        knows: KNOWN,
        allocates: 2,
    },
    Scenario {
        name: "move what becomes shorter",
        sorts: SMALL,
        ready: |sort| Scene::bare(sort).full().crowded(),
        act: |scene, _| {
            let shorter = 15 * PAGE_SIZE;
            go(
                scene,
                RemapRequest {
                    len: shorter,
                    ..to_gap(scene)
                },
            )
        },
        knows: KNOWN,
        allocates: 4,
    },
    Scenario {
        name: "move three areas at once",
        sorts: SMALL,
        ready: |sort| {
            let scene = Scene::bare(sort).full();
            scene
                .space()
                .protect(scene.part(15, 10), Prot::READ)
                .expect("RAM is plenty");
            scene.crowded()
        },
        act: |scene, _| go(scene, to_gap(scene)),
        knows: KNOWN,
        allocates: 5,
    },
    Scenario {
        name: "move what is protected, and tell its monitor",
        sorts: SMALL,
        ready: told,
        act: |scene, _| go(scene, to_gap(scene)),
        knows: KNOWN,
        allocates: 7,
    },
    Scenario {
        name: "shrink",
        sorts: SMALL,
        ready: |sort| Scene::bare(sort).full().crowded(),
        act: |scene, _| shrink(scene),
        knows: KNOWN,
        allocates: 1,
    },
    Scenario {
        name: "shrink what is protected, and tell its monitor",
        sorts: SMALL,
        ready: told,
        act: |scene, _| shrink(scene),
        knows: KNOWN,
        allocates: 3,
    },
    Scenario {
        name: "grow where it is",
        sorts: SMALL,
        ready: |sort| {
            let scene = Scene::bare(sort).full();
            scene.space().unmap(scene.part(30, 10)).expect("mapped");
            scene.crowded()
        },
        act: |scene, _| {
            let request = request(scene.part(20, 10), 20 * PAGE_SIZE, RemapTo::Here);
            scene
                .world
                .run(|| scene.space().remap(request))
                .map(drop)
                .map_err(undone)
        },
        knows: KNOWN,
        allocates: 1,
    },
];

/// Full, registered and protected, with a monitor that is told of everything.
fn told(sort: Sort) -> Scene {
    let features = Features::EVENT_REMAP | Features::EVENT_UNMAP;
    let scene = Scene::with(sort, features).full().registered();
    scene.uffd.write_protect(scene.range).expect("RAM is plenty");
    scene.crowded().read()
}

fn request(old: VirtRange, len: u64, to: RemapTo) -> RemapRequest {
    RemapRequest {
        old,
        len,
        to,
        leave_mapped: false,
    }
}

/// The middle of the range, which goes on on both sides of the border, and a place in the gap that begins elsewhere in a
/// node.
fn to_gap(scene: &Scene) -> RemapRequest {
    let middle = scene.part(10, 20);
    request(middle, middle.len(), RemapTo::At(scene.gap.start + 3 * PAGE_SIZE))
}

fn shrink(scene: &Scene) -> Result<(), Stop> {
    go(scene, request(scene.part(10, 20), 5 * PAGE_SIZE, RemapTo::Here))
}

fn go(scene: &Scene, request: RemapRequest) -> Result<(), Stop> {
    let remapped = scene.world.run(|| scene.space().remap(request));
    remapped.map(drop).map_err(|error| match error {
        // What is to be replaced may be gone.
        RemapError::OutOfMemory => in_parts(error),
        error => undone(error),
    })
}
