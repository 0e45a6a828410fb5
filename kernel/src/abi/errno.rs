//! Error numbers of the system-call interface (`asm-generic/errno-base.h`, `asm-generic/errno.h`).

/// An error number, positive.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Errno(u16);

impl Errno {
    /// The number.
    pub const fn number(self) -> i64 {
        self.0 as i64
    }
}

macro_rules! errnos {
    ($($name:ident = $number:literal, $doc:literal;)*) => {
        impl Errno {
            $(#[doc = $doc] pub const $name: Errno = Errno($number);)*
        }
    };
}

errnos! {
    EPERM = 1, "Not permitted.";
    ENOENT = 2, "No such thing.";
    ESRCH = 3, "No such process.";
    EINTR = 4, "Interrupted.";
    EIO = 5, "Input or output failed.";
    EBADF = 9, "Not an open descriptor.";
    EAGAIN = 11, "Try again.";
    ENOMEM = 12, "Out of memory.";
    EFAULT = 14, "Bad address.";
    EBUSY = 16, "In use by somebody else.";
    EEXIST = 17, "There already.";
    EINVAL = 22, "Invalid argument.";
    EMFILE = 24, "Too many open descriptors.";
    EHWPOISON = 133, "The page is poisoned.";
}
