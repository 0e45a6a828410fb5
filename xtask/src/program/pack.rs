//! Which file comes where in the file system of a program.
//!
//! | on the command line | in the file system |
//! | --- | --- |
//! | `/opt/prog` | `/opt/prog` |
//! | `prog`, `./prog`, `dir/prog` | `/root/prog`, `/root/dir/prog`: the working directory is `/root` |
//! | `../prog` | `/root/prog`: what lies outside the working directory keeps its base name |
//! | `--file HOST` | as for the program |
//! | `--file HOST:/etc/x` | `/etc/x`; of a directory, its content below `/etc/x` |
//! | `--file HOST:/etc/` | `/etc/HOST`'s base name, unless HOST is a directory |
//!
//! A directory is packed with everything below it, symbolic links as links; what is named itself is followed. Permissions are
//! kept; sockets, pipes and devices are left out. Members below `.faultline` are for the kernel: arguments, environment, the path of
//! the program, and its standard input where that is known.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Ending;
use super::elf::{Kind, kind_of};
use super::libs::Search;
use crate::cpio::Archive;
use crate::process::which;

/// Where relative paths lie.
const HOME: &str = "/root";
/// Where the members for the kernel are.
const RESERVED: &str = ".faultline";
/// The environment, unless it is changed.
const DEFAULT_ENV: [(&str, &str); 2] = [("HOME", HOME), ("PATH", "/usr/local/bin:/usr/bin:/bin")];

/// What to run, as it was asked for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The program as typed: a path of the host, or one in the file system when a file was put there.
    pub program: OsString,
    /// Its arguments, without its name.
    pub args: Vec<OsString>,
    /// `KEY=VALUE`, or `KEY` for that of our own environment.
    pub env: Vec<OsString>,
    /// `HOST` or `HOST:GUEST`.
    pub files: Vec<OsString>,
    /// Whether to pack what dynamic programs, scripts and shared code need besides themselves.
    pub libs: bool,
}

/// A file system in the making.
#[derive(Debug)]
pub struct Packing {
    archive: Archive,
    /// Shared code, and programs in directories, that were packed where they are on the host; and the interpreter of the first
    /// dynamic program.
    shared: Vec<PathBuf>,
    interpreter: Option<PathBuf>,
    search: Search,
    /// What was left out, a sentence each.
    pub notes: Vec<String>,
}

/// What keeps a request from being packed.
type Refusal = Ending;

fn wrong(message: impl Into<String>) -> Refusal {
    Ending::Failed(message.into())
}

impl Packing {
    /// Finds everything that was asked for. Files are read later, when the ramdisk is written.
    ///
    /// # Errors
    /// The program is not there or cannot be executed, or something else is wrong with the request.
    pub fn new(request: &Request) -> Result<Self, Refusal> {
        let env = environment(&request.env)?;
        let mut packing = Self {
            archive: Archive::new(),
            shared: Vec::new(),
            interpreter: None,
            search: Search::new(|name| env.get(OsStr::new(name)).cloned()),
            notes: Vec::new(),
        };
        let program = guest_path(text(&request.program)?)?;
        let argv = [&request.program].into_iter().chain(&request.args);
        packing.member("args", strings(argv.map(OsString::as_os_str)));
        packing.member("env", variables(&env));
        packing.member("program", program.clone().into_bytes());
        for file in &request.files {
            packing.file_argument(file, request.libs)?;
        }
        // A file that was put at the program's place is meant, whatever the host has there.
        if !packing.archive.contains(name(&program)) {
            packing.program(Path::new(&request.program), &program, request.libs)?;
        }
        if request.libs {
            packing.libraries_of_shared_code()?;
        }
        Ok(packing)
    }

    /// Makes `bytes` the program's standard input.
    pub fn set_input(&mut self, bytes: &[u8]) {
        self.member("stdin", bytes.to_vec());
    }

    /// The ramdisk.
    pub fn into_archive(self) -> Archive {
        self.archive
    }

    fn member(&mut self, member: &str, content: Vec<u8>) {
        self.archive.add(&format!("{RESERVED}/{member}"), content);
    }

    fn program(&mut self, host: &Path, guest: &str, with_libs: bool) -> Result<(), Refusal> {
        let shown = host.display();
        let about = match host.metadata() {
            Ok(about) => about,
            Err(error) => return Err(not_found(host, &error)),
        };
        if !about.is_file() {
            return Err(Ending::NotExecutable("it is not a regular file".into()));
        }
        if about.permissions().mode() & 0o111 == 0 {
            return Err(Ending::NotExecutable(format!(
                "{shown} has no permission to be executed; chmod +x gives it"
            )));
        }
        let kind = kind_of(host).map_err(|error| Ending::NotExecutable(error.to_string()))?;
        if let Kind::Other(why) = kind {
            return Err(Ending::NotExecutable(why.into()));
        }
        self.regular(host, guest, &about)?;
        if with_libs {
            return self.libraries(host);
        }
        let (what, needed) = match &kind {
            Kind::Elf(Some(interpreter)) => ("it is linked dynamically, and its interpreter", interpreter),
            Kind::Script(Some(program)) if program.is_absolute() => {
                ("its first line names a program, and", program)
            }
            _ => return Ok(()),
        };
        if self.may_have(text(needed.as_os_str())?) {
            return Ok(());
        }
        Err(Ending::NotExecutable(format!(
            "{what} {} is not in the file system; --libs packs it, and the libraries with it",
            needed.display()
        )))
    }

    /// Whether the program may find this path: it was packed, or lies where a packed symbolic link may lead elsewhere.
    fn may_have(&self, guest: &str) -> bool {
        let path = name(guest);
        let mut above = path.match_indices('/').map(|(end, _)| &path[..end]);
        self.archive.contains(path) || above.any(|path| self.archive.is_symlink(path))
    }

    /// Packs one `--file`.
    fn file_argument(&mut self, argument: &OsStr, with_libs: bool) -> Result<(), Refusal> {
        let (host, guest) = split(argument)?;
        let about = host
            .metadata()
            .map_err(|error| wrong(format!("--file {}: {error}", host.display())))?;
        let guest = match guest {
            Some(guest) if guest.ends_with('/') && !about.is_dir() => {
                let base = host.file_name().unwrap_or_default();
                guest_path(&format!("{guest}{}", text(base)?))?
            }
            Some(guest) => guest_path(&guest)?,
            None => guest_path(text(host.as_os_str())?)?,
        };
        if about.is_dir() {
            return self.directory(&host, &guest, &about);
        }
        if !about.is_file() {
            return Err(wrong(format!(
                "--file {}: neither a regular file nor a directory",
                host.display()
            )));
        }
        self.regular(&host, &guest, &about)?;
        if with_libs {
            self.libraries(&host)?;
        }
        Ok(())
    }

    /// Packs what `host` needs to be executed, where it is on the host: the interpreter and the libraries of a dynamic program,
    /// or the program that a script is for, with those.
    fn libraries(&mut self, host: &Path) -> Result<(), Refusal> {
        let kind = kind_of(host).map_err(|error| wrong(format!("{}: {error}", host.display())))?;
        match kind {
            Kind::Elf(Some(interpreter)) => {
                for library in self
                    .search
                    .of(host, &interpreter)
                    .map_err(Ending::NotExecutable)?
                {
                    self.as_on_the_host(&library)?;
                }
                self.interpreter.get_or_insert(interpreter);
            }
            Kind::Shared => self.shared.push(host.to_owned()),
            // What was put in its place is meant, whatever the host has there. One that is nowhere is refused by the kernel.
            Kind::Script(Some(program)) => {
                if program.is_absolute() && !self.may_have(text(program.as_os_str())?) && program.is_file() {
                    self.as_on_the_host(&program)?;
                    return self.libraries(&program);
                }
            }
            Kind::Elf(None) | Kind::Script(None) | Kind::Other(_) => {}
        }
        Ok(())
    }

    /// Packs the libraries of shared code, which a program may load by itself, and of the programs in directories. What was packed
    /// by name stays.
    fn libraries_of_shared_code(&mut self) -> Result<(), Refusal> {
        let objects = core::mem::take(&mut self.shared);
        let own: Vec<Option<PathBuf>> = objects
            .iter()
            .map(|object| match kind_of(object) {
                Ok(Kind::Elf(interpreter)) => interpreter,
                _ => None,
            })
            .collect();
        let usual = self.interpreter.clone();
        let usual = usual.or_else(|| own.iter().flatten().next().cloned());
        for (object, own) in objects.iter().zip(own) {
            let Some(interpreter) = own.or_else(|| usual.clone()) else {
                continue;
            };
            for library in self.search.of_shared(object, &interpreter) {
                if !self.may_have(text(library.as_os_str())?) {
                    self.as_on_the_host(&library)?;
                }
            }
        }
        Ok(())
    }

    /// Packs a file of the host at its own place.
    fn as_on_the_host(&mut self, path: &Path) -> Result<(), Refusal> {
        let about = path
            .metadata()
            .map_err(|error| wrong(format!("{}: {error}", path.display())))?;
        let guest = guest_path(text(path.as_os_str())?)?;
        self.regular(path, &guest, &about)
    }

    fn regular(&mut self, host: &Path, guest: &str, about: &Metadata) -> Result<(), Refusal> {
        // What cannot be read is said now, and not when half of the ramdisk is written.
        fs::File::open(host).map_err(|error| wrong(format!("{}: {error}", host.display())))?;
        self.parents(guest)?;
        self.archive
            .add_file(name(guest), about.permissions().mode(), host, about.len());
        Ok(())
    }

    fn directory(&mut self, host: &Path, guest: &str, about: &Metadata) -> Result<(), Refusal> {
        let unreadable = |error: std::io::Error| wrong(format!("{}: {error}", host.display()));
        if guest != "/" {
            self.parents(guest)?;
            self.archive
                .add_directory(name(guest), about.permissions().mode());
        }
        let mut entries: Vec<PathBuf> = fs::read_dir(host)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
            .map_err(unreadable)?;
        entries.sort();
        for path in entries {
            let base = text(path.file_name().unwrap_or_default())?;
            let inner = format!("{}/{base}", guest.trim_end_matches('/'));
            self.entry(&path, &inner)?;
        }
        Ok(())
    }

    /// Packs what stands in a directory.
    fn entry(&mut self, host: &Path, guest: &str) -> Result<(), Refusal> {
        let about = host
            .symlink_metadata()
            .map_err(|error| wrong(format!("{}: {error}", host.display())))?;
        if about.is_dir() {
            self.directory(host, guest, &about)
        } else if about.is_file() {
            // What is put elsewhere comes from a system of its own, whose libraries are not this machine's.
            if host == Path::new(guest) && matches!(kind_of(host), Ok(Kind::Shared | Kind::Elf(Some(_)))) {
                self.shared.push(host.to_owned());
            }
            self.regular(host, guest, &about)
        } else if about.is_symlink() {
            let target =
                fs::read_link(host).map_err(|error| wrong(format!("{}: {error}", host.display())))?;
            self.parents(guest)?;
            self.archive.add_symlink(name(guest), text(target.as_os_str())?);
            Ok(())
        } else {
            self.notes.push(format!(
                "{} is left out: it is a socket, a pipe or a device",
                host.display()
            ));
            Ok(())
        }
    }

    /// Adds the directories that lead to `guest`.
    fn parents(&mut self, guest: &str) -> Result<(), Refusal> {
        let path = name(guest);
        if path == RESERVED || path.starts_with(&format!("{RESERVED}/")) {
            return Err(wrong(format!("/{RESERVED} is not for files of the program")));
        }
        for (end, _) in path.match_indices('/') {
            if !self.archive.contains(&path[..end]) {
                self.archive.add_directory(&path[..end], 0o755);
            }
        }
        Ok(())
    }
}

fn not_found(host: &Path, error: &std::io::Error) -> Refusal {
    let found = host.to_str().filter(|text| !text.contains('/')).and_then(which);
    let hint = found.map_or(String::new(), |found| {
        format!("; programs are not looked for in PATH: give {}", found.display())
    });
    match error.kind() {
        std::io::ErrorKind::NotFound => Ending::NotFound(format!("there is no such file{hint}")),
        _ => Ending::NotExecutable(error.to_string()),
    }
}

/// A guest path as the name of an archive's entry.
fn name(guest: &str) -> &str {
    guest.trim_start_matches('/')
}

fn text(path: &OsStr) -> Result<&str, Refusal> {
    path.to_str()
        .ok_or_else(|| wrong(format!("{}: the name is no UTF-8", path.display())))
}

/// Where a path of the host is for the program: see the table above.
fn guest_path(path: &str) -> Result<String, Refusal> {
    if path.is_empty() {
        return Err(wrong("an empty path names no file"));
    }
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    let absolute = path.starts_with('/');
    if !parts.contains(&"..") {
        let below = if absolute { "" } else { HOME };
        let joined = format!("{below}/{}", parts.join("/"));
        return Ok(or_root(joined.trim_end_matches('/').to_owned()));
    }
    if absolute {
        return Ok(or_root(without_dots(&parts)));
    }
    match parts.last() {
        Some(&base) if base != ".." => Ok(format!("{HOME}/{base}")),
        _ => Err(wrong(format!(
            "{path}: say where it shall be, as in {path}:/somewhere"
        ))),
    }
}

fn or_root(path: String) -> String {
    if path.is_empty() { "/".into() } else { path }
}

/// An absolute path without `..`, by its words alone.
fn without_dots(parts: &[&str]) -> String {
    let mut kept = Vec::new();
    for &part in parts {
        if part == ".." {
            kept.pop();
        } else {
            kept.push(part);
        }
    }
    kept.iter().map(|part| format!("/{part}")).collect()
}

/// `HOST` or `HOST:GUEST`, at the last colon; a file whose own name has the colon is meant whole.
fn split(argument: &OsStr) -> Result<(PathBuf, Option<String>), Refusal> {
    let whole = Path::new(argument);
    let bytes = argument.as_bytes();
    match bytes.iter().rposition(|byte| *byte == b':') {
        Some(colon) if !whole.exists() => {
            let (host, guest) = (&bytes[..colon], &bytes[colon + 1..]);
            let host = OsString::from_vec(host.to_vec());
            Ok((host.into(), Some(text(OsStr::from_bytes(guest))?.to_owned())))
        }
        _ => Ok((whole.to_owned(), None)),
    }
}

/// Each ended by NUL.
fn strings<'a>(all: impl Iterator<Item = &'a OsStr>) -> Vec<u8> {
    all.flat_map(|text| text.as_bytes().iter().copied().chain([0]))
        .collect()
}

fn environment(changes: &[OsString]) -> Result<BTreeMap<OsString, OsString>, Refusal> {
    let mut all: BTreeMap<OsString, OsString> = DEFAULT_ENV
        .iter()
        .map(|(key, value)| (OsString::from(key), OsString::from(value)))
        .collect();
    for change in changes {
        let bytes = change.as_bytes();
        let (key, value) = match bytes.iter().position(|byte| *byte == b'=') {
            Some(0) => return Err(wrong(format!("--env {}: no name before the =", change.display()))),
            Some(at) => (&bytes[..at], Some(OsString::from_vec(bytes[at + 1..].to_vec()))),
            None => (bytes, std::env::var_os(change)),
        };
        if let Some(value) = value {
            all.insert(OsString::from_vec(key.to_vec()), value);
        }
    }
    Ok(all)
}

/// The member that carries an environment.
fn variables(env: &BTreeMap<OsString, OsString>) -> Vec<u8> {
    let pair = |(key, value): (&OsString, &OsString)| {
        let mut pair = key.clone();
        pair.push("=");
        pair.push(value);
        pair
    };
    let pairs: Vec<OsString> = env.iter().map(pair).collect();
    strings(pairs.iter().map(OsString::as_os_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with an executable script `prog`, the cheapest program there is. What it is for is left to the kernel.
    fn folder() -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("prog");
        fs::write(&path, "#!sh\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let path = path.to_str().unwrap().to_owned();
        (dir, path)
    }

    fn request(program: &str, files: &[&str]) -> Request {
        Request {
            program: program.into(),
            files: files.iter().map(OsString::from).collect(),
            ..Request::default()
        }
    }

    fn names(request: &Request) -> Vec<String> {
        let packing = Packing::new(request).unwrap();
        packing.into_archive().names().map(str::to_owned).collect()
    }

    fn refused(request: &Request) -> (u8, String) {
        let ending = Packing::new(request).unwrap_err();
        (ending.code(), ending.sentence("prog").unwrap())
    }

    #[test]
    fn paths_of_the_host_have_their_place() {
        for (host, guest) in [
            ("/opt/prog", "/opt/prog"),
            ("//opt/./prog", "/opt/prog"),
            ("/opt/../prog", "/prog"),
            ("/..", "/"),
            ("/", "/"),
            ("prog", "/root/prog"),
            ("./prog", "/root/prog"),
            ("a/b/prog", "/root/a/b/prog"),
            ("../x/prog", "/root/prog"),
            ("a/../prog", "/root/prog"),
            (".", "/root"),
        ] {
            assert_eq!(guest_path(host).unwrap(), guest, "{host}");
        }
        assert!(guest_path("").is_err());
        assert!(guest_path("..").is_err());
    }

    #[test]
    fn the_kernels_members_stand_at_the_front() {
        let (_dir, prog) = folder();
        let names = names(&request(&prog, &[]));
        assert_eq!(
            names[..3],
            [".faultline/args", ".faultline/env", ".faultline/program"]
        );
        assert_eq!(names.last().unwrap(), name(&prog));
        let parent = Path::new(name(&prog)).parent().unwrap().to_str().unwrap();
        assert!(names.iter().any(|name| name == parent), "{names:?}");
    }

    #[test]
    fn arguments_and_environment_are_ended_by_nul() {
        let args = ["./x", "two words", ""].map(OsString::from);
        assert_eq!(
            strings(args.iter().map(OsString::as_os_str)),
            b"./x\0two words\0\0"
        );
        let env = environment(&["B=1=2".into(), "HOME=/".into(), "FAULTLINE_NOT_SET".into()]).unwrap();
        assert_eq!(
            variables(&env),
            b"B=1=2\0HOME=/\0PATH=/usr/local/bin:/usr/bin:/bin\0"
        );
        assert!(environment(&["=x".into()]).is_err());
    }

    #[test]
    fn a_variable_without_a_value_is_our_own() {
        let path = std::env::var("PATH").unwrap();
        let env = environment(&["PATH".into()]).unwrap();
        assert!(String::from_utf8_lossy(&variables(&env)).contains(&format!("PATH={path}\0")));
    }

    #[test]
    fn files_are_put_where_they_are_wanted() {
        let (dir, prog) = folder();
        fs::create_dir_all(dir.path().join("tree/sub")).unwrap();
        fs::write(dir.path().join("tree/sub/file"), "x").unwrap();
        std::os::unix::fs::symlink("sub/file", dir.path().join("tree/link")).unwrap();
        fs::write(dir.path().join("a:b"), "x").unwrap();
        let host = |rest: &str| format!("{}/{rest}", dir.path().display());
        let has = |file: &str, wanted: &[&str]| {
            let all = names(&request(&prog, &[&host(file)]));
            for name in wanted {
                assert!(all.iter().any(|have| have == name), "{name} of {file}: {all:?}");
            }
        };
        has("prog:/etc/x", &["etc", "etc/x"]);
        has("prog:/etc/", &["etc/prog"]);
        has("prog:x", &["root/x"]);
        has("tree:/", &["sub", "sub/file", "link"]);
        has("tree:/opt/t", &["opt", "opt/t", "opt/t/sub/file", "opt/t/link"]);
        has("a:b", &[name(&host("a:b"))]);
    }

    #[test]
    fn a_program_that_was_put_in_place_needs_no_file_of_the_host() {
        let (_dir, prog) = folder();
        let all = names(&request("/bin/nowhere", &[&format!("{prog}:/bin/nowhere")]));
        assert_eq!(all.last().unwrap(), "bin/nowhere");
    }

    #[test]
    fn a_program_that_is_not_there_is_127_and_one_that_cannot_be_executed_126() {
        let (dir, prog) = folder();
        assert_eq!(refused(&request("/nonexistent/prog", &[])).0, 127);
        assert_eq!(refused(&request(dir.path().to_str().unwrap(), &[])).0, 126);
        fs::write(&prog, "just text").unwrap();
        let (code, why) = refused(&request(&prog, &[]));
        assert!(code == 126 && why.contains("neither an ELF"), "{code} {why}");
        fs::set_permissions(&prog, fs::Permissions::from_mode(0o644)).unwrap();
        let (code, why) = refused(&request(&prog, &[]));
        assert!(code == 126 && why.contains("chmod"), "{code} {why}");
    }

    #[test]
    fn a_program_of_the_path_is_named_with_its_place() {
        let (code, why) = refused(&request("sh", &[]));
        assert!(code == 127 && why.contains("/sh"), "{code} {why}");
    }

    #[test]
    fn wrong_files_are_refused_by_name() {
        let (dir, prog) = folder();
        for (file, word) in [
            ("/nonexistent", "/nonexistent"),
            ("/dev/null", "/dev/null"),
            (&format!("{prog}:/.faultline/args"), ".faultline"),
            (&format!("{}:..", dir.path().display()), "somewhere"),
        ] {
            let (code, why) = refused(&request(&prog, &[file]));
            assert!(code == 125 && why.contains(word), "{file}: {code} {why}");
        }
    }

    #[test]
    fn a_dynamic_program_needs_its_interpreter() {
        let me = std::env::current_exe().unwrap();
        let mut request = request(me.to_str().unwrap(), &[]);
        let (code, why) = refused(&request);
        assert!(code == 126 && why.contains("--libs"), "{code} {why}");
        request.libs = true;
        let all = names(&request);
        assert!(all.iter().any(|name| name.contains("libc.so")), "{all:?}");
        assert!(all.iter().any(|name| name.contains("ld-")), "{all:?}");
    }

    #[test]
    fn a_script_needs_the_program_that_its_first_line_names() {
        let (_dir, prog) = folder();
        fs::write(&prog, "#!/bin/sh\n").unwrap();
        let (code, why) = refused(&request(&prog, &[]));
        assert!(
            code == 126 && why.contains("/bin/sh") && why.contains("--libs"),
            "{code} {why}"
        );
        let with_libs = Request {
            libs: true,
            ..request(&prog, &[])
        };
        let all = names(&with_libs);
        assert!(all.iter().any(|name| name == "bin/sh"), "{all:?}");
        // One that was put there is not replaced, nor one behind a symbolic link.
        let placed = format!("{prog}:/bin/sh");
        assert!(
            names(&request(&prog, &[&placed]))
                .iter()
                .any(|name| name == "bin/sh")
        );
        let (root, _) = folder();
        std::os::unix::fs::symlink("usr/bin", root.path().join("bin")).unwrap();
        let all = names(&request(&prog, &[&format!("{}:/", root.path().display())]));
        assert!(!all.iter().any(|name| name == "bin/sh"), "{all:?}");
    }

    /// What Rust's own linker makes of `source`, which is C.
    fn compile(source: &str, output: &Path, options: &[&str]) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("source.c");
        fs::write(&file, source).unwrap();
        let mut cc = std::process::Command::new("cc");
        let built = cc.arg(&file).args(options).arg("-o").arg(output).status();
        assert!(
            built.is_ok_and(|status| status.success()),
            "Rust's own linker is there"
        );
    }

    #[test]
    fn libraries_are_found_as_the_programs_environment_says() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().to_str().unwrap();
        compile(
            "int own(void) { return 0; }",
            &dir.path().join("libown.so"),
            &["-shared"],
        );
        let program = dir.path().join("prog");
        let from = format!("-L{folder}");
        compile(
            "int own(void); int main(void) { return own(); }",
            &program,
            &[&from, "-lown"],
        );
        let mut request = Request {
            libs: true,
            ..request(program.to_str().unwrap(), &[])
        };
        let (code, why) = refused(&request);
        assert!(code == 126 && why.contains("libown.so"), "{code} {why}");
        request.env = vec![format!("LD_LIBRARY_PATH={folder}").into()];
        let all = names(&request);
        let place = format!("{folder}/libown.so");
        assert!(all.iter().any(|name| name == super::name(&place)), "{all:?}");
        // A thread of a C program that is cancelled needs what the program does not name.
        if all.iter().any(|name| name.ends_with("/libc.so.6")) {
            assert!(all.iter().any(|name| name.ends_with("/libgcc_s.so.1")), "{all:?}");
        }
    }

    #[test]
    fn libraries_of_shared_code_are_packed_too() {
        let me = std::env::current_exe().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let module = dir.path().join("module.so");
        compile(
            "",
            &module,
            &["-shared", "-nostdlib", "-Wl,--no-as-needed", "-lresolv"],
        );
        let folder = dir.path().to_str().unwrap();
        let of = |files: &[&str]| {
            names(&Request {
                libs: true,
                ..request(me.to_str().unwrap(), files)
            })
        };
        let has = |names: &[String]| names.iter().any(|name| name.contains("libresolv.so"));
        assert!(!has(&of(&[])));
        assert!(has(&of(&[folder])));
        assert!(has(&of(&[module.to_str().unwrap()])));
        // A program in a directory has them too.
        let copy = dir.path().join("prog");
        fs::copy(&me, &copy).unwrap();
        let all = names(&Request {
            libs: true,
            ..request(copy.to_str().unwrap(), &[folder])
        });
        assert!(
            has(&all) && all.iter().any(|name| name.contains("libc.so")),
            "{all:?}"
        );
        // Elsewhere it belongs to a system of its own.
        assert!(!has(&of(&[&format!("{folder}:/usr/lib")])));
    }
}
