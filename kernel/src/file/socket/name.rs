//! Names of sockets: paths, which are files of a file system, and abstract names, which are bytes and nothing else.
//!
//! A path leads to an inode with a [`Rendezvous`], where the socket is found that was bound to it. The file outlives the
//! socket, and the socket the file. Abstract names go with the socket; each kind of sockets has names of its own.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry as Slot;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use super::{Kind, Socket};
use crate::abi::errno::Errno;
use crate::abi::stat::{S_IFMT, S_IFSOCK};
use crate::file::access::{MAY_WRITE, User};
use crate::file::tree::{self, Last, New};
use crate::file::{self, random};
use crate::sync::SpinLock;

/// Most bytes of a name (`sun_path`).
pub const NAME_MAX: usize = 108;
/// How many names there are for sockets that do not care about theirs.
const AUTOMATIC: u32 = 1 << 20;

/// Who has which abstract name.
static ABSTRACT: SpinLock<Names> = SpinLock::new(BTreeMap::new());

/// Abstract names of each kind, and the sockets that are bound to them.
type Names = BTreeMap<(Kind, Vec<u8>), Weak<Socket>>;

/// A name, as a program says it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// None: the family and nothing else.
    Unnamed,
    /// A path.
    Path(Vec<u8>),
    /// The bytes behind the zero byte that abstract names begin with.
    Abstract(Vec<u8>),
}

impl Address {
    /// From the bytes of `sun_path`, at most [`NAME_MAX`]: a path ends before a zero byte, if there is one.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        match bytes {
            [] => Self::Unnamed,
            [0, name @ ..] => Self::Abstract(name.into()),
            path => {
                let end = path.iter().position(|byte| *byte == 0);
                Self::Path(path[..end.unwrap_or(path.len())].into())
            }
        }
    }

    /// Those bytes again, with the zero byte of a path.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Unnamed => Vec::new(),
            Self::Path(path) => [&path[..], &[0]].concat(),
            Self::Abstract(name) => [&[0], &name[..]].concat(),
        }
    }
}

/// Where the socket is found that was bound to an inode.
#[derive(Default)]
pub struct Rendezvous(SpinLock<Weak<Socket>>);

impl Rendezvous {
    pub(super) fn leave(&self) {
        let left = core::mem::take(&mut *self.0.lock());
        drop(left);
    }
}

impl Socket {
    /// The name it is bound to.
    pub fn name(&self) -> Arc<Address> {
        let name = self.state.lock().name.clone();
        name.unwrap_or_else(|| Arc::new(Address::Unnamed))
    }

    /// Gives it a name; any that is free if `address` is none.
    ///
    /// # Errors
    /// EADDRINUSE; EINVAL: it has one. What the path says.
    pub fn bind(self: &Arc<Self>, address: &Address, place: &file::Place) -> Result<(), Errno> {
        match address {
            Address::Unnamed => self.bind_automatically(),
            Address::Path(path) => self.bind_to_path(path, place),
            Address::Abstract(name) => self.bind_abstractly(name),
        }
    }

    fn bind_to_path(self: &Arc<Self>, path: &[u8], place: &file::Place) -> Result<(), Errno> {
        let taken = |error| match error {
            Errno::EEXIST => Errno::EADDRINUSE,
            error => error,
        };
        let found = place.walk(None, path, Last::Name)?;
        let entry = tree::make(&found, New::Socket, 0o777 & !place.umask()).map_err(taken)?;
        let bound = entry.inode().rendezvous().ok_or(Errno::EOPNOTSUPP);
        let bound = bound.and_then(|rendezvous| {
            let mut state = self.state.lock();
            if state.name.is_some() {
                return Err(Errno::EINVAL);
            }
            state.name = Some(Arc::new(Address::Path(path.into())));
            state.entry = Some(Arc::clone(&entry));
            *rendezvous.0.lock() = Arc::downgrade(self);
            Ok(())
        });
        if bound.is_err() {
            tree::remove(&found, false)?;
        }
        bound
    }

    fn bind_abstractly(self: &Arc<Self>, name: &[u8]) -> Result<(), Errno> {
        let mut all = ABSTRACT.lock();
        let mut state = self.state.lock();
        if state.name.is_some() {
            return Err(Errno::EINVAL);
        }
        match all.entry((self.kind, name.into())) {
            Slot::Occupied(_) => Err(Errno::EADDRINUSE),
            Slot::Vacant(free) => {
                free.insert(Arc::downgrade(self));
                state.name = Some(Arc::new(Address::Abstract(name.into())));
                Ok(())
            }
        }
    }

    /// Gives it an abstract name that nobody has, if it has none.
    pub(super) fn bind_automatically(self: &Arc<Self>) -> Result<(), Errno> {
        if self.state.lock().name.is_some() {
            return Ok(());
        }
        let mut first = [0; 4];
        random::fill(&mut first);
        let first = u32::from_ne_bytes(first);
        for number in 0..AUTOMATIC {
            let number = first.wrapping_add(number) % AUTOMATIC;
            match self.bind_abstractly(alloc::format!("{number:05x}").as_bytes()) {
                Err(Errno::EADDRINUSE) => {}
                // Another thread was faster.
                Err(Errno::EINVAL) => return Ok(()),
                bound => return bound,
            }
        }
        Err(Errno::ENOSPC)
    }

    /// Nobody finds it any more. It keeps its name, which its peers may ask for.
    pub(super) fn unbind(&self) {
        let mut state = self.state.lock();
        let (name, entry) = (state.name.clone(), state.entry.take());
        drop(state);
        match name.as_deref() {
            // Accepted sockets have the name too, and are not found by it.
            Some(Address::Abstract(name)) => {
                let key = (self.kind, name.clone());
                let mut all = ABSTRACT.lock();
                let is_it = all
                    .get(&key)
                    .is_some_and(|known| core::ptr::eq(known.as_ptr(), self));
                let forgotten = is_it.then(|| all.remove(&key));
                drop(all);
                drop(forgotten);
            }
            Some(Address::Path(_)) => {
                if let Some(rendezvous) = entry.as_ref().and_then(|entry| entry.inode().rendezvous()) {
                    rendezvous.leave();
                }
            }
            _ => {}
        }
    }

    /// The socket of this kind with a name.
    ///
    /// # Errors
    /// ECONNREFUSED: there is none. EPROTOTYPE: it is of another kind. EACCES and others: what the path says.
    pub(super) fn find(address: &Address, kind: Kind, place: &file::Place) -> Result<Arc<Self>, Errno> {
        match address {
            Address::Unnamed => Err(Errno::EINVAL),
            Address::Abstract(name) => {
                let all = ABSTRACT.lock();
                let found = all.get(&(kind, name.clone())).and_then(Weak::upgrade);
                drop(all);
                found.ok_or(Errno::ECONNREFUSED)
            }
            Address::Path(path) => {
                let entry = place.find(None, path, Last::Follow)?;
                let stat = entry.inode().stat();
                User::current().may(&stat, MAY_WRITE)?;
                if stat.mode & S_IFMT != S_IFSOCK {
                    return Err(Errno::ECONNREFUSED);
                }
                let rendezvous = entry.inode().rendezvous().ok_or(Errno::ECONNREFUSED)?;
                let found = rendezvous.0.lock().upgrade();
                let found = found.ok_or(Errno::ECONNREFUSED)?;
                if found.kind == kind {
                    Ok(found)
                } else {
                    Err(Errno::EPROTOTYPE)
                }
            }
        }
    }
}
