//! A thread's loop.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};

use super::exec::Program;
use super::table::Claim;
use super::{Ending, Process, Thread};
use crate::arch::user::{Exit, Registers};
use crate::arch::x86_64::user::{self, Extra};
use crate::file::{Place, Table};
use crate::mm::fault;
use crate::syscall;
use crate::task::{self, SpawnError};
use crate::uffd::linux;

/// Starts `program` as a process of its own.
///
/// # Errors
/// No memory for its first thread's stack.
pub fn start(
    program: Program,
    files: Arc<Table>,
    place: Arc<Place>,
    exe: String,
) -> Result<Arc<Process>, SpawnError> {
    let claim = Claim::next().ok_or(SpawnError::NoStack)?;
    let process = Process::new(claim.pid(), Weak::new(), program.mm, files, place, exe);
    let thread = Thread::new(claim, &process);
    begin(&thread, program.registers, Extra::new())?;
    Ok(process)
}

/// Starts the task of `thread`, in its process's memory as it is now.
pub(super) fn begin(thread: &Arc<Thread>, registers: Registers, extra: Box<Extra>) -> Result<(), SpawnError> {
    let space = Arc::clone(thread.process().mm().space());
    let name = format!("thread {}", thread.tid());
    let me = Arc::clone(thread);
    let mut context = Context { registers, extra };
    let task = task::spawn_thread(&name, space, Arc::clone(thread), move || {
        run(&me, &mut context);
        me.set_task(None);
        me.process().remove_thread(&me);
    })?;
    thread.set_task(Some(task));
    Ok(())
}

/// What user mode has while it does not run.
#[derive(Debug)]
struct Context {
    registers: Registers,
    extra: Box<Extra>,
}

fn run(thread: &Arc<Thread>, context: &mut Context) {
    loop {
        match user::run(&mut context.registers, &mut context.extra) {
            Exit::Syscall => syscall::call(thread, &mut context.registers, &mut context.extra),
            Exit::PageFault(info) => {
                if let Err(error) = fault::handle(&info) {
                    let signal = linux::signal(error);
                    log::warn!(
                        "thread {}: {error} at {}, rip {:#x}",
                        thread.tid(),
                        info.addr,
                        context.registers.rip
                    );
                    let _ = signal;
                    thread.process().end(Ending::Signalled(11));
                }
            }
            Exit::Exception { vector, error } => {
                log::warn!(
                    "thread {}: exception {vector} ({error:#x}), rip {:#x}",
                    thread.tid(),
                    context.registers.rip
                );
                thread.process().end(Ending::Signalled(4));
            }
            Exit::Interrupt => {}
        }
        if thread.process().ending().is_some() {
            return;
        }
    }
}
