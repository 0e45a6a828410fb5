//! Packs a kernel and a ramdisk into disk images that start on machines with a BIOS or with UEFI firmware.
//!
//! ```text
//! faultline-image KERNEL RAMDISK BIOS_OUT UEFI_OUT        "-" for an output that is not wanted
//! ```
//!
//! The images hold the `bootloader` crate's stages, the kernel as it is given and the ramdisk (a cpio archive that
//! also carries the command line, because these loaders pass none). xtask calls this program with the pinned
//! nightly toolchain; see `xtask/src/image.rs`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bootloader::DiskImageBuilder;

fn main() -> anyhow::Result<()> {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [kernel, ramdisk, bios, uefi] = paths.as_slice() else {
        bail!(
            "usage: faultline-image KERNEL RAMDISK BIOS_OUT UEFI_OUT (\"-\" for an output that is not wanted)"
        );
    };
    for input in [kernel, ramdisk] {
        std::fs::metadata(input).with_context(|| format!("cannot read {}", input.display()))?;
    }

    let mut builder = DiskImageBuilder::new(kernel.clone());
    builder.set_ramdisk(ramdisk.clone());
    if let Some(out) = wanted(bios) {
        builder
            .create_bios_image(out)
            .with_context(|| format!("cannot make {}", out.display()))?;
    }
    if let Some(out) = wanted(uefi) {
        builder
            .create_uefi_image(out)
            .with_context(|| format!("cannot make {}", out.display()))?;
    }
    Ok(())
}

/// The path, unless it is the `-` that stands for "none".
fn wanted(path: &Path) -> Option<&Path> {
    (path != Path::new("-")).then_some(path)
}
