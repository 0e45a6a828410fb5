//! What probably exists, and who probably waits. It is only as right as it needs to be for good guesses.

use super::setting::Kind;

/// Small pages of the arena.
pub const PAGES: usize = 8 * 16;
/// Huge pages of the arena.
pub const HUGE_PAGES: usize = 4 * 3;
/// Channels that a script opens itself; the others come with forks.
pub const OWN_CHANNELS: usize = 4;
/// Channels altogether.
pub const CHANNELS: usize = 8;
/// Threads that touch.
pub const WORKERS: usize = 4;
/// Forked children.
pub const CHILDREN: usize = 3;

/// A range of small or huge pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// Whether the pages are huge.
    pub huge: bool,
    /// The first page of the arena's.
    pub at: usize,
    /// How many.
    pub pages: usize,
}

impl Range {
    /// The player's word for a page of the arena.
    pub fn place(huge: bool, page: usize) -> String {
        let (first, slot) = if huge { (b'A', 3) } else { (b'a', 16) };
        // The end of the last slot is named as a page of it.
        let index = (page / slot).min(25);
        format!("{}{}", char::from(first + index as u8), page - index * slot)
    }

    /// The player's word for where it begins.
    pub fn start(&self) -> String {
        Self::place(self.huge, self.at)
    }

    /// The player's word for a length of so many pages.
    pub fn len(huge: bool, pages: usize) -> String {
        if huge {
            format!("{pages}h")
        } else {
            pages.to_string()
        }
    }

    /// The player's word for its length.
    pub fn length(&self) -> String {
        Self::len(self.huge, self.pages)
    }

    /// Whether the page lies in it.
    pub fn holds(&self, huge: bool, page: usize) -> bool {
        self.huge == huge && (self.at..self.at + self.pages).contains(&page)
    }
}

/// A mapping.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    /// Where.
    pub range: Range,
    /// Of what.
    pub kind: Kind,
    /// The channel it is registered with, and how.
    pub registered: Option<(usize, u64)>,
}

/// Why somebody probably waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// For a page.
    Page { huge: bool, page: usize, channel: usize },
    /// Until an event is read.
    Event { channel: usize },
}

/// A channel.
#[derive(Clone, Copy, Debug)]
pub struct Channel {
    /// Its features.
    pub features: u64,
}

/// What probably exists.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// Mappings, the latest last.
    pub regions: Vec<Region>,
    /// Open channels by number.
    pub channels: [Option<Channel>; CHANNELS],
    /// Pages of the files that exist.
    pub files: [Option<usize>; 3],
    /// What workers and children wait for, workers first.
    pub waits: [Option<Wait>; WORKERS + CHILDREN],
    /// Which children exist.
    pub children: [bool; CHILDREN],
    /// Whether huge pages were to be registered for write protection.
    pub protects_huge: bool,
}

/// The register mode of write protection.
const WP: u64 = 2;

impl Picture {
    /// Forgets what lies in the range.
    pub fn cut(&mut self, range: Range) {
        let mut left = Vec::new();
        for region in &self.regions {
            let (from, to) = (region.range.at, region.range.at + region.range.pages);
            if region.range.huge != range.huge || to <= range.at || range.at + range.pages <= from {
                left.push(*region);
                continue;
            }
            let mut keep = |at: usize, end: usize| {
                if at < end {
                    left.push(Region {
                        range: Range {
                            at,
                            pages: end - at,
                            ..region.range
                        },
                        ..*region
                    });
                }
            };
            keep(from, range.at);
            keep(range.at + range.pages, to);
        }
        self.regions = left;
    }

    /// What is mapped in the range is registered so from now on.
    pub fn register(&mut self, range: Range, registered: Option<(usize, u64)>) {
        let (start, end) = (range.at, range.at + range.pages);
        for region in self.regions.clone() {
            let (from, to) = (
                region.range.at.max(start),
                (region.range.at + region.range.pages).min(end),
            );
            if region.range.huge != range.huge || to <= from {
                continue;
            }
            let part = Range {
                huge: range.huge,
                at: from,
                pages: to - from,
            };
            self.cut(part);
            self.regions.push(Region {
                range: part,
                registered,
                ..region
            });
        }
    }

    /// The mode with which a range is registered. Huge pages are registered for write protection always from the first time
    /// on: where a new registration without it takes the place of one that has protected a page, Linux 6.18 lets the next
    /// store to that page fault for ever.
    pub fn kept_protection(&mut self, range: Range, mode: u64) -> u64 {
        if !range.huge {
            return mode;
        }
        self.protects_huge |= mode & WP != 0;
        if self.protects_huge { mode | WP } else { mode }
    }

    /// The mapping of a page.
    pub fn region_of(&self, huge: bool, page: usize) -> Option<&Region> {
        self.regions.iter().find(|region| region.range.holds(huge, page))
    }

    /// Those who wait for a page of the range are let go.
    pub fn resolve(&mut self, range: Range) {
        for wait in &mut self.waits {
            if let Some(Wait::Page { huge, page, .. }) = *wait
                && range.holds(huge, page)
            {
                *wait = None;
            }
        }
    }

    /// Closing a channel lets everybody go.
    pub fn close(&mut self, closed: usize) {
        self.channels[closed] = None;
        for wait in &mut self.waits {
            if let Some(Wait::Page { channel, .. } | Wait::Event { channel }) = *wait
                && channel == closed
            {
                *wait = None;
            }
        }
        for region in &mut self.regions {
            if region.registered.is_some_and(|(channel, _)| channel == closed) {
                region.registered = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(at: usize, pages: usize) -> Region {
        let kind = Kind {
            word: "anon",
            file: None,
            huge: false,
        };
        Region {
            range: Range {
                huge: false,
                at,
                pages,
            },
            kind,
            registered: Some((0, 1)),
        }
    }

    #[test]
    fn cutting_the_middle_leaves_both_ends() {
        let mut picture = Picture {
            regions: vec![region(4, 8)],
            ..Picture::default()
        };
        picture.cut(Range {
            huge: false,
            at: 6,
            pages: 2,
        });
        let left: Vec<_> = picture
            .regions
            .iter()
            .map(|region| (region.range.at, region.range.pages))
            .collect();
        assert_eq!(left, [(4, 2), (8, 4)]);
        picture.cut(Range {
            huge: true,
            at: 0,
            pages: 12,
        });
        assert_eq!(picture.regions.len(), 2);
    }

    #[test]
    fn a_part_of_a_mapping_can_be_registered() {
        let mut picture = Picture {
            regions: vec![region(4, 8)],
            ..Picture::default()
        };
        picture.register(
            Range {
                huge: false,
                at: 10,
                pages: 9,
            },
            Some((2, 3)),
        );
        assert_eq!(picture.region_of(false, 9).unwrap().registered, Some((0, 1)));
        assert_eq!(picture.region_of(false, 11).unwrap().registered, Some((2, 3)));
        assert!(picture.region_of(false, 12).is_none());
    }

    #[test]
    fn huge_pages_keep_their_write_protection() {
        let mut picture = Picture::default();
        let range = |huge| Range {
            huge,
            at: 0,
            pages: 1,
        };
        assert_eq!(picture.kept_protection(range(true), 1), 1);
        assert_eq!(picture.kept_protection(range(true), 6), 6);
        assert_eq!(picture.kept_protection(range(true), 1), 3);
        assert_eq!(picture.kept_protection(range(false), 1), 1);
    }

    #[test]
    fn a_closed_channel_holds_nobody_and_nothing() {
        let mut picture = Picture {
            regions: vec![region(0, 1)],
            ..Picture::default()
        };
        picture.waits[2] = Some(Wait::Event { channel: 0 });
        picture.waits[3] = Some(Wait::Event { channel: 1 });
        picture.close(0);
        assert_eq!(picture.waits[2], None);
        assert!(picture.waits[3].is_some());
        assert_eq!(picture.regions[0].registered, None);
    }

    #[test]
    fn places_have_the_names_that_the_player_knows() {
        assert_eq!(Range::place(false, 0), "a0");
        assert_eq!(Range::place(false, 127), "h15");
        assert_eq!(Range::place(true, 4), "B1");
    }
}
