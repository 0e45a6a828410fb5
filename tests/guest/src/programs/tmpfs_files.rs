//! Files and directories in memory: opening, reading, renaming, removing.

use guest_tests::region::in_memory_directory;
use guest_tests::sys::{self, call, with_path, with_paths};
use guest_tests::transcript::{answer, ok, show};

pub fn run() {
    let removed = in_memory_directory(|| {
        opening();
        reading();
        names();
        directories();
        links();
        about();
    });
    show("the end: everything can be removed", removed);
}

fn opening() {
    let open = |path: &str, flags: i32| ok(sys::open(path, flags).map(sys::close));
    let (read, write, both, create) = (libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR, libc::O_CREAT);
    show("open: not there", open("none", read));
    show("open: CREAT", open("file", both | create));
    show("open: there", open("file", read));
    show("open: EXCL", open("file", both | create | libc::O_EXCL));
    show("open: a directory to read", open(".", read));
    show("open: a directory to write", open(".", write));
    show(
        "open: DIRECTORY of a file",
        open("file", read | libc::O_DIRECTORY),
    );
    show("open: below a file", open("file/x", read));
    show("open: a file with a slash", open("file/", read));
    show("open: CREAT with a slash", open("new/", both | create));
    show(
        "open: in a directory that is not there",
        open("no/file", both | create),
    );
    show("open: empty", open("", read));
    show("open: bad pointer", ok(call(libc::SYS_open, &[8, 0, 0])));
    show("open: a name of 255", open(&"n".repeat(255), both | create));
    show("open: a name of 256", open(&"n".repeat(256), both | create));
    show("open: a path of 4096", open(&"x/".repeat(2048), read));
    show("open: TMPFILE", open(".", both | libc::O_TMPFILE));
    show(
        "openat: bad descriptor",
        ok(call(libc::SYS_openat, &[99, c"x".as_ptr() as usize, 0, 0])),
    );
    let fd = sys::open(".", libc::O_RDONLY).expect("it is there");
    show(
        "openat: relative",
        ok(call(
            libc::SYS_openat,
            &[fd as usize, c"file".as_ptr() as usize, 0, 0],
        )),
    );
    let file = sys::open("file", libc::O_RDONLY).expect("it is there");
    show(
        "openat: relative to a file",
        ok(call(
            libc::SYS_openat,
            &[file as usize, c"x".as_ptr() as usize, 0, 0],
        )),
    );
    show("read of a directory", ok(sys::read(fd, &mut [0; 8])));
    show("O_PATH", open("file", libc::O_PATH));
    let path = sys::open("file", libc::O_PATH).expect("it is there");
    show("O_PATH: read", ok(sys::read(path, &mut [0; 1])));
}

fn reading() {
    let fd = sys::open("text", libc::O_RDWR | libc::O_CREAT).expect("a file can be made");
    let mut buffer = [0u8; 32];
    show("write", answer(sys::write(fd, b"hello world")));
    show("read at the end", answer(sys::read(fd, &mut buffer)));
    show("lseek", answer(call(libc::SYS_lseek, &[fd as usize, 6, 0])));
    show("read the rest", answer(sys::read(fd, &mut buffer)));
    show(
        "pwrite far behind the end",
        answer(call(
            libc::SYS_pwrite64,
            &[fd as usize, buffer.as_ptr() as usize, 5, 10_000],
        )),
    );
    show("the hole reads zeros", {
        let got = call(
            libc::SYS_pread64,
            &[fd as usize, buffer.as_mut_ptr() as usize, 4, 5000],
        );
        format!("{} {:?}", answer(got), &buffer[..4])
    });
    show(
        "pwrite at a negative offset",
        answer(call(
            libc::SYS_pwrite64,
            &[fd as usize, buffer.as_ptr() as usize, 5, usize::MAX],
        )),
    );
    let end = sys::open("text", libc::O_WRONLY | libc::O_APPEND).expect("it is there");
    show("APPEND", answer(sys::write(end, b"!")));
    show(
        "APPEND: the offset",
        answer(call(libc::SYS_lseek, &[end as usize, 0, 1])),
    );
    show(
        "write by an end to read",
        answer(sys::write(sys::open("text", 0).expect("it is there"), b"x")),
    );
    let cut = sys::open("text", libc::O_WRONLY | libc::O_TRUNC).expect("it is there");
    show("TRUNC", answer(call(libc::SYS_lseek, &[cut as usize, 0, 2])));
    show("truncate", ok(with_path(libc::SYS_truncate, "text", &[100])));
    show(
        "truncate of a directory",
        ok(with_path(libc::SYS_truncate, ".", &[0])),
    );
    show("read: zeros", answer(sys::read(fd, &mut buffer)));
    let copy = sys::open("copy", libc::O_RDWR | libc::O_CREAT).expect("a file can be made");
    let _ = call(libc::SYS_lseek, &[fd as usize, 0, 0]);
    show(
        "sendfile",
        answer(call(libc::SYS_sendfile, &[copy as usize, fd as usize, 0, 1000])),
    );
    show("fsync", ok(call(libc::SYS_fsync, &[fd as usize])));
    show(
        "fallocate",
        ok(call(libc::SYS_fallocate, &[fd as usize, 0, 0, 8192])),
    );
}

fn names() {
    let touch = |name: &str| drop(std::fs::write(name, name));
    touch("one");
    touch("two");
    std::fs::create_dir("sub").expect("a directory can be made");
    std::fs::create_dir("sub2").expect("a directory can be made");
    let rename = |from: &str, to: &str| ok(with_paths(libc::SYS_rename, from, to));
    show("rename", rename("one", "three"));
    show("rename: over a file", rename("three", "two"));
    show(
        "rename: its content",
        std::fs::read_to_string("two").unwrap_or_default(),
    );
    show("rename: not there", rename("one", "four"));
    show("rename: into a directory", rename("two", "sub/two"));
    show("rename: a file over a directory", rename("sub/two", "sub2"));
    show("rename: a directory over a file", rename("sub2", "sub/two"));
    show("rename: a directory into itself", rename("sub", "sub/sub"));
    show("rename: over an empty directory", rename("sub", "sub2"));
    touch("x");
    touch("y");
    let flags = |flags: usize| {
        let (from, to) = (c"x".as_ptr() as usize, c"y".as_ptr() as usize);
        ok(call(
            libc::SYS_renameat2,
            &[libc::AT_FDCWD as usize, from, libc::AT_FDCWD as usize, to, flags],
        ))
    };
    show("renameat2: NOREPLACE", flags(1));
    show("renameat2: EXCHANGE", flags(2));
    show(
        "renameat2: what was exchanged",
        std::fs::read_to_string("x").unwrap_or_default(),
    );
    show("renameat2: unknown", flags(64));
    show("unlink", ok(with_path(libc::SYS_unlink, "x", &[])));
    show("unlink: again", ok(with_path(libc::SYS_unlink, "x", &[])));
    show(
        "unlink: a directory",
        ok(with_path(libc::SYS_unlink, "sub2", &[])),
    );
    let fd = sys::open("y", libc::O_RDWR).expect("it is there");
    let _ = with_path(libc::SYS_unlink, "y", &[]);
    show("unlink: an open file reads", answer(sys::read(fd, &mut [0; 8])));
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}"))
        .map_or(String::new(), |path| path.display().to_string());
    show("unlink: its name then", link.ends_with("/y (deleted)"));
}

fn directories() {
    let mkdir = |path: &str| ok(with_path(libc::SYS_mkdir, path, &[0o755]));
    let rmdir = |path: &str| ok(with_path(libc::SYS_rmdir, path, &[]));
    show("mkdir", mkdir("dir"));
    show("mkdir: there", mkdir("dir"));
    show("mkdir: below what is not there", mkdir("no/dir"));
    show("mkdir: with a slash", mkdir("dir2/"));
    show("rmdir: a file", {
        let _ = std::fs::write("dir/file", "x");
        rmdir("dir/file")
    });
    show("rmdir: not empty", rmdir("dir"));
    show("rmdir: .", rmdir("dir/."));
    show("rmdir", rmdir("dir2"));
    show("rmdir: /", rmdir("/"));
    for name in ["b", "a", "c"] {
        std::fs::write(format!("dir/{name}"), "x").expect("a file can be made");
    }
    let mut names: Vec<String> = std::fs::read_dir("dir")
        .expect("it is there")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into())
        .collect();
    names.sort();
    show("getdents", names.join(" "));
    let fd = sys::open("dir", libc::O_RDONLY).expect("it is there");
    let mut buffer = [0u8; 1024];
    let dents = |len: usize, buffer: &mut [u8]| {
        answer(call(
            libc::SYS_getdents64,
            &[fd as usize, buffer.as_mut_ptr() as usize, len],
        ))
    };
    show("getdents64: no room", dents(8, &mut buffer));
    show("getdents64: all", dents(1024, &mut buffer));
    show("getdents64: at the end", dents(1024, &mut buffer));
    let file = sys::open("dir/a", libc::O_RDONLY).expect("it is there");
    old_directory_calls(fd as usize, file as usize);
    show(
        "getdents64: of a file",
        answer(call(
            libc::SYS_getdents64,
            &[file as usize, buffer.as_mut_ptr() as usize, 100],
        )),
    );
    show("chdir", ok(with_path(libc::SYS_chdir, "dir", &[])));
    show("chdir: a file", ok(with_path(libc::SYS_chdir, "a", &[])));
    show("chdir: ..", ok(with_path(libc::SYS_chdir, "..", &[])));
    show("fchdir", ok(call(libc::SYS_fchdir, &[fd as usize])));
    show(
        "a path through ..",
        std::fs::read_to_string("../dir/./../dir/a").unwrap_or_default(),
    );
    let _ = with_path(libc::SYS_chdir, "..", &[]);
}

/// `getdents`, as it was before the kinds of files: the names with their kinds, and the lengths of the records.
fn old_directory_calls(directory: usize, file: usize) {
    let mut buffer = [0u8; 1024];
    let at = buffer.as_mut_ptr() as usize;
    let dents = |fd: usize, at: usize, len: usize| call(libc::SYS_getdents, &[fd, at, len]);
    let rewind = || call(libc::SYS_lseek, &[directory, 0, 0]).expect("a directory can be read again");
    rewind();
    show("getdents: no room", answer(dents(directory, at, 8)));
    show("getdents: room for one", answer(dents(directory, at, 24)));
    rewind();
    let got = dents(directory, at, buffer.len());
    show("getdents: all", answer(got));
    let mut records = Vec::new();
    let mut rest = &buffer[..got.unwrap_or(0)];
    while let Some(len) = rest
        .get(16..18)
        .map(|len| u16::from_ne_bytes([len[0], len[1]]) as usize)
    {
        let (record, behind) = rest.split_at(len);
        let name: Vec<u8> = record[18..]
            .iter()
            .copied()
            .take_while(|byte| *byte != 0)
            .collect();
        let kind = record[len - 1];
        records.push(format!(
            "{} kind {kind} length {len}",
            String::from_utf8_lossy(&name)
        ));
        rest = behind;
    }
    records.sort();
    for record in records {
        show("getdents: a record", record);
    }
    show("getdents: at the end", answer(dents(directory, at, 1024)));
    rewind();
    show("getdents: bad pointer", answer(dents(directory, 8, 1024)));
    show("getdents: of a file", answer(dents(file, at, 1024)));
    show("getdents: of nothing", answer(dents(99, at, 1024)));
    let _ = dents(directory, at, buffer.len());
}

fn links() {
    let symlink = |to: &str, at: &str| ok(with_paths(libc::SYS_symlink, to, at));
    show("symlink", symlink("dir/a", "link"));
    show("symlink: there", symlink("dir/a", "link"));
    show(
        "symlink: read through",
        std::fs::read_to_string("link").unwrap_or_default(),
    );
    show("symlink: to nothing", symlink("nothing", "broken"));
    show("symlink: open of nothing", ok(sys::open("broken", 0)));
    show(
        "symlink: CREAT through it",
        ok(sys::open("broken", libc::O_RDWR | libc::O_CREAT)),
    );
    show("symlink: it is there", std::fs::metadata("nothing").is_ok());
    show("symlink: to itself", symlink("self", "self"));
    show("symlink: open of itself", ok(sys::open("self", 0)));
    show("symlink: NOFOLLOW", ok(sys::open("link", libc::O_NOFOLLOW)));
    let mut buffer = [0u8; 64];
    let at = buffer.as_mut_ptr() as usize;
    show(
        "readlink",
        answer(with_path(libc::SYS_readlink, "link", &[at, 64])),
    );
    show(
        "readlink: no room for all",
        answer(with_path(libc::SYS_readlink, "link", &[at, 3])),
    );
    show(
        "readlink: no room",
        answer(with_path(libc::SYS_readlink, "link", &[at, 0])),
    );
    show(
        "readlink: of a file",
        answer(with_path(libc::SYS_readlink, "dir/a", &[at, 64])),
    );
    show("symlink: unlink", ok(with_path(libc::SYS_unlink, "link", &[])));
    show("symlink: what it named", std::fs::metadata("dir/a").is_ok());
    show("link", ok(with_paths(libc::SYS_link, "dir/a", "hard")));
    show("link: there", ok(with_paths(libc::SYS_link, "dir/a", "hard")));
    show(
        "link: a directory",
        ok(with_paths(libc::SYS_link, "dir", "hard2")),
    );
    use std::os::unix::fs::MetadataExt;
    show(
        "link: how many",
        std::fs::metadata("hard").map_or(0, |data| data.nlink()),
    );
}

fn about() {
    use std::os::unix::fs::MetadataExt;
    std::fs::write("sized", [1u8; 5000]).expect("a file can be made");
    let data = std::fs::metadata("sized").expect("it is there");
    show("stat: mode", format!("{:o}", data.mode()));
    show("stat: size", data.size());
    show("stat: links", data.nlink());
    show("stat: blocks", data.blocks());
    show("stat: block size", data.blksize());
    show("stat: owner", format!("{} {}", data.uid(), data.gid()));
    let mut buffer = [0u64; 32];
    let at = buffer.as_mut_ptr() as usize;
    show("stat: not there", ok(with_path(libc::SYS_stat, "none", &[at])));
    show("stat: bad pointer", ok(with_path(libc::SYS_stat, "sized", &[8])));
    show("fstat: bad descriptor", ok(call(libc::SYS_fstat, &[99, at])));
    let cwd = libc::AT_FDCWD as usize;
    show(
        "newfstatat: unknown flag",
        ok(call(
            libc::SYS_newfstatat,
            &[cwd, c"sized".as_ptr() as usize, at, 1],
        )),
    );
    show(
        "newfstatat: empty path",
        ok(call(
            libc::SYS_newfstatat,
            &[0, c"".as_ptr() as usize, at, 0x1000],
        )),
    );
    show(
        "newfstatat: empty path without the flag",
        ok(call(libc::SYS_newfstatat, &[0, c"".as_ptr() as usize, at, 0])),
    );
    show(
        "statx",
        ok(call(
            libc::SYS_statx,
            &[cwd, c"sized".as_ptr() as usize, 0, 0xfff, at],
        )),
    );
    show("statfs", ok(with_path(libc::SYS_statfs, ".", &[at])));
    show("statfs: type", format!("{:#x}", buffer[0]));
    show(
        "utimensat",
        ok(call(
            libc::SYS_utimensat,
            &[
                cwd,
                c"sized".as_ptr() as usize,
                [11u64, 22, 33, 44].as_ptr() as usize,
                0,
            ],
        )),
    );
    let data = std::fs::metadata("sized").expect("it is there");
    show(
        "utimensat: times",
        format!(
            "{} {} {} {}",
            data.atime(),
            data.atime_nsec(),
            data.mtime(),
            data.mtime_nsec()
        ),
    );
    old_times();
}

/// `utime`, `utimes`, `futimesat`: the times of files as they were set before nanoseconds.
fn old_times() {
    use std::os::unix::fs::MetadataExt;
    let times = || {
        let data = std::fs::metadata("sized").expect("it is there");
        let (atime, mtime) = (data.atime(), data.mtime());
        format!("{atime} {} {mtime} {}", data.atime_nsec(), data.mtime_nsec())
    };
    let is_now = || {
        let data = std::fs::metadata("sized").expect("it is there");
        data.mtime() > 1_600_000_000 && data.atime() > 1_600_000_000
    };
    let (two, four) = ([5u64, 6], [7u64, 8, 9, 999_999]);
    let (two, four) = (two.as_ptr() as usize, four.as_ptr() as usize);
    show("utime", ok(with_path(libc::SYS_utime, "sized", &[two])));
    show("utime: times", times());
    show("utime: now", ok(with_path(libc::SYS_utime, "sized", &[0])));
    show("utime: it is now", is_now());
    show("utime: not there", ok(with_path(libc::SYS_utime, "none", &[two])));
    show("utime: bad pointer", ok(with_path(libc::SYS_utime, "none", &[8])));
    show("utimes", ok(with_path(libc::SYS_utimes, "sized", &[four])));
    show("utimes: times", times());
    let wrong = [7u64, 1_000_000, 9, 0];
    let wrong = ok(with_path(libc::SYS_utimes, "sized", &[wrong.as_ptr() as usize]));
    show("utimes: too many microseconds", wrong);
    show("utimes: no path", ok(call(libc::SYS_utimes, &[0, four])));
    let at = |fd: i32, path: usize, times: usize| ok(call(libc::SYS_futimesat, &[fd as usize, path, times]));
    let sized = c"sized".as_ptr() as usize;
    show("futimesat: now", at(libc::AT_FDCWD, sized, 0));
    show("futimesat: it is now", is_now());
    let fd = sys::open("sized", libc::O_RDONLY).expect("it is there");
    show("futimesat: a descriptor", at(fd, 0, four));
    show("futimesat: times", times());
    show("futimesat: no path", at(libc::AT_FDCWD, 0, four));
    show("futimesat: below a file", at(fd, sized, four));
    show("futimesat: no descriptor", at(99, 0, four));
    let utimensat = |fd: i32| ok(call(libc::SYS_utimensat, &[fd as usize, 0, 0, 0]));
    show("utimensat: no path", utimensat(libc::AT_FDCWD));
    show("utimensat: a descriptor", utimensat(fd));
    let _ = sys::close(fd);
}
