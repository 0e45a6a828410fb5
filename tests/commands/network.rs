//! Pages from beyond this machine: QEMU speaks the protocol, here NBD over a socket of this machine.

use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use xtask::status::Status;

use crate::{Said, random_file, xtask};

/// A server of one file; gone when dropped.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(dir: &Path, file: &str) -> Self {
        let socket = dir.join("nbd.sock");
        let disk = format!("driver=file,node-name=disk,filename={file},read-only=on");
        let address = format!("addr.type=unix,addr.path={}", socket.display());
        let mut child = Command::new("qemu-storage-daemon")
            .args(["--blockdev", &disk, "--nbd-server", &address])
            .args(["--export", "type=nbd,id=export,node-name=disk,name=snapshot"])
            .spawn()
            .expect("it comes with QEMU");
        while !socket.exists() {
            assert!(child.try_wait().unwrap().is_none(), "the server ended");
            std::thread::sleep(Duration::from_millis(20));
        }
        let url = format!("nbd+unix:///snapshot?socket={}", socket.display());
        Self { child, url }
    }

    /// Restores what it serves, with the digests of `file`.
    fn restore(&self, file: &str) -> Said {
        let run = ["qemu", "--timeout", "120", "--disk", &self.url];
        xtask(&[&run[..], &["restore", "--snapshot", file]].concat())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_network_block_device_serves_pages_and_a_local_file_their_digests() {
    let (dir, file) = random_file(1 << 20, 16);
    let server = Server::start(dir.path(), &file);
    server.restore(&file).expect(Status::Success, &[&server.url]);
}

#[test]
fn a_network_block_device_alone_is_read_once_for_its_digests() {
    let (dir, file) = random_file(1 << 20, 17);
    let server = Server::start(dir.path(), &file);
    xtask(&["qemu", "--timeout", "120", "--disk", &server.url])
        .expect(Status::Success, &["reading", "256 pages"]);
}

#[test]
fn a_network_block_device_that_serves_other_bytes_is_found_out() {
    let (dir, file) = random_file(1 << 20, 18);
    let (_other_dir, other) = random_file(1 << 20, 19);
    let server = Server::start(dir.path(), &file);
    server.restore(&other).expect(Status::Failed, &["page 0"]);
}

#[test]
fn a_server_that_is_not_there_is_refused_in_its_own_words() {
    xtask(&[
        "qemu",
        "--disk",
        "nbd+unix:///snapshot?socket=/nonexistent/socket",
    ])
    .expect(Status::Usage, &["--disk", "/nonexistent/socket"]);
}
