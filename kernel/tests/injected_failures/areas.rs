//! Operations on areas, and on what is in them.

use kernel::mm::memtype::Modes;
use kernel::mm::memtype::anon::ANON;
use kernel::mm::pt::Prot;
use kernel::mm::range::VirtRange;
use kernel::mm::space::{MapRequest, Memory, RemapRequest, RemapTo, ScanRequest};
use kernel::uffd::{Features, FillMode};

use crate::Scenario;
use crate::common::RW;
use crate::scene::{HUGE_SHARED, OWN, PRIVATE, SHARED, Scene, Sort, Stop, in_parts, undone};

const SMALL: &[Sort] = &[OWN, SHARED, PRIVATE];
const AREAS: &[&str] = &["TooManyAreas"];
const TOLD: &[&str] = &["TooManyAreas", "OutOfMemory"];
const TABLES: &[&str] = &["OutOfMemory"];

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "map",
        sorts: &[OWN],
        ready: |sort| Scene::bare(sort).crowded(),
        act: |scene, _| map(scene, scene.gap, Memory::Own(&ANON)),
        knows: AREAS,
        allocates: 1,
    },
    Scenario {
        name: "map an object that nobody maps yet",
        sorts: &[SHARED, HUGE_SHARED],
        ready: |sort| Scene::unmapped(sort).crowded(),
        act: |scene, _| {
            let object = scene.object.as_ref().expect("it has one");
            map(scene, scene.range, Memory::shared(object))
        },
        knows: AREAS,
        allocates: 2,
    },
    Scenario {
        name: "map over what is there",
        sorts: SMALL,
        ready: |sort| Scene::bare(sort).full().crowded(),
        act: |scene, _| {
            let request = request(scene.part(10, 20), Memory::Own(&ANON));
            scene
                .world
                .run(|| scene.space().map_over(request))
                .map(drop)
                .map_err(in_parts)
        },
        knows: AREAS,
        allocates: 1,
    },
    Scenario {
        name: "unmap the middle",
        sorts: SMALL,
        ready: |sort| Scene::bare(sort).full().crowded(),
        act: |scene, _| unmap(scene, scene.part(10, 20)),
        knows: AREAS,
        allocates: 1,
    },
    Scenario {
        name: "unmap the middle, and tell a monitor",
        sorts: SMALL,
        ready: |sort| {
            let scene = Scene::with(sort, Features::EVENT_UNMAP);
            scene.full().registered().crowded().read()
        },
        act: |scene, _| unmap(scene, scene.part(10, 20)),
        knows: TOLD,
        allocates: 2,
    },
    Scenario {
        name: "move the middle to where nothing is",
        sorts: SMALL,
        ready: |sort| Scene::bare(sort).full().crowded(),
        act: |scene, _| remap(scene, scene.part(10, 20), RemapTo::At(scene.gap.start)),
        knows: TOLD,
        allocates: 5,
    },
    Scenario {
        name: "move a huge page to where nothing is",
        sorts: &[HUGE_SHARED],
        ready: |sort| Scene::bare(sort).full().crowded(),
        act: |scene, _| remap(scene, scene.part(1, 1), RemapTo::At(scene.gap.start)),
        knows: TOLD,
        allocates: 3,
    },
    Scenario {
        name: "move the middle of what is registered, and tell a monitor",
        sorts: SMALL,
        ready: |sort| {
            let scene = Scene::with(sort, Features::EVENT_REMAP | Features::EVENT_UNMAP);
            scene.full().registered().crowded().read()
        },
        act: |scene, _| remap(scene, scene.part(10, 20), RemapTo::At(scene.gap.start)),
        knows: TOLD,
        allocates: 6,
    },
    Scenario {
        name: "cut the end off",
        sorts: SMALL,
        ready: |sort| {
            let scene = Scene::with(sort, Features::EVENT_UNMAP);
            scene.full().registered().crowded().read()
        },
        act: |scene, _| {
            let request = RemapRequest {
                old: scene.part(10, 20),
                len: 5 * scene.sort.granule(),
                to: RemapTo::Here,
                leave_mapped: false,
            };
            let cut = scene.world.run(|| scene.space().remap(request));
            cut.map(drop).map_err(undone)
        },
        knows: TOLD,
        allocates: 2,
    },
    Scenario {
        name: "protect the middle",
        sorts: SMALL,
        ready: |sort| Scene::bare(sort).full().crowded(),
        act: |scene, _| {
            let middle = scene.part(10, 20);
            scene.space().protect(middle, Prot::READ).map_err(undone)
        },
        knows: AREAS,
        allocates: 1,
    },
    Scenario {
        name: "protect one of two huge pages",
        sorts: &[HUGE_SHARED],
        ready: |sort| Scene::bare(sort).full().crowded(),
        act: |scene, _| {
            let second = scene.part(1, 1);
            scene.space().protect(second, Prot::READ).map_err(undone)
        },
        knows: AREAS,
        allocates: 0,
    },
    Scenario {
        name: "lock the middle",
        sorts: SMALL,
        ready: |sort| Scene::bare(sort).full().crowded(),
        act: |scene, _| scene.space().lock(scene.part(10, 20)).map_err(in_parts),
        knows: AREAS,
        allocates: 1,
    },
    Scenario {
        name: "leave the middle out of forks",
        sorts: SMALL,
        ready: |sort| Scene::bare(sort).full().crowded(),
        act: |scene, _| {
            let middle = scene.part(10, 20);
            scene.space().set_left_out_of_forks(middle, true).map_err(undone)
        },
        knows: AREAS,
        allocates: 1,
    },
    Scenario {
        name: "register the middle",
        sorts: SMALL,
        ready: |sort| Scene::bare(sort).full().crowded(),
        act: |scene, _| register(scene, Modes::MISSING),
        knows: AREAS,
        allocates: 1,
    },
    Scenario {
        name: "register the middle for more",
        sorts: SMALL,
        ready: |sort| {
            let scene = Scene::bare(sort).full();
            let missing = scene.uffd.register(scene.range, Modes::MISSING);
            missing.expect("the type can");
            scene.crowded()
        },
        act: |scene, _| register(scene, Modes::MISSING | Modes::WP),
        knows: AREAS,
        allocates: 1,
    },
    Scenario {
        name: "unregister the middle of what is protected",
        sorts: SMALL,
        ready: |sort| {
            let scene = Scene::bare(sort).full().registered();
            scene.uffd.write_protect(scene.range).expect("RAM is plenty");
            scene.crowded()
        },
        act: |scene, _| {
            let middle = scene.part(10, 20);
            scene.uffd.unregister(middle).map_err(undone)
        },
        knows: AREAS,
        allocates: 1,
    },
    Scenario {
        name: "put up guards where nothing is",
        sorts: SMALL,
        ready: Scene::bare,
        act: |scene, _| guard(scene),
        knows: TABLES,
        allocates: 4,
    },
    Scenario {
        name: "put up guards over pages and protection",
        sorts: &[OWN],
        ready: |sort| {
            let scene = Scene::bare(sort).registered();
            let first = scene.part(0, 10);
            scene.uffd.write_protect(scene.part(5, 3)).expect("RAM is plenty");
            assert!(
                scene
                    .uffd
                    .zeropage(VirtRange::new(first.start, scene.at(4)), FillMode::empty())
                    .bytes(1)
                    > 0
            );
            scene
        },
        act: |scene, _| guard(scene),
        knows: TABLES,
        allocates: 2,
    },
    Scenario {
        name: "note stores from now on",
        sorts: SMALL,
        ready: |sort| {
            let scene = Scene::with(sort, Features::WP_ASYNC);
            scene
                .uffd
                .register(scene.range, Modes::WP)
                .expect("all types can");
            scene
        },
        act: |scene, _| {
            let request = ScanRequest::collect_written(scene.range);
            scene.space().scan(&request, &mut []).map(drop).map_err(in_parts)
        },
        knows: TABLES,
        allocates: 4,
    },
];

fn request(range: VirtRange, memory: Memory) -> MapRequest {
    MapRequest {
        at: Some(range.start),
        len: range.len(),
        prot: RW,
        memory,
    }
}

fn map(scene: &Scene, range: VirtRange, memory: Memory) -> Result<(), Stop> {
    let mapped = scene.space().map(request(range, memory));
    mapped.map(drop).map_err(undone)
}

fn unmap(scene: &Scene, range: VirtRange) -> Result<(), Stop> {
    scene.world.run(|| scene.space().unmap(range)).map_err(undone)
}

fn remap(scene: &Scene, old: VirtRange, to: RemapTo) -> Result<(), Stop> {
    let request = RemapRequest {
        old,
        len: old.len(),
        to,
        leave_mapped: false,
    };
    let moved = scene.world.run(|| scene.space().remap(request));
    moved.map(drop).map_err(undone)
}

fn register(scene: &Scene, modes: Modes) -> Result<(), Stop> {
    let registered = scene.uffd.register(scene.part(10, 20), modes);
    registered.map(drop).map_err(undone)
}

fn guard(scene: &Scene) -> Result<(), Stop> {
    scene.space().install_guards(scene.range).map_err(in_parts)
}
