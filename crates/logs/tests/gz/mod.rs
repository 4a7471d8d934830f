//! A text as a gz object, and its entries.

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use logs::{Entry, Extraction, LIMITS, ObjectStats, Settings};
use std::io::Write;

pub fn gz(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).expect("memory");
    encoder.finish().expect("memory")
}

pub fn read(text: &[u8], key: &str, settings: &Settings) -> (Vec<Entry>, ObjectStats) {
    read_packed(&gz(text), key, settings)
}

pub fn read_packed(packed: &[u8], key: &str, settings: &Settings) -> (Vec<Entry>, ObjectStats) {
    let mut extraction = Extraction::new(key, settings, LIMITS);
    let mut pieces = packed.chunks(10_000);
    let mut entries = Vec::new();
    while !extraction.is_over() {
        match pieces.next() {
            Some(piece) => extraction.feed(Bytes::copy_from_slice(piece)),
            None => extraction.end(),
        }
        while let Some(entry) = extraction.next_entry() {
            entries.push(entry);
        }
    }
    entries.sort_by_key(|entry| entry.line);
    (entries, extraction.summary())
}

#[allow(dead_code)] // Not every test needs it.
pub fn entries(text: &[u8], key: &str) -> Vec<Entry> {
    read(text, key, &Settings::built_in()).0
}
