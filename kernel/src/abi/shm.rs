//! System V shared memory (`linux/ipc.h`, `linux/shm.h`).

/// A key that nobody else finds.
pub const IPC_PRIVATE: i32 = 0;
/// Make it if it is not there.
pub const IPC_CREAT: u64 = 0o1000;
/// Fail if it is.
pub const IPC_EXCL: u64 = 0o2000;
/// In huge pages.
pub const SHM_HUGETLB: u64 = 0o4000;

/// Attach for reading only.
pub const SHM_RDONLY: u64 = 0o10000;
/// Round the address down.
pub const SHM_RND: u64 = 0o20000;
/// In place of what is mapped there.
pub const SHM_REMAP: u64 = 0o40000;
/// Attach for execution too.
pub const SHM_EXEC: u64 = 0o100000;
/// Of the mode that is shown: removed, once nobody has it attached.
pub const SHM_DEST: u32 = 0o1000;

/// Commands of `shmctl`.
#[expect(missing_docs, reason = "named after Linux's")]
pub mod command {
    pub const IPC_RMID: u32 = 0;
    pub const IPC_SET: u32 = 1;
    pub const IPC_STAT: u32 = 2;
    pub const SHM_LOCK: u32 = 11;
    pub const SHM_UNLOCK: u32 = 12;
}

/// What is known of a segment (`struct shmid64_ds`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "named after Linux's")]
pub struct SegmentStat {
    pub key: i32,
    pub uid: u32,
    pub gid: u32,
    pub creator_uid: u32,
    pub creator_gid: u32,
    pub mode: u32,
    pub sequence: u32,
    pub pad: u32,
    pub unused: [u64; 2],
    pub size: u64,
    pub attach_time: i64,
    pub detach_time: i64,
    pub change_time: i64,
    pub creator: u32,
    pub last: u32,
    pub attached: u64,
    pub unused_more: [u64; 2],
}

const _: () = assert!(size_of::<SegmentStat>() == 112);

impl SegmentStat {
    /// As it lies in memory.
    pub fn to_bytes(&self) -> [u8; 112] {
        let mut bytes = [0; 112];
        let mut put = |at: usize, word: &[u8]| bytes[at..at + word.len()].copy_from_slice(word);
        put(0, &self.key.to_le_bytes());
        let words = [
            self.uid,
            self.gid,
            self.creator_uid,
            self.creator_gid,
            self.mode,
            self.sequence,
        ];
        for (i, word) in words.iter().enumerate() {
            put(4 + 4 * i, &word.to_le_bytes());
        }
        put(48, &self.size.to_le_bytes());
        put(56, &self.attach_time.to_le_bytes());
        put(64, &self.detach_time.to_le_bytes());
        put(72, &self.change_time.to_le_bytes());
        put(80, &self.creator.to_le_bytes());
        put(84, &self.last.to_le_bytes());
        put(88, &self.attached.to_le_bytes());
        bytes
    }
}
