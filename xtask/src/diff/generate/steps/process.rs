//! Forks, signals, and channels that come and go.

use super::super::Maker;
use super::super::picture::{CHANNELS, CHILDREN, Channel, OWN_CHANNELS, WORKERS, Wait};
use super::super::setting::{self, fork_waits};

impl Maker {
    pub(super) fn fork(&mut self) {
        if !self.setting.forks {
            return self.touch();
        }
        let Some(who) = self.worker() else { return };
        let free: Vec<usize> = (0..CHILDREN)
            .filter(|child| !self.picture.children[*child])
            .collect();
        if free.is_empty() {
            return self.kill();
        }
        let child = self.pick(&free);
        self.push(format!("t{who}: fork {child}"));
        self.picture.children[child] = true;
        let channel = (0..CHANNELS)
            .find(|index| self.picture.channels[*index].is_some_and(|open| fork_waits(open.features)));
        if let Some(channel) = channel {
            self.picture.waits[who] = Some(Wait::Event { channel });
        }
    }

    pub(super) fn kill(&mut self) {
        let child = self.rng.below(CHILDREN as u64) as usize;
        if self.picture.children[child] {
            self.push(format!("m: kill {child}"));
            self.picture.children[child] = false;
            self.picture.waits[WORKERS + child] = None;
        }
    }

    pub(super) fn signal(&mut self) {
        let worker = self.rng.below(WORKERS as u64);
        self.push(format!("m: signal t{worker}"));
    }

    pub(super) fn open_channel(&mut self, channel: usize) {
        let (flags, features) = setting::channel(&mut self.rng);
        self.push(format!("m: uffd {channel} {flags:#x} {features:#x}"));
        self.picture.channels[channel] = Some(Channel { features });
    }

    pub(super) fn open(&mut self) {
        let closed: Vec<usize> = (0..OWN_CHANNELS)
            .filter(|index| self.picture.channels[*index].is_none())
            .collect();
        if closed.is_empty() {
            return self.poll();
        }
        let channel = self.pick(&closed);
        if self.chance(80) {
            return self.open_channel(channel);
        }
        // Not initialised, or with something wrong.
        let flags = self.pick(&[0, 0x800, 0x801, 0x2, 0x80802]);
        self.push(format!("m: uffd {channel} {flags:#x}"));
        self.picture.channels[channel] = Some(Channel { features: 0 });
    }

    pub(super) fn api(&mut self) {
        let channel = self.channel();
        let api = self.pick(&[0xaa, 0xaa, 0xab, 0]);
        let features = self.pick(&[0_u64, 0x100, 0x20000, 1 << 63]);
        self.push(format!("m: api {channel} {api:#x} {features:#x}"));
    }

    pub(super) fn close(&mut self) {
        let channel = self.channel();
        let actor = self.monitor();
        self.push(format!("{actor}: close {channel}"));
        if actor == "m" {
            self.picture.close(channel);
        }
        if (0..OWN_CHANNELS).all(|index| self.picture.channels[index].is_none()) {
            self.open_channel(channel % OWN_CHANNELS);
        }
    }
}
