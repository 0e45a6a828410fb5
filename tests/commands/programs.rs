//! `run`: a Linux program with its arguments, its environment, its streams, and its status as the command's.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::TempDir;

use crate::endings::processes_with;
use crate::{Said, command, noise, xtask};

/// The program that does simple things, built once.
fn program() -> &'static str {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let path = PROGRAM.get_or_init(|| xtask::diff::side::programs().expect("tests/guest builds"));
    path.to_str().expect("cargo's paths are UTF-8")
}

/// `cargo xtask run OPTIONS.. plain WORDS..`, not started.
fn plain(options: &[&str], words: &[&str]) -> Command {
    command(&[&["run", "--timeout", "60"], options, &[program(), "plain"], words].concat())
}

#[track_caller]
fn ended(output: Output, status: i32) -> Said {
    let said = Said::from(output);
    assert_eq!(said.status, Some(status), "{}", said.all());
    said
}

#[track_caller]
fn run(words: &[&str], status: i32) -> Said {
    ended(
        plain(&[], words).output().expect("the binary was just built"),
        status,
    )
}

/// A temporary folder with an executable file of this content, and its path.
fn executable(content: &[u8]) -> (TempDir, String) {
    let dir = tempfile::tempdir().expect("the temporary folder is writable");
    let path = dir.path().join("prog");
    fs::write(&path, content).expect("the temporary folder is writable");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("the file is ours");
    let path = path.to_str().expect("temporary paths are UTF-8").to_owned();
    (dir, path)
}

#[test]
fn both_outputs_are_the_programs_alone() {
    let said = run(&["hello"], 0);
    assert_eq!(
        (said.out.as_str(), said.err.as_str()),
        ("hello\n", "hello, error\n")
    );
}

#[test]
fn arguments_arrive_as_they_are_options_too() {
    let said = run(&["args", "two words", "", "--icount", "-x", "--", "ä"], 0);
    assert_eq!(
        said.out,
        "\"two words\"\n\"\"\n\"--icount\"\n\"-x\"\n\"--\"\n\"ä\"\n"
    );
}

#[test]
fn the_environment_is_what_was_asked_for() {
    let mut command = plain(
        &["--env", "HOME=/tmp", "--env", "OURS", "--env", "A=b=c"],
        &["env"],
    );
    let said = ended(command.env("OURS", "mine").output().unwrap(), 0);
    assert_eq!(
        said.out,
        "A=b=c\nHOME=/tmp\nOURS=mine\nPATH=/usr/local/bin:/usr/bin:/bin\n"
    );
}

#[test]
fn the_working_directory_is_that_of_root() {
    assert_eq!(run(&["cwd"], 0).out, "/root\n");
}

#[test]
fn a_file_for_standard_input_comes_out_as_it_went_in() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("input");
    let bytes = noise(1 << 20, 7);
    fs::write(&path, &bytes).unwrap();
    let output = plain(&[], &["cat"])
        .stdin(fs::File::open(&path).unwrap())
        .output()
        .unwrap();
    assert!(output.stdout == bytes, "{} bytes came out", output.stdout.len());
    ended(output, 0);
}

/// Starts a program with a pipe for its input.
fn with_pipe(words: &[&str]) -> std::process::Child {
    plain(&[], words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_pipe_for_standard_input_comes_out_as_it_went_in() {
    let bytes = noise(20_000, 11);
    let mut child = with_pipe(&["cat"]);
    let mut pipe = child.stdin.take().unwrap();
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || pipe.write_all(&sent));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.stdout == bytes, "{} bytes came out", output.stdout.len());
    ended(output, 0);
}

#[test]
fn a_line_is_answered_before_the_next_one_is_written() {
    let mut child = with_pipe(&["cat"]);
    let (mut pipe, mut out) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    for line in [b"one\n", b"two\n"] {
        pipe.write_all(line).unwrap();
        let mut answer = [0; 4];
        out.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, line);
    }
    drop(pipe);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn files_are_where_they_were_put() {
    let (_dir, file) = executable(b"content\n");
    let option = format!("{file}:/etc/there");
    let said = ended(
        plain(&["--file", &option], &["show", "/etc/there"])
            .output()
            .unwrap(),
        0,
    );
    assert_eq!(said.out, "100755 content\n");
}

#[test]
fn every_kind_of_exit_status_is_passed_on() {
    for status in [0, 1, 77, 124, 255] {
        let said = run(&["exit", &status.to_string()], status);
        assert_eq!(said.all(), "\n", "nothing is said of it");
    }
}

#[test]
fn a_signal_is_told_from_an_exit() {
    let said = run(&["signal", "15"], 128 + 15);
    assert!(said.err.contains("ended by signal 15 (SIGTERM)"), "{}", said.err);
    let said = run(&["load", "16"], 128 + 11);
    for words in ["ended by signal 11 (SIGSEGV)", "address 0x10"] {
        assert!(said.err.contains(words), "{}", said.err);
    }
}

#[test]
fn a_program_that_hangs_is_ended_by_the_time_limit() {
    let output = command(&["run", "--timeout", "16", program(), "plain", "hang"])
        .output()
        .unwrap();
    let said = ended(output, 124);
    assert!(said.err.contains("the time is over"), "{}", said.err);
}

#[test]
fn a_call_that_is_not_there_is_enosys_and_named_when_the_program_fails() {
    let said = run(&["call", "9999"], 0);
    assert!(said.out.contains("ENOSYS"), "{}", said.all());
    assert_eq!(said.err, "");
    let said = ended(plain(&["--verbose"], &["call", "9999"]).output().unwrap(), 0);
    assert!(said.err.contains("linux: system call 9999"), "{}", said.err);
    assert!(said.err.contains("qemu-system-x86_64"), "{}", said.err);
}

#[test]
fn an_output_that_nobody_reads_ends_the_run() {
    let mut child = with_pipe(&["cat"]);
    let mut pipe = child.stdin.take().unwrap();
    drop(child.stdout.take());
    let writer = std::thread::spawn(move || while pipe.write_all(&[b'x'; 4096]).is_ok() {});
    assert_eq!(child.wait().unwrap().code(), Some(128 + 13));
    writer.join().unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn an_interrupt_ends_a_program_and_leaves_no_emulator_behind() {
    // The memory size marks this machine among those that other tests run.
    let mut child = command(&["run", "--mem", "334", program(), "plain", "hang"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while processes_with("334M") == 0 {
        assert_eq!(
            child.try_wait().unwrap(),
            None,
            "it ended before its emulator came"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    let interrupted = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(interrupted.unwrap().success());
    ended(child.wait_with_output().unwrap(), 130);
    assert_eq!(processes_with("334M"), 0);
}

#[test]
fn two_counted_runs_say_the_same() {
    let run = || {
        let output = plain(&["--icount", "--verbose"], &["hello"]).output().unwrap();
        let console: Vec<String> = ended(output, 0)
            .err
            .lines()
            .filter(|line| line.starts_with("| "))
            .map(str::to_owned)
            .collect();
        console
    };
    let first = run();
    assert!(first.len() > 5, "{first:?}");
    assert_eq!(first, run());
}

#[test]
fn a_program_that_is_not_there_is_127() {
    let said = xtask(&["run", "./no-such-program"]);
    assert_eq!(said.status, Some(127), "{}", said.all());
    assert!(said.err.contains("no such file"), "{}", said.err);
}

#[test]
fn what_is_no_program_is_126() {
    let whole = fs::read(program()).unwrap();
    let (_text, text) = executable(b"just text\n");
    let (_cut, cut) = executable(&whole[..100]);
    for (path, word) in [
        (&text, "neither an ELF nor a script"),
        (&cut, "cannot be executed"),
    ] {
        let said = xtask(&["run", "--timeout", "60", path]);
        assert_eq!(said.status, Some(126), "{}", said.all());
        assert!(said.err.contains(word), "{}", said.err);
    }
}

#[test]
fn a_script_goes_to_the_program_that_its_first_line_names() {
    let (_script, script) = executable(b"#!/bin/prog plain\n");
    let placed = format!("{}:/bin/prog", program());
    // The program is told the script's path as the word behind its own, which it does not know.
    let said = xtask(&["run", "--timeout", "60", "--file", &placed, &script, "more"]);
    assert_eq!(said.status, Some(2), "{}", said.all());
    let words = format!("plain: [{script:?}, \"more\"]");
    assert!(said.err.contains(&words), "{}", said.err);
    let said = xtask(&["run", "--timeout", "60", &script]);
    assert_eq!(said.status, Some(126), "{}", said.all());
    assert!(said.err.contains("/bin/prog"), "{}", said.err);
}

#[test]
fn an_emulator_that_does_not_start_says_why() {
    let said = xtask(&["run", "--cpu", "no-such-cpu", program()]);
    assert_eq!(said.status, Some(125), "{}", said.all());
    assert!(said.err.contains("'no-such-cpu'"), "{}", said.err);
}

#[test]
fn wrong_usage_is_125_so_that_2_is_the_programs() {
    for args in [
        &["run"][..],
        &["run", "--no-such-option", "x"],
        &["run", "--file", "/nonexistent", "/bin/true"],
        &["run", "--icount", "--accel", "kvm", program()],
    ] {
        let said = xtask(args);
        assert_eq!(said.status, Some(125), "{args:?}: {}", said.all());
    }
    run(&["no-such-word"], 2);
}

#[test]
fn files_that_do_not_fit_are_refused_with_an_amount_that_would_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large");
    fs::File::create(&path).unwrap().set_len(64 << 20).unwrap();
    let path = path.to_str().unwrap();
    let said = xtask(&["run", "--mem", "64", "--file", path, program()]);
    assert_eq!(said.status, Some(125), "{}", said.all());
    assert!(said.err.contains("--mem"), "{}", said.err);
}
