//! A process.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use super::limits::Limits;
use super::signal::{Actions, ProcessSignals};
use super::table::{Claim, Pid};
use super::timer::Timers;
use super::tree::{Member, News, Times};
use super::{Credentials, Mm, Thread, exit};
use crate::file::{Notifier, Place, Table};
use crate::sync::SpinLock;
use crate::task::{Completion, WaitQueue, WaitReason};

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// By `exit` or `exit_group` with this status.
    Exited(u8),
    /// By a signal.
    Signalled(u8),
}

impl Ending {
    /// As `wait4` tells it.
    pub fn status(self) -> u32 {
        match self {
            Self::Exited(status) => u32::from(status) << 8,
            Self::Signalled(signal) => signal.into(),
        }
    }
}

/// What a process is made of.
#[derive(Debug)]
pub struct Parts {
    /// Its memory.
    pub mm: Arc<Mm>,
    /// The path that was executed.
    pub exe: String,
    /// Its descriptors.
    pub files: Arc<Table>,
    /// Where it stands in the tree of files.
    pub place: Arc<Place>,
    /// What it does about signals.
    pub actions: Arc<Actions>,
    /// Its limits.
    pub limits: Limits,
}

/// A process: threads that share memory, files and signal handlers.
#[derive(Debug)]
pub struct Process {
    claim: Arc<Claim>,
    /// Its parent's number, as the tree has it.
    parent: AtomicU32,
    mm: SpinLock<Arc<Mm>>,
    exe: SpinLock<String>,
    files: SpinLock<Arc<Table>>,
    place: SpinLock<Arc<Place>>,
    limits: SpinLock<Limits>,
    /// Its signals.
    pub signals: ProcessSignals,
    /// Told of every signal that is sent to it. Descriptors that outlive the process know it.
    pub signal_readers: Arc<Notifier>,
    /// Told of its threads' ends, of its own, and when it was waited for. Handles know it.
    pub(super) changes: Arc<Notifier>,
    /// Those that have not ended; the first one first, while it lives.
    threads: SpinLock<Vec<Arc<Thread>>>,
    /// Told when one of them ends.
    pub(super) threads_changed: WaitQueue,
    /// Told when a child has something to tell.
    pub(super) children_changed: WaitQueue,
    /// Commands of `membarrier` that it has registered for.
    pub barriers: AtomicU32,
    /// `PR_SET_DUMPABLE`.
    dumpable: AtomicBool,
    /// A thread ends the others to execute a program.
    executing: AtomicBool,
    stopped: AtomicBool,
    going_on: WaitQueue,
    ending: SpinLock<Option<Ending>>,
    is_ending: AtomicBool,
    /// Its user, when its last thread ended.
    uid_at_end: AtomicU32,
    /// CPU time of threads that have ended, in ticks.
    past_ticks: AtomicU64,
    /// Its timers.
    pub timers: Timers,
    /// What its first thread said when that ended alone.
    leader_status: AtomicU8,
    ended: Completion,
}

static ENDS: WaitReason = WaitReason::new("the end of process");
static THREADS: WaitReason = WaitReason::new("the ends of other threads");
static CHILDREN: WaitReason = WaitReason::new("a child");
static CONTINUES: WaitReason = WaitReason::new("SIGCONT");
static SIGNALS: WaitReason = WaitReason::new("a signal, by its descriptor");

impl Member for Arc<Process> {
    fn note_parent(&self, parent: Pid) {
        self.parent.store(parent.as_u32(), Ordering::Relaxed);
    }
}

impl Process {
    /// A process without threads, whose first one will have the claimed number. Nobody knows it yet.
    pub fn new(claim: &Arc<Claim>, parts: Parts) -> Arc<Self> {
        parts.mm.enter();
        Arc::new(Self {
            claim: Arc::clone(claim),
            parent: AtomicU32::new(Pid::INIT.as_u32()),
            mm: SpinLock::new(parts.mm),
            exe: SpinLock::new(parts.exe),
            files: SpinLock::new(parts.files),
            place: SpinLock::new(parts.place),
            limits: SpinLock::new(parts.limits),
            signals: ProcessSignals::new(parts.actions),
            signal_readers: Arc::new(Notifier::new(&SIGNALS)),
            changes: Arc::new(Notifier::new(&ENDS)),
            threads: SpinLock::new(Vec::new()),
            threads_changed: WaitQueue::new(&THREADS),
            children_changed: WaitQueue::new(&CHILDREN),
            barriers: AtomicU32::new(0),
            dumpable: AtomicBool::new(true),
            executing: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            going_on: WaitQueue::new(&CONTINUES),
            ending: SpinLock::new(None),
            is_ending: AtomicBool::new(false),
            uid_at_end: AtomicU32::new(0),
            past_ticks: AtomicU64::new(0),
            timers: Timers::default(),
            leader_status: AtomicU8::new(0),
            ended: Completion::new(&ENDS).about(claim.pid().as_u32() as usize),
        })
    }

    /// Its number.
    pub fn pid(&self) -> Pid {
        self.claim.pid()
    }

    /// The claim on that.
    pub(super) fn claim(&self) -> &Arc<Claim> {
        &self.claim
    }

    /// The number of the process that is told of its end.
    #[inline]
    pub fn parent_pid(&self) -> Pid {
        Pid::new(self.parent.load(Ordering::Relaxed))
    }

    /// Its memory.
    pub fn mm(&self) -> Arc<Mm> {
        Arc::clone(&self.mm.lock())
    }

    /// Another program's memory takes the place of its own.
    pub(super) fn replace_mm(&self, mm: Arc<Mm>, exe: String) {
        mm.enter();
        let old = core::mem::replace(&mut *self.mm.lock(), mm);
        let old_exe = core::mem::replace(&mut *self.exe.lock(), exe);
        old.leave();
        drop((old, old_exe));
    }

    /// It has no memory any more.
    pub(super) fn leave_mm(&self) {
        self.mm().leave();
    }

    /// The path that was executed.
    pub fn exe(&self) -> String {
        self.exe.lock().clone()
    }

    /// Its descriptors.
    pub fn files(&self) -> Arc<Table> {
        Arc::clone(&self.files.lock())
    }

    /// Other descriptors take the place of its own, when it executes another program or ends: no thread of its makes calls
    /// any more but the one that is in this one.
    pub fn set_files(&self, files: Arc<Table>) {
        let old = core::mem::replace(&mut *self.files.lock(), files);
        drop(old);
    }

    /// Where it stands in the tree of files.
    pub fn place(&self) -> Arc<Place> {
        Arc::clone(&self.place.lock())
    }

    /// It stands elsewhere from now on.
    pub fn set_place(&self, place: Arc<Place>) {
        let old = core::mem::replace(&mut *self.place.lock(), place);
        drop(old);
    }

    /// Its limits.
    pub fn limits(&self) -> Limits {
        *self.limits.lock()
    }

    /// Changes its limits.
    pub fn change_limits<R>(&self, change: impl FnOnce(&mut Limits) -> R) -> R {
        change(&mut self.limits.lock())
    }

    /// Its threads that have not ended.
    pub fn threads(&self) -> Vec<Arc<Thread>> {
        self.threads.lock().clone()
    }

    /// How many they are.
    pub fn thread_count(&self) -> usize {
        self.threads.lock().len()
    }

    /// Whom it acts as: its first thread.
    pub fn credentials(&self) -> Credentials {
        let first = self.threads.lock().first().cloned();
        first.map_or_else(Credentials::root, |thread| thread.credentials())
    }

    /// There may be something for its threads to do before they go to user mode.
    pub(super) fn set_notices(&self) {
        self.threads
            .lock()
            .iter()
            .for_each(|thread| thread.signals.set_notice());
    }

    /// CPU time that its threads have used.
    pub fn times(&self) -> Times {
        let living: u64 = self.threads().iter().map(|thread| thread.ticks()).sum();
        let ticks = living + self.past_ticks.load(Ordering::Relaxed);
        Times {
            user: ticks * super::thread::TICK,
            system: 0,
        }
    }

    /// Another thread of it begins; false when it is ending, or ends the others to execute a program, and none may.
    pub(super) fn add_thread(&self, thread: &Arc<Thread>) -> bool {
        let mut threads = self.threads.lock();
        if self.is_ending() || self.executing.load(Ordering::Acquire) {
            return false;
        }
        threads.push(Arc::clone(thread));
        true
    }

    /// A thread has ended; true when it was the last one.
    pub(super) fn remove_thread(&self, thread: &Thread) -> bool {
        self.past_ticks.fetch_add(thread.ticks(), Ordering::Relaxed);
        let mut threads = self.threads.lock();
        let place = threads.iter().position(|other| core::ptr::eq(&**other, thread));
        let removed = place.map(|place| threads.remove(place));
        let was_last = threads.is_empty();
        drop(threads);
        drop(removed);
        self.threads_changed.wake_all();
        was_last
    }

    /// Ends every thread but `thread`, the current one, which executes a program, and waits until they are gone. False when it
    /// is to end itself, or another one executes a program.
    pub(super) fn end_other_threads(&self, thread: &Thread) -> bool {
        if self.executing.swap(true, Ordering::AcqRel) {
            return false;
        }
        for other in self.threads() {
            if !core::ptr::eq(&*other, thread) {
                other.dismiss();
            }
        }
        self.threads_changed
            .wait_until(|| (self.thread_count() == 1 || thread.must_end()).then_some(()));
        let alone = !thread.must_end();
        if !alone {
            self.executes_no_more();
        }
        alone
    }

    /// Another program begins.
    pub(super) fn executes_no_more(&self) {
        self.executing.store(false, Ordering::Release);
    }

    /// It is to end like this, unless it is ending already: every thread ends where it is.
    pub fn begin_exit(&self, ending: Ending) {
        self.end(ending);
        let threads = self.threads.lock();
        self.is_ending.store(true, Ordering::Release);
        let all = threads.clone();
        drop(threads);
        for thread in all {
            thread.kill();
        }
        self.going_on.wake_all();
    }

    /// Its first thread ends alone, with this status; that is the process's if nobody ends it otherwise.
    pub(super) fn note_leader_status(&self, status: u8) {
        self.leader_status.store(status, Ordering::Relaxed);
    }

    /// Its last thread has ended: nobody says any more how.
    pub(super) fn settle_ending(&self) -> Ending {
        self.end(Ending::Exited(self.leader_status.load(Ordering::Relaxed)));
        self.ending().unwrap_or(Ending::Exited(0))
    }

    /// Says how it ends; the first one who says so is right.
    pub(super) fn end(&self, ending: Ending) {
        self.ending.lock().get_or_insert(ending);
    }

    /// Whether every thread is to end.
    #[inline]
    pub fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Acquire)
    }

    /// How it ends, or has ended.
    pub fn ending(&self) -> Option<Ending> {
        *self.ending.lock()
    }

    /// Whether others of its user may look into it.
    pub fn is_dumpable(&self) -> bool {
        self.dumpable.load(Ordering::Relaxed)
    }

    /// Says whether they may.
    pub fn set_dumpable(&self, dumpable: bool) {
        self.dumpable.store(dumpable, Ordering::Relaxed);
    }

    /// Whether it was stopped by a signal.
    #[inline]
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Every thread stops on its way to user mode.
    pub fn stop(self: &Arc<Self>, signal: u8) {
        if !self.stopped.swap(true, Ordering::AcqRel) {
            for thread in self.threads() {
                thread.interrupt();
            }
            exit::tell_parent(self, News::Stopped(signal));
        }
    }

    /// Threads that were stopped go on.
    pub fn go_on(self: &Arc<Self>) {
        if self.stopped.swap(false, Ordering::AcqRel) {
            self.going_on.wake_all();
            exit::tell_parent(self, News::Continued);
        }
    }

    /// Waits until the process goes on, or is to end.
    pub(super) fn stay_stopped(&self, thread: &Thread) {
        self.going_on
            .wait_until(|| (!self.is_stopped() || thread.must_end()).then_some(()));
    }

    /// Its user when its last thread ended.
    pub(super) fn uid_at_end(&self) -> u32 {
        self.uid_at_end.load(Ordering::Relaxed)
    }

    /// Notes that.
    pub(super) fn note_uid(&self, uid: u32) {
        self.uid_at_end.store(uid, Ordering::Relaxed);
    }

    /// It is over; whoever waits for that may know.
    pub(super) fn complete(&self) {
        self.ended.complete();
    }

    /// Waits until its last thread has ended; says how.
    pub fn wait(&self) -> Ending {
        self.ended.wait();
        self.ending().unwrap_or(Ending::Exited(0))
    }
}
