//! Records on their way out: one line of JSON each on the debug console.
//!
//! On the host the records of a thread are collected instead, for tests to look at (`take_records`).

use super::record::Record;

#[cfg(not(target_os = "none"))]
pub use self::host::{emit, take_records};
#[cfg(target_os = "none")]
pub use self::target::{emit, end_record, panic_record, probe};

#[cfg(target_os = "none")]
mod target {
    use core::fmt::{self, Write};

    use log::error;

    use super::Record;
    use crate::drivers::debugcon::Debugcon;
    use crate::sync::IrqLock;
    use crate::trace::console::is_panicking;
    use crate::trace::json::{self, Panic};
    use crate::trace::record::ExitStatus;

    static DEBUGCON: IrqLock<Debugcon> = IrqLock::new(Debugcon::silent());

    /// Looks for the debug console.
    pub fn probe() {
        *DEBUGCON.lock() = Debugcon::probe();
    }

    /// Sends a record. Needs the heap; not for the panic handler.
    pub fn emit(record: &Record) {
        match serde_json::to_string(record) {
            Ok(mut line) => {
                line.push('\n');
                DEBUGCON.lock().write(line.as_bytes());
            }
            Err(reason) => error!("a record could not be written: {reason}"),
        }
    }

    struct Out<'a>(&'a mut Debugcon);

    impl Write for Out<'_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.write(text.as_bytes());
            Ok(())
        }
    }

    fn without_heap(write: impl FnOnce(&mut Out) -> fmt::Result) {
        // `Out` never fails, so neither does the line.
        let _ = match DEBUGCON.try_lock() {
            Some(mut console) => write(&mut Out(&mut console)),
            // Whoever held the lock has panicked under it. The line it had begun is closed first.
            None if is_panicking() => {
                let mut console = Debugcon::probe();
                console.write(b"\n");
                write(&mut Out(&mut console))
            }
            None => write(&mut Out(&mut DEBUGCON.lock())),
        };
    }

    /// Sends [`Record::Panic`] without touching the heap.
    pub fn panic_record(panic: &Panic) {
        without_heap(|out| json::write_panic(out, panic));
    }

    /// Sends [`Record::End`] without touching the heap; what [`crate::trace::end`] does first.
    pub fn end_record(status: ExitStatus, message: &str) {
        without_heap(|out| json::write_end(out, status, message));
    }
}

#[cfg(not(target_os = "none"))]
mod host {
    use alloc::vec::Vec;
    use core::cell::RefCell;

    use super::Record;

    std::thread_local! {
        static COLLECTED: RefCell<Vec<Record>> = const { RefCell::new(Vec::new()) };
    }

    /// Keeps a record for [`take_records`].
    pub fn emit(record: &Record) {
        COLLECTED.with_borrow_mut(|records| records.push(record.clone()));
    }

    /// What this thread has emitted since the last call, oldest first.
    pub fn take_records() -> Vec<Record> {
        COLLECTED.take()
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn records_are_collected_in_order_and_taken_once() {
        let first = Record::TestKnown {
            name: "a::b".to_string(),
        };
        let second = Record::TestBegin {
            name: "a::b".to_string(),
        };
        emit(&first);
        emit(&second);
        assert_eq!(take_records(), [first, second]);
        assert!(take_records().is_empty());
    }
}
