use crate::{GunzipReader, GzipError, Limits, Line, LineTooLong, Lines, Position, Step};
use bytes::Bytes;
use flate2::{Compression, Decompress, FlushDecompress, GzBuilder, Status};
use proptest::{collection::vec, prelude::*, sample::Index};
use std::io::{self, BufReader, Read as _, Write};

const LIMIT: usize = 1 << 20;

#[derive(Debug, Default, PartialEq)]
struct Read {
    lines: Vec<(u64, Vec<u8>)>,
    damage: Option<(u64, Vec<u8>, &'static str)>,
    /// Numbers of the lines that are longer than the limit.
    cut: Vec<u64>,
    /// Behind each line.
    positions: Vec<Position>,
}

/// Feeds `file` in pieces of these lengths, over and over.
fn read_on(mut lines: Lines, file: &[u8], pieces: &[usize]) -> Read {
    let mut rest = Bytes::copy_from_slice(file);
    let mut pieces = pieces.iter().cycle();
    let mut read = Read::default();
    loop {
        match lines.step().expect("no line is too long") {
            Step::Line(Line { number, bytes, is_cut }) => {
                read.lines.push((number, bytes.to_vec()));
                read.cut.extend(is_cut.then_some(number));
                read.positions.push(lines.position());
            }
            Step::Damage(damage) => read.damage = Some((damage.number, damage.bytes.to_vec(), damage.what.text())),
            Step::Starved if rest.is_empty() => lines.end(),
            Step::Starved => lines.feed(rest.split_to(rest.len().min(*pieces.next().expect("a length")))),
            Step::End => return read,
        }
    }
}

fn read(file: &[u8]) -> Read {
    read_on(Lines::new(LIMIT), file, &[file.len().max(1)])
}

fn texts(read: &Read) -> Vec<&str> {
    read.lines.iter().map(|(_, bytes)| std::str::from_utf8(bytes).expect("UTF-8")).collect()
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut writer =
        GzBuilder::new().filename("a name").comment("and more").extra([7; 9]).write(Vec::new(), Compression::fast());
    writer.write_all(text).and_then(|()| writer.finish()).expect("into memory")
}

/// What a reader of whole files would say.
fn expected(file: &[u8]) -> Vec<(u64, Vec<u8>)> {
    if file.is_empty() {
        return Vec::new();
    }
    let text = file;
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    let ended = text.strip_suffix(b"\n");
    let lines = ended.unwrap_or(text).split(|byte| *byte == b'\n').enumerate();
    let count = ended.unwrap_or(text).iter().filter(|byte| **byte == b'\n').count() + 1;
    let lines = lines.map(|(at, line)| {
        let is_ended = at + 1 < count || ended.is_some();
        let line = if is_ended { line.strip_suffix(b"\r").unwrap_or(line) } else { line };
        (at as u64 + 1, line.to_vec())
    });
    lines.collect()
}

#[test]
fn lines_end_at_lf_or_crlf_and_the_last_needs_no_end() {
    assert_eq!(texts(&read(b"a\r\nb\n\n  \nc\rd\r\r\ne\r")), ["a", "b", "", "  ", "c\rd\r", "e\r"]);
    assert_eq!(texts(&read(b"")), [""; 0]);
    assert_eq!(texts(&read(b"\n")), [""]);
    assert_eq!(texts(&read(b"a")), ["a"]);
}

#[test]
fn one_byte_order_mark_is_dropped_and_only_in_front() {
    let mark = "\u{feff}";
    assert_eq!(texts(&read(format!("{mark}{mark}a\n{mark}b").as_bytes())), ["\u{feff}a", "\u{feff}b"]);
    assert_eq!(texts(&read(mark.as_bytes())), [""]);
    let members = [gzip(format!("{mark}a\n").as_bytes()), gzip(format!("{mark}b\n").as_bytes())].concat();
    assert_eq!(texts(&read(&members)), ["a", "\u{feff}b"]);
}

#[test]
fn members_follow_one_another_and_zeros_may_follow_them() {
    let members = [gzip(b"a\nb"), gzip(b""), gzip(b"c\nd"), vec![0; 700]].concat();
    let read = read(&members);
    assert_eq!(texts(&read), ["a", "bc", "d"]);
    assert_eq!(read.damage, None);
}

#[test]
fn whole_lines_before_a_damage_pass_and_the_damage_names_its_line() {
    let whole = gzip(b"a\nb\nc");
    let damage = |file: &[u8]| {
        read(file).damage.map(|(line, bytes, what)| (line, String::from_utf8(bytes).expect("UTF-8"), what))
    };
    let cut = Some((3, "c".to_owned(), "the file ends in the middle of a gzip member"));
    assert_eq!(damage(&whole[..whole.len() - 1]), cut);
    assert_eq!(texts(&read(&whole[..whole.len() - 1])), ["a", "b"]);
    let mut other = whole.clone();
    *other.last_mut().expect("a trailer") ^= 1;
    assert_eq!(damage(&other), Some((3, "c".to_owned(), "the checksum of a gzip member is not that of its data")));
    assert_eq!(
        damage(&[&whole[..], b"junk"].concat()),
        Some((3, "c".to_owned(), "what follows a gzip member is none"))
    );
    assert_eq!(damage(&[0x1f, 0x8b]), Some((1, String::new(), "the file ends in the middle of a gzip member")));
    assert_eq!(
        damage(&[0x1f, 0x8b, 7, 0, 0]),
        Some((1, String::new(), "the compression method of a gzip member is unknown"))
    );
    assert_eq!(
        damage(&[0x1f, 0x8b, 8, 0x80, 0]),
        Some((1, String::new(), "the header of a gzip member has unknown flags"))
    );
    let endless = [&[0x1f, 0x8b, 8, 8][..], &vec![b'n'; 1 << 20]].concat();
    assert_eq!(damage(&endless), Some((1, String::new(), "the header of a gzip member is too long")));
}

#[test]
fn a_line_beyond_the_limit_is_an_error_and_takes_no_memory() {
    for file in [vec![b'x'; 5_000], [&vec![b'x'; 5_000][..], b"\n"].concat(), gzip(&vec![b'x'; 5_000])] {
        let mut lines = Lines::new(1_000);
        lines.feed(file.into());
        let error = loop {
            match lines.step() {
                Ok(Step::Starved) => lines.end(),
                Ok(step) => panic!("{step:?}"),
                Err(error) => break error,
            }
        };
        assert_eq!(error, LineTooLong { number: 1, limit: 1_000 });
    }
}

#[test]
fn where_long_lines_are_cut_their_beginning_counts_and_what_follows_keeps_its_place() {
    for length in [999, 1_000, 1_001, 1_002, 1_003, 400_000] {
        let text = [&b"first\n"[..], &vec![b'x'; length], b"\r\nnext\n"].concat();
        for packed in [gzip(&text), [gzip(&text[..500]), gzip(&text[500..])].concat()] {
            let read = read_on(Lines::gzip(1_000, Limits::NONE), &packed, &[7, 100]);
            assert_eq!(read.lines[1], (2, vec![b'x'; length.min(1_000)]), "{length}");
            assert_eq!(read.lines[2], (3, b"next".to_vec()), "{length}");
            assert_eq!(read.positions[1].offset, 6 + length as u64 + 2, "{length}");
            assert_eq!(read.cut, Vec::from_iter((length > 1_000).then_some(2)), "{length}");
        }
        // Wherever pieces end, also between CR and LF, the same lines are cut.
        for piece in [1, 2, 3, 499, 500, 501, 1_006, 1_007, 1_008] {
            let read = read_on(Lines::new(1_000).cutting(), &text, &[piece]);
            let cut = vec![b'x'; length.min(1_000)];
            assert_eq!(read.lines, [(1, b"first".to_vec()), (2, cut), (3, b"next".to_vec())], "{length} by {piece}");
            assert_eq!(read.cut, Vec::from_iter((length > 1_000).then_some(2)), "{length} by {piece}");
            let rest = read_on(Lines::resume(1_000, read.positions[1]).cutting(), &text, &[piece]);
            assert_eq!(rest.lines, [(3, b"next".to_vec())], "{length} by {piece}");
        }
        let endless = read_on(Lines::gzip(1_000, Limits::NONE), &gzip(&vec![b'x'; length]), &[100]);
        assert_eq!(endless.lines, [(1, vec![b'x'; length.min(1_000)])], "{length}");
        assert_eq!(endless.positions[0].offset, length as u64);
    }
}

fn unpacked(packed: &[u8], piece: usize, limits: Limits) -> (Vec<u8>, Option<GzipError>) {
    let mut reader = GunzipReader::new(BufReader::with_capacity(piece, packed), limits);
    let mut out = Vec::new();
    reader.read_to_end(&mut out).expect("memory does not fail");
    (out, reader.damage())
}

fn log(lines: u64) -> Vec<u8> {
    let line = |n: u64| format!("2024-07-01 line {n} of {}\n", n.wrapping_mul(2_654_435_761)).into_bytes();
    (0..lines).flat_map(line).collect()
}

#[test]
fn what_is_not_gzip_says_so() {
    for (bytes, name) in [
        (&b"plain text\n"[..], "NotGzip"),
        (b"\x1f\x8c", "NotGzip"),
        (b"", "GzipTruncated"),
        (b"\x1f", "GzipTruncated"),
        (b"\x1f\x8b\x09\0\0\0\0\0\0\0", "GzipCorrupt"),
    ] {
        assert_eq!(unpacked(bytes, 100, Limits::NONE).1.expect("damage").name(), name, "{bytes:?}");
    }
    let junk = [gzip(b"a\n"), b"junk".to_vec()].concat();
    assert_eq!(unpacked(&junk, 100, Limits::NONE).1.expect("damage").name(), "GzipCorrupt");
}

#[test]
fn a_file_cut_anywhere_gives_what_stands_before_the_cut() {
    let (whole, packed) = (log(300), gzip(&log(300)));
    for cut in 0..packed.len() {
        let (out, damage) = unpacked(&packed[..cut], 8192, Limits::NONE);
        assert_eq!(damage, Some(GzipError::Truncated), "{cut}");
        assert!(whole.starts_with(&out), "{cut}");
    }
    // Cut in the trailer: all of the text is there.
    assert_eq!(unpacked(&packed[..packed.len() - 3], 8192, Limits::NONE).0, whole);
}

/// Byte by byte in and out: the most that can be had before the damage.
fn all_before_the_damage(body: &[u8]) -> usize {
    let mut inflate = Decompress::new(false);
    let mut input = body;
    let mut byte = [0];
    loop {
        let (written, read) = (inflate.total_out(), inflate.total_in());
        let outcome = inflate.decompress(&input[..input.len().min(1)], &mut byte, FlushDecompress::None);
        input = &input[(inflate.total_in() - read) as usize..];
        match outcome {
            Ok(Status::Ok | Status::BufError) if !input.is_empty() || inflate.total_out() != written => {}
            _ => return inflate.total_out() as usize,
        }
    }
}

#[test]
fn a_flipped_bit_costs_nothing_before_it_and_never_passes() {
    let mut writer = GzBuilder::new().write(Vec::new(), Compression::default());
    let packed = writer.write_all(&log(3000)).and_then(|()| writer.finish()).expect("into memory");
    for at in (10..packed.len()).step_by(37) {
        let mut broken = packed.clone();
        broken[at] ^= 0x10;
        let (out, damage) = unpacked(&broken, 8192, Limits::NONE);
        assert!(damage.is_some(), "a bit in byte {at} went unnoticed");
        assert!(out.len() >= all_before_the_damage(&broken[10..]), "byte {at}: {} bytes", out.len());
    }
}

#[test]
fn a_bomb_is_stopped_by_ratio_and_by_size() {
    let (out, damage) = unpacked(&gzip(&vec![0; 100 << 20]), 8192, Limits { bytes: u64::MAX, ratio: 100 });
    assert_eq!(damage, Some(GzipError::Bomb));
    assert!(out.len() < 65 << 20);
    let (out, damage) = unpacked(&gzip(&log(10_000)), 64, Limits { bytes: 1_000, ratio: 100 });
    assert_eq!(damage, Some(GzipError::TooLarge));
    assert!(out.len() >= 1_000 && out.len() < 200_000);
}

#[test]
fn an_error_of_the_source_is_no_damage() {
    struct Broken<'a>(&'a [u8]);
    impl io::Read for Broken<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            match self.0.read(out)? {
                0 => Err(io::Error::other("connection lost")),
                n => Ok(n),
            }
        }
    }
    let packed = gzip(&log(3000));
    let mut reader = GunzipReader::new(BufReader::new(Broken(&packed[..packed.len() / 2])), Limits::NONE);
    assert_eq!(reader.read_to_end(&mut Vec::new()).expect_err("lost").to_string(), "connection lost");
    assert_eq!(reader.damage(), None);
}

/// Texts of short lines with all sorts of ends.
fn text() -> impl Strategy<Value = Vec<u8>> {
    const PARTS: [&[u8]; 7] = [b"\n", b"\r\n", b"\r", b"{}", b"\xef\xbb\xbf", b"\x1f\x8b", b"\xff"];
    vec(proptest::sample::select(&PARTS[..]), 0..40).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_text_in_any_pieces_gives_its_lines(text in text(), pieces in vec(1usize..9, 1..5)) {
        let read = read_on(Lines::new(LIMIT), &text, &pieces);
        prop_assume!(!text.starts_with(&[0x1f, 0x8b]));
        prop_assert_eq!((read.lines, read.damage), (expected(&text), None));
    }

    #[test]
    fn any_text_in_any_members_gives_its_lines(parts in vec(text(), 1..4), pieces in vec(1usize..70, 1..5)) {
        let file: Vec<u8> = parts.iter().flat_map(|part| gzip(part)).collect();
        let read = read_on(Lines::new(LIMIT), &file, &pieces);
        prop_assert_eq!((read.lines, read.damage), (expected(&parts.concat()), None));
    }

    #[test]
    fn a_reader_goes_on_where_another_stopped(text in text(), is_gzip: bool, stop: Index, pieces in vec(1usize..9, 1..5)) {
        prop_assume!(!text.starts_with(&[0x1f, 0x8b]));
        let file = if is_gzip { gzip(&text) } else { text.clone() };
        let whole = read(&file);
        prop_assume!(!whole.lines.is_empty());
        let stop = stop.index(whole.lines.len());
        let position = whole.positions[stop];
        let rest = read_on(Lines::resume(LIMIT, position), &file, &pieces);
        prop_assert_eq!(&rest.lines, &whole.lines[stop + 1..]);
    }

    #[test]
    fn a_cut_archive_gives_a_prefix_of_its_lines(text in text(), length: Index) {
        let file = gzip(&text);
        let cut = &file[..length.index(file.len())];
        let whole = expected(&text);
        let read = read(cut);
        // Nothing of a text that ends in the middle of a line is taken for a line.
        let ended = whole.len() - usize::from(!text.ends_with(b"\n") && !whole.is_empty());
        if cut.len() >= 2 {
            prop_assert!(read.damage.is_some());
            prop_assert!(read.lines.len() <= ended);
            prop_assert_eq!(&read.lines[..], &whole[..read.lines.len()]);
        }
    }

    #[test]
    fn any_bytes_come_to_an_end(body in vec(any::<u8>(), 0..300), flip: Index) {
        let mut member = gzip(&body);
        let at = flip.index(member.len());
        member[at] ^= 0x10;
        for file in [body.clone(), [&[0x1f, 0x8b][..], &body].concat(), [&[0x1f, 0x8b, 8, 0][..], &body].concat(), member] {
            read(&file);
        }
    }
}
