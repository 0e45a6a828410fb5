//! Open files on their way in messages.
//!
//! Files in a message that nobody reads are closed with the socket that it came to, one after the other however many sockets
//! are in each other's messages. Rings of sockets, which would stay for ever, are not made: to a socket that is itself on its
//! way in a message no sockets are sent (Linux makes rings, and looks for them). What comes to a connection that nobody has
//! accepted yet belongs to the socket that listens, and so comes to that one.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use super::{Socket, SocketFile};
use crate::abi::errno::Errno;
use crate::file::OpenFile;
use crate::sync::SpinLock;

/// Open files on their way in a message.
#[derive(Default)]
pub(super) struct Passed(Vec<Arc<OpenFile>>);

impl Passed {
    /// Sends `files` on their way to `receiver`.
    ///
    /// # Errors
    /// ETOOMANYREFS: there could be a ring.
    pub fn to(receiver: &Arc<Socket>, files: Vec<Arc<OpenFile>>) -> Result<Self, Errno> {
        static PASSING: SpinLock<()> = SpinLock::new(());
        if files.is_empty() {
            return Ok(Self::default());
        }
        let listener = receiver
            .state
            .lock()
            .listener
            .as_ref()
            .and_then(alloc::sync::Weak::upgrade);
        let owner = listener.as_ref().unwrap_or(receiver);
        let passing = PASSING.lock();
        let is_on_its_way = owner.on_the_way.load(Ordering::Relaxed) > 0;
        let mut sockets = files.iter().filter_map(|file| socket_of(file));
        let ring = sockets.any(|socket| is_on_its_way || Arc::ptr_eq(socket, owner));
        if !ring {
            for socket in files.iter().filter_map(|file| socket_of(file)) {
                socket.on_the_way.fetch_add(1, Ordering::Relaxed);
            }
        }
        drop(passing);
        if ring {
            return Err(Errno::ETOOMANYREFS);
        }
        Ok(Self(files))
    }

    /// The same files, for somebody who only looks at the message.
    pub fn seen(&self) -> Vec<Arc<OpenFile>> {
        self.0.clone()
    }

    /// They have come.
    pub fn arrive(&mut self) -> Vec<Arc<OpenFile>> {
        for socket in self.0.iter().filter_map(|file| socket_of(file)) {
            socket.on_the_way.fetch_sub(1, Ordering::Relaxed);
        }
        core::mem::take(&mut self.0)
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        close(self.arrive());
    }
}

fn socket_of(open: &OpenFile) -> Option<&Arc<Socket>> {
    open.as_file::<SocketFile>().map(|file| &file.socket)
}

/// Closes files that nobody has received. A socket among them may have others in its messages, and those again: whoever comes
/// first closes them all, on a stack that does not grow.
fn close(files: Vec<Arc<OpenFile>>) {
    static CLOSING: SpinLock<(Vec<Arc<OpenFile>>, bool)> = SpinLock::new((Vec::new(), false));
    if files.is_empty() {
        return;
    }
    let mut closing = CLOSING.lock();
    closing.0.extend(files);
    if core::mem::replace(&mut closing.1, true) {
        return;
    }
    while let Some(file) = closing.0.pop() {
        drop(closing);
        drop(file);
        closing = CLOSING.lock();
    }
    closing.1 = false;
}
