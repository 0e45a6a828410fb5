//! Error codes of x86-64 exceptions, in words. Compiled for the host too, where the tests are.

use core::fmt;

use bitflags::bitflags;

use crate::mm::fault::Access;

bitflags! {
    /// Error code of a page fault (SDM vol. 3A 5.7).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct PageFaultCode: u64 {
        /// The page was present: a right was missing. Clear: nothing was mapped.
        const PRESENT = 1 << 0;
        /// A write.
        const WRITE = 1 << 1;
        /// By user mode.
        const USER = 1 << 2;
        /// A reserved bit was set in a table.
        const RESERVED = 1 << 3;
        /// An instruction fetch.
        const FETCH = 1 << 4;
        /// Against a protection key.
        const PROTECTION_KEY = 1 << 5;
        /// Of a shadow stack.
        const SHADOW_STACK = 1 << 6;
        /// Against the RMP (SEV-SNP).
        const RMP = 1 << 31;
    }
}

impl PageFaultCode {
    /// What the access wanted.
    #[inline]
    pub fn access(self) -> Access {
        if self.contains(Self::WRITE) {
            Access::Write
        } else if self.contains(Self::FETCH) {
            Access::Execute
        } else {
            Access::Read
        }
    }
}

impl fmt::Display for PageFaultCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.contains(Self::USER) {
            "user"
        } else {
            "kernel"
        })?;
        f.write_str(match self.access() {
            Access::Write => " write",
            Access::Execute => " fetch",
            Access::Read => " read",
        })?;
        f.write_str(if self.contains(Self::PRESENT) {
            ", not permitted"
        } else {
            ", not mapped"
        })?;
        let rare = [
            (Self::RESERVED, ", reserved bit set in a table"),
            (Self::PROTECTION_KEY, ", protection key"),
            (Self::SHADOW_STACK, ", shadow stack"),
            (Self::RMP, ", RMP"),
        ];
        rare.iter()
            .filter(|(bit, _)| self.contains(*bit))
            .try_for_each(|(_, text)| f.write_str(text))
    }
}

/// Error code of the exceptions that name a segment: #TS, #NP, #SS, #GP (SDM vol. 3A 7.13).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SelectorCode(pub u64);

impl fmt::Display for SelectorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("no selector");
        }
        let table = match (self.0 >> 1) & 3 {
            0 => "GDT",
            2 => "LDT",
            _ => "IDT",
        };
        let outside = if self.0 & 1 != 0 {
            ", while delivering an event"
        } else {
            ""
        };
        write!(f, "{table} entry {}{outside}", (self.0 >> 3) & 0x1fff)
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    fn page_fault(bits: u64) -> (Access, std::string::String) {
        let code = PageFaultCode::from_bits_retain(bits);
        (code.access(), code.to_string())
    }

    #[test]
    fn page_fault_code_tells_access_mode_and_reason() {
        assert_eq!(
            page_fault(0b00000),
            (Access::Read, "kernel read, not mapped".to_string())
        );
        assert_eq!(
            page_fault(0b00110),
            (Access::Write, "user write, not mapped".to_string())
        );
        assert_eq!(
            page_fault(0b00011),
            (Access::Write, "kernel write, not permitted".to_string())
        );
        assert_eq!(
            page_fault(0b10101),
            (Access::Execute, "user fetch, not permitted".to_string())
        );
    }

    #[test]
    fn rare_page_fault_bits_are_named_and_unknown_ones_do_no_harm() {
        assert_eq!(
            page_fault(0b01001).1,
            "kernel read, not permitted, reserved bit set in a table"
        );
        assert_eq!(
            page_fault(0b1100101).1,
            "user read, not permitted, protection key, shadow stack"
        );
        assert_eq!(
            page_fault(1 << 40),
            (Access::Read, "kernel read, not mapped".to_string())
        );
    }

    #[test]
    fn selector_code_names_table_and_entry() {
        assert_eq!(SelectorCode(0).to_string(), "no selector");
        assert_eq!(SelectorCode(0x58).to_string(), "GDT entry 11");
        assert_eq!(SelectorCode(0x14).to_string(), "LDT entry 2");
        assert_eq!(
            SelectorCode(0x203).to_string(),
            "IDT entry 64, while delivering an event"
        );
    }
}
