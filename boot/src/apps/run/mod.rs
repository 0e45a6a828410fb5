//! `run`: a Linux program, from the ramdisk.
//!
//! The ramdisk says what is run in three members at its front: `.faultline/program` (the path), `.faultline/args` and
//! `.faultline/env` (strings, each with a zero byte behind it). `.faultline/stdin`, if it is there, is the program's standard input.
//! Everything else in it is the program's file system.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use kernel::abi::errno::Errno;
use kernel::abi::signal;
use kernel::drivers::stdio;
use kernel::file::tree::Last;
use kernel::file::{self, Mounts, Place, Table};
use kernel::mm::frame::allocator;
use kernel::process::exec::{self, ExecError, Found, Image, Program, Start};
use kernel::process::{self, Ending};
use kernel::syscall::Error;
use kernel::trace;
use kernel::trace::cmdline::Cmdline;
use kernel::trace::record::{ProgramEnd, Record, Report};

use super::{App, AppError, AppResult, Done, System, app};

app!(
    RUN = App {
        name: "run",
        summary: "run a Linux program from the ramdisk",
        run,
    }
);

/// The second choice of `stdio=`.
const PORTS: usize = 1;

/// What the members at the ramdisk's front say.
struct Request {
    path: &'static [u8],
    args: Vec<Vec<u8>>,
    env: Vec<Vec<u8>>,
}

impl Request {
    fn read(system: &'static System) -> Result<Self, AppError> {
        let member = |name: &str| {
            let missing = || {
                AppError::usage(format!(
                    "the ramdisk has no `{name}`: it was not packed for `run`"
                ))
            };
            system.ramdisk.file(name).ok_or_else(missing)
        };
        Ok(Self {
            path: member(".faultline/program")?,
            args: strings(member(".faultline/args")?),
            env: strings(member(".faultline/env")?),
        })
    }

    /// The program's path, to be shown.
    fn name(&self) -> String {
        self.path.escape_ascii().to_string()
    }
}

fn run(cmdline: &Cmdline<'static>, system: &'static System) -> AppResult {
    cmdline.allow(&["stdio"])?;
    if cmdline.choice("stdio", &["console", "ports"])? == Some(PORTS) {
        stdio::start_ports().map_err(|missing| {
            AppError::Failed(format!("the streams of programs cannot be connected: {missing}"))
        })?;
    }
    keep_memory_for_the_kernel();
    if let Some(input) = system.ramdisk.file(".faultline/stdin") {
        stdio::set_input(input);
    }
    let request = Request::read(system)?;
    let name = request.name();
    let (files, place) = surroundings(system).map_err(|why| not_started(&name, NotStarted::Open(why)))?;
    let (program, exe) = prepare(&request, &place).map_err(|why| not_started(&name, why))?;
    let process = process::start(program, files, place, exe, request.path).map_err(AppError::failed)?;
    let message = match process.wait() {
        Ending::Exited(status) => {
            trace::emit(&Record::ProgramEnd(ProgramEnd::Exited { status }));
            format!("{name} exited with status {status}")
        }
        Ending::Signalled(signal) => {
            let signal_name = signal_name(signal);
            let message = format!("{name} was ended by signal {signal} ({signal_name})");
            trace::emit(&Record::ProgramEnd(ProgramEnd::Signalled {
                signal,
                name: signal_name,
            }));
            message
        }
    };
    Ok(Done {
        report: Report {
            app: "run".into(),
            ..Report::default()
        },
        message,
    })
}

/// Programs take what they can get; the kernel has to be able to note that down.
fn keep_memory_for_the_kernel() {
    const LEAST: u64 = 1024;
    const MOST: u64 = 8192;
    let frames = allocator().stats().managed / 16;
    allocator().keep_for_heap(frames.clamp(LEAST, MOST));
}

/// The descriptors and the place of the first process.
fn surroundings(system: &'static System) -> Result<(Arc<Table>, Arc<Place>), Errno> {
    let place = Place::new(&Mounts::of_machine(&system.ramdisk)?);
    place.set_cwd(place.find(None, b"/root", Last::Follow)?)?;
    let files = Table::new();
    file::open_standard(&files)?;
    Ok((files, place))
}

/// Finds the program, or what the script is for, and makes it ready to run; returns its path too.
fn prepare(request: &Request, place: &Place) -> Result<(Program, String), NotStarted> {
    let (program, entry) = place.open_program(None, request.path).map_err(open_error)?;
    let found = Found {
        program,
        entry,
        path: request.path.to_vec(),
    };
    let (found, args) = exec::behind_scripts(place, found, request.args.clone())
        .map_err(|why| NotStarted::Script(errno_of(why)))?;
    let mut random = [0; 16];
    file::random::fill(&mut random);
    let start = Start {
        args: &args,
        env: &request.env,
        path: request.path,
        random,
    };
    let interpreter = |path: &[u8]| match place.open_program(None, path) {
        Ok((program, _)) => Ok(Image {
            object: program.object,
        }),
        Err(why) => Err(errno_of(why)),
    };
    let image = Image {
        object: found.program.object,
    };
    let program = exec::prepare(&image, &start, &interpreter).map_err(NotStarted::Exec)?;
    program.mm.set_running(found.program.running);
    let exe = found.entry.shown(&place.root());
    Ok((program, String::from_utf8_lossy(&exe).into_owned()))
}

fn errno_of(error: Error) -> Errno {
    match error {
        Error::Errno(errno) => errno,
        Error::Restart(_) => Errno::EINTR,
    }
}

fn open_error(error: Error) -> NotStarted {
    NotStarted::Open(errno_of(error))
}

/// Why a program does not begin.
enum NotStarted {
    /// It, or what it begins with, cannot be opened.
    Open(Errno),
    /// It is a script, and what it is for cannot be executed.
    Script(Errno),
    Exec(ExecError),
}

/// Tells of a program that does not begin.
fn not_started(name: &str, why: NotStarted) -> AppError {
    let (errno, message) = match why {
        NotStarted::Open(Errno::ENOENT) => (Errno::ENOENT, String::from("there is no such file")),
        NotStarted::Open(errno) => (errno, format!("it cannot be opened (error {})", errno.number())),
        NotStarted::Script(Errno::ENOEXEC) => (Errno::ENOEXEC, "its first line names no program".into()),
        // The program is there, which ENOENT would deny.
        NotStarted::Script(errno) => (
            Errno::ELIBBAD,
            format!(
                "what its first line names cannot be executed (error {})",
                errno.number()
            ),
        ),
        NotStarted::Exec(why @ ExecError::Interpreter(_)) => (Errno::ELIBBAD, why.to_string()),
        NotStarted::Exec(why) => (why.errno(), why.to_string()),
    };
    let closing = format!("{name} was not started: {message}");
    trace::emit(&Record::ProgramEnd(ProgramEnd::NotStarted {
        // Error numbers are at most 133.
        errno: errno.number() as u8,
        message,
    }));
    AppError::Failed(closing)
}

fn signal_name(number: u8) -> String {
    match signal::NAMES.get(usize::from(number).wrapping_sub(1)) {
        Some(name) => (*name).into(),
        None => format!("SIGRTMIN+{}", number.wrapping_sub(signal::NAMES.len() as u8 + 1)),
    }
}

/// The strings in `bytes`, each of which has a zero byte behind it.
fn strings(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut strings: Vec<Vec<u8>> = bytes.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
    // What is behind the last zero byte.
    strings.pop();
    strings
}
