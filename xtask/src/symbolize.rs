//! Names and lines for the addresses of a panic, from the kernel ELF's debug sections.

use std::fmt;
use std::path::Path;

use addr2line::Loader;
use anyhow::anyhow;

/// One function that was being executed. An address has several when functions were inlined.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// The address that was asked for.
    pub address: u64,
    /// The function, demangled; `None` outside of all functions.
    pub function: Option<String>,
    /// File and line.
    pub place: Option<(String, u32)>,
    /// Whether it was inlined into the frame that follows.
    pub inlined: bool,
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let function = self.function.as_deref().unwrap_or("?");
        let inlined = if self.inlined { " (inlined)" } else { "" };
        write!(f, "{:#018x}  {function}{inlined}", self.address)?;
        match &self.place {
            Some((file, line)) => write!(f, "\n{:20}at {file}:{line}", ""),
            None => Ok(()),
        }
    }
}

/// Names the return addresses of a backtrace, innermost first.
///
/// A return address is that of the next instruction, which may belong to the next line or even function; the look-up
/// is done one byte before it.
///
/// # Errors
/// When the ELF cannot be read.
pub fn backtrace(elf: &Path, addresses: &[u64]) -> anyhow::Result<Vec<Frame>> {
    let loader =
        Loader::new(elf).map_err(|error| anyhow!("cannot read the symbols of {}: {error}", elf.display()))?;
    Ok(addresses
        .iter()
        .flat_map(|address| frames(&loader, *address))
        .collect())
}

fn frames(loader: &Loader, address: u64) -> Vec<Frame> {
    let probe = address.saturating_sub(1);
    let mut found = Vec::new();
    if let Ok(mut frames) = loader.find_frames(probe) {
        while let Ok(Some(frame)) = frames.next() {
            let function = frame
                .function
                .and_then(|name| name.demangle().map(|name| name.into_owned()).ok());
            let place = frame
                .location
                .and_then(|place| Some((short(place.file?), place.line?)));
            found.push(Frame {
                address,
                function,
                place,
                inlined: true,
            });
        }
    }
    if found.is_empty() {
        let function = loader
            .find_symbol(probe)
            .map(|name| addr2line::demangle_auto(name.into(), None).into_owned());
        found.push(Frame {
            address,
            function,
            place: None,
            inlined: false,
        });
    }
    if let Some(last) = found.last_mut() {
        last.inlined = false;
    }
    found
}

/// Paths of this workspace are shown from its root, those of registries from the crate's name.
fn short(file: &str) -> String {
    let root = format!("{}/", crate::paths::workspace().display());
    if let Some(ours) = file.strip_prefix(&root) {
        return ours.to_owned();
    }
    match file.split_once("/registry/src/") {
        Some((_, below)) => below
            .split_once('/')
            .map_or(below, |(_, crate_path)| crate_path)
            .to_owned(),
        None => file.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;

    #[inline(never)]
    fn landmark() -> u32 {
        black_box(7)
    }

    /// Where this test program was loaded, from the first line of its memory map.
    fn load_address() -> u64 {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        u64::from_str_radix(maps.split('-').next().unwrap(), 16).unwrap()
    }

    #[test]
    fn a_function_is_named_with_its_file() {
        assert_eq!(landmark(), 7);
        let address = landmark as fn() -> u32 as usize as u64 - load_address();
        let frames = backtrace(&std::env::current_exe().unwrap(), &[address + 1]).unwrap();
        let last = frames.last().unwrap();
        assert!(
            last.function
                .as_ref()
                .is_some_and(|name| name.ends_with("landmark")),
            "{last}"
        );
        assert!(
            last.place
                .as_ref()
                .is_some_and(|(file, _)| file.ends_with("symbolize.rs")),
            "{last}"
        );
    }

    #[test]
    fn an_address_outside_all_code_is_shown_as_a_number() {
        let frames = backtrace(&std::env::current_exe().unwrap(), &[0xdead_0000_0000]).unwrap();
        assert_eq!(frames[0].to_string(), "0x0000dead00000000  ?");
    }

    #[test]
    fn a_file_that_is_no_elf_is_an_error() {
        assert!(backtrace(Path::new("/dev/null"), &[1]).is_err());
    }

    #[test]
    fn paths_are_shortened() {
        assert_eq!(
            short("/home/u/.cargo/registry/src/index-1/spin-0.12.0/src/lib.rs"),
            "spin-0.12.0/src/lib.rs"
        );
        assert_eq!(
            short("/rustc/x/library/core/src/panicking.rs"),
            "/rustc/x/library/core/src/panicking.rs"
        );
    }
}
