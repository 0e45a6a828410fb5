//! Looks: at entries, mappings, and what has been written.

use super::super::Maker;

impl Maker {
    pub(super) fn looker(&mut self) -> String {
        match self.toucher() {
            Some((_, name)) if self.chance(40) => name,
            _ => "m".into(),
        }
    }

    pub(super) fn pagemap(&mut self) {
        let (range, actor) = (self.range(), self.looker());
        self.push(format!("{actor}: pagemap {} {}", range.start(), range.length()));
    }

    pub(super) fn vmas(&mut self) {
        let (range, actor) = (self.range(), self.looker());
        self.push(format!("{actor}: vmas {} {}", range.start(), range.length()));
    }

    pub(super) fn scan(&mut self) {
        let (range, actor) = (self.range(), self.looker());
        let flags = self.pick(&[0, 0, 0, 1, 2, 3, 4]);
        let inverted = self.pick(&[0, 0, 0, 2, 0x400]);
        let all = self.pick(&[0, 0, 2, 1, 8]);
        let any = self.pick(&[0, 0, 0xa, 2]);
        let wanted = self.pick(&[0x3, 0x2, 0x12f, 0x12f]);
        let (at, length) = (range.start(), range.length());
        self.push(format!(
            "{actor}: scan {at} {length} {flags} {inverted:#x} {all:#x} {any:#x} {wanted:#x}"
        ));
    }

    pub(super) fn incore(&mut self) {
        let range = self.range();
        if !range.huge {
            self.push(format!("m: incore {} {}", range.start(), range.length()));
        }
    }
}
