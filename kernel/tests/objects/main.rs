//! Memory objects: what is in them, what mappings see of it, and what becomes of both when it is taken away.

#[path = "../common/mod.rs"]
mod common;

mod allocating;
mod contents;
mod mappings;
mod quotas;
mod resizing;
mod views;

use std::sync::Arc;

use common::{RW, World, page, returned};
use kernel::mm::addr::{PAGE_SIZE, VirtAddr};
use kernel::mm::cache::Object;
use kernel::mm::fault::FaultError;
use kernel::mm::memtype::Granule;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::range::VirtRange;
use kernel::mm::space::{MapRequest, Memory, Space};
use kernel::mm::uaccess;
use kernel::task::spawn::spawn_returning;

const P: u64 = PAGE_SIZE;
const H: u64 = Granule::Huge.size();

/// A shared-memory object of so many pages and a mapping of all of it. The machine, which counts frames, goes last.
struct Bed {
    object: Arc<Object>,
    range: VirtRange,
    world: World,
}

impl Bed {
    fn new(pages: u64) -> Self {
        let world = World::new();
        let object = Object::new(&SHMEM, pages * P);
        let range = world.map_memory(Memory::shared(&object), None, pages, RW);
        Self { object, range, world }
    }

    fn privately(&self) -> VirtRange {
        let memory = Memory::private(&self.object);
        self.world.map_memory(memory, None, self.range.pages(), RW)
    }

    fn load(&self, index: u64) -> Result<u64, FaultError> {
        self.world.load(page(self.range, index))
    }

    fn store(&self, index: u64, value: u64) {
        assert_eq!(self.world.store(page(self.range, index), value), Ok(()));
    }
}

fn write(object: &Object, offset: u64, bytes: &[u8]) {
    assert_eq!(object.write(offset, bytes), (bytes.len() as u64, Ok(())));
}

fn read(object: &Object, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xEE; len];
    let got = object.read(offset, &mut bytes);
    bytes.truncate(got);
    bytes
}

fn map_in(space: &Arc<Space>, memory: Memory, pages: u64) -> VirtRange {
    let request = MapRequest {
        at: None,
        len: pages * P,
        prot: RW,
        memory,
    };
    space.map(request).expect("there is room")
}

/// Loads a word in a task of that space.
fn load_in(space: &Arc<Space>, addr: VirtAddr) -> Result<u64, FaultError> {
    let load = move || uaccess::load(addr).map_err(|error| error.why);
    returned(spawn_returning("other", Some(Arc::clone(space)), load).expect("the host has threads"))
}

fn store_in(space: &Arc<Space>, addr: VirtAddr, value: u64) -> Result<(), FaultError> {
    let store = move || uaccess::store(addr, value).map_err(|error| error.why);
    returned(spawn_returning("other", Some(Arc::clone(space)), store).expect("the host has threads"))
}
