//! Mounting: new file systems in memory, and further views of `/dev`, `/proc` and `/sys`. Nothing is bound, moved or mounted
//! again.

use crate::abi::errno::Errno;
use crate::file::FsKind;
use crate::file::tree::Last;
use crate::mm::addr::PAGE_SIZE;
use crate::mm::frame::allocator;
use crate::process::credentials::capability;
use crate::syscall::{Call, Result, user};

/// Longest name of a kind, and longest options (Linux: a page).
const MAX_STRING: usize = 4096;

/// Flags that ask for something else than a new mount: `MS_REMOUNT`, `MS_BIND`, `MS_MOVE`, and the kinds of propagation.
const NOT_NEW: u64 = 1 << 5 | 1 << 12 | 1 << 13 | 1 << 17 | 1 << 18 | 1 << 19 | 1 << 20;

/// `umount2`: go later, when nobody is inside (`MNT_DETACH`).
const DETACH: u64 = 2;
/// Do not follow a link at the end of the path (`UMOUNT_NOFOLLOW`).
const NO_FOLLOW: u64 = 8;
/// With `MNT_FORCE`, which has nothing to force.
const UNMOUNT_FLAGS: u64 = 1 | DETACH | NO_FOLLOW;

fn may_mount(call: &Call<'_>) -> core::result::Result<(), Errno> {
    match call.thread.credentials().can(capability::SYS_ADMIN) {
        true => Ok(()),
        false => Err(Errno::EPERM),
    }
}

/// `mount`.
pub fn mount(call: &mut Call<'_>) -> Result {
    let [_, _, kind, flags, options, _] = *call.args;
    let string = |at: u64| match at {
        0 => Ok(None),
        at => user::read_string(at, MAX_STRING).map(Some),
    };
    let (kind, options) = (string(kind)?, string(options)?);
    let path = call.path(1)?;
    let at = call.place().find(None, &path, Last::Follow)?;
    may_mount(call)?;
    if flags & NOT_NEW != 0 {
        return Err(Errno::EINVAL.into());
    }
    let kind = match kind.as_deref() {
        None => return Err(Errno::EINVAL.into()),
        Some(b"tmpfs") => tmpfs(options.as_deref().unwrap_or_default()).ok_or(Errno::EINVAL)?,
        Some(b"devtmpfs") => FsKind::Dev,
        Some(b"proc") => FsKind::Proc,
        Some(b"sysfs") => FsKind::Sys,
        Some(_) => return Err(Errno::ENODEV.into()),
    };
    call.place().mounts().mount(&at, kind)?;
    Ok(0)
}

/// `umount2`.
pub fn umount2(call: &mut Call<'_>) -> Result {
    let flags = call.args[1];
    if flags & !UNMOUNT_FLAGS != 0 {
        return Err(Errno::EINVAL.into());
    }
    let path = call.path(0)?;
    let last = match flags & NO_FOLLOW != 0 {
        true => Last::Leave,
        false => Last::Follow,
    };
    let at = call.place().find(None, &path, last)?;
    may_mount(call)?;
    call.place().mounts().unmount(&at, flags & DETACH != 0)?;
    Ok(0)
}

/// A file system in memory as its options say (`tmpfs(5)`); `None` when one is unknown or makes no sense. Inodes are not
/// limited.
fn tmpfs(options: &[u8]) -> Option<FsKind> {
    let (mut bytes, mut mode) = (None, 0o1777);
    let options = core::str::from_utf8(options).ok()?;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let (key, value) = option.split_once('=')?;
        match key {
            "size" => bytes = size(value)?,
            "nr_blocks" => bytes = Some(number(value)?.checked_mul(PAGE_SIZE)?).filter(|bytes| *bytes != 0),
            "mode" => mode = u32::from_str_radix(value, 8).ok()? & 0o7777,
            "nr_inodes" | "uid" | "gid" => drop(number(value)?),
            _ => return None,
        }
    }
    Some(FsKind::Tmp { bytes, mode })
}

/// Bytes, rounded up to pages; percents are of the machine's memory. 0 is no limit of its own.
fn size(value: &str) -> Option<Option<u64>> {
    let bytes = match value.strip_suffix('%') {
        Some(percent) => {
            let managed = allocator().stats().managed;
            managed.checked_mul(number(percent)?)? / 100 * PAGE_SIZE
        }
        None => number(value)?.checked_next_multiple_of(PAGE_SIZE)?,
    };
    Some(Some(bytes).filter(|bytes| *bytes != 0))
}

/// A number with k, m or g behind it, or nothing.
fn number(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 10),
        b'm' | b'M' => (&text[..text.len() - 1], 20),
        b'g' | b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_file_system_in_memory() {
        let tmp = |bytes, mode| Some(FsKind::Tmp { bytes, mode });
        assert_eq!(tmpfs(b""), tmp(None, 0o1777));
        assert_eq!(tmpfs(b"size=16384"), tmp(Some(16384), 0o1777));
        assert_eq!(tmpfs(b"size=5000,mode=755"), tmp(Some(8192), 0o755));
        assert_eq!(
            tmpfs(b"mode=0700,size=2m,nr_inodes=10k"),
            tmp(Some(2 << 20), 0o700)
        );
        assert_eq!(tmpfs(b"nr_blocks=3"), tmp(Some(3 * PAGE_SIZE), 0o1777));
        assert_eq!(tmpfs(b"size=0"), tmp(None, 0o1777));
        for bad in [
            "size",
            "size=",
            "size=x",
            "size=18446744073709551615g",
            "mode=9",
            "colour=red",
            "=1",
        ] {
            assert_eq!(tmpfs(bad.as_bytes()), None, "{bad}");
        }
    }
}
