//! The order in which a workload touches the pages of its region.

use alloc::vec::Vec;
use core::fmt;

use super::rng::SplitMix64;

/// An order by rule or by list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order<'a> {
    /// From the first page to the last.
    Sequential,
    /// From the last page to the first.
    Reverse,
    /// A permutation that the seed decides.
    Random {
        /// Equal seeds give equal permutations.
        seed: u64,
    },
    /// The page numbers in a text, one a line; see [`Order::pages`].
    List(&'a [u8]),
}

/// What is wrong with a list of pages. Lines count from 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OrderError {
    /// A line that is no page number.
    NotANumber {
        /// The line.
        line: usize,
    },
    /// A page that the region does not have.
    BeyondEnd {
        /// The line.
        line: usize,
        /// What it says.
        page: u64,
        /// Pages there are.
        pages: u64,
    },
    /// No page at all.
    Empty,
}

impl fmt::Display for OrderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotANumber { line } => write!(f, "order file, line {line}: give one page number a line"),
            Self::BeyondEnd { line, page, pages } => {
                write!(
                    f,
                    "order file, line {line}: page {page} is past the region's {pages} pages"
                )
            }
            Self::Empty => f.write_str("order file: it names no page"),
        }
    }
}

impl core::error::Error for OrderError {}

impl Order<'_> {
    /// The first `limit` pages to touch of a region of `pages` pages.
    ///
    /// A list is ASCII text: a decimal page number a line, blank lines and what follows `#` ignored, pages in any order
    /// and as often as wanted (a trace of a real workload touches pages twice).
    ///
    /// # Errors
    /// Only for lists: a line is no page of the region, or no line is.
    pub fn pages(&self, pages: u32, limit: usize) -> Result<Vec<u32>, OrderError> {
        let mut order: Vec<u32> = match *self {
            Self::Sequential => (0..pages).take(limit).collect(),
            Self::Reverse => (0..pages).rev().take(limit).collect(),
            Self::Random { seed } => shuffled(pages, seed),
            Self::List(text) => parse(text, pages)?,
        };
        order.truncate(limit);
        Ok(order)
    }
}

/// All numbers below `count`, each once (Fisher and Yates).
fn shuffled(count: u32, seed: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..count).collect();
    let mut rng = SplitMix64::new(seed);
    for last in (1..order.len()).rev() {
        let pick = rng.below(last as u64 + 1);
        order.swap(last, pick as usize);
    }
    order
}

fn parse(text: &[u8], pages: u32) -> Result<Vec<u32>, OrderError> {
    let mut order = Vec::new();
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line_number = index + 1;
        let not_a_number = OrderError::NotANumber { line: line_number };
        let number = line
            .split(|byte| *byte == b'#')
            .next()
            .unwrap_or_default()
            .trim_ascii();
        if number.is_empty() {
            continue;
        }
        if !number.iter().all(u8::is_ascii_digit) {
            return Err(not_a_number);
        }
        let number = str::from_utf8(number).map_err(|_| not_a_number)?;
        let page: u64 = number.parse().map_err(|_| not_a_number)?;
        match u32::try_from(page) {
            Ok(page) if page < pages => order.push(page),
            _ => {
                return Err(OrderError::BeyondEnd {
                    line: line_number,
                    page,
                    pages: pages.into(),
                });
            }
        }
    }
    if order.is_empty() {
        Err(OrderError::Empty)
    } else {
        Ok(order)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    const ALL: usize = usize::MAX;

    #[test]
    fn rules_give_their_orders_and_stop_at_the_limit() {
        assert_eq!(Order::Sequential.pages(4, ALL), Ok(vec![0, 1, 2, 3]));
        assert_eq!(Order::Reverse.pages(4, ALL), Ok(vec![3, 2, 1, 0]));
        assert_eq!(Order::Reverse.pages(4, 3), Ok(vec![3, 2, 1]));
        assert_eq!(Order::Random { seed: 1 }.pages(0, ALL), Ok(vec![]));
        assert_eq!(Order::Random { seed: 1 }.pages(9, 2).unwrap().len(), 2);
    }

    #[test]
    fn seed_decides_the_permutation() {
        let order = |seed| Order::Random { seed }.pages(1000, ALL).unwrap();
        assert_eq!(order(7), order(7));
        assert_ne!(order(7), order(8));
        assert_ne!(order(0), (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn every_position_gets_every_page_about_equally_often() {
        let mut counts = [[0u32; 5]; 5];
        for seed in 0..5000 {
            let order = Order::Random { seed }.pages(5, ALL).unwrap();
            order
                .iter()
                .enumerate()
                .for_each(|(position, page)| counts[position][*page as usize] += 1);
        }
        assert!(
            counts.iter().flatten().all(|count| (850..1150).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn list_takes_comments_blank_lines_and_repeats() {
        let text = b"# a trace\n 3\n\n1 # again\r\n3";
        assert_eq!(Order::List(text).pages(4, ALL), Ok(vec![3, 1, 3]));
        assert_eq!(Order::List(text).pages(4, 2), Ok(vec![3, 1]));
    }

    #[test]
    fn bad_lists_are_refused_by_line() {
        let parse = |text: &'static [u8]| Order::List(text).pages(4, ALL).unwrap_err();
        assert_eq!(parse(b"1\nx\n"), OrderError::NotANumber { line: 2 });
        assert_eq!(parse(b"1\n+2\n"), OrderError::NotANumber { line: 2 });
        assert_eq!(parse(b"99999999999999999999"), OrderError::NotANumber { line: 1 });
        assert_eq!(parse(b"\xff"), OrderError::NotANumber { line: 1 });
        assert_eq!(
            parse(b"4"),
            OrderError::BeyondEnd {
                line: 1,
                page: 4,
                pages: 4
            }
        );
        assert_eq!(
            parse(b"0\n\n4294967296").to_string(),
            "order file, line 3: page 4294967296 is past the region's 4 pages"
        );
        assert_eq!(parse(b"# nothing\n"), OrderError::Empty);
    }

    proptest! {
        #[test]
        fn random_is_a_permutation(pages in 0u32..300, seed: u64) {
            let mut order = Order::Random { seed }.pages(pages, ALL).unwrap();
            order.sort_unstable();
            prop_assert_eq!(order, (0..pages).collect::<Vec<_>>());
        }
    }
}
