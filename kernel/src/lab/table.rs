//! A report as text: what an application prints on the console.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::trace::record::{Figure, Report, Table};

impl Report {
    /// Adds a figure.
    pub fn figure(&mut self, name: &str, value: u64, unit: &str) {
        self.figures.push(Figure {
            name: name.into(),
            value,
            unit: unit.into(),
        });
    }

    /// Whether nothing went wrong.
    pub fn is_verified(&self) -> bool {
        self.failures.is_empty()
    }
}

impl Table {
    /// A table without rows.
    pub fn new(title: &str, unit: &str, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|&column| column.into()).collect();
        Self {
            title: title.into(),
            unit: unit.into(),
            columns,
            rows: Vec::new(),
        }
    }

    /// Adds a row; as many numbers as there are columns.
    pub fn row(&mut self, name: &str, numbers: &[u64]) {
        let numbers: Vec<_> = numbers.iter().copied().map(Some).collect();
        self.sparse_row(name, &numbers);
    }

    /// Adds a row in which some numbers are not known.
    pub fn sparse_row(&mut self, name: &str, numbers: &[Option<u64>]) {
        debug_assert_eq!(numbers.len(), self.columns.len());
        self.rows.push((name.into(), numbers.to_vec()));
    }
}

/// `number` with its digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = format!("{number}");
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A number, or that there is none.
fn cell(number: Option<u64>) -> String {
    number.map_or_else(|| "-".into(), grouped)
}

/// Width of the widest of `texts`, in characters.
fn widest<'a>(texts: impl Iterator<Item = &'a str>) -> usize {
    texts.map(|text| text.chars().count()).max().unwrap_or(0)
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = format!("{} ({})", self.title, self.unit);
        let numbers: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|(_, row)| row.iter().copied().map(cell).collect())
            .collect();
        let first = widest(
            self.rows
                .iter()
                .map(|(name, _)| name.as_str())
                .chain([head.as_str()]),
        );
        let width = |column: usize| {
            let cells = numbers
                .iter()
                .filter_map(|row| row.get(column))
                .map(String::as_str);
            widest(cells.chain([self.columns[column].as_str()]))
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();

        let line = |f: &mut fmt::Formatter<'_>, name: &str, cells: &[String]| {
            write!(f, "  {name:first$}")?;
            cells
                .iter()
                .zip(&widths)
                .try_for_each(|(cell, width)| write!(f, "  {cell:>width$}"))?;
            f.write_str("\n")
        };
        line(f, &head, &self.columns)?;
        self.rows
            .iter()
            .zip(&numbers)
            .try_for_each(|((name, _), cells)| line(f, name, cells))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.app)?;
        self.options
            .iter()
            .try_for_each(|(key, value)| write!(f, " {key}={value}"))?;
        f.write_str("\n\n")?;

        let values: Vec<String> = self.figures.iter().map(|figure| grouped(figure.value)).collect();
        let names = widest(self.figures.iter().map(|figure| figure.name.as_str()));
        let width = widest(values.iter().map(String::as_str));
        for (figure, value) in self.figures.iter().zip(&values) {
            writeln!(f, "  {:names$}  {value:>width$} {}", figure.name, figure.unit)?;
        }
        self.tables.iter().try_for_each(|table| write!(f, "\n{table}"))?;
        if !self.failures.is_empty() {
            f.write_str("\n  FAILED\n")?;
        }
        self.failures
            .iter()
            .try_for_each(|failure| writeln!(f, "  - {failure}"))
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec;

    use super::*;

    #[test]
    fn digits_are_grouped_from_the_right() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1 000"),
            (1234567, "1 234 567"),
            (100000, "100 000"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn report_lines_up_figures_and_tables() {
        let mut report = Report {
            app: "cost".into(),
            options: vec![("pages".into(), "8".into())],
            ..Report::default()
        };
        report.figure("pages", 8, "pages");
        report.figure("time to all", 123456, "ticks");
        let mut table = Table::new("per page", "instructions", &["p50", "max"]);
        table.row("COPY", &[900, 12000]);
        table.row("a longer name than the head", &[1, 2]);
        report.tables.push(table);
        report.failures.push("page 3 is wrong".into());
        assert!(!report.is_verified());
        let expected = "\
cost pages=8

  pages              8 pages
  time to all  123 456 ticks

  per page (instructions)      p50     max
  COPY                         900  12 000
  a longer name than the head    1       2

  FAILED
  - page 3 is wrong
";
        assert_eq!(report.to_string(), expected);
    }

    #[test]
    fn empty_report_is_its_name() {
        let report = Report {
            app: "info".into(),
            ..Report::default()
        };
        assert_eq!(report.to_string(), "info\n\n");
        assert!(report.is_verified());
    }
}
