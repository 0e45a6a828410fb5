//! Values of QEMU's options: sizes, drives, paths with commas in them.

use std::path::Path;

use crate::job::{Disk, Location};
use crate::program::streams::Paths;
use crate::size::{MIB, MemSize};
use crate::status::usage;

/// QEMU's `-m` takes MiB without loss; anything finer is given in KiB.
pub fn memory_arg(mem: MemSize) -> String {
    if mem.0.is_multiple_of(MIB) {
        format!("{}M", mem.0 / MIB)
    } else {
        format!("{}K", mem.0.div_ceil(1024))
    }
}

/// The value of `-drive` for a disk image to boot from.
pub fn boot_drive(image: &Path) -> anyhow::Result<String> {
    Ok(format!("if=ide,format=raw,file={}", escaped(image)?))
}

/// The value of `-drive` for the snapshot. blkdebug stands between the file and the format so that a read can fail.
pub fn snapshot_drive(disk: &Disk) -> anyhow::Result<String> {
    let base = "if=none,id=snapshot,readonly=on,format=raw";
    Ok(match (&disk.location, disk.inject_error) {
        (Location::File(path), None) => format!("{base},file={}", escaped(&std::path::absolute(path)?)?),
        (Location::Url(url), None) => format!("{base},file={}", comma_escaped(url)),
        (Location::File(path), Some(sector)) => format!(
            "{base},file.driver=blkdebug,file.image.driver=file,file.image.filename={},\
             file.inject-error.0.event=none,file.inject-error.0.iotype=read,file.inject-error.0.sector={sector},\
             file.inject-error.0.errno=5",
            escaped(&std::path::absolute(path)?)?
        ),
        (Location::Url(_), Some(_)) => return Err(usage("--inject-error needs a file, not a URL")),
    })
}

/// The devices of a program's streams: two more debug consoles, and COM2. QEMU connects to the sockets; reading a port gives its
/// number, by which the kernel knows it.
pub fn stdio_args(paths: &Paths) -> anyhow::Result<Vec<String>> {
    let socket = |id: &str, path: &Path| -> anyhow::Result<[String; 2]> {
        let value = format!("socket,id={id},server=off,path={}", escaped(path)?);
        Ok(["-chardev".into(), value])
    };
    let port = |port: &str, id: &str| {
        let device = format!("isa-debugcon,iobase={port},readback={port},chardev={id}");
        ["-device".to_owned(), device]
    };
    Ok([
        socket("stdin", &paths.input)?,
        ["-serial".to_owned(), "chardev:stdin".to_owned()],
        socket("stdout", &paths.out)?,
        port("0xea", "stdout"),
        socket("stderr", &paths.err)?,
        port("0xeb", "stderr"),
    ]
    .concat())
}

/// A path as text.
///
/// # Errors
/// A usage error when it is no UTF-8.
pub fn text(path: &Path) -> anyhow::Result<String> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| usage(format!("{}: the path is no UTF-8", path.display())))
}

/// A path as a value in an option list.
///
/// # Errors
/// As [`text`].
pub fn escaped(path: &Path) -> anyhow::Result<String> {
    Ok(comma_escaped(&text(path)?))
}

/// In QEMU's option lists a comma in a value is written twice.
fn comma_escaped(value: &str) -> String {
    value.replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_paths_survive() {
        let disk = Disk {
            location: Location::File("/a,b".into()),
            inject_error: None,
        };
        assert!(snapshot_drive(&disk).unwrap().ends_with("file=/a,,b"));
    }

    #[test]
    fn memory_is_passed_without_loss() {
        assert_eq!(memory_arg(MemSize(512 * MIB)), "512M");
        assert_eq!(memory_arg(MemSize(1536 << 10)), "1536K");
    }
}
