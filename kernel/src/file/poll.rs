//! Waiting for several files at once: what `poll` and `select` have in common.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr;
use core::time::Duration;

use super::readiness::{Listener, Poller, Readiness, Ticket};
use super::{OpenFile, signals};
use crate::abi::errno::Errno;
use crate::syscall::{Error, Restart};
use crate::task;

/// A file that is waited for.
pub struct Watched {
    /// The file; `None` is never ready.
    pub file: Option<Arc<OpenFile>>,
    /// For what; for nothing else, errors included.
    pub wanted: Readiness,
    /// What was found of that.
    pub found: Readiness,
}

/// A poller's places at files. Given up when dropped, the last one first: a notifier finds that one at once.
struct Registrations<'a>(Vec<Registration<'a>>);

impl Drop for Registrations<'_> {
    fn drop(&mut self) {
        while let Some(last) = self.0.pop() {
            drop(last);
        }
    }
}

/// A poller's place at a file, given up when dropped.
struct Registration<'a> {
    file: &'a OpenFile,
    ticket: Ticket,
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        if let Some(notifier) = self.file.file().notifier() {
            notifier.remove(self.ticket);
        }
    }
}

/// Looks at each; how many have something of what is wanted.
fn look(watched: &mut [Watched]) -> usize {
    let mut ready = 0;
    for one in watched {
        if let Some(file) = &one.file {
            one.found = file.readiness() & one.wanted;
        }
        ready += usize::from(!one.found.is_empty());
    }
    ready
}

/// Which notifier a file has.
fn notifier_of(file: &Arc<OpenFile>) -> Option<usize> {
    file.file()
        .notifier()
        .map(|notifier| ptr::from_ref(notifier).addr())
}

/// The files, one for each notifier however many descriptors lead to it: a notifier tells all of its listeners under a lock.
fn each_once(watched: &[Watched]) -> Vec<Arc<OpenFile>> {
    let mut files: Vec<Arc<OpenFile>> = watched.iter().filter_map(|one| one.file.clone()).collect();
    files.sort_unstable_by_key(notifier_of);
    files.dedup_by_key(|file| notifier_of(file));
    files
}

/// Has `poller` told by each of `files`.
fn register<'a>(poller: &Arc<Poller>, files: &'a [Arc<OpenFile>]) -> Result<Registrations<'a>, Errno> {
    let mut registrations = Registrations(Vec::new());
    registrations
        .0
        .try_reserve(files.len())
        .map_err(|_| Errno::ENOMEM)?;
    for file in files {
        if let Some(notifier) = file.file().notifier() {
            let listener: Arc<dyn Listener> = Arc::<Poller>::clone(poller);
            let ticket = notifier.add(listener)?;
            registrations.0.push(Registration { file, ticket });
        }
    }
    Ok(registrations)
}

/// The outcome when there is no more time. A signal that waits counts even then, as on Linux: with the mask of `ppoll` a program has
/// it handled so.
fn at_the_end(watched: &mut [Watched]) -> Result<usize, Error> {
    match look(watched) {
        0 if signals::is_pending() => Err(Restart::UnlessHandled.into()),
        ready => Ok(ready),
    }
}

/// Waits until one of them is ready, or `timeout` has passed; how many are.
///
/// # Errors
/// ENOMEM. A signal came first: [`Restart::UnlessHandled`].
pub fn wait(watched: &mut [Watched], timeout: Option<Duration>) -> Result<usize, Error> {
    if timeout == Some(Duration::ZERO) {
        return at_the_end(watched);
    }
    let ready = look(watched);
    if ready > 0 {
        return Ok(ready);
    }
    let poller = Poller::new();
    let files = each_once(watched);
    let _registrations = register(&poller, &files)?;
    let end = timeout.map(|timeout| task::now().saturating_add(timeout));
    loop {
        let ready = look(watched);
        if ready > 0 {
            return Ok(ready);
        }
        let left = end.map(|end| end.saturating_sub(task::now()));
        if left == Some(Duration::ZERO) || !poller.wait(left)? {
            return at_the_end(watched);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::file::OpenFlags;
    use crate::file::eventfd::EventFile;

    #[test]
    fn a_file_that_is_polled_by_many_descriptors_tells_the_poll_once() {
        let file = EventFile::new(0, false);
        let open = |_| OpenFile::new(Arc::<EventFile>::clone(&file), OpenFlags::RDWR);
        let watch = |file| Watched {
            file: Some(file),
            wanted: Readiness::IN,
            found: Readiness::empty(),
        };
        let mut watched: Vec<Watched> = (0..100).map(open).map(watch).collect();
        assert_eq!(wait(&mut watched, Some(Duration::from_millis(1))), Ok(0));
        let files = each_once(&watched);
        assert_eq!(files.len(), 1);
        let notifier = files[0].file().notifier().expect("it has one");
        let registrations = register(&Poller::new(), &files).expect("there is memory");
        assert_eq!(notifier.listeners().len(), 1);
        drop(registrations);
        assert!(notifier.listeners().is_empty(), "given up");
    }
}
