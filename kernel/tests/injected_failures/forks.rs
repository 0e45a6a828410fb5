//! Forks: the child is complete, or there is none.

use kernel::uffd::{Features, FillMode, Outcome};

use crate::Scenario;
use crate::scene::{GUEST, HUGE, HUGE_PRIVATE, HUGE_SHARED, OWN, PRIVATE, SHARED, Scene, Stop, in_parts};

const KNOWN: &[&str] = &["OutOfMemory"];

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "fork of what is full",
        sorts: &[OWN, SHARED, PRIVATE, HUGE, HUGE_SHARED, HUGE_PRIVATE, GUEST],
        ready: |sort| Scene::bare(sort).full(),
        act: fork,
        knows: KNOWN,
        allocates: 2,
    },
    Scenario {
        name: "fork of pages, protection and poison, without a word to the monitor",
        sorts: &[OWN, SHARED, PRIVATE],
        ready: |sort| mixed(Scene::bare(sort)),
        act: fork,
        knows: KNOWN,
        allocates: 2,
    },
    Scenario {
        name: "fork of pages, protection and poison, with the monitor told",
        sorts: &[OWN, SHARED, PRIVATE],
        ready: |sort| {
            let features = Features::EVENT_FORK | Features::WP_UNPOPULATED;
            mixed(Scene::with(sort, features)).read()
        },
        act: fork,
        knows: KNOWN,
        allocates: 3,
    },
    Scenario {
        name: "a second fork",
        sorts: &[OWN, PRIVATE, HUGE],
        ready: |sort| Scene::bare(sort).full().forked(),
        act: fork,
        knows: KNOWN,
        allocates: 2,
    },
];

/// Registered, with pages, protected pages, markers and holes on both sides of the border.
fn mixed(scene: Scene) -> Scene {
    let scene = scene.registered();
    for first in [0, 22] {
        let source = vec![7; 6 * scene.sort.granule() as usize];
        let copied = scene
            .uffd
            .copy(scene.at(first), &source, source.len() as u64, FillMode::empty());
        assert_eq!(copied, Outcome::Done);
        scene
            .uffd
            .write_protect(scene.part(first + 3, 6))
            .expect("RAM is plenty");
        let poisoned = scene.uffd.poison(scene.part(first + 10, 2), FillMode::empty());
        assert_eq!(poisoned, Outcome::Done);
    }
    scene
}

fn fork(scene: &Scene, _: u64) -> Result<(), Stop> {
    let child = scene.world.run(|| scene.space().fork()).map_err(in_parts)?;
    *scene.child.borrow_mut() = Some(child);
    Ok(())
}
