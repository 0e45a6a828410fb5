//! Locks on files (`asm-generic/fcntl.h`).

/// `F_RDLCK`: others may read.
pub const F_RDLCK: u16 = 0;
/// `F_WRLCK`: others may do nothing.
pub const F_WRLCK: u16 = 1;
/// `F_UNLCK`: no lock.
pub const F_UNLCK: u16 = 2;

/// `struct flock`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flock {
    /// `F_RDLCK`, `F_WRLCK` or `F_UNLCK`.
    pub kind: u16,
    /// From where `start` counts: `SEEK_SET`, `SEEK_CUR`, `SEEK_END`.
    pub whence: u16,
    /// The first byte.
    pub start: i64,
    /// How many bytes; 0: all from there on; negative: those before it.
    pub len: i64,
    /// The process that has the lock.
    pub pid: i32,
}

impl Flock {
    /// Bytes that it takes.
    pub const SIZE: usize = 32;

    /// From a program's memory.
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            i64::from_le_bytes(word)
        };
        Self {
            kind: half(0),
            whence: half(2),
            start: word(8),
            len: word(16),
            pid: word(24) as i32,
        }
    }

    /// To a program's memory; what lies between the fields stays.
    pub fn store(&self, bytes: &mut [u8; Self::SIZE]) {
        bytes[0..2].copy_from_slice(&self.kind.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.whence.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.start.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.len.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.pid.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_linux_has_them_and_the_rest_stays() {
        let lock = Flock {
            kind: F_WRLCK,
            whence: 2,
            start: -3,
            len: 1 << 40,
            pid: -1,
        };
        let mut bytes = [0xaa; Flock::SIZE];
        lock.store(&mut bytes);
        assert_eq!(Flock::from_bytes(&bytes), lock);
        assert_eq!(bytes[..8], [1, 0, 2, 0, 0xaa, 0xaa, 0xaa, 0xaa]);
        assert_eq!(bytes[8..10], [0xfd, 0xff]);
        assert_eq!(bytes[24..], [0xff, 0xff, 0xff, 0xff, 0xaa, 0xaa, 0xaa, 0xaa]);
    }
}
