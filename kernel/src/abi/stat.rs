//! What the calls of the stat family fill in (`asm/stat.h`, `linux/stat.h`, `asm-generic/statfs.h`), and file modes.

/// Bits of a mode that say what a file is.
pub const S_IFMT: u32 = 0o170_000;
/// A socket.
pub const S_IFSOCK: u32 = 0o140_000;
/// A symbolic link.
pub const S_IFLNK: u32 = 0o120_000;
/// A regular file.
pub const S_IFREG: u32 = 0o100_000;
/// A block device.
pub const S_IFBLK: u32 = 0o060_000;
/// A directory.
pub const S_IFDIR: u32 = 0o040_000;
/// A character device.
pub const S_IFCHR: u32 = 0o020_000;
/// A named pipe.
pub const S_IFIFO: u32 = 0o010_000;

/// Bytes of `struct stat`.
pub const STAT_SIZE: usize = 144;
/// Bytes of `struct statx`.
pub const STATX_SIZE: usize = 256;
/// Bytes of `struct statfs`.
pub const STATFS_SIZE: usize = 120;

/// `STATX_BASIC_STATS`: every field that `struct stat` has too.
pub const STATX_BASIC_STATS: u32 = 0x7ff;
/// The bit that no mask of `statx` may have.
pub const STATX_RESERVED: u32 = 0x8000_0000;
/// `STATX_MNT_ID`.
pub const STATX_MNT_ID: u32 = 0x1000;

/// A time stamp: seconds and nanoseconds since 1970.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Timestamp {
    /// Seconds.
    pub seconds: i64,
    /// Nanoseconds, below a second.
    pub nanos: u32,
}

/// The number of a device: major and minor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DeviceNumber {
    /// The driver.
    pub major: u32,
    /// Which of its devices.
    pub minor: u32,
}

impl DeviceNumber {
    /// A number from its two parts.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// From one word, as `mknod` takes it.
    pub const fn from_word(word: u64) -> Self {
        Self {
            major: ((word >> 8) & 0xfff) as u32,
            minor: ((word & 0xff) | ((word >> 12) & 0xfff00)) as u32,
        }
    }

    /// In one word, as `st_dev` and `st_rdev` have it.
    pub const fn word(self) -> u64 {
        let (major, minor) = (self.major as u64, self.minor as u64);
        (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
    }
}

/// What is known about a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stat {
    /// The file system.
    pub dev: DeviceNumber,
    /// Number of the file there.
    pub ino: u64,
    /// Kind and permissions.
    pub mode: u32,
    /// Names that it has.
    pub nlink: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The device that it is.
    pub rdev: DeviceNumber,
    /// Bytes.
    pub size: u64,
    /// Bytes in which reads and writes are best made.
    pub block_size: u32,
    /// Units of 512 bytes that it takes.
    pub blocks: u64,
    /// Last read.
    pub accessed: Timestamp,
    /// Last change of the contents.
    pub modified: Timestamp,
    /// Last change of anything.
    pub changed: Timestamp,
    /// When it was made.
    pub born: Timestamp,
}

impl Stat {
    /// As `struct stat`.
    pub fn bytes(&self) -> [u8; STAT_SIZE] {
        let mut out = Fields::<STAT_SIZE>::new();
        out.u64(0, self.dev.word());
        out.u64(8, self.ino);
        out.u64(16, self.nlink);
        out.u32(24, self.mode);
        out.u32(28, self.uid);
        out.u32(32, self.gid);
        out.u64(40, self.rdev.word());
        out.u64(48, self.size);
        out.u64(56, u64::from(self.block_size));
        out.u64(64, self.blocks);
        for (at, time) in [(72, self.accessed), (88, self.modified), (104, self.changed)] {
            out.u64(at, time.seconds as u64);
            out.u64(at + 8, u64::from(time.nanos));
        }
        out.0
    }

    /// As `struct statx`, all of it whatever was asked for; `mount` is the number of the mount.
    pub fn statx_bytes(&self, mount: u64) -> [u8; STATX_SIZE] {
        let mut out = Fields::<STATX_SIZE>::new();
        out.u32(0, STATX_BASIC_STATS | STATX_MNT_ID);
        out.u32(4, self.block_size);
        out.u32(16, self.nlink as u32);
        out.u32(20, self.uid);
        out.u32(24, self.gid);
        out.u16(28, self.mode as u16);
        out.u64(32, self.ino);
        out.u64(40, self.size);
        out.u64(48, self.blocks);
        let times = [self.accessed, self.born, self.changed, self.modified];
        for (at, time) in (64..).step_by(16).zip(times) {
            out.u64(at, time.seconds as u64);
            out.u32(at + 8, time.nanos);
        }
        out.u32(128, self.rdev.major);
        out.u32(132, self.rdev.minor);
        out.u32(136, self.dev.major);
        out.u32(140, self.dev.minor);
        out.u64(144, mount);
        out.0
    }
}

/// What is known about a file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StatFs {
    /// Which kind.
    pub magic: u64,
    /// Bytes of a block.
    pub block_size: u64,
    /// Blocks.
    pub blocks: u64,
    /// Blocks that are free.
    pub free: u64,
    /// Files that there can be.
    pub files: u64,
    /// Of these, not there yet.
    pub free_files: u64,
    /// `ST_*` flags.
    pub flags: u64,
}

impl StatFs {
    /// As `struct statfs`.
    pub fn bytes(&self) -> [u8; STATFS_SIZE] {
        let mut out = Fields::<STATFS_SIZE>::new();
        out.u64(0, self.magic);
        out.u64(8, self.block_size);
        out.u64(16, self.blocks);
        out.u64(24, self.free);
        out.u64(32, self.free);
        out.u64(40, self.files);
        out.u64(48, self.free_files);
        out.u64(64, 255);
        out.u64(72, self.block_size);
        out.u64(80, self.flags);
        out.0
    }
}

/// Bytes with fields at known offsets.
struct Fields<const N: usize>([u8; N]);

impl<const N: usize> Fields<N> {
    fn new() -> Self {
        Self([0; N])
    }

    fn u16(&mut self, at: usize, value: u16) {
        self.0[at..at + 2].copy_from_slice(&value.to_ne_bytes());
    }

    fn u32(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }

    fn u64(&mut self, at: usize, value: u64) {
        self.0[at..at + 8].copy_from_slice(&value.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_packed_as_glibcs_makedev_does() {
        assert_eq!(DeviceNumber::new(1, 3).word(), 0x103);
        assert_eq!(DeviceNumber::new(0x12, 0x345).word(), 0x30_1245);
        for number in [DeviceNumber::new(5, 1), DeviceNumber::new(0xfff, 0xf_ffff)] {
            assert_eq!(DeviceNumber::from_word(number.word()), number);
        }
    }

    #[test]
    fn the_fields_of_stat_stand_where_programs_look_for_them() {
        let stat = Stat {
            ino: 0x1122,
            mode: S_IFREG | 0o644,
            nlink: 2,
            size: 0x3344,
            ..Stat::default()
        };
        let bytes = stat.bytes();
        assert_eq!(bytes[8..16], 0x1122_u64.to_ne_bytes());
        assert_eq!(bytes[16..24], 2_u64.to_ne_bytes());
        assert_eq!(bytes[24..28], 0o100_644_u32.to_ne_bytes());
        assert_eq!(bytes[48..56], 0x3344_u64.to_ne_bytes());
        let bytes = stat.statx_bytes(1);
        assert_eq!(bytes[28..30], 0o100_644_u16.to_ne_bytes());
        assert_eq!(bytes[32..40], 0x1122_u64.to_ne_bytes());
        assert_eq!(bytes[40..48], 0x3344_u64.to_ne_bytes());
    }
}
