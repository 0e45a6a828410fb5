//! Who writes to a file and who runs it: never both at a time (Linux: `i_writecount`).

use alloc::sync::Arc;
use core::sync::atomic::{AtomicI32, Ordering};

use super::body::Body;
use crate::abi::errno::Errno;

/// Descriptors that a file is open for writing by, or, counted downwards, programs that are made of it.
#[derive(Debug, Default)]
pub struct Writers(AtomicI32);

impl Writers {
    /// Somebody may write from now on.
    ///
    /// # Errors
    /// ETXTBSY: it runs.
    pub fn enter(&self) -> Result<(), Errno> {
        self.step(1, |count| count >= 0)
    }

    /// And does not any more.
    pub fn leave(&self) {
        self.0.fetch_sub(1, Ordering::Release);
    }

    fn step(&self, step: i32, may: impl Fn(i32) -> bool) -> Result<(), Errno> {
        let next = |count: i32| count.checked_add(step).filter(|_| may(count));
        let stepped = self.0.try_update(Ordering::AcqRel, Ordering::Acquire, next);
        stepped.map(drop).map_err(|_| Errno::ETXTBSY)
    }
}

/// The file runs: nobody can open it for writing as long as this is there.
#[derive(Debug)]
pub struct RunningBody(Arc<Body>);

impl RunningBody {
    /// Has it run.
    ///
    /// # Errors
    /// ETXTBSY: it is open for writing.
    pub fn new(body: &Arc<Body>) -> Result<Arc<Self>, Errno> {
        body.writers.step(-1, |count| count <= 0)?;
        Ok(Arc::new(Self(Arc::clone(body))))
    }
}

impl Drop for RunningBody {
    fn drop(&mut self) {
        self.0.writers.0.fetch_add(1, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_or_runs() {
        let body = Arc::new(Body::empty(None));
        assert_eq!(body.writers.enter(), Ok(()));
        assert_eq!(body.writers.enter(), Ok(()));
        assert_eq!(RunningBody::new(&body).err(), Some(Errno::ETXTBSY));
        body.writers.leave();
        body.writers.leave();
        let first = RunningBody::new(&body).expect("nobody writes");
        let second = RunningBody::new(&body).expect("it can run twice");
        assert_eq!(body.writers.enter(), Err(Errno::ETXTBSY));
        drop(first);
        assert_eq!(body.writers.enter(), Err(Errno::ETXTBSY));
        drop(second);
        assert_eq!(body.writers.enter(), Ok(()));
    }
}
