//! The shared libraries of a dynamic program, and of shared code that it loads: asked of the program's own interpreter, as ldd(1)
//! does, in the program's environment. The program is not run.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::process::CommandLine;

/// What glibc's interpreter looks libraries up in that are in no folder of its own.
const CACHE: &str = "/etc/ld.so.cache";
/// What glibc loads by itself when a thread is cancelled or ends, or asks for its backtrace; no program lists it. It lies where
/// glibc does.
const UNWINDER: (&str, &str) = ("libc.so.6", "libgcc_s.so.1");
/// What the environment says to interpreters of glibc and musl.
const VARIABLES: [&str; 2] = ["LD_LIBRARY_PATH", "LD_PRELOAD"];

/// How a program's libraries are looked for.
#[derive(Debug)]
pub struct Search {
    /// The value that each of [`VARIABLES`] has for the program.
    variables: [Option<OsString>; VARIABLES.len()],
}

impl Search {
    /// As for a program in whose environment `variable` gives the value of a variable.
    pub fn new(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        Self {
            variables: VARIABLES.map(variable),
        }
    }

    /// The interpreter, every library that it would load for `program`, and what it finds them by, by their paths on this machine.
    ///
    /// # Errors
    /// A sentence: the interpreter is not here or cannot list, or a library is missing.
    pub fn of(&self, program: &Path, interpreter: &Path) -> Result<Vec<PathBuf>, String> {
        let mut paths = vec![interpreter.to_owned()];
        for found in self.list(program, interpreter)? {
            let path = found.map_err(|line| format!("a library is missing on this machine: {line}"))?;
            let unwinder = path.with_file_name(UNWINDER.1);
            let silent = path.file_name() == Some(OsStr::new(UNWINDER.0)) && unwinder.is_file();
            for path in [path].into_iter().chain(silent.then_some(unwinder)) {
                if !paths.contains(&path) {
                    paths.push(path);
                }
            }
        }
        if Path::new(CACHE).is_file() {
            paths.push(CACHE.into());
        }
        Ok(paths)
    }

    /// The libraries that shared code would have `interpreter` load, as far as they are here: whether a program ever loads it is not
    /// known, and a module for a library that nobody has installed harms nobody.
    pub fn of_shared(&self, object: &Path, interpreter: &Path) -> Vec<PathBuf> {
        let found = self.list(object, interpreter).unwrap_or_default();
        found.into_iter().flatten().collect()
    }

    /// What `interpreter` would load for `program`: paths on this machine, or the line that says that there is none.
    fn list(&self, program: &Path, interpreter: &Path) -> Result<Vec<Result<PathBuf, String>>, String> {
        if !interpreter.is_file() {
            return Err(format!(
                "its interpreter {} is not on this machine",
                interpreter.display()
            ));
        }
        // Without a slash the interpreter would look in its library path.
        let program = std::path::absolute(program).map_err(|error| error.to_string())?;
        let mut line = CommandLine::new(interpreter).arg("--list").arg(&program);
        for (name, value) in VARIABLES.into_iter().zip(&self.variables) {
            line = match value {
                Some(value) => line.var(name, value),
                // What our own environment adds is not there for the program.
                None => line.without_var(name),
            };
        }
        let output = line
            .command()
            .output()
            .map_err(|error| format!("cannot run {line}: {error}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{line} failed: {}", said.trim()));
        }
        Ok(listed(&String::from_utf8_lossy(&output.stdout)))
    }
}

/// The paths in what an interpreter lists: `libc.so.6 => /lib/libc.so.6 (0x…)`, or the path alone. What has no path is no file.
fn listed(text: &str) -> Vec<Result<PathBuf, String>> {
    let mut paths = Vec::new();
    for line in text.lines().map(str::trim) {
        let found = line.split_once(" => ").map_or(line, |(_, found)| found);
        if found == "not found" {
            paths.push(Err(line.to_owned()));
            continue;
        }
        let path = found.rsplit_once(" (0x").map_or(found, |(path, _)| path);
        if path.contains('/') {
            paths.push(Ok(path.into()));
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<PathBuf> {
        listed(text).into_iter().map(Result::unwrap).collect()
    }

    #[test]
    fn both_listings_are_understood() {
        let glibc = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                     \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(
            paths(glibc),
            [
                Path::new("/lib/x86_64-linux-gnu/libc.so.6"),
                Path::new("/lib64/ld-linux-x86-64.so.2")
            ]
        );
        let musl = "\t/lib/ld-musl-x86_64.so.1 (0x7f)\n\tlibc.so => /lib/ld-musl-x86_64.so.1 (0x7f)\n";
        assert_eq!(paths(musl), vec![Path::new("/lib/ld-musl-x86_64.so.1"); 2]);
        assert!(paths("\tstatically linked\n").is_empty());
    }

    #[test]
    fn what_a_relative_library_path_finds_is_relative() {
        let text =
            "\tlibown.so => lib/libown.so (0x7f)\n\t./libpreload.so (0x7f)\n\tlinux-vdso.so.1 (0x7f)\n";
        assert_eq!(
            paths(text),
            [Path::new("lib/libown.so"), Path::new("./libpreload.so")]
        );
    }

    #[test]
    fn a_missing_library_is_named_and_the_others_are_found() {
        let found = listed("\tlibnone.so.1 => not found\n\tlibc.so.6 => /lib/libc.so.6 (0x7f)\n");
        assert_eq!(
            found,
            [
                Err("libnone.so.1 => not found".into()),
                Ok("/lib/libc.so.6".into())
            ]
        );
    }
}
