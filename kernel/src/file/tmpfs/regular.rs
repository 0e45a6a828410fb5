//! A regular file that is open.

use alloc::sync::Arc;
use core::fmt;

use super::body::{Body, Seals, unwritten};
use super::node::Attributes;
use super::writers::RunningBody;
use crate::abi::errno::Errno;
use crate::file::{Content, File, Io, Mapped, Mapping, PIECE, Running, Seeking, Sink, Source};
use crate::mm::addr::PAGE_SIZE;
use crate::mm::cache::Object;
use crate::sync::SpinLock;
use crate::syscall::Error;

/// An open regular file.
pub struct RegularFile {
    body: Arc<Body>,
    attributes: Arc<SpinLock<Attributes>>,
    /// It counts among those who may write.
    writes: bool,
}

impl Drop for RegularFile {
    fn drop(&mut self) {
        if self.writes {
            self.body.writers.leave();
        }
    }
}

impl RegularFile {
    /// It, open for writing or not.
    ///
    /// # Errors
    /// ETXTBSY: it runs, and is to be written.
    pub(super) fn of(
        body: &Arc<Body>,
        attributes: &Arc<SpinLock<Attributes>>,
        writes: bool,
    ) -> Result<Arc<dyn File>, Errno> {
        if writes {
            body.writers.enter()?;
        }
        Ok(Arc::new(Self {
            body: Arc::clone(body),
            attributes: Arc::clone(attributes),
            writes,
        }))
    }

    /// Its contents.
    pub fn body(&self) -> &Arc<Body> {
        &self.body
    }

    fn write_from(&self, io: &mut Io, from: &mut Source<'_>) -> Result<(), Error> {
        let object = self.body.object()?;
        if io.append {
            io.at = object.size();
        }
        let mut piece = [0; PIECE];
        while from.left() > 0 {
            let seals = self.body.seals();
            if self.body.is_write_sealed() {
                return Err(Errno::EPERM.into());
            }
            // To the end of a page, so that a seal is looked at for each, as on Linux.
            let room = PIECE - (io.at % PAGE_SIZE) as usize;
            let (len, taken) = from.take(&mut piece[..room]);
            if seals.contains(Seals::GROW) && io.at.saturating_add(len as u64) > object.size() {
                from.give_back(len);
                return Err(Errno::EPERM.into());
            }
            let (written, outcome) = object.write(io.at, &piece[..len]);
            io.at += written;
            from.give_back(len - written as usize);
            outcome.map_err(unwritten)?;
            taken?;
        }
        Ok(())
    }
}

impl File for RegularFile {
    fn label(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        f.write_str("a regular file")
    }

    fn seeking(&self) -> Seeking {
        Seeking::Positions
    }

    fn end(&self) -> u64 {
        self.body.size()
    }

    fn find(&self, at: u64, what: Content) -> Result<u64, Errno> {
        let object = self.body.object()?;
        match what {
            Content::Data => next_data(&object, at).ok_or(Errno::ENXIO),
            Content::Hole => Ok(next_hole(&object, at, self.body.granule())),
        }
    }

    fn read(&self, io: &mut Io, to: &mut Sink<'_>) -> Result<usize, Error> {
        let object = self.body.object()?;
        let mut piece = [0; PIECE];
        let mut ended = Ok(());
        while to.left() > 0 {
            let room = PIECE - (io.at % PAGE_SIZE) as usize;
            let len = object.read(io.at, &mut piece[..room.min(to.left())]);
            if len == 0 {
                break;
            }
            let before = to.done();
            ended = to.put(&piece[..len]).map_err(Error::from);
            io.at += (to.done() - before) as u64;
            if ended.is_err() {
                break;
            }
        }
        to.outcome(ended)
    }

    fn write(&self, io: &mut Io, from: &mut Source<'_>) -> Result<usize, Error> {
        if from.left() == 0 {
            return Ok(0);
        }
        if !self.body.object()?.ty().takes_writes() {
            return Err(Errno::EINVAL.into());
        }
        let _writing = self.body.writing.lock_unless_killed().ok_or(Errno::EINTR)?;
        let ended = self.write_from(io, from);
        self.attributes.lock().note_modified();
        from.outcome(ended)
    }

    fn mapping(&self) -> Result<Mapping, Errno> {
        Ok(Mapping {
            memory: Mapped::Object(self.body.object()?),
            may_share_to_write: !self.body.is_write_sealed(),
        })
    }

    fn truncate(&self, size: u64) -> Result<(), Errno> {
        self.body.truncate(size)?;
        self.attributes.lock().note_modified();
        Ok(())
    }

    fn allocate(&self, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
        self.body.allocate(mode, offset, len)?;
        self.attributes.lock().note_modified();
        Ok(())
    }

    fn sync(&self) -> Result<(), Errno> {
        Ok(())
    }

    fn run(&self) -> Result<Option<Running>, Errno> {
        Ok(Some(RunningBody::new(&self.body)?))
    }
}

/// The first byte from `at` on that is in a page and not past the end.
fn next_data(object: &Object, at: u64) -> Option<u64> {
    let page = object.data_from(at)?;
    Some(page.max(at)).filter(|found| *found < object.size())
}

/// The first byte from `at` on that is in no page; the end counts as one.
fn next_hole(object: &Object, at: u64, granule: u64) -> u64 {
    let mut page = at - at % granule;
    while object.data_from(page) == Some(page) {
        page += granule;
    }
    page.max(at).min(object.size())
}
