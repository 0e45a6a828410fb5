//! Text in memory of a fixed size: a step may be stopped, forked or killed in the middle, so it takes none from the heap.

use std::fmt;

/// Text of at most `N` bytes. What is more is cut off.
pub struct Pen<const N: usize> {
    text: [u8; N],
    used: usize,
}

impl<const N: usize> Pen<N> {
    /// No text.
    pub const fn new() -> Self {
        Self {
            text: [0; N],
            used: 0,
        }
    }

    /// What was written.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.text[..self.used]).unwrap_or("text cut in the middle of a letter")
    }
}

impl<const N: usize> fmt::Write for Pen<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = text.len().min(N - self.used);
        self.text[self.used..self.used + room].copy_from_slice(&text.as_bytes()[..room]);
        self.used += room;
        Ok(())
    }
}

/// Writes items with the equal ones in a row told once: `a*3 b`.
pub struct Runs<'a, W: fmt::Write, T: fmt::Display + PartialEq> {
    out: &'a mut W,
    last: Option<(T, usize)>,
    first: bool,
}

impl<'a, W: fmt::Write, T: fmt::Display + PartialEq> Runs<'a, W, T> {
    /// Nothing yet.
    pub fn new(out: &'a mut W) -> Self {
        Self {
            out,
            last: None,
            first: true,
        }
    }

    /// The next item.
    pub fn push(&mut self, item: T) -> fmt::Result {
        match &mut self.last {
            Some((last, count)) if *last == item => {
                *count += 1;
                Ok(())
            }
            _ => {
                self.flush()?;
                self.last = Some((item, 1));
                Ok(())
            }
        }
    }

    /// Writes what is still to be told.
    pub fn end(mut self) -> fmt::Result {
        self.flush()
    }

    fn flush(&mut self) -> fmt::Result {
        let Some((item, count)) = self.last.take() else {
            return Ok(());
        };
        if !std::mem::replace(&mut self.first, false) {
            self.out.write_char(' ')?;
        }
        match count {
            1 => write!(self.out, "{item}"),
            _ => write!(self.out, "{item}*{count}"),
        }
    }
}
