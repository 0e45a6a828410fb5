//! What a case is about: drawn once, so that its steps have something to do with one another.

use crate::rng::SplitMix64;

use super::weighted;

/// Flags of `userfaultfd(2)`.
pub const NONBLOCK: u64 = 0x800;
const USER_MODE_ONLY: u64 = 1;
const CLOEXEC: u64 = 0x80000;

/// Features, as far as they change anything.
pub const EVENTS: u64 = 0x2 | 0x4 | 0x8 | 0x40;
const EVENT_FORK: u64 = 0x2;
const SIGBUS: u64 = 0x80;
const THREAD_ID: u64 = 0x100;
const EXACT_ADDRESS: u64 = 0x800;
const WP_UNPOPULATED: u64 = 0x2000;
const WP_ASYNC: u64 = 0x8000;
const PROBES: [u64; 4] = [0x1, 0x20, 0x1000, 0x10000];

/// A kind of mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kind {
    /// The player's word for it.
    pub word: &'static str,
    /// The file behind it.
    pub file: Option<usize>,
    /// Whether its pages are huge.
    pub huge: bool,
}

/// What a case is about.
#[derive(Clone, Debug, Default)]
pub struct Setting {
    /// Kinds of memory that are mapped.
    pub kinds: Vec<Kind>,
    /// The register modes that come up most.
    pub modes: Vec<u64>,
    /// Percent of arguments that are spoilt.
    pub spoilt: u64,
    /// Whether children are forked.
    pub forks: bool,
}

impl Setting {
    /// Draws one.
    pub fn draw(rng: &mut SplitMix64, huge: bool) -> Self {
        let kind = |word, file, huge| Kind { word, file, huge };
        let all = [
            (30, kind("anon", None, false)),
            (6, kind("shared", None, false)),
            (20, kind("mem0", Some(0), false)),
            (12, kind("pmem0", Some(0), false)),
            (4, kind("mem1", Some(1), false)),
            (4, kind("pmem1", Some(1), false)),
            (3, kind("zero", None, false)),
            (2, kind("szero", None, false)),
            (if huge { 4 } else { 0 }, kind("huge", None, true)),
            (if huge { 2 } else { 0 }, kind("shuge", None, true)),
            (if huge { 5 } else { 0 }, kind("mem2", Some(2), true)),
            (if huge { 3 } else { 0 }, kind("pmem2", Some(2), true)),
        ];
        let count = 1 + rng.below(3);
        let modes = [(5, 1), (4, 2), (5, 3), (3, 4), (2, 5), (2, 6), (3, 7)];
        Self {
            kinds: (0..count).map(|_| weighted(rng, &all)).collect(),
            modes: (0..2).map(|_| weighted(rng, &modes)).collect(),
            spoilt: weighted(rng, &[(4, 0), (4, 5), (1, 25)]),
            forks: rng.below(100) < 45,
        }
    }
}

/// Flags and features of a channel.
pub fn channel(rng: &mut SplitMix64) -> (u64, u64) {
    let mut chance = |percent| rng.below(100) < percent;
    let mut flags = 0;
    if chance(94) {
        flags |= NONBLOCK;
    }
    if chance(8) {
        flags |= USER_MODE_ONLY;
    }
    if chance(20) {
        flags |= CLOEXEC;
    }
    let mut features = 0;
    if chance(85) {
        features |= THREAD_ID;
    }
    if chance(50) {
        for event in [0x2, 0x4, 0x8, 0x40] {
            if chance(55) {
                features |= event;
            }
        }
    }
    for (feature, percent) in [
        (SIGBUS, 5),
        (EXACT_ADDRESS, 15),
        (WP_UNPOPULATED, 30),
        (WP_ASYNC, 10),
    ] {
        if chance(percent) {
            features |= feature;
        }
    }
    for probe in PROBES {
        if chance(5) {
            features |= probe;
        }
    }
    (flags, features)
}

/// Whether a fork with these features waits for a reader.
pub const fn fork_waits(features: u64) -> bool {
    features & EVENT_FORK != 0
}
