//! What the player, the case and its forked children share.
#![expect(
    unsafe_code,
    reason = "memory that processes share is reached through a pointer"
)]

use std::cell::UnsafeCell;
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use guest_tests::sys;

use super::pen::Pen;

/// Who carries steps out: a monitor, workers, and children that a `fork` makes.
pub const ACTORS: [&str; 8] = ["m", "t0", "t1", "t2", "t3", "c0", "c1", "c2"];
/// How many of them are threads of the case itself; the others are children.
pub const THREADS: usize = 5;

/// Bytes of what one step can say.
const ANSWER: usize = 8192;
/// Bytes of what one case can say.
const TRANSCRIPT: usize = 1 << 20;

/// The shared memory. All zero is its state before a case.
#[repr(C)]
pub struct Control {
    slots: [Slot; ACTORS.len()],
    transcript: Transcript,
    /// Not zero while messages are queued whose order nobody decides.
    disorder: AtomicU32,
}

/// An actor's mailbox. `posted` runs ahead of `done` while a step is carried out.
pub struct Slot {
    /// The thread's id; 0 until it is ready for steps.
    pub tid: AtomicU32,
    /// Of a child: its process id, as its parent learned it; 0 while there is none.
    pub pid: AtomicU32,
    posted: AtomicU32,
    done: AtomicU32,
    step: AtomicU32,
    answer: UnsafeCell<Pen<ANSWER>>,
}

// SAFETY: the answer is written by the actor alone before it raises `done`, and read by the case after it has seen that.
unsafe impl Sync for Slot {}

impl Control {
    /// Maps the memory, for all processes that are forked from this one.
    pub fn map() -> Option<&'static Self> {
        let read_write = (libc::PROT_READ | libc::PROT_WRITE) as usize;
        let flags = (libc::MAP_SHARED | libc::MAP_ANONYMOUS) as usize;
        let at = sys::call(
            libc::SYS_mmap,
            &[0, size_of::<Self>(), read_write, flags, usize::MAX, 0],
        )
        .ok()?;
        // SAFETY: fresh memory of that size, never unmapped; all zero is a valid state, and everything in it is atomic
        // or follows the protocol of `Slot`.
        Some(unsafe { &*(at as *const Self) })
    }

    /// Back to the state before a case. Nobody else may use it any more.
    pub fn reset(&self) {
        for slot in &self.slots {
            for word in [&slot.tid, &slot.pid, &slot.posted, &slot.done, &slot.step] {
                word.store(0, Ordering::Relaxed);
            }
        }
        self.disorder.store(0, Ordering::Relaxed);
        self.transcript.used.store(0, Ordering::Relaxed);
    }

    /// An actor's mailbox.
    pub fn slot(&self, actor: usize) -> &Slot {
        &self.slots[actor]
    }

    /// The process ids of the children that were forked.
    pub fn children(&self) -> impl Iterator<Item = u32> {
        self.slots[THREADS..]
            .iter()
            .map(|slot| slot.pid.load(Ordering::Relaxed))
            .filter(|pid| *pid != 0)
    }

    /// The lines of the case.
    pub fn transcript(&self) -> &Transcript {
        &self.transcript
    }

    /// Whether messages are queued whose order nobody decides.
    pub fn disorder(&self) -> bool {
        self.disorder.load(Ordering::Relaxed) != 0
    }

    /// Says so.
    pub fn set_disorder(&self, disorder: bool) {
        self.disorder.store(disorder.into(), Ordering::Relaxed);
    }

    /// The name of the actor whose thread has this id.
    pub fn name_of(&self, tid: u32) -> &'static str {
        let known = |slot: &Slot| slot.tid.load(Ordering::Relaxed) == tid;
        match self.slots.iter().position(known) {
            _ if tid == 0 => "-",
            Some(actor) => ACTORS[actor],
            None => "somebody",
        }
    }
}

impl Slot {
    /// Hands a step over. The actor must be idle.
    pub fn post(&self, step: usize) {
        self.step.store(step as u32, Ordering::Relaxed);
        self.posted.fetch_add(1, Ordering::Release);
        let _ = sys::call(
            libc::SYS_futex,
            &[&raw const self.posted as usize, libc::FUTEX_WAKE as usize, 1],
        );
    }

    /// Whether a step is being carried out.
    pub fn busy(&self) -> bool {
        self.posted.load(Ordering::Acquire) != self.done.load(Ordering::Acquire)
    }

    /// The step that was handed over last.
    pub fn step(&self) -> usize {
        self.step.load(Ordering::Relaxed) as usize
    }

    /// Sleeps until a step is handed over.
    pub fn wait(&self) -> usize {
        loop {
            let done = self.done.load(Ordering::Relaxed);
            if self.posted.load(Ordering::Acquire) != done {
                return self.step();
            }
            let _ = sys::call(
                libc::SYS_futex,
                &[
                    &raw const self.posted as usize,
                    libc::FUTEX_WAIT as usize,
                    done as usize,
                    0,
                ],
            );
        }
    }

    /// Makes room for another child. The one whose mailbox this was has ended.
    pub fn vacate(&self) {
        self.done
            .store(self.posted.load(Ordering::Relaxed), Ordering::Relaxed);
        self.tid.store(0, Ordering::Relaxed);
        self.pid.store(0, Ordering::Release);
    }

    /// An empty answer, for the actor to fill.
    #[expect(
        clippy::mut_from_ref,
        reason = "the actor alone calls this, and drops it before the next one"
    )]
    pub fn answer_sheet(&self) -> &mut Pen<ANSWER> {
        // SAFETY: the step is not done yet, so nobody else looks (see `Sync`).
        let answer = unsafe { &mut *self.answer.get() };
        *answer = Pen::new();
        answer
    }

    /// Ends the step: whoever sees it done sees the answer.
    pub fn finish(&self) {
        self.done.fetch_add(1, Ordering::Release);
    }

    /// What the last step has said. It must be done.
    pub fn answer(&self) -> &str {
        // SAFETY: the actor is idle, and only the reader of its answer gives it another step.
        unsafe { &*self.answer.get() }.text()
    }
}

/// The case's lines, kept where they survive its death.
pub struct Transcript {
    used: AtomicUsize,
    text: UnsafeCell<[u8; TRANSCRIPT]>,
}

// SAFETY: the case's first thread alone writes; the player reads when the case has ended.
unsafe impl Sync for Transcript {}

impl Transcript {
    /// Adds a line.
    pub fn line(&self, line: impl fmt::Display) {
        struct Into<'a>(&'a Transcript);
        impl fmt::Write for Into<'_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                let used = self.0.used.load(Ordering::Relaxed);
                let room = text.len().min(TRANSCRIPT - used);
                // SAFETY: one thread writes, and nobody reads meanwhile (see `Sync`).
                let all = unsafe { &mut *self.0.text.get() };
                all[used..used + room].copy_from_slice(&text.as_bytes()[..room]);
                self.0.used.store(used + room, Ordering::Relaxed);
                Ok(())
            }
        }
        let _ = writeln!(Into(self), "{line}");
    }

    /// Writes all lines to standard output.
    pub fn write_out(&self) {
        // SAFETY: the case has ended.
        let all = unsafe { &*self.text.get() };
        let _ = sys::write_all(1, &all[..self.used.load(Ordering::Relaxed)]);
    }
}
