//! Programs that are broken: each is written to a file and executed; what execve says, or how the child ends.

use guest_tests::child::fork;
use guest_tests::region::memory_directory;
use guest_tests::sys::{self, call};
use guest_tests::transcript::show;

use super::execute::exec;

/// A small program, which exits with status 7.
fn program() -> Vec<u8> {
    // mov edi, 7; mov eax, 60; syscall
    program_of(&[0xbf, 7, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05])
}

/// A program of this code: one segment with its headers.
pub(super) fn program_of(code: &[u8]) -> Vec<u8> {
    let mut file = vec![0u8; 64 + 56];
    file[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    put(&mut file, 16, 2, 2); // executable
    put(&mut file, 18, 0x3e, 2); // x86-64
    put(&mut file, 20, 1, 4);
    put(&mut file, 24, 0x40_0078, 8); // entry, behind the headers
    put(&mut file, 32, 64, 8); // program headers
    put(&mut file, 52, 64, 2);
    put(&mut file, 54, 56, 2);
    put(&mut file, 56, 1, 2);
    file.extend_from_slice(code);
    let len = file.len() as u64;
    put(&mut file, 64, 1, 4); // LOAD
    put(&mut file, 68, 5, 4); // read, execute
    put(&mut file, 80, 0x40_0000, 8);
    put(&mut file, 88, 0x40_0000, 8);
    put(&mut file, 96, len, 8);
    put(&mut file, 104, len, 8);
    put(&mut file, 112, 0x1000, 8);
    file
}

/// Writes the lowest `size` bytes of a number.
fn put(file: &mut [u8], at: usize, value: u64, size: usize) {
    file[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
}

/// The program with these changes: (offset, value, size).
fn changed(changes: &[(usize, u64, usize)]) -> Vec<u8> {
    let mut file = program();
    for (at, value, size) in changes {
        put(&mut file, *at, *value, *size);
    }
    file
}

/// The program with a second program header, which these are the words of, behind the first.
fn with_segment(kind: u64, offset: u64, address: u64, file_size: u64, memory_size: u64) -> Vec<u8> {
    let mut file = program();
    let mut header = vec![0u8; 56];
    for (at, value, size) in [
        (0, kind, 4),
        (4, 6, 4),
        (8, offset, 8),
        (16, address, 8),
        (24, address, 8),
        (32, file_size, 8),
        (40, memory_size, 8),
        (48, 0x1000, 8),
    ] {
        put(&mut header, at, value, size);
    }
    file.splice(120..120, header);
    put(&mut file, 24, 0x40_00b0, 8);
    put(&mut file, 56, 2, 2);
    let len = file.len() as u64;
    put(&mut file, 96, len, 8);
    put(&mut file, 104, len, 8);
    file
}

/// The program with an interpreter of this name.
fn with_interpreter(name: &[u8]) -> Vec<u8> {
    let mut file = with_segment(3, 0, 0, name.len() as u64, name.len() as u64);
    let at = file.len() as u64;
    put(&mut file, 120 + 8, at, 8);
    file.extend_from_slice(name);
    file
}

pub fn run() {
    row("the program as it is", &program());
    row("empty", &[]);
    for len in [1, 4, 16, 63, 64, 100, 119] {
        row(&format!("cut to {len} bytes"), &program()[..len]);
    }
    row("cut inside its code", &program()[..125]);
    row("another magic", &changed(&[(0, 0x7e, 1)]));
    row("32 bits", &changed(&[(4, 1, 1)]));
    row("big endian", &changed(&[(5, 2, 1)]));
    row("another machine", &changed(&[(18, 0xb7, 2)]));
    row("a relocatable file", &changed(&[(16, 1, 2)]));
    row("a core file", &changed(&[(16, 4, 2)]));
    row("a shared object at its address", &changed(&[(16, 3, 2)]));
    for address in [0x5555_5555_4000u64, 0x6000_0000_0000, 0x7000_0000_0000] {
        let moved = [
            (16, 3, 2),
            (24, address + 0x78, 8),
            (80, address, 8),
            (88, address, 8),
        ];
        row(
            &format!("a shared object linked at {address:#x}"),
            &changed(&moved),
        );
    }
    row("no program headers", &changed(&[(56, 0, 2)]));
    row("very many program headers", &changed(&[(56, 0xffff, 2)]));
    row("program headers of another size", &changed(&[(54, 32, 2)]));
    row("program headers behind the file", &changed(&[(32, 0x10_0000, 8)]));
    row(
        "program headers at the end of numbers",
        &changed(&[(32, u64::MAX - 10, 8)]),
    );
    row("no segment to load", &changed(&[(64, 4, 4)]));
    row("entry at 0", &changed(&[(24, 0, 8)]));
    row("entry outside", &changed(&[(24, 0x50_0000, 8)]));
    row("entry in the kernel", &changed(&[(24, 0xffff_ffff_8000_0000, 8)]));
    row(
        "entry that is not canonical",
        &changed(&[(24, 0x8000_0000_0000_0000, 8)]),
    );
    row("segment is not executable", &changed(&[(68, 4, 4)]));
    row("segment has no rights", &changed(&[(68, 0, 4)]));
    row("segment at 0", &changed(&[(80, 0, 8)]));
    row(
        "segment in the kernel",
        &changed(&[(80, 0xffff_8000_0000_0000, 8)]),
    );
    row(
        "segment across the end of user space",
        &changed(&[(80, 0x7fff_ffff_e000, 8), (104, 0x10_0000, 8)]),
    );
    row(
        "segment whose address wraps",
        &changed(&[(80, u64::MAX - 0xfff, 8)]),
    );
    row(
        "segment larger in the file than in memory",
        &changed(&[(104, 16, 8)]),
    );
    row("segment of 2^60 bytes in memory", &changed(&[(104, 1 << 60, 8)]));
    row(
        "segment of 2^63 bytes in the file",
        &changed(&[(96, 1 << 63, 8), (104, 1 << 63, 8)]),
    );
    row("segment behind the file", &changed(&[(72, 0x10_0000, 8)]));
    row("segment's offset and address disagree", &changed(&[(72, 1, 8)]));
    row(
        "segment's offset at the end of numbers",
        &changed(&[(72, u64::MAX - 0xfff, 8)]),
    );
    row("segment of no bytes in the file", &changed(&[(96, 0, 8)]));
    row("segment's alignment is odd", &changed(&[(112, 3, 8)]));
    row("segment's alignment is 2^63", &changed(&[(112, 1 << 63, 8)]));
    row("two segments", &with_segment(1, 0, 0x50_0000, 16, 0x3000));
    row(
        "two segments that overlap",
        &with_segment(1, 0, 0x40_0000, 16, 0x1000),
    );
    row(
        "two segments, the second below",
        &with_segment(1, 0, 0x30_0000, 16, 0x1000),
    );
    row(
        "a second segment over nearly everything",
        &with_segment(1, 0, 0x50_0000, 16, 0x7fff_0000_0000),
    );
    row(
        "a second segment of zeros alone",
        &with_segment(1, 0, 0x50_0000, 0, 0x3000),
    );
    row(
        "interpreter that is not there",
        &with_interpreter(b"/nowhere/ld.so\0"),
    );
    row("interpreter without an end", &with_interpreter(b"/nowhere/ld.so"));
    row("interpreter of one byte", &with_interpreter(b"\0"));
    row("interpreter is a directory", &with_interpreter(b"/tmp\0"));
    row("interpreter is no program", &with_interpreter(b"/dev/null\0"));
    row(
        "interpreter is itself",
        &with_interpreter(format!("{}\0", path()).as_bytes()),
    );
    row(
        "interpreter's name behind the file",
        &with_segment(3, 0x10_0000, 0, 20, 20),
    );
    row(
        "interpreter's name of 2^40 bytes",
        &with_segment(3, 0, 0, 1 << 40, 1 << 40),
    );
    row("the program again", &program());
    super::wild_pointers::sane();
    let _ = std::fs::remove_file(path());
}

fn path() -> String {
    format!(
        "{}/guest-tests-elf-{}",
        memory_directory(),
        call(libc::SYS_getpgid, &[0]).unwrap_or(0)
    )
}

/// Writes the file, executes it in a child, and says what came of it.
fn row(name: &str, file: &[u8]) {
    let path = path();
    let _ = std::fs::remove_file(&path);
    std::fs::write(&path, file).expect("a file can be written");
    sys::with_path(libc::SYS_chmod, &path, &[0o755]).expect("chmod works");
    let child = fork(|| exec(&path, &["broken"], &[]).map_or_else(|errno| errno.0 + 100, |_| 0));
    let end = child.wait();
    let refused = end
        .strip_prefix("exit ")
        .and_then(|number| number.parse::<i32>().ok())
        .filter(|number| *number >= 100);
    match refused {
        Some(number) => show(&format!("elf: {name}"), guest_tests::errno::Errno(number - 100)),
        None => show(&format!("elf: {name}"), end),
    }
}
