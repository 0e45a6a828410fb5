//! Exact percentiles.
//!
//! Every value is kept, so a percentile is a value that was measured and two runs that measure the same print the same.
//! Recording is a store into memory that was reserved before: it can stand between two measurements.

use alloc::vec::Vec;

/// Values in the order they were measured.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    values: Vec<u64>,
}

/// What is told of many values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Summary {
    /// How many values.
    pub count: u64,
    /// The smallest.
    pub min: u64,
    /// Half of the values are not larger.
    pub p50: u64,
    /// Nine in ten are not larger.
    pub p90: u64,
    /// 99 in a hundred are not larger.
    pub p99: u64,
    /// The largest.
    pub max: u64,
}

impl Summary {
    /// Heads of the columns that [`row`](Self::row) fills.
    pub const COLUMNS: [&str; 5] = ["min", "p50", "p90", "p99", "max"];

    /// The figures in the order of [`COLUMNS`](Self::COLUMNS).
    pub fn row(&self) -> [u64; 5] {
        [self.min, self.p50, self.p90, self.p99, self.max]
    }
}

impl Samples {
    /// Room for `count` values; more are taken, at the price of an allocation.
    pub fn with_capacity(count: usize) -> Self {
        Self {
            values: Vec::with_capacity(count),
        }
    }

    /// Adds a value.
    #[inline]
    pub fn record(&mut self, value: u64) {
        self.values.push(value);
    }

    /// Adds what others have measured.
    pub fn append(&mut self, mut other: Self) {
        self.values.append(&mut other.values);
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The values' percentiles by nearest rank; `None` of no values.
    pub fn summary(mut self) -> Option<Summary> {
        self.values.sort_unstable();
        let values = &self.values;
        let percentile = |percent: usize| values[(values.len() * percent).div_ceil(100).max(1) - 1];
        Some(Summary {
            count: values.len() as u64,
            min: *values.first()?,
            p50: percentile(50),
            p90: percentile(90),
            p99: percentile(99),
            max: *values.last()?,
        })
    }
}

impl Extend<u64> for Samples {
    fn extend<I: IntoIterator<Item = u64>>(&mut self, values: I) {
        self.values.extend(values);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Option<Summary> {
        let mut samples = Samples::default();
        samples.extend(values);
        samples.summary()
    }

    #[test]
    fn nothing_measured_has_no_summary() {
        assert_eq!(of([]), None);
    }

    #[test]
    fn one_value_is_every_percentile() {
        assert_eq!(of([7]).unwrap().row(), [7; 5]);
    }

    #[test]
    fn hundred_values_give_their_nearest_ranks() {
        assert_eq!(of((1..=100).rev()).unwrap().row(), [1, 50, 90, 99, 100]);
        assert_eq!(of(1..=101).unwrap().row(), [1, 51, 91, 100, 101]);
    }

    #[test]
    fn single_outlier_shows_in_the_maximum_only() {
        let summary = of((0..1000).map(|i| if i == 500 { 9999 } else { 10 })).unwrap();
        assert_eq!(summary.row(), [10, 10, 10, 10, 9999]);
    }

    proptest! {
        #[test]
        fn percentile_has_the_promised_share_below_it(values in proptest::collection::vec(0u64..50, 1..200)) {
            let summary = of(values.clone()).unwrap();
            for (percent, value) in [(50, summary.p50), (90, summary.p90), (99, summary.p99)] {
                let not_larger = values.iter().filter(|v| **v <= value).count();
                let smaller = values.iter().filter(|v| **v < value).count();
                prop_assert!(not_larger * 100 >= values.len() * percent);
                prop_assert!(smaller * 100 < values.len() * percent);
            }
        }
    }
}
