//! The handshake, what a fresh context refuses, and what contexts offer that look like older releases of Linux. What is said
//! of 6.18 was checked there. Each test is named after what it claims.

#[path = "../common/mod.rs"]
mod common;

mod handshake;
mod memory;
mod releases;
mod shown;

use common::{RW, World};
use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::space::Memory;
use kernel::uffd::api::API_VERSION;
use kernel::uffd::linux;
use kernel::uffd::{
    Event, Features, FillMode, Flags, Handshake, Modes, ReadError, RegisterError, Release, Uffd,
};

const P: u64 = PAGE_SIZE;
const NOW: FillMode = FillMode::empty();
const HUGE: u64 = 512;
const NOTHING: Result<Event, ReadError> = Err(ReadError::WouldBlock);

fn wanting(features: Features) -> Handshake {
    Handshake {
        api: API_VERSION,
        features,
        may_trace: false,
    }
}

fn fresh(world: &World, release: &'static Release) -> Uffd {
    Uffd::open(&world.space, Flags::empty(), release).expect("no flags")
}

/// A context that looks like `release`, ready and with no features.
fn ready(world: &World, release: &'static Release) -> Uffd {
    let uffd = fresh(world, release);
    assert!(uffd.api(wanting(Features::empty())).is_ok());
    uffd
}

/// What registering `pages` of `memory` in each mode from 1 to 7 answers: the ioctls that Linux names, or the error.
fn rows(
    world: &World,
    release: &'static Release,
    memory: &Memory,
    pages: u64,
) -> [Result<u64, RegisterError>; 7] {
    core::array::from_fn(|i| {
        let modes = Modes::from_bits_truncate(i as u8 + 1);
        let range = world.map_memory(memory.clone(), None, pages, RW);
        let uffd = ready(world, release);
        let answer = uffd.register_areas(range, modes);
        drop(uffd);
        world.space.unmap(range).expect("mapped");
        answer.map(|found| linux::register_ioctls(release, modes, found.basic).bits())
    })
}
