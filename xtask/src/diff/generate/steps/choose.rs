//! Who, where, and how much.

use super::super::picture::{CHANNELS, CHILDREN, PAGES, Range, Region, WORKERS, Wait};
use super::super::{Maker, weighted};

impl Maker {
    /// A worker that probably does not wait.
    pub(super) fn worker(&mut self) -> Option<usize> {
        let idle: Vec<usize> = (0..WORKERS)
            .filter(|worker| self.picture.waits[*worker].is_none())
            .collect();
        (!idle.is_empty()).then(|| self.pick(&idle))
    }

    /// A worker or a child that probably does not wait, with its name.
    pub(super) fn toucher(&mut self) -> Option<(usize, String)> {
        let idle: Vec<usize> = (0..WORKERS + CHILDREN)
            .filter(|who| self.picture.waits[*who].is_none())
            .filter(|who| *who < WORKERS || self.picture.children[who - WORKERS])
            .collect();
        let who = (!idle.is_empty()).then(|| self.pick(&idle))?;
        Some((who, Self::name(who)))
    }

    pub(super) fn name(who: usize) -> String {
        match who.checked_sub(WORKERS) {
            None => format!("t{who}"),
            Some(child) => format!("c{child}"),
        }
    }

    /// Somebody for a call that waits only for events.
    pub(super) fn caller(&mut self) -> Option<(usize, String)> {
        if self.setting.forks && self.chance(10) {
            return self.toucher();
        }
        let worker = self.worker()?;
        Some((worker, Self::name(worker)))
    }

    /// A mapping, the registered ones more often.
    pub(super) fn region(&mut self) -> Option<Region> {
        let all = self.picture.regions.clone();
        let registered: Vec<Region> = all
            .iter()
            .filter(|region| region.registered.is_some())
            .copied()
            .collect();
        match (registered.is_empty(), all.is_empty()) {
            (false, _) if self.chance(75) => Some(self.pick(&registered)),
            (_, false) => Some(self.pick(&all)),
            _ => None,
        }
    }

    /// A range within a mapping, or not quite.
    pub(super) fn range_in(&mut self, region: &Region) -> Range {
        let mut range = region.range;
        match self.rng.below(100) {
            0..30 => {}
            30..65 => {
                range.at += self.rng.below(range.pages as u64) as usize;
                range.pages = 1;
            }
            65..90 => {
                let skip = self.rng.below(range.pages as u64) as usize;
                range.at += skip;
                range.pages = 1 + self.rng.below((range.pages - skip) as u64) as usize;
            }
            _ => {
                range.at = range.at.saturating_sub(self.rng.below(3) as usize);
                range.pages += self.rng.below(4) as usize;
            }
        }
        range
    }

    pub(super) fn range(&mut self) -> Range {
        match self.region() {
            Some(region) if !self.chance(4) => self.range_in(&region),
            _ => {
                let pages = 1 + self.rng.below(12) as usize;
                Range {
                    huge: false,
                    at: self.rng.below(PAGES as u64 - 12) as usize,
                    pages,
                }
            }
        }
    }

    /// A range for an ioctl: most often where its trap is registered.
    pub(super) fn range_for(&mut self, mode: u64) -> Range {
        let fits = |region: &&Region| region.registered.is_some_and(|(_, modes)| modes & mode != 0);
        let fitting: Vec<Region> = self.picture.regions.iter().filter(fits).copied().collect();
        if fitting.is_empty() || self.chance(25) {
            return self.range();
        }
        let region = self.pick(&fitting);
        self.range_in(&region)
    }

    /// Start and length as words, spoilt now and then.
    pub(super) fn words(&mut self, range: Range) -> (String, String) {
        let (mut start, mut length) = (range.start(), range.length());
        if self.chance(self.setting.spoilt) {
            match self.rng.below(8) {
                0 => start = format!("{start}.{}", 1 + self.rng.below(4095)),
                1 => length = "0".into(),
                2 => length = format!("b{}", 1 + self.rng.below(9000)),
                3 => start = self.pick(&["top", "top+1", "kernel", "0x0", "0x1000"]).into(),
                4 => length = "0x7ffffffff000".into(),
                5 => length = "0xfffffffffffff000".into(),
                6 if range.huge => start = format!("{start}.4096"),
                7 if range.huge => length = "1".into(),
                _ => {}
            }
        }
        (start, length)
    }

    /// As [`Self::words`], for calls that must not reach beyond the arena: they would hit the player itself.
    pub(super) fn near_words(&mut self, range: Range) -> (String, String) {
        let words = self.words(range);
        if words.1.starts_with("0x") {
            (range.start(), range.length())
        } else {
            words
        }
    }

    /// A mode's bits, one of them unknown now and then.
    pub(super) fn mode(&mut self, from: &[(u64, u64)]) -> u64 {
        let mode = weighted(&mut self.rng, from);
        if self.chance(self.setting.spoilt / 2) {
            mode ^ 1 << self.rng.below(6)
        } else {
            mode
        }
    }

    /// An open channel; seldom one that is not.
    pub(super) fn channel(&mut self) -> usize {
        let open: Vec<usize> = (0..CHANNELS)
            .filter(|index| self.picture.channels[*index].is_some())
            .collect();
        if open.is_empty() || self.chance(1) {
            self.rng.below(CHANNELS as u64) as usize
        } else {
            self.pick(&open)
        }
    }

    /// The channel that a range is probably registered with.
    pub(super) fn channel_of(&mut self, range: Range) -> usize {
        let owner = self
            .picture
            .region_of(range.huge, range.at)
            .and_then(|region| region.registered);
        match owner {
            Some((channel, _)) if !self.chance(6) => channel,
            _ => self.channel(),
        }
    }

    /// Who makes the ioctls: the monitor, seldom a child with what it inherited.
    pub(super) fn monitor(&mut self) -> String {
        let child = self.rng.below(CHILDREN as u64) as usize;
        if self.picture.children[child] && self.chance(8) {
            format!("c{child}")
        } else {
            "m".into()
        }
    }

    /// The caller probably waits for an event of this range, if its channel has the feature.
    pub(super) fn may_wait(&mut self, who: usize, range: Range, feature: u64) {
        let owner = self
            .picture
            .region_of(range.huge, range.at)
            .and_then(|region| region.registered);
        if let Some((channel, _)) = owner
            && self.picture.channels[channel].is_some_and(|open| open.features & feature != 0)
        {
            self.picture.waits[who] = Some(Wait::Event { channel });
        }
    }
}
