//! From a path to a file.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::entry::Entry;
use super::inode::Target;
use crate::abi::errno::Errno;
use crate::file::access::{MAY_EXECUTE, User};

/// Most bytes of a path, its end included (Linux: `PATH_MAX`).
pub const PATH_MAX: usize = 4096;
/// Most bytes of a name (`NAME_MAX`).
pub const NAME_MAX: usize = 255;
/// Most symbolic links on the way.
const MAX_LINKS: u32 = 40;

/// What to do about the last component of a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Last {
    /// Follow it if it is a symbolic link.
    Follow,
    /// Leave it, unless a slash comes behind it.
    Leave,
    /// Leave it in any case: its name is to be made, moved or taken away.
    Name,
}

/// What the last component of a path is called.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Name {
    /// This.
    Plain(Vec<u8>),
    /// `.`, or nothing but slashes.
    Dot,
    /// `..`
    DotDot,
    /// The path was `/`.
    Root,
}

/// Where a path leads.
#[derive(Debug)]
pub struct Found {
    /// The directory of the last component.
    pub dir: Arc<Entry>,
    /// The last component.
    pub name: Name,
    /// The file, if there is one.
    pub entry: Option<Arc<Entry>>,
    /// There was a slash behind it.
    pub slash: bool,
}

impl Found {
    /// The file.
    ///
    /// # Errors
    /// ENOENT. ENOTDIR: it is no directory, and there was a slash behind it.
    pub fn existing(self) -> Result<Arc<Entry>, Errno> {
        let entry = self.entry.ok_or(Errno::ENOENT)?;
        if self.slash && !entry.inode().is_directory() {
            return Err(Errno::ENOTDIR);
        }
        Ok(entry)
    }
}

/// Walks `path` from `start`, or from `root` if it begins with a slash. May sleep.
///
/// # Errors
/// ENOENT: it is empty, or something on the way is not there. ENOTDIR, ELOOP, ENAMETOOLONG.
pub fn walk(root: &Arc<Entry>, start: &Arc<Entry>, path: &[u8], last: Last) -> Result<Found, Errno> {
    if path.is_empty() {
        return Err(Errno::ENOENT);
    }
    if path.len() >= PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    let mut walker = Walker {
        root,
        at: Arc::clone(start),
        user: User::current(),
        rest: path.to_vec(),
        from: 0,
        links: 0,
    };
    walker.go(last)
}

struct Walker<'a> {
    root: &'a Arc<Entry>,
    at: Arc<Entry>,
    user: User,
    rest: Vec<u8>,
    /// Bytes of `rest` that are done.
    from: usize,
    links: u32,
}

impl Walker<'_> {
    fn go(&mut self, last: Last) -> Result<Found, Errno> {
        if self.rest.first() == Some(&b'/') {
            self.at = Arc::clone(self.root);
        }
        let mut name = Name::Root;
        loop {
            let Some((component, is_last, slash)) = self.next() else {
                // Slashes only: the root, or a link to it.
                return Ok(self.found(Arc::clone(&self.at), name, Some(Arc::clone(&self.at)), true));
            };
            self.at.directory()?;
            if !self.user.is_root() {
                self.user.may(&self.at.inode().stat(), MAY_EXECUTE)?;
            }
            let here = Arc::clone(&self.at);
            let next = match component.as_slice() {
                b"." => {
                    name = Name::Dot;
                    Arc::clone(&here)
                }
                b".." => {
                    name = Name::DotDot;
                    self.above(&here)
                }
                plain if plain.len() > NAME_MAX => return Err(Errno::ENAMETOOLONG),
                plain => {
                    name = Name::Plain(plain.to_vec());
                    match here.lookup(plain) {
                        Ok(entry) => entry,
                        Err(Errno::ENOENT) if is_last => return Ok(self.found(here, name, None, slash)),
                        Err(error) => return Err(error),
                    }
                }
            };
            let follows = match last {
                _ if !is_last => true,
                Last::Follow => true,
                Last::Leave => slash,
                Last::Name => false,
            };
            if follows && next.inode().is_symlink() {
                self.follow(&next)?;
                name = Name::Dot;
                if self.is_done() {
                    let at = Arc::clone(&self.at);
                    return Ok(self.found(here, name, Some(at), slash));
                }
            } else if is_last {
                return Ok(self.found(here, name, Some(next), slash));
            } else {
                self.at = next;
            }
        }
    }

    fn found(&self, dir: Arc<Entry>, name: Name, entry: Option<Arc<Entry>>, slash: bool) -> Found {
        Found {
            dir,
            name,
            entry,
            slash,
        }
    }

    /// The next component, whether it is the last, and whether a slash comes behind it.
    fn next(&mut self) -> Option<(Vec<u8>, bool, bool)> {
        let rest = &self.rest[self.from..];
        let start = rest.iter().position(|byte| *byte != b'/')?;
        let rest = &rest[start..];
        let len = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
        let component = rest[..len].to_vec();
        let is_last = rest[len..].iter().all(|byte| *byte == b'/');
        let slash = len < rest.len();
        self.from += start + len;
        Some((component, is_last, slash))
    }

    fn is_done(&self) -> bool {
        self.rest[self.from..].iter().all(|byte| *byte == b'/')
    }

    /// The directory above; the root is above itself.
    fn above(&self, entry: &Arc<Entry>) -> Arc<Entry> {
        if Arc::ptr_eq(entry, self.root) {
            return Arc::clone(entry);
        }
        entry.parent().unwrap_or_else(|| Arc::clone(entry))
    }

    /// Goes on where a symbolic link leads.
    fn follow(&mut self, link: &Arc<Entry>) -> Result<(), Errno> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Errno::ELOOP);
        }
        match link.inode().target()? {
            Target::Entry(entry) => self.at = entry,
            Target::Path(mut path) => {
                if path.is_empty() {
                    return Err(Errno::ENOENT);
                }
                if path[0] == b'/' {
                    self.at = Arc::clone(self.root);
                }
                path.extend_from_slice(&self.rest[self.from..]);
                if path.len() >= 2 * PATH_MAX {
                    return Err(Errno::ENAMETOOLONG);
                }
                (self.rest, self.from) = (path, 0);
            }
        }
        Ok(())
    }
}
