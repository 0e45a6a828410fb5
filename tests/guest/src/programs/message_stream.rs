//! A task that waits in the kernel and has a signal sends its message again and again (section 4.4, end).

use guest_tests::region::*;
use guest_tests::signal;
use guest_tests::transcript::check;

pub fn run() {
    signal::catch(libc::SIGUSR1, libc::SA_RESTART, &[]);
    let (uffd, area, waiter) = super::uffd_signals::signalled_in_the_kernel();
    let mut same = 0;
    // Between two rounds there may be none for a moment.
    while same < 1000 && uffd.told() == "fault flags 1 at area" {
        same += 1;
    }
    check("4.4 in the kernel: messages of the same fault", same, "1000");
    check(
        "4.4 in the kernel: filled",
        uffd.zeropage(area.start, PAGE, 0),
        "ok 1p",
    );
    check("4.4 in the kernel: the call", waiter.finish(), "2");
}
