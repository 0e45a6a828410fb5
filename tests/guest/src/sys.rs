//! System calls as the kernel answers them: a value or an errno, nothing in between.
#![expect(unsafe_code, reason = "a system call is an instruction")]

use std::ffi::CString;

use crate::errno::Errno;

/// What a system call answers.
pub type Answer<T = usize> = Result<T, Errno>;

/// The system call `number` with `args`; the ones that are missing are zero.
///
/// Any call with any argument may be made: bad pointers are what many programs are about. A program passes only memory
/// of its own that it means to be changed.
pub fn call(number: i64, args: &[usize]) -> Answer {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    let answer: isize;
    // SAFETY: the kernel clobbers rcx and r11 alone; memory that it writes to is named by the arguments, and which
    // memory that is, is the caller's subject (see above).
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => answer,
            in("rdi") all[0], in("rsi") all[1], in("rdx") all[2],
            in("r10") all[3], in("r8") all[4], in("r9") all[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    if (-4095..0).contains(&answer) {
        Err(Errno(-answer as i32))
    } else {
        Ok(answer as usize)
    }
}

/// Writes all of `bytes` to the descriptor, or as much as goes.
pub fn write_all(fd: i32, mut bytes: &[u8]) -> Answer<()> {
    while !bytes.is_empty() {
        let done = call(
            libc::SYS_write,
            &[fd as usize, bytes.as_ptr() as usize, bytes.len()],
        )?;
        bytes = &bytes[done..];
    }
    Ok(())
}

/// A call whose first argument is a path.
pub fn with_path(number: i64, path: &str, rest: &[usize]) -> Answer {
    let path = CString::new(path).expect("a path has no NUL");
    let mut all = [0; 6];
    all[0] = path.as_ptr() as usize;
    all[1..=rest.len()].copy_from_slice(rest);
    call(number, &all)
}

/// A call with two paths.
pub fn with_paths(number: i64, first: &str, second: &str) -> Answer {
    let second = CString::new(second).expect("a path has no NUL");
    with_path(number, first, &[second.as_ptr() as usize])
}

/// open(2).
pub fn open(path: &str, flags: i32) -> Answer<i32> {
    with_path(libc::SYS_open, path, &[flags as usize, 0o600]).map(|fd| fd as i32)
}

/// close(2).
pub fn close(fd: i32) -> Answer {
    call(libc::SYS_close, &[fd as usize])
}

/// read(2).
pub fn read(fd: i32, buffer: &mut [u8]) -> Answer {
    call(
        libc::SYS_read,
        &[fd as usize, buffer.as_mut_ptr() as usize, buffer.len()],
    )
}

/// write(2).
pub fn write(fd: i32, bytes: &[u8]) -> Answer {
    call(
        libc::SYS_write,
        &[fd as usize, bytes.as_ptr() as usize, bytes.len()],
    )
}

/// fcntl(2).
pub fn fcntl(fd: i32, command: i32, argument: usize) -> Answer {
    call(libc::SYS_fcntl, &[fd as usize, command as usize, argument])
}

/// pipe2(2): the end to read from, and the end to write to.
pub fn pipe2(flags: i32) -> Answer<(i32, i32)> {
    let mut ends = [0i32; 2];
    call(libc::SYS_pipe2, &[ends.as_mut_ptr() as usize, flags as usize])?;
    Ok((ends[0], ends[1]))
}

/// poll(2) of one descriptor: `revents`, zero when the time is over.
pub fn poll(fd: i32, events: i16, milliseconds: i32) -> Answer<i16> {
    let mut one = libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    call(libc::SYS_poll, &[&raw mut one as usize, 1, milliseconds as usize])?;
    Ok(one.revents)
}
