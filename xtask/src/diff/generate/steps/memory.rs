//! Mappings, their contents, and the files behind them.

use super::super::picture::{HUGE_PAGES, PAGES, Range, Region, Wait};
use super::super::setting::EVENTS;
use super::super::{Maker, weighted};

impl Maker {
    pub(super) fn map(&mut self) {
        let kinds = self.setting.kinds.clone();
        let kind = self.pick(&kinds);
        if let Some(file) = kind.file
            && self.picture.files[file].is_none()
        {
            let pages = if kind.huge {
                2
            } else {
                4 + self.rng.below(13) as usize
            };
            let huge = if kind.huge { " huge" } else { "" };
            self.push(format!("m: memfd {file} {}{huge}", Range::len(kind.huge, pages)));
            self.picture.files[file] = Some(pages);
        }
        let pages = if kind.huge {
            1 + self.rng.below(2) as usize
        } else {
            1 + self.rng.below(12) as usize
        };
        let slots = if kind.huge { HUGE_PAGES / 3 } else { PAGES / 16 } as u64;
        let slot = self.rng.below(slots) as usize;
        let at = if kind.huge {
            slot * 3
        } else {
            slot * 16 + self.pick(&[0, 0, 0, 2, 8])
        };
        let prot = weighted(&mut self.rng, &[(20, "rw"), (2, "r"), (1, "none")]);
        let offset = match kind.file {
            Some(_) if self.chance(20) => {
                format!(" {}", Range::len(kind.huge, 1 + self.rng.below(2) as usize))
            }
            _ => String::new(),
        };
        let range = Range {
            huge: kind.huge,
            at,
            pages,
        };
        let Some((who, name)) = self.caller() else { return };
        let place = (range.start(), range.length());
        self.push(format!(
            "{name}: map {} {} {} {prot}{offset}",
            place.0, place.1, kind.word
        ));
        self.may_wait(who, range, 0x40);
        self.picture.cut(range);
        self.picture.regions.push(Region {
            range,
            kind,
            registered: None,
        });
    }

    pub(super) fn unmap(&mut self) {
        let (range, Some((who, name))) = (self.range(), self.caller()) else {
            return;
        };
        let (at, length) = self.near_words(range);
        self.push(format!("{name}: unmap {at} {length}"));
        self.may_wait(who, range, 0x40);
        self.picture.cut(range);
    }

    pub(super) fn protect(&mut self) {
        let (range, Some((_, name))) = (self.range(), self.caller()) else {
            return;
        };
        let (at, length) = self.near_words(range);
        let prot = weighted(&mut self.rng, &[(5, "rw"), (3, "r"), (1, "none"), (1, "rx")]);
        self.push(format!("{name}: protect {at} {length} {prot}"));
    }

    pub(super) fn remap(&mut self) {
        let (Some(region), Some((who, name))) = (self.region(), self.caller()) else {
            return;
        };
        let from = self.range_in(&region);
        let (at, old) = self.near_words(from);
        let grown = match self.rng.below(5) {
            0 => from.pages + 1 + self.rng.below(3) as usize,
            1 => from.pages.saturating_sub(1),
            _ => from.pages,
        };
        let new = Range::len(from.huge, grown);
        let slots = if from.huge { HUGE_PAGES } else { PAGES };
        let to = Range {
            huge: from.huge,
            at: self.rng.below((slots - 3) as u64) as usize,
            pages: grown,
        };
        let flags = weighted(&mut self.rng, &[(3, 0), (8, 3), (4, 7), (1, 2)]);
        if flags == 0 {
            self.push(format!("{name}: remap {at} {old} {new} 0"));
            self.may_wait(who, from, 0x40);
            return;
        }
        self.push(format!("{name}: remap {at} {old} {new} {flags} {}", to.start()));
        self.may_wait(who, from, EVENTS);
        let registered = region.registered.filter(|(channel, _)| {
            self.picture.channels[*channel].is_some_and(|open| open.features & 0x4 != 0)
        });
        if flags != 7 {
            self.picture.cut(from);
        }
        self.picture.cut(to);
        if grown > 0 {
            self.picture.regions.push(Region {
                range: to,
                kind: region.kind,
                registered,
            });
        }
    }

    pub(super) fn advise(&mut self) {
        let (range, Some((who, name))) = (self.range(), self.caller()) else {
            return;
        };
        let (at, length) = self.near_words(range);
        let advice = weighted(
            &mut self.rng,
            &[
                (16, "dontneed"),
                (4, "free"),
                (8, "remove"),
                (4, "popread"),
                (4, "popwrite"),
                (2, "dontfork"),
                (1, "dofork"),
                (1, "wipeonfork"),
                (1, "keeponfork"),
                (1, "cold"),
                (1, "willneed"),
                (1, "dontneed_locked"),
                (4, "guard"),
                (2, "unguard"),
                (1, "unknown"),
            ],
        );
        // Over the write-protect markers of a file Linux tries to install a guard for ever.
        let of_file = |region: &Region| region.range.huge == range.huge && region.kind.word != "anon";
        let advice = if advice == "guard" && self.picture.regions.iter().any(of_file) {
            "unguard"
        } else {
            advice
        };
        self.push(format!("{name}: advise {at} {length} {advice}"));
        match advice {
            "dontneed" | "free" | "remove" | "dontneed_locked" => self.may_wait(who, range, 0x8),
            "popread" | "popwrite" => {
                let owner = self
                    .picture
                    .region_of(range.huge, range.at)
                    .and_then(|region| region.registered);
                if let Some((channel, _)) = owner {
                    self.picture.waits[who] = Some(Wait::Page {
                        huge: range.huge,
                        page: range.at,
                        channel,
                    });
                }
            }
            _ => {}
        }
    }

    pub(super) fn lock(&mut self) {
        let (range, Some((_, name))) = (self.range(), self.caller()) else {
            return;
        };
        let (at, length) = self.near_words(range);
        let verb = self.pick(&["lock", "unlock"]);
        self.push(format!("{name}: {verb} {at} {length}"));
    }

    /// A file that exists.
    pub(super) fn existing_file(&mut self) -> Option<(usize, usize, bool)> {
        let files: Vec<(usize, usize)> = self
            .picture
            .files
            .iter()
            .enumerate()
            .filter_map(|(file, pages)| Some((file, (*pages)?)))
            .collect();
        let (file, pages) = (!files.is_empty()).then(|| self.pick(&files))?;
        Some((file, pages, file == 2))
    }

    pub(super) fn file(&mut self) {
        let Some((file, pages, huge)) = self.existing_file() else {
            return;
        };
        let page = self.rng.below(pages as u64 + 1) as usize;
        let offset = Range::len(huge, page);
        let step = match self.rng.below(8) {
            0..5 if !huge => format!("put {file} {offset}"),
            5 => format!("get {file} {offset}"),
            // Keeps the size: punches a hole.
            6 => format!(
                "fallocate {file} 3 {offset} {}",
                Range::len(huge, 1 + self.rng.below(3) as usize)
            ),
            _ => format!("fallocate {file} 0 {offset} {}", Range::len(huge, 1)),
        };
        self.push(format!("m: {step}"));
    }

    pub(super) fn resize(&mut self) {
        let Some((file, pages, huge)) = self.existing_file() else {
            return;
        };
        let pages = if huge {
            1 + self.rng.below(2)
        } else {
            self.rng.below(pages as u64 + 6)
        };
        self.push(format!("m: truncate {file} {}", Range::len(huge, pages as usize)));
    }
}
