//! Memory of a space as the kernel reaches it on somebody's behalf: through the tables, page by page.
//!
//! The caller need not be a task of the space. Faults are the space's all the same: its userfault contexts are asked, and
//! the caller sleeps until they have answered, or it is killed; other signals wait, whereas a copy by [`uaccess`] is tried again
//! and again once there is one. A context that is told about the tasks' own accesses only is not asked, nor
//! is any on behalf of somebody who cannot wait ([`Origin`]).
//!
//! | system call on Linux | here | raises |
//! | --- | --- | --- |
//! | `read` into memory, any result that is stored | [`uaccess::on_behalf`], a write | a store's faults |
//! | `write` from memory | [`uaccess::on_behalf`], a read | a load's |
//! | `MADV_POPULATE_READ`, `MADV_POPULATE_WRITE` | [`Space::populate`] | a load's, a store's |
//! | `mlock` | [`Space::populate_to_lock`] | a store's where a private area may be written, else a load's |
//! | `process_vm_readv`, `vmsplice` into a pipe | [`Space::read_pinned`] | a load's |
//! | `process_vm_writev`, `O_DIRECT` reads | [`Space::write_bytes`] | a store's |
//! | `futex` on a word | [`Space::populate`] as for a store, then a load | a store's |
//! | `/proc/pid/mem` | the two above with [`Origin::Debugger`] | none: it fails |
//!
//! A page is copied with the table locked, so that no store of ours goes to a page that was just replaced. Pages of tasks
//! are memory; nothing here touches devices.
//!
//! A debugger reads what may not be read, and writes to private memory that may not be written: it gets a page of its space's own
//! first, as a store would, and the entry stays as it is.
//!
//! [`uaccess`]: crate::mm::uaccess
//! [`uaccess::on_behalf`]: crate::mm::uaccess::on_behalf

use super::Space;
use super::fault::{is_nobody_elses, traps_writes};
use crate::arch::Stage1;
use crate::mm::addr::{PAGE_SIZE, USER_TOP, VirtAddr};
use crate::mm::fault::{self, Access, FaultError, FaultInfo, Origin};
use crate::mm::phys;
use crate::mm::pt::{Attr, AttrFlags, Cursor, Entry, Flush, Leaf, Level, Prot};
use crate::mm::range::VirtRange;
use crate::mm::uaccess::AccessError;
use crate::mm::vma::Vma;
use crate::task;

impl Space {
    /// Copies out of the space. May sleep; no lock may be held.
    ///
    /// # Errors
    /// A byte could not be read: the one at the error's address. Those before it are in `out`.
    pub fn read_bytes(&self, addr: VirtAddr, out: &mut [u8], origin: Origin) -> Result<(), AccessError> {
        self.by_page(addr, out.len(), Access::Read, origin, |page, first, len| {
            page.load(&mut out[first..first + len]);
        })
    }

    /// Copies out of the space for somebody who pins the pages first: one that a fork has shared becomes the space's own, so that it
    /// stays the one that is mapped. May sleep; no lock may be held.
    ///
    /// # Errors
    /// As for [`Self::read_bytes`].
    pub fn read_pinned(&self, addr: VirtAddr, out: &mut [u8]) -> Result<(), AccessError> {
        self.by_page(
            addr,
            out.len(),
            Access::Read,
            Origin::Kernel,
            |page, first, len| {
                page.load(&mut out[first..first + len]);
                page.unshare(self);
            },
        )
    }

    /// Copies into the space. May sleep; no lock may be held.
    ///
    /// # Errors
    /// A byte could not be written: the one at the error's address. Those before it are.
    pub fn write_bytes(&self, addr: VirtAddr, bytes: &[u8], origin: Origin) -> Result<(), AccessError> {
        self.by_page(addr, bytes.len(), Access::Write, origin, |page, first, len| {
            page.store(&bytes[first..first + len]);
        })
    }

    /// Makes every page of `range` as it would be after a load or a store of the kernel's. May sleep; no lock may be held.
    ///
    /// # Errors
    /// The access would fail at the error's address, or the task is to end; the pages before it are there.
    pub fn populate(&self, range: VirtRange, access: Access) -> Result<(), AccessError> {
        self.populate_as(range, access, Origin::Kernel)
    }

    /// [`Self::populate`] on the account of `origin`.
    ///
    /// # Errors
    /// The same.
    pub(super) fn populate_as(
        &self,
        range: VirtRange,
        access: Access,
        origin: Origin,
    ) -> Result<(), AccessError> {
        self.by_page(range.start, range.len() as usize, access, origin, |_, _, _| ())
    }

    /// Populates what was locked: like a store where that gives a private area its own pages now, and like a load elsewhere.
    /// What is not mapped, or is unmapped while a page is waited for, is passed over (as on Linux 6.18, which has looked for holes
    /// before); what gets other rights meanwhile is populated by those.
    ///
    /// # Errors
    /// As for [`Self::populate`].
    pub fn populate_to_lock(&self, range: VirtRange) -> Result<(), AccessError> {
        let mut at = range.start;
        while at < range.end {
            let next = self
                .vmas
                .read()
                .overlapping(VirtRange::new(at, range.end))
                .next()
                .cloned();
            let Some(vma) = next else { break };
            let part = VirtRange::new(at.max(vma.range.start), vma.range.end.min(range.end));
            let access = access_to_lock(&vma);
            let Err(error) = self.populate(part, access) else {
                at = part.end;
                continue;
            };
            let page = error.addr.align_down(PAGE_SIZE);
            let changed = |vma: &Vma| access_to_lock(vma) != access;
            at = match error.why {
                FaultError::Unmapped => page + PAGE_SIZE,
                // Its rights are others by now.
                FaultError::Forbidden if self.query(page).is_some_and(|vma| changed(&vma)) => page,
                _ => return Err(error),
            };
        }
        Ok(())
    }

    /// Calls `f(page, first, len)` for the part of `len` bytes from `addr` on that lies on each page, when that page allows
    /// the access.
    fn by_page(
        &self,
        addr: VirtAddr,
        len: usize,
        access: Access,
        origin: Origin,
        mut f: impl FnMut(&mut Reached<'_, '_>, usize, usize),
    ) -> Result<(), AccessError> {
        let mut done = 0;
        while done < len {
            // Whoever is to end does not go on to pages that nobody will use.
            if done > 0 && task::current().is_killed() {
                return Err(AccessError {
                    addr: addr + done as u64,
                    why: FaultError::Killed,
                });
            }
            let at = addr.checked_add(done as u64).filter(|at| *at < USER_TOP);
            let at = at.ok_or(AccessError {
                addr: USER_TOP,
                why: FaultError::Unmapped,
            })?;
            let chunk = (len - done).min((PAGE_SIZE - at.page_offset()) as usize);
            self.reach(at, access, origin, |page| f(page, done, chunk))
                .map_err(|why| AccessError { addr: at, why })?;
            done += chunk;
        }
        Ok(())
    }

    /// Calls `f` once the page at `addr` allows the access, however many faults that takes.
    fn reach(
        &self,
        addr: VirtAddr,
        access: Access,
        origin: Origin,
        mut f: impl FnMut(&mut Reached<'_, '_>),
    ) -> Result<(), FaultError> {
        // Pages are looked up, not bytes: a monitor that is told exact addresses is told the page's (as on Linux 6.18).
        let info = FaultInfo {
            addr: addr.align_down(PAGE_SIZE),
            access,
            origin,
        };
        let mut looked_again = false;
        while !self.try_reach(addr, access, origin, &mut f)? {
            if looked_again && task::current().is_killed() {
                return Err(FaultError::Killed);
            }
            fault::resolve(self, &info)?;
            looked_again = true;
        }
        Ok(())
    }

    /// Calls `f` with the page at `addr` if its entry allows the access now, or need not; the areas and the table are locked.
    /// False when a fault has to come first.
    ///
    /// # Errors
    /// Secret memory is reached by the mappings of tasks alone.
    fn try_reach(
        &self,
        addr: VirtAddr,
        access: Access,
        origin: Origin,
        f: &mut impl FnMut(&mut Reached<'_, '_>),
    ) -> Result<bool, FaultError> {
        let vmas = self.vmas.read();
        let Some(vma) = vmas.find(addr) else {
            return Ok(false);
        };
        if vma.ty.is_secret() {
            return Err(FaultError::Forbidden);
        }
        let (allowed, yields) = (vma.allows(access), vma.yields_to(access, origin));
        let mut flush = Flush::new();
        let mut table = self.table.lock();
        let mut cursor = table.cursor_at(addr.align_down(PAGE_SIZE));
        let (Entry::Leaf(leaf), level) = cursor.entry() else {
            return Ok(false);
        };
        let ready = allowed && leaf.prot.contains(access.right());
        if !ready && !(yields && (access != Access::Write || is_own(vma, &mut cursor, &leaf))) {
            return Ok(false);
        }
        f(&mut Reached {
            vma,
            cursor: &mut cursor,
            leaf,
            level,
            addr,
            flush: &mut flush,
        });
        drop(table);
        flush.spend(self);
        Ok(true)
    }
}

/// Whether a store to the page of a private mapping would only have to be allowed: nobody else has it, and it is not protected
/// for anybody who is asked.
fn is_own(vma: &Vma, cursor: &mut Cursor<'_, Stage1>, leaf: &Leaf) -> bool {
    let protected = leaf.attr.flags.contains(AttrFlags::UFFD_WP) && traps_writes(vma);
    !protected && cursor.share().as_ref().is_some_and(is_nobody_elses)
}

/// How an area that is to be locked is populated.
fn access_to_lock(vma: &Vma) -> Access {
    if vma.prot.contains(Prot::WRITE) && !vma.is_shared() {
        Access::Write
    } else {
        Access::Read
    }
}

/// A page that allows the access, with its table locked.
struct Reached<'a, 'b> {
    vma: &'a Vma,
    cursor: &'a mut Cursor<'b, Stage1>,
    leaf: Leaf,
    level: Level,
    /// The first byte of the access.
    addr: VirtAddr,
    flush: &'a mut Flush<VirtAddr>,
}

impl Reached<'_, '_> {
    fn offset(&self) -> u64 {
        self.addr.as_u64() & (self.level.size() - 1)
    }

    fn load(&mut self, out: &mut [u8]) {
        match self.cursor.share() {
            Some(folio) => phys::peek(&folio, self.offset(), out),
            // The only memory that tasks borrow is the shared page of zeros.
            None => out.fill(0),
        }
    }

    /// A page that a fork has shared, and no object, becomes the space's own; where there is no memory for a copy it stays as it is.
    fn unshare(&mut self, space: &Space) {
        let is_anonymous = self.cursor.share().is_some_and(|folio| !folio.is_cached());
        if is_anonymous && self.leaf.attr.flags.contains(AttrFlags::FORKED) {
            let attr = Attr {
                flags: self.leaf.attr.flags - AttrFlags::FORKED,
                ..self.leaf.attr
            };
            let _ = space.make_own(self.vma, self.cursor, self.leaf.prot, [attr; 2], self.flush);
        }
    }

    fn store(&mut self, bytes: &[u8]) {
        let folio = self.cursor.share();
        let folio = folio.expect("an entry that may be written owns its page");
        phys::poke(&folio, self.offset(), bytes);
        // What the CPU would have noted.
        let noted = AttrFlags::ACCESSED | AttrFlags::DIRTY;
        if !self.leaf.attr.flags.contains(noted) {
            let flags = self.leaf.attr.flags | noted;
            let attr = Attr {
                flags,
                ..self.leaf.attr
            };
            self.cursor.rewrite(self.leaf.prot, attr, self.flush);
        }
    }
}
