//! What a block device is to the rest of the kernel.

use core::fmt;

/// Bytes of a sector, the unit that devices count in.
pub const SECTOR: usize = 512;

/// Why sectors could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockError {
    /// The device reported an error for this sector.
    Io {
        /// The first sector that cannot be read.
        sector: u64,
    },
    /// The device did not answer in time. It is not used again: it may still write into the buffer it was given.
    TimedOut {
        /// First sector of the request.
        sector: u64,
        /// How long it was waited for.
        millis: u64,
    },
    /// The device was given up after an earlier time-out.
    Dead,
    /// The request reaches past the end of the device.
    BeyondEnd {
        /// First sector of the request.
        sector: u64,
        /// Sectors asked for.
        count: u64,
        /// Sectors there are.
        capacity: u64,
    },
    /// The buffer is not a whole number of sectors.
    PartialSector {
        /// Its length in bytes.
        bytes: usize,
    },
    /// The driver found no memory for the request, or the device did not accept it.
    Refused {
        /// First sector of the request.
        sector: u64,
        /// What the driver said.
        reason: &'static str,
    },
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Io { sector } => write!(f, "the disk reported an I/O error on sector {sector}"),
            Self::TimedOut { sector, millis } => {
                write!(
                    f,
                    "the disk did not answer within {millis} ms for sector {sector}"
                )
            }
            Self::Dead => f.write_str("the disk was given up after a time-out"),
            Self::BeyondEnd {
                sector,
                count,
                capacity,
            } => {
                write!(
                    f,
                    "{count} sectors from sector {sector} reach past the disk's end ({capacity} sectors)"
                )
            }
            Self::PartialSector { bytes } => {
                write!(f, "{bytes} bytes are no whole number of 512-byte sectors")
            }
            Self::Refused { sector, reason } => {
                write!(f, "the request for sector {sector} was refused: {reason}")
            }
        }
    }
}

impl core::error::Error for BlockError {}

/// A device that holds numbered sectors.
pub trait BlockDevice: Send + Sync {
    /// Sectors of [`SECTOR`] bytes that the device has.
    fn capacity_sectors(&self) -> u64;

    /// Fills `buffer`, a whole number of sectors, from `sector` on. The calling task gives up the CPU while it waits.
    ///
    /// # Errors
    /// See [`BlockError`]; what the buffer holds then is unspecified.
    fn read(&self, sector: u64, buffer: &mut [u8]) -> Result<(), BlockError>;
}

/// Checks a request against the device's size.
///
/// # Errors
/// [`BlockError::PartialSector`] and [`BlockError::BeyondEnd`].
pub fn check(sector: u64, bytes: usize, capacity: u64) -> Result<(), BlockError> {
    let count = (bytes / SECTOR) as u64;
    if !bytes.is_multiple_of(SECTOR) {
        return Err(BlockError::PartialSector { bytes });
    }
    match sector.checked_add(count) {
        Some(end) if end <= capacity => Ok(()),
        _ => Err(BlockError::BeyondEnd {
            sector,
            count,
            capacity,
        }),
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn requests_within_the_device_pass() {
        assert_eq!(check(0, 8 * SECTOR, 8), Ok(()));
        assert_eq!(check(8, 0, 8), Ok(()));
    }

    #[test]
    fn requests_past_the_end_are_refused_with_all_figures() {
        let error = check(7, 2 * SECTOR, 8).unwrap_err();
        assert_eq!(
            error,
            BlockError::BeyondEnd {
                sector: 7,
                count: 2,
                capacity: 8
            }
        );
        assert_eq!(
            error.to_string(),
            "2 sectors from sector 7 reach past the disk's end (8 sectors)"
        );
        assert!(check(u64::MAX, SECTOR, 8).is_err());
    }

    #[test]
    fn partial_sectors_are_refused() {
        assert_eq!(check(0, 100, 8), Err(BlockError::PartialSector { bytes: 100 }));
    }
}
