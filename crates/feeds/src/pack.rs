//! Records of many files go into few objects. The records of one file stay in their order: an object is only added to
//! until the next record does not fit, and then there is a next object with a greater number.

use crate::key::{QUARANTINE, date_path};
use bytes::Bytes;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Write;

/// The most that an output object may hold, in bytes: 500 KB. A larger record has an object of its own.
pub const OUTPUT_BYTES: usize = 500_000;

/// In the order in which outputs are numbered and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rank {
    Priority,
    Other,
    Quarantine,
}

/// Records with the same destination share objects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination {
    pub rank: Rank,
    pub content_type: String,
    pub date: Date,
}

impl Destination {
    /// `number` is in microseconds since 1970, and no other output has it.
    fn key(&self, number: u64, format: Format) -> String {
        let Destination { rank, content_type, date } = self;
        let path = format!("{content_type}/{}", date_path(*date));
        match rank {
            Rank::Quarantine => format!("{QUARANTINE}/{path}/quarantined-{number:016}.jsonl"),
            Rank::Priority | Rank::Other => format!("{path}/output_object-{number:016}.{}", format.extension()),
        }
    }
}

/// How outputs are written; quarantine objects are always plain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Plain,
    Gzip,
}

impl Format {
    fn extension(self) -> &'static str {
        match self {
            Format::Plain => "jsonl",
            Format::Gzip => "jsonl.gz",
        }
    }
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Format::Plain),
            "gzip" => Ok(Format::Gzip),
            _ => Err(format!("{text} is neither none nor gzip")),
        }
    }
}

/// An output object as an intent names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    pub key: String,
    pub rank: Rank,
    pub bytes: u64,
    /// Hex.
    pub sha256: String,
    /// Records, or quarantined lines.
    pub lines: u64,
    /// What it holds of which part, in order.
    pub spans: Vec<LineRange>,
}

/// Consecutive lines of one part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineRange {
    /// Position in the intent's list of parts.
    pub part: usize,
    pub lines: u64,
}

/// Outputs that are being filled.
#[derive(Default)]
pub struct Pack {
    outputs: BTreeMap<Destination, Vec<Filling>>,
    bytes: usize,
    count: usize,
}

#[derive(Default)]
struct Filling {
    bytes: Vec<u8>,
    lines: u64,
    spans: Vec<LineRange>,
}

impl Pack {
    /// In memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Output objects so far.
    pub fn outputs(&self) -> usize {
        self.count
    }

    /// Adds a line, without its end. `true` when it is too large for any object but one of its own.
    pub fn add(&mut self, destination: &Destination, part: usize, line: &[u8]) -> bool {
        let length = line.len() + 1;
        if !self.outputs.contains_key(destination) {
            self.outputs.insert(destination.clone(), Vec::new());
        }
        let outputs = self.outputs.get_mut(destination).expect("it is there or was put there");
        if outputs.last().is_none_or(|last| last.bytes.len() + length > OUTPUT_BYTES) {
            // Where one is full, the next will be: it is not grown step by step.
            let capacity = if outputs.is_empty() { length } else { length.max(OUTPUT_BYTES) };
            outputs.push(Filling { bytes: Vec::with_capacity(capacity), ..Filling::default() });
            self.count += 1;
        }
        let last = outputs.last_mut().expect("it is there or was put there");
        last.bytes.extend_from_slice(line);
        last.bytes.push(b'\n');
        last.lines += 1;
        match last.spans.last_mut() {
            Some(span) if span.part == part => span.lines += 1,
            _ => last.spans.push(LineRange { part, lines: 1 }),
        }
        self.bytes += length;
        length > OUTPUT_BYTES
    }

    /// The outputs, numbered from `first`, priority partners' in front, and what each holds.
    pub fn seal(self, first: u64, format: Format) -> Vec<(Output, Bytes)> {
        let fillings = self.outputs.into_iter().flat_map(|(destination, fillings)| {
            fillings.into_iter().map(move |filling| (destination.clone(), filling))
        });
        let sealed = (first..).zip(fillings).map(|(number, (destination, filling))| {
            let is_plain = format == Format::Plain || destination.rank == Rank::Quarantine;
            let body = if is_plain { filling.bytes } else { gzip(&filling.bytes) };
            let output = Output {
                key: destination.key(number, format),
                rank: destination.rank,
                bytes: body.len() as u64,
                sha256: hex::encode(Sha256::digest(&body)),
                lines: filling.lines,
                spans: filling.spans,
            };
            (output, Bytes::from(body))
        });
        sealed.collect()
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory takes every byte")
}

/// The number in an output's key.
pub fn number_of(key: &str) -> Option<u64> {
    let name = key.rsplit('/').next()?;
    let name = name.strip_prefix("output_object-").or_else(|| name.strip_prefix("quarantined-"))?;
    name.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};
    use std::io::Read;

    const NUMBER: u64 = 1_763_733_600_000_000;

    fn destination(rank: Rank, content_type: &str, day: i8) -> Destination {
        Destination { rank, content_type: content_type.to_owned(), date: Date::constant(2026, 11, day) }
    }

    #[test]
    fn priority_partners_come_first_and_in_objects_of_their_own() {
        let mut pack = Pack::default();
        let (priority, other) = (destination(Rank::Priority, "offers", 21), destination(Rank::Other, "offers", 21));
        pack.add(&other, 0, b"{}");
        pack.add(&destination(Rank::Quarantine, "offers", 21), 0, b"{\"object\":1}");
        pack.add(&destination(Rank::Other, "offers", 3), 1, b"{}");
        pack.add(&priority, 2, b"{\"a\":1}");
        let keys: Vec<_> =
            pack.seal(NUMBER, Format::Plain).into_iter().map(|(output, body)| (output.key, body)).collect();
        let folder = "offers/year=2026/month=11";
        assert_eq!(
            keys,
            [
                (format!("{folder}/day=21/output_object-1763733600000000.jsonl"), Bytes::from("{\"a\":1}\n")),
                (format!("{folder}/day=03/output_object-1763733600000001.jsonl"), Bytes::from("{}\n")),
                (format!("{folder}/day=21/output_object-1763733600000002.jsonl"), Bytes::from("{}\n")),
                (
                    format!("quarantine/{folder}/day=21/quarantined-1763733600000003.jsonl"),
                    Bytes::from("{\"object\":1}\n")
                ),
            ]
        );
        assert_eq!(number_of(&keys[1].0), Some(NUMBER + 1));
    }

    #[test]
    fn an_object_holds_500_000_bytes_and_a_larger_record_stands_alone() {
        let other = destination(Rank::Other, "offers", 21);
        let mut pack = Pack::default();
        let sizes = [OUTPUT_BYTES - 4, 3, 4, OUTPUT_BYTES, OUTPUT_BYTES - 1, 2, 600_000, 2];
        let large: Vec<bool> = sizes.iter().map(|size| pack.add(&other, 0, &vec![b'x'; *size])).collect();
        assert_eq!(large, [false, false, false, true, false, false, true, false]);
        let outputs = pack.seal(NUMBER, Format::Plain);
        let bytes: Vec<u64> = outputs.iter().map(|(output, _)| output.bytes).collect();
        assert_eq!(bytes, [500_000 - 3, 9, 500_001, 500_000, 3, 600_001, 3]);
    }

    #[test]
    fn compressed_outputs_unpack_to_the_same_lines() {
        let mut pack = Pack::default();
        pack.add(&destination(Rank::Other, "offers", 21), 0, b"{}");
        let (output, body) = pack.seal(NUMBER, Format::Gzip).remove(0);
        assert!(output.key.ends_with("/output_object-1763733600000000.jsonl.gz"));
        assert_eq!(number_of(&output.key), Some(NUMBER));
        let mut text = String::new();
        flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text).expect("gzip");
        assert_eq!(text, "{}\n");
    }

    proptest! {
        #[test]
        fn every_line_is_there_once_and_a_file_keeps_its_order(
            lines in vec((0usize..6, prop_oneof![1usize..50, 100_000usize..300_000, 499_990usize..500_010]), 0..25),
        ) {
            let ranks = [Rank::Priority, Rank::Other, Rank::Quarantine];
            let mut pack = Pack::default();
            let mut expected: BTreeMap<usize, Vec<Vec<u8>>> = BTreeMap::new();
            for (at, (part, size)) in lines.iter().enumerate() {
                let mut line = format!("{at}").into_bytes();
                line.resize(line.len().max(*size), b'x');
                pack.add(&destination(ranks[part % 3], "offers", 21), *part, &line);
                expected.entry(*part).or_default().push(line);
            }
            let (bytes, count) = (pack.bytes(), pack.outputs());
            let sealed = pack.seal(NUMBER, Format::Plain);
            prop_assert_eq!(count, sealed.len());
            prop_assert_eq!(bytes, sealed.iter().map(|(_, body)| body.len()).sum::<usize>());
            let mut found: BTreeMap<usize, Vec<Vec<u8>>> = BTreeMap::new();
            for (position, (output, body)) in sealed.iter().enumerate() {
                prop_assert_eq!(number_of(&output.key), Some(NUMBER + position as u64));
                prop_assert!(output.bytes <= OUTPUT_BYTES as u64 || output.lines == 1);
                prop_assert_eq!(output.bytes, body.len() as u64);
                let mut lines = body.split_inclusive(|byte| *byte == b'\n');
                for span in &output.spans {
                    prop_assert_eq!(ranks[span.part % 3], output.rank);
                    for line in lines.by_ref().take(span.lines as usize) {
                        found.entry(span.part).or_default().push(line[..line.len() - 1].to_vec());
                    }
                }
                prop_assert!(lines.next().is_none());
            }
            prop_assert_eq!(found, expected);
        }
    }
}
