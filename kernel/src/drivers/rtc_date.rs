//! What the registers of the battery-backed clock mean. Pure.

/// The registers, as they are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "named after the registers")]
pub struct Registers {
    pub second: u8,
    pub minute: u8,
    pub hour: u8,
    pub day: u8,
    pub month: u8,
    pub year: u8,
    /// Bit 1: hours count to 24. Bit 2: numbers are binary, not decimal.
    pub status_b: u8,
}

/// A date and a time of day, UTC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "named after what they are")]
pub struct Date {
    pub year: u32,
    pub month: u8,
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
}

const HOURS_TO_24: u8 = 1 << 1;
const BINARY: u8 = 1 << 2;
const AFTERNOON: u8 = 1 << 7;

impl Date {
    /// What the registers show; `None` when that is no date. Two digits of a year mean 2000 to 2099.
    pub fn of(registers: &Registers) -> Option<Self> {
        let number = |raw: u8| match registers.status_b & BINARY != 0 {
            true => Some(raw),
            false if raw & 15 < 10 && raw >> 4 < 10 => Some((raw >> 4) * 10 + (raw & 15)),
            false => None,
        };
        let hour = match registers.status_b & HOURS_TO_24 != 0 {
            true => number(registers.hour)?,
            false => {
                let hour = number(registers.hour & !AFTERNOON)?;
                if !(1..=12).contains(&hour) {
                    return None;
                }
                hour % 12 + if registers.hour & AFTERNOON != 0 { 12 } else { 0 }
            }
        };
        let date = Self {
            year: 2000 + u32::from(number(registers.year)?),
            month: number(registers.month)?,
            day: number(registers.day)?,
            hour,
            minute: number(registers.minute)?,
            second: number(registers.second)?,
        };
        let valid = (1..=12).contains(&date.month)
            && (1..=31).contains(&date.day)
            && date.year < 2100
            && date.hour < 24
            && date.minute < 60
            && date.second < 60;
        valid.then_some(date)
    }

    /// Seconds since 1970-01-01.
    pub fn seconds(&self) -> Option<u64> {
        const DAYS_BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        let year = u64::from(self.year.checked_sub(1970)?);
        // 1972 was a leap year, and every fourth until 2099.
        let leap_days = (year + 1) / 4;
        let is_leap = self.year.is_multiple_of(4);
        let days = year * 365
            + leap_days
            + DAYS_BEFORE.get(usize::from(self.month.checked_sub(1)?))?
            + u64::from(is_leap && self.month > 2)
            + u64::from(self.day)
            - 1;
        let time = (u64::from(self.hour) * 60 + u64::from(self.minute)) * 60 + u64::from(self.second);
        Some(days * 86400 + time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BCD: Registers = Registers {
        second: 0x59,
        minute: 0x34,
        hour: 0x23,
        day: 0x29,
        month: 0x02,
        year: 0x24,
        status_b: HOURS_TO_24,
    };

    fn seconds(registers: Registers) -> Option<u64> {
        Date::of(&registers)?.seconds()
    }

    #[test]
    fn decimal_and_binary_registers_show_the_same_date() {
        // date -u -d '2024-02-29 23:34:59' +%s
        assert_eq!(seconds(BCD), Some(1_709_249_699));
        let binary = Registers {
            second: 59,
            minute: 34,
            hour: 23,
            day: 29,
            month: 2,
            year: 24,
            status_b: HOURS_TO_24 | BINARY,
        };
        assert_eq!(seconds(binary), Some(1_709_249_699));
    }

    #[test]
    fn twelve_hours_twice_a_day_are_told_apart() {
        let at = |hour| {
            Date::of(&Registers {
                hour,
                status_b: 0,
                ..BCD
            })
            .map(|date| date.hour)
        };
        assert_eq!(at(0x12), Some(0));
        assert_eq!(at(0x01), Some(1));
        assert_eq!(at(0x12 | AFTERNOON), Some(12));
        assert_eq!(at(0x11 | AFTERNOON), Some(23));
        assert_eq!(at(0), None);
    }

    #[test]
    fn days_are_counted_across_leap_years_and_months() {
        let on = |year, month, day| {
            Date {
                year,
                month,
                day,
                hour: 0,
                minute: 0,
                second: 0,
            }
            .seconds()
        };
        // date -u -d DATE +%s
        assert_eq!(on(1970, 1, 1), Some(0));
        assert_eq!(on(2000, 3, 1), Some(951_868_800));
        assert_eq!(on(2023, 12, 31), Some(1_703_980_800));
        assert_eq!(on(2099, 12, 31), Some(4_102_358_400));
    }

    #[test]
    fn what_is_no_date_is_none() {
        for broken in [
            Registers { second: 0xff, ..BCD },
            Registers { month: 0, ..BCD },
            Registers { month: 0x13, ..BCD },
            Registers { day: 0, ..BCD },
            Registers { hour: 0x24, ..BCD },
            Registers { minute: 0x60, ..BCD },
        ] {
            assert_eq!(seconds(broken), None, "{broken:?}");
        }
    }
}
