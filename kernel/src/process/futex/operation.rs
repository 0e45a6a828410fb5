//! `FUTEX_WAKE_OP`: how the word changes, and what it has to have been.

use crate::abi::errno::Errno;

/// The operation, decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WakeOp {
    change: Change,
    argument: u32,
    condition: Condition,
    compared: i32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Change {
    Set,
    Add,
    Or,
    AndNot,
    Xor,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Condition {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl WakeOp {
    /// From the call's last argument: operation (the top bit: its argument is a shift), condition, and twelve signed bits for
    /// each.
    ///
    /// # Errors
    /// ENOSYS.
    pub fn decode(word: u32) -> Result<Self, Errno> {
        let signed = |bits: u32| ((bits << 20) as i32) >> 20;
        let argument = signed(word >> 12);
        let argument = match word >> 31 {
            0 => argument as u32,
            _ => 1 << (argument & 31),
        };
        let change = match word >> 28 & 7 {
            0 => Change::Set,
            1 => Change::Add,
            2 => Change::Or,
            3 => Change::AndNot,
            4 => Change::Xor,
            _ => return Err(Errno::ENOSYS),
        };
        let condition = match word >> 24 & 15 {
            0 => Condition::Equal,
            1 => Condition::NotEqual,
            2 => Condition::Less,
            3 => Condition::LessOrEqual,
            4 => Condition::Greater,
            5 => Condition::GreaterOrEqual,
            _ => return Err(Errno::ENOSYS),
        };
        Ok(Self {
            change,
            argument,
            condition,
            compared: signed(word),
        })
    }

    /// What the word becomes.
    pub(super) fn apply(self, word: u32) -> u32 {
        match self.change {
            Change::Set => self.argument,
            Change::Add => word.wrapping_add(self.argument),
            Change::Or => word | self.argument,
            Change::AndNot => word & !self.argument,
            Change::Xor => word ^ self.argument,
        }
    }

    /// Whether the word was as it had to be.
    pub(super) fn holds(self, before: u32) -> bool {
        let before = before as i32;
        match self.condition {
            Condition::Equal => before == self.compared,
            Condition::NotEqual => before != self.compared,
            Condition::Less => before < self.compared,
            Condition::LessOrEqual => before <= self.compared,
            Condition::Greater => before > self.compared,
            Condition::GreaterOrEqual => before >= self.compared,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// `FUTEX_OP` of `linux/futex.h`.
    fn op(op: u32, argument: u32, condition: u32, compared: u32) -> WakeOp {
        let word = op << 28 | condition << 24 | (argument & 0xfff) << 12 | compared & 0xfff;
        WakeOp::decode(word).expect("known")
    }

    #[test]
    fn the_word_is_changed_and_compared_as_it_was() {
        assert_eq!(op(0, 5, 0, 0).apply(9), 5);
        assert_eq!(op(1, 0xfff, 0, 0).apply(9), 8, "minus one");
        assert_eq!(op(2, 6, 0, 0).apply(9), 15);
        assert_eq!(op(3, 8, 0, 0).apply(9), 1);
        assert_eq!(op(4, 1, 0, 0).apply(9), 8);
        assert_eq!(op(8 | 2, 4, 0, 0).apply(0), 16, "an argument that is a shift");
        let greater_than_minus_one = op(0, 0, 4, 0xfff);
        assert!(greater_than_minus_one.holds(0));
        assert!(!greater_than_minus_one.holds(u32::MAX));
        assert!(op(0, 0, 1, 3).holds(4) && !op(0, 0, 1, 3).holds(3));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        assert_eq!(WakeOp::decode(5 << 28), Err(Errno::ENOSYS));
        assert_eq!(WakeOp::decode(6 << 24), Err(Errno::ENOSYS));
    }
}
