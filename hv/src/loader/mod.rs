//! Starting a guest: a static ELF and what [`abi::guest`](kernel::abi::guest) promises it, put into its memory.
//!
//! ```text
//!   0 ............ image's segments at their physical addresses ...... end of the image, rounded up
//!                  boot info, command line                             1 page, more for a long command line
//!                  stack                                               BOOT_STACK bytes
//!                  page tables                                         root last found in CR3
//!                  free_start .................................. len
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | [`image`] | what is loaded from where to where: the ELF, with every check |
//! | [`tables`] | the first page tables |
//!
//! Everything is checked and laid out before the first byte is written; after that only the guest's memory itself can fail.
//! An ELF is input of anybody's: no content of it makes this code panic or write outside the guest's memory.

pub mod image;
pub mod tables;

use core::fmt;

use kernel::abi::guest::{BOOT_MAGIC, BOOT_STACK, BootInfo, IDENTITY_MAPPED, PAGE};
use kernel::mm::addr::GuestPhysAddr;
use kernel::mm::cache::{Object, WriteError};

use crate::state::{Registers, SystemState};

pub use self::image::{Flaw, Image, Part, Refused, Side};
use self::tables::{Tables, Unmappable};

/// A new guest's ordinary memory, from guest-physical address 0 on. It holds zeros.
pub trait GuestBytes {
    /// Why bytes could not be written.
    type Error;

    /// How many bytes there are.
    fn len(&self) -> u64;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts `bytes` to `at`. The loader stays below [`len`](Self::len).
    ///
    /// # Errors
    /// They could not be written, all or in part.
    fn write(&mut self, at: GuestPhysAddr, bytes: &[u8]) -> Result<(), Self::Error>;
}

/// An object that is a machine's ordinary memory.
impl GuestBytes for &Object {
    type Error = WriteError;

    fn len(&self) -> u64 {
        self.size()
    }

    fn write(&mut self, at: GuestPhysAddr, bytes: &[u8]) -> Result<(), WriteError> {
        Object::write(self, at.as_u64(), bytes).1
    }
}

/// What a guest is told besides what the loader knows by itself; see [`BootInfo`] for the parts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Setting<'a> {
    /// Its command line.
    pub cmdline: &'a str,
    /// Where delegated memory begins, and its bytes.
    pub delegated: (GuestPhysAddr, u64),
    /// Where the store begins, and its bytes.
    pub store: (GuestPhysAddr, u64),
    /// Ticks of the TSC per second.
    pub frequency: u64,
}

/// Why a guest was not loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoadError<E> {
    /// The ELF is not taken; nothing was written.
    Refused(Refused),
    /// The guest's memory could not be written.
    Memory(E),
}

impl<E> From<Refused> for LoadError<E> {
    fn from(why: Refused) -> Self {
        Self::Refused(why)
    }
}

impl<E: fmt::Display> fmt::Display for LoadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => why.fmt(f),
            Self::Memory(why) => write!(f, "the guest's memory cannot be written: {why}"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for LoadError<E> {}

/// A guest that is loaded: how its first vCPU starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Loaded {
    /// First instruction; virtual.
    pub entry: u64,
    /// Root of the first tables.
    pub cr3: GuestPhysAddr,
    /// End of the first stack.
    pub rsp: u64,
    /// The boot info.
    pub rdi: u64,
    /// What follows is the guest's to use.
    pub free_start: GuestPhysAddr,
}

/// RFLAGS with the bit that is always set, and interrupts off.
const RFLAGS: u64 = 2;

impl Loaded {
    /// The registers that the first vCPU starts with.
    pub fn registers(&self) -> Registers {
        Registers {
            rip: self.entry,
            rsp: self.rsp,
            rdi: self.rdi,
            rflags: RFLAGS,
            ..Registers::default()
        }
    }

    /// The rest of its state.
    pub fn system(&self) -> SystemState {
        SystemState::long_mode(self.cr3.as_u64())
    }
}

/// Loads the ELF `file` into `memory`.
///
/// # Errors
/// See [`LoadError`].
pub fn load<M: GuestBytes>(
    memory: &mut M,
    file: &[u8],
    setting: &Setting<'_>,
) -> Result<Loaded, LoadError<M::Error>> {
    let image = Image::parse(file)?;
    let plan = Plan::new(&image, memory.len(), setting)?;
    plan.perform(&image, memory, setting).map_err(LoadError::Memory)
}

/// Where everything goes.
struct Plan {
    entry: u64,
    memory_len: u64,
    boot_info: u64,
    stack_end: u64,
    tables: Tables,
    free_start: u64,
}

impl Plan {
    fn new(image: &Image<'_>, memory_len: u64, setting: &Setting<'_>) -> Result<Self, Refused> {
        // What the guest is told by address has to be in what the tables map one to one.
        let memory_len = memory_len / PAGE * PAGE;
        let room = memory_len.min(IDENTITY_MAPPED);
        let fit = |end: Option<u64>| end.filter(|&end| end <= room).ok_or(Refused::TooLarge { room });
        let after = |start: u64, len: u64| {
            fit(start
                .checked_add(len)
                .and_then(|end| end.checked_next_multiple_of(PAGE)))
        };

        let boot_info = fit(Some(image.physical_end()))?;
        let boot_info_len = size_of::<BootInfo>() as u64 + setting.cmdline.len() as u64;
        let stack = after(boot_info, boot_info_len)?;
        let stack_end = after(stack, BOOT_STACK)?;
        let tables = Tables::new(stack_end, room, image.segments()).map_err(|why| match why {
            Unmappable::NoRoom => Refused::TooLarge { room },
            Unmappable::Twice { segment } => Refused::MappedTwice { segment },
        })?;
        Ok(Self {
            entry: image.entry(),
            memory_len,
            boot_info,
            stack_end,
            free_start: tables.end(),
            tables,
        })
    }

    fn perform<M: GuestBytes>(
        &self,
        image: &Image<'_>,
        memory: &mut M,
        setting: &Setting<'_>,
    ) -> Result<Loaded, M::Error> {
        for segment in image.segments() {
            memory.write(GuestPhysAddr::new(segment.physical), segment.contents)?;
        }
        let cmdline = self.boot_info + size_of::<BootInfo>() as u64;
        memory.write(
            GuestPhysAddr::new(self.boot_info),
            &self.boot_info(cmdline, setting),
        )?;
        memory.write(GuestPhysAddr::new(cmdline), setting.cmdline.as_bytes())?;
        self.tables
            .pages()
            .try_for_each(|(at, page)| memory.write(GuestPhysAddr::new(at), page))?;
        Ok(Loaded {
            entry: self.entry,
            cr3: GuestPhysAddr::new(self.tables.root()),
            rsp: self.stack_end,
            rdi: self.boot_info,
            free_start: GuestPhysAddr::new(self.free_start),
        })
    }

    /// The boot info as the guest reads it.
    fn boot_info(&self, cmdline: u64, setting: &Setting<'_>) -> [u8; size_of::<BootInfo>()] {
        let info = BootInfo {
            magic: BOOT_MAGIC,
            size: size_of::<BootInfo>() as u64,
            cmdline,
            cmdline_len: setting.cmdline.len() as u64,
            memory_len: self.memory_len,
            free_start: self.free_start,
            delegated_start: setting.delegated.0.as_u64(),
            delegated_len: setting.delegated.1,
            store_start: setting.store.0.as_u64(),
            store_len: setting.store.1,
            frequency: setting.frequency,
        };
        info.to_bytes()
    }
}
