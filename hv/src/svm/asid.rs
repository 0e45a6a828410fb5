//! Address-space identifiers: the tags of what the TLB caches for guests (APM vol. 2, 15.16).
//!
//! A CPU hands its identifiers out in series. A vCPU keeps the one that it has; if that is of an earlier series, or of another
//! CPU, it gets a fresh one, under which nothing is cached. At the end of a series everything is flushed and the next begins.
//! To drop what is cached for one vCPU, VMRUN flushes its identifier, or, where the CPU cannot do that, it gets a fresh one.
//!
//! Whoever calls has the CPU for itself.

use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

use kernel::arch::MAX_CPUS;

use super::detect::Found;

/// TLB_CONTROL: what VMRUN flushes (15.16.2).
pub mod tlb_control {
    pub const NOTHING: u32 = 0;
    pub const EVERYTHING: u32 = 1;
    pub const THIS_GUEST: u32 = 3;
}

/// The identifiers of one CPU.
#[derive(Debug)]
pub struct Asids {
    /// The current series, never that of another CPU: the CPU's number, and a multiple of [`MAX_CPUS`] that is not 0.
    series: AtomicU64,
    /// The identifier that was handed out last.
    last: AtomicU32,
    /// How many there are, with 0, which is the host's.
    count: AtomicU32,
    can_flush_one: AtomicBool,
}

/// The identifier of a vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tag {
    /// Of which series; 0: it has none yet.
    series: u64,
    /// Which one.
    pub asid: u32,
}

impl Asids {
    /// None: the CPU is not enabled.
    pub const fn new() -> Self {
        Self {
            series: AtomicU64::new(0),
            last: AtomicU32::new(0),
            count: AtomicU32::new(0),
            can_flush_one: AtomicBool::new(false),
        }
    }

    /// Those of CPU `cpu`, which has what was found; again does nothing. The first one that is handed out flushes what
    /// firmware may have left behind: a series is at its end.
    pub fn start(&self, cpu: usize, found: &Found) {
        if self.series.load(Relaxed) == 0 {
            self.series.store((MAX_CPUS + cpu) as u64, Relaxed);
            self.last.store(found.asids - 1, Relaxed);
            self.count.store(found.asids, Relaxed);
            self.can_flush_one.store(found.flush_by_asid, Relaxed);
        }
    }

    /// What VMRUN has to flush for a vCPU that keeps its identifier, so that with `flush` nothing of before is used. `None`: it
    /// cannot keep it.
    #[inline]
    pub fn keep(&self, tag: &Tag, flush: bool) -> Option<u32> {
        if tag.series != self.series.load(Relaxed) {
            None
        } else if !flush {
            Some(tlb_control::NOTHING)
        } else {
            self.can_flush_one
                .load(Relaxed)
                .then_some(tlb_control::THIS_GUEST)
        }
    }

    /// A fresh identifier, and what VMRUN has to flush so that nothing is cached under it.
    #[cold]
    pub fn fresh(&self) -> (Tag, u32) {
        let next = self.last.load(Relaxed) + 1;
        let (asid, control) = if next < self.count.load(Relaxed) {
            (next, tlb_control::NOTHING)
        } else {
            self.series.fetch_add(MAX_CPUS as u64, Relaxed);
            (1, tlb_control::EVERYTHING)
        };
        self.last.store(asid, Relaxed);
        let series = self.series.load(Relaxed);
        (Tag { series, asid }, control)
    }
}

#[cfg(test)]
mod tests {
    use super::tlb_control::*;
    use super::*;

    fn cpu(number: usize, asids: u32, flush_by_asid: bool) -> Asids {
        let cpu = Asids::new();
        cpu.start(
            number,
            &Found {
                asids,
                flush_by_asid,
                leaves_1g: false,
                physical_bits: 48,
                switched_off: false,
            },
        );
        cpu
    }

    #[test]
    fn first_identifier_flushes_everything_and_the_next_ones_nothing() {
        let cpu = cpu(0, 4, true);
        assert_eq!(cpu.keep(&Tag::default(), false), None, "a new vCPU has none");
        let handed: [_; 5] = core::array::from_fn(|_| {
            let (tag, control) = cpu.fresh();
            assert_eq!(cpu.keep(&tag, false), Some(NOTHING));
            (tag.asid, control)
        });
        let expected = [
            (1, EVERYTHING),
            (2, NOTHING),
            (3, NOTHING),
            (1, EVERYTHING),
            (2, NOTHING),
        ];
        assert_eq!(handed, expected, "0 is the host's");
    }

    #[test]
    fn identifiers_of_an_earlier_series_are_worth_nothing() {
        let cpu = cpu(3, 2, true);
        let (old, _) = cpu.fresh();
        let (new, control) = cpu.fresh();
        assert_eq!((old.asid, new.asid, control), (1, 1, EVERYTHING));
        assert_eq!(cpu.keep(&old, false), None);
        assert_eq!(cpu.keep(&new, false), Some(NOTHING));
    }

    #[test]
    fn identifiers_of_another_cpu_are_worth_nothing() {
        let cpus = [cpu(0, 2, true), cpu(1, 2, true)];
        for _ in 0..3 * MAX_CPUS {
            let [(first, _), (second, _)] = [cpus[0].fresh(), cpus[1].fresh()];
            assert_eq!(cpus[1].keep(&first, false), None);
            assert_eq!(cpus[0].keep(&second, false), None);
        }
    }

    #[test]
    fn flush_is_of_one_identifier_where_the_cpu_can_and_else_by_a_fresh_one() {
        let able = cpu(0, 8, true);
        let (tag, _) = able.fresh();
        assert_eq!(able.keep(&tag, true), Some(THIS_GUEST));
        let unable = cpu(0, 8, false);
        let (tag, _) = unable.fresh();
        assert_eq!(unable.keep(&tag, true), None);
        assert_ne!(unable.fresh().0, tag);
    }

    #[test]
    fn starting_again_takes_nothing_back() {
        let cpu = cpu(0, 4, true);
        let (tag, _) = cpu.fresh();
        cpu.start(
            0,
            &Found {
                asids: 9,
                flush_by_asid: false,
                leaves_1g: false,
                physical_bits: 48,
                switched_off: false,
            },
        );
        assert_eq!(cpu.keep(&tag, true), Some(THIS_GUEST));
    }
}
