//! The rows of the table about stage 2.

use hv::vendor::Features;

use super::Scene;

/// One measurement.
pub struct Row {
    /// What is measured.
    pub name: &'static str,
    /// How.
    pub scene: Scene,
    /// What it may cost.
    pub budget: Option<u64>,
    /// What Linux 6.12 with KVM pays, and lean Linux.
    pub linux: Option<[u64; 2]>,
}

const fn row(name: &'static str, scene: Scene) -> Row {
    Row {
        name,
        scene,
        budget: None,
        linux: None,
    }
}

impl Row {
    const fn against(self, budget: u64, full: u64, lean: u64) -> Self {
        Self {
            budget: Some(budget),
            linux: Some([full, lean]),
            ..self
        }
    }
}

/// All rows, in the order in which they are measured. The budgets are those for a monitor that is a kernel task.
static ROWS: [Row; 11] = [
    row("exit to the owner and back", Scene::Call).against(350, 2942, 2755),
    row("page present on the host's side, store", Scene::Present).against(500, 3042, 3042),
    row("anonymous: first touch, store", Scene::Anonymous).against(1300, 6919, 6607),
    row("anonymous: MISSING + COPY, store", Scene::Missing).against(2200, 25225, 22605),
    row("anonymous: WP + clear, store", Scene::Protected),
    row("shared: MINOR + CONTINUE, load", Scene::Minor).against(1500, 20265, 18560),
    row(
        "guest_memfd: missing, exit, owner writes, store",
        Scene::ExitMissing,
    ),
    row(
        "guest_memfd: in the cache, exit, owner clears the bit, load",
        Scene::ExitMinor,
    ),
    row(
        "guest_memfd: missing, injected, guest's handler copies, store",
        Scene::InjectMissing,
    ),
    row(
        "guest_memfd: missing, #VE, guest's handler copies, store",
        Scene::ExceptionMissing,
    ),
    row(
        "guest_memfd: in the cache, #VE, guest's handler switches views, load",
        Scene::ExceptionCached,
    ),
];

/// Those of the rows that a CPU with these features can be measured with.
pub fn rows(features: &Features) -> impl Iterator<Item = &'static Row> {
    ROWS.iter().filter(|row| row.scene.is_possible(features))
}
