//! A world in which one operation is about to be made, and what can be seen of it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kernel::mm::addr::{PAGE_SIZE, Pfn, VirtAddr};
use kernel::mm::cache::{Lookup, Object};
use kernel::mm::frame::{Folio, Kind, allocator};
use kernel::mm::memtype::anon::ANON;
use kernel::mm::memtype::guest_memfd::GUEST_MEMFD;
use kernel::mm::memtype::hugetlb::HUGETLB;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::memtype::{Granule, MemType, Modes};
use kernel::mm::pt::{AttrFlags, Entry, Leaf, Marker, Prot};
use kernel::mm::range::VirtRange;
use kernel::mm::space::{MapRequest, Memory, Space};
use kernel::mm::uaccess;
use kernel::mm::vma::VmaFlags;
use kernel::task::spawn::JoinHandle;
use kernel::uffd::{Features, Uffd};

use crate::common::{RW, World, object_world, returned};

/// The middle of every range: an address at which tables of all levels end.
const BORDER: u64 = 3 << 39;

/// Memory of one type, mapped in one way.
#[derive(Clone, Copy)]
pub struct Sort {
    pub name: &'static str,
    pub ty: &'static MemType,
    how: How,
}

#[derive(Clone, Copy, PartialEq)]
enum How {
    Own,
    Shared,
    Private,
}

const fn sort(name: &'static str, ty: &'static MemType, how: How) -> Sort {
    Sort { name, ty, how }
}

pub const OWN: Sort = sort("anonymous", &ANON, How::Own);
pub const SHARED: Sort = sort("shared", &SHMEM, How::Shared);
pub const PRIVATE: Sort = sort("private mapping of shared", &SHMEM, How::Private);
pub const HUGE: Sort = sort("huge", &HUGETLB, How::Own);
pub const HUGE_SHARED: Sort = sort("shared huge", &HUGETLB, How::Shared);
pub const HUGE_PRIVATE: Sort = sort("private mapping of shared huge", &HUGETLB, How::Private);
pub const GUEST: Sort = sort("guest", &GUEST_MEMFD, How::Shared);

impl Sort {
    pub fn granule(self) -> u64 {
        self.ty.granule().size()
    }

    /// How many granules a range of it has.
    pub fn granules(self) -> u64 {
        match self.ty.granule() {
            Granule::Base => 40,
            Granule::Huge => 2,
        }
    }

    /// Everything that can be trapped.
    pub fn modes(self) -> Modes {
        self.ty.uffd.expect("all of these can be registered").modes
    }

    fn memory(self, object: Option<&Arc<Object>>) -> Memory {
        match object {
            None => Memory::Own(self.ty),
            Some(object) if self.how == How::Shared => Memory::shared(object),
            Some(object) => Memory::private(object),
        }
    }
}

/// A world with one range of memory of some sort. Fields are dropped in this order: the machine last, which counts frames.
pub struct Scene {
    pub child: RefCell<Option<Arc<Space>>>,
    pub uffd: Arc<Uffd>,
    pub object: Option<Arc<Object>>,
    pub sort: Sort,
    pub range: VirtRange,
    /// Anonymous memory of the same length elsewhere.
    pub aside: VirtRange,
    /// Where nothing is mapped.
    pub gap: VirtRange,
    reader: Option<JoinHandle<()>>,
    pub world: World,
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.take() {
            self.uffd.close();
            returned(reader);
        }
    }
}

impl Scene {
    /// With nothing in the memory and nothing registered.
    pub fn bare(sort: Sort) -> Self {
        Self::with(sort, Features::WP_UNPOPULATED)
    }

    pub fn with(sort: Sort, features: Features) -> Self {
        let scene = Self::unmapped_with(sort, features);
        let request = MapRequest {
            at: Some(scene.range.start),
            len: scene.range.len(),
            prot: RW,
            memory: sort.memory(scene.object.as_ref()),
        };
        scene.space().map(request).expect("nothing is there");
        scene
    }

    /// With the range not mapped.
    pub fn unmapped(sort: Sort) -> Self {
        Self::unmapped_with(sort, Features::empty())
    }

    fn unmapped_with(sort: Sort, features: Features) -> Self {
        let world = object_world();
        let len = sort.granules() * sort.granule();
        let object = (sort.how != How::Own).then(|| Object::new(sort.ty, len));
        let range = VirtRange::new(VirtAddr::new(BORDER - len / 2), VirtAddr::new(BORDER + len / 2));
        let aside = world.map_at(Some(VirtAddr::new(1 << 30)), sort.granules(), RW);
        let gap = VirtRange::new(VirtAddr::new(2 << 30), VirtAddr::new((2 << 30) + len));
        let uffd = Arc::new(Uffd::new(&world.space, features));
        Self {
            child: RefCell::default(),
            uffd,
            object,
            sort,
            range,
            aside,
            gap,
            reader: None,
            world,
        }
    }

    /// With a monitor that reads whatever it is told. The context of a child stays open as long as the scene.
    pub fn read(mut self) -> Self {
        let uffd = Arc::clone(&self.uffd);
        let read_all = move || {
            let _kept: Vec<_> = std::iter::from_fn(|| uffd.read_event().ok()).collect();
        };
        self.reader = Some(self.world.spawn("reader", read_all));
        self
    }

    /// With so many areas that there is no room for another without an allocation.
    pub fn crowded(self) -> Self {
        let areas = self.space().areas().len() as u64;
        // Vectors grow by powers of two.
        for i in areas..areas.next_power_of_two().max(4) {
            self.world
                .map_at(Some(VirtAddr::new((3 << 30) + 2 * i * PAGE_SIZE)), 1, RW);
        }
        self
    }

    /// The same, registered for everything.
    pub fn registered(self) -> Self {
        let modes = self.sort.modes();
        self.uffd.register(self.range, modes).expect("the type can");
        self
    }

    /// With a page in every granule of the range, and a number in each.
    pub fn full(self) -> Self {
        self.number(self.range, self.sort.granule());
        self
    }

    /// With pages in the object's cache, which the range does not map.
    pub fn cached(self) -> Self {
        let object = self.object.as_ref().expect("the sort has an object");
        let request = MapRequest {
            at: None,
            len: self.range.len(),
            prot: RW,
            memory: Memory::shared(object),
        };
        let alias = self.world.space.map(request).expect("there is room");
        self.number(alias, self.sort.granule());
        self.world.space.unmap(alias).expect("mapped");
        self
    }

    /// With pages in the memory aside.
    pub fn full_aside(self) -> Self {
        self.number(self.aside, PAGE_SIZE);
        self
    }

    /// After a fork, whose child is there.
    pub fn forked(self) -> Self {
        let child = self.world.run(|| self.world.space.fork()).expect("RAM is plenty");
        *self.child.borrow_mut() = Some(child);
        self
    }

    fn number(&self, range: VirtRange, step: u64) {
        self.world.run(|| {
            for i in 0..range.len() / step {
                uaccess::store(range.start + i * step, i + 1).expect("nothing stops it");
            }
        });
    }

    pub fn space(&self) -> &Arc<Space> {
        &self.world.space
    }

    /// The address of granule number `index`.
    pub fn at(&self, index: u64) -> VirtAddr {
        self.range.start + index * self.sort.granule()
    }

    /// Granule number `index` and the `count - 1` after it.
    pub fn part(&self, index: u64, count: u64) -> VirtRange {
        VirtRange::new(self.at(index), self.at(index + count))
    }

    /// What is left of the range after its first bytes.
    pub fn rest(&self, skip: u64) -> VirtRange {
        VirtRange::new(self.range.start + skip, self.range.end)
    }

    pub fn object(&self) -> &Object {
        self.object.as_ref().expect("the sort has an object")
    }
}

/// Why an operation stopped, and what it says that it left.
#[derive(Debug)]
pub struct Stop {
    pub why: String,
    pub left: Left,
}

/// What an operation that failed has left.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Left {
    /// Everything as it was.
    Nothing,
    /// The first bytes of the range as they should be, the rest as it was.
    Bytes(u64),
    /// The same after touches: at the first byte that is not done, the object may have its page already, and so may the
    /// memory aside, if that is read.
    Touched(u64),
    /// Every page either as it was or as it should be.
    Parts,
}

impl Left {
    pub fn bytes(self) -> u64 {
        match self {
            Self::Bytes(bytes) | Self::Touched(bytes) => bytes,
            Self::Nothing | Self::Parts => 0,
        }
    }
}

/// An error that left nothing.
pub fn undone(why: impl std::fmt::Debug) -> Stop {
    let (why, left) = (format!("{why:?}"), Left::Nothing);
    Stop { why, left }
}

/// An error that left parts.
pub fn in_parts(why: impl std::fmt::Debug) -> Stop {
    let (why, left) = (format!("{why:?}"), Left::Parts);
    Stop { why, left }
}

/// Where something can be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    /// So many bytes into the range.
    Range(u64),
    /// So many bytes into the memory aside.
    Aside(u64),
    /// So many bytes into what was a gap.
    Gap(u64),
    /// So many bytes into the range, in the child.
    Child(u64),
    /// So many bytes into the object.
    Cache(u64),
    /// An object's size.
    Size,
}

impl Place {
    /// Whether it belongs to the first `bytes` of the range.
    fn is_among(self, bytes: u64) -> bool {
        match self {
            Self::Range(at) | Self::Aside(at) | Self::Child(at) | Self::Cache(at) => at < bytes,
            Self::Size | Self::Gap(_) => false,
        }
    }
}

/// What is there.
#[derive(Clone, PartialEq, Debug)]
pub enum State {
    /// A page of an area.
    Page {
        area: Area,
        entry: Seen,
    },
    /// A page of a cache, and its first word.
    Cached(u64),
    Size(u64),
}

/// What an area says about a page.
#[derive(Clone, PartialEq, Debug)]
pub struct Area {
    prot: Prot,
    ty: &'static str,
    flags: VmaFlags,
    modes: Option<Modes>,
}

/// What an entry says.
#[derive(Clone, PartialEq, Debug)]
pub enum Seen {
    Absent(Marker),
    /// The page's first word, rights, and what is known beside whether it was used.
    Leaf(u64, Prot, AttrFlags),
}

/// All that can be seen of a scene.
#[derive(Clone, Debug)]
pub struct Picture {
    states: BTreeMap<Place, State>,
    /// Frames that are reached by something that owns them.
    owned: u64,
    in_use: u64,
}

fn word(pfn: Pfn) -> u64 {
    kernel::arch::host::SoftMachine::current()
        .peek(pfn.start())
        .expect("in RAM")
}

impl Scene {
    pub fn picture(&self) -> Picture {
        let (mut states, mut owned) = (BTreeMap::new(), BTreeSet::new());
        let mut look = |space: &Space, range: VirtRange, step, place: fn(u64) -> Place| {
            for at in (0..range.len()).step_by(step as usize) {
                let addr = range.start + at;
                let entry = match space.entry(addr).0 {
                    Entry::Absent(marker) => Seen::Absent(marker),
                    Entry::Leaf(leaf) => {
                        if !leaf.attr.is_borrowed() {
                            owned.insert((leaf.frame.as_u64(), step / PAGE_SIZE));
                        }
                        seen(&leaf)
                    }
                    Entry::Table(_) => unreachable!("a lookup ends at a leaf or an absent entry"),
                };
                let Some(vma) = space.query(addr) else {
                    assert_eq!(
                        entry,
                        Seen::Absent(Marker::None),
                        "something at {addr:?}, where nothing is mapped"
                    );
                    continue;
                };
                let area = Area {
                    prot: vma.prot,
                    ty: vma.ty.name,
                    flags: vma.flags,
                    modes: vma.uffd.map(|registration| registration.modes),
                };
                states.insert(place(at), State::Page { area, entry });
            }
        };
        let step = self.sort.granule();
        look(self.space(), self.range, step, Place::Range);
        look(self.space(), self.aside, PAGE_SIZE, Place::Aside);
        look(self.space(), self.gap, PAGE_SIZE, Place::Gap);
        if let Some(child) = &*self.child.borrow() {
            look(child, self.range, step, Place::Child);
        }
        if let Some(object) = &self.object {
            states.insert(Place::Size, State::Size(object.size()));
            for at in (0..object.size()).step_by(step as usize) {
                if let Lookup::Present(folio) = object.lookup(at) {
                    owned.insert((folio.pfn().as_u64(), step / PAGE_SIZE));
                    states.insert(Place::Cache(at), State::Cached(word(Folio::pfn(&folio))));
                }
            }
        }
        Picture {
            states,
            owned: owned.iter().map(|(_, frames)| frames).sum(),
            in_use: allocator().stats().of(Kind::Anon),
        }
    }
}

fn seen(leaf: &Leaf) -> Seen {
    let used = AttrFlags::ACCESSED | AttrFlags::DIRTY;
    Seen::Leaf(word(leaf.frame), leaf.prot, leaf.attr.flags - used)
}

impl Picture {
    /// Nothing contradicts itself.
    #[track_caller]
    pub fn assert_sane(&self, what: &str) {
        assert_eq!(
            self.in_use, self.owned,
            "{what}: frames in use, and frames that something leads to"
        );
        for (place, state) in &self.states {
            let State::Page { area, entry } = state else {
                continue;
            };
            if let Seen::Leaf(_, prot, flags) = entry {
                let read_only = AttrFlags::UFFD_WP | AttrFlags::FORKED;
                let writable = prot.contains(Prot::WRITE);
                assert!(
                    area.prot.contains(*prot) && !(writable && flags.intersects(read_only)),
                    "{what}: {place:?} is {state:?}"
                );
            }
        }
    }

    /// The two show the same.
    #[track_caller]
    pub fn assert_same(&self, other: &Self, what: &str) {
        self.assert_between(other, other, Left::Nothing, what);
        assert_eq!(self.in_use, other.in_use, "{what}: frames in use");
    }

    /// Every place is as before or as in the end, whichever `left` says.
    #[track_caller]
    pub fn assert_between(&self, before: &Self, goal: &Self, left: Left, what: &str) {
        let places: BTreeSet<_> = [self, before, goal]
            .iter()
            .flat_map(|picture| picture.states.keys())
            .collect();
        for place in places {
            let [now, before, goal] = [self, before, goal].map(|picture| picture.states.get(place));
            let fits = match left {
                Left::Nothing => now == before,
                Left::Touched(bytes) if [Place::Cache(bytes), Place::Aside(bytes)].contains(place) => {
                    now == before || now == goal || now == Some(&State::Cached(0))
                }
                Left::Bytes(bytes) | Left::Touched(bytes) if place.is_among(bytes) => now == goal,
                Left::Bytes(_) | Left::Touched(_) => now == before,
                Left::Parts => now == before || now == goal,
            };
            assert!(
                fits,
                "{what}: {place:?}\n now {now:?}\n before {before:?}\n in the end {goal:?}"
            );
        }
    }
}
