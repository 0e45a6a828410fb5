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
    ENXIO = 6, "No such device or address.";
    E2BIG = 7, "The argument list is too long.";
    ENOEXEC = 8, "Not a program.";
    EBADF = 9, "Not an open descriptor.";
    ECHILD = 10, "No child processes.";
    EAGAIN = 11, "Try again.";
    ENOMEM = 12, "Out of memory.";
    EACCES = 13, "Permission denied.";
    EFAULT = 14, "Bad address.";
    ENOTBLK = 15, "Not a block device.";
    EBUSY = 16, "In use by somebody else.";
    EEXIST = 17, "There already.";
    EXDEV = 18, "On another file system.";
    ENODEV = 19, "No such device.";
    ENOTDIR = 20, "Not a directory.";
    EISDIR = 21, "A directory.";
    EINVAL = 22, "Invalid argument.";
    ENFILE = 23, "Too many open files in the system.";
    EMFILE = 24, "Too many open descriptors.";
    ENOTTY = 25, "Not a command of this device.";
    ETXTBSY = 26, "A program that runs.";
    EFBIG = 27, "The file is too large.";
    ENOSPC = 28, "No space left.";
    ESPIPE = 29, "Cannot seek.";
    EROFS = 30, "A read-only file system.";
    EMLINK = 31, "Too many links.";
    EPIPE = 32, "Nobody reads.";
    EDOM = 33, "Outside the function's domain.";
    ERANGE = 34, "The result does not fit.";
    EDEADLK = 35, "It would wait for itself.";
    ENAMETOOLONG = 36, "The name is too long.";
    ENOLCK = 37, "No more locks.";
    ENOSYS = 38, "No such system call.";
    ENOTEMPTY = 39, "The directory is not empty.";
    ELOOP = 40, "Too many symbolic links.";
    ENOMSG = 42, "No such message.";
    ENODATA = 61, "No data.";
    ETIME = 62, "The timer expired.";
    EOVERFLOW = 75, "The value does not fit.";
    EBADFD = 77, "The descriptor is in a bad state.";
    ELIBBAD = 80, "A library or an interpreter that is broken.";
    EILSEQ = 84, "Not a character.";
    ENOTSOCK = 88, "Not a socket.";
    EDESTADDRREQ = 89, "Where to is not known.";
    EMSGSIZE = 90, "The message is too long.";
    EPROTOTYPE = 91, "The wrong type of protocol.";
    ENOPROTOOPT = 92, "No such option of the protocol.";
    EPROTONOSUPPORT = 93, "No such protocol.";
    ESOCKTNOSUPPORT = 94, "No such type of socket.";
    EOPNOTSUPP = 95, "Not supported.";
    EAFNOSUPPORT = 97, "No such family of addresses.";
    EADDRINUSE = 98, "The address is taken.";
    EADDRNOTAVAIL = 99, "The address cannot be had.";
    ECONNRESET = 104, "The peer has reset the connection.";
    ENOBUFS = 105, "No room for it.";
    EISCONN = 106, "Connected already.";
    ENOTCONN = 107, "Not connected.";
    ETOOMANYREFS = 109, "Open files in messages that are in each other.";
    ETIMEDOUT = 110, "The time is up.";
    ECONNREFUSED = 111, "Nobody listens.";
    EALREADY = 114, "Under way already.";
    EINPROGRESS = 115, "Under way now.";
    ESTALE = 116, "The handle is stale.";
    ECANCELED = 125, "Cancelled.";
    EOWNERDEAD = 130, "The owner died.";
    EHWPOISON = 133, "The page is poisoned.";
}
