//! Sizes as people write them (`512M`, `2GiB`) and as they read them.

use std::fmt;
use std::str::FromStr;

use crate::status::usage;

/// Bytes in a page.
pub const PAGE: u64 = 4096;
/// Bytes in a mebibyte.
pub const MIB: u64 = 1 << 20;

/// Memory that a machine needs besides what it is to hold: firmware, kernel image, heap, stacks, tables.
const RESERVE: u64 = 32 * MIB;

/// Memory of a machine that can hold `content` bytes.
pub const fn needed_for(content: u64) -> u64 {
    // Page tables and per-frame records take about one part in 64.
    content.saturating_add(content / 64 + RESERVE)
}

/// Checks that a machine with `memory` bytes can hold `pages` pages: `what` says which.
///
/// # Errors
/// A usage error with both figures and the memory that would do.
pub fn check_fits(what: &str, pages: u64, memory: u64) -> anyhow::Result<()> {
    let bytes = pages.saturating_mul(PAGE);
    let needed = needed_for(bytes);
    if needed <= memory {
        return Ok(());
    }
    Err(usage(format!(
        "{what} take {} and the machine has only {} of memory; give it more with --mem {}",
        human(bytes),
        human(memory),
        needed.div_ceil(MIB)
    )))
}

/// A size in bytes, parsed from a number with an optional binary suffix; without one the number counts MiB.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct MemSize(pub u64);

/// Why a text is no size.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SizeError {
    /// No number in front.
    NoNumber,
    /// A suffix that is none of K, M, G, T (with or without `iB`).
    UnknownSuffix(String),
    /// More bytes than 64 bits count.
    TooLarge,
    /// Nothing at all.
    Zero,
    /// Less than [`MemSize::LEAST`].
    TooSmall(MemSize),
}

impl fmt::Display for SizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoNumber => write!(
                f,
                "a size is a number with an optional suffix, as in 512, 512M or 2G"
            ),
            Self::UnknownSuffix(suffix) => {
                write!(
                    f,
                    "unknown size suffix {suffix:?}; known are K, M, G and T (none means MiB)"
                )
            }
            Self::TooLarge => write!(f, "the size does not fit into 64 bits"),
            Self::Zero => write!(f, "the size must not be zero"),
            Self::TooSmall(size) => write!(
                f,
                "{size} is too little for any application; the least is {}",
                MemSize::LEAST
            ),
        }
    }
}

impl std::error::Error for SizeError {}

impl MemSize {
    /// What the kernel, its tables and an application without a snapshot need, with room to spare.
    pub const LEAST: Self = Self(16 * MIB);

    /// The memory of a machine: a size that something can be run in.
    pub fn of_machine(text: &str) -> Result<Self, SizeError> {
        let size: Self = text.parse()?;
        if size.0 < Self::LEAST.0 {
            return Err(SizeError::TooSmall(size));
        }
        Ok(size)
    }
}

impl FromStr for MemSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let text = text.trim();
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, suffix) = text.split_at(split);
        let shift = match suffix.trim().to_ascii_lowercase().as_str() {
            "k" | "kb" | "kib" => 10,
            "" | "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ if number.is_empty() => return Err(SizeError::NoNumber),
            _ => return Err(SizeError::UnknownSuffix(suffix.trim().to_owned())),
        };
        if number.is_empty() {
            return Err(SizeError::NoNumber);
        }
        let number: u64 = number.parse().map_err(|_| SizeError::TooLarge)?;
        let bytes = number.checked_mul(1 << shift).ok_or(SizeError::TooLarge)?;
        if bytes == 0 {
            Err(SizeError::Zero)
        } else {
            Ok(Self(bytes))
        }
    }
}

impl fmt::Display for MemSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&human(self.0))
    }
}

/// Bytes as a person reads them: exact below 1 KiB or when a whole number of units, else one decimal.
pub fn human(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [
        ("TiB", 1 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ];
    for (unit, size) in UNITS {
        if bytes >= size {
            return if bytes.is_multiple_of(size) {
                format!("{} {unit}", bytes / size)
            } else {
                let tenths = (u128::from(bytes) * 10 + u128::from(size) / 2) / u128::from(size);
                format!("{}.{} {unit}", tenths / 10, tenths % 10)
            };
        }
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_number_counts_mebibytes() {
        assert_eq!("512".parse(), Ok(MemSize(512 * MIB)));
    }

    #[test]
    fn suffixes_are_binary_and_their_case_does_not_matter() {
        for (text, bytes) in [
            ("64k", 64 << 10),
            ("64M", 64 * MIB),
            ("2GiB", 2 << 30),
            (" 1 tb ", 1 << 40),
        ] {
            assert_eq!(text.parse(), Ok(MemSize(bytes)), "{text}");
        }
    }

    #[test]
    fn a_machine_too_small_for_the_kernel_is_refused_with_the_least_that_is_not() {
        assert_eq!(MemSize::of_machine("16"), Ok(MemSize::LEAST));
        let error = MemSize::of_machine("4").expect_err("4 MiB are too little");
        assert_eq!(error, SizeError::TooSmall(MemSize(4 * MIB)));
        let text = error.to_string();
        assert!(text.contains("4 MiB") && text.contains("16 MiB"), "{text}");
    }

    #[test]
    fn nonsense_is_refused_by_kind() {
        assert_eq!("".parse::<MemSize>(), Err(SizeError::NoNumber));
        assert_eq!("M".parse::<MemSize>(), Err(SizeError::NoNumber));
        assert_eq!("-5".parse::<MemSize>(), Err(SizeError::NoNumber));
        assert_eq!("0".parse::<MemSize>(), Err(SizeError::Zero));
        assert_eq!("5X".parse::<MemSize>(), Err(SizeError::UnknownSuffix("X".into())));
        assert_eq!(
            "1.5G".parse::<MemSize>(),
            Err(SizeError::UnknownSuffix(".5G".into()))
        );
        assert_eq!(
            "99999999999999999999".parse::<MemSize>(),
            Err(SizeError::TooLarge)
        );
        assert_eq!(
            "18446744073709551615T".parse::<MemSize>(),
            Err(SizeError::TooLarge)
        );
    }

    #[test]
    fn what_does_not_fit_is_refused_with_both_figures_and_what_would_do() {
        assert!(check_fits("they", 1000, 64 * MIB).is_ok());
        let error = check_fits("they", 16384, 64 * MIB).expect_err("nothing is left beside them");
        assert_eq!(
            error.to_string(),
            "they take 64 MiB and the machine has only 64 MiB of memory; give it more with --mem 97"
        );
        assert!(check_fits("they", 16384, 97 * MIB).is_ok());
        assert!(check_fits("they", u64::MAX, u64::MAX - 1).is_err());
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(human(0), "0 bytes");
        assert_eq!(human(1023), "1023 bytes");
        assert_eq!(human(4096), "4 KiB");
        assert_eq!(human(1_500_000), "1.4 MiB");
        assert_eq!(human(64 * MIB), "64 MiB");
        assert_eq!(human(u64::MAX), "16777216.0 TiB");
    }
}
