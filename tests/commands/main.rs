//! The commands, end to end: xtask's own binary is run with good and bad input, and its exit status and words are
//! looked at. Each success has its refusals.

mod clones;
mod differences;
mod endings;
mod evictions;
mod faults;
mod guest_clones;
mod guest_elf;
mod guest_restores;
mod guest_snapshots;
mod images;
mod live_snapshots;
mod network;
mod programs;
mod restores;
mod setup;
mod snapshots;
mod tracking;
mod usage;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;
use xtask::elf::{cargo, executable_of};
use xtask::status::Status;

/// xtask's binary, built once.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let line = cargo().args([
            "build",
            "--package",
            "xtask",
            "--message-format=json-render-diagnostics",
        ]);
        executable_of(&line, "xtask").expect("xtask builds: these tests depend on its library")
    })
}

/// How a command ended and what it said.
pub struct Said {
    /// Its exit status.
    pub status: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self {
            status: output.status.code(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }
}

impl Said {
    /// Fails unless the command ended with `status` and said all of `words`, in any order, on either stream.
    #[track_caller]
    pub fn expect(self, status: Status, words: &[&str]) -> Self {
        let all = self.all();
        assert_eq!(
            self.status,
            Some(i32::from(status.code())),
            "{status:?} was expected; it said:\n{all}"
        );
        for word in words {
            assert!(all.contains(word), "{word:?} was expected; it said:\n{all}");
        }
        self
    }

    /// Both streams.
    pub fn all(&self) -> String {
        format!("{}\n{}", self.out, self.err)
    }

    /// The object that `--json` prints.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.all()))
    }
}

/// A figure of a report by its name.
#[track_caller]
pub fn figure(json: &Value, name: &str) -> u64 {
    let figures = json["report"]["figures"]
        .as_array()
        .expect("a report has figures");
    let found = figures.iter().find(|figure| figure["name"] == name);
    found
        .and_then(|figure| figure["value"].as_u64())
        .unwrap_or_else(|| panic!("no figure {name:?} in {figures:#?}"))
}

/// A command that has not been started.
pub fn command<A: AsRef<std::ffi::OsStr>>(args: &[A]) -> Command {
    let mut command = Command::new(binary());
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs `cargo xtask ARGS`.
pub fn xtask<A: AsRef<std::ffi::OsStr>>(args: &[A]) -> Said {
    command(args).output().expect("the binary was just built").into()
}

/// Runs an application for its report as JSON. `app` is its name, and what all tests of a file give it.
pub fn reported(machine: &[&str], app: &[&str], args: &[&str]) -> Said {
    xtask(&[machine, &["--timeout", "300", "--json"], app, args].concat())
}

/// A temporary folder with a file of `len` bytes in it that do not compress, the same for the same seed.
pub fn random_file(len: usize, seed: u64) -> (TempDir, String) {
    let dir = tempfile::tempdir().expect("the temporary folder is writable");
    let path = dir.path().join("snapshot");
    std::fs::write(&path, noise(len, seed)).expect("the temporary folder is writable");
    let path = path.to_str().expect("temporary paths are UTF-8").to_owned();
    (dir, path)
}

/// SplitMix64's stream.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let next = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()
    };
    std::iter::repeat_with(next).flatten().take(len).collect()
}
