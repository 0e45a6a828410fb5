//! The vDSO: an ELF shared object in every program's memory, whose functions tell the time without a system call.
//!
//! One page, made at first use: ELF header, program headers, dynamic section, symbols, code. C libraries find it by
//! `AT_SYSINFO_EHDR` and look its functions up by name and version, which is `LINUX_2.6` (`vdso(7)`).

use alloc::sync::Arc;

use super::ExecError;
use crate::mm::addr::{PAGE_SIZE, VirtAddr};
use crate::mm::cache::Object;
use crate::mm::memtype::special;
use crate::mm::pt::Prot;
use crate::mm::space::{MapRequest, Memory, Space};
use crate::mm::vma::Sharing;
use crate::sync::Once;

#[cfg(target_os = "none")]
mod code;
mod elf;

/// Maps it; says where.
///
/// # Errors
/// No memory.
pub fn map(space: &Arc<Space>) -> Result<VirtAddr, ExecError> {
    let request = MapRequest {
        at: None,
        len: PAGE_SIZE,
        prot: Prot::READ | Prot::EXEC,
        memory: Memory::Object {
            object: Arc::clone(object()?),
            offset: 0,
            sharing: Sharing::Private,
            read_only: true,
        },
    };
    Ok(space.map(request).map_err(ExecError::Map)?.start)
}

/// The page.
fn object() -> Result<&'static Arc<Object>, ExecError> {
    static OBJECT: Once<Arc<Object>> = Once::new();
    OBJECT.try_call_once(|| {
        let object = Object::new(&special::SPECIAL, PAGE_SIZE);
        match object.write(0, &image()) {
            (_, Ok(())) => Ok(object),
            (_, Err(_)) => Err(ExecError::OutOfMemory),
        }
    })
}

#[cfg(target_os = "none")]
fn image() -> alloc::vec::Vec<u8> {
    let code = code::filled_in();
    elf::build(&code.text, &code.functions)
}

/// The software machine runs no code: there are no functions.
#[cfg(not(target_os = "none"))]
fn image() -> alloc::vec::Vec<u8> {
    elf::build(&[], &[])
}
