//! From an ELF file to a program that can run: its memory and its first registers.
//!
//! ```text
//!   Image (file) ── elf: headers, checked ── load: segments into a new space ── stack: arguments, auxiliary vector ── Program
//!                        └─ interpreter: another Image, loaded the same way
//! ```
//!
//! `script` finds the program behind a `#!`; `replace` has a thread run a program instead of what it ran.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::Mm;
use super::mm::Layout;
use crate::abi::errno::Errno;
use crate::arch::user::Registers;
use crate::mm::addr::{PAGE_SIZE, USER_TOP, VirtAddr};
use crate::mm::cache::Object;
use crate::mm::space::{MapError, Privilege, Space};

mod elf;
mod load;
mod replace;
mod script;
mod stack;
mod vdso;

pub use elf::Unfit;
pub use replace::{Executed, Found, behind_scripts, execute};

/// A file to execute: its bytes as a memory object.
#[derive(Clone, Debug)]
pub struct Image {
    /// The bytes; segments are private mappings of it.
    pub object: Arc<Object>,
}

impl Image {
    /// Bytes from `offset` on, as many as there are and fit.
    fn read(&self, offset: u64, out: &mut [u8]) -> usize {
        self.object.read(offset, out)
    }
}

/// What a program is started with.
#[derive(Clone, Debug, Default)]
pub struct Start<'a> {
    /// The arguments, with the program's name first.
    pub args: &'a [Vec<u8>],
    /// The environment, `NAME=value`.
    pub env: &'a [Vec<u8>],
    /// The path that is executed (`AT_EXECFN`).
    pub path: &'a [u8],
    /// Sixteen random bytes (`AT_RANDOM`).
    pub random: [u8; 16],
}

/// A program that can run.
#[derive(Debug)]
pub struct Program {
    /// Its memory.
    pub mm: Arc<Mm>,
    /// Its first registers.
    pub registers: Registers,
}

/// Why a program cannot be executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExecError {
    /// The file is no program that runs here.
    Unfit(Unfit),
    /// The interpreter that it names cannot be opened.
    Interpreter(Errno),
    /// The interpreter is no program that runs here.
    UnfitInterpreter(Unfit),
    /// A segment could not be mapped.
    Map(MapError),
    /// The arguments are too long, or there is no memory for them.
    Arguments,
    /// No memory.
    OutOfMemory,
}

impl ExecError {
    /// Whether Linux finds it out when the old program is gone already, and ends the process with SIGSEGV.
    pub fn is_fatal(self) -> bool {
        match self {
            Self::Unfit(why) | Self::UnfitInterpreter(why) => {
                matches!(why, Unfit::ContentsExceedMemory | Unfit::BadSegment)
            }
            Self::Map(_) => true,
            Self::Interpreter(_) | Self::Arguments | Self::OutOfMemory => false,
        }
    }

    /// What `execve` answers.
    pub fn errno(self) -> Errno {
        match self {
            Self::Unfit(why) => why.errno(),
            Self::Interpreter(errno) => errno,
            Self::UnfitInterpreter(Unfit::TooShort) => Errno::EIO,
            Self::UnfitInterpreter(_) => Errno::ELIBBAD,
            Self::Map(_) | Self::OutOfMemory => Errno::ENOMEM,
            Self::Arguments => Errno::E2BIG,
        }
    }
}

impl fmt::Display for ExecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unfit(why) => write!(f, "the program {why}"),
            Self::Interpreter(_) => f.write_str("the program's interpreter cannot be opened"),
            Self::UnfitInterpreter(why) => write!(f, "the program's interpreter {why}"),
            Self::Map(why) => write!(f, "a segment of the program cannot be mapped: {why:?}"),
            Self::Arguments => f.write_str("the arguments and the environment are too long"),
            Self::OutOfMemory => f.write_str("no memory for the program"),
        }
    }
}

/// Where a position-independent program is put when it is not the interpreter's business (Linux: `ELF_ET_DYN_BASE`).
const PROGRAM_BASE: u64 = 0x5555_5555_4000;
/// Where its interpreter is put.
const INTERPRETER_BASE: u64 = 0x7fff_f000_0000;
/// Bytes of a stack at its largest (Linux: the default of `RLIMIT_STACK`).
pub const STACK_SIZE: u64 = 8 << 20;

/// Bytes above the stack, which nothing is put into: there is a hole below the top, as on Linux, which leaves a random number.
const ABOVE_STACK: u64 = 16 * PAGE_SIZE;
/// Bytes below the top that are left to the stack: what is mapped without being asked for a place goes below (Linux: the
/// smallest gap of `mmap_base`).
const STACK_ROOM: u64 = 128 << 20;

/// Makes a program of `image`. `open` finds the interpreter by its path.
///
/// # Errors
/// See [`ExecError`]; nothing is left of it then.
pub fn prepare(
    image: &Image,
    start: &Start<'_>,
    open: &dyn Fn(&[u8]) -> Result<Image, Errno>,
) -> Result<Program, ExecError> {
    let headers = elf::Headers::read(image).map_err(ExecError::Unfit)?;
    let interpreter = match &headers.interpreter {
        Some(path) => {
            let image = open(path).map_err(ExecError::Interpreter)?;
            let headers = elf::Headers::read(&image).map_err(ExecError::UnfitInterpreter)?;
            Some((image, headers))
        }
        None => None,
    };
    let space = Space::new(Privilege::User).map_err(|_| ExecError::OutOfMemory)?;
    space.set_ceiling(USER_TOP - STACK_ROOM);
    let program = load::load(&space, image, &headers, PROGRAM_BASE)?;
    let interpreter = match &interpreter {
        Some((image, headers)) => Some(load::load(&space, image, headers, INTERPRETER_BASE)?),
        None => None,
    };
    let heap = program.end.align_up(PAGE_SIZE).ok_or(ExecError::OutOfMemory)?;
    let vector = stack::Vector {
        program_headers: program.headers_at,
        program_header_count: headers.segments_in_table,
        entry: program.entry,
        interpreter_base: interpreter.as_ref().map_or(VirtAddr::new(0), |it| it.base),
        vdso: vdso::map(&space)?,
    };
    let placed = stack::build(&space, USER_TOP - ABOVE_STACK, STACK_SIZE, start, &vector)?;
    let entry = interpreter.as_ref().map_or(program.entry, |it| it.entry);
    let layout = Layout {
        stack: placed.stack,
        args: placed.args,
        env: placed.env,
        heap,
        auxv: placed.auxv,
    };
    Ok(Program {
        mm: Mm::new(space, layout),
        registers: Registers::start(entry.as_u64(), placed.pointer.as_u64()),
    })
}
