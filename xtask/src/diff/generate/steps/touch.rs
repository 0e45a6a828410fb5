//! Touches, by tasks and by the kernel for them, and what lets those go on who wait.

use super::super::picture::{OWN_CHANNELS, Range, Wait};
use super::super::setting::fork_waits;
use super::super::{Maker, weighted};

impl Maker {
    pub(super) fn touch(&mut self) {
        let (Some((who, name)), Some(region)) = (self.toucher(), self.region()) else {
            return self.map();
        };
        let range = self.range_in(&region);
        let page = range.at + self.rng.below(range.pages as u64) as usize;
        let verb = self.pick(&["r", "w"]);
        let mut place = Range::place(range.huge, page);
        if range.huge && self.chance(30) {
            place = format!("{place}.{}", 4096 * self.rng.below(512));
        }
        self.push(format!("{name}: {verb} {place}"));
        let channel = match self
            .picture
            .region_of(range.huge, page)
            .and_then(|region| region.registered)
        {
            Some((channel, _)) if self.chance(50) => channel,
            _ => return,
        };
        self.picture.waits[who] = Some(Wait::Page {
            huge: range.huge,
            page,
            channel,
        });
    }

    /// Something for a page that somebody probably waits for.
    pub(super) fn resolve(&mut self) {
        let waiting: Vec<Wait> = self.picture.waits.iter().flatten().copied().collect();
        if waiting.is_empty() {
            return self.touch();
        }
        let (huge, page, channel) = match self.pick(&waiting) {
            Wait::Event { channel } => return self.read_from(channel),
            Wait::Page { huge, page, channel } => (huge, page, channel),
        };
        let range = Range {
            huge,
            at: page,
            pages: 1,
        };
        let (place, length) = (Range::place(huge, page), Range::len(huge, 1));
        let pattern = self.pattern(huge);
        let shared = self
            .picture
            .region_of(huge, page)
            .is_some_and(|region| region.kind.file.is_some());
        let minor = if shared { 12 } else { 1 };
        let verb = weighted(
            &mut self.rng,
            &[
                (20, "copy"),
                (5, "zero"),
                (minor, "cont"),
                (14, "wp"),
                (2, "poison"),
                (3, "wake"),
                (2, "unreg"),
            ],
        );
        let mode = self.mode(&[(12, 0), (1, 1), (2, 2)]);
        self.push(match verb {
            "copy" => format!("m: copy {channel} {place} {pattern} {length} {mode}"),
            "wp" => format!("m: wp {channel} {place} {length} {}", mode & 2),
            "wake" | "unreg" => format!("m: {verb} {channel} {place} {length}"),
            _ => format!("m: {verb} {channel} {place} {length} {mode}"),
        });
        self.picture.resolve(range);
    }

    pub(super) fn pattern(&mut self, huge: bool) -> String {
        if huge {
            format!("hpat{}", self.rng.below(2))
        } else {
            format!("pat{}", self.rng.below(16))
        }
    }

    pub(super) fn kernel_touch(&mut self) {
        let (Some((who, name)), range) = (self.toucher(), self.range()) else {
            return;
        };
        let step = match self.rng.below(4) {
            0 => format!("sysread {}", range.start()),
            1 => format!("syswrite {}", range.start()),
            2 => format!("vmread {} {}", range.start(), range.pages.min(8)),
            _ => format!("vmwrite {} {}", range.start(), range.pages.min(8)),
        };
        self.push(format!("{name}: {step}"));
        let owner = self
            .picture
            .region_of(range.huge, range.at)
            .and_then(|region| region.registered);
        if let Some((channel, _)) = owner
            && self.chance(50)
        {
            self.picture.waits[who] = Some(Wait::Page {
                huge: range.huge,
                page: range.at,
                channel,
            });
        }
    }

    pub(super) fn read(&mut self) {
        let channel = self.channel();
        self.read_from(channel);
    }

    pub(super) fn read_from(&mut self, channel: usize) {
        let more = self.pick(&["", "", "", "", " 2", " 8", " 8"]);
        let more = if self.chance(self.setting.spoilt / 2) {
            self.pick(&[" short", " bad"])
        } else {
            more
        };
        self.push(format!("m: read {channel}{more}"));
        if let Some(wait) = self
            .picture
            .waits
            .iter_mut()
            .find(|wait| **wait == Some(Wait::Event { channel }))
        {
            *wait = None;
            // It may have been a fork's.
            if let Some(own) = self.picture.channels[channel]
                && fork_waits(own.features)
                && let Some(free) = self.picture.channels[OWN_CHANNELS..]
                    .iter_mut()
                    .find(|open| open.is_none())
            {
                *free = Some(own);
            }
        }
    }

    pub(super) fn poll(&mut self) {
        let channel = self.channel();
        self.push(format!("m: poll {channel}"));
    }
}
