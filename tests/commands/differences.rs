//! `diff`: the same programs on two kernels.
//!
//! A machine without userfaultfd for this user says so and compares nothing: the status is that of a machine that lacks what
//! the job is about, and these tests say no more then.

use xtask::status::Status;

use crate::{Said, xtask};

/// Runs `cargo xtask diff ARGS`; none where there is no userfaultfd.
fn diff(args: &[&str]) -> Option<Said> {
    let said = xtask(&[&["diff"], args].concat());
    if said.status == Some(i32::from(Status::Unsupported.code())) {
        assert!(
            said.out.contains("skipped: this Linux gives no userfaultfd"),
            "{}",
            said.all()
        );
        return None;
    }
    Some(said)
}

/// A script in a file of its own.
fn script(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("the temporary folder is writable");
    let path = dir.path().join("script");
    std::fs::write(&path, text).expect("the temporary folder is writable");
    let path = path.to_str().expect("temporary paths are UTF-8").to_owned();
    (dir, path)
}

#[test]
fn a_case_says_the_same_twice_on_one_kernel() {
    let Some(said) = diff(&[
        "--random-only",
        "--cases",
        "25",
        "--seed",
        "3",
        "--against-itself",
    ]) else {
        return;
    };
    let all = said
        .expect(Status::Success, &["random, seed 3", "diff.json"])
        .all();
    assert!(!all.contains("differs"), "{all}");
}

#[test]
fn a_script_that_says_no_such_thing_is_refused_with_its_line() {
    let (_dir, path) = script("case 1\nm: map a0 8 anon rw\nnonsense\n");
    xtask(&["diff", "--script", &path]).expect(Status::Usage, &["line 3", "nonsense"]);
    xtask(&["diff", "--script", "/no/such/file"]).expect(Status::Usage, &["/no/such/file"]);
}

#[test]
fn a_program_that_there_is_not_is_refused() {
    let Some(said) = diff(&["no-such-program", "--against-itself"]) else {
        return;
    };
    said.expect(Status::Usage, &["no-such-program"]);
}

#[test]
fn options_that_exclude_each_other_are_refused() {
    xtask(&["diff", "--random-only", "--named-only"]).expect(Status::Usage, &["--named-only"]);
    xtask(&["diff", "--random-only", "hello"]).expect(Status::Usage, &["--random-only"]);
}
