//! The smallest program: whoever sees its line can run the others.

use guest_tests::transcript::{check, ok, say};
use guest_tests::{errno, sys};

pub fn run() {
    say("hello");
    check(
        "a call that Linux has not",
        ok(sys::call(9999, &[])),
        errno::Errno(libc::ENOSYS),
    );
}
