//! A picture for a mail, where no script and no style sheet can be relied on: stacked bars as PNG, without a word in
//! it. A PNG of a few colours is a header and one compressed block; a library would bring another zlib for that.

use crate::section::Colour;
use flate2::{Compression, Crc, write::ZlibEncoder};
use std::io::{self, Write};

/// In pixels: twice what it is shown at, for sharp screens.
pub const WIDTH: usize = 1184;
pub const HEIGHT: usize = 160;
const GAP: usize = 8;
/// Bars are no wider, however few there are.
const WIDEST: usize = 72;

/// A part of a bar, the lowest first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BarSegment {
    pub count: u64,
    pub colour: Colour,
}

/// What a pixel may be, in the order of [`index_of`]; the first is nothing, and transparent. The others can be told
/// from a white and from a dark background.
const PALETTE: [[u8; 3]; 7] = [
    [255, 255, 255],
    [0x2f, 0x9e, 0x68],
    [0x8f, 0xbf, 0xa5],
    [0xd9, 0x8a, 0x1f],
    [0xa0, 0x6b, 0xd0],
    [0xd0, 0x4a, 0x42],
    [0x7b, 0x87, 0x94],
];

fn index_of(colour: Colour) -> u8 {
    match colour {
        Colour::Done => 1,
        Colour::DoneBefore => 2,
        Colour::Waiting => 3,
        Colour::SetAside => 4,
        Colour::Failed => 5,
        Colour::Other => 6,
    }
}

/// Bars from left to right, each stacked of its parts.
pub fn stacked(bars: &[Vec<BarSegment>]) -> io::Result<Vec<u8>> {
    let pixels = draw(bars);
    let mut raw = Vec::with_capacity((WIDTH + 1) * HEIGHT);
    for row in pixels.chunks(WIDTH) {
        raw.push(0); // no filter
        raw.extend_from_slice(row);
    }
    let mut compressed = ZlibEncoder::new(Vec::new(), Compression::best());
    compressed.write_all(&raw)?;
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut header = Vec::new();
    header.extend((WIDTH as u32).to_be_bytes());
    header.extend((HEIGHT as u32).to_be_bytes());
    // Eight bits a pixel, by palette, deflate, no interlace.
    header.extend([8, 3, 0, 0, 0]);
    chunk(&mut png, b"IHDR", &header);
    chunk(&mut png, b"PLTE", PALETTE.as_flattened());
    chunk(&mut png, b"tRNS", &[0]);
    chunk(&mut png, b"IDAT", &compressed.finish()?);
    chunk(&mut png, b"IEND", &[]);
    Ok(png)
}

fn chunk(png: &mut Vec<u8>, kind: &[u8; 4], body: &[u8]) {
    let mut crc = Crc::new();
    crc.update(kind);
    crc.update(body);
    png.extend((body.len() as u32).to_be_bytes());
    png.extend(kind);
    png.extend(body);
    png.extend(crc.sum().to_be_bytes());
}

/// An index into the palette for each pixel, row by row from the top.
fn draw(bars: &[Vec<BarSegment>]) -> Vec<u8> {
    let mut pixels = vec![0; WIDTH * HEIGHT];
    let most = bars.iter().map(|parts| total(parts)).max().unwrap_or(0);
    if most == 0 {
        return pixels;
    }
    let place = (WIDTH / bars.len()).min(WIDEST + GAP);
    let wide = place.saturating_sub(GAP).max(1);
    for (n, parts) in bars.iter().enumerate() {
        let mut below = 0u128;
        for part in parts {
            let height = |count: u128| (count * HEIGHT as u128 / most) as usize;
            let (from, mut to) = (height(below), height(below + u128::from(part.count)));
            below += u128::from(part.count);
            // Something is never nothing: a failed window must be seen beside a million messages.
            if part.count > 0 {
                to = to.max((from + 4).min(HEIGHT));
            }
            for row in from.min(HEIGHT)..to {
                let start = (HEIGHT - 1 - row) * WIDTH + n * place;
                pixels[start..start + wide].fill(index_of(part.colour));
            }
        }
    }
    pixels
}

fn total(parts: &[BarSegment]) -> u128 {
    parts.iter().map(|part| u128::from(part.count)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::ZlibDecoder;
    use std::io::Read;

    fn bar(parts: &[(u64, Colour)]) -> Vec<BarSegment> {
        parts.iter().map(|&(count, colour)| BarSegment { count, colour }).collect()
    }

    #[test]
    fn a_bar_is_as_high_as_its_count_and_a_small_part_is_still_seen() {
        let bars = [bar(&[(1_000_000, Colour::Done), (1, Colour::Failed)]), bar(&[(500_000, Colour::Done)])];
        let pixels = draw(&bars);
        let column = |x: usize| (0..HEIGHT).map(|y| pixels[y * WIDTH + x]).collect::<Vec<_>>();
        assert!(column(0).contains(&index_of(Colour::Failed)), "one message of a million");
        let second = column(WIDEST + GAP);
        assert_eq!(second.iter().filter(|&&pixel| pixel == 1).count(), HEIGHT / 2 - 1);
        assert_eq!((second[0], second[HEIGHT - 1]), (0, 1), "it stands on the ground");
    }

    #[test]
    fn no_number_of_bars_leaves_the_picture() {
        for bars in [0, 1, 2, 16, 400, 2000] {
            let bars = vec![bar(&[(u64::MAX, Colour::Done), (u64::MAX, Colour::Waiting)]); bars];
            assert_eq!(draw(&bars).len(), WIDTH * HEIGHT);
        }
    }

    #[test]
    fn the_file_is_a_png_of_one_block() {
        let png = stacked(&[bar(&[(3, Colour::Done)])]).expect("written");
        assert!(png.starts_with(b"\x89PNG\r\n\x1a\n") && png.len() < 4000, "{} bytes", png.len());
        let at = png.windows(4).position(|kind| kind == b"IDAT").expect("pixels");
        let length = u32::from_be_bytes(png[at - 4..at].try_into().expect("a length")) as usize;
        let mut raw = Vec::new();
        ZlibDecoder::new(&png[at + 4..at + 4 + length]).read_to_end(&mut raw).expect("inflated");
        assert_eq!(raw.len(), (WIDTH + 1) * HEIGHT);
    }
}
