//! Memory of every kind, registered, and what its entries say.

use std::sync::Arc;

use kernel::mm::addr::{PAGE_SIZE, VirtAddr};
use kernel::mm::cache::Object;
use kernel::mm::memtype::anon::ANON;
use kernel::mm::memtype::hugetlb::HUGETLB;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::memtype::{Class, MemType, Privately};
use kernel::mm::pt::{AttrFlags, Entry, Marker};
use kernel::mm::range::VirtRange;
use kernel::mm::space::{MapOptions, MapRequest, Memory, Space};
use kernel::mm::uaccess;
use kernel::mm::vma::VmaFlags;
use kernel::task::State as TaskState;
use kernel::task::spawn::JoinHandle;
use kernel::uffd::{Features, FillMode, Modes, Outcome, Uffd};

use super::{RW, World, eventually, object_world};

/// Memory like that of a file of a disk file system, of SysV shared memory, of guests: registered for WP_ASYNC on Linux, and
/// in no other way.
pub static FILE: MemType = MemType {
    name: "file",
    class: Class::File,
    privately: Privately::Itself,
    fixed_size: false,
    guest_only: false,
    pool: None,
    uffd: None,
};

/// How memory is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Anon,
    Shmem,
    PrivateShmem,
    Huge,
    PrivateHuge,
}

impl Kind {
    pub const ALL: [Self; 5] = [
        Self::Anon,
        Self::Shmem,
        Self::PrivateShmem,
        Self::Huge,
        Self::PrivateHuge,
    ];
    pub const OBJECTS: [Self; 4] = [Self::Shmem, Self::PrivateShmem, Self::Huge, Self::PrivateHuge];
    pub const SMALL: [Self; 3] = [Self::Anon, Self::Shmem, Self::PrivateShmem];
    pub const LARGE: [Self; 2] = [Self::Huge, Self::PrivateHuge];

    pub fn ty(self) -> &'static MemType {
        match self {
            Self::Anon => &ANON,
            Self::Shmem | Self::PrivateShmem => &SHMEM,
            Self::Huge | Self::PrivateHuge => &HUGETLB,
        }
    }

    pub fn granule(self) -> u64 {
        self.ty().granule().size()
    }

    pub fn is_shared(self) -> bool {
        matches!(self, Self::Shmem | Self::Huge)
    }

    pub fn is_large(self) -> bool {
        self.granule() > PAGE_SIZE
    }

    /// Maps so much of an object of the kind, if it has objects.
    pub fn memory(self, object: Option<&Arc<Object>>) -> Memory {
        match object {
            None => Memory::Own(self.ty()),
            Some(object) if self.is_shared() => Memory::shared(object),
            Some(object) => Memory::private(object),
        }
    }
}

/// What an entry says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    Empty,
    Page,
    WpPage,
    WpMarker,
    Poison,
    Guard,
}

/// What the entry of `addr` says.
pub fn seen(space: &Space, addr: VirtAddr) -> Seen {
    match space.entry(addr).0 {
        Entry::Leaf(leaf) if leaf.attr.flags.contains(AttrFlags::UFFD_WP) => Seen::WpPage,
        Entry::Leaf(_) => Seen::Page,
        Entry::Absent(Marker::None) => Seen::Empty,
        Entry::Absent(Marker::UffdWp) => Seen::WpMarker,
        Entry::Absent(Marker::Poison) => Seen::Poison,
        Entry::Absent(Marker::Guard) => Seen::Guard,
        Entry::Table(_) => unreachable!("a lookup ends at a leaf or an absent entry"),
    }
}

/// A page that was stored to, one that is protected too, a protected hole, poison, and a guard.
pub const STATES: [Seen; 5] = [
    Seen::Page,
    Seen::WpPage,
    Seen::WpMarker,
    Seen::Poison,
    Seen::Guard,
];

/// Granules of one kind, mapped side by side and registered. Fields are dropped in this order: the machine last, which
/// counts frames.
pub struct Bed {
    pub object: Option<Arc<Object>>,
    pub uffd: Arc<Uffd>,
    pub range: VirtRange,
    pub kind: Kind,
    pub world: World,
}

impl Bed {
    pub fn new(kind: Kind, granules: u64, modes: Modes, features: Features) -> Self {
        let bed = Self::unregistered(kind, granules, features);
        bed.uffd.register(bed.range, modes).expect("the type can");
        bed
    }

    /// With a context that nothing is registered with.
    pub fn unregistered(kind: Kind, granules: u64, features: Features) -> Self {
        let world = object_world();
        let len = granules * kind.granule();
        let object = (kind != Kind::Anon).then(|| Object::new(kind.ty(), len));
        let range = map(&world, kind.memory(object.as_ref()), None, len);
        let uffd = Arc::new(Uffd::new(&world.space, features));
        Self {
            object,
            uffd,
            range,
            kind,
            world,
        }
    }

    /// Registered for write protection, with [`STATES`] in its granules; large pages have no guard.
    pub fn with_states(kind: Kind, features: Features) -> Self {
        let bed = Self::new(kind, STATES.len() as u64, Modes::WP, features);
        for (i, state) in (0..).zip(STATES) {
            if state != Seen::Guard || !kind.is_large() {
                bed.prepare(i, state);
            }
        }
        bed
    }

    pub fn space(&self) -> &Arc<Space> {
        &self.world.space
    }

    /// The address of granule number `index`.
    pub fn at(&self, index: u64) -> VirtAddr {
        self.range.start + index * self.kind.granule()
    }

    /// Granule number `index` and the `count - 1` after it.
    pub fn part(&self, index: u64, count: u64) -> VirtRange {
        VirtRange::new(self.at(index), self.at(index + count))
    }

    /// Granule number `index`.
    pub fn one(&self, index: u64) -> VirtRange {
        self.part(index, 1)
    }

    /// What the entry of granule number `index` says.
    pub fn seen(&self, index: u64) -> Seen {
        seen(self.space(), self.at(index))
    }

    /// What each granule of [`Self::with_states`] says, `Guard` for the one that cannot have any.
    pub fn states(&self) -> [Seen; 5] {
        self.states_at(self.range)
    }

    /// The same of granules that are somewhere else now.
    pub fn states_at(&self, range: VirtRange) -> [Seen; 5] {
        [0, 1, 2, 3, 4].map(|i| match i {
            4 if self.kind.is_large() => Seen::Guard,
            _ => seen(self.space(), range.start + i * self.kind.granule()),
        })
    }

    /// Stores a word into granule number `index`, which nothing traps.
    pub fn store(&self, index: u64, word: u64) {
        self.world
            .run(|| uaccess::store(self.at(index), word))
            .expect("nothing stops it");
    }

    /// Loads the word at the start of granule number `index`, which nothing traps.
    pub fn load(&self, index: u64) -> u64 {
        self.world
            .run(|| uaccess::load(self.at(index)))
            .expect("nothing stops it")
    }

    /// Brings granule number `index` of memory that is registered for write protection into a state.
    pub fn prepare(&self, index: u64, state: Seen) {
        let one = self.one(index);
        match state {
            Seen::Empty => {}
            Seen::Page => self.store(index, index + 1),
            Seen::WpPage => {
                self.store(index, index + 1);
                assert_eq!(self.uffd.write_protect(one), Ok(()));
            }
            Seen::WpMarker => assert_eq!(self.uffd.write_protect(one), Ok(())),
            Seen::Poison => assert_eq!(self.uffd.poison(one, FillMode::empty()), Outcome::Done),
            Seen::Guard => assert_eq!(self.space().install_guards(one), Ok(())),
        }
        assert_eq!(self.seen(index), state, "{:?}", self.kind);
    }

    /// Starts a task that does something to the space.
    pub fn spawn<T: Send + 'static>(&self, f: impl FnOnce(&Space) -> T + Send + 'static) -> JoinHandle<T> {
        let space = Arc::clone(self.space());
        self.world.spawn("caller", move || f(&space))
    }
}

/// Maps memory; huge pages are not promised beforehand, so that there may be fewer.
pub fn map(world: &World, memory: Memory, at: Option<VirtAddr>, len: u64) -> VirtRange {
    let request = MapRequest {
        at,
        len,
        prot: RW,
        memory,
    };
    let options = MapOptions {
        flags: VmaFlags::NO_RESERVE,
        ..MapOptions::default()
    };
    world.space.map_with(request, options).expect("there is room")
}

/// Waits until the task sleeps until its event is read.
#[track_caller]
pub fn until_it_announces<T>(task: &JoinHandle<T>) {
    eventually("the task waits for its event to be read", || {
        task.task().event.is_queued() && task.task().state() == TaskState::Parked
    });
}
