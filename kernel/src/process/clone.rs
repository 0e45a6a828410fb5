//! New threads and processes: `clone`, `clone3`, `fork`, `vfork`.

use alloc::sync::Arc;

use super::handle::Handle;
use super::limits::Resource;
use super::run::{self, Context};
use super::table::{Claim, Pid};
use super::{Process, Thread, process, thread, with_tree};
use crate::abi::clone::{
    CLONE_CHILD_CLEARTID, CLONE_CHILD_SETTID, CLONE_CLEAR_SIGHAND, CLONE_DETACHED, CLONE_FILES, CLONE_FS,
    CLONE_KNOWN, CLONE_NEW_ANYTHING, CLONE_PARENT, CLONE_PARENT_SETTID, CLONE_PIDFD, CLONE_SETTLS,
    CLONE_SIGHAND, CLONE_THREAD, CLONE_VFORK, CLONE_VM,
};
use crate::abi::errno::Errno;
use crate::abi::signal::SIGNALS;
use crate::arch::Extra;
use crate::arch::user::Registers;
use crate::file::pidfd::PidFile;
use crate::file::{OpenFile, OpenFlags, Table};
use crate::mm::addr::{USER_TOP, VirtAddr};
use crate::mm::frame;
use crate::mm::uaccess::{self, on_behalf};
use crate::syscall::{Error, Restart};
use crate::task::{self, Completion, WaitReason};

/// What is to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Request {
    /// `CLONE_*`, without a signal in the low byte.
    pub flags: u64,
    /// What the parent is sent when the child ends; 0: nothing.
    pub exit_signal: u64,
    /// The child's stack pointer; 0: as its maker's.
    pub stack: u64,
    /// Where its number is stored in its maker's memory.
    pub parent_tid: u64,
    /// Where it is stored in its own, or cleared at its end.
    pub child_tid: u64,
    /// The base of FS.
    pub tls: u64,
    /// Where the descriptor of the child is stored.
    pub pidfd: u64,
}

/// The part of all memory that stays free when threads are made: whoever makes many of them is refused before the others have
/// none.
const KEPT_FREE: u64 = 8;
/// Frames for each thread that there may be (Linux: an eighth of all memory may be stacks of threads, and a user may have half
/// of them; threads are larger here, and touch more after they have begun).
const FRAMES_PER_THREAD: u64 = 64;

static VFORK: WaitReason = WaitReason::uninterruptible("a vfork child");

/// Makes a thread or a process like the current one, `maker`; gives its number. With `CLONE_VFORK` it returns when the child
/// uses the maker's memory no more.
///
/// # Errors
/// EINVAL: the flags do not go together. EAGAIN: too many threads, or no memory for another. ENOMEM: no memory for a copy.
/// EMFILE, EFAULT: there can be no descriptor of it, or its number cannot be stored.
pub fn clone(
    maker: &Arc<Thread>,
    request: &Request,
    registers: &Registers,
    extra: &mut Extra,
) -> Result<Pid, Error> {
    check(request)?;
    check_limits(maker)?;
    let claim = claim_number()?;
    let mut context = Context {
        registers: *registers,
        extra: extra.duplicate(),
        tell_tid: flag(request, CLONE_CHILD_SETTID).then(|| VirtAddr::new(request.child_tid)),
    };
    context.registers.rax = 0;
    if request.stack != 0 {
        context.registers.rsp = request.stack;
    }
    if flag(request, CLONE_SETTLS) {
        context.extra.set_fs_base(VirtAddr::new(request.tls));
    }
    let (thread, is_new) = make(maker, request, claim)?;
    thread.set_scheduling(maker.scheduling());
    if flag(request, CLONE_CHILD_CLEARTID) {
        thread.set_clear_at_end(Some(VirtAddr::new(request.child_tid)));
    }
    if !flag(request, CLONE_VM) || flag(request, CLONE_VFORK) {
        let altstack = *maker.signals.altstack.lock();
        *thread.signals.altstack.lock() = altstack;
    }
    if !flag(request, CLONE_VM) {
        // A copy of the memory has a copy of the area in it.
        thread.rseq.set(maker.rseq.get());
    }
    let tid = thread.tid();
    // Before it is anybody's child: there may be none, and its number may have to wait for memory.
    let descriptor = match flag(request, CLONE_PIDFD) {
        true => Descriptor::open(maker, request, &thread).map(Some),
        false => Ok(None),
    };
    let descriptor = descriptor.inspect_err(|_| drop_thread(&thread, is_new))?;
    if flag(request, CLONE_PARENT_SETTID) {
        // As Linux: a word that cannot be written is the program's own business.
        let word = VirtAddr::new(request.parent_tid);
        let _ = on_behalf(|| uaccess::write(word, &tid.as_u32().to_le_bytes()));
    }
    let left = Arc::new(Completion::new(&VFORK).about(tid.as_u32() as usize));
    if flag(request, CLONE_VFORK) {
        *thread.vfork.lock() = Some(Arc::clone(&left));
    }
    if is_new {
        let (pid, member) = (thread.process().pid(), Arc::clone(thread.process()));
        let maker = maker.process().pid();
        with_tree(|tree| match flag(request, CLONE_PARENT) {
            true => tree.enter_beside(pid, maker, member),
            false => tree.enter(pid, maker, request.exit_signal as u8, member),
        });
    }
    if run::begin(&thread, context).is_err() {
        if let Some(descriptor) = descriptor {
            descriptor.close();
        }
        drop_thread(&thread, is_new);
        return Err(Errno::EAGAIN.into());
    }
    drop(descriptor);
    if flag(request, CLONE_VFORK) {
        wait_for_vfork(maker, &left);
    }
    Ok(tid)
}

/// A descriptor of what is being made.
struct Descriptor {
    files: Arc<Table>,
    number: u64,
    file: Arc<OpenFile>,
}

impl Descriptor {
    /// Opens one of the new thread, or process, for its maker, and stores the number.
    fn open(maker: &Thread, request: &Request, thread: &Thread) -> Result<Self, Error> {
        let handle = match flag(request, CLONE_THREAD) {
            true => Handle::of_thread(thread),
            false => Handle::of_process(thread.process()),
        };
        let files = maker.process().files();
        let file = PidFile::open(handle, OpenFlags::empty());
        let number = files.install(Arc::clone(&file), true)?;
        let descriptor = Self { files, number, file };
        let word = VirtAddr::new(request.pidfd);
        let told = on_behalf(|| uaccess::write(word, &(number as u32).to_le_bytes()));
        if told.is_err() {
            descriptor.close();
            return Err(Errno::EFAULT.into());
        }
        Ok(descriptor)
    }

    /// Closes it. Other threads have seen it: one may have closed it already, and opened something else.
    fn close(self) {
        self.files.close_if(self.number, &self.file);
    }
}

fn flag(request: &Request, flag: u64) -> bool {
    request.flags & flag != 0
}

/// The rules of clone(2).
fn check(request: &Request) -> Result<(), Errno> {
    let has = |wanted| flag(request, wanted);
    let contradicts = (has(CLONE_SIGHAND) && !has(CLONE_VM))
        || (has(CLONE_THREAD) && !has(CLONE_SIGHAND))
        || (has(CLONE_SIGHAND) && has(CLONE_CLEAR_SIGHAND))
        || (has(CLONE_PIDFD) && has(CLONE_DETACHED))
        || (has(CLONE_PIDFD) && has(CLONE_PARENT_SETTID) && request.pidfd == request.parent_tid);
    let unknown = request.flags & !CLONE_KNOWN != 0 || has(CLONE_NEW_ANYTHING);
    let bad_signal = request.exit_signal > SIGNALS.into();
    if contradicts || unknown || bad_signal {
        return Err(Errno::EINVAL);
    }
    if has(CLONE_SETTLS) && request.tls >= USER_TOP.as_u64() {
        return Err(Errno::EPERM);
    }
    Ok(())
}

/// A number that nobody has, no group and no session either.
fn claim_number() -> Result<Arc<Claim>, Errno> {
    loop {
        let claim = Claim::next().ok_or(Errno::EAGAIN)?;
        if !with_tree(|tree| tree.is_group_or_session(claim.pid())) {
            return Ok(claim);
        }
    }
}

/// Whether there may be another thread.
fn check_limits(maker: &Thread) -> Result<(), Errno> {
    let limit = maker.process().limits().get(Resource::Processes).soft;
    let count = thread::living() as u64;
    let is_exempt = maker.credentials().user.real == super::credentials::ROOT;
    let most = frame::allocator().stats().managed / FRAMES_PER_THREAD;
    if count >= most || (count >= limit && !is_exempt) {
        return Err(Errno::EAGAIN);
    }
    if is_tight() {
        // What has ended may not have given everything back yet.
        task::yield_now();
    }
    if is_tight() { Err(Errno::EAGAIN) } else { Ok(()) }
}

/// Whether little memory is left.
fn is_tight() -> bool {
    let frames = frame::allocator().stats();
    frames.free < frames.managed / KEPT_FREE
}

/// The thread, of its maker's process or of a new one; whether it is a new one.
fn make(maker: &Arc<Thread>, request: &Request, claim: Arc<Claim>) -> Result<(Arc<Thread>, bool), Error> {
    let parts = |claim| thread::Parts {
        claim,
        credentials: maker.credentials(),
        name: maker.name_bytes(),
        blocked: maker.signals.blocked(),
        scheduling: maker.scheduling(),
    };
    let old = maker.process();
    if flag(request, CLONE_THREAD) {
        return Ok((Thread::new(old, parts(claim))?, false));
    }
    // In Linux's order: descriptors that come while somebody is told of the fork are not the child's.
    let files = match flag(request, CLONE_FILES) {
        true => old.files(),
        false => old.files().copy()?,
    };
    let place = match flag(request, CLONE_FS) {
        true => old.place(),
        false => old.place().copy(),
    };
    let actions = old.signals.actions();
    let actions = if flag(request, CLONE_SIGHAND) {
        actions
    } else if flag(request, CLONE_CLEAR_SIGHAND) {
        Arc::new(actions.without_handlers())
    } else {
        Arc::new(actions.copy())
    };
    let mm = match flag(request, CLONE_VM) {
        true => old.mm(),
        false => {
            let mm = old.mm();
            let space = mm.space().fork().map_err(not_forked)?;
            mm.forked(space)
        }
    };
    let process = Process::new(
        &claim,
        process::Parts {
            mm,
            exe: old.exe(),
            files,
            place,
            actions,
            limits: old.limits(),
        },
    );
    Ok((Thread::new(&process, parts(claim))?, true))
}

fn not_forked(error: crate::mm::space::ForkError) -> Error {
    match error {
        crate::mm::space::ForkError::OutOfMemory => Errno::ENOMEM.into(),
        // The caller is about to end.
        crate::mm::space::ForkError::Killed => Restart::Always.into(),
    }
}

/// Takes back what could not be started. Others may have seen it: those who wait for it look again.
fn drop_thread(thread: &Arc<Thread>, is_new: bool) {
    let process = thread.process();
    thread.take_clear_at_end();
    if is_new {
        let (forgotten, parent) = with_tree(|tree| {
            let forgotten = tree.forget(process.pid());
            let parent = tree.get(process.parent_pid()).cloned();
            (forgotten, parent)
        });
        if forgotten.is_some()
            && let Some(parent) = parent
        {
            parent.children_changed.wake_all();
        }
        process.leave_mm();
    }
    thread.note_end();
    process.remove_thread(thread);
    process.note_change();
}

/// Waits until the child has left the maker's memory; nothing but the maker's end cuts that short.
fn wait_for_vfork(maker: &Thread, left: &Completion) {
    left.wait_unless(|| maker.must_end());
}
