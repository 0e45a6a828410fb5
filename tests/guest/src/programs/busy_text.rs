//! A program that runs is not written to, and a file that is written to is not executed.

use guest_tests::child::{Child, fork};
use guest_tests::region::memory_directory;
use guest_tests::sys;
use guest_tests::transcript::{answer, ok, show};

use super::bad_elf::program_of;
use super::execute::exec;

/// Exits with status 7.
const EXITS: &[u8] = &[0xbf, 7, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05];
/// Waits for a signal again and again.
const WAITS: &[u8] = &[0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7];

fn path(name: &str) -> String {
    format!("{}/guest-tests-{name}-{}", memory_directory(), std::process::id())
}

/// A file that can be executed.
fn make(name: &str, bytes: &[u8]) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = path(name);
    std::fs::write(&path, bytes).expect("a file can be written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it can be changed");
    path
}

/// Executes it in a child: the errno, or how the child ends.
fn trial(path: &str) -> String {
    fork(|| match exec(path, &["program"], &[]) {
        Ok(_) => 0,
        Err(errno) => errno.0,
    })
    .wait()
}

/// A child that runs it.
fn start(path: &str) -> Child {
    let child = fork(|| {
        let _ = exec(path, &["program"], &[]);
        1
    });
    let link = format!("/proc/{}/exe", child.pid);
    guest_tests::job::until(|| std::fs::read_link(&link).is_ok_and(|exe| exe.as_os_str() == path));
    child
}

fn open(path: &str, flags: i32) -> String {
    let fd = sys::open(path, flags);
    if let Ok(fd) = fd {
        let _ = sys::close(fd);
    }
    ok(fd)
}

fn truncate(path: &str, len: usize) -> String {
    ok(sys::with_path(libc::SYS_truncate, path, &[len]))
}

pub fn run() {
    let file = make("exits", &program_of(EXITS));
    show("as it is: ends with 7", trial(&file));
    for (name, flags) in [
        ("reading", libc::O_RDONLY),
        ("writing", libc::O_WRONLY),
        ("both", libc::O_RDWR),
    ] {
        let fd = sys::open(&file, flags).expect("it can be opened");
        show(&format!("open for {name}, ETXTBSY is 26"), trial(&file));
        let _ = sys::close(fd);
    }
    show("closed again", trial(&file));
    let script = make("script", format!("#!{file}\n").as_bytes());
    show("a script for it", trial(&script));
    let fd = sys::open(&script, libc::O_WRONLY).expect("it can be opened");
    show("a script that is open for writing", trial(&script));
    let _ = sys::close(fd);
    let fd = sys::open(&file, libc::O_WRONLY).expect("it can be opened");
    show("a script whose program is open for writing", trial(&script));
    let _ = sys::close(fd);

    let waits = make("waits", &program_of(WAITS));
    let child = start(&waits);
    for (name, flags) in [
        ("reading", libc::O_RDONLY),
        ("writing", libc::O_WRONLY),
        ("both", libc::O_RDWR),
        ("appending", libc::O_WRONLY | libc::O_APPEND),
        ("reading, truncated", libc::O_RDONLY | libc::O_TRUNC),
        ("its name", libc::O_PATH | libc::O_RDWR),
    ] {
        show(&format!("it runs: open for {name}"), open(&waits, flags));
    }
    show("it runs: truncate", truncate(&waits, 0));
    show(
        "it runs: its length",
        std::fs::metadata(&waits).map_or(0, |about| about.len()),
    );
    show("it runs: a second time", {
        let second = start(&waits);
        let _ = second.kill(libc::SIGKILL);
        second.wait()
    });
    show("it runs still: open for writing", open(&waits, libc::O_WRONLY));
    let _ = child.kill(libc::SIGKILL);
    show("its end", child.wait());
    show("it has ended: open for writing", open(&waits, libc::O_WRONLY));
    show("it has ended: truncate", truncate(&waits, 0));

    let running = make("again", &program_of(WAITS));
    let child = start(&running);
    let _ = std::fs::remove_file(&running);
    let again = make("again", &program_of(EXITS));
    show("another file of the name", open(&again, libc::O_WRONLY));
    let _ = child.kill(libc::SIGKILL);
    let _ = child.wait();

    let own = std::fs::read_link("/proc/self/exe").unwrap_or_default();
    show(
        "this program: open for writing",
        open(&own.display().to_string(), libc::O_WRONLY),
    );
    let child = fork(|| {
        show(
            "a fork's child: open for writing",
            open("/proc/self/exe", libc::O_RDWR),
        );
        0
    });
    let _ = child.wait();
    let memory = guest_tests::region::memfd_flags(0).expect("memfd_create works");
    let _ = sys::write(memory, &program_of(EXITS));
    let link = format!("/proc/self/fd/{memory}");
    show("a memfd, by the descriptor that made it", trial(&link));
    let second = sys::open(&link, libc::O_RDWR);
    show("a memfd: opened again", ok(second));
    show("a memfd: open for writing", trial(&link));
    let _ = sys::close(second.unwrap_or(-1));
    show("a memfd: closed again", trial(&link));
    show(
        "a memfd: by its first descriptor it is written",
        answer(sys::write(memory, b"x")),
    );
    for file in [file, script, waits, again] {
        let _ = std::fs::remove_file(file);
    }
}
