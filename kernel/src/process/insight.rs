//! Who may look into which process, and take what it has (Linux: `ptrace_may_access`).

use super::credentials::{Credentials, capability};
use super::{Process, Thread};

/// By which numbers somebody is known who looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// Those that files go by.
    Files,
    /// The real ones: calls that change the other one.
    Real,
}

/// Whether `thread` may look into `process`.
pub fn may_look_into(thread: &Thread, process: &Process, by: By) -> bool {
    if thread.process().pid() == process.pid() {
        return true;
    }
    let who = thread.credentials();
    who.can(capability::SYS_PTRACE) || (process.is_dumpable() && is_match(&who, &process.credentials(), by))
}

/// Whether the target has no other user or group, and can do nothing more.
fn is_match(who: &Credentials, target: &Credentials, by: By) -> bool {
    let (user, group) = match by {
        By::Files => (who.user.fs, who.group.fs),
        By::Real => (who.user.real, who.group.real),
    };
    let users = [target.user.real, target.user.effective, target.user.saved];
    let groups = [target.group.real, target.group.effective, target.group.saved];
    let (own, theirs) = (who.capabilities.permitted, target.capabilities.permitted);
    users.iter().all(|id| *id == user) && groups.iter().all(|id| *id == group) && theirs & !own == 0
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn user(id: u32) -> Credentials {
        let mut who = Credentials::root();
        who.set_users(id, id, id).expect("the superuser may");
        who
    }

    #[test]
    fn the_same_user_and_group_match_and_others_do_not() {
        for by in [By::Files, By::Real] {
            assert!(is_match(&user(5), &user(5), by));
            assert!(!is_match(&user(5), &user(6), by));
        }
        let mut other_group = user(5);
        other_group.group.saved = 7;
        assert!(!is_match(&user(5), &other_group, By::Real));
    }

    #[test]
    fn who_can_do_less_does_not_match() {
        let mut strong = user(5);
        strong.capabilities.permitted = 1 << capability::KILL;
        assert!(!is_match(&user(5), &strong, By::Real));
        assert!(is_match(&strong, &user(5), By::Real));
    }

    #[test]
    fn files_and_real_numbers_are_told_apart() {
        let mut who = user(5);
        who.user.fs = 6;
        assert!(is_match(&who, &user(5), By::Real));
        assert!(!is_match(&who, &user(5), By::Files));
        assert!(is_match(&who, &user(6), By::Files));
    }
}
