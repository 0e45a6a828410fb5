//! The built-in guest on whole machines: what it sees, what it survives, and what ends it.
//!
//! | guest address | what |
//! | --- | --- |
//! | 0 | ordinary memory, an object |
//! | [`DELEGATED`] | delegated memory, an object with a userfault bitmap |
//! | [`STORE`] | the store, read-only, an object |

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use hv::bitmap::Bitmap;
use hv::loader::{Setting, load};
use hv::memory::GuestMemory;
use hv::memslot::SlotRequest;
use hv::userfault::{Delivery, Userfaults};
use hv::vcpu::{Image, Stop, Vcpu};
use hv::vendor::Vendor;
use hv::vm::Vm;
use kernel::arch::{Clock, Machine as Cpu};
use kernel::mm::addr::{GuestPhysAddr, PAGE_SIZE};
use kernel::mm::cache::Object;
use kernel::mm::memtype::guest_memfd::GUEST_MEMFD;
use kernel::mm::range::GuestRange;
use kernel::sync::SpinLock;

use super::super::common::text;
use crate::apps;

mod hostile;
mod machine;
mod restored;

/// Where delegated memory begins.
const DELEGATED: GuestPhysAddr = GuestPhysAddr::new(1 << 32);
/// Where the store begins.
const STORE: GuestPhysAddr = GuestPhysAddr::new(2 << 32);
/// Ordinary memory.
const MEMORY: u64 = 8 << 20;
/// How long a guest of these tests may run, in seconds.
const PATIENCE: u64 = 20;

/// The lines that a guest has printed.
type Lines = Arc<SpinLock<Vec<String>>>;

/// A machine with the built-in guest in it.
struct Machine<V: Vendor> {
    vcpu: Vcpu<V>,
    ordinary: Arc<Object>,
    delegated: Arc<Object>,
    /// Which pages of delegated memory are the owner's, or the monitor's, business.
    bitmap: Arc<Bitmap>,
    lines: Lines,
}

/// What is left of a machine that was saved.
struct Saved {
    image: Image,
    ordinary: Vec<u8>,
    delegated: Vec<u8>,
}

/// The built-in guest, from the ramdisk.
fn elf() -> Result<&'static [u8], String> {
    let file = apps::system().ramdisk.file("guest");
    file.ok_or_else(|| "the ramdisk has no file `guest`".into())
}

impl<V: Vendor> Machine<V> {
    /// A machine that is about to start with this command line; so many pages of delegated memory, all of them plain.
    fn new(cmdline: &str, pages: u64) -> Result<Self, String> {
        let ordinary = Object::new(&GUEST_MEMFD, MEMORY);
        let delegated = Object::new(&GUEST_MEMFD, pages * PAGE_SIZE);
        let store = Object::new(&GUEST_MEMFD, pages * PAGE_SIZE);
        let setting = Setting {
            cmdline,
            delegated: (DELEGATED, delegated.size()),
            store: (STORE, store.size()),
            frequency: Cpu::frequency(),
        };
        let loaded = load(&mut &*ordinary, elf()?, &setting).map_err(text)?;
        let image = Image::starting(loaded.registers(), loaded.system());
        Self::with(ordinary, delegated, store, &image)
    }

    /// A machine that goes on where another one was saved: its delegated memory is absent and delegated, and stands in the
    /// store.
    fn restored(saved: &Saved) -> Result<Self, String> {
        let filled = |bytes: &[u8]| {
            let object = Object::new(&GUEST_MEMFD, bytes.len() as u64);
            object.write(0, bytes).1.map(|()| object).map_err(text)
        };
        let delegated = Object::new(&GUEST_MEMFD, saved.delegated.len() as u64);
        let machine = Self::with(
            filled(&saved.ordinary)?,
            delegated,
            filled(&saved.delegated)?,
            &saved.image,
        )?;
        machine.bitmap.set_all();
        Ok(machine)
    }

    fn with(
        ordinary: Arc<Object>,
        delegated: Arc<Object>,
        store: Arc<Object>,
        image: &Image,
    ) -> Result<Self, String> {
        let features = V::enable().map_err(text)?;
        let memory = GuestMemory::<V::Format>::new(&features).map_err(text)?;
        let bitmap = Arc::new(Bitmap::new(delegated.size() / PAGE_SIZE).map_err(text)?);
        let userfaults = Userfaults {
            bitmap: Arc::clone(&bitmap),
            delivery: Delivery::Exit,
        };
        let range = GuestRange::from_len(DELEGATED, delegated.size()).ok_or("delegated memory wraps")?;
        for (at, object, userfaults, read_only) in [
            (GuestPhysAddr::new(0), &ordinary, None, false),
            (DELEGATED, &delegated, Some(userfaults), false),
            (STORE, &store, None, true),
        ] {
            let request = SlotRequest {
                read_only,
                ..SlotRequest::of_object(at, object, userfaults)
            };
            memory.add(request).map_err(text)?;
        }
        let lines = Lines::default();
        let sink = Arc::clone(&lines);
        let console = Box::new(move |line: &str| sink.lock().push(line.to_string()));
        let vm = Vm::<V>::new(memory, range, console);
        Ok(Self {
            vcpu: Vcpu::new(&vm, image).map_err(text)?,
            ordinary,
            delegated,
            bitmap,
            lines,
        })
    }

    /// Runs it until it stops, at most for [`PATIENCE`].
    fn run(&mut self) -> Stop {
        self.run_for(PATIENCE * 1000)
    }

    /// Runs it until it stops, at most for so many milliseconds.
    fn run_for(&mut self, ms: u64) -> Stop {
        self.vcpu.run(Cpu::ticks() + Cpu::frequency() / 1000 * ms)
    }

    /// What it has printed.
    fn printed(&self) -> String {
        self.lines.lock().join("\n")
    }

    /// Runs it to its end, which has to be a good one.
    fn finish(&mut self) -> Result<(), String> {
        self.expect(Stop::Exited(0))
    }

    /// Runs it until it stops, which has to be in this way. Marks are passed.
    fn expect(&mut self, expected: Stop) -> Result<(), String> {
        let mut stop = self.run();
        while let Stop::Mark(_) = stop {
            stop = self.run();
        }
        if stop == expected {
            return Ok(());
        }
        Err(alloc::format!(
            "{stop:?} instead of {expected:?}; printed:\n{}",
            self.printed()
        ))
    }

    /// The line with the result of a workload.
    fn result(&self) -> Result<String, String> {
        let lines = self.lines.lock();
        let line = lines.iter().find(|line| line.starts_with("result "));
        line.cloned()
            .ok_or_else(|| alloc::format!("no result in {:?}", *lines))
    }

    /// Runs it to its mark and saves it there.
    fn saved_at_mark(mut self) -> Result<Saved, String> {
        let stop = self.run();
        if stop != Stop::Mark(1) {
            return Err(alloc::format!(
                "{stop:?} instead of the mark; printed:\n{}",
                self.printed()
            ));
        }
        let all = |object: &Object| {
            let mut bytes = vec![0; object.size() as usize];
            object.read(0, &mut bytes);
            bytes
        };
        Ok(Saved {
            image: self.vcpu.image(),
            ordinary: all(&self.ordinary),
            delegated: all(&self.delegated),
        })
    }
}
