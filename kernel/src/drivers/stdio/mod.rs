//! Standard input, output and error of the programs on this machine.
//!
//! ```text
//!   write_out ──► port 0xea ──► host's standard output        try_read ◄── inbox ◄── COM2, IRQ 3 ◄── host's standard input
//!   write_err ──► port 0xeb ──► host's standard error                        └── asks for a frame ──► COM2
//! ```
//!
//! The ports are debug consoles like that of the records (QEMU's `isa-debugcon`): a byte that is written there has arrived.
//! Input is framed and comes when it is asked for ([`inbox`]), unless it is all there from the start (`set_input`). Without
//! `start_ports` output goes to the kernel's own console, where text that is no UTF-8 is shown with replacement characters, and
//! input is at its end.
//!
//! **Locks.** One for each direction, taken last of all; that of input also by the interrupt handler, so nothing is done under
//! it but to move bytes. Who waits for input is told after it was released ([`tell_of_input`]).

pub mod inbox;
#[cfg(target_os = "none")]
mod line;

#[cfg(not(target_os = "none"))]
pub use self::host::{is_readable, take_output, try_read, write_err, write_out};
#[cfg(target_os = "none")]
pub use self::target::{
    NoStdio, is_readable, on_interrupt, set_input, start_ports, try_read, write_err, write_out,
};
use crate::sync::Once;

static INPUT_HOOK: Once<fn()> = Once::new();

/// Sets who is told when [`try_read`] has an answer after it had none. It is called by the interrupt handler: it neither
/// sleeps nor allocates. The first call counts.
pub fn tell_of_input(hook: fn()) {
    INPUT_HOOK.call_once(|| hook);
}

#[cfg(target_os = "none")]
mod target {
    use core::fmt;

    use super::INPUT_HOOK;
    use super::inbox::{Arrival, Inbox, REQUEST};
    use super::line::{IRQ, Line};
    use crate::arch::x86_64::interrupt::STANDARD_INPUT;
    use crate::arch::x86_64::ioapic;
    use crate::drivers::debugcon::Debugcon;
    use crate::print;
    use crate::sync::{IrqLock, SpinLock};
    use crate::task::idle::ExternalWait;

    /// Bytes that reach a port without another task's in between: as many as POSIX asks of a pipe (PIPE_BUF on Linux).
    const PIECE: usize = 4096;
    const OUT_PORT: u16 = 0xea;
    const ERR_PORT: u16 = 0xeb;

    static OUT: SpinLock<Debugcon> = SpinLock::new(Debugcon::silent());
    static ERR: SpinLock<Debugcon> = SpinLock::new(Debugcon::silent());
    static INPUT: IrqLock<Input> = IrqLock::new(Input {
        whole: &[],
        line: None,
        inbox: Inbox::new(),
        awaited: None,
    });

    struct Input {
        /// What is left of an input that does not come over the line.
        whole: &'static [u8],
        line: Option<Line>,
        inbox: Inbox,
        /// While a frame is on its way, a machine on which nothing runs is not at a standstill.
        awaited: Option<ExternalWait>,
    }

    impl Input {
        /// Whether there is an answer to whoever wants input; asks for one if there is none.
        fn is_ready(&mut self) -> bool {
            let Some(line) = &mut self.line else { return true };
            if self.inbox.ask() {
                self.awaited = Some(ExternalWait::begin());
                line.send(REQUEST);
            }
            self.inbox.is_ready()
        }

        /// Moves input that did not come over the line into `buffer`.
        fn take_whole(&mut self, buffer: &mut [u8]) -> usize {
            let (now, left) = self.whole.split_at(self.whole.len().min(buffer.len()));
            buffer[..now.len()].copy_from_slice(now);
            self.whole = left;
            now.len()
        }

        /// Takes what has come; says whether somebody can read it.
        fn receive(&mut self) -> bool {
            let mut ready = false;
            while let Some(byte) = self.line.as_mut().and_then(Line::receive) {
                ready |= self.inbox.push(byte) == Arrival::Ready;
            }
            if ready {
                self.awaited = None;
            }
            ready
        }
    }

    /// A stream that the host should have provided is not there.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum NoStdio {
        /// No port for standard output or error.
        NoPort(u16),
        /// No COM2.
        NoLine,
        /// The line's interrupt cannot be had.
        NoInterrupt(ioapic::NoIoApic),
    }

    impl fmt::Display for NoStdio {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self {
                Self::NoPort(port) => write!(f, "there is no debug console at port {port:#x}"),
                Self::NoLine => f.write_str("there is no second serial line (COM2)"),
                Self::NoInterrupt(reason) => write!(f, "no interrupt from the second serial line: {reason}"),
            }
        }
    }

    /// Takes the ports and the line into use. Called once, before any program runs.
    ///
    /// # Errors
    /// One of them is not there; none is used then.
    pub fn start_ports() -> Result<(), NoStdio> {
        let port = |number| {
            let console = Debugcon::probe_at(number);
            console
                .is_present()
                .then_some(console)
                .ok_or(NoStdio::NoPort(number))
        };
        let (out, err) = (port(OUT_PORT)?, port(ERR_PORT)?);
        let line = Line::probe().ok_or(NoStdio::NoLine)?;
        INPUT.lock().line = Some(line);
        if let Err(reason) = ioapic::route(IRQ, STANDARD_INPUT) {
            INPUT.lock().line = None;
            return Err(NoStdio::NoInterrupt(reason));
        }
        *OUT.lock() = out;
        *ERR.lock() = err;
        Ok(())
    }

    /// Has `bytes` be the input, instead of what comes over the line.
    pub fn set_input(bytes: &'static [u8]) {
        let mut input = INPUT.lock();
        input.whole = bytes;
        input.line = None;
    }

    /// Writes all of `bytes` to standard output.
    pub fn write_out(bytes: &[u8]) {
        write(&OUT, bytes);
    }

    /// Writes all of `bytes` to standard error.
    pub fn write_err(bytes: &[u8]) {
        write(&ERR, bytes);
    }

    fn write(stream: &SpinLock<Debugcon>, bytes: &[u8]) {
        for piece in bytes.chunks(PIECE) {
            let mut console = stream.lock();
            if console.is_present() {
                console.write(piece);
                continue;
            }
            drop(console);
            for chunk in piece.utf8_chunks() {
                let replacement = if chunk.invalid().is_empty() {
                    ""
                } else {
                    "\u{fffd}"
                };
                print!("{}{replacement}", chunk.valid());
            }
        }
    }

    /// Moves input into `buffer`, as much as is there and fits; `Some(0)` at the end of the file. `None`: nothing is there yet,
    /// and the host was asked.
    pub fn try_read(buffer: &mut [u8]) -> Option<usize> {
        let mut input = INPUT.lock();
        if !input.is_ready() {
            return None;
        }
        if input.line.is_none() {
            return Some(input.take_whole(buffer));
        }
        input.inbox.take(buffer)
    }

    /// Whether [`try_read`] has an answer. If not, the host was asked.
    pub fn is_readable() -> bool {
        INPUT.lock().is_ready()
    }

    /// Bytes have come. Called by the line's interrupt handler.
    pub fn on_interrupt() {
        let ready = INPUT.lock().receive();
        if ready && let Some(hook) = INPUT_HOOK.get() {
            hook();
        }
    }
}

#[cfg(not(target_os = "none"))]
mod host {
    use alloc::vec::Vec;
    use core::cell::RefCell;
    use core::mem;

    std::thread_local! {
        static COLLECTED: RefCell<(Vec<u8>, Vec<u8>)> = const { RefCell::new((Vec::new(), Vec::new())) };
    }

    /// Keeps output for [`take_output`].
    pub fn write_out(bytes: &[u8]) {
        COLLECTED.with_borrow_mut(|(out, _)| out.extend(bytes));
    }

    /// Keeps output for [`take_output`].
    pub fn write_err(bytes: &[u8]) {
        COLLECTED.with_borrow_mut(|(_, err)| err.extend(bytes));
    }

    /// What this thread has written since the last call: standard output, standard error.
    pub fn take_output() -> (Vec<u8>, Vec<u8>) {
        COLLECTED.with_borrow_mut(mem::take)
    }

    /// Input is at its end.
    pub fn try_read(_: &mut [u8]) -> Option<usize> {
        Some(0)
    }

    /// The end of the file can be read.
    pub fn is_readable() -> bool {
        true
    }
}
