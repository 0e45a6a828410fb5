//! Guests of a few instructions, as ELF files made here: what a user could bring.

use std::path::PathBuf;

use tempfile::TempDir;

/// Prints "hi" and exits with status 0, by AMD's hypercall.
pub const HELLO: &[u8] = &[
    0x66, 0xba, 0xe9, 0x00, // mov dx, 0xe9
    0xb0, b'h', 0xee, 0xb0, b'i', 0xee, // out
    0xb0, b'\n', 0xee, // out
    0xb8, 0x00, 0x00, 0x4c, 0x46, // mov eax, Exit
    0x31, 0xff, // xor edi, edi
    0x0f, 0x01, 0xd9, // vmmcall
];

/// Never ends.
pub const LOOP: &[u8] = &[0xeb, 0xfe];

/// Where an ELF's headers end.
const CODE: u64 = 64 + 56;
const BASE: u64 = 0x10_0000;

/// An ELF64 with one segment, headers and `code`, that begins at the code.
pub fn elf(code: &[u8]) -> Vec<u8> {
    let len = CODE + code.len() as u64;
    let mut file = Vec::from(*b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    let mut put = |bytes: &[u8]| file.extend(bytes);
    // ET_EXEC, EM_X86_64, version.
    put(&[2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [BASE + CODE, 64, 0] {
        put(&word.to_le_bytes());
    }
    // Flags; sizes and numbers of headers: one program header, no sections.
    put(&[0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    // PT_LOAD, read and execute.
    put(&[1, 0, 0, 0, 5, 0, 0, 0]);
    for word in [0, BASE, BASE, len, len, 0x1000] {
        put(&word.to_le_bytes());
    }
    put(code);
    file
}

/// A temporary file with these bytes.
pub fn file(bytes: &[u8]) -> (TempDir, String) {
    let dir = tempfile::tempdir().expect("the temporary folder is writable");
    let path: PathBuf = dir.path().join("guest");
    std::fs::write(&path, bytes).expect("the temporary folder is writable");
    let path = path.to_str().expect("temporary paths are UTF-8").to_owned();
    (dir, path)
}
