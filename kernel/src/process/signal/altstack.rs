//! The alternate stack of a thread (`sigaltstack`).

use crate::abi::errno::Errno;
use crate::abi::signal::{MINSIGSTKSZ, SS_AUTODISARM, SS_DISABLE, SS_ONSTACK, STACK_SIZE};

/// `stack_t`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AltStack {
    /// Its lowest address.
    pub base: u64,
    /// `SS_*`.
    pub flags: u32,
    /// Bytes.
    pub size: u64,
}

impl Default for AltStack {
    fn default() -> Self {
        Self {
            base: 0,
            flags: SS_DISABLE,
            size: 0,
        }
    }
}

impl AltStack {
    /// From memory.
    pub fn from_bytes(bytes: &[u8; STACK_SIZE]) -> Self {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        Self {
            base: word(0),
            flags: word(8) as u32,
            size: word(16),
        }
    }

    /// As it lies in memory.
    pub fn to_bytes(self) -> [u8; STACK_SIZE] {
        let mut bytes = [0; STACK_SIZE];
        bytes[..8].copy_from_slice(&self.base.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.flags.to_le_bytes());
        bytes[16..].copy_from_slice(&self.size.to_le_bytes());
        bytes
    }

    /// Whether a thread whose stack pointer is `pointer` runs on it. One that is given up while a handler runs on it is on
    /// nobody's.
    pub fn is_under(&self, pointer: u64) -> bool {
        self.flags & SS_AUTODISARM == 0 && self.holds(pointer)
    }

    /// Whether `pointer` points into it, or at its end.
    pub fn holds(&self, pointer: u64) -> bool {
        pointer > self.base && pointer.wrapping_sub(self.base) <= self.size
    }

    /// What is told about it to a thread whose stack pointer is `pointer`.
    #[must_use]
    pub fn seen_from(&self, pointer: u64) -> Self {
        let state = if self.size == 0 {
            SS_DISABLE
        } else if self.is_under(pointer) {
            SS_ONSTACK
        } else {
            0
        };
        Self {
            flags: state | self.flags & SS_AUTODISARM,
            ..*self
        }
    }

    /// The stack that is to take its place, for a thread whose stack pointer is `pointer`.
    ///
    /// # Errors
    /// EPERM: the thread runs on the present one. EINVAL: unknown flags. ENOMEM: too small.
    pub fn replaced_by(&self, new: Self, pointer: u64) -> Result<Self, Errno> {
        if self.is_under(pointer) {
            return Err(Errno::EPERM);
        }
        match new.flags & !SS_AUTODISARM {
            SS_DISABLE => Ok(Self {
                flags: new.flags,
                ..Self::default()
            }),
            0 | SS_ONSTACK if new.size < MINSIGSTKSZ => Err(Errno::ENOMEM),
            0 | SS_ONSTACK => Ok(new),
            _ => Err(Errno::EINVAL),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const STACK: AltStack = AltStack {
        base: 0x1000,
        flags: 0,
        size: 0x2000,
    };

    #[test]
    fn a_stack_is_seen_as_used_from_itself_alone() {
        assert_eq!(STACK.seen_from(0x1000).flags, 0);
        assert_eq!(STACK.seen_from(0x1001).flags, SS_ONSTACK);
        assert_eq!(STACK.seen_from(0x3000).flags, SS_ONSTACK);
        assert_eq!(STACK.seen_from(0x3001).flags, 0);
        assert_eq!(AltStack::default().seen_from(0x1001).flags, SS_DISABLE);
    }

    #[test]
    fn it_is_not_replaced_while_it_is_used() {
        assert_eq!(STACK.replaced_by(AltStack::default(), 0x2000), Err(Errno::EPERM));
        assert_eq!(
            STACK.replaced_by(AltStack::default(), 0x8000),
            Ok(AltStack::default())
        );
        let small = AltStack { size: 2047, ..STACK };
        assert_eq!(STACK.replaced_by(small, 0x8000), Err(Errno::ENOMEM));
        let odd = AltStack { flags: 8, ..STACK };
        assert_eq!(STACK.replaced_by(odd, 0x8000), Err(Errno::EINVAL));
    }

    #[test]
    fn it_comes_back_from_memory_as_it_was() {
        assert_eq!(AltStack::from_bytes(&STACK.to_bytes()), STACK);
    }
}
