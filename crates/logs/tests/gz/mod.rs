//! A text as a gz object, and its entries.

use flate2::{Compression, write::GzEncoder};
use logs::{Entry, Limits, Settings, Summary, extract};
use std::io::Write;

pub fn gz(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).expect("memory");
    encoder.finish().expect("memory")
}

pub fn read(text: &[u8], key: &str, settings: &Settings) -> (Vec<Entry>, Summary) {
    let mut entries = Vec::new();
    let summary = extract::<std::io::Error>(&gz(text)[..], key, settings, Limits::default(), |entry| {
        entries.push(entry);
        Ok(())
    });
    entries.sort_by_key(|entry| entry.line);
    (entries, summary.expect("memory"))
}

#[allow(dead_code)] // Not every test needs it.
pub fn entries(text: &[u8], key: &str) -> Vec<Entry> {
    read(text, key, &Settings::built_in()).0
}
