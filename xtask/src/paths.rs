//! Where things are: the workspace, and xtask's own folder below `target/`.
//!
//! ```text
//! target/faultline/
//!   images/    disk images left by `image`
//!   reports/   a JSON file per run
//!   runs/      the last run of each kind: ramdisk, disk image, records, serial output, emulator log
//! ```

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::Context;

/// The root of the workspace that this xtask was built from.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask/ lies in the workspace")
}

/// Cargo's target folder: `CARGO_TARGET_DIR`, else `target/` of the workspace.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) if !dir.is_empty() => workspace().join(dir),
        _ => workspace().join("target"),
    }
}

/// xtask's own folder of the given name, created when missing.
///
/// # Errors
/// When it cannot be created.
pub fn folder(name: &str) -> anyhow::Result<PathBuf> {
    let dir = target().join("faultline").join(name);
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

/// The folder `name` for what is fetched once and lies outside the workspace: below `faultline` in the user's cache folder
/// (`XDG_CACHE_HOME`, else `~/.cache`). Created when missing.
///
/// # Errors
/// When it cannot be created, or no variable says where.
pub fn cache(name: &str) -> anyhow::Result<PathBuf> {
    let set = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty());
    let base = match (set("XDG_CACHE_HOME"), set("HOME")) {
        (Some(cache), _) => PathBuf::from(cache),
        (None, Some(home)) => Path::new(&home).join(".cache"),
        (None, None) => anyhow::bail!("neither XDG_CACHE_HOME nor HOME says where the cache folder is"),
    };
    let dir = base.join("faultline").join(name);
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

/// The folder of one run. It keeps its files after the run, so that the printed command line can be repeated, and is
/// taken over by the next run of the same name; a lock keeps two runs at the same time apart.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    _lock: File,
}

impl RunDir {
    /// Takes `runs/<name>`, or `runs/<name>-2` and so on while another run holds it.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn take(name: &str) -> anyhow::Result<Self> {
        Self::take_in(&folder("runs")?, name)
    }

    fn take_in(runs: &Path, name: &str) -> anyhow::Result<Self> {
        for number in 1_u32.. {
            let path = runs.join(if number == 1 {
                name.to_owned()
            } else {
                format!("{name}-{number}")
            });
            std::fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
            let lock_path = path.join(".lock");
            let lock =
                File::create(&lock_path).with_context(|| format!("cannot write {}", lock_path.display()))?;
            match lock.try_lock() {
                Ok(()) => return Ok(Self { path, _lock: lock }),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock {}", lock_path.display()));
                }
            }
        }
        unreachable!("the loop ends only by returning")
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Creates an empty file in it, or empties it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn fresh(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.file(name);
        File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

/// `path` relative to the current folder when it lies below it, for messages.
pub fn shown(path: &Path) -> String {
    let below = std::env::current_dir()
        .ok()
        .and_then(|dir| path.strip_prefix(dir).ok().map(Path::to_owned));
    below.unwrap_or_else(|| path.to_owned()).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_at_once_get_different_folders_and_a_freed_one_is_reused() {
        let dir = tempfile::tempdir().unwrap();
        let first = RunDir::take_in(dir.path(), "restore").unwrap();
        let second = RunDir::take_in(dir.path(), "restore").unwrap();
        assert_ne!(first.path, second.path);
        let path = first.path.clone();
        drop(first);
        assert_eq!(RunDir::take_in(dir.path(), "restore").unwrap().path, path);
    }
}
