//! The ioctls of a channel, wherever they fall.

use super::super::Maker;
use super::super::picture::{Range, Region};

impl Maker {
    pub(super) fn copy(&mut self) {
        let range = self.range_for(1);
        let (channel, actor) = (self.channel_of(range), self.monitor());
        let (to, length) = self.words(range);
        let mode = self.mode(&[(10, 0), (2, 1), (5, 2), (1, 3)]);
        let from = match self.rng.below(100) {
            0..80 => self.pattern(range.huge),
            80..88 => format!("pat{}.{}", self.rng.below(8), 1 + self.rng.below(4095)),
            88..96 => self.range().start(),
            _ => self.pick(&["kernel", "top", "0x0", "pat31"]).into(),
        };
        self.push(format!("{actor}: copy {channel} {to} {from} {length} {mode}"));
        self.picture.resolve(range);
    }

    pub(super) fn fill(&mut self, verb: &str, trap: u64, modes: &[(u64, u64)]) {
        let range = self.range_for(trap);
        let (channel, actor) = (self.channel_of(range), self.monitor());
        let (at, length) = self.words(range);
        let mode = self.mode(modes);
        self.push(format!("{actor}: {verb} {channel} {at} {length} {mode}"));
        self.picture.resolve(range);
    }

    pub(super) fn zero(&mut self) {
        self.fill("zero", 1, &[(8, 0), (1, 1)]);
    }

    pub(super) fn cont(&mut self) {
        self.fill("cont", 4, &[(8, 0), (1, 1), (3, 2)]);
    }

    pub(super) fn poison(&mut self) {
        self.fill("poison", 7, &[(8, 0), (1, 1)]);
    }

    pub(super) fn write_protect(&mut self) {
        self.fill("wp", 2, &[(8, 1), (4, 0), (1, 2)]);
    }

    pub(super) fn move_pages(&mut self) {
        let to = self.range_for(1);
        // A page that is there: most often one that somebody has just written, where nobody listens.
        let anonymous = |region: &&Region| region.kind.word == "anon" && region.registered.is_none();
        let open: Vec<Region> = self.picture.regions.iter().filter(anonymous).copied().collect();
        let from = if open.is_empty() || self.chance(30) {
            self.range()
        } else {
            let region = self.pick(&open);
            self.range_in(&region)
        };
        let pages = to.pages.min(from.pages);
        if self.chance(60)
            && let Some((_, name)) = self.toucher()
        {
            self.push(format!("{name}: w {}", from.start()));
        }
        let (channel, actor) = (self.channel_of(to), self.monitor());
        let (at, length) = self.words(Range { pages, ..to });
        let mode = self.mode(&[(6, 0), (1, 1), (6, 2)]);
        self.push(format!(
            "{actor}: move {channel} {at} {} {length} {mode}",
            from.start()
        ));
        self.picture.resolve(to);
    }

    pub(super) fn wake(&mut self) {
        let range = self.range();
        let channel = self.channel_of(range);
        let (at, length) = self.words(range);
        self.push(format!("m: wake {channel} {at} {length}"));
    }

    pub(super) fn register(&mut self) {
        let range = self.range();
        let (channel, actor) = (self.channel(), self.monitor());
        let (at, length) = self.words(range);
        let mode = self.usual_mode();
        let mode = self.mode(&[(1, mode)]);
        let mode = self.picture.kept_protection(range, mode);
        self.push(format!("{actor}: reg {channel} {at} {length} {mode}"));
        self.picture.register(range, Some((channel, mode)));
    }

    /// A register mode of those that the case is about, most of the time.
    pub(super) fn usual_mode(&mut self) -> u64 {
        let usual = self.setting.modes.clone();
        if self.chance(85) {
            self.pick(&usual)
        } else {
            self.rng.below(8)
        }
    }

    pub(super) fn unregister(&mut self) {
        let range = self.range();
        let (channel, actor) = (self.channel_of(range), self.monitor());
        let (at, length) = self.words(range);
        self.push(format!("{actor}: unreg {channel} {at} {length}"));
        self.picture.register(range, None);
        self.picture.resolve(range);
    }

    /// Calls without an argument, and calls that there are not.
    pub(super) fn broken(&mut self) {
        let channel = self.channel();
        let verbs = [
            "api", "reg", "unreg", "wake", "copy", "zero", "move", "wp", "cont", "poison",
        ];
        let step = match self.pick(&[true, true, false]) {
            true => format!("null {channel} {}", self.pick(&verbs)),
            false => format!(
                "raw {channel} {}",
                self.pick(&["0xc018aa09", "0x4010aa0a", "0xaa00", "0x5401"])
            ),
        };
        self.push(format!("m: {step}"));
    }
}
