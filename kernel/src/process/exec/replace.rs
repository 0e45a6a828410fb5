//! Executing a program in the place of the one that runs.
//!
//! ```text
//!   found, checked, loaded into a new space      errors are answered, nothing has changed
//!   ── the other threads are ended ──            from here on there is no way back
//!   words in memory, signals, descriptors, memory ── a new task for the thread, in the new space
//! ```

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::script::{self, Kind};
use super::{Image, Program, Start, prepare};
use crate::abi::errno::Errno;
use crate::abi::signal::{SIGKILL, SIGSEGV};
use crate::arch::Extra;
use crate::file::tree::{Entry, Executable};
use crate::file::{Place, random};
use crate::process::run::{Context, base_name, begin};
use crate::process::signal::AltStack;
use crate::process::{Ending, Process, Thread, exit, with_tree};
use crate::syscall::{Error, Restart};

/// Scripts whose programs are scripts: so many levels.
const DEEPEST: usize = 5;

/// A file that is to be executed.
#[derive(Debug)]
pub struct Found {
    /// What it is made of.
    pub program: Executable,
    /// Its name.
    pub entry: Arc<Entry>,
    /// How it was named; scripts are told.
    pub path: Vec<u8>,
}

/// What comes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Executed {
    /// Another task runs the thread, in the new program.
    Replaced,
    /// The thread ends.
    Ended,
}

/// Has `thread`, the current one, run the program in `found`.
///
/// # Errors
/// It is none, or there is no memory; nothing has changed then.
pub fn execute(
    thread: &Arc<Thread>,
    found: Found,
    args: Vec<Vec<u8>>,
    env: &[Vec<u8>],
) -> Result<Executed, Error> {
    let process = thread.process();
    let path = found.path.clone();
    let (found, args) = behind_scripts(&process.place(), found, args)?;
    let mut start = Start {
        args: &args,
        env,
        path: &path,
        random: [0; 16],
    };
    random::fill(&mut start.random);
    let open = |path: &[u8]| match process.place().open_program(None, path) {
        Ok((program, _)) => Ok(Image {
            object: program.object,
        }),
        Err(Error::Errno(errno)) => Err(errno),
        Err(Error::Restart(_)) => Err(Errno::EINTR),
    };
    let image = Image {
        object: Arc::clone(&found.program.object),
    };
    let program = match prepare(&image, &start, &open) {
        Ok(program) => program,
        Err(why) if why.is_fatal() => {
            log::info!("linux: process {} executed what cannot run: {why}", process.pid());
            process.begin_exit(Ending::Signalled(SIGSEGV));
            return Ok(Executed::Ended);
        }
        Err(why) => return Err(why.errno().into()),
    };
    if !process.end_other_threads(thread) {
        // Ended, or another thread executes a program: the new memory was never used.
        return if thread.must_end() {
            Ok(Executed::Ended)
        } else {
            Err(Restart::Always.into())
        };
    }
    program.mm.set_running(found.program.running);
    let shown = found.entry.shown(&process.place().root());
    let exe = String::from_utf8_lossy(&shown).into_owned();
    Ok(replace(thread, program, exe, base_name(&path)))
}

/// Goes from scripts to the program that the last one is for. Returns it, and what its arguments are then.
///
/// # Errors
/// A script makes no sense (ENOEXEC), there are too many (ELOOP), or what one names cannot be executed.
pub fn behind_scripts(
    place: &Place,
    mut found: Found,
    mut args: Vec<Vec<u8>>,
) -> Result<(Found, Vec<Vec<u8>>), Error> {
    for _ in 0..=DEEPEST {
        let image = Image {
            object: Arc::clone(&found.program.object),
        };
        let script = match script::look(&image) {
            Kind::Script(script) => script,
            Kind::BadScript => return Err(Errno::ENOEXEC.into()),
            Kind::Other => return Ok((found, args)),
        };
        let mut with_program = alloc::vec![script.program.clone()];
        with_program.extend(script.argument);
        with_program.push(found.path);
        with_program.extend(args.into_iter().skip(1));
        args = with_program;
        let (program, entry) = place.open_program(None, &script.program)?;
        found = Found {
            program,
            entry,
            path: script.program,
        };
    }
    Err(Errno::ELOOP.into())
}

/// The point of no return: everything that belongs to the old program goes.
fn replace(thread: &Arc<Thread>, program: Program, exe: String, name: &[u8]) -> Executed {
    let process = thread.process();
    exit::leave_memory(thread);
    if !thread.is_leader() {
        thread.become_leader();
    }
    let actions = process.signals.actions().without_handlers();
    process.signals.set_actions(Arc::new(actions));
    *thread.signals.altstack.lock() = AltStack::default();
    process.timers.delete_all();
    close_files(process);
    process.replace_mm(program.mm, exe);
    process.set_dumpable(true);
    process.barriers.store(0, core::sync::atomic::Ordering::Relaxed);
    thread.set_name(name);
    thread.take_restart();
    thread.rseq.set(None);
    thread.change_credentials(|who| who.note_exec());
    with_tree(|tree| tree.note_exec(process.pid()));
    process.executes_no_more();
    let context = Context {
        registers: program.registers,
        extra: Extra::new(),
        tell_tid: None,
    };
    if begin(thread, context).is_err() {
        process.begin_exit(Ending::Signalled(SIGKILL));
        return Executed::Ended;
    }
    Executed::Replaced
}

/// The descriptors become its own if they were shared; those that are to be closed are.
fn close_files(process: &Process) {
    let files = process.files();
    // This one, the process's and its last thread's are its own. Without memory for a copy it stays shared: rather that than a
    // program that cannot begin.
    if Arc::strong_count(&files) > 3
        && let Ok(own) = files.copy()
    {
        process.set_files(own);
    }
    drop(files);
    process.files().close_on_exec();
}
