//! The steps that a case may go on with, each with how often it comes up.

mod choose;
mod ioctls;
mod look;
mod memory;
mod process;
mod touch;

use super::{Maker, weighted};

type Step = fn(&mut Maker);

/// Every step, with its weight.
const STEPS: &[(u64, Step)] = &[
    // Touches, and what lets them go.
    (26, Maker::touch),
    (16, Maker::resolve),
    (9, Maker::read),
    (3, Maker::poll),
    // The ioctls, wherever they fall.
    (7, Maker::copy),
    (3, Maker::zero),
    (6, Maker::write_protect),
    (4, Maker::cont),
    (3, Maker::poison),
    (5, Maker::move_pages),
    (2, Maker::wake),
    (4, Maker::register),
    (3, Maker::unregister),
    (1, Maker::broken),
    // Memory.
    (4, Maker::map),
    (3, Maker::unmap),
    (4, Maker::protect),
    (5, Maker::remap),
    (8, Maker::advise),
    (2, Maker::lock),
    (5, Maker::file),
    (2, Maker::resize),
    // Processes, and what the kernel touches for them.
    (4, Maker::fork),
    (1, Maker::kill),
    (1, Maker::signal),
    (4, Maker::kernel_touch),
    // Channels.
    (1, Maker::open),
    (1, Maker::api),
    (1, Maker::close),
    // Looks.
    (6, Maker::pagemap),
    (3, Maker::vmas),
    (3, Maker::scan),
    (1, Maker::incore),
];

impl Maker {
    /// What comes before anything else.
    pub(super) fn prepare(&mut self) {
        self.open_channel(0);
        if self.chance(20) {
            self.open_channel(1);
        }
        for _ in 0..1 + self.rng.below(3) {
            self.map();
        }
        for region in self.picture.regions.clone() {
            if self.chance(85) {
                let mode = self.usual_mode();
                let mode = self.picture.kept_protection(region.range, mode);
                self.push(format!(
                    "m: reg 0 {} {} {mode}",
                    region.range.start(),
                    region.range.length()
                ));
                self.picture.register(region.range, Some((0, mode)));
            }
        }
    }

    /// The next step.
    pub(super) fn step(&mut self) {
        let step = weighted(&mut self.rng, STEPS);
        step(self);
    }
}
