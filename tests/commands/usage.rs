//! Wrong usage: refused with status 2 and a word on what would be right, before anything is built or booted where
//! the host can tell, by the kernel where only it can.

use xtask::status::Status;

use crate::{random_file, xtask};

#[test]
fn an_unknown_command_is_refused() {
    xtask(&["qeum"]).expect(Status::Usage, &["qeum", "Usage"]);
}

#[test]
fn an_unknown_application_is_refused() {
    xtask(&["qemu", "restroe"]).expect(Status::Usage, &["restroe", "restore"]);
}

#[test]
fn an_unknown_option_is_refused() {
    xtask(&["qemu", "restore", "--snapshto", "x"]).expect(Status::Usage, &["--snapshto", "--snapshot"]);
}

#[test]
fn an_option_of_another_application_is_refused() {
    xtask(&["qemu", "cost", "--order", "random"]).expect(Status::Usage, &["--order"]);
}

#[test]
fn the_kernel_refuses_an_application_it_does_not_have() {
    xtask(&["qemu", "--timeout", "60", "raw", "restroe"]).expect(Status::Usage, &["restroe", "restore"]);
}

#[test]
fn the_kernel_refuses_a_key_that_its_application_does_not_have() {
    xtask(&["qemu", "--timeout", "60", "raw", "cost", "pagse=3"]).expect(Status::Usage, &["pagse", "pages"]);
}

#[test]
fn selftests_of_what_is_no_tree_of_linux_are_refused() {
    xtask(&["selftests", "--source", "/usr"]).expect(Status::Usage, &["--source /usr", "uffd-unit-tests.c"]);
}

#[test]
fn icount_with_kvm_is_refused() {
    xtask(&["qemu", "--icount", "--accel", "kvm", "cost"]).expect(Status::Usage, &["--icount", "tcg"]);
}

#[test]
fn bochs_has_no_virtio_disk_and_says_what_to_use() {
    let (_dir, file) = random_file(4096, 1);
    xtask(&["bochs", "restore", "--snapshot", &file, "--source", "virtio"])
        .expect(Status::Usage, &["bochs", "--source ramdisk"]);
}

#[test]
fn an_order_file_with_a_page_outside_the_snapshot_is_refused_with_its_line() {
    let (dir, file) = random_file(3 * 4096, 1);
    let order = dir.path().join("order");
    std::fs::write(&order, "0\n1 2\n3\n").unwrap();
    let order = order.to_str().unwrap();
    xtask(&["qemu", "restore", "--snapshot", &file, "--order", order])
        .expect(Status::Usage, &["order:3", "page 3", "3 pages"]);
}

#[test]
fn a_misspelt_order_is_refused() {
    let (_dir, file) = random_file(4096, 1);
    xtask(&["qemu", "restore", "--snapshot", &file, "--order", "sequentail"])
        .expect(Status::Usage, &["sequentail", "sequential, random"]);
}

#[test]
fn an_order_that_is_no_regular_file_is_refused_and_never_waited_for() {
    let (_dir, file) = random_file(4096, 1);
    xtask(&["qemu", "restore", "--snapshot", &file, "--order", "/dev/zero"])
        .expect(Status::Usage, &["/dev/zero", "not a regular file"]);
}

#[test]
fn numbers_out_of_range_are_refused_with_the_option_and_its_range() {
    for (option, value, wanted) in [
        ("--prefetch", "4097", "4096"),
        ("--prefetch", "-1", "invalid value '-1'"),
        ("--touch", "0", "1.."),
        ("--seed", "-1", "invalid value '-1'"),
    ] {
        xtask(&["qemu", "restore", option, value]).expect(Status::Usage, &[option, wanted]);
    }
}

#[test]
fn a_filter_that_fits_no_test_is_refused() {
    xtask(&[
        "test",
        "--rung",
        "kernel",
        "--machine",
        "qemu-pvh",
        "no_such_test",
    ])
    .expect(Status::Usage, &["no test", "no_such_test", "0 passed"]);
}
