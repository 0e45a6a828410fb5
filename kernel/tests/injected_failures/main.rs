//! No allocation that fails leaves anything half done.
//!
//! A scenario is memory of some sort in some state, and one operation on it. The operation is run in a fresh world with its
//! first allocation failing, in another with its second, and so on until none fails. Each time
//!
//! 1. it fails in a way that its documentation knows;
//! 2. every page, and every page of the object behind, is as it was before, or as it would have been afterwards: which of
//!    the two is what the operation reports to have done ([`scene::Left`]);
//! 3. no frame is in use that is mapped nowhere, and no entry contradicts its area;
//! 4. run again with memory, it goes on from there and comes to the same end as if nothing had failed;
//! 5. every frame is back when the world ends (the machine looks).
//!
//! What counts as an allocation: every frame, every huge page of the pool, and room for those records of the kernel that
//! may be refused (areas, nodes of memory objects, views, layout changes).

#[path = "../common/mod.rs"]
mod common;

mod areas;
mod faults;
mod fills;
mod forks;
mod objects;
mod remaps;
mod scene;

use kernel::mm::frame::allocator;

use scene::{Scene, Sort, Stop};

/// An operation, and what it is done to.
pub struct Scenario {
    /// What is done, and to what.
    pub name: &'static str,
    /// The memory.
    pub sorts: &'static [Sort],
    /// Makes a world in which everything is ready.
    pub ready: fn(Sort) -> Scene,
    /// The operation on what is left after the first so many bytes.
    pub act: fn(&Scene, u64) -> Result<(), Stop>,
    /// The failures that it may report.
    pub knows: &'static [&'static str],
    /// Allocations that it makes at least: the scenario is not empty.
    pub allocates: usize,
}

impl Scenario {
    fn run(&self) {
        for sort in self.sorts {
            let name = format!("{}, {}", self.name, sort.name);
            let failures = self.run_on(*sort, &name);
            println!("{name}: {failures} failures");
            assert!(
                failures >= self.allocates,
                "{name}: {failures} allocations that can fail"
            );
        }
    }

    /// Returns how many allocations could fail.
    fn run_on(&self, sort: Sort, name: &str) -> usize {
        let scene = (self.ready)(sort);
        let before = scene.picture();
        (self.act)(&scene, 0).unwrap_or_else(|stop| panic!("{name}: nothing failed, but {stop:?}"));
        let goal = scene.picture();
        drop(scene);
        for failing in 0.. {
            let scene = (self.ready)(sort);
            scene
                .picture()
                .assert_same(&before, &format!("{name}: two worlds are alike"));
            allocator().inject_failure(failing as u64);
            let result = (self.act)(&scene, 0);
            allocator().stop_injection();
            let Err(stop) = result else {
                scene.picture().assert_same(&goal, name);
                return failing;
            };
            let what = format!("{name}, after {failing} allocations: {stop:?}");
            assert!(self.knows.contains(&stop.why.as_str()), "{what}");
            let now = scene.picture();
            now.assert_sane(&what);
            now.assert_between(&before, &goal, stop.left, &what);
            if let Err(stop) = (self.act)(&scene, stop.left.bytes()) {
                panic!("{what}, and then with memory {stop:?}");
            }
            scene
                .picture()
                .assert_same(&goal, &format!("{what}, and then with memory"));
        }
        unreachable!("the numbers do not end")
    }
}

fn run(scenarios: &[Scenario]) {
    scenarios.iter().for_each(Scenario::run);
}

#[test]
fn touches() {
    run(faults::SCENARIOS);
}

#[test]
fn fills_of_absent_pages() {
    run(fills::SCENARIOS);
}

#[test]
fn changes_of_areas_and_of_their_contents() {
    run(areas::SCENARIOS);
}

#[test]
fn forks() {
    run(forks::SCENARIOS);
}

#[test]
fn mappings_that_move_grow_and_shrink() {
    run(remaps::SCENARIOS);
}

#[test]
fn memory_objects() {
    run(objects::SCENARIOS);
}
