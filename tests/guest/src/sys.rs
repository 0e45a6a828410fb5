//! System calls as the kernel answers them: a value or an errno, nothing in between.
#![expect(unsafe_code, reason = "a system call is an instruction")]

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
