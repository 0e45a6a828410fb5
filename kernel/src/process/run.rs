//! A thread's loop.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

use super::exec::Program;
use super::limits::Limits;
use super::signal::deliver::{Next, deliver, settle};
use super::signal::{Actions, SignalSet, force, of_exception};
use super::table::{Claim, Pid};
use super::{Credentials, Ending, Process, Scheduling, Thread, exit, oom, process, rseq, thread, with_tree};
use crate::abi::signal::{SIGCHLD, SIGKILL, SIGSEGV, SigInfo};
use crate::arch::user::{Exit, Registers, Request};
use crate::arch::{Extra, run_user};
use crate::file::{Place, Table};
use crate::mm::addr::{USER_TOP, VirtAddr};
use crate::mm::fault::{self, FaultError, FaultInfo};
use crate::mm::kernel;
use crate::mm::uaccess::{self, on_behalf};
use crate::syscall::{self, After, Answer};
use crate::task::{self, SpawnError};
use crate::uffd::linux;

/// Starts `program` as a process of its own. It was asked for by `path`, and is the file `exe`.
///
/// # Errors
/// No memory for its first thread's stack.
pub fn start(
    program: Program,
    files: Arc<Table>,
    place: Arc<Place>,
    exe: String,
    path: &[u8],
) -> Result<Arc<Process>, SpawnError> {
    kernel::get().pressure.set_last_resort(oom::make_room);
    let claim = Claim::next().ok_or(SpawnError::NoStack)?;
    let name = base_name(path).iter().copied().take(15).collect();
    let parts = process::Parts {
        mm: program.mm,
        exe,
        files,
        place,
        actions: Arc::new(Actions::default()),
        limits: Limits::DEFAULT,
    };
    let process = Process::new(&claim, parts);
    let parts = thread::Parts {
        claim,
        credentials: Credentials::root(),
        name,
        blocked: SignalSet::EMPTY,
        scheduling: Scheduling::default(),
    };
    let thread = Thread::new(&process, parts).map_err(|_| SpawnError::NoStack)?;
    with_tree(|tree| tree.enter(process.pid(), Pid::INIT, SIGCHLD, Arc::clone(&process)));
    let context = Context {
        registers: program.registers,
        extra: Extra::new(),
        tell_tid: None,
    };
    if let Err(error) = begin(&thread, context) {
        abandon(&thread);
        return Err(error);
    }
    Ok(process)
}

/// What user mode has while it does not run.
#[derive(Debug)]
pub(super) struct Context {
    /// Its registers.
    pub registers: Registers,
    /// And the others.
    pub extra: Box<Extra>,
    /// Where the thread's number is to be stored first.
    pub tell_tid: Option<VirtAddr>,
}

/// Starts the task of `thread`, in its process's memory as it is now.
///
/// # Errors
/// No memory for its stack.
pub(super) fn begin(thread: &Arc<Thread>, mut context: Context) -> Result<(), SpawnError> {
    let space = Arc::clone(thread.process().mm().space());
    let name = format!("thread {}", thread.tid());
    let me = Arc::clone(thread);
    task::spawn_thread(&name, space, Arc::clone(thread), move || {
        me.set_task(Some(task::current_arc()));
        if me.must_end() {
            // Somebody who ended the process meanwhile found no task to kill.
            me.kill();
        }
        if let Some(word) = context.tell_tid {
            // As Linux: a word that cannot be written is the program's own business.
            let _ = on_behalf(|| uaccess::write(word, &me.tid().as_u32().to_le_bytes()));
        }
        if run(&me, &mut context) == End::OfThread {
            task::current().fault.note_ending();
            exit::finish(&me);
        }
    })?;
    Ok(())
}

/// Takes a thread back whose task could not be started.
pub(super) fn abandon(thread: &Arc<Thread>) {
    thread.process().end(Ending::Signalled(SIGKILL));
    exit::finish(thread);
}

/// Why a task's loop ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// Its thread ends.
    OfThread,
    /// Another task runs the thread from now on.
    OfTask,
}

fn run(thread: &Arc<Thread>, context: &mut Context) -> End {
    let Context { registers, extra, .. } = context;
    // Others take their place only where the thread gets another loop, or has left its own (`Process::set_files`).
    let files = thread.process().files();
    let mut interrupted = None;
    loop {
        if settle(thread, registers, extra, interrupted.take()) == Next::End {
            return End::OfThread;
        }
        if !is_canonical(registers.rip) {
            // The CPU would refuse to go there while it is still the kernel's.
            thread.note_trap(13, 0, None);
            force(thread, SigInfo::kernel(SIGSEGV));
            registers.restore_all();
            registers.rip = 0;
            continue;
        }
        let answer = |request: &Request| match syscall::answer(thread, &files, request) {
            Answer::Value(value) => Some(value),
            Answer::Interrupted(call) => {
                interrupted = Some(call);
                None
            }
            Answer::NotYet => None,
        };
        let mut failed = None;
        let resolve = |info: &FaultInfo, registers: &mut Registers| match fault::handle(info) {
            Ok(()) => {
                rseq::interrupted(thread, registers);
                true
            }
            Err(error) => {
                failed = Some(error);
                false
            }
        };
        match run_user(registers, extra, thread.signals.notice(), answer, resolve) {
            Exit::Syscall if interrupted.is_some() => registers.rax = syscall::INTERRUPTED,
            Exit::Syscall => match syscall::call(thread, &files, registers, extra) {
                After::Done => {}
                After::Ended => return End::OfThread,
                After::Replaced => return End::OfTask,
            },
            Exit::Notice => {}
            Exit::PageFault(info) => {
                // The handler that it is sent to asks about restartable sequences; without one the process ends.
                if let Some(error) = failed {
                    impossible_access(thread, &info, error, registers, extra);
                }
            }
            Exit::Exception { vector, error } => {
                thread.note_trap(vector.into(), error, None);
                let info = of_exception(vector, registers.rip, extra);
                deliver(thread, info, registers, extra);
            }
            Exit::Interrupt => {
                thread.process().timers.intervals.look(thread.process());
                rseq::interrupted(thread, registers);
            }
        }
    }
}

/// Whether an address is one that a CPU could have in RIP; addresses of the kernel are, and fault.
fn is_canonical(address: u64) -> bool {
    (address as i64) << 16 >> 16 == address as i64
}

/// An access that the CPU reported cannot be made.
fn impossible_access(
    thread: &Arc<Thread>,
    info: &FaultInfo,
    error: FaultError,
    registers: &mut Registers,
    extra: &mut Extra,
) {
    match error {
        // Nobody could be ended for it but the thread itself.
        FaultError::OutOfMemory | FaultError::Killed => {
            if !thread.must_end() {
                thread.process().begin_exit(Ending::Signalled(SIGKILL));
            }
        }
        _ => {
            let signal = linux::signal(error);
            let error_code = registers.error | u64::from(info.addr >= USER_TOP);
            thread.note_trap(14, error_code, Some(info.addr));
            let info = SigInfo::fault(signal.number, signal.code, info.addr.as_u64());
            deliver(thread, info, registers, extra);
        }
    }
}

/// What follows the last slash.
pub(super) fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}
