//! Flags of open files, as Linux numbers them on x86-64 (`asm-generic/fcntl.h`).

use bitflags::bitflags;

bitflags! {
    /// The flags of `open(2)`; those that last are the status of an open file.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct OpenFlags: u32 {
        /// Writing only.
        const WRONLY = 0o1;
        /// Reading and writing.
        const RDWR = 0o2;
        /// Make the file if it is not there.
        const CREAT = 0o100;
        /// Fail if it is there.
        const EXCL = 0o200;
        /// Do not make it the controlling terminal.
        const NOCTTY = 0o400;
        /// Empty it.
        const TRUNC = 0o1000;
        /// Write at the end.
        const APPEND = 0o2000;
        /// Fail rather than wait.
        const NONBLOCK = 0o4000;
        /// Writes are on the disk when they return.
        const DSYNC = 0o1_0000;
        /// Signals say when input or output is possible.
        const ASYNC = 0o2_0000;
        /// Past the page cache.
        const DIRECT = 0o4_0000;
        /// Sizes above 2 GiB; set by every open of a 64-bit program.
        const LARGEFILE = 0o10_0000;
        /// Fail if it is not a directory.
        const DIRECTORY = 0o20_0000;
        /// Fail if it is a symbolic link.
        const NOFOLLOW = 0o40_0000;
        /// Leave the time of access alone.
        const NOATIME = 0o100_0000;
        /// Close it at exec.
        const CLOEXEC = 0o200_0000;
        /// What `O_SYNC` has beyond [`Self::DSYNC`].
        const SYNC_BIT = 0o400_0000;
        /// Names the file only.
        const PATH = 0o1000_0000;
        /// A file without a name (together with [`Self::DIRECTORY`]).
        const TMPFILE_BIT = 0o2000_0000;
    }
}

impl OpenFlags {
    /// The bits that say how the file may be used.
    pub const ACCESS: Self = Self::WRONLY.union(Self::RDWR);
    /// What `F_SETFL` changes.
    pub const CHANGEABLE: Self = Self::APPEND
        .union(Self::NONBLOCK)
        .union(Self::ASYNC)
        .union(Self::DIRECT)
        .union(Self::NOATIME);
    /// What is forgotten once the file is open.
    pub const ONCE: Self = Self::CREAT
        .union(Self::EXCL)
        .union(Self::NOCTTY)
        .union(Self::TRUNC)
        .union(Self::CLOEXEC);

    /// Whether the file may be read through a descriptor with these flags.
    pub const fn reads(self) -> bool {
        let access = self.bits() & Self::ACCESS.bits();
        !self.contains(Self::PATH) && (access == 0 || access == Self::RDWR.bits())
    }

    /// Whether the file may be written through a descriptor with these flags.
    pub const fn writes(self) -> bool {
        let access = self.bits() & Self::ACCESS.bits();
        !self.contains(Self::PATH) && (access == Self::WRONLY.bits() || access == Self::RDWR.bits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_is_one_of_four_and_a_path_has_none() {
        let of = |bits| {
            let flags = OpenFlags::from_bits_retain(bits);
            (flags.reads(), flags.writes())
        };
        assert_eq!(of(0), (true, false));
        assert_eq!(of(1), (false, true));
        assert_eq!(of(2), (true, true));
        assert_eq!(of(3), (false, false));
        assert_eq!(of(OpenFlags::PATH.bits() | 2), (false, false));
    }
}
