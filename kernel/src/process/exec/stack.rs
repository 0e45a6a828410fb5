//! A program's first stack: strings, auxiliary vector, environment, arguments (System V ABI for AMD64, 3.4.1).

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{ExecError, Start};
use crate::arch;
use crate::mm::addr::{PAGE_SIZE, VirtAddr};
use crate::mm::fault::Origin;
use crate::mm::memtype::anon;
use crate::mm::pt::Prot;
use crate::mm::range::VirtRange;
use crate::mm::space::{MapOptions, MapRequest, Memory, Space};
use crate::mm::vma::VmaFlags;

/// What the program learns about itself.
#[derive(Clone, Copy, Debug)]
pub struct Vector {
    /// Its program headers.
    pub program_headers: VirtAddr,
    /// How many.
    pub program_header_count: u64,
    /// Its own entry point.
    pub entry: VirtAddr,
    /// Where the interpreter is.
    pub interpreter_base: VirtAddr,
    /// Where the vDSO is.
    pub vdso: VirtAddr,
}

/// Where everything lies.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The stack at its largest.
    pub stack: VirtRange,
    /// The first stack pointer.
    pub pointer: VirtAddr,
    /// The argument strings.
    pub args: VirtRange,
    /// The environment strings.
    pub env: VirtRange,
    /// The auxiliary vector.
    pub auxv: Vec<u64>,
}

/// Keys of the auxiliary vector (`linux/auxvec.h`).
mod at {
    pub const NULL: u64 = 0;
    pub const PHDR: u64 = 3;
    pub const PHENT: u64 = 4;
    pub const PHNUM: u64 = 5;
    pub const PAGESZ: u64 = 6;
    pub const BASE: u64 = 7;
    pub const FLAGS: u64 = 8;
    pub const ENTRY: u64 = 9;
    pub const UID: u64 = 11;
    pub const EUID: u64 = 12;
    pub const GID: u64 = 13;
    pub const EGID: u64 = 14;
    pub const PLATFORM: u64 = 15;
    pub const HWCAP: u64 = 16;
    pub const CLKTCK: u64 = 17;
    pub const SECURE: u64 = 23;
    pub const RANDOM: u64 = 25;
    pub const HWCAP2: u64 = 26;
    pub const EXECFN: u64 = 31;
    pub const SYSINFO_EHDR: u64 = 33;
}

/// A stack that is written from its top downwards, in the kernel, before it is copied.
struct Draft {
    top: u64,
    /// In reverse.
    bytes: Vec<u8>,
}

impl Draft {
    fn here(&self) -> u64 {
        self.top - self.bytes.len() as u64
    }

    fn push(&mut self, bytes: &[u8]) -> u64 {
        self.bytes.extend(bytes.iter().rev());
        self.here()
    }

    fn push_string(&mut self, string: &[u8]) -> u64 {
        self.bytes.push(0);
        self.push(string)
    }

    fn align(&mut self, to: u64) {
        while !self.here().is_multiple_of(to) {
            self.bytes.push(0);
        }
    }
}

/// Bytes of a stack at first; it grows when it is touched below (as on Linux).
const FIRST_SIZE: u64 = 33 * PAGE_SIZE;

/// Maps a stack of `size` bytes below `top` and writes what the program finds there.
///
/// # Errors
/// The strings take more than a quarter of the stack, or there is no memory.
pub fn build(
    space: &Arc<Space>,
    top: VirtAddr,
    size: u64,
    start: &Start<'_>,
    vector: &Vector,
) -> Result<Placed, ExecError> {
    let range = VirtRange::new(top - size, top);
    let request = MapRequest {
        at: Some(top - size.min(FIRST_SIZE)),
        len: size.min(FIRST_SIZE),
        prot: Prot::READ | Prot::WRITE,
        memory: Memory::Own(&anon::ANON),
    };
    let options = MapOptions {
        flags: VmaFlags::GROWS_DOWN,
        ..MapOptions::default()
    };
    space.set_stack_limit(size);
    space.map_with(request, options).map_err(ExecError::Map)?;
    let strings = start.args.iter().chain(start.env);
    let bytes: usize = strings.map(|string| string.len() + 9).sum();
    if bytes as u64 > size / 4 {
        return Err(ExecError::Arguments);
    }
    let mut draft = Draft {
        top: top.as_u64() - 8,
        bytes: Vec::new(),
    };
    let path = draft.push_string(start.path);
    let env_end = path;
    let mut env: Vec<u64> = start
        .env
        .iter()
        .rev()
        .map(|string| draft.push_string(string))
        .collect();
    let args_end = draft.here();
    let mut args: Vec<u64> = start
        .args
        .iter()
        .rev()
        .map(|string| draft.push_string(string))
        .collect();
    let args_start = draft.here();
    env.reverse();
    args.reverse();
    let platform = draft.push_string(b"x86_64");
    draft.align(16);
    let random = draft.push(&start.random);
    let auxv = auxiliary(vector, path, platform, random);
    let words = 1 + args.len() + 1 + env.len() + 1 + auxv.len();
    draft.align(16);
    if !words.is_multiple_of(2) {
        draft.push(&[0; 8]);
    }
    let mut block = Vec::with_capacity(words);
    block.push(args.len() as u64);
    block.extend(&args);
    block.push(0);
    block.extend(&env);
    block.push(0);
    block.extend(&auxv);
    for word in block.iter().rev() {
        draft.push(&word.to_le_bytes());
    }
    let pointer = VirtAddr::new(draft.here());
    draft.bytes.reverse();
    space
        .write_bytes(pointer, &draft.bytes, Origin::Kernel)
        .map_err(|_| ExecError::OutOfMemory)?;
    Ok(Placed {
        stack: range,
        pointer,
        args: VirtRange::new(VirtAddr::new(args_start), VirtAddr::new(args_end)),
        env: VirtRange::new(VirtAddr::new(args_end), VirtAddr::new(env_end)),
        auxv,
    })
}

fn auxiliary(vector: &Vector, path: u64, platform: u64, random: u64) -> Vec<u64> {
    let pairs = [
        (at::SYSINFO_EHDR, vector.vdso.as_u64()),
        (at::HWCAP, arch::user_capabilities()),
        (at::PAGESZ, PAGE_SIZE),
        (at::CLKTCK, 100),
        (at::PHDR, vector.program_headers.as_u64()),
        (at::PHENT, 56),
        (at::PHNUM, vector.program_header_count),
        (at::BASE, vector.interpreter_base.as_u64()),
        (at::FLAGS, 0),
        (at::ENTRY, vector.entry.as_u64()),
        (at::UID, 0),
        (at::EUID, 0),
        (at::GID, 0),
        (at::EGID, 0),
        (at::SECURE, 0),
        (at::RANDOM, random),
        (at::HWCAP2, 0),
        (at::EXECFN, path),
        (at::PLATFORM, platform),
        (at::NULL, 0),
    ];
    pairs.iter().flat_map(|(key, value)| [*key, *value]).collect()
}
