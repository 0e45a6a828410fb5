//! Devices: what is behind the nodes of `/dev`.
//!
//! | file | what |
//! | --- | --- |
//! | `memory` | null, zero, full |
//! | `random` | random, urandom |
//! | `console` | the standard streams of the machine: console, tty |
//!
//! A device is one line in [`DEVICES`]: its name, number and mode, and what opens it.

mod console;
mod memory;
mod random;

use alloc::sync::Arc;

pub use console::{ConsoleFile, Stream, StreamInode};
pub use memory::MemoryFile;
use random::RandomFile;

use super::tmpfs::{Kind, Node, TmpFs};
use super::tree::Directory;
use super::userfault::DeviceFile;
use super::{File, OpenFlags};
use crate::abi::errno::Errno;
use crate::abi::stat::DeviceNumber;
use crate::syscall::Error;

/// A device with a node in `/dev`.
struct Device {
    name: &'static str,
    number: DeviceNumber,
    mode: u32,
    open: fn(OpenFlags) -> Result<Arc<dyn File>, Error>,
}

const fn device(
    name: &'static str,
    number: (u32, u32),
    mode: u32,
    open: fn(OpenFlags) -> Result<Arc<dyn File>, Error>,
) -> Device {
    Device {
        name,
        number: DeviceNumber::new(number.0, number.1),
        mode,
        open,
    }
}

/// All of them, with Linux's numbers.
static DEVICES: &[Device] = &[
    device("null", (1, 3), 0o666, |_| Ok(Arc::new(MemoryFile::Null))),
    device("zero", (1, 5), 0o666, |_| Ok(Arc::new(MemoryFile::Zero))),
    device("full", (1, 7), 0o666, |_| Ok(Arc::new(MemoryFile::Full))),
    device("random", (1, 8), 0o666, |_| Ok(Arc::new(RandomFile::Random))),
    device("urandom", (1, 9), 0o666, |_| Ok(Arc::new(RandomFile::Urandom))),
    device("userfaultfd", (10, 257), 0o600, |_| Ok(Arc::new(DeviceFile))),
    device("tty", (5, 0), 0o666, |_| Err(Errno::ENXIO.into())),
    device("console", (5, 1), 0o600, |_| {
        Ok(Arc::new(ConsoleFile::new(Stream::Both)))
    }),
];

/// Links in `/dev`.
static LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Opens the device with a number.
///
/// # Errors
/// ENXIO: there is none.
pub fn open(number: DeviceNumber, flags: OpenFlags) -> Result<Arc<dyn File>, Error> {
    let device = DEVICES.iter().find(|device| device.number == number);
    (device.ok_or(Errno::ENXIO)?.open)(flags)
}

/// The tree of `/dev`.
///
/// # Panics
/// A name is given twice.
pub fn tree() -> Arc<Node> {
    let fs = TmpFs::new(None);
    let root = fs.root(0o755);
    let add = |name: &str, node| {
        let added = root.add(name.as_bytes(), node);
        assert!(added.is_ok(), "/dev/{name} is there twice");
    };
    for device in DEVICES {
        add(device.name, fs.node(device.mode, Kind::CharDevice(device.number)));
    }
    for (name, target) in LINKS {
        add(name, fs.node(0o777, Kind::Symlink(target.as_bytes().into())));
    }
    add("shm", fs.root(0o1777));
    let _: &dyn Directory = &*root;
    root
}
