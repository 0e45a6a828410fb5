//! Who may do what with a file: by its owner, its group and its permissions.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::abi::errno::Errno;
use crate::abi::stat::{S_IFDIR, S_IFMT, Stat};
use crate::task;

/// Executing, or searching a directory.
pub const MAY_EXECUTE: u32 = 1;
/// Writing.
pub const MAY_WRITE: u32 = 2;
/// Reading.
pub const MAY_READ: u32 = 4;

/// The superuser's number.
const ROOT: u32 = 0;
/// In a directory with this bit, only owners take names away.
const STICKY: u32 = 0o1000;

/// As whom files are used.
#[derive(Clone, Debug)]
pub struct User {
    uid: u32,
    gid: u32,
    groups: Arc<Vec<u32>>,
}

impl User {
    /// The current thread's, for files; the kernel's own tasks are root.
    pub fn current() -> Self {
        Self::of(|ids| ids.fs)
    }

    /// The one that the current thread's process belongs to, whoever it acts as (`access(2)`).
    pub fn real() -> Self {
        Self::of(|ids| ids.real)
    }

    fn of(which: fn(crate::process::credentials::Ids) -> u32) -> Self {
        let task = task::current();
        let Some(thread) = task.thread() else {
            return Self {
                uid: ROOT,
                gid: ROOT,
                groups: Arc::default(),
            };
        };
        let credentials = thread.credentials();
        Self {
            uid: which(credentials.user),
            gid: which(credentials.group),
            groups: credentials.groups,
        }
    }

    /// Owner and group of what it makes.
    pub fn ids(&self) -> (u32, u32) {
        (self.uid, self.gid)
    }

    /// Whether permissions do not matter, but for executing what nobody may.
    pub fn is_root(&self) -> bool {
        self.uid == ROOT
    }

    fn is_in(&self, group: u32) -> bool {
        self.gid == group || self.groups.contains(&group)
    }

    /// Whether it may do all of `wanted`.
    ///
    /// # Errors
    /// EACCES.
    pub fn may(&self, stat: &Stat, wanted: u32) -> Result<(), Errno> {
        let allowed = if self.is_root() {
            let executes = stat.mode & 0o111 != 0 || stat.mode & S_IFMT == S_IFDIR;
            MAY_READ | MAY_WRITE | if executes { MAY_EXECUTE } else { 0 }
        } else if self.uid == stat.uid {
            stat.mode >> 6
        } else if self.is_in(stat.gid) {
            stat.mode >> 3
        } else {
            stat.mode
        };
        if wanted & !allowed == 0 {
            Ok(())
        } else {
            Err(Errno::EACCES)
        }
    }

    /// Whether it may change what is known about a file.
    ///
    /// # Errors
    /// EPERM.
    pub fn must_own(&self, stat: &Stat) -> Result<(), Errno> {
        if self.is_root() || self.uid == stat.uid {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }

    /// Whether it may give a file to these; `None` stays.
    ///
    /// # Errors
    /// EPERM.
    pub fn may_give(&self, stat: &Stat, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
        let keeps = uid.is_none_or(|uid| uid == stat.uid);
        let own_group = gid.is_none_or(|gid| gid == stat.gid || self.is_in(gid));
        if self.is_root() || (self.uid == stat.uid && keeps && own_group) {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }

    /// Whether it may take the name of `file` out of `dir`.
    ///
    /// # Errors
    /// EACCES: not to be written. EPERM: only owners take names away there.
    pub fn may_remove(&self, dir: &Stat, file: &Stat) -> Result<(), Errno> {
        self.may(dir, MAY_WRITE | MAY_EXECUTE)?;
        if dir.mode & STICKY != 0 && !self.is_root() && self.uid != file.uid && self.uid != dir.uid {
            return Err(Errno::EPERM);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::stat::S_IFREG;

    fn user(uid: u32, gid: u32) -> User {
        User {
            uid,
            gid,
            groups: Arc::new(alloc::vec![7]),
        }
    }

    fn file(mode: u32) -> Stat {
        Stat {
            mode: S_IFREG | mode,
            uid: 1,
            gid: 7,
            ..Stat::default()
        }
    }

    #[test]
    fn the_first_that_fits_of_owner_group_and_others_counts() {
        let stat = file(0o046);
        assert_eq!(user(1, 7).may(&stat, MAY_READ), Err(Errno::EACCES), "the owner");
        assert_eq!(user(2, 2).may(&stat, MAY_READ), Ok(()), "by a further group");
        assert_eq!(user(2, 2).may(&stat, MAY_WRITE), Err(Errno::EACCES));
        let stranger = User {
            groups: Arc::default(),
            ..user(2, 2)
        };
        assert_eq!(stranger.may(&stat, MAY_READ | MAY_WRITE), Ok(()));
    }

    #[test]
    fn root_may_all_but_execute_what_nobody_may() {
        assert_eq!(user(0, 0).may(&file(0), MAY_READ | MAY_WRITE), Ok(()));
        assert_eq!(user(0, 0).may(&file(0o644), MAY_EXECUTE), Err(Errno::EACCES));
        assert_eq!(user(0, 0).may(&file(0o100), MAY_EXECUTE), Ok(()));
        let dir = Stat {
            mode: S_IFDIR,
            ..Stat::default()
        };
        assert_eq!(user(0, 0).may(&dir, MAY_EXECUTE), Ok(()));
    }

    #[test]
    fn sticky_directories_keep_names_for_their_owners() {
        let dir = Stat {
            mode: S_IFDIR | 0o1777,
            ..Stat::default()
        };
        assert_eq!(user(2, 2).may_remove(&dir, &file(0o666)), Err(Errno::EPERM));
        assert_eq!(user(1, 1).may_remove(&dir, &file(0o666)), Ok(()));
        assert_eq!(user(0, 0).may_remove(&dir, &file(0o666)), Ok(()));
    }

    #[test]
    fn owners_give_files_to_their_groups_only() {
        let stat = file(0o644);
        assert_eq!(user(1, 1).may_give(&stat, None, Some(7)), Ok(()));
        assert_eq!(user(1, 1).may_give(&stat, None, Some(8)), Err(Errno::EPERM));
        assert_eq!(user(1, 1).may_give(&stat, Some(2), None), Err(Errno::EPERM));
        assert_eq!(user(2, 2).must_own(&stat), Err(Errno::EPERM));
    }
}
