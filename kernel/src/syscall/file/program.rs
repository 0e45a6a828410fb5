//! The file of `execve` and `execveat`.

use alloc::format;

use super::{AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, Call, Errno, Error, Named, Vec, last_of, only};
use crate::abi::stat::{S_IFLNK, S_IFMT};
use crate::file::tree::program_of;
use crate::process::exec::Found;

/// The program that is named by the path of argument `path`, from the directory of argument `dirfd` if there is one.
///
/// # Errors
/// EINVAL: unknown flags. ELOOP: a symbolic link, and `AT_SYMLINK_NOFOLLOW`. ENOENT, EACCES and others.
pub fn named_program(call: &Call<'_>, dirfd: Option<usize>, path: usize, flags: u64) -> Result<Found, Error> {
    only(flags, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW)?;
    let name = call.path(path)?;
    let Some(dirfd) = dirfd else {
        let entry = call.place().find(None, &name, last_of(0))?;
        return Ok(Found {
            program: program_of(&entry)?,
            entry,
            path: name,
        });
    };
    let named = call.named(dirfd, path, flags, last_of(flags))?;
    let entry = match named {
        Named::Entry(entry) => entry,
        named => named.entry().map_err(|_| Errno::EACCES)?,
    };
    if entry.inode().stat().mode & S_IFMT == S_IFLNK {
        return Err(Errno::ELOOP.into());
    }
    Ok(Found {
        program: program_of(&entry)?,
        path: shown(call, dirfd, name),
        entry,
    })
}

/// How the program is told that it was named (as Linux: its directory's descriptor has a name in `/dev`).
fn shown(call: &Call<'_>, dirfd: usize, name: Vec<u8>) -> Vec<u8> {
    let fd = call.args[dirfd] as u32;
    if fd == AT_FDCWD || name.first() == Some(&b'/') {
        return name;
    }
    let mut path = format!("/dev/fd/{fd}").into_bytes();
    if !name.is_empty() {
        path.push(b'/');
        path.extend(name);
    }
    path
}
