//! Random operations of a host and of a guest with two vCPUs on three slots, against a model: an array of words.
//!
//! | slot | backing | what the host does |
//! | --- | --- | --- |
//! | [`Area::Own`] | anonymous memory of the space | stores, discards, protects, forks |
//! | [`Area::Shared`] | the space's mapping of an object | stores, punches |
//! | [`Area::Direct`] | an object, with a userfault bitmap | stores through a mapping, writes, punches, delegates, fills |
//!
//! After every step each leaf of the stage-2 tables is looked at: it leads where the backing of its slot has the page at this
//! moment, and allows no more than that does. The software CPU fails the test when it goes by a stale translation.

#[path = "../common/mod.rs"]
mod common;
mod model;
mod play;

use proptest::prelude::*;

/// Pages of each area.
const PAGES: u64 = 4;

/// The areas, and the slots that show them to the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Area {
    /// Anonymous memory of the space.
    Own = 0,
    /// An object that the space maps.
    Shared = 1,
    /// An object by itself.
    Direct = 2,
}

/// A page of an area.
#[derive(Clone, Copy, Debug)]
struct At {
    area: Area,
    page: u64,
}

/// An operation.
#[derive(Clone, Copy, Debug)]
enum Op {
    GuestLoad {
        vcpu: usize,
        at: At,
    },
    GuestStore {
        vcpu: usize,
        at: At,
        value: u64,
    },
    HostLoad(At),
    HostStore {
        at: At,
        value: u64,
    },
    /// DONTNEED where the space's own memory is, a hole punched elsewhere.
    Drop(At),
    /// Only where the space's own memory is.
    Protect {
        page: u64,
        writable: bool,
    },
    /// The host has a child, or another one, from now on.
    Fork,
    /// The child goes.
    EndChild,
    Remove(Area),
    Add {
        area: Area,
        read_only: bool,
        log_dirty: bool,
    },
    ReadOnly {
        area: Area,
        on: bool,
    },
    Log {
        area: Area,
        on: bool,
    },
    TakeDirty(Area),
    Delegate(u64),
    ClearBit(u64),
    Copy {
        page: u64,
        value: u64,
    },
    Continue(u64),
    Poison(u64),
}

fn area() -> impl Strategy<Value = Area> {
    prop_oneof![Just(Area::Own), Just(Area::Shared), Just(Area::Direct)]
}

fn at() -> impl Strategy<Value = At> {
    (area(), 0..PAGES).prop_map(|(area, page)| At { area, page })
}

fn op() -> impl Strategy<Value = Op> {
    let page = 0..PAGES;
    // Small, so that none looks like an address, and never that of a fresh page.
    let value = 1..1000u64;
    prop_oneof![
        8 => (0..2usize, at()).prop_map(|(vcpu, at)| Op::GuestLoad { vcpu, at }),
        8 => (0..2usize, at(), value.clone()).prop_map(|(vcpu, at, value)| Op::GuestStore { vcpu, at, value }),
        3 => at().prop_map(Op::HostLoad),
        4 => (at(), value.clone()).prop_map(|(at, value)| Op::HostStore { at, value }),
        4 => at().prop_map(Op::Drop),
        2 => (page.clone(), any::<bool>()).prop_map(|(page, writable)| Op::Protect { page, writable }),
        1 => Just(Op::Fork),
        1 => Just(Op::EndChild),
        1 => area().prop_map(Op::Remove),
        3 => (area(), any::<bool>(), any::<bool>())
            .prop_map(|(area, read_only, log_dirty)| Op::Add { area, read_only, log_dirty }),
        1 => (area(), any::<bool>()).prop_map(|(area, on)| Op::ReadOnly { area, on }),
        1 => (area(), any::<bool>()).prop_map(|(area, on)| Op::Log { area, on }),
        3 => area().prop_map(Op::TakeDirty),
        2 => page.clone().prop_map(Op::Delegate),
        2 => page.clone().prop_map(Op::ClearBit),
        2 => (page.clone(), value).prop_map(|(page, value)| Op::Copy { page, value }),
        2 => page.clone().prop_map(Op::Continue),
        1 => page.prop_map(Op::Poison),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_guest_with_ept_sees_what_the_model_says(
        ops in proptest::collection::vec(op(), 1..60),
        by_dirty_bit in any::<bool>(),
    ) {
        play::play::<hv::stage2::Ept>(&ops, by_dirty_bit);
    }

    #[test]
    fn a_guest_with_npt_sees_what_the_model_says(
        ops in proptest::collection::vec(op(), 1..60),
        by_dirty_bit in any::<bool>(),
    ) {
        play::play::<hv::stage2::Npt>(&ops, by_dirty_bit);
    }
}
