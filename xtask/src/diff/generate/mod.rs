//! Random cases, the same for the same seed.
//!
//! A case opens a channel, maps a few regions, registers some, and then goes on at random. The generator keeps a rough
//! picture of what exists and who waits ([`picture`]), so that most steps make sense and most waits end; now and then it
//! spoils an argument. Nothing relies on the picture being right: what a step does is what the two kernels say it does.

mod picture;
mod setting;
mod steps;

use crate::rng::SplitMix64;

use super::script::Case;
use picture::Picture;
use setting::Setting;

/// Makes cases.
#[derive(Clone, Debug)]
pub struct Generator {
    /// Decides everything.
    pub seed: u64,
    /// Steps per case.
    pub steps: usize,
    /// Whether both sides have huge pages for the cases.
    pub huge: bool,
}

impl Generator {
    /// Case number `index`. It depends on the seed and the number alone.
    pub fn case(&self, index: u64) -> Case {
        let mut mixed = SplitMix64::new(self.seed);
        let seed = mixed.draw() ^ SplitMix64::new(index).draw();
        let mut maker = Maker {
            rng: SplitMix64::new(seed),
            setting: Setting::default(),
            picture: Picture::default(),
            steps: Vec::new(),
        };
        maker.setting = Setting::draw(&mut maker.rng, self.huge);
        maker.prepare();
        while maker.steps.len() < self.steps {
            maker.step();
        }
        maker.steps.truncate(self.steps);
        Case {
            name: index.to_string(),
            steps: maker.steps,
        }
    }
}

/// One case in the making.
struct Maker {
    rng: SplitMix64,
    setting: Setting,
    picture: Picture,
    steps: Vec<String>,
}

impl Maker {
    fn push(&mut self, step: String) {
        self.steps.push(step);
    }

    /// True in `percent` of all draws.
    fn chance(&mut self, percent: u64) -> bool {
        self.rng.below(100) < percent
    }

    /// One of several, all equally likely.
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.below(from.len() as u64) as usize]
    }
}

/// One of several, as often as its weight says.
fn weighted<T: Copy>(rng: &mut SplitMix64, from: &[(u64, T)]) -> T {
    let mut left = rng.below(from.iter().map(|(weight, _)| weight).sum());
    for (weight, item) in from {
        if left < *weight {
            return *item;
        }
        left -= weight;
    }
    unreachable!("the weights add up to the bound")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const GENERATOR: Generator = Generator {
        seed: 7,
        steps: 40,
        huge: true,
    };

    #[test]
    fn a_case_depends_on_seed_and_number_alone() {
        assert_eq!(GENERATOR.case(3), GENERATOR.case(3));
        assert_ne!(GENERATOR.case(3).steps, GENERATOR.case(4).steps);
        let other = Generator { seed: 8, ..GENERATOR };
        assert_ne!(GENERATOR.case(3).steps, other.case(3).steps);
        let longer = Generator {
            steps: 50,
            ..GENERATOR
        };
        assert_eq!(GENERATOR.case(3).steps, longer.case(3).steps[..40]);
    }

    #[test]
    fn every_kind_of_step_comes_up() {
        let mut verbs: BTreeMap<String, usize> = BTreeMap::new();
        for index in 0..500 {
            for step in GENERATOR.case(index).steps {
                let (_, what) = step.split_once(": ").unwrap();
                *verbs
                    .entry(what.split(' ').next().unwrap().to_owned())
                    .or_default() += 1;
            }
        }
        for verb in [
            "map",
            "unmap",
            "protect",
            "remap",
            "advise",
            "memfd",
            "truncate",
            "fallocate",
            "put",
            "get",
            "lock",
            "unlock",
            "uffd",
            "api",
            "reg",
            "unreg",
            "wake",
            "copy",
            "zero",
            "cont",
            "poison",
            "move",
            "wp",
            "null",
            "raw",
            "read",
            "poll",
            "close",
            "r",
            "w",
            "fork",
            "kill",
            "signal",
            "vmread",
            "vmwrite",
            "sysread",
            "syswrite",
            "pagemap",
            "vmas",
            "scan",
            "incore",
        ] {
            assert!(
                verbs.get(verb).is_some_and(|count| *count > 3),
                "{verb}: {verbs:?}"
            );
        }
    }

    #[test]
    fn without_huge_pages_no_step_asks_for_one() {
        let generator = Generator {
            huge: false,
            ..GENERATOR
        };
        for index in 0..200 {
            for step in generator.case(index).steps {
                assert!(!step.contains("huge"), "{step}");
            }
        }
    }

    #[test]
    fn most_weight_wins_most_often() {
        let mut rng = SplitMix64::new(1);
        let drawn: usize = (0..1000).map(|_| weighted(&mut rng, &[(1, 0), (9, 1)])).sum();
        assert!((850..950).contains(&drawn), "{drawn}");
    }
}
