//! `run`: a Linux program, from the ramdisk.
//!
//! The ramdisk says what is run in three members at its front: `.faultline/program` (the path), `.faultline/args` and
//! `.faultline/env` (strings, each with a zero byte behind it). Everything else in it is the program's file system.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use kernel::mm::cache::Object;
use kernel::mm::memtype::shmem;
use kernel::process::exec::{self, Image, Start};
use kernel::process::{self, Ending};
use kernel::trace::cmdline::Cmdline;
use kernel::trace::record::Report;

use super::{App, AppError, AppResult, Done, System, app};

app!(
    RUN = App {
        name: "run",
        summary: "run a Linux program from the ramdisk",
        run,
    }
);

fn run(cmdline: &Cmdline<'static>, system: &'static System) -> AppResult {
    cmdline.allow(&["stdio"])?;
    let member = |name: &str| {
        let missing = || {
            AppError::usage(format!(
                "the ramdisk has no `{name}`: it was not packed for `run`"
            ))
        };
        system.ramdisk.file(name).ok_or_else(missing)
    };
    let path = member(".faultline/program")?;
    let args = strings(member(".faultline/args")?);
    let env = strings(member(".faultline/env")?);
    let name = String::from_utf8_lossy(path).into_owned();
    let file = core::str::from_utf8(path)
        .ok()
        .and_then(|path| system.ramdisk.file(path.trim_start_matches('/')));
    let bytes = file.ok_or_else(|| AppError::Failed(format!("{name}: not found")))?;
    let object = Object::new(&shmem::SHMEM, bytes.len() as u64);
    object
        .write(0, bytes)
        .1
        .map_err(|_| AppError::Failed(format!("{name}: no memory for the program")))?;
    let start = Start {
        args: &args,
        env: &env,
        path,
        random: [7; 16],
    };
    let program = exec::prepare(&Image { object }, &start, &|_| {
        Err(kernel::abi::errno::Errno::ENOENT)
    })
    .map_err(|why| AppError::Failed(format!("{name}: {why}")))?;
    let process = process::start(program, name.clone()).map_err(AppError::failed)?;
    let message = match process.wait() {
        Ending::Exited(status) => format!("{name} exited with status {status}"),
        Ending::Signalled(signal) => format!("{name} was ended by signal {signal}"),
    };
    Ok(Done {
        report: Report {
            app: "run".into(),
            ..Report::default()
        },
        message,
    })
}

/// The strings in `bytes`, each of which has a zero byte behind it.
fn strings(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut strings: Vec<Vec<u8>> = bytes.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
    // What is behind the last zero byte.
    strings.pop();
    strings
}
