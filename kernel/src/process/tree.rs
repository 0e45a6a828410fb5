//! Who is whose child, who is in which process group and session, and who has ended without being waited for.
//!
//! ```text
//!   alive ──end──► zombie ──reaped by its parent──► gone
//!                     └── at once: its parent is INIT, or does not want to be told
//! ```
//!
//! When a process ends, its children become INIT's, or those of an ancestor that wants them. The tree says who is to be told of what; telling is `exit`'s business.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::Ending;
use super::table::Pid;
use crate::abi::errno::Errno;
use crate::abi::signal::SIGCHLD;
use crate::abi::wait::{WALL, WCLONE, WCONTINUED, WEXITED, WNOWAIT, WSTOPPED};

/// CPU time, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Times {
    /// In user mode.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
}

impl core::ops::AddAssign for Times {
    fn add_assign(&mut self, more: Self) {
        self.user += more.user;
        self.system += more.system;
    }
}

/// A process, to the tree.
pub trait Member: Clone {
    /// Its parent is this one from now on. Called with the tree locked.
    fn note_parent(&self, parent: Pid);
}

/// Processes of type `P`.
#[derive(Debug)]
pub struct Tree<P> {
    nodes: BTreeMap<Pid, Node<P>>,
}

#[derive(Debug)]
struct Node<P> {
    member: P,
    parent: Pid,
    children: Vec<Pid>,
    group: Pid,
    session: Pid,
    /// What its parent is sent when it ends; 0: nothing.
    exit_signal: u8,
    /// It has executed a program since it was made.
    has_executed: bool,
    /// Orphans below it become its children (`PR_SET_CHILD_SUBREAPER`).
    is_subreaper: bool,
    news: Option<News>,
    zombie: Option<(Ending, Times)>,
    /// CPU time of children that were waited for.
    children_times: Times,
}

/// Where a process is put.
#[derive(Clone, Copy, Debug)]
struct Placement {
    parent: Pid,
    group: Pid,
    session: Pid,
    exit_signal: u8,
}

/// What a parent may want to hear while a child lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum News {
    /// The child was stopped by this signal.
    Stopped(u8),
    /// It goes on.
    Continued,
}

/// Which children.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// Any.
    Any,
    /// This one.
    Pid(Pid),
    /// Those of this group.
    Group(Pid),
}

/// What has become of a child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// It has ended.
    Ended(Ending, Times),
    /// Something else.
    News(News),
}

/// What a look for children found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Looked<P> {
    /// A child with something to tell.
    Found(Pid, Change, Option<P>),
    /// Children, who have nothing to tell yet.
    NotYet,
    /// No such child.
    NoChild,
}

/// What a process's end leads to.
#[derive(Debug)]
pub struct Ended<P> {
    /// Who is to be told, with which signal, unless that is INIT.
    pub tell: Option<(P, u8)>,
    /// Who has got children that have ended already.
    pub inherits: Option<P>,
    /// Processes that nobody will wait for.
    pub gone: Vec<P>,
}

impl<P> Tree<P> {
    /// Nobody.
    pub const fn new() -> Self {
        Self {
            nodes: BTreeMap::new(),
        }
    }
}

impl<P: Member> Tree<P> {
    /// Adds a process: a child of `parent`, in its group and session; INIT's, in ones of its own, if that has ended.
    pub fn enter(&mut self, pid: Pid, parent: Pid, exit_signal: u8, member: P) {
        let living = self.nodes.get_mut(&parent).filter(|node| node.zombie.is_none());
        let (parent, group, session) = match living {
            Some(node) => {
                node.children.push(pid);
                (parent, node.group, node.session)
            }
            None => (Pid::INIT, pid, pid),
        };
        let place = Placement {
            parent,
            group,
            session,
            exit_signal,
        };
        self.nodes.insert(pid, Node::new(member, place));
    }

    /// Adds a process beside its maker: in the same group and session, a child of the same parent, who hears the same of its end
    /// (`CLONE_PARENT`). INIT's, if that parent has ended.
    pub fn enter_beside(&mut self, pid: Pid, maker: Pid, member: P) {
        let place = match self.nodes.get(&maker) {
            Some(node) => Placement {
                parent: node.parent,
                group: node.group,
                session: node.session,
                exit_signal: node.exit_signal,
            },
            None => Placement {
                parent: Pid::INIT,
                group: pid,
                session: pid,
                exit_signal: SIGCHLD,
            },
        };
        if let Some(parent) = self.nodes.get_mut(&place.parent) {
            parent.children.push(pid);
        }
        self.nodes.insert(pid, Node::new(member, place));
    }

    /// The process, also one that has ended.
    pub fn get(&self, pid: Pid) -> Option<&P> {
        self.nodes.get(&pid).map(|node| &node.member)
    }

    /// Everybody, by number.
    pub fn all(&self) -> impl Iterator<Item = (Pid, &P)> {
        self.nodes.iter().map(|(pid, node)| (*pid, &node.member))
    }

    /// The members of a group.
    pub fn group_members(&self, group: Pid) -> impl Iterator<Item = &P> {
        let nodes = self.nodes.values();
        nodes
            .filter(move |node| node.group == group)
            .map(|node| &node.member)
    }

    /// The parent's number; INIT's when there is no such process.
    pub fn parent(&self, pid: Pid) -> Pid {
        self.nodes.get(&pid).map_or(Pid::INIT, |node| node.parent)
    }

    /// Its children.
    pub fn children(&self, pid: Pid) -> &[Pid] {
        self.nodes.get(&pid).map_or(&[], |node| &node.children)
    }

    /// Whether it has ended and waits to be waited for.
    pub fn is_zombie(&self, pid: Pid) -> bool {
        self.nodes.get(&pid).is_some_and(|node| node.zombie.is_some())
    }

    /// Its group; `None` without such a process.
    pub fn group(&self, pid: Pid) -> Option<Pid> {
        Some(self.nodes.get(&pid)?.group)
    }

    /// Its session.
    pub fn session(&self, pid: Pid) -> Option<Pid> {
        Some(self.nodes.get(&pid)?.session)
    }

    /// CPU time of those of its children that it has waited for.
    pub fn children_times(&self, pid: Pid) -> Times {
        self.nodes
            .get(&pid)
            .map_or(Times::default(), |node| node.children_times)
    }

    /// Whether `number` is the name of a group or a session.
    pub fn is_group_or_session(&self, number: Pid) -> bool {
        let mut nodes = self.nodes.values();
        nodes.any(|node| node.group == number || node.session == number)
    }

    /// It executes a program: its parent may not change its group any more, and hears of its end like of any other's.
    pub fn note_exec(&mut self, pid: Pid) {
        if let Some(node) = self.nodes.get_mut(&pid) {
            node.has_executed = true;
            node.exit_signal = SIGCHLD;
        }
    }

    /// Whether orphans below it become its children.
    pub fn is_subreaper(&self, pid: Pid) -> bool {
        self.nodes.get(&pid).is_some_and(|node| node.is_subreaper)
    }

    /// Says whether they do.
    pub fn set_subreaper(&mut self, pid: Pid, is_subreaper: bool) {
        if let Some(node) = self.nodes.get_mut(&pid) {
            node.is_subreaper = is_subreaper;
        }
    }

    /// Who takes the children of a process that ends: the next of its ancestors that wants them and lives.
    fn reaper_of(&self, pid: Pid) -> Pid {
        let mut at = self.parent(pid);
        while let Some(node) = self.nodes.get(&at) {
            if node.is_subreaper && node.zombie.is_none() {
                return at;
            }
            at = node.parent;
        }
        Pid::INIT
    }

    /// `setpgid`: `caller` moves `pid` to `group`.
    ///
    /// # Errors
    /// As on Linux.
    pub fn set_group(&mut self, caller: Pid, pid: Pid, group: Pid) -> Result<(), Errno> {
        let session = self.session(caller).ok_or(Errno::ESRCH)?;
        let node = self.nodes.get(&pid).ok_or(Errno::ESRCH)?;
        if node.parent == caller {
            if node.session != session {
                return Err(Errno::EPERM);
            }
            if node.has_executed {
                return Err(Errno::EACCES);
            }
        } else if pid != caller {
            return Err(Errno::ESRCH);
        }
        if node.session == pid {
            return Err(Errno::EPERM);
        }
        let joins = |node: &Node<P>| node.group == group && node.session == session;
        if group != pid && !self.nodes.values().any(joins) {
            return Err(Errno::EPERM);
        }
        if let Some(node) = self.nodes.get_mut(&pid) {
            node.group = group;
        }
        Ok(())
    }

    /// `setsid`: a session and a group of its own.
    ///
    /// # Errors
    /// EPERM: there is a group with its name.
    pub fn new_session(&mut self, pid: Pid) -> Result<Pid, Errno> {
        if self.group_members(pid).next().is_some() {
            return Err(Errno::EPERM);
        }
        let node = self.nodes.get_mut(&pid).ok_or(Errno::ESRCH)?;
        (node.session, node.group) = (pid, pid);
        Ok(pid)
    }

    /// A process has ended. With `unwanted` its parent does not want to wait for it.
    pub fn end(
        &mut self,
        pid: Pid,
        ending: Ending,
        times: Times,
        unwanted: impl FnOnce(&P) -> bool,
    ) -> Ended<P> {
        let mut gone = Vec::new();
        let Some(node) = self.nodes.get_mut(&pid) else {
            return Ended {
                tell: None,
                inherits: None,
                gone,
            };
        };
        node.zombie = Some((ending, times));
        node.news = None;
        let children = core::mem::take(&mut node.children);
        let (parent, signal) = (node.parent, node.exit_signal);
        let reaper = self.reaper_of(pid);
        let mut zombies = false;
        for child in children {
            let Some(node) = self.nodes.get_mut(&child) else {
                continue;
            };
            node.parent = reaper;
            node.member.note_parent(reaper);
            node.exit_signal = SIGCHLD;
            let is_zombie = node.zombie.is_some();
            match self.nodes.get_mut(&reaper) {
                Some(reaper) => reaper.children.push(child),
                None if is_zombie => gone.extend(self.remove(child)),
                None => {}
            }
            zombies |= is_zombie;
        }
        let inherits = self.get(reaper).filter(|_| zombies).cloned();
        let parent = self.nodes.get(&parent).map(|node| node.member.clone());
        let is_unwanted = match &parent {
            Some(parent) => signal == SIGCHLD && unwanted(parent),
            None => true,
        };
        if is_unwanted {
            gone.extend(self.remove(pid));
        }
        Ended {
            tell: parent.map(|parent| (parent, signal)),
            inherits,
            gone,
        }
    }

    /// Something has become of a process that lives; who is to hear of it.
    pub fn tell(&mut self, pid: Pid, news: News) -> Option<P> {
        let node = self.nodes.get_mut(&pid).filter(|node| node.zombie.is_none())?;
        node.news = Some(news);
        let parent = node.parent;
        self.get(parent).cloned()
    }

    /// Looks for a child of `parent` with something to tell that `options` (of `waitid`) ask for; takes it, unless they
    /// have [`WNOWAIT`].
    pub fn look(&mut self, parent: Pid, which: Which, options: u32) -> Looked<P> {
        let mut any = false;
        let mut found = None;
        for child in self.children(parent) {
            let Some(node) = self.nodes.get(child) else {
                continue;
            };
            if !node.is_meant(*child, which, options) {
                continue;
            }
            any = true;
            if let Some(change) = node.change(options) {
                found = Some((*child, change));
                break;
            }
        }
        let Some((child, change)) = found else {
            return if any { Looked::NotYet } else { Looked::NoChild };
        };
        let mut reaped = None;
        if options & WNOWAIT == 0 {
            match change {
                Change::Ended(_, times) => {
                    let below = self.children_times(child);
                    reaped = self.remove(child);
                    if let Some(node) = self.nodes.get_mut(&parent) {
                        node.children_times += times;
                        node.children_times += below;
                    }
                }
                Change::News(_) => {
                    if let Some(node) = self.nodes.get_mut(&child) {
                        node.news = None;
                    }
                }
            }
        }
        Looked::Found(child, change, reaped)
    }

    /// Takes back a process that has not begun.
    pub fn forget(&mut self, pid: Pid) -> Option<P> {
        self.remove(pid)
    }

    fn remove(&mut self, pid: Pid) -> Option<P> {
        let node = self.nodes.remove(&pid)?;
        if let Some(parent) = self.nodes.get_mut(&node.parent) {
            parent.children.retain(|child| *child != pid);
        }
        Some(node.member)
    }
}

impl<P> Default for Tree<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Member> Node<P> {
    fn new(member: P, place: Placement) -> Self {
        member.note_parent(place.parent);
        Self {
            member,
            parent: place.parent,
            children: Vec::new(),
            group: place.group,
            session: place.session,
            exit_signal: place.exit_signal,
            has_executed: false,
            is_subreaper: false,
            news: None,
            zombie: None,
            children_times: Times::default(),
        }
    }

    /// Whether a wait is for this child.
    fn is_meant(&self, pid: Pid, which: Which, options: u32) -> bool {
        let is_named = match which {
            Which::Any => true,
            Which::Pid(named) => named == pid,
            Which::Group(group) => self.group == group,
        };
        let is_clone = self.exit_signal != SIGCHLD;
        is_named && (options & WALL != 0 || is_clone == (options & WCLONE != 0))
    }

    fn change(&self, options: u32) -> Option<Change> {
        if let Some((ending, times)) = self.zombie {
            return (options & WEXITED != 0).then_some(Change::Ended(ending, times));
        }
        let news = self.news?;
        let wanted = match news {
            News::Stopped(_) => WSTOPPED,
            News::Continued => WCONTINUED,
        };
        (options & wanted != 0).then_some(Change::News(news))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use alloc::sync::Arc;
    use core::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const A: Pid = Pid::new(10);
    const B: Pid = Pid::new(11);
    const C: Pid = Pid::new(12);
    const DONE: Ending = Ending::Exited(3);

    impl Member for &'static str {
        fn note_parent(&self, _parent: Pid) {}
    }

    impl Member for Arc<AtomicU32> {
        fn note_parent(&self, parent: Pid) {
            self.store(parent.as_u32(), Ordering::Relaxed);
        }
    }

    #[test]
    fn a_process_knows_who_its_parent_is_at_any_time() {
        let mut tree = Tree::new();
        let (one, other) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        tree.enter(A, Pid::INIT, SIGCHLD, Arc::clone(&one));
        tree.enter(B, A, SIGCHLD, Arc::clone(&other));
        let parents = || [&one, &other].map(|member| Pid::new(member.load(Ordering::Relaxed)));
        assert_eq!(parents(), [Pid::INIT, A]);
        tree.end(A, DONE, Times::default(), |_| false);
        assert_eq!(parents(), [Pid::INIT, Pid::INIT]);
    }

    /// A, its child B, and B's child C.
    fn line() -> Tree<&'static str> {
        let mut tree = Tree::new();
        tree.enter(A, Pid::INIT, SIGCHLD, "a");
        tree.enter(B, A, SIGCHLD, "b");
        tree.enter(C, B, SIGCHLD, "c");
        tree
    }

    fn end(tree: &mut Tree<&'static str>, pid: Pid) -> Ended<&'static str> {
        tree.end(pid, DONE, Times { user: 5, system: 1 }, |_| false)
    }

    #[test]
    fn a_child_that_has_ended_waits_to_be_waited_for_once() {
        let mut tree = line();
        assert_eq!(tree.look(A, Which::Any, WEXITED), Looked::NotYet);
        let ended = end(&mut tree, B);
        assert_eq!(ended.tell, Some(("a", SIGCHLD)));
        assert!(ended.gone.is_empty());
        assert!(tree.is_zombie(B));
        let change = Change::Ended(DONE, Times { user: 5, system: 1 });
        assert_eq!(
            tree.look(A, Which::Pid(B), WEXITED | WNOWAIT),
            Looked::Found(B, change, None)
        );
        assert_eq!(
            tree.look(A, Which::Pid(B), WEXITED),
            Looked::Found(B, change, Some("b"))
        );
        assert_eq!(tree.look(A, Which::Any, WEXITED), Looked::NoChild);
        assert_eq!(tree.children_times(A), Times { user: 5, system: 1 });
    }

    #[test]
    fn a_process_beside_its_maker_has_its_parent_group_and_signal() {
        let mut tree = line();
        tree.set_group(B, B, B).expect("its own group is free");
        tree.enter_beside(Pid::new(13), B, "d");
        assert_eq!(tree.parent(Pid::new(13)), A);
        assert_eq!(tree.group(Pid::new(13)), Some(B), "not the parent's");
        assert_eq!(tree.children(A), [B, Pid::new(13)]);
        assert_eq!(end(&mut tree, Pid::new(13)).tell, Some(("a", SIGCHLD)));
        tree.enter_beside(Pid::new(14), A, "e");
        assert_eq!(tree.parent(Pid::new(14)), Pid::INIT);
        assert_eq!(tree.group(Pid::new(14)), tree.group(A));
    }

    #[test]
    fn a_child_of_somebody_who_has_just_ended_is_inits() {
        let mut tree = line();
        end(&mut tree, B);
        for (pid, parent) in [(Pid::new(13), B), (Pid::new(14), Pid::new(99))] {
            tree.enter(pid, parent, SIGCHLD, "late");
            assert_eq!(tree.parent(pid), Pid::INIT);
            let ended = end(&mut tree, pid);
            assert_eq!((ended.tell, ended.gone), (None, alloc::vec!["late"]));
        }
    }

    #[test]
    fn orphans_become_inits_and_leave_nothing_to_wait_for() {
        let mut tree = line();
        end(&mut tree, B);
        assert_eq!(tree.parent(C), Pid::INIT);
        let ended = end(&mut tree, C);
        assert_eq!((ended.tell, ended.gone), (None, alloc::vec!["c"]));
    }

    #[test]
    fn orphans_go_to_the_ancestor_that_wants_them() {
        let mut tree = line();
        tree.set_subreaper(A, true);
        end(&mut tree, C);
        let ended = end(&mut tree, B);
        assert_eq!((ended.inherits, ended.gone.len()), (Some("a"), 0));
        assert!(matches!(tree.look(A, Which::Pid(C), WEXITED), Looked::Found(..)));
        let mut tree = line();
        tree.set_subreaper(A, true);
        end(&mut tree, B);
        assert_eq!(tree.parent(C), A);
        assert_eq!(end(&mut tree, C).tell, Some(("a", SIGCHLD)));
    }

    #[test]
    fn a_zombie_whose_parent_ends_is_gone() {
        let mut tree = line();
        end(&mut tree, C);
        let ended = end(&mut tree, B);
        assert_eq!(ended.gone, ["c"]);
        assert_eq!(tree.all().count(), 2);
    }

    #[test]
    fn a_parent_that_does_not_want_to_wait_is_told_all_the_same() {
        let mut tree = line();
        let ended = tree.end(B, DONE, Times::default(), |_| true);
        assert_eq!((ended.tell, ended.gone), (Some(("a", SIGCHLD)), alloc::vec!["b"]));
        assert_eq!(tree.look(A, Which::Any, WEXITED), Looked::NoChild);
    }

    #[test]
    fn children_without_sigchld_are_found_by_those_who_ask_for_them() {
        let mut tree = line();
        let odd = Pid::new(13);
        tree.enter(odd, C, 0, "odd");
        end(&mut tree, odd);
        assert_eq!(tree.look(C, Which::Any, WEXITED), Looked::NoChild);
        assert!(matches!(
            tree.look(C, Which::Any, WEXITED | WNOWAIT | WCLONE),
            Looked::Found(..)
        ));
        assert!(matches!(
            tree.look(C, Which::Any, WEXITED | WALL),
            Looked::Found(..)
        ));
    }

    #[test]
    fn news_is_told_once_and_only_to_those_who_ask() {
        let mut tree = line();
        assert_eq!(tree.tell(B, News::Stopped(19)), Some("a"));
        assert_eq!(tree.look(A, Which::Any, WEXITED), Looked::NotYet);
        let found = Looked::Found(B, Change::News(News::Stopped(19)), None);
        assert_eq!(tree.look(A, Which::Any, WEXITED | WSTOPPED), found);
        assert_eq!(tree.look(A, Which::Any, WEXITED | WSTOPPED), Looked::NotYet);
    }

    #[test]
    fn groups_are_joined_within_a_session_only() {
        let mut tree = line();
        // A leads its session.
        assert_eq!(tree.set_group(A, A, A), Err(Errno::EPERM));
        assert_eq!(tree.set_group(A, B, B), Ok(()));
        assert_eq!(tree.group(B), Some(B));
        assert_eq!(tree.set_group(A, C, C), Err(Errno::ESRCH), "a grandchild");
        assert_eq!(
            tree.set_group(B, C, Pid::new(77)),
            Err(Errno::EPERM),
            "no such group"
        );
        assert_eq!(tree.new_session(C), Ok(C));
        assert_eq!(tree.set_group(B, C, B), Err(Errno::EPERM), "another session");
        assert_eq!(tree.new_session(C), Err(Errno::EPERM), "a leader already");
        tree.note_exec(B);
        assert_eq!(tree.set_group(A, B, A), Err(Errno::EACCES));
        assert!(matches!(tree.look(A, Which::Group(B), WEXITED), Looked::NotYet));
        assert!(matches!(tree.look(A, Which::Group(A), WEXITED), Looked::NoChild));
    }
}
