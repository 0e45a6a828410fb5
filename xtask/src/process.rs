//! Command lines: built once, printed as they can be typed, then run.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::Path;
use std::process::Command;

/// A program with its arguments and variables.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommandLine {
    program: OsString,
    args: Vec<OsString>,
    vars: Vec<(OsString, OsString)>,
    unset: Vec<OsString>,
}

impl CommandLine {
    /// A program without arguments.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            vars: Vec::new(),
            unset: Vec::new(),
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn var(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.vars.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Keeps an environment variable of ours from the program. Not shown: a person's shell has no such variable.
    #[must_use]
    pub fn without_var(mut self, name: &str) -> Self {
        self.unset.push(name.into());
        self
    }

    /// The process to start.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        self.unset.iter().for_each(|name| {
            command.env_remove(name);
        });
        command
            .args(&self.args)
            .envs(self.vars.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The program's name.
    pub fn program(&self) -> String {
        self.program.to_string_lossy().into_owned()
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.vars {
            write!(f, "{}={} ", name.to_string_lossy(), quoted(value))?;
        }
        f.write_str(&quoted(&self.program))?;
        for arg in &self.args {
            write!(f, " {}", quoted(arg))?;
        }
        Ok(())
    }
}

/// An argument as a POSIX shell reads it back.
fn quoted(arg: &OsStr) -> String {
    let text = arg.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+,./:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// Finds a program in `PATH`.
pub fn which(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| is_executable(file))
}

#[cfg(unix)]
fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(file: &Path) -> bool {
    file.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_what_is_printed() {
        let awkward = [
            "plain",
            "two words",
            "",
            "it's",
            "$HOME",
            "a\\b",
            "x=1,y=\"2\"",
            "*",
        ];
        let line = CommandLine::new("printf")
            .arg("%s\\n")
            .args(awkward)
            .var("V", "a b");
        let output = Command::new("sh")
            .arg("-c")
            .arg(line.to_string())
            .output()
            .unwrap();
        assert!(output.status.success());
        let lines: Vec<&str> = std::str::from_utf8(&output.stdout).unwrap().lines().collect();
        assert_eq!(lines, awkward);
    }

    #[test]
    fn programs_are_found_by_name() {
        assert!(which("sh").is_some());
        assert_eq!(which("faultline-no-such-program"), None);
    }
}
