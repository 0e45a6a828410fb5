//! Who a thread acts as (Linux: `struct cred`). Threads have their own; libraries keep those of a process alike.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::abi::errno::Errno;

/// The user who may do everything.
pub const ROOT: u32 = 0;
/// "As it is", in the calls that set several numbers.
pub const UNCHANGED: u32 = u32::MAX;

/// Capabilities, by number (`linux/capability.h`).
pub mod capability {
    /// Kill processes of others.
    pub const KILL: u32 = 5;
    /// Set groups.
    pub const SETGID: u32 = 6;
    /// Set users.
    pub const SETUID: u32 = 7;
    /// Give and take capabilities.
    pub const SETPCAP: u32 = 8;
    /// Look into other processes; open a context for kernel faults.
    pub const SYS_PTRACE: u32 = 19;
    /// Everything else.
    pub const SYS_ADMIN: u32 = 21;
    /// Raise priorities.
    pub const SYS_NICE: u32 = 23;
    /// Exceed limits.
    pub const SYS_RESOURCE: u32 = 24;
    /// The highest (`CAP_CHECKPOINT_RESTORE`).
    pub const LAST: u32 = 40;
    /// All of them.
    pub const ALL: u64 = (1 << (LAST + 1)) - 1;
    /// Those that are about files, and go by the user of files: CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID,
    /// LINUX_IMMUTABLE, MKNOD, MAC_OVERRIDE.
    pub const OF_FILES: u64 = 0b1_1111 | 1 << 9 | 1 << 27 | 1 << 32;
}

/// The three numbers of a user or a group, and the one that files go by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ids {
    /// Whose process it is.
    pub real: u32,
    /// As whom it acts.
    pub effective: u32,
    /// As whom it may act again.
    pub saved: u32,
    /// For files.
    pub fs: u32,
}

impl Ids {
    /// All the same.
    const fn all(id: u32) -> Self {
        Self {
            real: id,
            effective: id,
            saved: id,
            fs: id,
        }
    }

    fn has(&self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }

    /// `setresuid` and `setresgid`.
    fn set_all(self, real: u32, effective: u32, saved: u32, may: bool) -> Result<Self, Errno> {
        if !may
            && [real, effective, saved]
                .iter()
                .any(|id| *id != UNCHANGED && !self.has(*id))
        {
            return Err(Errno::EPERM);
        }
        let or = |new, old| if new == UNCHANGED { old } else { new };
        let effective = or(effective, self.effective);
        Ok(Self {
            real: or(real, self.real),
            effective,
            saved: or(saved, self.saved),
            fs: effective,
        })
    }

    /// `setreuid` and `setregid`.
    fn set_two(self, real: u32, effective: u32, may: bool) -> Result<Self, Errno> {
        let real_ok = real == UNCHANGED || real == self.real || real == self.effective;
        if !may && !(real_ok && (effective == UNCHANGED || self.has(effective))) {
            return Err(Errno::EPERM);
        }
        let or = |new, old| if new == UNCHANGED { old } else { new };
        let (new_real, new_effective) = (or(real, self.real), or(effective, self.effective));
        let keeps = real == UNCHANGED && (effective == UNCHANGED || effective == self.real);
        Ok(Self {
            real: new_real,
            effective: new_effective,
            saved: if keeps { self.saved } else { new_effective },
            fs: new_effective,
        })
    }

    /// `setfsuid` and `setfsgid`: who may not is not told so. What it was.
    fn set_of_files(&mut self, id: u32, may: bool) -> u32 {
        let old = self.fs;
        if id != UNCHANGED && (may || self.has(id) || id == old) {
            self.fs = id;
        }
        old
    }

    /// `setuid` and `setgid`.
    fn set_one(self, id: u32, may: bool) -> Result<Self, Errno> {
        if may {
            Ok(Self::all(id))
        } else if id == self.real || id == self.saved {
            Ok(Self {
                effective: id,
                fs: id,
                ..self
            })
        } else {
            Err(Errno::EPERM)
        }
    }
}

/// Sets of capabilities, a bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// Those that count now.
    pub effective: u64,
    /// Those that may be made effective.
    pub permitted: u64,
    /// Those that programs may hand on.
    pub inheritable: u64,
    /// Those that can still be had by executing a program.
    pub bounding: u64,
}

/// Who a thread acts as.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credentials {
    /// User.
    pub user: Ids,
    /// Group.
    pub group: Ids,
    /// More groups.
    pub groups: Arc<Vec<u32>>,
    /// What it may do.
    pub capabilities: Capabilities,
    /// Capabilities stay when the user changes (`PR_SET_KEEPCAPS`).
    pub keeps_capabilities: bool,
    /// Executing a program gives no rights (`PR_SET_NO_NEW_PRIVS`).
    pub no_new_privileges: bool,
}

impl Credentials {
    /// The superuser's.
    pub fn root() -> Self {
        let all = capability::ALL;
        Self {
            user: Ids::all(ROOT),
            group: Ids::all(ROOT),
            groups: Arc::default(),
            capabilities: Capabilities {
                effective: all,
                permitted: all,
                inheritable: 0,
                bounding: all,
            },
            keeps_capabilities: false,
            no_new_privileges: false,
        }
    }

    /// Whether it has a capability, by number.
    pub fn can(&self, capability: u32) -> bool {
        self.capabilities.effective >> capability & 1 != 0
    }

    /// Whether it may send signals to anybody.
    pub fn may_kill(&self) -> bool {
        self.can(capability::KILL)
    }

    /// Whether its user may send signals to a process of `other`.
    pub fn is_one_of(&self, other: &Self) -> bool {
        let theirs = [other.user.real, other.user.saved];
        theirs.contains(&self.user.real) || theirs.contains(&self.user.effective)
    }

    /// `setresuid`.
    ///
    /// # Errors
    /// EPERM.
    pub fn set_users(&mut self, real: u32, effective: u32, saved: u32) -> Result<(), Errno> {
        let user = self
            .user
            .set_all(real, effective, saved, self.can(capability::SETUID))?;
        self.change_user(user);
        Ok(())
    }

    /// `setreuid`.
    ///
    /// # Errors
    /// EPERM.
    pub fn set_two_users(&mut self, real: u32, effective: u32) -> Result<(), Errno> {
        let user = self.user.set_two(real, effective, self.can(capability::SETUID))?;
        self.change_user(user);
        Ok(())
    }

    /// `setuid`.
    ///
    /// # Errors
    /// EPERM; EINVAL: no user.
    pub fn set_user(&mut self, id: u32) -> Result<(), Errno> {
        must_be_somebody(id)?;
        let user = self.user.set_one(id, self.can(capability::SETUID))?;
        self.change_user(user);
        Ok(())
    }

    /// `setfsuid`; who it was.
    pub fn set_user_of_files(&mut self, id: u32) -> u32 {
        let may = self.can(capability::SETUID);
        let old = self.user.set_of_files(id, may);
        let caps = &mut self.capabilities;
        match (old, self.user.fs) {
            (ROOT, ROOT) => {}
            (ROOT, _) => caps.effective &= !capability::OF_FILES,
            (_, ROOT) => caps.effective |= caps.permitted & capability::OF_FILES,
            _ => {}
        }
        old
    }

    /// `setfsgid`; which it was.
    pub fn set_group_of_files(&mut self, id: u32) -> u32 {
        let may = self.can(capability::SETGID);
        self.group.set_of_files(id, may)
    }

    /// `setresgid`.
    ///
    /// # Errors
    /// EPERM.
    pub fn set_groups_of(&mut self, real: u32, effective: u32, saved: u32) -> Result<(), Errno> {
        self.group = self
            .group
            .set_all(real, effective, saved, self.can(capability::SETGID))?;
        Ok(())
    }

    /// `setregid`.
    ///
    /// # Errors
    /// EPERM.
    pub fn set_two_groups(&mut self, real: u32, effective: u32) -> Result<(), Errno> {
        self.group = self
            .group
            .set_two(real, effective, self.can(capability::SETGID))?;
        Ok(())
    }

    /// `setgid`.
    ///
    /// # Errors
    /// EPERM; EINVAL: no group.
    pub fn set_group(&mut self, id: u32) -> Result<(), Errno> {
        must_be_somebody(id)?;
        self.group = self.group.set_one(id, self.can(capability::SETGID))?;
        Ok(())
    }

    /// `capset`.
    ///
    /// # Errors
    /// EPERM: more than there is.
    pub fn set_capabilities(
        &mut self,
        effective: u64,
        permitted: u64,
        inheritable: u64,
    ) -> Result<(), Errno> {
        let old = self.capabilities;
        let more_inheritable = inheritable & !(old.inheritable | old.permitted);
        if (more_inheritable != 0 && !self.can(capability::SETPCAP))
            || inheritable & !(old.inheritable | old.bounding) != 0
            || permitted & !old.permitted != 0
            || effective & !permitted != 0
        {
            return Err(Errno::EPERM);
        }
        self.capabilities = Capabilities {
            effective,
            permitted,
            inheritable,
            ..old
        };
        Ok(())
    }

    /// As another program is executed: the superuser gets everything again.
    pub fn note_exec(&mut self) {
        let is_root = self.user.real == ROOT || self.user.effective == ROOT;
        let caps = &mut self.capabilities;
        caps.permitted = if is_root {
            caps.bounding | caps.inheritable
        } else {
            0
        };
        caps.effective = if self.user.effective == ROOT {
            caps.permitted
        } else {
            0
        };
        (self.user.saved, self.group.saved) = (self.user.effective, self.group.effective);
        self.keeps_capabilities = false;
    }

    /// Another user: whoever was the superuser, and is not any more, loses what it could do (capabilities(7), "Effect of
    /// user ID changes").
    fn change_user(&mut self, user: Ids) {
        let old = core::mem::replace(&mut self.user, user);
        let caps = &mut self.capabilities;
        if old.has(ROOT) && !user.has(ROOT) && !self.keeps_capabilities {
            (caps.permitted, caps.effective) = (0, 0);
        }
        if old.effective == ROOT && user.effective != ROOT {
            caps.effective = 0;
        }
        if old.effective != ROOT && user.effective == ROOT {
            caps.effective = caps.permitted;
        }
    }
}

fn must_be_somebody(id: u32) -> Result<(), Errno> {
    if id == UNCHANGED {
        Err(Errno::EINVAL)
    } else {
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_superuser_who_becomes_somebody_cannot_come_back() {
        let mut who = Credentials::root();
        assert!(who.can(capability::SYS_PTRACE));
        assert_eq!(who.set_users(1000, 1000, 1000), Ok(()));
        assert_eq!(who.capabilities.permitted, 0);
        assert!(!who.can(capability::SYS_PTRACE));
        assert_eq!(who.set_users(0, 0, 0), Err(Errno::EPERM));
        assert_eq!(who.user.fs, 1000);
    }

    #[test]
    fn who_keeps_a_saved_number_comes_back() {
        let mut who = Credentials::root();
        assert_eq!(who.set_users(UNCHANGED, 1000, UNCHANGED), Ok(()));
        assert!(!who.can(capability::SYS_PTRACE));
        assert_eq!(who.set_user(0), Ok(()));
        assert!(who.can(capability::SYS_PTRACE));
    }

    #[test]
    fn capabilities_are_given_up_and_not_taken() {
        let mut who = Credentials::root();
        let all = capability::ALL;
        let without = all & !(1 << capability::SYS_PTRACE);
        assert_eq!(who.set_capabilities(without, without, 0), Ok(()));
        assert!(!who.can(capability::SYS_PTRACE));
        assert_eq!(who.set_capabilities(all, all, 0), Err(Errno::EPERM));
        assert_eq!(who.set_capabilities(all, without, 0), Err(Errno::EPERM));
        who.note_exec();
        assert!(
            who.can(capability::SYS_PTRACE),
            "the superuser's programs have all"
        );
    }
}
