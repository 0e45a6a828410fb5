//! Who may do what with a file: permissions and owners.

use guest_tests::child::fork;
use guest_tests::region::in_memory_directory;
use guest_tests::sys::{self, with_path};
use guest_tests::transcript::{ok, show};

pub fn run() {
    let removed = in_memory_directory(rights);
    show("the end: everything can be removed", removed);
}

fn rights() {
    let access = |path: &str, mode: usize| ok(with_path(libc::SYS_access, path, &[mode]));
    std::fs::write("secret", "x").expect("a file can be made");
    show("chmod", ok(with_path(libc::SYS_chmod, "secret", &[0o600])));
    show(
        "chmod: not there",
        ok(with_path(libc::SYS_chmod, "none", &[0o600])),
    );
    show("access: there", access("secret", 0));
    show("access: not there", access("none", 0));
    show("access: to run, by root", access("secret", 1));
    show("access: unknown", access("secret", 9));
    let child = fork(|| {
        super::open::become_nobody();
        show("as nobody: open", ok(sys::open("secret", 0)));
        show("as nobody: access", access("secret", 4));
        show(
            "as nobody: chmod",
            ok(with_path(libc::SYS_chmod, "secret", &[0o777])),
        );
        show(
            "as nobody: unlink",
            ok(with_path(libc::SYS_unlink, "secret", &[])),
        );
        show(
            "as nobody: create",
            ok(sys::open("theirs", libc::O_RDWR | libc::O_CREAT)),
        );
        0
    });
    show("as nobody: the child", child.wait());
    show("chown", ok(with_path(libc::SYS_chown, "secret", &[65534, 65534])));
    let child = fork(|| {
        super::open::become_nobody();
        show("as the owner: open", ok(sys::open("secret", libc::O_RDWR)));
        0
    });
    show("as the owner: the child", child.wait());
}
