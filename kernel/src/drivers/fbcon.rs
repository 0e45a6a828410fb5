//! A text console on a linear framebuffer, for machines whose only output is their screen.
//!
//! The characters on the screen are kept in ordinary memory, because reading a framebuffer is slow: a scroll moves the
//! characters there and draws only those cells that changed. When the last row is full the text moves up by a quarter of the
//! screen at once; moving it row by row would draw the whole screen for every line.
//!
//! Pixels are any of the layouts that a boot door reports; characters outside printable ASCII show as `?`.

use alloc::vec;
use alloc::vec::Vec;

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

use crate::bootinfo::{Framebuffer, PixelFormat};

const WEIGHT: FontWeight = FontWeight::Regular;
const SIZE: RasterHeight = RasterHeight::Size16;
/// Pixels of a cell.
const CELL_WIDTH: usize = get_raster_width(WEIGHT, SIZE);
const CELL_HEIGHT: usize = SIZE.val();
/// Most bytes of a pixel.
const MAX_PIXEL: usize = 4;
/// Columns between tabulator stops.
const TAB: usize = 8;

/// A console on a framebuffer.
#[derive(Debug)]
pub struct Screen<'a> {
    pixels: &'a mut [u8],
    layout: Framebuffer,
    columns: usize,
    rows: usize,
    /// What each cell shows, row by row.
    cells: Vec<u8>,
    column: usize,
    row: usize,
}

impl<'a> Screen<'a> {
    /// A cleared screen. `None` when the layout does not fit the memory or has no room for a character.
    pub fn new(pixels: &'a mut [u8], layout: Framebuffer) -> Option<Self> {
        let (width, height) = (layout.width as usize, layout.height as usize);
        let row_bytes = (layout.stride as usize).checked_mul(layout.bytes_per_pixel as usize)?;
        let (columns, rows) = (width / CELL_WIDTH, height / CELL_HEIGHT);
        let fits = row_bytes.checked_mul(height)? <= pixels.len()
            && layout.width <= layout.stride
            && (1..=MAX_PIXEL).contains(&(layout.bytes_per_pixel as usize))
            && (layout.format == PixelFormat::Grey || layout.bytes_per_pixel >= 3);
        if !fits || columns == 0 || rows == 0 {
            return None;
        }
        pixels.fill(0);
        Some(Self {
            pixels,
            layout,
            columns,
            rows,
            cells: vec![b' '; columns * rows],
            column: 0,
            row: 0,
        })
    }

    /// Shows `text` at the cursor.
    pub fn write(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '\n' => self.new_line(),
                '\r' => self.column = 0,
                '\t' => self.column = (self.column + TAB) / TAB * TAB,
                ' '..='~' => self.put(c as u8),
                _ => self.put(b'?'),
            }
        }
    }

    fn put(&mut self, character: u8) {
        if self.column >= self.columns {
            self.new_line();
        }
        self.set(self.row, self.column, character);
        self.column += 1;
    }

    fn new_line(&mut self) {
        self.column = 0;
        self.row += 1;
        if self.row == self.rows {
            self.scroll(self.rows.div_ceil(4));
        }
    }

    fn scroll(&mut self, lines: usize) {
        for row in 0..self.rows {
            for column in 0..self.columns {
                let below = self.cells.get((row + lines) * self.columns + column);
                self.set(row, column, below.copied().unwrap_or(b' '));
            }
        }
        self.row -= lines;
    }

    fn set(&mut self, row: usize, column: usize, character: u8) {
        let cell = &mut self.cells[row * self.columns + column];
        if *cell != character {
            *cell = character;
            self.draw(row, column, character);
        }
    }

    fn draw(&mut self, row: usize, column: usize, character: u8) {
        let Some(glyph) = get_raster(char::from(character), WEIGHT, SIZE) else {
            return;
        };
        let pixel = self.layout.bytes_per_pixel as usize;
        let row_bytes = self.layout.stride as usize * pixel;
        let start = row * CELL_HEIGHT * row_bytes + column * CELL_WIDTH * pixel;
        for (line, intensities) in glyph.rows().enumerate() {
            // One run of bytes per line of the glyph: framebuffers take runs better than single pixels.
            let mut run = [0; CELL_WIDTH * MAX_PIXEL];
            for (bytes, &intensity) in run.chunks_exact_mut(pixel).zip(intensities) {
                // Grey has the same bytes in every colour layout; a fourth byte is not shown.
                bytes.fill(intensity);
            }
            let at = start + line * row_bytes;
            self.pixels[at..at + CELL_WIDTH * pixel].copy_from_slice(&run[..CELL_WIDTH * pixel]);
        }
    }

    /// The characters of a row, without the blanks at its end.
    pub fn row_text(&self, row: usize) -> &[u8] {
        self.cells[row * self.columns..][..self.columns].trim_ascii_end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::addr::PhysAddr;

    fn layout(width: u32, height: u32, bytes_per_pixel: u32) -> Framebuffer {
        let stride = width + 5;
        let len = u64::from(stride * height * bytes_per_pixel);
        let format = if bytes_per_pixel == 1 {
            PixelFormat::Grey
        } else {
            PixelFormat::Bgr
        };
        Framebuffer {
            start: PhysAddr::new(0),
            len,
            width,
            height,
            stride,
            bytes_per_pixel,
            format,
        }
    }

    /// A screen of 10 columns and 4 rows.
    fn with_screen(bytes_per_pixel: u32, test: impl FnOnce(&mut Screen)) -> Vec<u8> {
        let layout = layout(
            10 * CELL_WIDTH as u32 + 3,
            4 * CELL_HEIGHT as u32 + 3,
            bytes_per_pixel,
        );
        let mut pixels = vec![0xee; layout.len as usize];
        test(&mut Screen::new(&mut pixels, layout).unwrap());
        pixels
    }

    fn rows(screen: &Screen) -> Vec<Vec<u8>> {
        (0..4).map(|row| screen.row_text(row).to_vec()).collect()
    }

    #[test]
    fn text_goes_where_the_cursor_is() {
        with_screen(4, |screen| {
            screen.write("ab\ncd\re\tfé");
            assert_eq!(rows(screen), [&b"ab"[..], b"ed      f?", b"", b""]);
        });
    }

    #[test]
    fn long_line_wraps_and_full_screen_scrolls() {
        with_screen(4, |screen| {
            screen.write("0123456789AB\n2\n3\n4");
            assert_eq!(rows(screen), [&b"AB"[..], b"2", b"3", b"4"]);
            screen.write("\n5\n6");
            assert_eq!(rows(screen), [&b"3"[..], b"4", b"5", b"6"]);
        });
    }

    #[test]
    fn characters_are_drawn_inside_their_cell_for_every_pixel_size() {
        for bytes_per_pixel in [1, 3, 4] {
            let pixels = with_screen(bytes_per_pixel, |screen| screen.write("\n M"));
            let stride = 10 * CELL_WIDTH + 3 + 5;
            let pixel = bytes_per_pixel as usize;
            let lit = |x: usize, y: usize| pixels[(y * stride + x) * pixel] != 0;
            let inside = |x: usize, y: usize| x / CELL_WIDTH == 1 && y / CELL_HEIGHT == 1;
            let all = || (0..4 * CELL_HEIGHT).flat_map(|y| (0..stride).map(move |x| (x, y)));
            assert!(all().any(|(x, y)| inside(x, y) && lit(x, y)));
            assert!(!all().any(|(x, y)| !inside(x, y) && lit(x, y)));
        }
    }

    #[test]
    fn scrolled_screen_shows_what_a_fresh_one_would() {
        let scrolled = with_screen(3, |screen| screen.write("a\nbc\nd\ne\nf"));
        let fresh = with_screen(3, |screen| screen.write("bc\nd\ne\nf"));
        assert_eq!(scrolled, fresh);
    }

    #[test]
    fn layouts_that_do_not_fit_are_refused() {
        let good = layout(640, 480, 4);
        let screen = |layout: Framebuffer, len: usize| Screen::new(&mut vec![0; len], layout).is_some();
        let len = good.len as usize;
        assert!(screen(good, len));
        assert!(!screen(good, len - 1));
        assert!(!screen(Framebuffer { stride: 639, ..good }, len));
        assert!(!screen(
            Framebuffer {
                bytes_per_pixel: 0,
                ..good
            },
            len
        ));
        assert!(!screen(
            Framebuffer {
                bytes_per_pixel: 5,
                ..good
            },
            len * 2
        ));
        assert!(!screen(
            Framebuffer {
                bytes_per_pixel: 2,
                ..good
            },
            len
        ));
        assert!(!screen(
            Framebuffer {
                height: u32::MAX,
                ..good
            },
            len
        ));
        assert!(!screen(Framebuffer { width: 3, ..good }, len));
    }
}
