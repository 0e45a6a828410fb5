//! execve: arguments, environment, what stays and what goes, the auxiliary vector, its refusals.

use std::ffi::CString;

use guest_tests::child::fork;
use guest_tests::region::*;
use guest_tests::signal;
use guest_tests::sys::{self, Answer, call};
use guest_tests::transcript::{ok, show};

pub fn run() {
    refusals();
    arguments();
    descriptors();
    signals();
    threads();
    scripts();
    vector();
}

/// execve in this process, which comes back only with an errno.
pub fn exec(path: &str, words: &[&str], environment: &[&str]) -> Answer {
    let strings = |words: &[&str]| -> Vec<CString> {
        words
            .iter()
            .map(|word| CString::new(*word).expect("no NUL"))
            .collect()
    };
    let pointers = |strings: &[CString]| -> Vec<usize> {
        strings
            .iter()
            .map(|string| string.as_ptr() as usize)
            .chain([0])
            .collect()
    };
    let (words, environment) = (strings(words), strings(environment));
    let (argv, envp) = (pointers(&words), pointers(&environment));
    sys::with_path(
        libc::SYS_execve,
        path,
        &[argv.as_ptr() as usize, envp.as_ptr() as usize],
    )
}

/// execve of this binary in a part, in a child; how that ended.
fn play(words: &[&str]) -> String {
    let all: Vec<&str> = ["guest-tests", "role"].iter().chain(words).copied().collect();
    fork(|| exec("/proc/self/exe", &all, &["PATH=/bin"]).map_or_else(|errno| errno.0, |_| 0)).wait()
}

fn refusals() {
    let file = format!("{}/guest-tests-exec-{}", memory_directory(), std::process::id());
    std::fs::write(&file, "not a program").expect("a file can be made");
    show("execve: no such file", ok(exec("/nowhere/nothing", &["x"], &[])));
    show("execve: empty path", ok(exec("", &["x"], &[])));
    show("execve: a directory", ok(exec("/tmp", &["x"], &[])));
    show("execve: not executable", ok(exec(&file, &["x"], &[])));
    sys::with_path(libc::SYS_chmod, &file, &[0o755]).expect("chmod works");
    show("execve: not a program", ok(exec(&file, &["x"], &[])));
    show(
        "execve: below a file",
        ok(exec(&format!("{file}/x"), &["x"], &[])),
    );
    show("execve: bad path", ok(call(libc::SYS_execve, &[8, 0, 0])));
    let path = c"/proc/self/exe".as_ptr() as usize;
    show("execve: bad arguments", ok(call(libc::SYS_execve, &[path, 8, 0])));
    let words = [8usize, 0];
    show(
        "execve: a bad argument",
        ok(call(libc::SYS_execve, &[path, words.as_ptr() as usize, 0])),
    );
    show(
        "execve: a bad environment",
        ok(call(libc::SYS_execve, &[path, 0, words.as_ptr() as usize])),
    );
    let long = "x".repeat(200_000);
    show(
        "execve: an argument that is too long",
        ok(exec("/proc/self/exe", &[&long], &[])),
    );
    show(
        "execve: a path that is too long",
        ok(exec(&"x/".repeat(3000), &["x"], &[])),
    );
    let _ = std::fs::remove_file(&file);
}

fn arguments() {
    show("execve: status", play(&["exit", "7"]));
    show(
        "execve: words",
        play(&["say", "one", "", "three words here", "ü"]),
    );
    let middle = "y".repeat(100_000);
    show("execve: a long argument", play(&["length", &middle]));
    let many: Vec<&str> = ["count"]
        .into_iter()
        .chain(std::iter::repeat_n("z", 5000))
        .collect();
    show("execve: many arguments", play(&many));
    let child = fork(|| {
        exec(
            "/proc/self/exe",
            &["guest-tests", "role", "environment"],
            &["A=1", "B=two words"],
        )
        .map_or(1, |_| 0)
    });
    show("execve: environment", child.wait());
    let path = c"/proc/self/exe".as_ptr() as usize;
    let child = fork(|| call(libc::SYS_execve, &[path, 0, 0]).map_or(1, |_| 0));
    show("execve: no arguments at all", child.wait());
}

fn descriptors() {
    let (from, to) = sys::pipe2(0).expect("a pipe can be made");
    let (closed, _other) = sys::pipe2(libc::O_CLOEXEC).expect("a pipe can be made");
    show(
        "execve: a descriptor that stays",
        play(&["descriptor", &from.to_string()]),
    );
    show(
        "execve: a descriptor that goes",
        play(&["descriptor", &closed.to_string()]),
    );
    let _ = sys::close(to);
}

fn signals() {
    signal::catch(libc::SIGUSR1, 0, &[]);
    signal::handle(libc::SIGUSR2, 0, &[], libc::SIG_IGN);
    signal::mask(libc::SIG_BLOCK, signal::set(&[libc::SIGTERM])).expect("a mask can be set");
    show("execve: signals", play(&["signals"]));
    signal::mask(libc::SIG_SETMASK, 0).expect("a mask can be set");
    signal::handle(libc::SIGUSR2, 0, &[], libc::SIG_DFL);
}

/// The other threads go.
fn threads() {
    let child = fork(|| {
        let sleeper = guest_tests::job::start(|| ok(call(libc::SYS_pause, &[])));
        sleeper.settle();
        exec("/proc/self/exe", &["guest-tests", "role", "threads"], &[]).map_or(1, |_| 0)
    });
    show("execve: with another thread", child.wait());
    let child = fork(|| {
        std::thread::spawn(|| {
            exec("/proc/self/exe", &["guest-tests", "role", "threads"], &[]).map_or(1, |_| 0)
        });
        loop {
            let _ = call(libc::SYS_pause, &[]);
        }
    });
    show("execve: by another thread", child.wait());
}

/// Files that name the program to run them.
fn scripts() {
    let directory = memory_directory();
    let binary =
        std::fs::read_link("/proc/self/exe").map_or(String::new(), |path| path.display().to_string());
    let file = format!("{directory}/guest-tests-script-{}", std::process::id());
    let row = |name: &str, text: &str| {
        std::fs::write(&file, text).expect("a file can be made");
        sys::with_path(libc::SYS_chmod, &file, &[0o755]).expect("chmod works");
        let child = fork(|| exec(&file, &["x", "11"], &[]).map_or_else(|errno| errno.0 + 100, |_| 0));
        show(&format!("script: {name}"), child.wait());
    };
    row("one word", &format!("#!{binary} role\n"));
    row("no interpreter", "#!\n");
    row("interpreter that is not there", "#!/nowhere/nothing\n");
    row("interpreter is a directory", "#!/tmp\n");
    row("itself", &format!("#!{file}\n"));
    let _ = std::fs::remove_file(&file);
}

/// What the kernel tells a new program.
fn vector() {
    show("auxv", play(&["auxv"]));
}
